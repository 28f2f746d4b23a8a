// SPDX-License-Identifier: MIT
#include "fs/options.h"
#include <stdlib.h>
#include <string.h>

/* Handed to the mount as they are. */
static const char *const mount_words[] = {
	"ro",	 "rw",	    "suid", "nosuid", "dev",	 "nodev",	 "exec", "noexec",
	"atime", "noatime", "sync", "async",  "dirsync", "auto_unmount", NULL,
};

/* For mount(8) alone; or about access times and symbolic links, which no mount of ours keeps. */
static const char *const ignored_words[] = {
	"defaults", "auto",	  "noauto",	"user",	       "nouser",
	"users",    "owner",	  "nofail",	"_netdev",     "silent",
	"loud",	    "relatime",	  "norelatime", "strictatime", "nostrictatime",
	"diratime", "nodiratime", "lazytime",	"nolazytime",  "nosymfollow",
	NULL,
};

static bool is_one_of(const char *const *words, const char *word)
{
	while (*words && strcmp(*words, word) != 0)
		words++;
	return *words;
}

/* A setting alone means yes: allow_other. */
static int apply_setting(const struct option *option, const char *value, struct settings *settings,
			 struct err *err)
{
	if (!value && option->type == OPTION_BOOL)
		value = "yes";
	if (!value)
		return err_set_key(err, option->name, "has no value");
	return option_parse(option, value, NULL, settings, err);
}

static int apply_word(char *word, struct settings *settings, char *mount_options, struct err *err)
{
	char *value = strchr(word, '=');

	if (value)
		*value++ = '\0';

	const struct option *option = option_find(settings_options, word);

	if (option)
		return apply_setting(option, value, settings, err);
	if (!value && is_one_of(mount_words, word)) {
		if (*mount_options)
			strcat(mount_options, ",");
		strcat(mount_options, word);
		return 0;
	}
	if (is_one_of(ignored_words, word) || strncmp(word, "x-", 2) == 0)
		return 0;

	const struct option *tables[] = {settings_options};
	const char *nearest = option_suggest(tables, 1, word);

	return err_set(err, "-o: unknown option '%s'%s%s%s", word,
		       nearest ? " (did you mean '" : "", nearest ? nearest : "",
		       nearest ? "'?)" : "");
}

char *mount_options_apply(const char *list, struct settings *settings, struct err *err)
{
	char *words = strdup(list);
	char *mount_options = calloc(1, strlen(list) + 1); /* never longer than the list */
	char *rest = words;
	char *word;
	int result = 0;

	if (!words || !mount_options)
		result = err_set(err, "out of memory");
	while (result == 0 && (word = strsep(&rest, ",")))
		if (*word)
			result = apply_word(word, settings, mount_options, err);
	free(words);
	if (result == 0)
		return mount_options;
	free(mount_options);
	return NULL;
}
