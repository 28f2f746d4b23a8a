// SPDX-License-Identifier: MIT
#include "backends/blob/credentials.h"
#include <ctype.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>

/* The file at @path as text of one line, without blanks around it, in *text. */
static int read_line(struct key *key, char **text, const char *path, const char *option,
		     const char *node, struct err *err)
{
	char *line;

	if (key_read(key, path, option, node, err) < 0)
		return -1;
	key_keep_line(key);
	if (memchr(key->data, '\0', key->length))
		return err_set_key(err, option, "'%s' is no text", path);
	line = (char *)key->data;
	while (key->length > 0 && isspace((unsigned char)line[key->length - 1]))
		key->length--;
	if (key->length == 0)
		return err_set_key(err, option, "the first line of '%s' is empty", path);
	/* key_read() takes no file that would leave no room for this. */
	line[key->length] = '\0';
	*text = line;
	return 0;
}

/* That nothing in @text could end a header's line. */
static int check_printable(const char *text, const char *path, const char *option, struct err *err)
{
	for (; *text; text++)
		if (iscntrl((unsigned char)*text))
			return err_set_key(err, option, "'%s' contains a control character", path);
	return 0;
}

static int read_pair(struct key *key, const char **user, const char **password, const char *path,
		     const char *option, const char *node, struct err *err)
{
	char *text, *colon;

	if (!path)
		return 0;
	if (read_line(key, &text, path, option, node, err) < 0 ||
	    check_printable(text, path, option, err) < 0)
		return -1;
	colon = strchr(text, ':');
	if (!colon)
		return err_set_key(err, option, "the first line of '%s' is not user:password",
				   path);
	*colon = '\0';
	*user = text;
	*password = colon + 1;
	return 0;
}

static int read_query(struct credentials *credentials, const char *path, const char *node,
		      struct err *err)
{
	char *text;

	if (!path)
		return 0;
	if (read_line(&credentials->query_key, &text, path, "query_file", node, err) < 0)
		return -1;
	if (*text == '?')
		text++;
	for (const char *at = text; *at; at++)
		if (isspace((unsigned char)*at) || iscntrl((unsigned char)*at) || *at == '#')
			return err_set_key(err, "query_file",
					   "'%s' contains a blank or a '#', which no query does",
					   path);
	credentials->query = text;
	return 0;
}

/* A key in base64, decoded in place. */
static int read_account_key(struct credentials *credentials, const char *path, const char *node,
			    struct err *err)
{
	struct key *key = &credentials->account;
	unsigned char *decoded;
	char *text;
	int length;

	if (!path)
		return 0;
	if (read_line(key, &text, path, "account_key_file", node, err) < 0)
		return -1;
	decoded = key->data;
	length = EVP_DecodeBlock(decoded, (const unsigned char *)text, (int)key->length);
	if (length <= 0)
		return err_set_key(err, "account_key_file", "'%s' is no key in base64", path);
	/* What was padding is decoded to zero bytes. */
	for (size_t at = key->length; at > key->length - 2 && text[at - 1] == '='; at--)
		length--;
	credentials->account_key = decoded;
	credentials->account_key_length = (size_t)length;
	return 0;
}

/* ---- S3: the format of ~/.aws/credentials. ---- */

/* Without blanks around it; in place. */
static char *trim(char *text)
{
	char *end;

	while (isspace((unsigned char)*text))
		text++;
	for (end = text + strlen(text); end > text && isspace((unsigned char)end[-1]);)
		*--end = '\0';
	return text;
}

/* "name = value", where the name is one that is wanted. */
static void take_setting(struct credentials *credentials, char *line)
{
	static const struct {
		const char *name;
		size_t offset;
	} settings[] = {
		{"aws_access_key_id", offsetof(struct credentials, user)},
		{"aws_secret_access_key", offsetof(struct credentials, password)},
		{"aws_session_token", offsetof(struct credentials, session_token)},
	};
	char *value = strchr(line, '=');

	if (!value)
		return;
	*value++ = '\0';
	line = trim(line);
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++)
		if (strcmp(line, settings[i].name) == 0)
			*(const char **)((char *)credentials + settings[i].offset) = trim(value);
}

static int read_s3(struct credentials *credentials, const char *path, const char *node,
		   struct err *err)
{
	struct key *key = &credentials->s3;
	bool wanted = true; /* lines before the first section, and of [default] */
	char *rest, *line;

	if (!path)
		return 0;
	if (key_read(key, path, "credentials_file", node, err) < 0)
		return -1;
	if (key->length == KEY_FILE_MAX || memchr(key->data, '\0', key->length))
		return err_set_key(err, "credentials_file", "'%s' is no text", path);
	rest = (char *)key->data;
	rest[key->length] = '\0';
	while ((line = strsep(&rest, "\n"))) {
		line = trim(line);
		if (*line == '[')
			wanted = strcmp(line, "[default]") == 0;
		else if (wanted && *line != '#' && *line != ';')
			take_setting(credentials, line);
	}
	if (!credentials->user || !*credentials->user || !credentials->password ||
	    !*credentials->password)
		return err_set_key(err, "credentials_file",
				   "'%s' has no lines aws_access_key_id = ... and "
				   "aws_secret_access_key = ..., or they are not in [default]",
				   path);
	if (credentials->session_token && !*credentials->session_token)
		credentials->session_token = NULL;
	if (check_printable(credentials->user, path, "credentials_file", err) < 0 ||
	    check_printable(credentials->password, path, "credentials_file", err) < 0)
		return -1;
	return credentials->session_token
		       ? check_printable(credentials->session_token, path, "credentials_file", err)
		       : 0;
}

/* ---- All of them. ---- */

/* That each file belongs to the store, and only one of them tells who asks. */
static int check_files(const struct credential_files *files, enum blob_store store, struct err *err)
{
	if (files->auth_file && store != BLOB_HTTP)
		return err_set_key(err, "auth_file", "is for http:// and https:// only");
	if (files->account_key_file && store != BLOB_AZURE)
		return err_set_key(err, "account_key_file", "is for azure:// only");
	if (files->credentials_file && store != BLOB_S3)
		return err_set_key(err, "credentials_file", "is for s3:// only");
	if (files->query_file && (files->account_key_file || files->credentials_file))
		return err_set_key(err, "query_file",
				   "a request is signed by this or by a key, not by both");
	return 0;
}

int credentials_read(struct credentials *credentials, const struct credential_files *files,
		     enum blob_store store, const char *node, struct err *err)
{
	if (check_files(files, store, err) < 0 ||
	    read_pair(&credentials->auth, &credentials->user, &credentials->password,
		      files->auth_file, "auth_file", node, err) < 0 ||
	    read_query(credentials, files->query_file, node, err) < 0 ||
	    read_account_key(credentials, files->account_key_file, node, err) < 0 ||
	    read_s3(credentials, files->credentials_file, node, err) < 0)
		return -1;
	return read_pair(&credentials->proxy, &credentials->proxy_user,
			 &credentials->proxy_password, files->proxy_auth_file, "proxy_auth_file",
			 node, err);
}

void credentials_destroy(struct credentials *credentials)
{
	key_destroy(&credentials->auth);
	key_destroy(&credentials->query_key);
	key_destroy(&credentials->account);
	key_destroy(&credentials->s3);
	key_destroy(&credentials->proxy);
	*credentials = (struct credentials){.user = NULL};
}
