/* SPDX-License-Identifier: MIT */
/* Packing a file again without its bases. */
#ifndef WCX_REBASE_FILE_H
#define WCX_REBASE_FILE_H

#include <sys/stat.h>

#include "tools/command.h"

/*
 * wcx_rebase_file - replace a packed file by one with the same original that has no base
 *
 * st is the file as it was looked at; if it is another one by now, that is an error.  Its bases are looked for in the store.
 * The original is unpacked beside it meanwhile, to a file without a name, which needs /proc.  Returns 0 or -errno; then the
 * file is as it was.
 */
int wcx_rebase_file(struct command *command, const char *path, const struct stat *st, const char *store,
		    struct wcx_error *err);

#endif
