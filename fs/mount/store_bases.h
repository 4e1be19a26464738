/* SPDX-License-Identifier: MIT */
/*
 * The search for bases in a store: by the hint, and by SHA-256 among all packed files of the store.
 *
 * A base is opened beneath the store like any other file, and shares its image with those who have it open (image_pool.h).
 * It serves a file only if everybody who may read that file may read the base (base_rules.h).
 */
#ifndef WCX_STORE_BASES_H
#define WCX_STORE_BASES_H

#include "fs/mount/beneath.h"
#include "fs/mount/image_pool.h"

struct wcx_store_bases;

/*
 * wcx_store_bases_create - have all images of a pool find their bases in a store
 *
 * beneath must outlive the result, and the result the pool; the pool must outlive all searches.  Returns NULL when out of
 * memory.
 */
struct wcx_store_bases *wcx_store_bases_create(const struct wcx_beneath *beneath, struct wcx_image_pool *pool);
void wcx_store_bases_free(struct wcx_store_bases *bases); /* NULL is fine */

#endif
