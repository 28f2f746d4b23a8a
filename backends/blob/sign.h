/* SPDX-License-Identifier: MIT */
/* Signatures of Azure Storage by shared key (its "Authorize with Shared Key", Blob service). */
#ifndef BACKENDS_BLOB_SIGN_H
#define BACKENDS_BLOB_SIGN_H

#include "core/util.h"

/* A GET without a body. What is not sent is NULL. */
struct azure_request {
	const char *account;
	const char *url;				    /* as it is sent */
	const char *range, *if_match, *if_unmodified_since; /* values of these headers */
	const char *date, *version;			    /* of x-ms-date and x-ms-version */
};

/* What is signed; to be freed. NULL: no memory, or no URL. */
char *azure_string_to_sign(const struct azure_request *request);

/* The longest signature, in base64, with its NUL. */
#define AZURE_SIGNATURE_SIZE 48

/* Signs @text with the @key_length bytes of @key. False where there is no HMAC. */
bool azure_sign(char signature[AZURE_SIGNATURE_SIZE], const char *text, const void *key,
		size_t key_length);

#endif
