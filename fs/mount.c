// SPDX-License-Identifier: MIT
/*
 * The start of a mount: images, session, the kernel's mount, a channel on each worker, and then a
 * look at the mount from this thread, so that the caller knows that it answers. The end is in
 * end.c.
 *
 * Nothing on a worker ever touches the mount itself; this thread, which is no worker, may.
 */
#include "fs/mount.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>
#include "core/buffer.h"
#include "core/log.h"
#include "fs/ops.h"
#include "fs/passthrough.h"
#include "fs/uring.h"
#include "fs/wire.h"

/* ---- Images. ---- */

/* Moved out of the way of the fixed node ids. */
static uint64_t node_id_of(const char *name)
{
	return (hash_name(name) & INT64_MAX) | (uint64_t)1 << 32;
}

struct image *image_find(const struct mount *mount, uint64_t node_id)
{
	for (uint64_t slot = node_id & mount->table_mask;; slot = (slot + 1) & mount->table_mask) {
		uint32_t entry = mount->table[slot];

		if (entry == 0)
			return NULL;
		if (mount->images[entry - 1].node_id == node_id)
			return &mount->images[entry - 1];
	}
}

struct image *image_find_name(const struct mount *mount, const char *name)
{
	struct image *image = image_find(mount, node_id_of(name));

	return image && strcmp(image->name, name) == 0 ? image : NULL;
}

static void table_insert(struct mount *mount, size_t index)
{
	uint64_t slot = mount->images[index].node_id & mount->table_mask;

	while (mount->table[slot] != 0)
		slot = (slot + 1) & mount->table_mask;
	mount->table[slot] = (uint32_t)index + 1;
}

static int images_make(struct mount *mount, struct err *err)
{
	const struct settings *settings = mount->settings;
	const struct config *config = mount->config;
	uint64_t slots = 16;

	while (slots < 2 * config->export_count)
		slots *= 2;
	mount->table_mask = slots - 1;
	mount->table = calloc(slots, sizeof(*mount->table));
	mount->images = calloc(config->export_count, sizeof(*mount->images));
	if (!mount->table || !mount->images)
		return err_set(err, "out of memory");
	for (size_t i = 0; i < config->export_count; i++) {
		const struct config_export *export = &config->exports[i];
		uint64_t node_id = node_id_of(export->file);
		const struct image *other = image_find(mount, node_id);

		if (other)
			return err_set(err, "the file names '%s' and '%s' collide: change one",
				       other->name, export->file);
		image_init(&mount->images[i], export->file, node_id, export->disk,
			   (mode_t)settings->mode, settings->uid, settings->gid);
		mount->images[i].passthrough = export->node->passthrough;
		mount->images[i].shared = export->disk != export->node->disk;
		mount->images[i].kernel_has_size = settings->cache == CACHE_WRITEBACK;
		mount->passthrough |= export->node->passthrough;
		mount->image_count++;
		table_insert(mount, i);
	}
	return 0;
}

/* ---- The session. ---- */

static void session_log(enum fuse_log_level level, const char *format, va_list arguments)
	__attribute__((format(printf, 2, 0)));

static void session_log(enum fuse_log_level level, const char *format, va_list arguments)
{
	char text[400];

	vsnprintf(text, sizeof(text), format, arguments);
	text[strcspn(text, "\n")] = '\0';
	log_write(level <= FUSE_LOG_ERR ? LOG_LEVEL_ERROR : LOG_LEVEL_DEBUG, NULL, "%s", text);
}

/* libfuse's replies. They come from the task of the request that they answer. */
static ssize_t session_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	struct request *request = task_context();
	ssize_t length = 0;

	(void)fd;
	(void)userdata;
	assert(request);
	bool is_init = wire_complete_reply(request, iov, count);

	for (int i = 0; i < count; i++)
		length += (ssize_t)iov[i].iov_len;

	int error = request->ops->reply_raw(request, iov, count);

	if (is_init)
		mount_initialized(request->mount);
	if (error)
		errno = -error;
	return error ? -1 : length;
}

/* Requests come through channels; libfuse only insists on having the function. */
static ssize_t session_read(int fd, void *buffer, size_t size, void *userdata)
{
	(void)fd;
	(void)buffer;
	(void)size;
	(void)userdata;
	errno = ENOTSUP;
	return -1;
}

static const struct fuse_custom_io session_io = {
	.writev = session_writev,
	.read = session_read,
};

static int session_arguments(const struct mount *mount, const char *options,
			     struct fuse_args *arguments)
{
	char *list = NULL, *fsname = NULL;
	int result = -1;

	if (asprintf(&fsname, "fsname=%s", mount->config->path) < 0)
		return -1;
	if (fuse_opt_add_opt_escaped(&list, fsname) == 0 &&
	    fuse_opt_add_opt(&list, "subtype=diskfs,default_permissions") == 0 &&
	    (!mount->settings->allow_other || fuse_opt_add_opt(&list, "allow_other") == 0) &&
	    (!*options || fuse_opt_add_opt(&list, options) == 0) &&
	    fuse_opt_add_arg(arguments, "diskfs") == 0 && fuse_opt_add_arg(arguments, "-o") == 0 &&
	    fuse_opt_add_arg(arguments, list) == 0)
		result = 0;
	free(list);
	free(fsname);
	return result;
}

static int session_mount(struct mount *mount, const char *options, struct err *err)
{
	struct fuse_args arguments = FUSE_ARGS_INIT(0, NULL);
	int result = session_arguments(mount, options, &arguments);

	fuse_set_log_func(session_log);
	if (result == 0)
		mount->session = fuse_session_new(&arguments, &fs_ops, sizeof(fs_ops), mount);
	fuse_opt_free_args(&arguments);
	if (!mount->session)
		return err_set(err, "cannot make a FUSE session%s",
			       *options ? ": see the options of -o" : "");
	if (fuse_session_mount(mount->session, mount->mountpoint) != 0)
		return err_set(err, "cannot mount on '%s'", mount->mountpoint);

	int fd = fuse_session_fd(mount->session);
	int error = fuse_session_custom_io(mount->session, &session_io, fd);

	if (!error)
		error = kernel_link_open(&mount->link, fd, workers_count());
	if (error)
		return err_set(err, "cannot set up the FUSE channel: %s", strerror(-error));
	return 0;
}

/* ---- Channels. ---- */

struct channel_call {
	struct mount *mount;
	unsigned index;
};

static void start_channel(void *argument)
{
	const struct channel_call *call = argument;

	channel_start(&call->mount->channels[call->index], call->mount,
		      call->mount->link.fds[call->index]);
}

static void start_uring(void *argument)
{
	const struct channel_call *call = argument;

	channel_start_uring(&call->mount->channels[call->index]);
}

static void stop_channel(void *argument)
{
	const struct channel_call *call = argument;

	channel_stop(&call->mount->channels[call->index]);
}

static void each_channel(struct mount *mount, void (*function)(void *argument))
{
	for (unsigned i = 0; i < workers_count(); i++)
		worker_call(worker_get(i), function,
			    &(struct channel_call){.mount = mount, .index = i});
}

void mount_stop_channels(struct mount *mount)
{
	each_channel(mount, stop_channel);
}

void mount_initialized(struct mount *mount)
{
	sem_post(&mount->settled);
}

void mount_closed(struct mount *mount, int errnum)
{
	unsigned before = atomic_fetch_add(&mount->closed_channels, 1);
	uint64_t one = 1;

	if (errnum != ENODEV && before == 0)
		log_error(NULL, "the connection to the kernel has ended: %s",
			  errnum == ECONNABORTED ? "somebody has aborted it" : strerror(errnum));
	if (errnum != ENODEV && errnum != ECONNABORTED)
		atomic_store(&mount->broken, true);
	sem_post(&mount->settled);
	if (before + 1 < workers_count() && !mount->broken)
		return;
	while (write(mount->event_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

/* ---- Start. ---- */

/*
 * Requests of one CPU that are taken at once, and of all of them, unless ring_memory says how much
 * they may take. For one CPU that is more than the kernel lets be under way in the background
 * (BACKGROUND_MAX in ops.c): however many of a client's are stuck, there is room for others'.
 */
#define RING_DEPTH_MAX	 1056
#define RING_ENTRIES_MAX 8448

/* Entries for the ring, to be used if INIT agrees. Without them all goes by descriptor. */
static void prepare_uring(struct mount *mount)
{
	uint64_t memory = mount->settings->ring_memory;
	uint64_t entries = memory > 0 ? memory / buffer_size() : RING_ENTRIES_MAX;
	uint64_t depth = min_u64(entries / uring_queues(), RING_DEPTH_MAX);
	unsigned workers = workers_count();

	if (mount->settings->transport == TRANSPORT_POLL)
		mount->uring_refused = "transport = poll";
	else if (!workers_take_commands())
		mount->uring_refused = "this kernel has no io_uring commands";
	else if (depth == 0)
		mount->uring_refused = "ring_memory is less than one request for each CPU";
	if (mount->uring_refused)
		return;
	for (unsigned i = 0; i < workers; i++) {
		mount->channels[i].uring =
			uring_new(&mount->channels[i], i, workers, (unsigned)depth);
		if (!mount->channels[i].uring)
			mount->uring_refused = "out of memory";
	}
	mount->uring_ready = !mount->uring_refused;
}

/* After INIT: the kernel now waits for the entries, if that was agreed. */
static void begin_uring(struct mount *mount)
{
	if (!mount->uring_ready)
		return;
	if (wire_over_io_uring(&mount->link.init))
		each_channel(mount, start_uring);
	else
		mount->uring_refused = "the kernel does not offer it (enable_uring of module fuse)";
}

void mount_disconnect(struct mount *mount)
{
	passthrough_check(mount);
	if (mount->session) {
		fuse_session_unmount(mount->session);
		fuse_session_destroy(mount->session);
		mount->session = NULL;
	}
	kernel_link_close(&mount->link);
}

void mount_free(struct mount *mount)
{
	if (!mount)
		return;
	for (size_t i = 0; i < mount->image_count; i++)
		image_destroy(&mount->images[i]);
	status_files_destroy(&mount->status);
	followers_destroy(mount);
	if (mount->event_fd >= 0)
		close(mount->event_fd);
	sem_destroy(&mount->settled);
	for (unsigned i = 0; mount->channels && i < mount->channel_count; i++)
		uring_free(mount->channels[i].uring);
	free(mount->channels);
	free(mount->images);
	free(mount->table);
	free(mount->mountpoint);
	free(mount);
}

/*
 * Buffered readers (dd, cp, loop devices) get further read ahead than the kernel's 128 KiB.
 * Measured on a cached file, 2 cores: sequential reads 1.4 times as fast, random ones not slower
 * beyond noise; 1 MiB gained no more and cost random ones more. Only root may ask for it; without
 * it, all works as well.
 */
#define READ_AHEAD_KIB 512

static void set_read_ahead(dev_t device)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(device),
		 minor(device));
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (dprintf(fd, "%d", READ_AHEAD_KIB) < 0)
		log_debug(NULL, "cannot set the read-ahead: %s", strerror(errno));
	close(fd);
}

/* Asks the mount for something, as any program might: the answer comes by way of a worker. */
static int mount_probe(const struct mount *mount, struct err *err)
{
	struct stat stat;
	char *path;

	if (asprintf(&path, "%s/%s", mount->mountpoint, status_file_name(STATUS_TEXT)) < 0)
		return err_set(err, "out of memory");

	int result = lstat(path, &stat);

	free(path);
	if (result < 0)
		return err_set(err, "the mount on '%s' does not answer: %s", mount->mountpoint,
			       strerror(errno));
	set_read_ahead(stat.st_dev);
	return 0;
}

static int mount_prepare(struct mount *mount, const char *mountpoint, struct err *err)
{
	mount->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	mount->channel_count = workers_count();
	mount->channels = calloc(mount->channel_count, sizeof(*mount->channels));
	if (mount->event_fd < 0 || !mount->channels)
		return err_set(err, "out of memory or descriptors");
	mount->mountpoint = strdup(mountpoint);
	if (!mount->mountpoint)
		return err_set(err, "out of memory");
	prepare_uring(mount);
	if (images_make(mount, err) < 0)
		return -1;
	return followers_init(mount) < 0 ? err_set(err, "out of memory") : 0;
}

struct mount *mount_new(const struct settings *settings, struct config *config)
{
	struct mount *mount = calloc(1, sizeof(*mount));

	if (!mount)
		return NULL;
	mount->settings = settings;
	mount->config = config;
	mount->started = time(NULL);
	mount->event_fd = -1;
	status_files_init(&mount->status);
	sem_init(&mount->settled, 0, 0);
	return mount;
}

int mount_start(struct mount *mount, const char *mountpoint, const char *options, struct err *err)
{
	int result = mount_prepare(mount, mountpoint, err);

	if (result == 0)
		result = session_mount(mount, options, err);
	if (result == 0) {
		each_channel(mount, start_channel);
		while (sem_wait(&mount->settled) < 0)
			;
		begin_uring(mount);
		followers_begin(mount);
		result = passthrough_begin(mount, err);
		if (result == 0)
			result = mount_probe(mount, err);
		if (result < 0) {
			followers_end(mount);
			while (followers_running(mount) > 0) /* they want to be served */
				usleep(1000);
			mount_stop_channels(mount);
		}
	}
	if (result < 0)
		mount_disconnect(mount);
	return result;
}
