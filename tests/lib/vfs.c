// SPDX-License-Identifier: MIT
#include "tests/lib/vfs.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

/* A file as SQLite sees it; the real one's struct lies behind it. */
struct file {
	sqlite3_file base;
	sqlite3_file *real;
	int kind; /* enum vfs_file; -1: of no interest */
};

static sqlite3_vfs vfs, *real_vfs;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* With the mutex held. */
static bool recording;
static struct vfs_event *events;
static unsigned event_count, event_room;
static unsigned char *image;
static size_t image_length;
static struct vfs_fault fault;
static unsigned seen, failed; /* of the fault */

/* ---- Recording. ---- */

/* The index of the event; with nothing recorded, 0. */
static unsigned record(const struct file *file, struct vfs_event event, const void *data)
{
	unsigned index = 0;

	if (file->kind < 0)
		return 0;
	pthread_mutex_lock(&mutex);
	if (recording) {
		if (event_count == event_room) {
			event_room = event_room ? 2 * event_room : 1024;
			events = realloc(events, event_room * sizeof(*events));
			assert(events);
		}
		event.file = (enum vfs_file)file->kind;
		if (data) {
			event.data = malloc(event.length);
			assert(event.data);
			memcpy(event.data, data, event.length);
		}
		index = event_count++;
		events[index] = event;
	}
	pthread_mutex_unlock(&mutex);
	return index;
}

/* Keeps what a database had in it when it was first opened. */
static void record_image(struct file *file)
{
	sqlite3_int64 size = 0;

	pthread_mutex_lock(&mutex);
	if (recording && file->kind == VFS_DATABASE && !image &&
	    file->real->pMethods->xFileSize(file->real, &size) == SQLITE_OK && size > 0) {
		image = malloc((size_t)size);
		image_length = (size_t)size;
		assert(image);
		assert(file->real->pMethods->xRead(file->real, image, (int)size, 0) == SQLITE_OK);
	}
	pthread_mutex_unlock(&mutex);
}

void vfs_record(void)
{
	pthread_mutex_lock(&mutex);
	for (unsigned i = 0; i < event_count; i++)
		free(events[i].data);
	event_count = 0;
	free(image);
	image = NULL;
	image_length = 0;
	recording = true;
	pthread_mutex_unlock(&mutex);
}

void vfs_record_end(void)
{
	pthread_mutex_lock(&mutex);
	recording = false;
	pthread_mutex_unlock(&mutex);
}

unsigned vfs_count(void)
{
	unsigned count;

	pthread_mutex_lock(&mutex);
	count = event_count;
	pthread_mutex_unlock(&mutex);
	return count;
}

const struct vfs_event *vfs_event(unsigned index)
{
	return &events[index];
}

const unsigned char *vfs_image(size_t *length)
{
	*length = image_length;
	return image;
}

/* ---- Failing. ---- */

void vfs_fail(const struct vfs_fault *wanted)
{
	pthread_mutex_lock(&mutex);
	fault = *wanted;
	seen = failed = 0;
	pthread_mutex_unlock(&mutex);
}

unsigned vfs_failed(void)
{
	unsigned count;

	pthread_mutex_lock(&mutex);
	count = failed;
	pthread_mutex_unlock(&mutex);
	return count;
}

/* Whether this one is to fail; errno says by what, as a system call would, which is what SQLite looks
 * at. */
static bool fails(const struct file *file, enum vfs_op op)
{
	bool hit = false;

	if (file->kind < 0)
		return false;
	pthread_mutex_lock(&mutex);
	if (fault.errnum && fault.op == op && (fault.files >> file->kind & 1))
		hit = seen++ >= fault.after && (fault.times == 0 || failed < fault.times);
	failed += hit;
	if (hit)
		errno = fault.errnum;
	pthread_mutex_unlock(&mutex);
	return hit;
}

/* ---- Files. ---- */

static struct file *file_of(sqlite3_file *base)
{
	return (struct file *)(void *)base;
}

static int file_close(sqlite3_file *base)
{
	sqlite3_file *real = file_of(base)->real;

	return real->pMethods->xClose(real);
}

static int file_read(sqlite3_file *base, void *data, int length, sqlite3_int64 offset)
{
	sqlite3_file *real = file_of(base)->real;

	return real->pMethods->xRead(real, data, length, offset);
}

static int file_write(sqlite3_file *base, const void *data, int length, sqlite3_int64 offset)
{
	struct file *file = file_of(base);
	int result;

	/* As SQLite's own says it. */
	if (fails(file, VFS_WRITE))
		return errno == ENOSPC ? SQLITE_FULL : SQLITE_IOERR_WRITE;
	result = file->real->pMethods->xWrite(file->real, data, length, offset);
	/* Afterwards, so that it is only in front of a sync that has it. */
	record(file,
	       (struct vfs_event){
		       .op = VFS_WRITE, .offset = (uint64_t)offset, .length = (uint32_t)length},
	       data);
	return result;
}

static int file_truncate(sqlite3_file *base, sqlite3_int64 size)
{
	struct file *file = file_of(base);
	int result;

	if (fails(file, VFS_TRUNCATE))
		return SQLITE_IOERR_TRUNCATE;
	result = file->real->pMethods->xTruncate(file->real, size);
	record(file, (struct vfs_event){.op = VFS_TRUNCATE, .offset = (uint64_t)size}, NULL);
	return result;
}

static int file_sync(sqlite3_file *base, int flags)
{
	struct file *file = file_of(base);
	unsigned began;
	int result;

	if (fails(file, VFS_SYNC))
		return SQLITE_IOERR_FSYNC;
	began = record(file, (struct vfs_event){.op = VFS_SYNC}, NULL);
	result = file->real->pMethods->xSync(file->real, flags);
	record(file, (struct vfs_event){.op = VFS_SYNCED, .began = began}, NULL);
	return result;
}

static int file_size(sqlite3_file *base, sqlite3_int64 *size)
{
	sqlite3_file *real = file_of(base)->real;

	return real->pMethods->xFileSize(real, size);
}

static int file_lock(sqlite3_file *base, int lock)
{
	sqlite3_file *real = file_of(base)->real;

	return real->pMethods->xLock(real, lock);
}

static int file_unlock(sqlite3_file *base, int lock)
{
	sqlite3_file *real = file_of(base)->real;

	return real->pMethods->xUnlock(real, lock);
}

static int file_check_lock(sqlite3_file *base, int *result)
{
	sqlite3_file *real = file_of(base)->real;

	return real->pMethods->xCheckReservedLock(real, result);
}

static int file_control(sqlite3_file *base, int op, void *argument)
{
	sqlite3_file *real = file_of(base)->real;

	return real->pMethods->xFileControl(real, op, argument);
}

static int file_sector_size(sqlite3_file *base)
{
	sqlite3_file *real = file_of(base)->real;

	return real->pMethods->xSectorSize(real);
}

static int file_characteristics(sqlite3_file *base)
{
	sqlite3_file *real = file_of(base)->real;

	return real->pMethods->xDeviceCharacteristics(real);
}

static int file_shm_map(sqlite3_file *base, int page, int size, int extend, void volatile **memory)
{
	sqlite3_file *real = file_of(base)->real;

	return real->pMethods->xShmMap(real, page, size, extend, memory);
}

static int file_shm_lock(sqlite3_file *base, int offset, int count, int flags)
{
	sqlite3_file *real = file_of(base)->real;

	return real->pMethods->xShmLock(real, offset, count, flags);
}

static void file_shm_barrier(sqlite3_file *base)
{
	sqlite3_file *real = file_of(base)->real;

	real->pMethods->xShmBarrier(real);
}

static int file_shm_unmap(sqlite3_file *base, int delete)
{
	sqlite3_file *real = file_of(base)->real;

	return real->pMethods->xShmUnmap(real, delete);
}

static const sqlite3_io_methods methods = {
	.iVersion = 2,
	.xClose = file_close,
	.xRead = file_read,
	.xWrite = file_write,
	.xTruncate = file_truncate,
	.xSync = file_sync,
	.xFileSize = file_size,
	.xLock = file_lock,
	.xUnlock = file_unlock,
	.xCheckReservedLock = file_check_lock,
	.xFileControl = file_control,
	.xSectorSize = file_sector_size,
	.xDeviceCharacteristics = file_characteristics,
	.xShmMap = file_shm_map,
	.xShmLock = file_shm_lock,
	.xShmBarrier = file_shm_barrier,
	.xShmUnmap = file_shm_unmap,
};

/* ---- The VFS. ---- */

static int vfs_open(sqlite3_vfs *self, const char *name, sqlite3_file *base, int flags,
		    int *out_flags)
{
	struct file *file = file_of(base);
	int result;

	(void)self;
	file->base.pMethods = NULL;
	file->real = (sqlite3_file *)(void *)(file + 1);
	file->kind = flags & SQLITE_OPEN_MAIN_DB ? VFS_DATABASE
		     : flags & SQLITE_OPEN_WAL	 ? VFS_WAL
						 : -1;
	result = real_vfs->xOpen(real_vfs, name, file->real, flags, out_flags);
	if (!file->real->pMethods)
		return result;
	file->base.pMethods = &methods;
	if (result == SQLITE_OK)
		record_image(file);
	return result;
}

static int vfs_delete(sqlite3_vfs *self, const char *name, int sync)
{
	const struct file wal = {.kind = VFS_WAL};
	const char *end = strrchr(name, '-');

	(void)self;
	if (end && strcmp(end, "-wal") == 0)
		record(&wal, (struct vfs_event){.op = VFS_DELETE}, NULL);
	return real_vfs->xDelete(real_vfs, name, sync);
}

void vfs_install(void)
{
	real_vfs = sqlite3_vfs_find(NULL);
	vfs = *real_vfs;
	vfs.iVersion = 2;
	vfs.szOsFile = (int)sizeof(struct file) + real_vfs->szOsFile;
	vfs.pNext = NULL;
	vfs.zName = "diskfs-test";
	vfs.pAppData = NULL;
	vfs.xOpen = vfs_open;
	vfs.xDelete = vfs_delete;
	assert(sqlite3_vfs_register(&vfs, 1) == SQLITE_OK);
}
