/* SPDX-License-Identifier: MIT */
/*
 * The strict scan of a configuration's lines, in front of the INI parser. Private to ini.c.
 */
#ifndef CONF_SCAN_H
#define CONF_SCAN_H

#include "conf/ini.h"

/*
 * Scans the @length bytes and the NUL at @text. Returns the sections with the values that the INI
 * parser must find, or NULL after at least one line on @errors. Blanks in @text what the parser
 * does not understand but the scan allows. The caller frees it by ini_free().
 */
struct ini *ini_scan(const char *path, char *text, size_t length, FILE *errors);

#endif
