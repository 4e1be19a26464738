/* SPDX-License-Identifier: MIT */
/*
 * Opens paths of a store without ever leaving it or entering the daemon's own mount.
 *
 * A store may contain file systems of others, and a bind mount of the very mount that shows it.  A thread that walked into
 * that would wait for another thread of the daemon, and so on until none is left.
 */
#ifndef WCX_BENEATH_H
#define WCX_BENEATH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct wcx_beneath {
	int dir_fd;                  /* the store's directory */
	char *dir_path;              /* as an absolute path without links, for links that name it; NULL: unknown */
	_Atomic uint64_t own_device; /* of the mount that shows the store; 0 as long as there is none */
};

/*
 * wcx_beneath_open - open a path relative to the store, "." for the store itself, and get its attributes
 *
 * flags are O_PATH, which has no side effects on devices and FIFOs, or what opens for reading; a link as the last component
 * is opened itself.  The kernel refuses links as other components, unless through_links, and paths that lead out.  Returns a
 * descriptor; -ELOOP for the own mount and what is in it, -ENOTDIR for what is behind a link that is refused, -EXDEV for
 * what is outside, or another -errno.
 */
int wcx_beneath_open(const struct wcx_beneath *beneath, const char *path, int flags, bool through_links,
		     struct stat *st_ret);

/* wcx_beneath_is_passable - whether everybody may go through the store and all directories of a path without "." and ".." */
bool wcx_beneath_is_passable(const struct wcx_beneath *beneath, const char *path);

#endif
