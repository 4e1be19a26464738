/* SPDX-License-Identifier: MIT */
/*
 * Extended attributes that the mount makes: user.wcx.* of packed files, and the status of mount and files.
 *
 *	user.wcx.ratio         original bytes by packed bytes, with three decimals
 *	user.wcx.packed_bytes  size of the packed file
 *	user.wcx.sha256        SHA-256 of the original, 64 hexadecimal digits
 *	user.wcx.dtypes        DTYPE:BYTES of the original's tensors, the largest first, separated by commas
 *	user.wcx.status        JSON; of a directory, what the daemon does, and of a packed file, what was read of it.
 *	                       Not listed: a copy of the file has no use for it
 *
 * The kernel lets those read them who may read the file or directory.  Linux names them user.* for this reason; what a
 *store's own files have under these names is not shown.
 */
#ifndef WCX_ATTRIBUTES_H
#define WCX_ATTRIBUTES_H

#include <stddef.h>
#include <sys/types.h>

#include "fs/mount/store.h"

#define WCX_ATTRIBUTE_STATUS "user.wcx.status"

enum { WCX_ATTRIBUTE_LIST_BYTES = 128 };

/*
 * wcx_attribute_get - make an attribute of what is shown at a path
 *
 * entry is what the caller takes it for.  Returns the bytes written to dst, without a null byte; -ENODATA if there is no
 * such attribute, -ESTALE if another file is shown there, whose readers may be others, -ERANGE if it does not fit, or an
 * error of wcx_store_open.
 */
ssize_t wcx_attribute_get(struct wcx_store *store, const char *path, const struct wcx_store_entry *entry, const char *name,
			  char *dst, size_t dst_bytes);

/* wcx_attribute_list - write the names, each with a null byte, and return their bytes */
size_t wcx_attribute_list(const struct wcx_store_entry *entry, char dst[WCX_ATTRIBUTE_LIST_BYTES]);

#endif
