/* SPDX-License-Identifier: MIT */
/*
 * The operations that libfuse dispatches: everything but READ and WRITE of images (wire.c) and
 * extended attributes (xattr.c). Each runs in the task of its request, and may suspend it.
 */
#ifndef FS_OPS_H
#define FS_OPS_H

#include <fuse_lowlevel.h>

extern const struct fuse_lowlevel_ops fs_ops;

/* xattr.c */
void fs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void fs_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void fs_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		 int flags);

#endif
