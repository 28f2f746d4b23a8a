// SPDX-License-Identifier: MIT
#include "backends/blockdev/metadata.h"
#include <ctype.h>
#include <errno.h>
#include <linux/fs.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* ---- By ioctl. ---- */

int metadata_ask(int fd, struct blockdev_metadata *metadata, struct err *err)
{
	int sector_size = 0, read_only = 0;
	unsigned physical_size = 0;
	unsigned short rotational = 0;

	if (ioctl(fd, BLKSSZGET, &sector_size) < 0 ||
	    ioctl(fd, BLKGETSIZE64, &metadata->size) < 0 || ioctl(fd, BLKROGET, &read_only) < 0)
		return err_set(err, "does not say what it is: %s", strerror(errno));
	if (sector_size <= 0)
		return err_set(err, "says that its sectors have %d bytes", sector_size);
	metadata->sector_size = (uint32_t)sector_size;
	metadata->read_only = read_only;
	/* Old drivers do not know these two. */
	if (ioctl(fd, BLKPBSZGET, &physical_size) < 0 || !is_power_of_two(physical_size))
		physical_size = metadata->sector_size;
	metadata->physical_sector_size = (uint32_t)max_u64(physical_size, metadata->sector_size);
	metadata->rotational = ioctl(fd, BLKROTATIONAL, &rotational) == 0 && rotational;
	return 0;
}

/* ---- By sysfs. ---- */

bool sysfs_line(const char *folder, const char *name, char *text, size_t size)
{
	char path[300];
	char *end, *begin = text;
	FILE *file;

	text[0] = '\0';
	if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
		return false;
	file = fopen(path, "re");
	if (!file)
		return false;
	if (!fgets(text, (int)size, file))
		text[0] = '\0';
	fclose(file);
	end = text + strlen(text);
	while (end > text && isspace((unsigned char)end[-1]))
		*--end = '\0';
	while (isspace((unsigned char)*begin))
		begin++;
	memmove(text, begin, (size_t)(end - begin) + 1);
	return text[0];
}

uint64_t sysfs_number(const char *folder, const char *name)
{
	unsigned long long number;
	char text[32], *end;

	if (!sysfs_line(folder, name, text, sizeof(text)) || !isdigit((unsigned char)text[0]))
		return 0;
	errno = 0;
	number = strtoull(text, &end, 10);
	return errno || *end ? 0 : number;
}

/* Which of them is there depends on the driver of the device. */
static void read_identity(const char *whole, struct blockdev_metadata *metadata)
{
	static const struct {
		const char *file, *prefix;
	} names[] = {
		{"wwid", ""},	       /* NVMe: NGUID, EUI-64 or serial number */
		{"device/wwid", ""},   /* SCSI: NAA, EUI-64 or T10 */
		{"serial", "serial-"}, /* virtio */
		{"device/cid", "mmc-"}, {"dm/uuid", "dm-uuid-"}, {"md/uuid", "md-uuid-"},
	};
	char text[BLOCKDEV_IDENTITY_MAX - 16];

	metadata->identity[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(names) && !metadata->identity[0]; i++)
		if (sysfs_line(whole, names[i].file, text, sizeof(text)))
			snprintf(metadata->identity, sizeof(metadata->identity), "%s%s",
				 names[i].prefix, text);
}

static void read_queue(const char *queue, struct blockdev_metadata *metadata)
{
	uint64_t dma_mask = sysfs_number(queue, "dma_alignment");
	char text[64];

	metadata->is_zoned =
		sysfs_line(queue, "zoned", text, sizeof(text)) && strcmp(text, "none") != 0;
	metadata->write_cache = sysfs_line(queue, "write_cache", text, sizeof(text)) &&
				strcmp(text, "write back") == 0;
	metadata->fua = sysfs_number(queue, "fua");
	metadata->discard_granularity = sysfs_number(queue, "discard_granularity");
	metadata->discard_max = sysfs_number(queue, "discard_max_bytes");
	metadata->write_zeroes_max = sysfs_number(queue, "write_zeroes_max_bytes");
	metadata->max_transfer = min_u64(sysfs_number(queue, "max_hw_sectors_kb"), 4 * MIB) * KIB;
	metadata->max_segments = (unsigned)min_u64(sysfs_number(queue, "max_segments"), 65536);
	if (sysfs_line(queue, "dma_alignment", text, sizeof(text)) && dma_mask < 4096 &&
	    is_power_of_two(dma_mask + 1))
		metadata->dma_align = (uint32_t)dma_mask + 1;
}

bool metadata_read(const char *folder, struct blockdev_metadata *metadata)
{
	char whole[260], queue[272];

	if (access(folder, F_OK) < 0)
		return false;
	metadata->partition = (unsigned)min_u64(sysfs_number(folder, "partition"), UINT32_MAX);
	/* The folder of a partition is in that of its device. */
	snprintf(whole, sizeof(whole), "%s%s", folder, metadata->partition ? "/.." : "");
	snprintf(queue, sizeof(queue), "%s/queue", whole);
	metadata->removable = sysfs_number(whole, "removable");
	read_queue(queue, metadata);
	read_identity(whole, metadata);
	return true;
}

/* ---- The id. ---- */

/* "KIND.32 hexadecimal digits", of identifiers that have 16 bytes themselves. */
static bool parse_id(const char *text, uint8_t id[static 16])
{
	static const char *const kinds[] = {"naa.", "eui.", "uuid."};
	unsigned digits = 0;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		size_t length = strlen(kinds[i]);

		if (strncmp(text, kinds[i], length) != 0)
			continue;
		for (text += length; *text; text++) {
			char digit[2] = {*text, '\0'};
			unsigned value = (unsigned)strtoul(digit, NULL, 16);

			if (*text == '-')
				continue;
			if (!isxdigit((unsigned char)*text) || digits == 32)
				return false;
			id[digits / 2] = (uint8_t)((unsigned)id[digits / 2] << 4 | value);
			digits++;
		}
		return digits == 32;
	}
	return false;
}

bool metadata_id(const struct blockdev_metadata *metadata, uint8_t id[static 16])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	char text[BLOCKDEV_IDENTITY_MAX + 24];

	if (!metadata->identity[0])
		return false;
	if (!metadata->partition && parse_id(metadata->identity, id))
		return true;
	/* As udev names it. */
	if (metadata->partition)
		snprintf(text, sizeof(text), "%s-part%u", metadata->identity, metadata->partition);
	else
		snprintf(text, sizeof(text), "%s", metadata->identity);
	if (!EVP_Digest(text, strlen(text), digest, NULL, EVP_sha256(), NULL))
		return false;
	memcpy(id, digest, 16);
	return true;
}
