/* SPDX-License-Identifier: MIT */
/* Reads the header of a safetensors file, or tells what else a file is. */
#ifndef WCX_SAFETENSORS_FILE_H
#define WCX_SAFETENSORS_FILE_H

#include <stdint.h>

#include "fs/base/error.h"
#include "fs/format/safetensors.h"

/*
 * wcx_safetensors_read - read and check the header of an open file of file_bytes bytes
 *
 * path is only for messages.  Returns 0 with *ret, which the caller frees with wcx_safetensors_free; -EMEDIUMTYPE for
 * another kind of file, with a message that names the kind where it is known; -EINVAL for a safetensors file that is
 * truncated or malformed; -EIO if it became shorter; -ENOMEM, or the errno of a failed read.
 */
int wcx_safetensors_read(int fd, const char *path, uint64_t file_bytes, struct wcx_safetensors **ret, struct wcx_error *err);

#endif
