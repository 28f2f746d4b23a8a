// SPDX-License-Identifier: MIT
/*
 * An error is -(kind << 20 | detail << 16 | errno): one negative int, so that `if (error) return
 * error;` is all that a driver needs to keep the identity.
 */
#include "core/error.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ERRNO_BITS  16
#define DETAIL_BITS 4
#define ERRNO_MAX   4095

static int error_encode(enum error_kind kind, unsigned detail, int errnum)
{
	if (errnum < 0 || errnum > ERRNO_MAX)
		errnum = EIO;
	return -(int)((unsigned)kind << (ERRNO_BITS + DETAIL_BITS) | detail << ERRNO_BITS |
		      (unsigned)errnum);
}

int error_of(enum error_kind kind)
{
	return error_encode(kind, 0, 0);
}

int error_io(int errnum)
{
	return error_encode(ERROR_IO, 0, errnum > 0 ? errnum : EIO);
}

int error_medium(int errnum, enum medium_detail detail)
{
	return error_encode(ERROR_MEDIUM, detail, errnum > 0 ? errnum : EIO);
}

enum error_kind error_kind(int error)
{
	return (enum error_kind)((unsigned)-error >> (ERRNO_BITS + DETAIL_BITS));
}

enum medium_detail error_medium_detail(int error)
{
	return (enum medium_detail)((unsigned)-error >> ERRNO_BITS & ((1U << DETAIL_BITS) - 1));
}

int error_errno(int error)
{
	return (int)((unsigned)-error & ((1U << ERRNO_BITS) - 1));
}

/*
 * Kind by kind, what a program that uses a file can make sense of. ERROR_IO keeps the system's own
 * errno, so a full file system below is ENOSPC above. Protection-information failures are EILSEQ,
 * as in the block layer; a conflict of reservations is EBADE, as there.
 */
int error_to_errno(int error)
{
	switch (error_kind(error)) {
	case ERROR_NONE:
		return 0;
	case ERROR_ILLEGAL_BLOCK:
		return ENXIO;
	case ERROR_INVALID_INPUT:
		return EINVAL;
	case ERROR_IO:
		return error_errno(error);
	case ERROR_MEDIUM:
		return error_medium_detail(error) == MEDIUM_UNRECOVERED_READ ||
				       error_medium_detail(error) == MEDIUM_WRITE_FAULT
			       ? EIO
			       : EILSEQ;
	case ERROR_READ_ONLY:
		return EROFS;
	case ERROR_RESERVATION_CONFLICT:
		return EBADE;
	case ERROR_ABORTED:
		return ECANCELED;
	case ERROR_UNSUPPORTED:
		return EOPNOTSUPP;
	case ERROR_KINDS:
		break;
	}
	return EIO;
}

/* "EIO", or the number of one that has no name. */
static const char *errno_name(char number[static 12], int errnum)
{
	const char *name = strerrorname_np(errnum);

	snprintf(number, 12, "%d", errnum);
	return name ? name : number;
}

const char *error_describe(char text[static 80], int error)
{
	static const char *const kinds[ERROR_KINDS] = {
		[ERROR_NONE] = "no error",
		[ERROR_ILLEGAL_BLOCK] = "illegal block",
		[ERROR_INVALID_INPUT] = "invalid input",
		[ERROR_IO] = "I/O error",
		[ERROR_MEDIUM] = "medium error",
		[ERROR_READ_ONLY] = "read-only",
		[ERROR_RESERVATION_CONFLICT] = "reservation conflict",
		[ERROR_ABORTED] = "aborted",
		[ERROR_UNSUPPORTED] = "unsupported",
	};
	static const char *const details[MEDIUM_DETAILS] = {
		[MEDIUM_UNRECOVERED_READ] = "unrecovered read",
		[MEDIUM_WRITE_FAULT] = "write fault",
		[MEDIUM_GUARD_CHECK] = "guard check failed",
		[MEDIUM_APPLICATION_TAG_CHECK] = "application tag check failed",
		[MEDIUM_REFERENCE_TAG_CHECK] = "reference tag check failed",
	};
	enum error_kind kind = error_kind(error);
	char number[12];

	if (kind >= ERROR_KINDS)
		snprintf(text, 80, "unknown error %d", error);
	else if (kind == ERROR_MEDIUM && error_medium_detail(error) < MEDIUM_DETAILS)
		snprintf(text, 80, "%s (%s, %s)", kinds[kind], details[error_medium_detail(error)],
			 errno_name(number, error_errno(error)));
	else if (kind == ERROR_IO)
		snprintf(text, 80, "%s (%s)", kinds[kind], errno_name(number, error_errno(error)));
	else
		snprintf(text, 80, "%s", kinds[kind]);
	return text;
}

static int err_fill(struct err *err, const char *key, const char *format, va_list arguments)
	__attribute__((format(printf, 3, 0)));

static int err_fill(struct err *err, const char *key, const char *format, va_list arguments)
{
	/* By way of a copy, since the arguments may be parts of the err itself. */
	struct err filled;

	snprintf(filled.key, sizeof(filled.key), "%s", key);
	vsnprintf(filled.text, sizeof(filled.text), format, arguments);
	*err = filled;
	return -1;
}

int err_set(struct err *err, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	int result = err_fill(err, "", format, arguments);
	va_end(arguments);
	return result;
}

int err_set_key(struct err *err, const char *key, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	int result = err_fill(err, key, format, arguments);
	va_end(arguments);
	return result;
}
