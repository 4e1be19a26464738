/* SPDX-License-Identifier: MIT */
/*
 * One blob of a Hugging Face cache: what it is, and its replacement by a link.
 *
 * A cache has, for each repository, blobs (named by their contents), and snapshots whose files are links to blobs.  Since
 * release 1.32, huggingface_hub may make blobs/BLOB a link to a regular file CACHE/blobs/XX/HASH that repositories
 * share.
 */
#ifndef WCX_HUB_BLOB_H
#define WCX_HUB_BLOB_H

#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "fs/base/error.h"

enum wcx_hub_kind {
	WCX_HUB_PLAIN,     /* a regular file */
	WCX_HUB_SHARED,    /* a link to a regular file in CACHE/blobs */
	WCX_HUB_LINKED,    /* a link into a mount, with BLOB.wcx beside it */
	WCX_HUB_LEFT_OVER, /* BLOB.wcx alone */
	WCX_HUB_DANGLING,  /* a link into a mount alone */
	WCX_HUB_OTHER,     /* not a blob, or one that leads elsewhere */
};

struct wcx_hub_blob {
	int dir_fd;           /* the blobs of the repository; the caller's */
	char path[PATH_MAX];  /* of the blob, without .wcx */
	const char *name;     /* the last component of path */
	const char *relative; /* the part of path that is relative to the cache */
	bool only_packed;     /* it was found by its BLOB.wcx */
	struct stat entry;    /* the blob itself, a link or not */
	struct stat source;   /* the file it leads to: for WCX_HUB_PLAIN and WCX_HUB_SHARED */
};

/*
 * wcx_hub_blob_set - begin with an entry of a directory
 *
 * Returns false if the name is not that of a blob or packed blob.  If it tidies, what a wcx_hub_blob_replace or
 * wcx_hub_blob_restore that was killed has left gets its name back.
 */
bool wcx_hub_blob_set(struct wcx_hub_blob *blob, const char *dir, const char *repository, const char *name, bool tidies);

/* wcx_hub_blob_look - find out what is there, and fill entry and source */
enum wcx_hub_kind wcx_hub_blob_look(struct wcx_hub_blob *blob, const char *cache);

/* wcx_hub_blob_is_safetensors - whether the source begins as a safetensors file does */
bool wcx_hub_blob_is_safetensors(const struct wcx_hub_blob *blob);

/* wcx_hub_link_text - what a link from the blob's place to its path in the mount says; 0 or -ENAMETOOLONG */
int wcx_hub_link_text(const struct wcx_hub_blob *blob, const char *cache, const char *mount, bool relative,
		      char ret[PATH_MAX], struct wcx_error *err);

/*
 * wcx_hub_blob_replace - put a link in place of the blob
 *
 * In one step, so that the name always leads to the contents.  If the link does not lead to a readable file of the source's
 * size in the mount, or the blob is not the one that was looked at, everything is as it was before.  Removes a shared file
 * that no blob leads to any more.  Returns 0, -EAGAIN if the blob was removed or changed meanwhile, or another -errno.
 */
int wcx_hub_blob_replace(const struct wcx_hub_blob *blob, const char *text, dev_t mount_device, struct wcx_error *err);

/* wcx_hub_blob_link - make the link where BLOB.wcx is alone; 0 or -errno */
int wcx_hub_blob_link(const struct wcx_hub_blob *blob, const char *text, struct wcx_error *err);

/*
 * wcx_hub_blob_restore - give the blob's name to its original, which is complete under a temporary name
 *
 * Returns 0, -EAGAIN if what has the name is not what was looked at, or another -errno.
 */
void wcx_hub_blob_temporary_path(const struct wcx_hub_blob *blob, char ret[PATH_MAX + 16]);
int wcx_hub_blob_restore(const struct wcx_hub_blob *blob, struct wcx_error *err);

#endif
