/* SPDX-License-Identifier: MIT */
/*
 * The ioctls of persistent reservations, as in linux/pr.h, which has the last two since Linux 7.0,
 * and whose names are those of core/pr.h.
 */
#ifndef CORE_PR_ABI_H
#define CORE_PR_ABI_H

#include <linux/ioctl.h>
#include <stdint.h>

struct pr_abi_registration {
	uint64_t old_key, new_key;
	uint32_t flags, pad;
};

struct pr_abi_reservation {
	uint64_t key;
	uint32_t type, flags;
};

struct pr_abi_preempt {
	uint64_t old_key; /* the caller's */
	uint64_t new_key; /* the victim's */
	uint32_t type, flags;
};

struct pr_abi_clear {
	uint64_t key;
	uint32_t flags, pad;
};

struct pr_abi_read_keys {
	uint32_t generation;
	uint32_t num_keys; /* in: how many there is room for; out: how many there are */
	uint64_t keys_ptr;
};

struct pr_abi_read_reservation {
	uint64_t key;
	uint32_t generation, type;
};

#define PR_ABI_IGNORE_KEY	1U

#define PR_ABI_REGISTER		_IOW('p', 200, struct pr_abi_registration)
#define PR_ABI_RESERVE		_IOW('p', 201, struct pr_abi_reservation)
#define PR_ABI_RELEASE		_IOW('p', 202, struct pr_abi_reservation)
#define PR_ABI_PREEMPT		_IOW('p', 203, struct pr_abi_preempt)
#define PR_ABI_PREEMPT_ABORT	_IOW('p', 204, struct pr_abi_preempt)
#define PR_ABI_CLEAR		_IOW('p', 205, struct pr_abi_clear)
#define PR_ABI_READ_KEYS	_IOWR('p', 206, struct pr_abi_read_keys)
#define PR_ABI_READ_RESERVATION _IOR('p', 207, struct pr_abi_read_reservation)

#endif
