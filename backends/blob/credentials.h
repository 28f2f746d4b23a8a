/* SPDX-License-Identifier: MIT */
/*
 * What a client shows to a server, read from files, into memory that is kept as keys are
 * (backends/secret/secret.h). libcurl makes copies of its own of what it sends (user names,
 * passwords, the query), in ordinary memory; a shared key of Azure never leaves here.
 */
#ifndef BACKENDS_BLOB_CREDENTIALS_H
#define BACKENDS_BLOB_CREDENTIALS_H

#include "backends/blob/url.h"
#include "backends/secret/key.h"

/* Paths, each NULL where it is not given. */
struct credential_files {
	const char *auth_file;	      /* "user:password": http and https */
	const char *query_file;	      /* any */
	const char *account_key_file; /* Azure */
	const char *credentials_file; /* S3 */
	const char *proxy_auth_file;  /* "user:password" */
};

/* Zeroed, it is none. Each text is NULL where it is not given, and points into its file. */
struct credentials {
	const char *user,
		*password;	   /* for basic authentication; of S3: the key's id, and the key */
	const char *session_token; /* of S3 */
	const char *query;
	const unsigned char *account_key;
	size_t account_key_length;
	const char *proxy_user, *proxy_password;
	struct key auth, query_key, account, s3, proxy; /* the files */
};

/*
 * Reads the @files that go with @store; blocking, not on a worker. @node is named in warnings.
 * Returns 0, or -1 with a sentence in @err. To be destroyed in both cases.
 */
int credentials_read(struct credentials *credentials, const struct credential_files *files,
		     enum blob_store store, const char *node, struct err *err);
void credentials_destroy(struct credentials *credentials);

#endif
