// SPDX-License-Identifier: MIT
#include "fs/offline.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "core/worker.h"
#include "fs/settings.h"

/* One run of a command, in its task. */
struct run {
	struct offline *offline;
	int (*command)(struct offline *offline);
	int result;
};

static void run_task(void *argument)
{
	struct run *run = argument;

	run->result = run->command(run->offline);
}

static int run_command(struct offline *offline, int (*command)(struct offline *offline))
{
	struct run run = {.offline = offline, .command = command};
	struct err err;

	if (workers_start(1, &err) < 0) {
		fprintf(stderr, "diskfs: %s\n", err.text);
		return -1;
	}
	worker_call(worker_get(0), run_task, &run);
	workers_stop();
	return run.result;
}

int offline_run(struct offline *offline, int (*command)(struct offline *offline))
{
	struct settings settings = {0};
	struct err err;
	int result = -1;

	options_init(settings_options, &settings);
	offline->config =
		config_load(offline->path, offline->drivers, settings_options, &settings, stderr);
	if (offline->config && settings_resolve(&settings, &err) < 0)
		config_report(offline->config, "diskfs", &err, stderr);
	else if (offline->config)
		result = run_command(offline, command);
	config_free(offline->config);
	options_free(settings_options, &settings);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "diskfs: cannot write the output\n");
		result = -1;
	}
	return result == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

struct config_node *offline_node(const struct offline *offline)
{
	struct config_node *node = config_find(offline->config, offline->node);

	if (!node)
		fprintf(stderr, "diskfs: there is no section [%s] in '%s'\n", offline->node,
			offline->path);
	return node;
}

int offline_refuse(const struct offline *offline, const struct config_node *node,
		   const char *format, ...)
{
	struct err err = {.key = ""};
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(err.text, sizeof(err.text), format, arguments);
	va_end(arguments);
	config_report(offline->config, node->name, &err, stderr);
	return -1;
}

int check_command(struct offline *offline)
{
	if (config_open(offline->config, DISK_OPEN_CHECK, stderr) < 0)
		return -1;
	config_print(offline->config, stdout);
	config_close(offline->config);
	return 0;
}
