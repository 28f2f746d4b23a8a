// SPDX-License-Identifier: MIT
/* Ports in configurations: several files of one disk, opened, printed and closed; what is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "backends/list.h"
#include "conf/config.h"
#include "core/pr.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/scratch.h"

static const struct option no_settings[] = {{.name = NULL}};

static struct config *load(const char *text, struct capture *errors)
{
	struct config *config;

	scratch_write("t.conf", text, strlen(text));
	capture_begin(errors);
	config = config_load("t.conf", drivers, no_settings, NULL, errors->stream);
	capture_end(errors);
	return config;
}

#define RAM(name)	"[" name "]\ndriver = ram\nsize = 1M\n"
#define SHARE(name, on) "[" name "]\ndriver = prwrap\nbelow = " on "\n"

static void test_refused(void **state)
{
	static const struct {
		const char *text, *errors;
	} cases[] = {
		{RAM("a") "file = x, y\n",
		 "t.conf:4: [a] file: a disk of driver 'ram' is one file, not 2 (a name has no "
		 "comma)\n"},
		{RAM("a") "file = x, x\n", "t.conf:4: [a] file: 'x' is named twice\n"},
		{RAM("b") SHARE("a", "b") "file = x, .y, z/z\n",
		 "t.conf:7: [a] file: the name '.y' begins with a '.'\n"
		 "t.conf:7: [a] file: the name 'z/z' contains a '/'\n"},
		{RAM("b") SHARE("a", "b") "file = x, c.img\n" RAM("c"),
		 "t.conf:8: [c]: [a] is exported as 'c.img' already\n"},
		{RAM("b") SHARE("a", "b") "file = x, y\n" SHARE("c", "a"),
		 "t.conf:7: [a] file: other disks stand on this one, so it is no file in the "
		 "mount\n"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct capture errors;

		assert_null(load(cases[i].text, &errors));
		assert_string_equal(errors.text, cases[i].errors);
		capture_free(&errors);
	}
}

struct call {
	struct config *config;
	FILE *errors, *out;
	int result;
};

/* The disks of the exports are what they should be. */
static void check_exports(const struct config *config)
{
	for (size_t i = 0; i < config->export_count; i++) {
		const struct config_export *export = &config->exports[i];

		if (!export->node->driver->port) {
			CHECK(export->disk == export->node->disk);
			continue;
		}
		CHECK_TEXT(export->disk->name, export->file);
		CHECK(export->disk->driver == export->node->driver->port);
		CHECK_EQ(export->disk->below_count, 1);
		CHECK(export->disk->below[0] == export->node->disk);
		CHECK(disk_pr(export->disk));
	}
}

static void open_print_close(void *argument)
{
	struct call *call = argument;

	call->result = config_open(call->config, 0, call->errors);
	if (call->result == 0) {
		check_exports(call->config);
		config_print(call->config, call->out);
	}
	config_close(call->config);
	for (size_t i = 0; i < call->config->export_count; i++)
		CHECK(!call->config->exports[i].disk);
	for (size_t i = 0; i < call->config->node_count; i++)
		CHECK(!call->config->nodes[i].disk);
}

/* Whether it opens, with what it prints, or does not, with these errors. */
static void check_opened(const char *text, const char *wanted_out, const char *wanted_errors)
{
	struct capture load_errors, errors, out;
	struct call call = {.config = load(text, &load_errors)};

	assert_string_equal(load_errors.text, "");
	capture_free(&load_errors);
	capture_begin(&errors);
	capture_begin(&out);
	call.errors = errors.stream;
	call.out = out.stream;
	run_task(open_print_close, &call);
	assert_string_equal(capture_end(&errors), wanted_errors);
	assert_string_equal(capture_end(&out), wanted_out);
	assert_int_equal(call.result, *wanted_errors ? -1 : 0);
	capture_free(&errors);
	capture_free(&out);
	config_free(call.config);
}

static void test_opened(void **state)
{
	(void)state;
	check_opened(RAM("b") SHARE("a", "b") "file = x.img, y z, w\n" RAM("c"),
		     "x.img  1 MiB, writable\n"
		     "  a: prwrap, 1 MiB, sector 512\n"
		     "    b: ram, 1 MiB, sector 512\n"
		     "y z  1 MiB, writable\n"
		     "  a: see above\n"
		     "w  1 MiB, writable\n"
		     "  a: see above\n"
		     "c.img  1 MiB, writable\n"
		     "  c: ram, 1 MiB, sector 512\n",
		     "");
	/* One name, and none, make a port as well. */
	check_opened(RAM("b") SHARE("a", "b") "readonly = yes\n",
		     "a.img  1 MiB, read-only\n"
		     "  a: prwrap, 1 MiB, sector 512, read-only\n"
		     "    b: ram, 1 MiB, sector 512, read-only\n",
		     "");
	/* Below another disk there is none. */
	check_opened(RAM("b") SHARE("a", "b") "[f]\ndriver = fault\nbelow = a\n",
		     "f.img  1 MiB, writable\n"
		     "  f: fault, 1 MiB, sector 512\n"
		     "    a: prwrap, 1 MiB, sector 512\n"
		     "      b: ram, 1 MiB, sector 512\n",
		     "");
}

/* The errors of ports are told as those of the node. */
static void test_too_many(void **state)
{
	struct capture text, errors;

	(void)state;
	capture_begin(&text);
	fputs(RAM("b") SHARE("a", "b") "file = f0", text.stream);
	for (unsigned i = 1; i <= 130; i++)
		fprintf(text.stream, ", f%u", i);
	fputs("\n", text.stream);
	capture_begin(&errors);
	for (unsigned i = 128; i <= 130; i++)
		fprintf(errors.stream,
			"t.conf:7: [a] file: 'f%u': one disk knows 128 files, those counted that "
			"are only in its state file\n",
			i);
	check_opened(capture_end(&text), "", capture_end(&errors));
	capture_free(&text);
	capture_free(&errors);
}

static int enter(void **state)
{
	scratch_enter();
	return setup_1_worker(state);
}

static int leave(void **state)
{
	int result = teardown_workers(state);

	scratch_leave();
	return result;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_opened),
		cmocka_unit_test(test_too_many),
	};

	return cmocka_run_group_tests(tests, enter, leave);
}
