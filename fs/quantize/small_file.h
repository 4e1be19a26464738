/* SPDX-License-Identifier: MIT */
/* Reads whole small files of a model's directory. */
#ifndef WCX_SMALL_FILE_H
#define WCX_SMALL_FILE_H

#include <stddef.h>

#include "fs/base/error.h"

/*
 * wcx_small_file_read - read all of directory/name
 *
 * Returns 0 with *ret, which the caller frees and which has a zero byte behind its *bytes_ret bytes; -ENOENT; -EFBIG for
 * more than max_bytes; -EINVAL for what is no regular file; or -errno.
 */
int wcx_small_file_read(const char *directory, const char *name, size_t max_bytes, char **ret, size_t *bytes_ret,
			struct wcx_error *err);

#endif
