// SPDX-License-Identifier: MIT
/*
 * OpenSSL keeps what it derives from a key in memory that it allocates by itself. Its allocations
 * can be redirected, but only for the whole process and before the first of them: hence the
 * constructor. The functions put in their place are those of the C library, but for threads that
 * are between secret_openssl_begin() and secret_openssl_end().
 */
#include "backends/secret/secret.h"
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "core/log.h"

#define CACHE_LINE ((size_t)64)

static _Thread_local struct secret *current;

/* ---- The memory. ---- */

static void warn_unlocked(const char *node, int error)
{
	static atomic_flag warned = ATOMIC_FLAG_INIT;

	if (!atomic_flag_test_and_set(&warned))
		log_warning(node,
			    "the memory of keys cannot be locked and might be swapped out: %s "
			    "(ulimit -l, LimitMEMLOCK=)",
			    strerror(error));
}

int secret_init(struct secret *secret, size_t size, const char *node)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	*secret = (struct secret){.size = align_up(size, page)};
	secret->memory = mmap(NULL, secret->size, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (secret->memory == MAP_FAILED) {
		*secret = (struct secret){.memory = NULL};
		return errno;
	}
	/* Before there is anything in it. */
	if (madvise(secret->memory, secret->size, MADV_DONTDUMP) < 0 ||
	    madvise(secret->memory, secret->size, MADV_WIPEONFORK) < 0) {
		int error = errno;

		secret_destroy(secret);
		return error;
	}
	secret->locked = mlock(secret->memory, secret->size) == 0;
	if (!secret->locked)
		warn_unlocked(node, errno);
	return 0;
}

void secret_destroy(struct secret *secret)
{
	if (!secret->memory)
		return;
	OPENSSL_cleanse(secret->memory, secret->size);
	munmap(secret->memory, secret->size);
	*secret = (struct secret){.memory = NULL};
}

void *secret_take(struct secret *secret, size_t size)
{
	void *piece = secret->memory + secret->used;

	if (size > secret->size - secret->used)
		return NULL;
	secret->used = min_u64(align_up(secret->used + size, CACHE_LINE), secret->size);
	return piece;
}

bool secret_contains(const struct secret *secret, const void *pointer)
{
	uintptr_t at = (uintptr_t)pointer, start = (uintptr_t)secret->memory;

	return at >= start && at - start < secret->size;
}

/* ---- OpenSSL's allocations. ---- */

static void *openssl_malloc(size_t size, const char *file, int line)
{
	(void)file;
	(void)line;
	return current ? secret_take(current, size) : malloc(size);
}

/* In a secret nobody knows how long the old piece was: OpenSSL does not do that with keys. */
static void *openssl_realloc(void *pointer, size_t size, const char *file, int line)
{
	if (!current || (pointer && !secret_contains(current, pointer)))
		return realloc(pointer, size);
	return pointer ? NULL : openssl_malloc(size, file, line);
}

/* OpenSSL has wiped the keys that it frees; all is wiped once more when the secret ends. */
static void openssl_free(void *pointer, const char *file, int line)
{
	(void)file;
	(void)line;
	if (!current || !secret_contains(current, pointer))
		free(pointer);
}

/* Where it fails, keys do not come to lie in secrets, and whoever wants them there finds out. */
__attribute__((constructor)) static void openssl_redirect(void)
{
	(void)CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free);
}

/* The thread's queue of errors outlives the secret: it must not allocate anything there. */
void secret_openssl_begin(struct secret *secret)
{
	ERR_clear_error();
	current = secret;
}

void secret_openssl_end(void)
{
	ERR_clear_error();
	current = NULL;
}
