/* SPDX-License-Identifier: MIT */
/*
 * The list after -o: settings of the [diskfs] section, which it overrides; options of the kernel's
 * and libfuse's mount; and words of fstab that concern only mount(8).
 */
#ifndef FS_OPTIONS_H
#define FS_OPTIONS_H

#include "fs/settings.h"

/*
 * Applies the settings in @list ("cache=none,ro") to @settings, and returns the other mount options
 * as one allocated string, perhaps empty. NULL: something is wrong, with a sentence in @err.
 */
char *mount_options_apply(const char *list, struct settings *settings, struct err *err);

#endif
