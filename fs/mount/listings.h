/* SPDX-License-Identifier: MIT */
/*
 * Directory listings that are being read, shared by all who read a directory that has not changed.
 *
 * A listing of 65,000 names takes 3 MiB; without sharing, one user could take all memory by opening a directory often.
 */
#ifndef WCX_LISTINGS_H
#define WCX_LISTINGS_H

#include <pthread.h>

#include "fs/mount/store.h"

struct wcx_listing {
	struct wcx_dir_list *list;
	size_t reader_count;
	struct wcx_listing *next;
};

struct wcx_listings {
	pthread_mutex_t lock; /* protects the chain, and reader counts and links of what is in it; never held during I/O */
	struct wcx_listing *first;
};

void wcx_listings_init(struct wcx_listings *listings);
void wcx_listings_destroy(struct wcx_listings *listings); /* frees all, whether they are read or not */

/*
 * wcx_listing_get - list a directory, or share a listing of it
 *
 * dir tells what the directory is like now.  The caller puts *ret.  Returns 0, -ESTALE if path holds another directory, or
 * an error of wcx_store_list.  Safe from any number of threads, and so is putting.
 */
int wcx_listing_get(struct wcx_listings *listings, struct wcx_store *store, const char *path,
		    const struct wcx_store_entry *dir, struct wcx_listing **ret);
void wcx_listing_put(struct wcx_listings *listings, struct wcx_listing *listing); /* NULL is fine */

#endif
