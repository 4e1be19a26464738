/* SPDX-License-Identifier: MIT */
/* Compares a source with the file that it may have been packed into. */
#include "fs/pack/pack_done.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "fs/base/file_copy.h"
#include "fs/base/file_io.h"

enum { PART_BYTES = 1 << 20 };

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool wcx_name_sha256(const char *name, uint8_t ret[WCX_SHA256_BYTES])
{
	if (strlen(name) != 2 * WCX_SHA256_BYTES)
		return false;
	for (size_t i = 0; i < WCX_SHA256_BYTES; i++) {
		const int high = digit(name[2 * i]), low = digit(name[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		ret[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

bool wcx_pack_is_current(const char *src_name, const struct stat *src, const struct stat *packed,
			 const struct wcx_superblock *sb)
{
	uint8_t sha256[WCX_SHA256_BYTES];

	if (sb->original_bytes != (uint64_t)src->st_size || sb->packed_bytes != (uint64_t)packed->st_size)
		return false;
	if (wcx_has_time_of(packed, src))
		return true;
	return wcx_name_sha256(src_name, sha256) && memcmp(sha256, sb->sha256, sizeof sha256) == 0;
}

int wcx_file_sha256(int fd, const char *path, const atomic_bool *stop, uint8_t ret[WCX_SHA256_BYTES], struct wcx_error *err)
{
	EVP_MD_CTX *digest = EVP_MD_CTX_new();
	uint8_t *part = malloc(PART_BYTES);
	uint64_t offset = 0;
	ssize_t n = digest && part && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1 ? 1 : -ENOMEM;

	while (n > 0) {
		n = wcx_read_at(fd, part, PART_BYTES, offset);
		if (n > 0 && EVP_DigestUpdate(digest, part, (size_t)n) != 1)
			n = -ENOMEM;
		if (n > 0 && stop && *stop)
			n = -EINTR;
		offset += n > 0 ? (uint64_t)n : 0;
	}
	if (n == 0)
		EVP_DigestFinal_ex(digest, ret, NULL);
	free(part);
	EVP_MD_CTX_free(digest);
	return n < 0 ? wcx_fail(err, (int)-n, "%s: %s", path, n == -EINTR ? "interrupted" : strerror((int)-n)) : 0;
}
