// SPDX-License-Identifier: MIT
#include "backends/prwrap/reservations.h"
#include <string.h>
#include "core/error.h"

static bool is_registered(const struct reservations *reservations, unsigned nexus)
{
	return reservations->keys[nexus] != 0;
}

bool reservations_holds(const struct reservations *reservations, unsigned nexus)
{
	if (reservations->type == PR_NONE || !is_registered(reservations, nexus))
		return false;
	return pr_type_is_all_registrants(reservations->type) || reservations->holder == nexus;
}

bool reservations_allow(const struct reservations *reservations, unsigned nexus, enum access access)
{
	switch (reservations->type) {
	case PR_WRITE_EXCLUSIVE:
		return access == ACCESS_READ || reservations_holds(reservations, nexus);
	case PR_EXCLUSIVE_ACCESS:
		return reservations_holds(reservations, nexus);
	case PR_WRITE_EXCLUSIVE_REGISTRANTS_ONLY:
	case PR_WRITE_EXCLUSIVE_ALL_REGISTRANTS:
		return access == ACCESS_READ || is_registered(reservations, nexus);
	case PR_EXCLUSIVE_ACCESS_REGISTRANTS_ONLY:
	case PR_EXCLUSIVE_ACCESS_ALL_REGISTRANTS:
		return is_registered(reservations, nexus);
	case PR_NONE:
	case PR_TYPES:
		break;
	}
	return true;
}

bool reservations_equal(const struct reservations *a, const struct reservations *b)
{
	return a->persist == b->persist && a->type == b->type && a->holder == b->holder &&
	       memcmp(a->keys, b->keys, sizeof(a->keys)) == 0;
}

/* ---- Changes. ---- */

static void set_reservation(struct reservations *reservations, unsigned nexus, enum pr_type type)
{
	reservations->type = type;
	reservations->holder = type == PR_NONE || pr_type_is_all_registrants(type) ? 0 : nexus;
}

static bool somebody_is_registered(const struct reservations *reservations)
{
	for (unsigned i = 0; i < NEXUS_MAX; i++)
		if (is_registered(reservations, i))
			return true;
	return false;
}

/* With its last holder the reservation goes. */
static void unregister(struct reservations *reservations, unsigned nexus)
{
	bool held = reservations_holds(reservations, nexus);

	reservations->keys[nexus] = 0;
	if (held && (!pr_type_is_all_registrants(reservations->type) ||
		     !somebody_is_registered(reservations)))
		set_reservation(reservations, 0, PR_NONE);
}

static int do_register(struct reservations *reservations, unsigned nexus,
		       const struct change *change)
{
	bool ignore = change->flags & PR_IGNORE_KEY;

	if ((change->flags & PR_SET_PTPL) && (change->flags & PR_CLEAR_PTPL))
		return error_of(ERROR_INVALID_INPUT);
	/* Whoever is not registered has the key 0. */
	if (!ignore && change->key != reservations->keys[nexus])
		return error_of(ERROR_RESERVATION_CONFLICT);
	if (!is_registered(reservations, nexus) && change->other_key == 0)
		return 0; /* "do nothing": the generation and APTPL stay, too */
	if (change->other_key == 0)
		unregister(reservations, nexus);
	else
		reservations->keys[nexus] = change->other_key;
	if (change->flags & (PR_SET_PTPL | PR_CLEAR_PTPL))
		reservations->persist = change->flags & PR_SET_PTPL;
	reservations->generation++;
	return 0;
}

static bool is_type(enum pr_type type)
{
	return type > PR_NONE && type < PR_TYPES;
}

static int do_reserve(struct reservations *reservations, unsigned nexus,
		      const struct change *change)
{
	if (!is_type(change->type))
		return error_of(ERROR_INVALID_INPUT);
	if (reservations->type == PR_NONE) {
		set_reservation(reservations, nexus, change->type);
		return 0;
	}
	return reservations_holds(reservations, nexus) && reservations->type == change->type
		       ? 0
		       : error_of(ERROR_RESERVATION_CONFLICT);
}

static int do_release(struct reservations *reservations, unsigned nexus,
		      const struct change *change)
{
	if (!is_type(change->type))
		return error_of(ERROR_INVALID_INPUT);
	if (!reservations_holds(reservations, nexus))
		return 0; /* there is nothing of its own to release */
	if (reservations->type != change->type)
		return error_of(ERROR_INVALID_INPUT);
	set_reservation(reservations, 0, PR_NONE);
	return 0;
}

static int do_clear(struct reservations *reservations)
{
	memset(reservations->keys, 0, sizeof(reservations->keys));
	set_reservation(reservations, 0, PR_NONE);
	reservations->generation++;
	return 0;
}

/* Those who have @key, or all registrants for 0. False: there are none. */
static bool find_registrants(const struct reservations *reservations, uint64_t key,
			     struct nexus_set *found)
{
	bool any = false;

	for (unsigned i = 0; i < NEXUS_MAX; i++) {
		if (!is_registered(reservations, i) || (key && reservations->keys[i] != key))
			continue;
		found->has[i] = any = true;
	}
	return any;
}

/* Whether @key tells the one who holds the reservation: by its own key, or 0 for all registrants.
 */
static bool identifies_holder(const struct reservations *reservations, uint64_t key)
{
	if (pr_type_is_all_registrants(reservations->type))
		return key == 0;
	return reservations->type != PR_NONE && reservations->keys[reservations->holder] == key;
}

static int do_preempt(struct reservations *reservations, unsigned nexus,
		      const struct change *change, struct nexus_set *preempted)
{
	uint64_t key = change->other_key;
	bool replace = identifies_holder(reservations, key);

	if (replace && !is_type(change->type))
		return error_of(ERROR_INVALID_INPUT);
	if (key == 0 && !replace)
		return error_of(reservations->type == PR_NONE ? ERROR_RESERVATION_CONFLICT
							      : ERROR_INVALID_INPUT);
	if (!find_registrants(reservations, key, preempted))
		return error_of(ERROR_RESERVATION_CONFLICT);
	/* The one that asks keeps its registration if it takes the reservation over. */
	for (unsigned i = 0; i < NEXUS_MAX; i++)
		if (preempted->has[i] && !(replace && i == nexus))
			unregister(reservations, i);
	if (replace)
		set_reservation(reservations, nexus, change->type);
	reservations->generation++;
	return 0;
}

int reservations_change(struct reservations *reservations, unsigned nexus,
			const struct change *change, struct nexus_set *preempted)
{
	static const unsigned known_flags[] = {
		[CHANGE_REGISTER] = PR_IGNORE_KEY | PR_SET_PTPL | PR_CLEAR_PTPL,
		[CHANGE_RESERVE] = 0,
		[CHANGE_RELEASE] = 0,
		[CHANGE_CLEAR] = 0,
		[CHANGE_PREEMPT] = PR_ABORT,
	};

	if (change->flags & ~known_flags[change->kind])
		return error_of(ERROR_INVALID_INPUT);
	if (change->kind == CHANGE_REGISTER)
		return do_register(reservations, nexus, change);
	if (!is_registered(reservations, nexus) || change->key != reservations->keys[nexus])
		return error_of(ERROR_RESERVATION_CONFLICT);
	switch (change->kind) {
	case CHANGE_RESERVE:
		return do_reserve(reservations, nexus, change);
	case CHANGE_RELEASE:
		return do_release(reservations, nexus, change);
	case CHANGE_CLEAR:
		return do_clear(reservations);
	case CHANGE_PREEMPT:
		return do_preempt(reservations, nexus, change, preempted);
	case CHANGE_REGISTER:
		break;
	}
	return error_of(ERROR_INVALID_INPUT);
}
