// SPDX-License-Identifier: MIT
/*
 * OpenSSL is asked for the cipher in the ordinary way (EVP), but used without it: EVP_CipherInit()
 * for the tweak of each unit takes 60 ns, more than half of the time that 512 bytes of XTS-AES-256
 * themselves take. So the functions of the provider that implements the cipher are called, as EVP
 * itself does (provider-cipher(7)).
 *
 * A context holds the tweak of the unit under way, so each worker has contexts of its own, one for
 * each direction, which are keyed once. They hold the keys, and so are allocated in a secret.
 */
#include "backends/crypt/xts.h"
#include <endian.h>
#include <errno.h>
#include <openssl/core_dispatch.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <stdlib.h>
#include <string.h>
#include "backends/secret/secret.h"
#include "core/worker.h"

#define TWEAK_SIZE 16

/* Stored by one instruction, as it is loaded: two would stall the processor, for each unit. */
typedef uint64_t tweak_vector __attribute__((vector_size(TWEAK_SIZE)));

/* More than a context takes: OpenSSL 3 has about 800 bytes. */
#define CONTEXT_SIZE_MAX 2048

struct implementation {
	OSSL_FUNC_cipher_newctx_fn *new_context;
	OSSL_FUNC_cipher_freectx_fn *free_context;
	OSSL_FUNC_cipher_encrypt_init_fn *init[XTS_DIRECTIONS];
	OSSL_FUNC_cipher_cipher_fn *transform;
};

struct xts {
	EVP_CIPHER *cipher; /* keeps the provider */
	struct implementation with;
	struct secret secret;
	uint32_t unit_size;
	uint64_t tweak_first, tweak_step;
	unsigned workers;
	void *contexts[][XTS_DIRECTIONS]; /* of each worker */
};

/* ---- The provider's functions. ---- */

static void implementation_fill(struct implementation *with, const OSSL_DISPATCH *dispatch)
{
	for (; dispatch->function_id != 0; dispatch++) {
		switch (dispatch->function_id) {
		case OSSL_FUNC_CIPHER_NEWCTX:
			with->new_context = OSSL_FUNC_cipher_newctx(dispatch);
			break;
		case OSSL_FUNC_CIPHER_FREECTX:
			with->free_context = OSSL_FUNC_cipher_freectx(dispatch);
			break;
		case OSSL_FUNC_CIPHER_ENCRYPT_INIT:
			with->init[XTS_ENCRYPT] = OSSL_FUNC_cipher_encrypt_init(dispatch);
			break;
		case OSSL_FUNC_CIPHER_DECRYPT_INIT:
			with->init[XTS_DECRYPT] = OSSL_FUNC_cipher_decrypt_init(dispatch);
			break;
		case OSSL_FUNC_CIPHER_CIPHER:
			with->transform = OSSL_FUNC_cipher_cipher(dispatch);
			break;
		default:
			break;
		}
	}
}

static bool implementation_is_whole(const struct implementation *with)
{
	return with->new_context && with->free_context && with->init[XTS_ENCRYPT] &&
	       with->init[XTS_DECRYPT] && with->transform;
}

/* Whether @name is the first of @names, which colons separate. */
static bool is_named(const char *names, const char *name)
{
	size_t length = strlen(name);

	return strncasecmp(names, name, length) == 0 &&
	       (names[length] == ':' || names[length] == '\0');
}

static int implementation_find(struct xts *xts, const char *name, struct err *err)
{
	const OSSL_PROVIDER *provider;
	const OSSL_ALGORITHM *algorithms;
	int no_cache;

	xts->cipher = EVP_CIPHER_fetch(NULL, name, NULL);
	if (!xts->cipher)
		return err_set(err, "OpenSSL has no %s here", name);
	provider = EVP_CIPHER_get0_provider(xts->cipher);
	algorithms = OSSL_PROVIDER_query_operation(provider, OSSL_OP_CIPHER, &no_cache);
	for (const OSSL_ALGORITHM *one = algorithms; one && one->algorithm_names; one++)
		if (is_named(one->algorithm_names, name))
			implementation_fill(&xts->with, one->implementation);
	OSSL_PROVIDER_unquery_operation(provider, OSSL_OP_CIPHER, algorithms);
	if (!implementation_is_whole(&xts->with))
		return err_set(err, "OpenSSL's provider '%s' does not show how it does %s",
			       OSSL_PROVIDER_get0_name(provider), name);
	return 0;
}

/* ---- Life. ---- */

static int context_open(struct xts *xts, void **context, enum xts_direction direction,
			const struct xts_settings *settings, struct err *err)
{
	static const unsigned char no_tweak[TWEAK_SIZE];
	void *provider = OSSL_PROVIDER_get0_provider_ctx(EVP_CIPHER_get0_provider(xts->cipher));

	secret_openssl_begin(&xts->secret);
	*context = xts->with.new_context(provider);
	secret_openssl_end();
	if (!*context || !secret_contains(&xts->secret, *context))
		return err_set(err, "OpenSSL does not keep its keys in the memory meant for them");
	if (xts->with.init[direction](*context, settings->key, settings->key_size, no_tweak,
				      sizeof(no_tweak), NULL) != 1)
		return err_set(err, "OpenSSL does not take the key");
	return 0;
}

static int xts_fill(struct xts *xts, const struct xts_settings *settings, const char *node,
		    struct err *err)
{
	size_t half = settings->key_size / 2;
	int error;

	if (CRYPTO_memcmp(settings->key, settings->key + half, half) == 0)
		return err_set(err, "the halves of the key are equal, which XTS forbids");
	if (implementation_find(xts, settings->key_size == 64 ? "AES-256-XTS" : "AES-128-XTS",
				err) < 0)
		return -1;
	error = secret_init(&xts->secret, (size_t)xts->workers * XTS_DIRECTIONS * CONTEXT_SIZE_MAX,
			    node);
	if (error)
		return err_set(err, "no memory for keys: %s", strerror(error));
	for (unsigned i = 0; i < xts->workers; i++)
		for (unsigned direction = 0; direction < XTS_DIRECTIONS; direction++)
			if (context_open(xts, &xts->contexts[i][direction],
					 (enum xts_direction)direction, settings, err) < 0)
				return -1;
	return 0;
}

struct xts *xts_open(const struct xts_settings *settings, const char *node, struct err *err)
{
	unsigned workers = workers_count();
	struct xts *xts = calloc(1, sizeof(*xts) + workers * sizeof(xts->contexts[0]));

	if (!xts) {
		err_set(err, "out of memory");
		return NULL;
	}
	xts->workers = workers;
	xts->unit_size = settings->unit_size;
	xts->tweak_first = settings->tweak_first;
	xts->tweak_step = settings->tweak_step;
	if (xts_fill(xts, settings, node, err) == 0)
		return xts;
	xts_close(xts);
	return NULL;
}

void xts_close(struct xts *xts)
{
	if (!xts)
		return;
	secret_openssl_begin(&xts->secret);
	for (unsigned i = 0; i < xts->workers; i++)
		for (unsigned direction = 0; direction < XTS_DIRECTIONS; direction++)
			if (xts->contexts[i][direction])
				xts->with.free_context(xts->contexts[i][direction]);
	secret_openssl_end();
	secret_destroy(&xts->secret);
	EVP_CIPHER_free(xts->cipher);
	free(xts);
}

bool xts_is_locked(const struct xts *xts)
{
	return xts->secret.locked;
}

/* ---- Data. ---- */

int xts_transform(struct xts *xts, enum xts_direction direction, const void *in, void *out,
		  size_t length, uint64_t unit)
{
	void *context = xts->contexts[worker_index()][direction];
	OSSL_FUNC_cipher_encrypt_init_fn *init = xts->with.init[direction];
	OSSL_FUNC_cipher_cipher_fn *transform = xts->with.transform;
	uint64_t number = xts->tweak_first + unit * xts->tweak_step;
	size_t unit_size = xts->unit_size;

	for (size_t at = 0; at < length; at += unit_size, number += xts->tweak_step) {
		tweak_vector tweak = {htole64(number), 0};
		size_t done;

		if (init(context, NULL, 0, (const unsigned char *)&tweak, TWEAK_SIZE, NULL) != 1 ||
		    transform(context, (unsigned char *)out + at, &done, unit_size,
			      (const unsigned char *)in + at, unit_size) != 1 ||
		    done != unit_size)
			return error_io(EIO);
	}
	return 0;
}
