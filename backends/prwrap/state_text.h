/* SPDX-License-Identifier: MIT */
/*
 * The text of a state file: what is to be known of reservations after a restart.
 *
 *	diskfs reservations 1
 *	persist yes
 *	registrant 0x00000000000000a1 a.img
 *	registrant 0x00000000000000b2 b.img
 *	reservation write-exclusive a.img
 *	checksum 0x7f3b90c1
 *
 * The number is the version. Without persistence there are no registrants. An all registrants
 * reservation names nobody. The checksum is the CRC-32 (ISO 3309) of all bytes before its line.
 */
#ifndef BACKENDS_PRWRAP_STATE_TEXT_H
#define BACKENDS_PRWRAP_STATE_TEXT_H

#include "backends/prwrap/reservations.h"
#include "core/error.h"

#define NEXUS_NAME_MAX 255U

/* The longest text that there can be, with room to spare. */
#define STATE_TEXT_MAX (64 * KIB)

/* The names of the nexuses; owned. */
struct nexus_names {
	unsigned count;
	char *names[NEXUS_MAX];
};

/* The nexus called @name, which is added if it is new; NEXUS_MAX: there is no room for it. */
unsigned nexus_names_add(struct nexus_names *names, const char *name);
void nexus_names_free(struct nexus_names *names);

/* The text, of *length bytes, to be freed; NULL: no memory. */
char *state_text(const struct reservations *reservations, const struct nexus_names *names,
		 size_t *length);

/*
 * The reverse, into zeroed @reservations and @names. @path is for messages. -1 with a sentence in
 * @err where anything is not as state_text() writes it.
 */
int state_parse(const char *text, size_t length, const char *path,
		struct reservations *reservations, struct nexus_names *names, struct err *err);

#endif
