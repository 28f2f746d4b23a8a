// SPDX-License-Identifier: MIT
/*
 * The command line, and the order of things: read the configuration, leave the terminal, start the
 * workers, open the disks, mount, serve; then the same backwards. Whatever fails before the mount
 * answers is one sentence on stderr and status 1.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>
#include "backends/list.h"
#include "conf/config.h"
#include "core/buffer.h"
#include "core/cache_memory.h"
#include "core/log.h"
#include "core/worker.h"
#include "fs/command_line.h"
#include "fs/daemon.h"
#include "fs/image_commands.h"
#include "fs/mount.h"
#include "fs/mountpoint.h"
#include "fs/offline.h"
#include "fs/options.h"
#include "fs/settings.h"

static void help(void)
{
	command_line_usage(stdout);
	fputs("\nMounts the disks that CONFIG describes as image files in the folder MOUNTPOINT.\n"
	      "\n"
	      "  -f            stay in the foreground, log to stderr\n"
	      "  -o OPTIONS    settings of the [diskfs] section, and options of mount(8)\n"
	      "  --check       open nothing for writing, print the stacks or the errors\n"
	      "  map           which layer or image of NODE has which range; --json: as JSON\n"
	      "  commit        move what the layer NODE holds, or the top layer of the disk NODE,\n"
	      "                down into the disk below it\n"
	      "  create        make an image file: diskfs --help create\n"
	      "  check         what is wrong with an image file; --repair: mend what is safe to "
	      "mend\n"
	      "  --help        this text, or the options of DRIVER\n"
	      "  --drivers     the drivers that there are\n"
	      "  --version     the version\n"
	      "\nThe folder has a file .status that tells what every disk is doing; umount, "
	      "SIGTERM or SIGINT\n"
	      "end the daemon. See diskfs(8) and diskfs.conf(5).\n"
	      "\nSettings, in the section [diskfs] or after -o:\n\n",
	      stdout);
	options_help(settings_options, stdout);
	fputs("\nOptions of every disk, in a section of its own:\n\n", stdout);
	options_help(config_node_options, stdout);
}

static int help_driver(const char *name)
{
	const struct driver *driver = driver_find(name);

	if (!driver) {
		fprintf(stderr, "diskfs: there is no driver '%s': diskfs --drivers lists them\n",
			name);
		return EXIT_FAILURE;
	}
	printf("%s: %s\n", driver->name, driver->summary);
	if (driver->below_max > 0)
		printf("Stands on %u to %u disks below.\n", driver->below_min, driver->below_max);
	putchar('\n');
	options_help(driver->options, stdout);
	return EXIT_SUCCESS;
}

/* @topic is a driver, a command, or NULL. */
static int help_on(const char *topic)
{
	if (topic && strcmp(topic, "create") != 0)
		return help_driver(topic);
	if (topic)
		create_help(drivers);
	else
		help();
	return EXIT_SUCCESS;
}

static int list_drivers(void)
{
	for (const struct driver *const *driver = drivers; *driver; driver++)
		printf("%-12s %s\n", (*driver)->name, (*driver)->summary);
	return EXIT_SUCCESS;
}

/* ---- Work on disks, which wants a task. ---- */

struct disks_call {
	struct config *config;
	unsigned open_flags;
	int result;
};

static void open_disks(void *argument)
{
	struct disks_call *call = argument;

	call->result = config_open(call->config, call->open_flags, stderr);
}

static void close_disks(void *argument)
{
	const struct disks_call *call = argument;

	config_close(call->config);
}

/* Every stack is flushed, whatever happens to the others. */
static void flush_disks(void *argument)
{
	struct disks_call *call = argument;

	for (size_t i = 0; i < call->config->export_count; i++) {
		struct disk *disk = call->config->exports[i].node->disk;
		int error = disk_flush(disk);
		char text[80];

		if (!error)
			continue;
		log_error(disk->name, "the last flush failed: %s", error_describe(text, error));
		call->result = -1;
	}
}

static void complain(const struct err *err)
{
	fprintf(stderr, "diskfs: %s%s%s\n", err->key, *err->key ? ": " : "", err->text);
}

/* ---- diskfs CONFIG MOUNTPOINT ---- */

static void prepare_process(sigset_t *signals)
{
	struct rlimit files;

	sigemptyset(signals);
	sigaddset(signals, SIGTERM);
	sigaddset(signals, SIGINT);
	sigprocmask(SIG_BLOCK, signals, NULL);
	/* Errors of writes are return values here, and the end of a terminal is no end of the
	 * mount. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	/*
	 * Memory that is needed to write a page back must not wait for pages to be written back,
	 * here by way of us: where a loop device or a swap file lies on an image that would be a
	 * dead-lock. Threads inherit it; it needs CAP_SYS_RESOURCE (diskfs(8) says what to do
	 * without).
	 */
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0)
		log_debug(NULL, "not exempt from waiting for write-back: %s", strerror(errno));
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

/* From open disks to closed ones. */
static int serve(struct mount *mount, struct disks_call *call, const char *mountpoint,
		 const char *mount_options, bool foreground, const sigset_t *signals)
{
	struct err err;

	if (mount_start(mount, mountpoint, mount_options, &err) < 0) {
		complain(&err);
		worker_call(worker_get(0), close_disks, call);
		return EXIT_FAILURE;
	}
	if (!foreground)
		daemon_ready();
	/* What holds a worker for ever cannot be waited for; the kernel fails it when this process
	 * ends. */
	if (!mount_run(mount, signals))
		_exit(EXIT_FAILURE);
	worker_call(worker_get(0), flush_disks, call);
	worker_call(worker_get(0), close_disks, call);
	return call->result == 0 && !mount->broken ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int run(const struct settings *settings, struct config *config, const char *mountpoint,
	       const char *mount_options, bool foreground)
{
	struct disks_call call = {.config = config};
	struct mount *mount;
	struct err err;
	sigset_t signals;
	int status = EXIT_FAILURE;

	if (!foreground && daemon_fork() < 0) {
		fprintf(stderr, "diskfs: cannot start a daemon: %s\n", strerror(errno));
		return EXIT_FAILURE;
	}
	log_set_level((enum log_level)settings->log_level);
	prepare_process(&signals);
	mount = mount_new(settings, config);
	if (!mount) {
		fprintf(stderr, "diskfs: out of memory\n");
		return EXIT_FAILURE;
	}
	buffers_set_payload(settings->max_request);
	cache_memory_set(settings->cache_memory);
	if (workers_start((unsigned)settings->workers, &err) < 0) {
		complain(&err);
		mount_free(mount);
		return EXIT_FAILURE;
	}
	worker_call(worker_get(0), open_disks, &call);
	if (call.result == 0)
		status = serve(mount, &call, mountpoint, mount_options, foreground, &signals);
	workers_stop();
	mount_free(mount);
	return status;
}

/* With the configuration loaded: what -o says besides, and where to mount. */
static int run_with_options(struct settings *settings, struct config *config,
			    const struct command_line *line)
{
	struct err err;
	char *mountpoint = NULL;
	char *mount_options =
		mount_options_apply(line->options ? line->options : "", settings, &err);
	int status = EXIT_FAILURE;

	if (mount_options && settings_resolve(settings, &err) == 0)
		mountpoint = mountpoint_resolve(line->arguments[1], &err);
	if (!mountpoint)
		complain(&err);
	else if (config_check_paths(config, mountpoint, stderr) == 0)
		status = run(settings, config, mountpoint, mount_options, line->foreground);
	free(mountpoint);
	free(mount_options);
	return status;
}

static int mount_command(const struct command_line *line)
{
	struct settings settings = {0};
	struct config *config;
	struct err err;
	int status = EXIT_FAILURE;

	options_init(settings_options, &settings);
	config = config_load(line->arguments[0], drivers, settings_options, &settings, stderr);
	/* Once before -o has its say, so that an error is told with its place in the file. */
	if (config && settings_resolve(&settings, &err) < 0)
		config_report(config, "diskfs", &err, stderr);
	else if (config)
		status = run_with_options(&settings, config, line);
	config_free(config);
	options_free(settings_options, &settings);
	return status;
}

int main(int argc, char **argv)
{
	struct command_line line = {.mode = MODE_MOUNT};
	int status = EXIT_FAILURE;

	daemon_open_standard_files();
	if (!command_line_parse(argc, argv, &line)) {
		free(line.options);
		/* To fsck(8) the other status means something else. */
		return line.mode == MODE_CHECK_IMAGE ? CHECK_USAGE : EXIT_FAILURE;
	}

	struct offline offline = {
		.path = line.arguments[0],
		.drivers = drivers,
		.node = line.argument_count > 1 ? line.arguments[1] : NULL,
		.json = line.json,
	};

	switch (line.mode) {
	case MODE_MOUNT:
		status = mount_command(&line);
		break;
	case MODE_CHECK:
		status = offline_run(&offline, check_command);
		break;
	case MODE_MAP:
		status = offline_run(&offline, map_command);
		break;
	case MODE_COMMIT:
		status = offline_run(&offline, commit_command);
		break;
	case MODE_CREATE:
		status = create_image(drivers, line.arguments, line.argument_count - 2, line.force);
		break;
	case MODE_CHECK_IMAGE:
		status = check_image(drivers, line.arguments[0], line.repair);
		break;
	case MODE_HELP:
		status = help_on(line.arguments[0]);
		break;
	case MODE_DRIVERS:
		status = list_drivers();
		break;
	case MODE_VERSION:
		puts("diskfs " DISKFS_VERSION);
		status = EXIT_SUCCESS;
		break;
	}
	free(line.options);
	return status;
}
