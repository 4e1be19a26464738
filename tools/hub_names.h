/* SPDX-License-Identifier: MIT */
/* Which blobs of a repository in a Hugging Face cache have names in its snapshots. */
#ifndef WCX_HUB_NAMES_H
#define WCX_HUB_NAMES_H

#include <stdbool.h>
#include <stddef.h>

struct wcx_hub_names {
	char **names; /* of blobs, sorted */
	size_t count, capacity;
};

/* wcx_hub_names_read - read all snapshots; 0 or -errno.  To be freed in either case. */
int wcx_hub_names_read(struct wcx_hub_names *names, const char *cache, const char *repository);
void wcx_hub_names_free(struct wcx_hub_names *names);

bool wcx_hub_names_has(const struct wcx_hub_names *names, const char *blob);

/*
 * wcx_hub_open_lock - open a lock file as huggingface_hub does, which makes it where it is missing
 *
 * What root makes belongs to the owner of the directory, who could not open it otherwise.  Returns a descriptor or -errno.
 */
int wcx_hub_open_lock(const char *path);

/*
 * wcx_hub_lock - take the lock of a blob that huggingface_hub takes while it downloads it
 *
 * Returns a descriptor, to be closed; -EWOULDBLOCK if somebody has the lock; or another -errno where there are no locks.
 */
int wcx_hub_lock(const char *cache, const char *repository, const char *blob);

#endif
