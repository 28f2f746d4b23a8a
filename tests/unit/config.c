// SPDX-License-Identifier: MIT
/*
 * Configurations: what is loaded, every refusal with its exact message, opening, closing and
 * printing with stub drivers, and random damage to a whole configuration.
 */
#include "conf/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/list.h"
#include "core/worker.h"
#include "tests/lib/scratch.h"

#define MUTATIONS 5000

static char example_text[16384]; /* conf/example.conf */

/* ---- Stub drivers ---- */

struct stub_config {
	char *path;
	uint64_t size;
	bool refuse;
};

static char trace[1000]; /* what was opened and closed, in order */

static void trace_add(const char *what, const char *name)
{
	size_t used = strlen(trace);

	snprintf(trace + used, sizeof(trace) - used, "%s%s ", what, name);
}

static int stub_open(struct disk *disk, struct err *err)
{
	const struct stub_config *config = disk->config;
	uint64_t size = config->size;

	if (config->refuse)
		return err_set_key(err, "path", "cannot open '%s'", config->path);
	if (size == 1)
		return err_set(err, "one byte is too small");
	for (unsigned i = 0; i < disk->below_count; i++)
		size = disk_size(disk->below[i]);
	disk->geometry.sector_size = 512;
	disk->geometry.physical_sector_size = disk->open_flags & DISK_OPEN_CHECK ? 4096 : 512;
	disk->geometry.read_only = disk->open_flags & DISK_OPEN_READ_ONLY;
	disk_set_sector_count(disk, size / 512);
	trace_add("+", disk->name);
	return 0;
}

static void stub_close(struct disk *disk)
{
	if (disk_sector_count(disk))
		trace_add("-", disk->name);
}

static int stub_transfer(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	(void)disk, (void)sg, (void)sector;
	return 0;
}

static int stub_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	(void)flags;
	return stub_transfer(disk, sg, sector);
}

static const struct option leaf_options[] = {
	{.name = "path",
	 .type = OPTION_PATH,
	 .offset = offsetof(struct stub_config, path),
	 .flags = OPTION_REQUIRED},
	{.name = "size",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct stub_config, size),
	 .fallback = "1M"},
	{.name = "refuse", .type = OPTION_BOOL, .offset = offsetof(struct stub_config, refuse)},
	{.name = NULL},
};

static const struct option no_options[] = {{.name = NULL}};

#define STUB(stub_name, stub_options, min, max)                                                \
	{                                                                                      \
		.name = stub_name, .summary = "a stub", .options = stub_options,               \
		.config_size = sizeof(struct stub_config), .below_min = min, .below_max = max, \
		.open = stub_open, .close = stub_close, .read = stub_transfer,                 \
		.write = stub_write,                                                           \
	}

static const struct driver leaf = STUB("leaf", leaf_options, 0, 0);
static const struct driver wrap = STUB("wrap", no_options, 1, 1);
static const struct driver mirror = STUB("mirror", no_options, 2, 4);
static const struct driver *const stubs[] = {&leaf, &wrap, &mirror, NULL};

struct settings {
	uint64_t workers;
	int cache;
};

static const char *const caches[] = {"none", "writethrough", NULL};

static const struct option settings_table[] = {
	{.name = "workers",
	 .type = OPTION_U64,
	 .offset = offsetof(struct settings, workers),
	 .min = 1,
	 .max = 64,
	 .fallback = "2"},
	{.name = "cache",
	 .type = OPTION_ENUM,
	 .offset = offsetof(struct settings, cache),
	 .choices = caches},
	{.name = NULL},
};

static struct settings settings;

/* ---- Loading ---- */

static const struct driver *const *drivers_in_use = stubs;

static struct config *load_bytes(const char *text, size_t length, struct capture *errors)
{
	struct config *config;

	scratch_write("t.conf", text, length);
	options_init(settings_table, &settings);
	capture_begin(errors);
	config = config_load("t.conf", drivers_in_use, settings_table, &settings, errors->stream);
	capture_end(errors);
	options_free(settings_table, &settings);
	return config;
}

static struct config *load(const char *text, struct capture *errors)
{
	return load_bytes(text, strlen(text), errors);
}

static const char good_text[] = "[diskfs] ; settings\n"
				"workers = 4\n"
				"cache = writethrough\n"
				"[top]\n"
				"driver = mirror\n"
				"below = scratch, base\n"
				"file = The Disk.img\n"
				"[base]\n"
				"driver = leaf\n"
				"path = base.raw\n"
				"readonly = yes\n"
				"[scratch]\n"
				"driver = leaf\n"
				"path = /dev/null\n"
				"size = 3M\n"
				"[other]\n"
				"driver = wrap\n"
				"below = base\n";

static void test_loaded(void **state)
{
	struct capture errors;
	struct config *config = load(good_text, &errors);
	const struct config_node *top;
	char path[500], *folder = get_current_dir_name();

	(void)state;
	assert_string_equal(errors.text, "");
	assert_non_null(config);
	assert_non_null(folder);
	assert_int_equal(settings.workers, 4);
	assert_int_equal(settings.cache, 1);
	assert_string_equal(config->base_dir, folder);
	snprintf(path, sizeof(path), "%s/t.conf", folder);
	assert_string_equal(config->path, path);
	assert_int_equal(config->node_count, 4);
	assert_int_equal(config->export_count, 2);
	assert_string_equal(config->exports[0].file, "The Disk.img");
	assert_string_equal(config->exports[1].file, "other.img");
	top = config->exports[0].node;
	assert_ptr_equal(top, &config->nodes[0]);
	assert_string_equal(top->name, "top");
	assert_ptr_equal(top->driver, &mirror);
	assert_int_equal(top->line, 4);
	assert_int_equal(top->below_count, 2);
	assert_int_equal(top->above_count, 0);
	assert_string_equal(top->below[0]->name, "scratch");
	assert_ptr_equal(top->below[1], &config->nodes[1]);
	assert_int_equal(top->below[1]->above_count, 2);
	assert_true(top->below[1]->read_only);
	assert_false(top->below[0]->read_only);
	snprintf(path, sizeof(path), "%s/base.raw", folder);
	assert_string_equal(((struct stub_config *)top->below[1]->values)->path, path);
	assert_int_equal(((struct stub_config *)top->below[1]->values)->size, MIB);
	assert_int_equal(((struct stub_config *)top->below[0]->values)->size, 3 * MIB);
	config_free(config);
	capture_free(&errors);
	free(folder);
	config_free(NULL);
}

struct bad_case {
	const char *text, *errors;
};

#define LEAF(name)  "[" name "]\ndriver = leaf\npath = x\n"
#define NO_LINES    "t.conf: there is no disk: write a [section] with a driver\n"
#define ALL_DRIVERS "diskfs --drivers lists all)\n"
#define SHARED	    "another disk stands on [b] already: only a disk with readonly = yes can be shared\n"

static const struct bad_case bad_cases[] = {
	/* lines */
	{"[a]\nk\n[a]\n", "t.conf:2: [a]: no '=' in 'k': write key = value\n"
			  "t.conf:3: [a]: the section is repeated; the first is in line 1\n"},
	/* values */
	{"", NO_LINES},
	{"[diskfs]\n", NO_LINES},
	{"[diskfs]\ncach = none\nworkers = 99\n" LEAF("a"),
	 "t.conf:2: [diskfs] cach: unknown key 'cach' (did you mean 'cache'?)\n"
	 "t.conf:3: [diskfs] workers: '99' is out of range: it must be 1 to 64\n"},
	{"[a]\ndriver = leaf\npathh = x\n",
	 "t.conf:3: [a] pathh: unknown key 'pathh' (did you mean 'path'?)\n"
	 "t.conf:1: [a] path: is missing, but driver 'leaf' needs it\n"},
	{LEAF("a") "belo = b\n",
	 "t.conf:4: [a] belo: unknown key 'belo' (did you mean 'below'?)\n"},
	{LEAF("a") "colour = red\n", "t.conf:4: [a] colour: unknown key 'colour'\n"},
	{LEAF("a") "workers = 2\n", "t.conf:4: [a] workers: unknown key 'workers'\n"},
	{LEAF("a") "size = 12x\nreadonly = maybe\n",
	 "t.conf:5: [a] readonly: 'maybe' is neither yes nor no\n"
	 "t.conf:4: [a] size: '12x' is no size: write a number of bytes, or one with K, M, G or "
	 "T\n"},
	{"[a]\ndriver = laef\n",
	 "t.conf:2: [a] driver: unknown driver 'laef' (did you mean 'leaf'? " ALL_DRIVERS},
	{"[a]\ndriver = qcow2\npath = x\n",
	 "t.conf:2: [a] driver: unknown driver 'qcow2' (" ALL_DRIVERS},
	{"[a]\npath = x\n[b]\n",
	 "t.conf:1: [a] driver: is missing, but every disk needs one "
	 "(" ALL_DRIVERS "t.conf:3: [b] driver: is missing, but every disk needs one "
	 "(" ALL_DRIVERS},
	{"[a]\ndriver =\n", "t.conf:2: [a] driver: has no value\n"},
	{"[a]\ndriver = leaf\npath = \"\"\n", "t.conf:3: [a] path: has no value\n"},
	{"[a]\ndriver = wrap\nbelow = b,,c\n",
	 "t.conf:3: [a] below: a name is missing before, after or between the commas\n"},
	/* links */
	{LEAF("scratch") "[a]\ndriver = wrap\nbelow = scrach\n",
	 "t.conf:6: [a] below: there is no section [scrach] (did you mean 'scratch'?)\n"},
	{"[a]\ndriver = wrap\nbelow = elsewhere\n",
	 "t.conf:3: [a] below: there is no section [elsewhere]\n"},
	{"[diskfs]\n[a]\ndriver = wrap\nbelow = diskfs\n",
	 "t.conf:4: [a] below: [diskfs] holds the settings of the mount and is no disk\n"},
	{LEAF("a") "below = b\n" LEAF("b"),
	 "t.conf:4: [a] below: driver 'leaf' stands on no other disk\n"},
	{"[a]\ndriver = wrap\n", "t.conf:1: [a] below: driver 'wrap' takes 1 disk below, not 0\n"},
	{LEAF("b") "[a]\ndriver = mirror\nbelow = b\n",
	 "t.conf:6: [a] below: driver 'mirror' takes 2 to 4 disks below, not 1\n"},
	{LEAF("b") "[a]\ndriver = mirror\nbelow = b, b\n",
	 "t.conf:6: [a] below: 'b' is named twice\n"},
	{LEAF("b") "[a]\ndriver = wrap\nbelow = b\n[c]\ndriver = wrap\nbelow = b\n",
	 "t.conf:9: [c] below: " SHARED},
	/* order */
	{"[a]\ndriver = wrap\nbelow = a\n",
	 "t.conf:3: [a] below: the disk stands on itself: a -> a\n"},
	{"[x]\ndriver = wrap\nbelow = a\nreadonly = yes\n"
	 "[a]\ndriver = wrap\nbelow = b\nreadonly = yes\n"
	 "[b]\ndriver = wrap\nbelow = a\n",
	 "t.conf:7: [a] below: the disk stands on itself: a -> b -> a\n"},
	{"[a]\ndriver = wrap\nbelow = b\n[b]\ndriver = wrap\nbelow = a\n"
	 "[c]\ndriver = wrap\nbelow = d\n[d]\ndriver = wrap\nbelow = c\n",
	 "t.conf:3: [a] below: the disk stands on itself: a -> b -> a\n"
	 "t.conf:9: [c] below: the disk stands on itself: c -> d -> c\n"},
	/* exports */
	{LEAF("a") "file = b.img\n" LEAF("b"),
	 "t.conf:5: [b]: [a] is exported as 'b.img' already\n"},
	{LEAF("a") "file = x\n" LEAF("b") "file = x\n",
	 "t.conf:8: [b] file: [a] is exported as 'x' already\n"},
	{LEAF("a") "file = a/b\n", "t.conf:4: [a] file: the name 'a/b' contains a '/'\n"},
	{LEAF("a") "file = .status\n",
	 "t.conf:4: [a] file: the name '.status' begins with a '.'\n"},
	{LEAF("a") "file = ..\n", "t.conf:4: [a] file: the name '..' begins with a '.'\n"},
	{LEAF("b") "file = x.img\n[a]\ndriver = wrap\nbelow = b\n",
	 "t.conf:4: [b] file: other disks stand on this one, so it is no file in the mount\n"},
};

static void test_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad_cases); i++) {
		struct capture errors;

		assert_null(load(bad_cases[i].text, &errors));
		assert_string_equal(errors.text, bad_cases[i].errors);
		capture_free(&errors);
	}
}

static void test_missing_file(void **state)
{
	struct capture errors;

	(void)state;
	capture_begin(&errors);
	assert_null(config_load("none.conf", stubs, settings_table, &settings, errors.stream));
	assert_string_equal(capture_end(&errors),
			    "cannot read 'none.conf': No such file or directory\n");
	capture_free(&errors);
}

static void test_long_file_name(void **state)
{
	char text[400], name[257];
	struct capture errors;
	struct config *config;

	(void)state;
	memset(name, 'n', 256);
	name[256] = '\0';
	snprintf(text, sizeof(text), LEAF("a") "file = %s\n", name);
	assert_null(load(text, &errors));
	assert_non_null(strstr(errors.text, "is longer than 255 bytes\n"));
	capture_free(&errors);
	snprintf(text, sizeof(text), LEAF("a") "file = %s\n", name + 1);
	config = load(text, &errors);
	assert_non_null(config);
	config_free(config);
	capture_free(&errors);
}

/* A chain of wrappers n1 <- n2 ... on one leaf, @count disks together; the leaf is the last section
 * or the first. */
static struct config *load_chain(int count, bool top_first, struct capture *errors)
{
	struct capture text;
	struct config *config;

	capture_begin(&text);
	for (int i = 1; i <= count; i++) {
		int number = top_first ? count + 1 - i : i;

		if (number == 1)
			fputs(LEAF("n1"), text.stream);
		else
			fprintf(text.stream, "[n%d]\ndriver = wrap\nbelow = n%d\n", number,
				number - 1);
	}
	capture_end(&text);
	config = load_bytes(text.text, text.length, errors);
	capture_free(&text);
	return config;
}

static void test_depth(void **state)
{
	(void)state;
	for (unsigned top_first = 0; top_first < 2; top_first++) {
		struct capture errors;
		struct config *config = load_chain(CONFIG_DEPTH_MAX, top_first, &errors);

		assert_non_null(config);
		assert_string_equal(errors.text, "");
		assert_string_equal(config->order[0]->name, "n1");
		assert_string_equal(config->order[CONFIG_DEPTH_MAX - 1]->name, "n64");
		config_free(config);
		capture_free(&errors);

		assert_null(load_chain(CONFIG_DEPTH_MAX + 1, top_first, &errors));
		assert_non_null(strstr(errors.text,
				       ": [n65] below: the stack is more than 64 disks deep\n"));
		capture_free(&errors);
	}
}

/* One leaf, and on it, as often as @levels says, a mirror of two wrappers of what there is. */
static struct config *load_diamonds(int levels, struct capture *errors)
{
	struct capture text;
	struct config *config;

	capture_begin(&text);
	fputs(LEAF("m0") "readonly = yes\n", text.stream);
	for (int i = 1; i <= levels; i++)
		fprintf(text.stream,
			"[a%d]\ndriver = wrap\nbelow = m%d\n[b%d]\ndriver = wrap\nbelow = m%d\n"
			"[m%d]\ndriver = mirror\nbelow = a%d, b%d\nreadonly = yes\n",
			i, i - 1, i, i - 1, i, i, i);
	capture_end(&text);
	config = load_bytes(text.text, text.length, errors);
	capture_free(&text);
	return config;
}

/* 2^(levels + 2) - 3 disks, of 3 * levels + 1 sections. */
static void test_stack_size(void **state)
{
	struct capture errors;
	struct config *config = load_diamonds(12, &errors);

	(void)state;
	assert_string_equal(errors.text, "");
	assert_non_null(config);
	config_free(config);
	capture_free(&errors);

	assert_null(load_diamonds(21, &errors));
	assert_string_equal(errors.text,
			    "t.conf:133: [m13] below: the stack has more than 16384 disks, where "
			    "each is counted as often as others stand on it\n");
	capture_free(&errors);
}

static void test_late_errors(void **state)
{
	static const struct {
		const char *section, *key, *message;
	} cases[] = {
		{"diskfs", "workers", "t.conf:2: [diskfs] workers: odd\n"},
		{"diskfs", "uid", "t.conf:1: [diskfs] uid: odd\n"},
		{"top", "", "t.conf:4: [top]: odd\n"},
		{"none", "uid", "t.conf: [none] uid: odd\n"},
	};
	struct capture errors;
	struct config *config = load(good_text, &errors);

	(void)state;
	assert_non_null(config);
	capture_free(&errors);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err err;

		err_set_key(&err, cases[i].key, "odd");
		capture_begin(&errors);
		config_report(config, cases[i].section, &err, errors.stream);
		assert_string_equal(capture_end(&errors), cases[i].message);
		capture_free(&errors);
	}
	config_free(config);
}

/* ---- Opening ---- */

struct open_call {
	struct config *config;
	unsigned flags;
	FILE *errors, *out;
	int result;
};

static void open_print_close(void *argument)
{
	struct open_call *call = argument;

	call->result = config_open(call->config, call->flags, call->errors);
	if (call->result == 0)
		config_print(call->config, call->out);
	config_close(call->config);
}

/* Opens, prints and closes the configuration @text on a worker. */
static int run(const char *text, unsigned flags, struct capture *errors, struct capture *out)
{
	struct open_call call = {.flags = flags};
	struct capture load_errors;

	call.config = load(text, &load_errors);
	assert_string_equal(load_errors.text, "");
	assert_non_null(call.config);
	capture_free(&load_errors);
	capture_begin(errors);
	capture_begin(out);
	call.errors = errors->stream;
	call.out = out->stream;
	trace[0] = '\0';
	worker_call(worker_get(0), open_print_close, &call);
	capture_end(errors);
	capture_end(out);
	for (size_t i = 0; i < call.config->node_count; i++)
		assert_null(call.config->nodes[i].disk);
	config_free(call.config);
	return call.result;
}

static void test_opened(void **state)
{
	struct capture errors, out;

	(void)state;
	assert_int_equal(run(good_text, 0, &errors, &out), 0);
	assert_string_equal(errors.text, "");
	assert_string_equal(out.text, "The Disk.img  1 MiB, writable\n"
				      "  top: mirror, 1 MiB, sector 512\n"
				      "    scratch: leaf, 3 MiB, sector 512\n"
				      "    base: leaf, 1 MiB, sector 512, read-only\n"
				      "other.img  1 MiB, writable\n"
				      "  other: wrap, 1 MiB, sector 512\n"
				      "    base: see above\n");
	assert_string_equal(trace, "+scratch +base +top +other -other -top -base -scratch ");
	capture_free(&errors);
	capture_free(&out);

	assert_int_equal(run(LEAF("a") "readonly = yes\n", DISK_OPEN_CHECK, &errors, &out), 0);
	assert_string_equal(out.text, "a.img  1 MiB, read-only\n"
				      "  a: leaf, 1 MiB, sector 512 (physical 4096), read-only\n");
	capture_free(&errors);
	capture_free(&out);
}

static void test_open_errors(void **state)
{
	static const struct {
		const char *text, *errors;
	} cases[] = {
		{LEAF("a") "[b]\ndriver = leaf\nrefuse = yes\npath = /dev/x\n" LEAF("c"),
		 "t.conf:7: [b] path: cannot open '/dev/x'\n"},
		{LEAF("a") "\n" LEAF("b") "size = 1\n" LEAF("c"),
		 "t.conf:5: [b]: one byte is too small\n"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct capture errors, out;

		assert_int_equal(run(cases[i].text, 0, &errors, &out), -1);
		assert_string_equal(errors.text, cases[i].errors);
		assert_string_equal(out.text, "");
		assert_string_equal(trace, "+a +c -c -a "); /* opened at once */
		capture_free(&errors);
		capture_free(&out);
	}
}

/* The example of the documentation, in a folder of its own as a user would try it. */
static void test_example(void **state)
{
	struct capture errors, out;

	(void)state;
	scratch_write("readonly.raw", example_text, sizeof(example_text));
	drivers_in_use = drivers;
	for (unsigned again = 0; again < 2; again++) {
		assert_int_equal(run(example_text, 0, &errors, &out), 0);
		assert_string_equal(errors.text, "");
		assert_non_null(strstr(out.text, "disk.img  64 MiB, writable\n"));
		assert_non_null(strstr(out.text, "scratch.img  64 MiB, writable\n"));
		assert_non_null(strstr(out.text, "Golden Image.img  16 KiB, read-only\n"));
		capture_free(&errors);
		capture_free(&out);
	}
	drivers_in_use = stubs;
}

/* ---- Random damage ---- */

/* Exchanges, deletes or repeats a word or line of @text, which has room for twice its length. */
static void damage(char *text)
{
	size_t length = strlen(text), at = (size_t)random() % length;
	const char *stop = random() % 2 ? "\n" : "\n =,";
	size_t run_length = strcspn(text + at, stop) + 1;
	size_t to = (size_t)random() % length;
	char piece[100];

	run_length = at + run_length > length ? length - at : run_length;
	if (run_length >= sizeof(piece))
		return;
	memcpy(piece, text + at, run_length);
	if (random() % 2) { /* else it stays where it was, too */
		memmove(text + at, text + at + run_length, length - at - run_length + 1);
		length -= run_length;
		to = to > length ? length : to;
	}
	memmove(text + to + run_length, text + to, length - to + 1);
	memcpy(text + to, piece, run_length);
}

static void test_random_damage(void **state)
{
	unsigned accepted = 0;

	(void)state;
	srandom(20240608);
	for (int i = 0; i < MUTATIONS; i++) {
		char text[4 * sizeof(good_text)];
		struct capture errors;
		struct config *config;

		memcpy(text, good_text, sizeof(good_text));
		for (long changes = random() % 3; changes >= 0; changes--)
			damage(text);
		config = load(text, &errors);
		if (config)
			accepted++;
		assert_int_equal(config == NULL, strstr(errors.text, "t.conf:") != NULL);
		config_free(config);
		capture_free(&errors);
	}
	assert_in_range(accepted, 50, MUTATIONS - 50);
}

static int enter(void **state)
{
	struct err err;
	FILE *example = fopen("conf/example.conf", "r");

	(void)state;
	if (!example || fread(example_text, 1, sizeof(example_text), example) == 0)
		return -1; /* the tests are to be run in the folder of the project */
	fclose(example);
	scratch_enter();
	return workers_start(1, &err);
}

static int leave(void **state)
{
	(void)state;
	workers_stop();
	scratch_leave();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_loaded),	      cmocka_unit_test(test_refused),
		cmocka_unit_test(test_missing_file),  cmocka_unit_test(test_long_file_name),
		cmocka_unit_test(test_depth),	      cmocka_unit_test(test_stack_size),
		cmocka_unit_test(test_late_errors),   cmocka_unit_test(test_opened),
		cmocka_unit_test(test_open_errors),   cmocka_unit_test(test_example),
		cmocka_unit_test(test_random_damage),
	};

	return cmocka_run_group_tests(tests, enter, leave);
}
