/* SPDX-License-Identifier: MIT */
/*
 * What has been read of each packed file since the store was mounted, also of files that are closed by now.
 *
 * All functions are safe from any number of threads.  The lock is held for look-ups, never while counting.
 */
#ifndef WCX_FILE_COUNTS_H
#define WCX_FILE_COUNTS_H

#include <stdbool.h>

#include "fs/mount/file_id.h"
#include "fs/read/image.h"

struct wcx_file_counts;

struct wcx_file_counts *wcx_file_counts_create(void);      /* NULL when out of memory */
void wcx_file_counts_free(struct wcx_file_counts *counts); /* after all images that count; NULL is fine */

/*
 * wcx_file_counts_get - the counters of a file, made at the first call; they live as long as counts
 *
 * After 16,384 files, or without memory, the rest shares one set, which wcx_file_counts_find does not find.
 */
struct wcx_image_counts *wcx_file_counts_get(struct wcx_file_counts *counts, const struct wcx_file_id *id);

/* wcx_file_counts_find - the counters of a file, or NULL if it was never opened */
const struct wcx_image_counts *wcx_file_counts_find(struct wcx_file_counts *counts, const struct wcx_file_id *id);

#endif
