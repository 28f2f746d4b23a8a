// SPDX-License-Identifier: MIT
/*
 * crypt: the disk below holds what is encrypted by XTS-AES, this one shows it in the clear. Raw, as
 * dm-crypt does it (aes-xts-plain64), or as a LUKS volume, whose header says where the data begins.
 *
 * A *data unit* is what one tweak is for. The disk's sectors are those of the disk below, or data
 * units where these are larger; so a sector is one unit or several.
 *
 * Reads are decrypted where they lie, in the caller's memory. Writes are encrypted from there into
 * a buffer of the worker, since the caller's memory must not change. Only where a segment ends
 * inside a unit is there a second copy. Nothing is allocated for a request, once pools are warm.
 *
 * AES keeps a worker busy. So the core cuts requests into pieces, each of them encrypted and written,
 * or read and decrypted, by a task of its own that lets the worker's others run before. A piece is
 * small enough to stay in the cache meanwhile, and while one waits for the disk below, the next
 * is encrypted. The pieces stay on one worker: to hand one over takes about as long as its AES, and
 * several requests are on several workers already.
 *
 * Holes: zeros below would be noise here. Unless discards are passed on, unmap does nothing, zeros
 * are encrypted and written, and all is data. With discard = pass, a unit that is all zeros below
 * *is* zeros here (no other plaintext is encrypted to that but by a chance of 2^-4096): so what was
 * given back, or was never written, reads as it does on the disk below, and holes are holes.
 *
 * There is no integrity: whoever changes the data below changes what is read, and nobody notices.
 *
 * Flush and crash: as the disk below. A unit that was torn below is noise, as a torn sector is.
 */
#include <errno.h>
#include <string.h>
#include "backends/secret/key.h"
#include "backends/crypt/luks.h"
#include "backends/crypt/xts.h"
#include "core/buffer.h"
#include "core/disk.h"
#include "core/offload.h"
#include "core/report.h"
#include "core/task.h"

#define PIECE	 (128 * KIB)
#define UNIT_MAX 4096

enum format { FORMAT_RAW, FORMAT_LUKS };
enum iv { IV_PLAIN64, IV_PLAIN64_512 };
enum discard { DISCARD_IGNORE, DISCARD_PASS };

struct crypt_config {
	int format;
	char *key_file;
	char *passphrase_file;
	int iv;
	uint64_t sector_size;
	int discard;
};

struct crypt {
	struct xts *xts;
	size_t key_size;
	unsigned luks_version; /* 0: raw */
	uint32_t unit_size;
	uint64_t data_offset; /* bytes of the disk below */
	unsigned below_shift; /* log2 of the sectors below in one of ours */
	unsigned units_shift; /* log2 of the units in a sector of ours */
	bool discards;
};

/* ---- Where things are. ---- */

static uint64_t sector_below(const struct disk *disk, uint64_t sector)
{
	const struct crypt *crypt = disk->state;

	return (crypt->data_offset >> disk_sector_shift(disk->below[0])) +
	       (sector << crypt->below_shift);
}

static uint64_t sectors_of(const struct disk *disk)
{
	const struct crypt *crypt = disk->state;
	uint64_t size = disk_size(disk->below[0]);

	return size > crypt->data_offset ? (size - crypt->data_offset) / disk_sector_size(disk) : 0;
}

/* Whether no unit lies in two segments. */
static bool holds_units(const struct sg *sg, size_t unit_size)
{
	struct sg rest = *sg;
	size_t length;

	while (sg_next(&rest, &length))
		if (!is_aligned(length, unit_size))
			return false;
	return true;
}

/* ---- Data. ---- */

/* Decrypts in place, but for units that were given back or never written. */
static int decrypt(struct crypt *crypt, char *data, size_t length, uint64_t unit)
{
	size_t size = crypt->unit_size, run = 0;
	int error = 0;

	if (!crypt->discards)
		return xts_transform(crypt->xts, XTS_DECRYPT, data, data, length, unit);
	for (size_t at = 0; !error && at < length; at += size) {
		if (!is_zeros(data + at, size)) {
			run += size;
			continue;
		}
		error = xts_transform(crypt->xts, XTS_DECRYPT, data + at - run, data + at - run,
				      run, unit + (at - run) / size);
		run = 0;
	}
	if (error)
		return error;
	return xts_transform(crypt->xts, XTS_DECRYPT, data + length - run, data + length - run, run,
			     unit + (length - run) / size);
}

/*
 * Transforms the data in @sg, which holds units: encrypts it to @out, or decrypts it in place where
 * @out is NULL.
 */
static int transform(struct crypt *crypt, const struct sg *sg, char *out, uint64_t unit)
{
	struct sg rest = *sg;
	size_t length;
	char *data;

	while ((data = sg_next(&rest, &length))) {
		int error = out ? xts_transform(crypt->xts, XTS_ENCRYPT, data, out, length, unit)
				: decrypt(crypt, data, length, unit);

		if (error)
			return error;
		out = out ? out + length : NULL;
		unit += length / crypt->unit_size;
	}
	return 0;
}

/* Before the AES of a piece, lets others have the worker, unless it is short. */
static void take_turn(const struct sg *sg)
{
	if (sg->len == PIECE)
		task_yield();
}

static int read_in_place(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	struct crypt *crypt = disk->state;
	int error = disk_read(disk->below[0], sg, sector_below(disk, sector));

	return error ? error : transform(crypt, sg, NULL, sector << crypt->units_shift);
}

static int crypt_read(struct disk *disk, const struct sg *sg, uint64_t sector)
{
	const struct crypt *crypt = disk->state;
	struct iovec iov;

	take_turn(sg);
	if (holds_units(sg, crypt->unit_size))
		return read_in_place(disk, sg, sector);

	char *buffer = buffer_get();

	if (!buffer)
		return error_io(ENOMEM);

	struct sg whole = sg_of(&iov, buffer + BUFFER_HEADER, sg->len);
	int error = read_in_place(disk, &whole, sector);

	if (!error)
		sg_copy_from(sg, iov.iov_base);
	buffer_put_touched(buffer, BUFFER_HEADER + sg->len);
	return error;
}

static int crypt_write(struct disk *disk, const struct sg *sg, uint64_t sector, unsigned flags)
{
	struct crypt *crypt = disk->state;
	struct iovec iov;

	take_turn(sg);

	char *buffer = buffer_get();

	if (!buffer)
		return error_io(ENOMEM);

	struct sg encrypted = sg_of(&iov, buffer + BUFFER_HEADER, sg->len);
	const struct sg *plain = sg;

	if (!holds_units(sg, crypt->unit_size)) {
		sg_copy_to(sg, iov.iov_base);
		plain = &encrypted;
	}

	int error = transform(crypt, plain, iov.iov_base, sector << crypt->units_shift);

	if (!error)
		error = disk_write(disk->below[0], &encrypted, sector_below(disk, sector), flags);
	buffer_put_touched(buffer, BUFFER_HEADER + sg->len);
	return error;
}

static int crypt_flush(struct disk *disk)
{
	return disk_flush(disk->below[0]);
}

/* ---- Space. ---- */

/* Only with discard = pass. */
static int crypt_unmap(struct disk *disk, uint64_t sector, uint64_t count)
{
	const struct crypt *crypt = disk->state;

	return disk_unmap(disk->below[0], sector_below(disk, sector), count << crypt->below_shift);
}

/* A sector is a hole only if all of it is one below. */
static int crypt_extent(struct disk *disk, uint64_t sector, uint64_t count, struct extent *extent)
{
	const struct crypt *crypt = disk->state;
	unsigned shift = crypt->below_shift;
	struct extent below;
	int error;

	if (!crypt->discards) {
		*extent = (struct extent){.kind = EXTENT_DATA, .count = count};
		return 0;
	}
	error = disk_extent(disk->below[0], sector_below(disk, sector), count << shift, &below);
	if (error)
		return error;
	if (below.kind == EXTENT_HOLE && below.count >> shift == 0)
		below.kind = EXTENT_DATA;
	if (below.kind == EXTENT_DATA)
		below.count = align_up(below.count, (uint64_t)1 << shift);
	*extent = (struct extent){.kind = below.kind, .count = below.count >> shift};
	return 0;
}

static int crypt_allocated(struct disk *disk, uint64_t *bytes)
{
	return disk_allocated(disk->below[0], bytes);
}

static int crypt_eject(struct disk *disk)
{
	return disk_eject(disk->below[0]);
}

static void crypt_below_resized(struct disk *disk, struct disk *below)
{
	(void)below;
	disk_set_sector_count(disk, sectors_of(disk));
}

/* The data may begin behind a header. */
static int crypt_resize(struct disk *disk, uint64_t count)
{
	const struct crypt *crypt = disk->state;
	uint64_t offset = crypt->data_offset >> disk_sector_shift(disk->below[0]);

	return disk_resize(disk->below[0], offset + (count << crypt->below_shift));
}

/* ---- Life. ---- */

/* What the options leave to say, once the driver's tables have been parsed. */
static int check_config(const struct crypt_config *config, struct err *err)
{
	bool luks = config->format == FORMAT_LUKS;

	if (!luks && !config->key_file)
		return err_set_key(err, "key_file", "format = raw needs a key");
	if (!luks && config->passphrase_file)
		return err_set_key(err, "passphrase_file",
				   "there are no passphrases with format = raw: did you mean "
				   "format = luks?");
	if (luks && !config->key_file == !config->passphrase_file)
		return err_set_key(err, "passphrase_file",
				   "format = luks needs a passphrase_file or a key_file, and not "
				   "both");
	if (luks && (config->sector_size > 0 || config->iv != IV_PLAIN64))
		return err_set_key(err, config->sector_size > 0 ? "sector_size" : "iv",
				   "with format = luks, the header on the disk says so");
	return 0;
}

struct reading {
	struct disk *disk;
	struct key *key;
	struct err *err;
	int result;
};

static void read_key_job(void *argument)
{
	struct reading *reading = argument;
	const struct crypt_config *config = reading->disk->config;
	bool is_file = config->key_file;

	reading->result =
		key_read(reading->key, is_file ? config->key_file : config->passphrase_file,
			 is_file ? "key_file" : "passphrase_file", reading->disk->name,
			 reading->err);
}

/* The rules of the volume, and its key in @key. */
static int open_raw(struct disk *disk, struct key *key, struct xts_settings *settings,
		    struct err *err)
{
	const struct crypt_config *config = disk->config;

	if (key_decode(key, XTS_KEY_MAX, config->key_file, err) < 0)
		return -1;
	settings->key = key->data;
	settings->key_size = XTS_KEY_MAX;
	settings->unit_size =
		(uint32_t)(config->sector_size > 0
				   ? config->sector_size
				   : min_u64(disk_sector_size(disk->below[0]), UNIT_MAX));
	settings->tweak_step = config->iv == IV_PLAIN64 ? 1 : settings->unit_size / 512;
	return 0;
}

static int open_luks(struct disk *disk, struct key *key, struct xts_settings *settings,
		     struct err *err)
{
	const struct crypt_config *config = disk->config;
	struct crypt *crypt = disk->state;
	struct luks_volume volume = {.version = 0};

	if (config->passphrase_file)
		key_keep_line(key);
	volume.key = secret_take(&key->secret, XTS_KEY_MAX);
	if (luks_open(disk->below[0], key, disk->name, &volume, err) < 0)
		return -1;
	crypt->luks_version = volume.version;
	crypt->data_offset = volume.data_offset;
	settings->key = volume.key;
	settings->key_size = volume.key_size;
	settings->unit_size = volume.unit_size;
	settings->tweak_first = volume.tweak_first;
	settings->tweak_step = volume.unit_size / 512;
	return 0;
}

static void fill_geometry(struct disk *disk)
{
	const struct crypt_config *config = disk->config;
	const struct disk_geometry below = disk->below[0]->geometry;
	struct crypt *crypt = disk->state;
	struct disk_geometry *geometry = &disk->geometry;

	disk_inherit_geometry(disk, disk->below[0]);
	geometry->sector_size = (uint32_t)max_u64(below.sector_size, crypt->unit_size);
	geometry->physical_sector_size =
		(uint32_t)max_u64(below.physical_sector_size, geometry->sector_size);
	crypt->below_shift = log2_of(geometry->sector_size / below.sector_size);
	crypt->units_shift = log2_of(geometry->sector_size / crypt->unit_size);
	geometry->optimal_unmap_sectors =
		(uint32_t)max_u64(below.optimal_unmap_sectors >> crypt->below_shift, 1);
	geometry->max_transfer = PIECE;
	crypt->discards = config->discard == DISCARD_PASS;
	if (!crypt->discards)
		geometry->unmap = UNMAP_IGNORED;
}

/* As open() does, with the key still to be wiped. */
static int open_with(struct disk *disk, struct key *key, struct err *err)
{
	const struct crypt_config *config = disk->config;
	struct crypt *crypt = disk->state;
	struct reading reading = {.disk = disk, .key = key, .err = err};
	struct xts_settings settings = {.tweak_first = 0};

	offload(read_key_job, &reading);
	if (reading.result < 0)
		return -1;
	if (config->format == FORMAT_LUKS ? open_luks(disk, key, &settings, err) < 0
					  : open_raw(disk, key, &settings, err) < 0)
		return -1;
	crypt->key_size = settings.key_size;
	crypt->unit_size = settings.unit_size;
	crypt->xts = xts_open(&settings, disk->name, err);
	return crypt->xts ? 0 : -1;
}

static int crypt_open(struct disk *disk, struct err *err)
{
	struct key key = {.length = 0};
	int result;

	if (check_config(disk->config, err) < 0)
		return -1;
	result = open_with(disk, &key, err);
	key_destroy(&key);
	if (result < 0)
		return -1;
	fill_geometry(disk);
	if (sectors_of(disk) == 0)
		return err_set(err, "'%s' has no room for a sector of %u bytes",
			       disk->below[0]->name, disk->geometry.sector_size);
	disk_set_sector_count(disk, sectors_of(disk));
	return 0;
}

static void crypt_close(struct disk *disk)
{
	struct crypt *crypt = disk->state;

	xts_close(crypt->xts);
}

static void crypt_inspect(struct disk *disk, struct report *report)
{
	static const char *const formats[] = {"raw", "LUKS1", "LUKS2"};
	const struct crypt_config *config = disk->config;
	const struct crypt *crypt = disk->state;
	bool by_unit = config->format == FORMAT_RAW && config->iv == IV_PLAIN64;

	report_string(report, "format", formats[crypt->luks_version]);
	report_format(report, "cipher", "aes-xts, %zu bits", crypt->key_size * 8);
	report_u64(report, "data_unit", crypt->unit_size);
	report_string(report, "iv", by_unit ? "plain64" : "plain64-512");
	report_u64(report, "data_offset", crypt->data_offset);
	report_bool(report, "keys_locked", xts_is_locked(crypt->xts));
}

static const char *const format_choices[] = {"raw", "luks", NULL};
static const char *const iv_choices[] = {"plain64", "plain64-512", NULL};
static const char *const discard_choices[] = {"ignore", "pass", NULL};

static const struct option crypt_options[] = {
	{.name = "format",
	 .type = OPTION_ENUM,
	 .offset = offsetof(struct crypt_config, format),
	 .choices = format_choices,
	 .fallback = "raw",
	 .help = "What is on the disk below: nothing but encrypted data, or a LUKS1 or LUKS2 "
		 "volume"},
	{.name = "key_file",
	 .type = OPTION_PATH,
	 .offset = offsetof(struct crypt_config, key_file),
	 .help = "raw: the key, 64 bytes or 128 hexadecimal digits. luks: a file whose whole "
		 "content opens a key slot"},
	{.name = "passphrase_file",
	 .type = OPTION_PATH,
	 .offset = offsetof(struct crypt_config, passphrase_file),
	 .help = "luks: a file whose first line is a passphrase"},
	{.name = "iv",
	 .type = OPTION_ENUM,
	 .offset = offsetof(struct crypt_config, iv),
	 .choices = iv_choices,
	 .fallback = "plain64",
	 .help = "raw: the tweak counts data units, or blocks of 512 bytes whatever their size"},
	{.name = "sector_size",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct crypt_config, sector_size),
	 .flags = OPTION_POWER_OF_TWO,
	 .min = 512,
	 .max = UNIT_MAX,
	 .help = "raw: size of a data unit. The default is the sector size of the disk below, at "
		 "most 4096"},
	{.name = "discard",
	 .type = OPTION_ENUM,
	 .offset = offsetof(struct crypt_config, discard),
	 .choices = discard_choices,
	 .fallback = "ignore",
	 .help = "pass: hand discards to the disk below, and take units of zeros there for zeros"},
	{.name = NULL},
};

const struct driver crypt_driver = {
	.name = "crypt",
	.summary = "encrypts what is on the disk below: XTS-AES as dm-crypt does it, LUKS1, LUKS2",
	.options = crypt_options,
	.config_size = sizeof(struct crypt_config),
	.state_size = sizeof(struct crypt),
	.below_min = 1,
	.below_max = 1,
	.open = crypt_open,
	.close = crypt_close,
	.read = crypt_read,
	.write = crypt_write,
	.flush = crypt_flush,
	.unmap = crypt_unmap,
	.extent = crypt_extent,
	.allocated = crypt_allocated,
	.eject = crypt_eject,
	.below_resized = crypt_below_resized,
	.resize = crypt_resize,
	.inspect = crypt_inspect,
};
