// SPDX-License-Identifier: MIT
/*
 * The folder has a fixed set of files, so nothing is created, renamed or removed: EPERM. Locks have
 * no handlers here: then the kernel keeps them, as for a local file, which is what QEMU needs.
 * Permissions are the kernel's to check (mount option default_permissions).
 *
 * Attributes and names are cached by the kernel for a second: they change only by chmod and the
 * like.
 */
#include "fs/ops.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "core/buffer.h"
#include "fs/mount.h"
#include "fs/passthrough.h"
#include "fs/reservations.h"
#include "fs/resize.h"

#define CACHE_SECONDS 1.0

/*
 * Requests that the kernel may send at once on behalf of asynchronous and read-ahead I/O; its own
 * default of 12 would be the queue depth of the whole mount.
 */
#define BACKGROUND_MAX 1024

static struct mount *mount_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* The status file of a node id, or STATUS_FILES. */
static enum status_file status_file_of(fuse_ino_t ino)
{
	return ino >= NODE_STATUS_FIRST && ino < NODE_STATUS_FIRST + STATUS_FILES
		       ? (enum status_file)(ino - NODE_STATUS_FIRST)
		       : STATUS_FILES;
}

static void fs_init(void *userdata, struct fuse_conn_info *conn)
{
	const struct mount *mount = userdata;

	/* The content changes only through this mount: no need to look for changes at each read. */
	conn->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_ATOMIC_O_TRUNC |
				  FUSE_CAP_WRITEBACK_CACHE);
	conn->want |= conn->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO |
				       FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_IOCTL_DIR);
	if (mount->settings->cache == CACHE_WRITEBACK)
		conn->want |= conn->capable & FUSE_CAP_WRITEBACK_CACHE;
	conn->max_write = (unsigned)buffer_payload();
	conn->max_background = BACKGROUND_MAX;
	conn->congestion_threshold = BACKGROUND_MAX * 3 / 4;
}

/* ---- Attributes. ---- */

/* The folder may be entered by whoever may read or write the images. */
static mode_t folder_mode(mode_t mode)
{
	mode_t read = mode & 0444;

	return read | (mode & 0200) | read >> 2;
}

static void stat_of_folder(const struct mount *mount, fuse_ino_t ino, struct stat *stat)
{
	mode_t mode = (mode_t)mount->settings->mode;

	memset(stat, 0, sizeof(*stat));
	stat->st_ino = ino;
	stat->st_mode = ino == NODE_ROOT ? S_IFDIR | folder_mode(mode) : S_IFREG | (mode & 0444);
	stat->st_nlink = ino == NODE_ROOT ? 2 : 1;
	stat->st_uid = mount->settings->uid;
	stat->st_gid = mount->settings->gid;
	stat->st_blksize = 4096;
	stat->st_atim.tv_sec = stat->st_mtim.tv_sec = stat->st_ctim.tv_sec = mount->started;
}

/* 0 or a negative errno. */
static int node_stat(struct mount *mount, fuse_ino_t ino, struct stat *stat)
{
	struct image *image = image_find(mount, ino);
	int error;

	if (ino == NODE_ROOT || status_file_of(ino) != STATUS_FILES) {
		stat_of_folder(mount, ino, stat);
		return 0;
	}
	if (!image)
		return -ESTALE;
	error = image_stat(image, stat);
	stat->st_ino = ino;
	return error;
}

static void reply_attr(fuse_req_t req, fuse_ino_t ino)
{
	struct stat stat;
	int error = node_stat(mount_of(req), ino, &stat);

	if (error)
		fuse_reply_err(req, -error);
	else
		fuse_reply_attr(req, &stat, CACHE_SECONDS);
}

static void fs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fi;
	reply_attr(req, ino);
}

static void image_set_attributes(struct image *image, const struct stat *attr, int to_set)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	pthread_mutex_lock(&image->mutex);
	if (to_set & FUSE_SET_ATTR_MODE)
		image->mode = attr->st_mode & 07777;
	if (to_set & FUSE_SET_ATTR_UID)
		image->uid = attr->st_uid;
	if (to_set & FUSE_SET_ATTR_GID)
		image->gid = attr->st_gid;
	if (to_set & FUSE_SET_ATTR_ATIME)
		image->atime = to_set & FUSE_SET_ATTR_ATIME_NOW ? now : attr->st_atim;
	image->ctime = now;
	pthread_mutex_unlock(&image->mutex);
	if (to_set & FUSE_SET_ATTR_MTIME)
		image_set_mtime(image, to_set & FUSE_SET_ATTR_MTIME_NOW ? &now : &attr->st_mtim);
}

static void fs_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		       struct fuse_file_info *fi)
{
	struct image *image = image_find(mount_of(req), ino);
	int error = image ? 0 : -EPERM;

	if (!error && (to_set & FUSE_SET_ATTR_SIZE))
		error = image_truncate(image, (uint64_t)attr->st_size, fi == NULL,
				       fuse_req_ctx(req)->pid);
	if (error) {
		fuse_reply_err(req, -error);
		return;
	}
	image_set_attributes(image, attr, to_set);
	reply_attr(req, ino);
}

/* The files of a shared disk follow one another. */
static bool is_counted(const struct mount *mount, size_t i)
{
	const struct image *image = &mount->images[i];

	return i == 0 || !image->shared || !image[-1].shared ||
	       image->disk->below[0] != image[-1].disk->below[0];
}

static void fs_statfs(fuse_req_t req, fuse_ino_t ino)
{
	const struct mount *mount = mount_of(req);
	struct statvfs statvfs = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = 255};
	uint64_t size = 0, allocated = 0;

	(void)ino;
	for (size_t i = 0; i < mount->image_count; i++) {
		uint64_t bytes = 0;
		int error;

		if (!is_counted(mount, i))
			continue;
		error = disk_allocated(mount->images[i].disk, &bytes);
		if (error) {
			fuse_reply_err(req, error_to_errno(error));
			return;
		}
		size += disk_size(mount->images[i].disk);
		allocated += bytes;
	}
	statvfs.f_blocks = size / 4096;
	statvfs.f_bfree = statvfs.f_bavail = allocated < size ? (size - allocated) / 4096 : 0;
	statvfs.f_files = mount->image_count;
	fuse_reply_statfs(req, &statvfs);
}

/* ---- The folder. ---- */

static void fs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct mount *mount = mount_of(req);
	const struct image *image = image_find_name(mount, name);
	struct fuse_entry_param entry = {
		.attr_timeout = CACHE_SECONDS,
		.entry_timeout = CACHE_SECONDS,
	};

	if (image)
		entry.ino = image->node_id;
	for (unsigned file = 0; file < STATUS_FILES && !image; file++)
		if (strcmp(name, status_file_name(file)) == 0)
			entry.ino = NODE_STATUS_FIRST + file;

	int error = parent == NODE_ROOT && entry.ino != 0 ? node_stat(mount, entry.ino, &entry.attr)
							  : -ENOENT;

	if (error)
		fuse_reply_err(req, -error);
	else
		fuse_reply_entry(req, &entry);
}

/* The folder's @index-th entry; false behind the last. */
static bool folder_entry(const struct mount *mount, uint64_t index, const char **name,
			 struct stat *stat)
{
	memset(stat, 0, sizeof(*stat));
	if (index < 2) {
		*name = index == 0 ? "." : "..";
		stat->st_ino = NODE_ROOT;
		stat->st_mode = S_IFDIR;
		return true;
	}
	index -= 2;
	stat->st_mode = S_IFREG;
	if (index < STATUS_FILES) {
		*name = status_file_name((enum status_file)index);
		stat->st_ino = NODE_STATUS_FIRST + index;
		return true;
	}
	index -= STATUS_FILES;
	if (index >= mount->image_count)
		return false;
	*name = mount->images[index].name;
	stat->st_ino = mount->images[index].node_id;
	return true;
}

static void fs_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		       struct fuse_file_info *fi)
{
	char *entries = malloc(size);
	const char *name;
	struct stat stat;
	size_t length = 0;

	(void)ino;
	(void)fi;
	if (!entries) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	for (uint64_t i = (uint64_t)offset; folder_entry(mount_of(req), i, &name, &stat); i++) {
		size_t entry = fuse_add_direntry(req, entries + length, size - length, name, &stat,
						 (off_t)i + 1);

		if (entry > size - length)
			break;
		length += entry;
	}
	fuse_reply_buf(req, entries, length);
	free(entries);
}

/* ---- Files. ---- */

static int open_image(struct mount *mount, struct image *image, pid_t pid,
		      struct fuse_file_info *fi)
{
	bool cached = mount->settings->cache != CACHE_NONE && !image->shared;

	if (image->passthrough) {
		int error = passthrough_open(mount, image);

		return error ? error : image_open(image, fi->flags, pid);
	}
	/*
	 * An O_DIRECT opener bypasses the page cache by its open, too, not only by its flag: writes
	 * of a cached open exclude one another in the kernel.
	 */
	fi->direct_io = !cached || (fi->flags & O_DIRECT);
	fi->keep_cache = cached;
	fi->fh = (fi->direct_io ? IMAGE_HANDLE_DIRECT : 0) |
		 ((fi->flags & O_ACCMODE) != O_RDONLY ? IMAGE_HANDLE_WRITABLE : 0);
	return image_open(image, fi->flags, pid);
}

static int open_status(struct mount *mount, enum status_file file, struct fuse_file_info *fi)
{
	if ((fi->flags & O_ACCMODE) != O_RDONLY)
		return -EACCES;
	fi->direct_io = 1; /* its size is not known before it is read */
	return status_open(mount, file, &fi->fh);
}

static void close_node(struct mount *mount, fuse_ino_t ino, uint64_t handle)
{
	const struct image *image = image_find(mount, ino);

	if (image)
		follower_released(mount, image);
	else if (status_file_of(ino) != STATUS_FILES)
		status_close(mount, handle);
}

static void fs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mount *mount = mount_of(req);
	struct image *image = image_find(mount, ino);
	int error = -ESTALE;

	if (image)
		error = open_image(mount, image, fuse_req_ctx(req)->pid, fi);
	else if (status_file_of(ino) != STATUS_FILES)
		error = open_status(mount, status_file_of(ino), fi);
	if (error) {
		fuse_reply_err(req, -error);
		return;
	}
	if (image)
		follower_opened(mount, image);
	/* If the opener was killed meanwhile no release comes. */
	if (fuse_reply_open(req, fi) < 0)
		close_node(mount, ino, fi->fh);
}

static void fs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	char *data = buffer_get();
	ssize_t result;

	(void)ino;
	if (!data) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	result = status_read(mount_of(req), fi->fh, data, min_u64(size, buffer_size()),
			     (uint64_t)offset);
	if (result < 0)
		fuse_reply_err(req, (int)-result);
	else
		fuse_reply_buf(req, data, (size_t)result);
	buffer_put(data);
}

static void fs_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	close_node(mount_of(req), ino, fi->fh);
	fuse_reply_err(req, 0);
}

/* Whatever the count: the kernel has nothing of the file any more. */
static void fs_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	const struct image *image = image_find(mount_of(req), ino);

	(void)count;
	if (image)
		follower_forgotten(mount_of(req), image);
	fuse_reply_none(req);
}

static void fs_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct image *image = image_find(mount_of(req), ino);

	(void)datasync;
	(void)fi;
	fuse_reply_err(req, image ? -image_flush(image) : 0);
}

static void fs_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
			 struct fuse_file_info *fi)
{
	struct image *image = image_find(mount_of(req), ino);

	(void)fi;
	fuse_reply_err(req,
		       image ? -image_fallocate(image, mode, (uint64_t)offset, (uint64_t)length)
			     : EOPNOTSUPP);
}

static void fs_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
		     struct fuse_file_info *fi)
{
	struct image *image = image_find(mount_of(req), ino);
	off_t result = image ? image_seek(image, offset, whence) : -EINVAL;

	(void)fi;
	if (result < 0)
		fuse_reply_err(req, (int)-result);
	else
		fuse_reply_lseek(req, result);
}

/*
 * The kernel carries an ioctl's argument by the size and direction in its number. BLKSSZGET says
 * that it has none, so its value could not travel, and success would leave the caller with garbage:
 * like all others it is ENOTTY.
 */
static void fs_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned command, void *argument,
		     struct fuse_file_info *fi, unsigned flags, const void *in, size_t in_size,
		     size_t out_size)
{
	struct image *image = image_find(mount_of(req), ino);
	char out[RESERVATIONS_IOCTL_MAX];
	size_t length = 0;
	int error = -ENOTTY;

	(void)argument;
	(void)flags;
	(void)in_size; /* as the command says, as is out_size */
	if (image && command == BLKGETSIZE64 && out_size >= sizeof(uint64_t)) {
		uint64_t size = disk_size(image->disk);

		fuse_reply_ioctl(req, 0, &size, sizeof(size));
		return;
	}
	if (image)
		error = reservations_ioctl(image, fi->fh, command, in, out, &length);
	if (error)
		fuse_reply_err(req, -error);
	else
		fuse_reply_ioctl(req, 0, out, length);
}

/* ---- What would change the folder. ---- */

static void refuse_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
			 dev_t device)
{
	(void)parent;
	(void)name;
	(void)mode;
	(void)device;
	fuse_reply_err(req, EPERM);
}

static void refuse_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	refuse_mknod(req, parent, name, mode, 0);
}

static void refuse_remove(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	refuse_mknod(req, parent, name, 0, 0);
}

static void refuse_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	(void)target;
	refuse_mknod(req, parent, name, 0, 0);
}

static void refuse_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	(void)ino;
	refuse_mknod(req, parent, name, 0, 0);
}

static void refuse_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
			  fuse_ino_t new_parent, const char *new_name, unsigned flags)
{
	(void)new_parent;
	(void)new_name;
	(void)flags;
	refuse_mknod(req, parent, name, 0, 0);
}

const struct fuse_lowlevel_ops fs_ops = {
	.init = fs_init,
	.lookup = fs_lookup,
	.forget = fs_forget,
	.getattr = fs_getattr,
	.setattr = fs_setattr,
	.statfs = fs_statfs,
	.readdir = fs_readdir,
	.open = fs_open,
	.read = fs_read,
	.release = fs_release,
	.fsync = fs_fsync,
	.fallocate = fs_fallocate,
	.lseek = fs_lseek,
	.ioctl = fs_ioctl,
	.getxattr = fs_getxattr,
	.listxattr = fs_listxattr,
	.setxattr = fs_setxattr,
	.mknod = refuse_mknod,
	.mkdir = refuse_mkdir,
	.unlink = refuse_remove,
	.rmdir = refuse_remove,
	.symlink = refuse_symlink,
	.link = refuse_link,
	.rename = refuse_rename,
};
