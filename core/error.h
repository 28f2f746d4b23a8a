/* SPDX-License-Identifier: MIT */
/*
 * Errors, of two sorts.
 *
 * On the data path an error is a negative int that keeps its *identity*: what kind of failure it
 * was and, where the system gave one, the errno beneath. Drivers hand it upwards unchanged; only
 * the file interface turns it into an errno, by the one table in error.c. 0 is success, and there
 * is no partial success: an operation does all or fails.
 *
 * On cold paths (options, open) an error is a sentence for a person: struct err.
 */
#ifndef CORE_ERROR_H
#define CORE_ERROR_H

#include "core/util.h"

enum error_kind {
	ERROR_NONE,
	ERROR_ILLEGAL_BLOCK,	    /* sectors outside the disk, or not representable */
	ERROR_INVALID_INPUT,	    /* malformed request or argument */
	ERROR_IO,		    /* the system failed; carries its errno */
	ERROR_MEDIUM,		    /* the medium failed; carries an errno and a detail */
	ERROR_READ_ONLY,	    /* change of a read-only disk */
	ERROR_RESERVATION_CONFLICT, /* refused by a persistent reservation */
	ERROR_ABORTED,		    /* aborted by another host's preempt-and-abort */
	ERROR_UNSUPPORTED,	    /* this disk has no such operation */
	ERROR_KINDS
};

enum medium_detail {
	MEDIUM_UNRECOVERED_READ,
	MEDIUM_WRITE_FAULT,
	MEDIUM_GUARD_CHECK,
	MEDIUM_APPLICATION_TAG_CHECK,
	MEDIUM_REFERENCE_TAG_CHECK,
	MEDIUM_DETAILS
};

/* An error that carries no errno: every kind but ERROR_IO and ERROR_MEDIUM. Never 0. */
int error_of(enum error_kind kind);

/* @errnum is positive; one out of the range of errno (1..4095) becomes EIO. Never 0. */
int error_io(int errnum);
int error_medium(int errnum, enum medium_detail detail);

/* Parts of an error; of 0 they are ERROR_NONE and 0. */
enum error_kind error_kind(int error);
enum medium_detail error_medium_detail(int error);
int error_errno(int error);

/* The positive errno that a user of a file expects for @error; 0 for 0. */
int error_to_errno(int error);

/* Writes "medium (unrecovered read, EIO)" or the like into @text and returns @text. */
const char *error_describe(char text[static 80], int error);

/*
 * A sentence for a person, without a trailing stop: "cannot open '/srv/a.raw': No such file or
 * directory".
 * @key names the option that is to blame, or is empty; whoever knows the file and line puts them in
 * front.
 */
struct err {
	char key[48];
	char text[600];
};

/* Both replace what the err held and return -1, so that a caller can `return err_set(...)`. */
int err_set(struct err *err, const char *format, ...) PRINTF_LIKE(2, 3);
int err_set_key(struct err *err, const char *key, const char *format, ...) PRINTF_LIKE(3, 4);

#endif
