// SPDX-License-Identifier: MIT
/*
 * vmm: opens, probes and uses an image as virtual machine monitors do that cannot run here.
 *
 *	vmm cloud-hypervisor|crosvm|firecracker|qemu FILE
 *
 * Each of them asks the file in its own way what it can do - is O_DIRECT there, from which size of
 * request on, are holes - and lives with what it concludes: an answer that is wrong costs the guest
 * its TRIM, or the start. Every step prints a line; the first that does not go as the monitor needs
 * it ends the program with status 1. FILE loses its content.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
	SECTOR = 512,
	PAGE = 4096,
	CHUNK = 65536, /* the I/O of one step */
	DEPTH = 16,    /* requests at once on the ring */
	PUNCH = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	ZERO = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
};

struct client {
	const char *path;
	int fd;
	off_t size;
	char *data; /* CHUNK + PAGE bytes, on a page boundary */
};

/* ---- Steps --------------------------------------------------------------------------------- */

/* What a call returned, or its errno, negative. */
static long long result(long long value)
{
	return value < 0 ? -errno : value;
}

static const char *text(long long value)
{
	static char decimal[32];
	const char *name = value < 0 ? strerrorname_np((int)-value) : NULL;

	snprintf(decimal, sizeof(decimal), "%lld", value);
	return name ? name : decimal;
}

static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("FAILED ", stdout);
	vprintf(format, arguments);
	putchar('\n');
	va_end(arguments);
	exit(1);
}

/* A step that must end with exactly this result. */
static void expect(const char *what, long long got, long long wanted)
{
	if (got != wanted) {
		printf("wanted %s\n", text(wanted));
		fail("%s: %s", what, text(got));
	}
	printf("%s: %s\n", what, text(got));
}

static void expect_bytes(const struct client *client, size_t size, char wanted, const char *what)
{
	for (size_t at = 0; at < size; at++)
		if (client->data[at] != wanted)
			fail("%s: byte %zu is %u, not %u", what, at,
			     (unsigned char)client->data[at], (unsigned char)wanted);
	printf("%s: as written\n", what);
}

/* ---- What several of them do --------------------------------------------------------------- */

static int open_image(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0)
		fail("open: %s", text(-errno));
	puts("open");
	return fd;
}

static void take_size(struct client *client)
{
	struct stat stat;

	client->size = lseek(client->fd, 0, SEEK_END);
	if (client->size < 2 * CHUNK)
		fail("SEEK_END: %s", text(result(client->size)));
	expect("fstat", result(fstat(client->fd, &stat)), 0);
	expect("st_size", stat.st_size, client->size);
	expect("size % 512", client->size % SECTOR, 0);
}

/* Asks for holes where they cannot hurt; what is refused here is never tried again. */
static void probe_at_end(struct client *client)
{
	expect("punch 1 byte at the end", result(fallocate(client->fd, PUNCH, client->size, 1)), 0);
	expect("zero 1 byte at the end", result(fallocate(client->fd, ZERO, client->size, 1)), 0);
	expect("size after the probes", result(lseek(client->fd, 0, SEEK_END)), client->size);
}

static void rw_sync(struct client *client, off_t at, size_t size, char byte)
{
	struct iovec half[2] = {
		{.iov_base = client->data, .iov_len = size / 2},
		{.iov_base = client->data + size / 2, .iov_len = size - size / 2},
	};

	if (size < 2 * SECTOR)
		half[0].iov_len = size, half[1].iov_len = 0;
	memset(client->data, byte, size);
	expect("pwritev", result(pwritev(client->fd, half, 2, at)), (long long)size);
	memset(client->data, ~byte, size);
	expect("preadv", result(preadv(client->fd, half, 2, at)), (long long)size);
	expect_bytes(client, size, byte, "read back");
}

/* The last sector must be reachable, whatever the size of a page is. */
static void rw_last_sector(struct client *client)
{
	rw_sync(client, client->size - SECTOR, SECTOR, 0x5e);
}

/* ranges that are given back read zeros, their neighbours stay as they are. */
static void discard_range(struct client *client, int mode, const char *what)
{
	enum { FROM = 5 * SECTOR, LENGTH = 9 * PAGE };

	rw_sync(client, 0, CHUNK, 0x31);
	expect(what, result(fallocate(client->fd, mode, FROM, LENGTH)), 0);
	expect("pread", result(pread(client->fd, client->data, CHUNK, 0)), CHUNK);
	for (size_t at = 0; at < CHUNK; at++) {
		char wanted = at >= FROM && at < FROM + LENGTH ? 0 : 0x31;

		if (client->data[at] != wanted)
			fail("byte %zu after %s is %u", at, what, (unsigned char)client->data[at]);
	}
	printf("zeros after %s\n", what);
}

/* What O_DIRECT lets through: sectors, and nothing smaller. */
static void direct_alignment(struct client *client)
{
	expect("read 1 byte direct", result(pread(client->fd, client->data, 1, 0)), -EINVAL);
	expect("read at byte 256 direct", result(pread(client->fd, client->data, SECTOR, 256)),
	       -EINVAL);
	expect("write 511 bytes direct", result(pwrite(client->fd, client->data, 511, 0)), -EINVAL);
	rw_sync(client, SECTOR, SECTOR, 0x11);
	rw_sync(client, 7 * SECTOR, 3 * SECTOR, 0x12);
	rw_last_sector(client);
}

static int ofd_lock(int fd, short type, off_t from, off_t length)
{
	struct flock lock = {
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = from,
		.l_len = length,
	};

	return fcntl(fd, F_OFD_SETLK, &lock);
}

/* The type of a lock that would be in the way of this one, F_UNLCK if none is. */
static short ofd_conflict(int fd, short type, off_t from, off_t length)
{
	struct flock lock = {
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = from,
		.l_len = length,
	};

	expect("F_OFD_GETLK", result(fcntl(fd, F_OFD_GETLK, &lock)), 0);
	return lock.l_type;
}

/* ---- The ring ------------------------------------------------------------------------------ */

static void ring_wait(struct io_uring *ring, unsigned int count, long long wanted, const char *what)
{
	int submitted = io_uring_submit(ring);

	if (submitted != (int)count)
		fail("io_uring_submit: %s", text(submitted));
	for (unsigned int i = 0; i < count; i++) {
		struct io_uring_cqe *cqe;
		int err = io_uring_wait_cqe(ring, &cqe);

		if (err)
			fail("io_uring_wait_cqe: %s", text(err));
		if (cqe->res != wanted)
			fail("%s of request %u: %s", what, i, text(cqe->res));
		io_uring_cqe_seen(ring, cqe);
	}
	printf("%s: %u of %lld\n", what, count, wanted);
}

static struct io_uring_sqe *ring_entry(struct io_uring *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	if (!sqe)
		fail("the ring is full");
	return sqe;
}

/*
 * DEPTH writes at once, a flush, and DEPTH reads. With fixed files, as a monitor does that first
 * forbids its ring all that it does not need.
 */
static void rw_ring(struct client *client, size_t size, bool fixed)
{
	struct io_uring ring;
	unsigned int flags = fixed ? IOSQE_FIXED_FILE : 0;
	int fd = fixed ? 0 : client->fd;
	struct io_uring_sqe *sqe;

	expect("io_uring_queue_init", io_uring_queue_init(DEPTH, &ring, 0), 0);
	if (fixed)
		expect("io_uring_register_files", io_uring_register_files(&ring, &client->fd, 1),
		       0);
	for (unsigned int i = 0; i < DEPTH; i++) {
		memset(client->data + i * size, (int)('A' + i), size);
		sqe = ring_entry(&ring);
		io_uring_prep_write(sqe, fd, client->data + i * size, (unsigned int)size,
				    (DEPTH - 1 - i) * size);
		sqe->flags |= (__u8)flags;
	}
	ring_wait(&ring, DEPTH, (long long)size, "write on the ring");
	sqe = ring_entry(&ring);
	io_uring_prep_fsync(sqe, fd, 0);
	sqe->flags |= (__u8)flags;
	ring_wait(&ring, 1, 0, "fsync on the ring");
	memset(client->data, 0, DEPTH * size);
	for (unsigned int i = 0; i < DEPTH; i++) {
		sqe = ring_entry(&ring);
		io_uring_prep_read(sqe, fd, client->data + i * size, (unsigned int)size,
				   (DEPTH - 1 - i) * size);
		sqe->flags |= (__u8)flags;
	}
	ring_wait(&ring, DEPTH, (long long)size, "read on the ring");
	for (unsigned int i = 0; i < DEPTH; i++)
		for (size_t at = 0; at < size; at++)
			if (client->data[i * size + at] != (char)('A' + i))
				fail("the ring read something else for request %u", i);
	io_uring_queue_exit(&ring);
}

static void discard_on_ring(struct client *client)
{
	struct io_uring ring;

	expect("io_uring_queue_init", io_uring_queue_init(DEPTH, &ring, 0), 0);
	rw_sync(client, 0, CHUNK, 0x41);
	io_uring_prep_fallocate(ring_entry(&ring), client->fd, PUNCH, 0, PAGE);
	io_uring_prep_fallocate(ring_entry(&ring), client->fd, ZERO, PAGE, CHUNK - PAGE);
	ring_wait(&ring, 2, 0, "punch and zero on the ring");
	expect("pread", result(pread(client->fd, client->data, CHUNK, 0)), CHUNK);
	expect_bytes(client, CHUNK, 0, "zeros");
	io_uring_queue_exit(&ring);
}

/* ---- The monitors -------------------------------------------------------------------------- */

static void cloud_hypervisor(struct client *client)
{
	struct statx statx_data = {0};
	int other;

	client->fd = open_image(client->path, O_RDWR | O_DIRECT);
	take_size(client);
	expect("statx", result(statx(client->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &statx_data)),
	       0);
	/* It takes 512 where the file system does not say. */
	if (statx_data.stx_mask & STATX_DIOALIGN)
		expect("alignment of offsets", statx_data.stx_dio_offset_align, SECTOR);

	other = open_image(client->path, O_RDWR);
	expect("lock of all bytes", result(ofd_lock(client->fd, F_WRLCK, 0, client->size)), 0);
	expect("second lock", result(ofd_lock(other, F_WRLCK, 0, client->size)), -EAGAIN);
	expect("second lock, to read", result(ofd_lock(other, F_RDLCK, 0, 1)), -EAGAIN);
	expect("conflict", ofd_conflict(other, F_RDLCK, 0, client->size), F_WRLCK);
	expect("unlock", result(ofd_lock(client->fd, F_UNLCK, 0, client->size)), 0);
	expect("lock of the whole file", result(ofd_lock(client->fd, F_WRLCK, 0, 0)), 0);
	expect("second lock", result(ofd_lock(other, F_RDLCK, client->size - 1, 1)), -EAGAIN);
	expect("downgrade", result(ofd_lock(client->fd, F_RDLCK, 0, 0)), 0);
	expect("second lock, to read", result(ofd_lock(other, F_RDLCK, 0, 0)), 0);
	close(other);

	probe_at_end(client);
	expect("preallocation", result(fallocate(client->fd, 0, 0, client->size)), 0);
	expect("size after it", result(lseek(client->fd, 0, SEEK_END)), client->size);
	direct_alignment(client);
	rw_ring(client, SECTOR, false);
	rw_ring(client, PAGE, false);
	discard_on_ring(client);
	discard_range(client, PUNCH, "a punched hole");
	discard_range(client, ZERO, "a zeroed range");
	expect("fsync", result(fsync(client->fd)), 0);
}

static void crosvm(struct client *client)
{
	int other;

	client->fd = open_image(client->path, O_RDWR);
	expect("flock", result(flock(client->fd, LOCK_EX | LOCK_NB)), 0);
	other = open_image(client->path, O_RDWR);
	expect("second flock", result(flock(other, LOCK_EX | LOCK_NB)), -EWOULDBLOCK);
	expect("second flock, shared", result(flock(other, LOCK_SH | LOCK_NB)), -EWOULDBLOCK);
	/* A cached read first: O_DIRECT comes later, on the same descriptor. */
	expect("read through the page cache", result(pread(client->fd, client->data, 1, 0)), 1);
	expect("F_SETFL", result(fcntl(client->fd, F_SETFL, O_DIRECT)), 0);
	take_size(client);
	direct_alignment(client);
	rw_ring(client, PAGE, false);
	probe_at_end(client);
	discard_range(client, PUNCH, "a punched hole");
	discard_range(client, ZERO, "a zeroed range");
	/* The other one is buffered, and open at the same time. */
	rw_sync(client, 0, PAGE, 0x61);
	expect("buffered read", result(pread(other, client->data, PAGE, 0)), PAGE);
	expect_bytes(client, PAGE, 0x61, "buffered read after a direct write");
	memset(client->data, 0x62, 100);
	expect("buffered write", result(pwrite(other, client->data, 100, 0)), 100);
	expect("its fdatasync", result(fdatasync(other)), 0);
	expect("direct read", result(pread(client->fd, client->data, SECTOR, 0)), SECTOR);
	expect_bytes(client, 100, 0x62, "direct read after a buffered write");
	expect("fdatasync", result(fdatasync(client->fd)), 0);
	close(client->fd);
	expect("flock after the first is gone", result(flock(other, LOCK_EX | LOCK_NB)), 0);
	client->fd = other;
}

/* read(2) and write(2) at the position of the file, as the engine without a ring does. */
static void firecracker_sync(struct client *client)
{
	expect("lseek", result(lseek(client->fd, 3 * SECTOR, SEEK_SET)), 3 * SECTOR);
	memset(client->data, 0x71, PAGE);
	expect("write", result(write(client->fd, client->data, PAGE)), PAGE);
	expect("lseek", result(lseek(client->fd, 3 * SECTOR, SEEK_SET)), 3 * SECTOR);
	memset(client->data, 0, PAGE);
	expect("read", result(read(client->fd, client->data, PAGE)), PAGE);
	expect_bytes(client, PAGE, 0x71, "read back");
	expect("fsync", result(fsync(client->fd)), 0);
}

static void firecracker(struct client *client)
{
	client->fd = open_image(client->path, O_RDWR);
	take_size(client);
	firecracker_sync(client);
	rw_last_sector(client);
	rw_ring(client, SECTOR, true);
	rw_ring(client, PAGE, true);
	discard_range(client, PUNCH, "a punched hole");
	discard_range(client, ZERO, "a zeroed range");
	expect("fsync", result(fsync(client->fd)), 0);
	/* A drive that is not to be written. */
	close(client->fd);
	client->fd = open_image(client->path, O_RDONLY);
	take_size(client);
	expect("fsync of a reader", result(fsync(client->fd)), 0);
	expect("write of a reader", result(pwrite(client->fd, client->data, SECTOR, 0)), -EBADF);
}

/* The least of its sizes that is not refused; it takes any error but EINVAL for a yes. */
static size_t qemu_request_alignment(struct client *client)
{
	static const size_t sizes[] = {1, 512, 1024, 2048, 4096};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		if (pread(client->fd, client->data, sizes[i], 0) >= 0 || errno != EINVAL)
			return sizes[i];
	fail("no working O_DIRECT alignment");
}

static size_t qemu_memory_alignment(struct client *client)
{
	for (size_t align = 1; align <= PAGE; align = align == 1 ? SECTOR : align * 2)
		if (pread(client->fd, client->data + align, PAGE, 0) >= 0 || errno != EINVAL)
			return align;
	fail("no working alignment of memory");
}

/* Shared locks on one byte for each permission, and a look for those who do not share. */
static void qemu_locks(struct client *client)
{
	int other = open_image(client->path, O_RDWR | O_DIRECT);

	for (off_t byte = 100; byte <= 103; byte++)
		expect("lock of a permission", result(ofd_lock(client->fd, F_RDLCK, byte, 1)), 0);
	expect("lock of what is not shared", result(ofd_lock(client->fd, F_RDLCK, 201, 1)), 0);
	expect("a second one sees it", ofd_conflict(other, F_WRLCK, 201, 1), F_RDLCK);
	expect("and may not write", result(ofd_lock(other, F_WRLCK, 101, 1)), -EAGAIN);
	expect("nothing else is held", ofd_conflict(other, F_WRLCK, 200, 1), F_UNLCK);
	expect("the first sees no one", ofd_conflict(client->fd, F_WRLCK, 201, 1), F_UNLCK);
	close(other);
}

static void qemu(struct client *client)
{
	int unset = -1;

	client->fd = open_image(client->path, O_RDWR | O_DIRECT);
	take_size(client);
	expect("BLKSSZGET", result(ioctl(client->fd, BLKSSZGET, &unset)), -ENOTTY);
	expect("alignment of requests", (long long)qemu_request_alignment(client), SECTOR);
	printf("alignment of memory: %zu\n", qemu_memory_alignment(client));
	qemu_locks(client);
	direct_alignment(client);
	rw_ring(client, PAGE, false);
	discard_range(client, PUNCH, "a punched hole");
	discard_range(client, ZERO, "a zeroed range");
	expect("SEEK_DATA", result(lseek(client->fd, 0, SEEK_DATA)), 0);
	expect("SEEK_DATA at the end", result(lseek(client->fd, client->size, SEEK_DATA)), -ENXIO);
	expect("fdatasync", result(fdatasync(client->fd)), 0);
}

static const struct monitor {
	const char *name;
	void (*run)(struct client *client);
} monitors[] = {
	{"cloud-hypervisor", cloud_hypervisor},
	{"crosvm", crosvm},
	{"firecracker", firecracker},
	{"qemu", qemu},
};

int main(int argc, char **argv)
{
	struct client client = {.fd = -1};
	void *memory;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 3 && posix_memalign(&memory, PAGE, CHUNK + PAGE) == 0) {
		client.path = argv[2];
		client.data = memory;
		for (size_t i = 0; i < sizeof(monitors) / sizeof(monitors[0]); i++) {
			if (strcmp(argv[1], monitors[i].name) != 0)
				continue;
			monitors[i].run(&client);
			close(client.fd);
			free(memory);
			puts("done");
			return 0;
		}
	}
	fputs("vmm cloud-hypervisor|crosvm|firecracker|qemu FILE\n", stderr);
	return 2;
}
