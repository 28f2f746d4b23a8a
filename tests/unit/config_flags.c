// SPDX-License-Identifier: MIT
/* How the disks of a configuration are opened: which of them, and with which flags. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "conf/config.h"
#include "core/layer.h"
#include "core/worker.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"

/* ---- Drivers that note with which flags they are opened. ---- */

static char opened[1000];

static const char *flags_text(unsigned flags, char text[static 8])
{
	static const struct {
		unsigned flag;
		char letter;
	} letters[] = {
		{DISK_OPEN_READ_ONLY, 'r'},	{DISK_OPEN_CHECK, 'c'},
		{DISK_OPEN_LAYER, 'l'},		{DISK_OPEN_CACHE, 'k'},
		{DISK_OPEN_WRITE_THROUGH, 't'}, {DISK_OPEN_COMMAND, 'x'},
	};
	size_t length = 0;

	for (size_t i = 0; i < ARRAY_SIZE(letters); i++)
		if (flags & letters[i].flag)
			text[length++] = letters[i].letter;
	text[length] = '\0';
	return text;
}

static int note_open(struct disk *disk, struct err *err)
{
	size_t used = strlen(opened);
	char text[8];

	(void)err;
	disk->geometry.sector_size = 512;
	disk->geometry.physical_sector_size = 512;
	disk_set_sector_count(disk, 8);
	snprintf(opened + used, sizeof(opened) - used, "%s%s:%s", used ? " " : "", disk->name,
		 flags_text(disk->open_flags, text));
	return 0;
}

static void note_close(struct disk *disk)
{
	(void)disk;
}

static int attach(struct disk *disk, struct disk *below, unsigned role, struct err *err)
{
	(void)disk, (void)below, (void)role, (void)err;
	return 0;
}

/* The first is written, of the others those called c... are caches. */
static unsigned below_flags(const void *config, unsigned open_flags, const char *const *names,
			    unsigned index)
{
	(void)config;
	if (names[index][0] == 'c')
		return DISK_OPEN_LAYER | DISK_OPEN_CACHE;
	return DISK_OPEN_LAYER | (index > 0 ? DISK_OPEN_READ_ONLY : 0) |
	       (open_flags & DISK_OPEN_READ_ONLY);
}

static const struct option none[] = {{.name = NULL}};
static const struct layer_ops layer_ops = {.attach = attach};

static const struct driver leaf = {
	.name = "leaf", .options = none, .open = note_open, .close = note_close};
static const struct driver layer = {.name = "layer",
				    .options = none,
				    .open = note_open,
				    .close = note_close,
				    .layer = &layer_ops};
static const struct driver wrap = {.name = "wrap",
				   .options = none,
				   .below_min = 1,
				   .below_max = 2,
				   .open = note_open,
				   .close = note_close};
static const struct driver stack = {.name = "stack",
				    .options = none,
				    .below_min = 1,
				    .below_max = 4,
				    .open = note_open,
				    .close = note_close,
				    .below_flags = below_flags};
static const struct driver *const stubs[] = {&leaf, &layer, &wrap, &stack, NULL};

/* ---- Opening. ---- */

struct opening {
	const char *text; /* of the configuration */
	unsigned flags;
	const char *node; /* NULL: all */
	const char *keep; /* a node that is kept writable, or NULL */
	const char *errors, *opened;
};

static void open_it(void *argument)
{
	const struct opening *opening = argument;
	struct capture errors;
	struct config *config;
	int result;

	opened[0] = '\0';
	capture_begin(&errors);
	config = config_load("t.conf", stubs, none, NULL, errors.stream);
	if (!CHECK(config))
		return;
	if (opening->keep)
		config_find(config, opening->keep)->keep_writable = true;
	result = opening->node ? config_open_node(config, config_find(config, opening->node),
						  opening->flags, errors.stream)
			       : config_open(config, opening->flags, errors.stream);
	CHECK_EQ(result, opening->errors[0] ? -1 : 0);
	config_close(config);
	config_free(config);
	CHECK_TEXT(capture_end(&errors), opening->errors);
	CHECK_TEXT(opened, opening->opened);
	capture_free(&errors);
}

static const struct opening openings[] = {
	/* What is read-only makes everything below it so. */
	{"[a]\ndriver=leaf\n[b]\ndriver=wrap\nbelow=a\n[c]\ndriver=wrap\nbelow=b\nreadonly=yes", 0,
	 NULL, NULL, "", "a:r b:r c:r"},
	{"[a]\ndriver=leaf\n[b]\ndriver=wrap\nbelow=a\nreadonly=yes\n[c]\ndriver=wrap\nbelow=b", 0,
	 NULL, NULL, "", "a:r b:r c:"},
	{"[a]\ndriver=leaf\n[b]\ndriver=wrap\nbelow=a", DISK_OPEN_CHECK, NULL, NULL, "", "a:c b:c"},
	/* What a driver wants of those below it, and those below them. */
	{"[top]\ndriver=layer\n[cache]\ndriver=layer\n[x]\ndriver=leaf\n[y]\ndriver=wrap\nbelow=x\n"
	 "[s]\ndriver=stack\nbelow=top,cache,y",
	 0, NULL, NULL, "", "top:l cache:lk x:r y:rl s:"},
	{"[top]\ndriver=layer\n[cache]\ndriver=layer\n[x]\ndriver=leaf\n[s]\ndriver=stack\n"
	 "below=top,cache,x\nreadonly=yes",
	 0, NULL, NULL, "", "top:rl cache:lk x:rl s:r"},
	{"[top]\ndriver=layer\n[cache]\ndriver=layer\nreadonly=yes\n[x]\ndriver=leaf\n"
	 "[s]\ndriver=stack\nbelow=top,cache,x",
	 0, NULL, NULL, "", "top:l cache:rlk x:rl s:"},
	{"[top]\ndriver=layer\n[cache]\ndriver=layer\n[s]\ndriver=stack\nbelow=top,cache",
	 DISK_OPEN_READ_ONLY, NULL, NULL, "", "top:rl cache:rlk s:r"},
	/* Unless somebody is going to write to one of them all the same. */
	{"[top]\ndriver=layer\n[x]\ndriver=leaf\n[y]\ndriver=wrap\nbelow=x\n[s]\ndriver=stack\n"
	 "below=top,y",
	 0, NULL, "y", "", "top:l x: y:l s:"},
	{"[top]\ndriver=layer\n[x]\ndriver=leaf\n[y]\ndriver=wrap\nbelow=x\nreadonly=yes\n"
	 "[s]\ndriver=stack\nbelow=top,y",
	 0, NULL, "y", "", "top:l x:r y:rl s:"},
	/* One node, and what it stands on. */
	{"[a]\ndriver=leaf\n[b]\ndriver=wrap\nbelow=a\n[other]\ndriver=leaf\n[c]\ndriver=wrap\n"
	 "below=b",
	 DISK_OPEN_COMMAND, "b", NULL, "", "a:x b:x"},
	{"[top]\ndriver=layer\n[x]\ndriver=leaf\n[s]\ndriver=stack\nbelow=top,x\n[c]\ndriver=wrap\n"
	 "below=s\nreadonly=yes",
	 0, "s", NULL, "", "top:rl x:rl s:r"},
	/* Several stand on one. */
	{"[top]\ndriver=layer\n[l]\ndriver=layer\nreadonly=yes\n[s]\ndriver=stack\nbelow=top,l\n"
	 "[t]\ndriver=stack\nbelow=l\nreadonly=yes",
	 0, NULL, NULL, "", "top:l l:rl s: t:r"},
	{"[top]\ndriver=layer\n[l]\ndriver=layer\nreadonly=yes\n[s]\ndriver=stack\nbelow=top,l\n"
	 "[t]\ndriver=wrap\nbelow=l",
	 0, NULL, NULL,
	 "t.conf:3: [l]: stands below one disk as a layer, and below another as a disk: it can "
	 "only "
	 "be one of them\n",
	 ""},
	{"[top]\ndriver=layer\n[l]\ndriver=leaf\nreadonly=yes\n[s]\ndriver=stack\nbelow=top,l\n"
	 "[t]\ndriver=wrap\nbelow=l",
	 0, NULL, NULL, "", "top:l l:rl s: t:"},
};

static void test_flags(void **state)
{
	(void)state;
	scratch_enter();
	for (size_t i = 0; i < ARRAY_SIZE(openings); i++) {
		check_context("opening %zu", i);
		scratch_write("t.conf", openings[i].text, strlen(openings[i].text));
		worker_call(worker_get(0), open_it, (void *)(uintptr_t)&openings[i]);
	}
	scratch_leave();
	check_context(" ");
	check_finish();
}

static void test_takes_layers(void **state)
{
	static const char text[] = "[a]\ndriver=layer\n[b]\ndriver=wrap\nbelow=a\n[c]\n"
				   "driver=layer\n[d]\ndriver=stack\nbelow=c\n";
	struct config *config;

	(void)state;
	scratch_enter();
	scratch_write("t.conf", text, sizeof(text) - 1);
	config = config_load("t.conf", stubs, none, NULL, stderr);
	assert_non_null(config);
	assert_true(config_takes_layers(config_find(config, "d")));
	assert_false(config_takes_layers(config_find(config, "b")));
	assert_false(config_takes_layers(config_find(config, "a")));
	assert_null(config_find(config, "e"));
	assert_int_equal(config_below_flags(config_find(config, "d"), DISK_OPEN_READ_ONLY, 0),
			 DISK_OPEN_LAYER | DISK_OPEN_CACHE);
	assert_int_equal(config_below_flags(config_find(config, "b"), DISK_OPEN_READ_ONLY, 0),
			 DISK_OPEN_READ_ONLY);
	config_free(config);
	scratch_leave();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_takes_layers),
	};

	return cmocka_run_group_tests(tests, setup_1_worker, teardown_workers);
}
