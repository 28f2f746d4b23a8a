// SPDX-License-Identifier: MIT
#include <assert.h>
#include <endian.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "backends/list.h"
#include "tests/lib/check.h"
#include "tests/lib/run.h"
#include "tests/lib/stacks.h"
#include "tests/lib/vhd.h"

/* ---- A disk. ---- */

struct disk *vhd_try(struct vhd_rig *rig, const char *path, const char *const (*options)[2],
		     unsigned flags, struct err *err)
{
	const char *const file_options[][2] = {{"path", path}, {NULL}};
	static const char *const none[][2] = {{NULL}};
	unsigned below = flags | DISK_OPEN_RESIZE;

	*rig = (struct vhd_rig){.file = NULL};
	rig->file = driver_open(driver_find("file"), file_options, 2, below, NULL, err);
	if (rig->file)
		rig->fault = driver_open(driver_find("fault"), none, 1, below, rig->file, err);
	if (rig->fault)
		rig->disk = driver_open(driver_find("vhd"), options ? options : none,
					VHD_OPTIONS_MAX, flags, rig->fault, err);
	if (!rig->disk)
		vhd_close_rig(rig);
	return rig->disk;
}

bool vhd_open_rig(struct vhd_rig *rig, const char *path, unsigned flags)
{
	struct err err = {.text = ""};

	return CHECK(vhd_try(rig, path, NULL, flags, &err)) & CHECK_TEXT(err.text, "");
}

void vhd_close_rig(struct vhd_rig *rig)
{
	disk_close(rig->disk);
	disk_close(rig->fault);
	disk_close(rig->file);
	*rig = (struct vhd_rig){.file = NULL};
}

void vhd_refused(const char *path, const char *const (*options)[2], const char *key,
		 const char *text)
{
	struct err err = {.text = ""};
	struct vhd_rig rig;

	if (!CHECK(!vhd_try(&rig, path, options, 0, &err)))
		vhd_close_rig(&rig);
	CHECK_TEXT(err.key, key);
	if (!CHECK(strstr(err.text, text)))
		CHECK_TEXT(err.text, text);
}

void vhd_fail(struct vhd_rig *rig, const char *rules)
{
	struct err err = {.text = ""};

	CHECK_EQ(disk_set_option(rig->fault, "rules", rules, &err), 0);
	CHECK_TEXT(err.text, "");
}

int vhd_put(struct vhd_rig *rig, const void *data, uint64_t sector, uint64_t count)
{
	struct iovec iov;
	struct sg sg = sg_of(&iov, (void *)(uintptr_t)data, count * VHD_SECTOR);

	return disk_write(rig->disk, &sg, sector, 0);
}

int vhd_get(struct vhd_rig *rig, void *data, uint64_t sector, uint64_t count)
{
	struct iovec iov;
	struct sg sg = sg_of(&iov, data, count * VHD_SECTOR);

	return disk_read(rig->disk, &sg, sector);
}

bool vhd_is(struct vhd_rig *rig, const uint8_t *model)
{
	size_t size = disk_size(rig->disk);
	uint8_t *data = malloc(size);
	bool held;

	assert(data);
	held = CHECK_OK(vhd_get(rig, data, 0, size / VHD_SECTOR));
	for (size_t at = 0; held && at < size; at += VHD_SECTOR)
		if (memcmp(data + at, model + at, VHD_SECTOR) != 0)
			held = CHECK_EQ(at / VHD_SECTOR, UINT64_MAX);
	free(data);
	return held;
}

/* ---- A file. ---- */

uint8_t *vhd_load(const char *path, size_t *length)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat stat;
	uint8_t *bytes;

	assert(fd >= 0 && fstat(fd, &stat) == 0);
	*length = (size_t)stat.st_size;
	bytes = malloc(*length + 1);
	assert(bytes);
	CHECK_EQ(read(fd, bytes, *length), *length);
	close(fd);
	return bytes;
}

static bool inspect_bytes(const uint8_t *bytes, size_t length, struct vhd_file *file,
			  struct err *err)
{
	const uint8_t *end = bytes + length - VHD_FOOTER_SIZE;
	uint32_t order[VHD_ENTRIES_MAX];

	if (vhd_footer_decode(&file->footer, end, VHD_FOOTER_SIZE, err) < 0)
		return false;
	if (file->footer.type == VHD_FIXED)
		return true;
	CHECK(memcmp(end, bytes, VHD_FOOTER_SIZE) == 0);
	if (vhd_header_decode(&file->header, bytes + file->footer.data_offset, err) < 0 ||
	    vhd_layout_of(&file->layout, &file->footer, &file->header, file->footer.current_size,
			  length / VHD_SECTOR - 1, err) < 0)
		return false;
	CHECK(file->layout.blocks <= VHD_ENTRIES_MAX);
	memcpy(file->entries, bytes + file->header.table_offset,
	       file->layout.blocks * sizeof(file->entries[0]));
	for (uint32_t i = 0; i < file->layout.blocks; i++)
		file->entries[i] = be32toh(file->entries[i]);
	return vhd_table_check(&file->layout, file->entries, order, &file->used, err) == 0;
}

bool vhd_inspect(const char *path, struct vhd_file *file)
{
	struct err err = {.text = ""};
	size_t length;
	uint8_t *bytes = vhd_load(path, &length);
	bool held;

	*file = (struct vhd_file){.length = length};
	held = CHECK(length % VHD_SECTOR == 0) && CHECK(inspect_bytes(bytes, length, file, &err));
	CHECK_TEXT(err.text, "");
	free(bytes);
	return held;
}
