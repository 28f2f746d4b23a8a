// SPDX-License-Identifier: MIT
/*
 * A disk that changes its size leaves a note of it, in the task that changed it, and a task of its
 * own to tell the kernel: one for an image at a time, however many changes come meanwhile.
 *
 * The kernel can be told by notifications only, which are written to its descriptor. Nothing here
 * touches a file of the mount, not even on another thread: whoever waits for a mount's answer
 * cannot be killed, and would keep this process, which has to give the answer, from ending.
 *
 *  - That attributes have expired: it asks for the size when somebody wants to know it next, and
 *    drops the pages beyond a smaller end, or whole, by itself then. This never waits.
 *  - That pages have to be dropped, from a smaller end on: what is cached there may be looked at by
 *    those who do not ask for the size. This waits for pages that are being read or written, and
 *    nobody can interrupt it. So it is done on another thread (offload), one at a time, and not
 *    before the requests there have ended that were under way: where a disk is stuck, the kernel
 *    is not asked to wait for it. New ones beyond the end are answered whatever the disk does.
 *  - With cache = writeback the kernel keeps the size for itself, and asks nobody. It can be made
 *    larger by giving the kernel the last byte to cache. It cannot be made smaller but by
 *    truncate(2) of the image, which somebody else has to call; or by having the kernel forget the
 *    file, which it does when its name is dropped while nobody has it open. That waits for those
 *    who are just looking up a name, and so is done on another thread, too.
 */
#include "fs/resize.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "core/bytes.h"
#include "core/log.h"
#include "core/offload.h"
#include "core/task.h"
#include "fs/mount.h"
#include "fs/wire.h"

#define PAGE	    ((uint64_t)4096)
#define PATIENCE_NS NS_PER_S

/* ---- Notifications. ---- */

struct notification {
	int fd;
	uint64_t node_id;
	const char *name;
	uint64_t offset;
	uint8_t byte;
	int (*send)(const struct notification *notification);
	int result;
};

static int send_expired(const struct notification *notification)
{
	return wire_notify_expired(notification->fd, notification->node_id);
}

static int send_dropped(const struct notification *notification)
{
	return wire_notify_dropped(notification->fd, notification->node_id, notification->offset);
}

static int send_byte(const struct notification *notification)
{
	return wire_notify_byte(notification->fd, notification->node_id, notification->offset,
				notification->byte);
}

static int send_name(const struct notification *notification)
{
	return wire_notify_name(notification->fd, NODE_ROOT, notification->name);
}

static void send_job(void *argument)
{
	struct notification *notification = argument;

	notification->result = notification->send(notification);
}

static void notify(const struct follower *follower, struct notification notification)
{
	struct mount *mount = follower->mount;

	notification.fd = mount->link.fds[0];
	notification.node_id = follower->image->node_id;
	notification.name = follower->image->name;
	task_mutex_lock(&mount->followers.notify_mutex);
	offload(send_job, &notification);
	task_mutex_unlock(&mount->followers.notify_mutex);
	/* ENOENT: it does not know the file, and so nothing wrong of it. */
	if (notification.result < 0 && notification.result != -ENOENT &&
	    notification.result != -ENOTCONN && notification.result != -ENODEV)
		log_warning(follower->image->name, "the kernel cannot be told of its new size: %s",
			    strerror(-notification.result));
}

static void notify_dropped(const struct follower *follower, uint64_t offset)
{
	notify(follower,
	       (struct notification){.send = send_dropped, .offset = align_down(offset, PAGE)});
}

/* ---- To follow one disk. ---- */

/* What has changed since the last look. */
struct step {
	uint64_t from, to;   /* bytes: the size that the kernel knows, and the new one */
	uint64_t stale_from; /* bytes */
	bool drops_name;
};

static bool is_writeback(const struct mount *mount)
{
	return mount->settings->cache == CACHE_WRITEBACK;
}

static bool is_ending(struct followers *followers)
{
	bool is_ending;

	pthread_mutex_lock(&followers->mutex);
	is_ending = followers->is_ending;
	pthread_mutex_unlock(&followers->mutex);
	return is_ending;
}

/* Waits for the requests from the page of byte @offset on that are under way. */
static bool requests_have_ended(struct follower *follower, uint64_t offset)
{
	struct disk *disk = follower->image->disk;
	uint64_t count = align_down(offset, PAGE) >> disk_sector_shift(disk);

	while (!is_ending(&follower->mount->followers))
		if (disk_drain_old(disk, count, PATIENCE_NS))
			return true;
	return false;
}

/* The kernel believes in its own size. A page that it has of the old end must not be written back
 * longer than it was. */
static void grow_kernel_size(const struct follower *follower, const struct step *step)
{
	struct notification last = {.send = send_byte, .offset = step->to - 1};
	int error = disk_read_bytes(follower->image->disk, &last.byte, 1, last.offset);

	if (error) {
		log_warning(follower->image->name,
			    "the last sector cannot be read: the kernel keeps the old size");
		return;
	}
	notify_dropped(follower, step->from);
	notify(follower, last);
	notify_dropped(follower, step->from);
}

static void follow_step(struct follower *follower, const struct step *step)
{
	bool writeback = is_writeback(follower->mount);

	notify(follower, (struct notification){.send = send_expired});
	if (step->stale_from < step->from && requests_have_ended(follower, step->stale_from))
		notify_dropped(follower, step->stale_from);
	if (step->to > step->from && writeback && requests_have_ended(follower, step->from))
		grow_kernel_size(follower, step);
	if (step->drops_name)
		notify(follower, (struct notification){.send = send_name});
	if (step->to != step->from)
		log_info(follower->image->name, "has %llu bytes now, and had %llu%s",
			 (unsigned long long)step->to, (unsigned long long)step->from,
			 writeback && step->to < step->from
				 ? "; with cache = writeback the kernel keeps the old size while "
				   "somebody has the image open, unless this was a truncation of it"
				 : "");
}

static bool has_news(const struct follower *follower)
{
	return follower->stale_from != UINT64_MAX || follower->was_closed;
}

/* False: there is nothing to do any more. */
static bool step_begin(struct follower *follower, struct step *step)
{
	struct followers *followers = &follower->mount->followers;
	bool is_more;

	pthread_mutex_lock(&followers->mutex);
	is_more = has_news(follower) && !followers->is_ending;
	if (is_more) {
		follower->has_old_size |=
			is_writeback(follower->mount) && follower->seen < follower->told;
		*step = (struct step){.from = follower->told,
				      .to = follower->seen,
				      .stale_from = follower->stale_from,
				      .drops_name = follower->has_old_size && !follower->openers};
		follower->told = follower->seen;
		follower->stale_from = UINT64_MAX;
		follower->was_closed = false;
	} else {
		follower->is_running = false;
		followers->running--;
	}
	pthread_mutex_unlock(&followers->mutex);
	return is_more;
}

static void follow_main(void *argument)
{
	struct follower *follower = argument;
	struct step step;

	while (step_begin(follower, &step))
		follow_step(follower, &step);
}

/* With the mutex held. Whether a task is to be started, which is counted already. */
static bool follower_is_needed(struct followers *followers, struct follower *follower)
{
	if (!followers->is_open || followers->is_ending || follower->is_running ||
	    !has_news(follower))
		return false;
	follower->is_running = true;
	followers->running++;
	return true;
}

static void follower_start(struct follower *follower)
{
	struct followers *followers = &follower->mount->followers;

	if (task_start(follow_main, follower) == 0)
		return;
	log_warning(follower->image->name, "no memory to tell the kernel of its new size");
	pthread_mutex_lock(&followers->mutex);
	follower->is_running = false;
	followers->running--;
	pthread_mutex_unlock(&followers->mutex);
}

/* The disk, or one below it, has another size. */
static void disk_resized(void *argument)
{
	struct follower *follower = argument;
	struct followers *followers = &follower->mount->followers;
	uint64_t size = disk_size(follower->image->disk);
	bool is_needed;

	pthread_mutex_lock(&followers->mutex);
	/* The size is the same: of a disk below another part shows through, wherever that is. */
	follower->stale_from = min_u64(follower->stale_from,
				       size == follower->seen ? 0 : min_u64(size, follower->seen));
	follower->seen = size;
	is_needed = follower_is_needed(followers, follower);
	pthread_mutex_unlock(&followers->mutex);
	if (is_needed)
		follower_start(follower);
}

/* ---- Who has the file open, where the kernel keeps its size. ---- */

static struct follower *follower_of(struct mount *mount, const struct image *image)
{
	return &mount->followers.all[image - mount->images];
}

void follower_opened(struct mount *mount, const struct image *image)
{
	if (!is_writeback(mount))
		return;
	pthread_mutex_lock(&mount->followers.mutex);
	follower_of(mount, image)->openers++;
	pthread_mutex_unlock(&mount->followers.mutex);
}

void follower_released(struct mount *mount, const struct image *image)
{
	struct follower *follower = follower_of(mount, image);
	struct followers *followers = &mount->followers;
	bool is_needed;

	if (!is_writeback(mount))
		return;
	pthread_mutex_lock(&followers->mutex);
	follower->openers--;
	follower->was_closed |= follower->has_old_size && follower->openers == 0;
	is_needed = follower_is_needed(followers, follower);
	pthread_mutex_unlock(&followers->mutex);
	if (is_needed)
		follower_start(follower);
}

void follower_forgotten(struct mount *mount, const struct image *image)
{
	pthread_mutex_lock(&mount->followers.mutex);
	follower_of(mount, image)->has_old_size = false;
	pthread_mutex_unlock(&mount->followers.mutex);
}

/* ---- All of them. ---- */

static void hook_disks(void *argument)
{
	struct followers *followers = argument;

	for (size_t i = 0; i < followers->count; i++) {
		struct follower *follower = &followers->all[i];

		disk_on_resize(follower->image->disk, disk_resized, follower);
		pthread_mutex_lock(&followers->mutex);
		follower->seen = follower->told = disk_size(follower->image->disk);
		follower->stale_from = UINT64_MAX;
		pthread_mutex_unlock(&followers->mutex);
	}
}

int followers_init(struct mount *mount)
{
	struct followers *followers = &mount->followers;

	followers->all = calloc(max_u64(mount->image_count, 1), sizeof(*followers->all));
	if (!followers->all)
		return -ENOMEM;
	followers->count = mount->image_count;
	pthread_mutex_init(&followers->mutex, NULL);
	task_mutex_init(&followers->notify_mutex);
	for (size_t i = 0; i < followers->count; i++)
		followers->all[i] = (struct follower){.mount = mount, .image = &mount->images[i]};
	worker_call(worker_get(0), hook_disks, followers);
	return 0;
}

void followers_destroy(struct mount *mount)
{
	struct followers *followers = &mount->followers;

	if (!followers->all)
		return;
	pthread_mutex_destroy(&followers->mutex);
	task_mutex_destroy(&followers->notify_mutex);
	free(followers->all);
}

static void begin_following(void *argument)
{
	struct followers *followers = argument;

	pthread_mutex_lock(&followers->mutex);
	followers->is_open = true;
	pthread_mutex_unlock(&followers->mutex);
	for (size_t i = 0; i < followers->count; i++) {
		struct follower *follower = &followers->all[i];
		bool is_needed;

		pthread_mutex_lock(&followers->mutex);
		is_needed = follower_is_needed(followers, follower);
		pthread_mutex_unlock(&followers->mutex);
		if (is_needed)
			follower_start(follower);
	}
}

void followers_begin(struct mount *mount)
{
	worker_call(worker_get(0), begin_following, &mount->followers);
}

void followers_end(struct mount *mount)
{
	pthread_mutex_lock(&mount->followers.mutex);
	mount->followers.is_ending = true;
	pthread_mutex_unlock(&mount->followers.mutex);
}

unsigned followers_running(struct mount *mount)
{
	unsigned running;

	pthread_mutex_lock(&mount->followers.mutex);
	running = mount->followers.running;
	pthread_mutex_unlock(&mount->followers.mutex);
	return running;
}
