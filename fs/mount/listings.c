/* SPDX-License-Identifier: MIT */
/* Shares directory listings. */
#include "fs/mount/listings.h"

#include <errno.h>
#include <stdlib.h>

void wcx_listings_init(struct wcx_listings *listings)
{
	*listings = (struct wcx_listings){ 0 };
	pthread_mutex_init(&listings->lock, NULL);
}

static void listing_free(struct wcx_listing *listing)
{
	wcx_dir_list_free(listing->list);
	free(listing);
}

void wcx_listings_destroy(struct wcx_listings *listings)
{
	while (listings->first) {
		struct wcx_listing *listing = listings->first;

		listings->first = listing->next;
		listing_free(listing);
	}
	pthread_mutex_destroy(&listings->lock);
}

static struct wcx_listing *find_current(struct wcx_listings *listings, const struct wcx_store_entry *dir)
{
	struct wcx_listing *listing;

	pthread_mutex_lock(&listings->lock);
	for (listing = listings->first; listing; listing = listing->next)
		if (wcx_dir_list_is_current(listing->list, dir))
			break;
	if (listing)
		listing->reader_count++;
	pthread_mutex_unlock(&listings->lock);
	return listing;
}

int wcx_listing_get(struct wcx_listings *listings, struct wcx_store *store, const char *path,
		    const struct wcx_store_entry *dir, struct wcx_listing **ret)
{
	struct wcx_listing *listing = find_current(listings, dir);
	int r;

	*ret = listing;
	if (listing)
		return 0;
	listing = calloc(1, sizeof *listing);
	if (!listing)
		return -ENOMEM;
	r = wcx_store_list(store, path, &listing->list);
	if (!r && !wcx_dir_list_is_of(listing->list, dir))
		r = -ESTALE;
	if (r) {
		listing_free(listing);
		return r == -ENOENT || r == -ENOTDIR ? -ESTALE : r;
	}
	listing->reader_count = 1;
	pthread_mutex_lock(&listings->lock);
	listing->next = listings->first;
	listings->first = listing;
	pthread_mutex_unlock(&listings->lock);
	*ret = listing;
	return 0;
}

void wcx_listing_put(struct wcx_listings *listings, struct wcx_listing *listing)
{
	struct wcx_listing **at = &listings->first;
	bool is_last;

	if (!listing)
		return;
	pthread_mutex_lock(&listings->lock);
	is_last = --listing->reader_count == 0;
	if (is_last) {
		while (*at != listing)
			at = &(*at)->next;
		*at = listing->next;
	}
	pthread_mutex_unlock(&listings->lock);
	if (is_last)
		listing_free(listing);
}
