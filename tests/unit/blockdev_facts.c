// SPDX-License-Identifier: MIT
/* What the driver blockdev makes of what sysfs, the kernel and devices say: metadata, ids, errors,
 * reports of reservations. No device is needed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "backends/blockdev/blockdev.h"
#include "tests/lib/scratch.h"

/* ---- Metadata. ---- */

static int enter(void **state)
{
	(void)state;
	scratch_enter();
	return 0;
}

/* scratch_leave() removes files only. */
static int leave(void **state)
{
	static const char *const files[] = {
		"device/wwid",
		"queue/zoned",
		"queue/dma_alignment",
		"queue/discard_max_bytes",
		"queue/discard_granularity",
		"queue/max_hw_sectors_kb",
		"queue/max_segments",
		"queue/write_cache",
		"queue/fua",
		"part/partition",
		"wwid",
		"serial",
		"removable",
	};
	static const char *const folders[] = {"device", "queue", "part"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		unlink(files[i]);
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		rmdir(folders[i]);
	scratch_leave();
	return 0;
}

static void put(const char *name, const char *text)
{
	char folder[64];
	char *slash;

	snprintf(folder, sizeof(folder), "%s", name);
	slash = strchr(folder, '/');
	if (slash) {
		*slash = '\0';
		mkdir(folder, 0700);
	}
	scratch_write(name, text, strlen(text));
}

static void test_sysfs(void **state)
{
	struct blockdev_metadata metadata = {0};

	(void)state;
	assert_false(metadata_read("nothing", &metadata));
	/* An old kernel says little, and that is no error. */
	assert_true(metadata_read(".", &metadata));
	assert_int_equal(metadata.dma_align, 0);
	assert_int_equal(metadata.discard_max, 0);
	assert_false(metadata.is_zoned);
	assert_string_equal(metadata.identity, "");

	put("queue/zoned", "none\n");
	put("queue/dma_alignment", "3\n");
	put("queue/discard_max_bytes", "4294966784\n");
	put("queue/discard_granularity", "4096\n");
	put("queue/max_hw_sectors_kb", "512\n");
	put("queue/max_segments", "129\n");
	put("queue/write_cache", "write back\n");
	put("queue/fua", "1\n");
	put("removable", "1\n");
	put("device/wwid", "  naa.50014ee0 2b4f5c61 \n");
	assert_true(metadata_read(".", &metadata));
	assert_int_equal(metadata.dma_align, 4);
	assert_int_equal(metadata.discard_max, 4294966784);
	assert_int_equal(metadata.discard_granularity, 4096);
	assert_int_equal(metadata.max_transfer, 512 * KIB);
	assert_int_equal(metadata.max_segments, 129);
	assert_true(metadata.write_cache && metadata.fua && metadata.removable);
	assert_int_equal(metadata.partition, 0);
	assert_string_equal(metadata.identity, "naa.50014ee0 2b4f5c61");

	/* A partition has them from the folder above. */
	put("part/partition", "7\n");
	put("wwid", "eui.0025388b710116a1\n");
	memset(&metadata, 0, sizeof(metadata));
	assert_true(metadata_read("part", &metadata));
	assert_int_equal(metadata.partition, 7);
	assert_int_equal(metadata.dma_align, 4);
	assert_string_equal(metadata.identity, "eui.0025388b710116a1");
}

static void test_sysfs_nonsense(void **state)
{
	struct blockdev_metadata metadata = {0};

	(void)state;
	put("queue/zoned", "host-managed\n");
	put("queue/dma_alignment", "6\n"); /* no mask */
	put("queue/max_segments", "many\n");
	put("queue/discard_max_bytes", "99999999999999999999999\n");
	put("queue/max_hw_sectors_kb", "18446744073709551615\n");
	put("queue/fua", "");
	assert_true(metadata_read(".", &metadata));
	assert_true(metadata.is_zoned);
	assert_int_equal(metadata.dma_align, 0);
	assert_int_equal(metadata.max_segments, 0);
	assert_int_equal(metadata.discard_max, 0);
	assert_int_equal(metadata.max_transfer, 4 * GIB); /* as good as none */
	assert_false(metadata.fua);
	/* Larger than the core lets memory be aligned. */
	put("queue/dma_alignment", "8191\n");
	assert_true(metadata_read(".", &metadata));
	assert_int_equal(metadata.dma_align, 0);
}

static const char *id_text(const char *identity, unsigned partition, char text[static 33])
{
	struct blockdev_metadata metadata = {.partition = partition};
	uint8_t id[16] = {0};

	snprintf(metadata.identity, sizeof(metadata.identity), "%s", identity);
	if (!metadata_id(&metadata, id))
		return "none";
	return format_id(text, id);
}

static void test_id(void **state)
{
	char text[33], other[33];

	(void)state;
	/* What has 16 bytes is the id. */
	assert_string_equal(id_text("eui.01000000000000005cd2e4a1b2c3d4e5", 0, text),
			    "01000000000000005cd2e4a1b2c3d4e5");
	assert_string_equal(id_text("naa.6001405AbCdEf0123456789abcdef012", 0, text),
			    "6001405abcdef0123456789abcdef012");
	assert_string_equal(id_text("uuid.11111111-2222-3333-4444-555555555555", 0, text),
			    "11111111222233334444555555555555");
	/* All else is the beginning of its SHA-256 (by sha256sum). */
	assert_string_equal(id_text("naa.5000c500a1b2c3d4", 0, text),
			    "95ad746c63a44462094f4b13417381ef");
	assert_string_equal(id_text("naa.5000c500a1b2c3d4", 1, text),
			    "5204d59f15c1bd26311ef9629e3356db");
	/* Not quite. */
	id_text("naa.6001405abcdef0123456789abcdef01", 0, text);
	assert_string_not_equal(text, "6001405abcdef0123456789abcdef010");
	id_text("naa.6001405abcdef0123456789abcdef01x", 0, text);
	assert_string_not_equal(text, "6001405abcdef0123456789abcdef010");
	id_text("naa.6001405abcdef0123456789abcdef01234", 0, text);
	assert_string_not_equal(text, "6001405abcdef0123456789abcdef012");
	/* A partition is another disk than its device. */
	assert_string_not_equal(id_text("eui.01000000000000005cd2e4a1b2c3d4e5", 0, text),
				id_text("eui.01000000000000005cd2e4a1b2c3d4e5", 1, other));
	assert_string_equal(id_text("", 0, text), "none");
	assert_string_equal(id_text("", 2, text), "none");
}

/* ---- Errors. ---- */

static void test_errors(void **state)
{
	static const struct {
		int errnum;
		bool is_write;
		const char *described;
	} cases[] = {
		{ENODATA, false, "medium error (unrecovered read, ENODATA)"},
		{ENODATA, true, "medium error (write fault, ENODATA)"},
		{EREMOTEIO, false, "medium error (unrecovered read, EREMOTEIO)"},
		{EREMOTEIO, true, "medium error (write fault, EREMOTEIO)"},
		{EILSEQ, false, "medium error (guard check failed, EILSEQ)"},
		{EBADE, true, "reservation conflict"},
		{EROFS, true, "read-only"},
		{EOPNOTSUPP, true, "unsupported"},
		{ENOSPC, true, "I/O error (ENOSPC)"},
		{ETIMEDOUT, false, "I/O error (ETIMEDOUT)"},
		{ENOLINK, false, "I/O error (ENOLINK)"},
		{EIO, false, "I/O error (EIO)"},
	};
	char text[80];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(error_describe(text, blockdev_error(cases[i].errnum,
									cases[i].is_write)),
				    cases[i].described);
}

static void test_reservation_errors(void **state)
{
	static const struct {
		int result;
		bool is_release;
		enum error_kind kind;
	} cases[] = {
		{0, false, ERROR_NONE},
		{0x18, false, ERROR_RESERVATION_CONFLICT},   /* SCSI, and since 6.3 everybody */
		{0x118, false, ERROR_RESERVATION_CONFLICT},  /* SCSI, with a message byte */
		{0x83, false, ERROR_RESERVATION_CONFLICT},   /* NVMe before 6.3 */
		{0x4083, false, ERROR_RESERVATION_CONFLICT}, /* ... and "do not retry" */
		{0x2083, false, ERROR_RESERVATION_CONFLICT},
		{0x02, true, ERROR_INVALID_INPUT},
		{0x402, true, ERROR_INVALID_INPUT},
		{0x4002, true, ERROR_INVALID_INPUT},
		{0x02, false, ERROR_IO},
		{0xe0000, false, ERROR_IO}, /* enum pr_status: the path */
		{0xf0000, false, ERROR_IO},
		{0x10000, true, ERROR_IO},
		{-EINVAL, false, ERROR_INVALID_INPUT},
		{-EOPNOTSUPP, false, ERROR_UNSUPPORTED},
		{-ENOTTY, false, ERROR_UNSUPPORTED},
		{-EBADE, false, ERROR_RESERVATION_CONFLICT},
		{-ENODEV, false, ERROR_IO},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(error_kind(
					 reservations_error(cases[i].result, cases[i].is_release)),
				 cases[i].kind);
	assert_int_equal(error_errno(reservations_error(0x10000, false)), ENOLINK);
}

/* ---- Reports. ---- */

static struct pr_registrant registrants[4];

static struct pr_report report_of(unsigned capacity)
{
	memset(registrants, 0, sizeof(registrants));
	return (struct pr_report){.registrants = registrants, .capacity = capacity};
}

/* READ KEYS: generation 5, keys 0x11 and 0x22. */
static const unsigned char scsi_keys[] = {0, 0, 0, 5,	 0, 0, 0, 16, 0, 0, 0, 0,
					  0, 0, 0, 0x11, 0, 0, 0, 0,  0, 0, 0, 0x22};
/* READ RESERVATION: 0x22 has reserved with SCSI's type 5. */
static const unsigned char scsi_reservation[] = {0, 0, 0, 5,	0, 0, 0, 16, 0, 0, 0, 0,
						 0, 0, 0, 0x22, 0, 0, 0, 0,  0, 5, 0, 0};
static const unsigned char scsi_none[] = {0, 0, 0, 5, 0, 0, 0, 0};

static int parse_scsi(const unsigned char *keys, uint32_t keys_length,
		      const unsigned char *reservation, uint32_t reservation_length,
		      struct pr_report *report)
{
	uint32_t needed = 0;

	return registrants_parse_scsi(keys, keys_length, reservation, reservation_length, report,
				      &needed);
}

static void test_scsi(void **state)
{
	struct pr_report report = report_of(4);
	unsigned char changed[24];
	uint32_t needed;

	(void)state;
	assert_int_equal(parse_scsi(scsi_keys, 24, scsi_reservation, 24, &report), 0);
	assert_int_equal(report.generation, 5);
	assert_int_equal(report.type, PR_WRITE_EXCLUSIVE_REGISTRANTS_ONLY);
	assert_int_equal(report.count, 2);
	assert_int_equal(registrants[0].key, 0x11);
	assert_false(registrants[0].holds_reservation);
	assert_int_equal(registrants[1].key, 0x22);
	assert_true(registrants[1].holds_reservation);

	report = report_of(1); /* the second finds no room */
	assert_int_equal(parse_scsi(scsi_keys, 24, scsi_none, 8, &report), 0);
	assert_int_equal(report.type, PR_NONE);
	assert_int_equal(report.count, 2);
	assert_int_equal(registrants[1].key, 0);

	memcpy(changed, scsi_reservation, 24);
	changed[15] = 0; /* of all registrants: it has no key */
	changed[21] = 8;
	report = report_of(4);
	assert_int_equal(parse_scsi(scsi_keys, 24, changed, 24, &report), 0);
	assert_int_equal(report.type, PR_EXCLUSIVE_ACCESS_ALL_REGISTRANTS);
	assert_true(registrants[0].holds_reservation && registrants[1].holds_reservation);

	/* Longer than what was asked for. */
	assert_int_equal(registrants_parse_scsi(scsi_keys, 16, scsi_none, 8, &report, &needed),
			 -EMSGSIZE);
	assert_int_equal(needed, 24);
}

static void test_scsi_nonsense(void **state)
{
	struct pr_report report = report_of(4);
	unsigned char changed[24];

	(void)state;
	assert_int_equal(parse_scsi(scsi_keys, 7, scsi_none, 8, &report), -EPROTO);
	assert_int_equal(parse_scsi(scsi_keys, 24, scsi_none, 7, &report), -EPROTO);
	assert_int_equal(parse_scsi(scsi_keys, 24, scsi_reservation, 23, &report), -EPROTO);
	memcpy(changed, scsi_reservation, 24);
	changed[21] = 4; /* no such type */
	assert_int_equal(parse_scsi(scsi_keys, 24, changed, 24, &report), -EPROTO);
	changed[21] = 5;
	changed[7] = 8; /* too short for a reservation */
	assert_int_equal(parse_scsi(scsi_keys, 24, changed, 24, &report), -EPROTO);
	memcpy(changed, scsi_keys, 24);
	changed[7] = 15; /* no whole number of keys */
	assert_int_equal(parse_scsi(changed, 24, scsi_none, 8, &report), -EPROTO);
	changed[4] = changed[5] = changed[6] = changed[7] = 0xff;
	assert_int_equal(parse_scsi(changed, 24, scsi_none, 8, &report), -EPROTO);
}

static void test_scsi_types(void **state)
{
	static const enum pr_type types[10] = {
		PR_TYPES,
		PR_WRITE_EXCLUSIVE,
		PR_TYPES,
		PR_EXCLUSIVE_ACCESS,
		PR_TYPES,
		PR_WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
		PR_EXCLUSIVE_ACCESS_REGISTRANTS_ONLY,
		PR_WRITE_EXCLUSIVE_ALL_REGISTRANTS,
		PR_EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
		PR_TYPES,
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++)
		assert_int_equal(pr_type_of_scsi(i), types[i]);
}

/* A reservation report: generation 7, type 2, one registrant, which holds it; it persists. */
static void fill_nvme(unsigned char data[static 128], bool extended)
{
	unsigned char *entry = data + (extended ? 64 : 24);

	memset(data, 0, 128);
	data[0] = 7;
	data[4] = 2;
	data[5] = 1;
	data[9] = 1;
	entry[0] = 0x34;
	entry[1] = 0x12;
	entry[2] = 1;
	memcpy(entry + (extended ? 8 : 16), "\x88\x77\x66\x55\x44\x33\x22\x11", 8);
	memset(entry + (extended ? 16 : 8), 0xab, extended ? 16 : 8);
}

static void test_nvme(void **state)
{
	static const uint8_t id[2][16] = {
		{0xab, 0xab, 0xab, 0xab, 0xab, 0xab, 0xab, 0xab},
		{0xab, 0xab, 0xab, 0xab, 0xab, 0xab, 0xab, 0xab, 0xab, 0xab, 0xab, 0xab, 0xab, 0xab,
		 0xab, 0xab},
	};
	unsigned char data[128];
	struct pr_report report;
	uint32_t needed;

	(void)state;
	for (unsigned extended = 0; extended < 2; extended++) {
		fill_nvme(data, extended);
		report = report_of(4);
		assert_int_equal(registrants_parse_nvme(data, 128, extended, &report, &needed), 0);
		assert_int_equal(report.generation, 7);
		assert_int_equal(report.type, PR_EXCLUSIVE_ACCESS);
		assert_true(report.persist_through_power_loss);
		assert_int_equal(report.count, 1);
		assert_int_equal(registrants[0].key, 0x1122334455667788);
		assert_int_equal(registrants[0].controller_id, 0x1234);
		assert_true(registrants[0].holds_reservation);
		assert_memory_equal(registrants[0].host_id, id[extended], 16);
	}
	report = report_of(0);
	assert_int_equal(registrants_parse_nvme(data, 128, true, &report, &needed), 0);
	assert_int_equal(report.count, 1);

	/* As many as two bytes can tell, and what makes no sense. */
	data[5] = data[6] = 0xff;
	assert_int_equal(registrants_parse_nvme(data, 128, true, &report, &needed), -EMSGSIZE);
	assert_int_equal(needed, 64 + 65535 * 64);
	assert_int_equal(registrants_parse_nvme(data, 63, true, &report, &needed), -EPROTO);
	assert_int_equal(registrants_parse_nvme(data, 23, false, &report, &needed), -EPROTO);
	data[4] = 7;
	assert_int_equal(registrants_parse_nvme(data, 128, true, &report, &needed), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sysfs, enter, leave),
		cmocka_unit_test_setup_teardown(test_sysfs_nonsense, enter, leave),
		cmocka_unit_test(test_id),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_reservation_errors),
		cmocka_unit_test(test_scsi),
		cmocka_unit_test(test_scsi_nonsense),
		cmocka_unit_test(test_scsi_types),
		cmocka_unit_test(test_nvme),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
