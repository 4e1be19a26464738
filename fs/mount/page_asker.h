/* SPDX-License-Identifier: MIT */
/*
 * Has the kernel ask for pages of the daemon's own files, ahead of their readers.
 *
 * Pages that are pushed (FUSE_NOTIFY_STORE) count as referenced, so the kernel moves each to another list, under a lock,
 * when its reader unmaps or reads it: a third of the time of an mmap reader's kernel part.  Pages that the kernel asks for
 * do not. So a thread opens the file as a reader would, and has the kernel read ahead (POSIX_FADV_WILLNEED): it inserts the
 * pages, and sends requests for them, for which nobody waits.
 *
 * A file is opened in a copy of the mount that only the open file keeps (OPEN_TREE_CLONE), so that the mount itself can be
 * unmounted.  That needs CAP_SYS_ADMIN.  Who opens waits for the threads that serve requests, which must not wait for it.
 *
 * All functions are safe from any thread.
 */
#ifndef WCX_PAGE_ASKER_H
#define WCX_PAGE_ASKER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct wcx_page_asker;

/*
 * wcx_page_asker_create - for the mount with a device number at an absolute path
 *
 * readahead_bytes: the kernel's read-ahead of that mount.  Returns NULL when there is no memory, no read-ahead, or no right
 * to copy mounts: pages have to be pushed then.
 */
struct wcx_page_asker *wcx_page_asker_create(const char *mountpoint, dev_t device, uint64_t readahead_bytes);
void wcx_page_asker_free(struct wcx_page_asker *asker); /* closes all files; NULL is fine */

/*
 * wcx_page_asker_ask - have the kernel ask for [offset, offset + bytes) of a target, the file at path in the mount
 *
 * Pages that it has, or for which it has no memory, are left out.  Opens the file at first.  Returns 0; -EAGAIN while
 * another thread opens the file, or there is no memory to open it; or another -errno if it cannot be opened, now and until
 * wcx_page_asker_close.
 */
int wcx_page_asker_ask(struct wcx_page_asker *asker, uint64_t target, const char *path, uint64_t offset, uint64_t bytes);

/* wcx_page_asker_close - close the file of a target, if it is open, when those who ask for pages have; asker may be NULL */
void wcx_page_asker_close(struct wcx_page_asker *asker, uint64_t target);

/* wcx_page_asker_is_own - whether an open of a target by a thread is wcx_page_asker_ask's; asker may be NULL */
bool wcx_page_asker_is_own(struct wcx_page_asker *asker, uint64_t target, pid_t task);

#endif
