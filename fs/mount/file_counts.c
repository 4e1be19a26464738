/* SPDX-License-Identifier: MIT */
/* Counters of packed files, by file. */
#include "fs/mount/file_counts.h"

#include <pthread.h>
#include <search.h>
#include <stdlib.h>

enum { FILES_MAX = 16384 }; /* 2 MB */

struct counted_file {
	struct wcx_file_id id; /* first: the key in the tree */
	struct wcx_image_counts counts;
};

struct wcx_file_counts {
	struct wcx_image_counts rest; /* of the files that are too many */
	pthread_mutex_t lock;         /* protects the rest, but not the counters, which are atomic */
	void *files;                  /* tsearch(3) tree */
	size_t file_count;
};

static int compare_files(const void *a, const void *b)
{
	return wcx_file_id_compare(&((const struct counted_file *)a)->id, &((const struct counted_file *)b)->id);
}

static struct counted_file *find_locked(struct wcx_file_counts *counts, const struct wcx_file_id *id)
{
	const struct counted_file key = { .id = *id };
	void *found = tfind(&key, &counts->files, compare_files);

	return found ? *(struct counted_file **)found : NULL;
}

struct wcx_image_counts *wcx_file_counts_get(struct wcx_file_counts *counts, const struct wcx_file_id *id)
{
	struct counted_file *file, *fresh = calloc(1, sizeof *fresh);

	pthread_mutex_lock(&counts->lock);
	file = find_locked(counts, id);
	if (!file && fresh && counts->file_count < FILES_MAX) {
		fresh->id = *id;
		if (tsearch(fresh, &counts->files, compare_files)) {
			file = fresh;
			counts->file_count++;
		}
	}
	pthread_mutex_unlock(&counts->lock);
	if (file != fresh)
		free(fresh);
	return file ? &file->counts : &counts->rest;
}

const struct wcx_image_counts *wcx_file_counts_find(struct wcx_file_counts *counts, const struct wcx_file_id *id)
{
	const struct counted_file *file;

	pthread_mutex_lock(&counts->lock);
	file = find_locked(counts, id);
	pthread_mutex_unlock(&counts->lock);
	return file ? &file->counts : NULL;
}

struct wcx_file_counts *wcx_file_counts_create(void)
{
	struct wcx_file_counts *counts = calloc(1, sizeof *counts);

	if (counts)
		pthread_mutex_init(&counts->lock, NULL);
	return counts;
}

void wcx_file_counts_free(struct wcx_file_counts *counts)
{
	if (!counts)
		return;
	tdestroy(counts->files, free);
	pthread_mutex_destroy(&counts->lock);
	free(counts);
}
