// SPDX-License-Identifier: MIT
/*
 * libcryptsetup wants a file, and the header is on a disk. So what is in front of the data is read
 * into a file in memory, and libcryptsetup never sees anything else: it cannot change the disk, and
 * repairs what it can of a damaged header only there. Device-mapper is not asked for anything.
 *
 * In two steps, since only the header tells where the data begins: *load* looks at the header,
 * *unlock* derives keys, which takes the time and memory that the header says. A header may be
 * damaged, or by an enemy: what it asks for is bounded before it is done.
 *
 * The steps run on another thread, one at a time in the whole process, since libcryptsetup is not
 * made for several threads and each may want a gigabyte. Unlocking is confined (confine.h): what
 * libcryptsetup allocates for keys it wipes, but not its stack, nor does Argon2 those of its threads.
 */
#include "backends/crypt/luks.h"
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <libcryptsetup.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "backends/crypt/confine.h"
#include "core/buffer.h"
#include "core/offload.h"

/* Both copies of the largest header of LUKS2, and the most that may follow for key slots. */
#define HEADERS_MAX  (8 * MIB)
#define KEYSLOTS_MAX (128 * MIB)

/*
 * What a key slot may ask for. Iterations of PBKDF2, or passes over KiB of memory of Argon2: a minute
 * or so; cryptsetup chooses what takes two seconds. Memory and threads: what cryptsetup takes at
 * most, and a few more threads than that. A key slot's area is encrypted with a key of its own.
 */
#define DERIVATION_MAX ((uint64_t)100 * 1000 * 1000)
#define MEMORY_KIB_MAX ((uint32_t)4 * 1024 * 1024)
#define THREADS_MAX    ((uint32_t)64)
#define SLOT_KEY_MAX   ((size_t)64)

/* Of the header of LUKS1, big-endian: the iterations of the digest that tells a key from others. */
#define LUKS1_DIGEST_ITERATIONS 164

struct opening {
	struct disk *disk;
	int fd; /* the file in memory */
	uint64_t copied;
	const char *node; /* for messages */
	const struct key *passphrase;
	struct luks_volume *volume;
	struct crypt_device *device;
	char message[200]; /* the last that libcryptsetup had to say */
	struct err *err;
	int result;
};

/* ---- The copy in memory. ---- */

static int copy_open(struct opening *opening)
{
	opening->fd = memfd_create("luks", MFD_CLOEXEC);
	if (opening->fd < 0 || ftruncate(opening->fd, (off_t)disk_size(opening->disk)) < 0)
		return err_set(opening->err, "no memory for a LUKS header: %s", strerror(errno));
	return 0;
}

static int copy_write(struct opening *opening, const char *data, size_t length)
{
	while (length > 0) {
		ssize_t done = pwrite(opening->fd, data, length, (off_t)opening->copied);

		if (done < 0)
			return err_set(opening->err, "no memory for a LUKS header: %s",
				       strerror(errno));
		data += done;
		length -= (size_t)done;
		opening->copied += (uint64_t)done;
	}
	return 0;
}

static int copy_piece(struct opening *opening, char *piece, size_t length)
{
	struct disk *disk = opening->disk;
	struct iovec iov;
	struct sg sg = sg_of(&iov, piece, length);
	char text[80];
	int error = disk_read(disk, &sg, opening->copied >> disk_sector_shift(disk));

	if (error)
		return err_set(opening->err, "cannot read the LUKS header of '%s': %s", disk->name,
			       error_describe(text, error));
	return copy_write(opening, piece, length);
}

/* Goes on until the first @end bytes of the disk, if it has as many, are there. */
static int copy_up_to(struct opening *opening, uint64_t end)
{
	char *buffer = buffer_get();
	int result = 0;

	if (!buffer)
		return err_set(opening->err, "out of memory");
	end = min_u64(align_up(end, disk_sector_size(opening->disk)), disk_size(opening->disk));
	while (result == 0 && opening->copied < end)
		result = copy_piece(opening, buffer + BUFFER_HEADER,
				    min_u64(end - opening->copied, BUFFER_PAYLOAD));
	buffer_put(buffer);
	return result;
}

/* ---- What the header says. ---- */

/* What comes out of a header is not fit for a terminal. */
static void make_printable(char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
}

static void keep_message(int level, const char *message, void *argument)
{
	struct opening *opening = argument;

	if (level != CRYPT_LOG_ERROR)
		return;
	snprintf(opening->message, sizeof(opening->message), "%.*s", (int)strcspn(message, ".\n"),
		 message);
	make_printable(opening->message);
}

/* Adds what libcryptsetup said, unless that is about its copy, or what @result tells. */
static int refuse(struct opening *opening, int result, const char *what)
{
	const char *why = opening->message;

	if (!why[0] || strstr(why, "/proc/self/"))
		why = result == -EINVAL ? "" : strerror(-result);
	return err_set(opening->err, "%s '%s'%s%s", what, opening->disk->name, why[0] ? ": " : "",
		       why);
}

static int refuse_empty(const struct opening *opening)
{
	return err_set(opening->err, "the LUKS header of '%s' has no key slots in use",
		       opening->disk->name);
}

static int check_cipher(const struct opening *opening)
{
	struct crypt_device *device = opening->device;
	const char *cipher = crypt_get_cipher(device), *mode = crypt_get_cipher_mode(device);
	int key_size = crypt_get_volume_key_size(device);
	char text[64];

	if (key_size <= 0)
		return refuse_empty(opening);
	snprintf(text, sizeof(text), "%s-%s", cipher ? cipher : "", mode ? mode : "");
	if (strcmp(text, "aes-xts-plain64") == 0 && (key_size == 32 || key_size == 64))
		return 0;
	make_printable(text);
	return err_set(opening->err,
		       "the LUKS volume on '%s' is encrypted by %s with a key of %lld bits: only "
		       "aes-xts-plain64 with 256 or 512 is supported",
		       opening->disk->name, text, (long long)key_size * 8);
}

/* Integrity tags between the sectors, a reencryption that is not finished, what is yet unknown. */
static int check_features(const struct opening *opening)
{
	struct crypt_params_integrity integrity = {.tag_size = 0};
	uint32_t flags = 0;
	int result;

	if (opening->volume->version == 1)
		return 0;
	result = crypt_persistent_flags_get(opening->device, CRYPT_FLAGS_REQUIREMENTS, &flags);
	if (result == 0)
		result = crypt_get_integrity_info(opening->device, &integrity);
	if (result < 0 && result != -ENOTSUP)
		return err_set(opening->err, "the LUKS header of '%s' is damaged",
			       opening->disk->name);
	if (flags == 0 && integrity.tag_size == 0)
		return 0;
	return err_set(opening->err, "the LUKS volume on '%s' uses %s, which is not supported",
		       opening->disk->name,
		       flags ? "reencryption, or what only a later cryptsetup knows"
			     : "integrity tags");
}

static int check_layout(const struct opening *opening, uint64_t data_sectors)
{
	const struct disk *disk = opening->disk;
	const struct luks_volume *volume = opening->volume;
	uint64_t offset;

	if (__builtin_mul_overflow(data_sectors, 512, &offset) || offset == 0 ||
	    offset >= disk_size(disk))
		return err_set(opening->err,
			       "the LUKS header of '%s' says that the data begins in sector %llu, "
			       "which is not inside the disk",
			       disk->name, (unsigned long long)data_sectors);
	if (!is_aligned(offset, disk_sector_size(disk)))
		return err_set(
			opening->err,
			"the data of the LUKS volume begins at byte %llu, inside a sector of "
			"'%s', which has %u bytes",
			(unsigned long long)offset, disk->name, disk_sector_size(disk));
	if (!is_power_of_two(volume->unit_size) || volume->unit_size < 512 ||
	    volume->unit_size > 4096)
		return err_set(opening->err, "the LUKS header of '%s' has sectors of %u bytes",
			       disk->name, volume->unit_size);
	return 0;
}

static int load(struct opening *opening)
{
	struct luks_volume *volume = opening->volume;
	char path[64];
	int result;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", opening->fd);
	result = crypt_init(&opening->device, path);
	if (result < 0)
		return refuse(opening, result, "libcryptsetup does not take the header of");
	/* Nobody else knows the copy. */
	crypt_metadata_locking(opening->device, 0);
	crypt_set_log_callback(opening->device, keep_message, opening);
	result = crypt_load(opening->device, CRYPT_LUKS, NULL);
	if (result < 0)
		return refuse(opening, result, "there is no valid LUKS header on");

	uint64_t data_sectors = crypt_get_data_offset(opening->device);

	volume->version = strcmp(crypt_get_type(opening->device), CRYPT_LUKS1) == 0 ? 1 : 2;
	volume->data_offset = data_sectors * 512;
	volume->unit_size = (uint32_t)crypt_get_sector_size(opening->device);
	volume->tweak_first = crypt_get_iv_offset(opening->device);
	if (check_features(opening) < 0 || check_cipher(opening) < 0)
		return -1;
	volume->key_size = (size_t)crypt_get_volume_key_size(opening->device);
	return check_layout(opening, data_sectors);
}

/* ---- The key. ---- */

/* Whether what a key slot asks for is to be had. */
static bool slot_is_modest(const struct opening *opening, int slot)
{
	struct crypt_device *device = opening->device;
	struct crypt_pbkdf_type pbkdf = {.type = NULL};
	size_t slot_key_size = 0;

	if (crypt_keyslot_get_pbkdf(device, slot, &pbkdf) < 0 ||
	    !crypt_keyslot_get_encryption(device, slot, &slot_key_size))
		return false;
	return pbkdf.iterations * max_u64(pbkdf.max_memory_kb, 1) <= DERIVATION_MAX &&
	       pbkdf.max_memory_kb <= MEMORY_KIB_MAX && pbkdf.parallel_threads <= THREADS_MAX &&
	       slot_key_size <= SLOT_KEY_MAX;
}

/* To tell whether a key is right takes iterations, too, of which the API does not tell. */

static bool digest_1_is_modest(const struct opening *opening)
{
	uint32_t iterations;

	return pread(opening->fd, &iterations, sizeof(iterations), LUKS1_DIGEST_ITERATIONS) ==
		       sizeof(iterations) &&
	       be32toh(iterations) <= DERIVATION_MAX;
}

/*
 * Wherever iterations stand in the JSON, which libcryptsetup has parsed and writes without spaces.
 * In a digest it takes anything for a number, such as 1e30; here only digits are one.
 */
static bool digests_2_are_modest(const struct opening *opening)
{
	static const char name[] = "\"iterations\":";
	const char *json;

	if (crypt_dump_json(opening->device, &json, 0) < 0)
		return false;
	while ((json = strstr(json, name))) {
		size_t digits = strspn(json += strlen(name), "0123456789");

		if (digits == 0 || !strchr(",}", json[digits]) ||
		    strtoull(json, NULL, 10) > DERIVATION_MAX)
			return false;
	}
	return true;
}

static bool digests_are_modest(const struct opening *opening)
{
	return opening->volume->version == 1 ? digest_1_is_modest(opening)
					     : digests_2_are_modest(opening);
}

/* 0: the slot has given the key; -ENOENT: it is not in use, or not for the data. */
static int unlock_slot(struct opening *opening, int slot)
{
	size_t size = XTS_KEY_MAX;
	crypt_keyslot_info info = crypt_keyslot_status(opening->device, slot);
	int result;

	if (info != CRYPT_SLOT_ACTIVE && info != CRYPT_SLOT_ACTIVE_LAST)
		return -ENOENT;
	if (crypt_keyslot_get_key_size(opening->device, slot) != (int)opening->volume->key_size)
		return -EINVAL;
	if (!slot_is_modest(opening, slot) || !digests_are_modest(opening))
		return -EFBIG;
	result = crypt_volume_key_get(opening->device, slot, (char *)opening->volume->key, &size,
				      (const char *)opening->passphrase->data,
				      opening->passphrase->length);
	if (result >= 0 && size != opening->volume->key_size)
		return -EINVAL;
	return result < 0 ? result : 0;
}

static int unlock(struct opening *opening)
{
	int slots = crypt_keyslot_max(crypt_get_type(opening->device)), worst = -ENOENT;

	for (int slot = 0; slot < slots; slot++) {
		int result = unlock_slot(opening, slot);

		if (result == 0)
			return 0;
		/* What is wrong with a slot tells more than that another is not ours. */
		if (worst == -ENOENT || (worst == -EPERM && result != -ENOENT))
			worst = result;
	}
	if (worst == -ENOENT)
		return refuse_empty(opening);
	if (worst == -EPERM)
		return err_set(opening->err,
			       "the passphrase or key file opens no key slot of the LUKS volume "
			       "on '%s'",
			       opening->disk->name);
	if (worst == -EFBIG)
		return err_set(opening->err,
			       "the LUKS header of '%s' wants more than %llu iterations, %u MiB of "
			       "memory or %u threads for a key: it is taken to be damaged",
			       opening->disk->name, (unsigned long long)DERIVATION_MAX,
			       MEMORY_KIB_MAX / 1024, THREADS_MAX);
	return refuse(opening, worst, "cannot open a key slot of the LUKS volume on");
}

/* ---- All together. ---- */

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static void load_job(void *argument)
{
	struct opening *opening = argument;

	pthread_mutex_lock(&one_at_a_time);
	opening->result = load(opening);
	pthread_mutex_unlock(&one_at_a_time);
}

static void unlock_confined(void *argument)
{
	struct opening *opening = argument;

	opening->result = unlock(opening);
}

static void unlock_job(void *argument)
{
	struct opening *opening = argument;
	int error;

	pthread_mutex_lock(&one_at_a_time);
	error = confine(unlock_confined, opening, opening->node);
	if (error)
		opening->result = err_set(opening->err, "no memory for keys: %s", strerror(error));
	pthread_mutex_unlock(&one_at_a_time);
}

static void free_job(void *argument)
{
	struct opening *opening = argument;

	pthread_mutex_lock(&one_at_a_time);
	crypt_free(opening->device);
	pthread_mutex_unlock(&one_at_a_time);
}

static int open_in_steps(struct opening *opening)
{
	if (copy_open(opening) < 0 || copy_up_to(opening, HEADERS_MAX) < 0)
		return -1;
	offload(load_job, opening);
	if (opening->result < 0 || copy_up_to(opening, min_u64(opening->volume->data_offset,
							       HEADERS_MAX + KEYSLOTS_MAX)) < 0)
		return -1;
	offload(unlock_job, opening);
	return opening->result;
}

int luks_open(struct disk *disk, const struct key *passphrase, const char *node,
	      struct luks_volume *volume, struct err *err)
{
	struct opening opening = {
		.disk = disk,
		.fd = -1,
		.node = node,
		.passphrase = passphrase,
		.volume = volume,
		.err = err,
	};
	int result = open_in_steps(&opening);

	if (opening.device)
		offload(free_job, &opening);
	if (opening.fd >= 0)
		close(opening.fd);
	return result;
}
