/* SPDX-License-Identifier: MIT */
/* Makes the extended attributes that tell of packed files. */
#include "fs/mount/attributes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "codec/arith.h"
#include "fs/format/safetensors.h"
#include "fs/read/image.h"

enum {
	DTYPES_MAX = 32,                   /* safetensors has fewer */
	DTYPES_MAX_HEADER_BYTES = 8 << 20, /* some 60,000 tensors; more takes too long for whoever lists attributes */
};

static const char *const listed_names[] = { "user.wcx.ratio", "user.wcx.packed_bytes", "user.wcx.sha256",
					    "user.wcx.dtypes" };

/* Ends what snprintf wrote: its bytes, or -ERANGE. */
static ssize_t fitting(int chars, size_t dst_bytes)
{
	if (chars < 0)
		return -EINVAL;
	return (size_t)chars < dst_bytes ? chars : -ERANGE;
}

/* --- dtypes --- */

struct dtype_sum {
	const char *name; /* of the header */
	uint64_t bytes;
};

static int compare_sums(const void *a, const void *b)
{
	const uint64_t x = ((const struct dtype_sum *)a)->bytes, y = ((const struct dtype_sum *)b)->bytes;

	return x < y ? 1 : x > y ? -1 : 0;
}

static size_t sum_dtypes(const struct wcx_safetensors *st, struct dtype_sum sums[DTYPES_MAX])
{
	size_t count = 0;

	for (size_t i = 0; i < st->tensor_count; i++) {
		const struct wcx_tensor *tensor = &st->tensors[i];
		size_t at = 0;

		while (at < count && strcmp(sums[at].name, tensor->dtype) != 0)
			at++;
		if (at == DTYPES_MAX)
			continue;
		if (at == count)
			sums[count++] = (struct dtype_sum){ .name = tensor->dtype };
		sums[at].bytes += tensor->bytes;
	}
	qsort(sums, count, sizeof sums[0], compare_sums);
	return count;
}

static ssize_t print_dtypes(struct wcx_image *image, char *dst, size_t dst_bytes)
{
	struct dtype_sum sums[DTYPES_MAX];
	struct wcx_safetensors *st = NULL;
	struct wcx_error err;
	size_t count, used = 0;
	int r;

	if (wcx_container_segment(wcx_image_container(image), 0)->bytes > DTYPES_MAX_HEADER_BYTES)
		return fitting(snprintf(dst, dst_bytes, "unknown"), dst_bytes);
	r = wcx_image_header(image, &st, &err);
	if (r)
		return r == -ENOMEM ? r : -EIO;
	count = sum_dtypes(st, sums);
	for (size_t i = 0; i < count && used < dst_bytes; i++)
		used += (size_t)snprintf(dst + used, dst_bytes - used, "%s%s:%" PRIu64, i ? "," : "", sums[i].name,
					 sums[i].bytes);
	wcx_safetensors_free(st);
	return used < dst_bytes ? (ssize_t)used : -ERANGE;
}

static ssize_t get_dtypes(struct wcx_store *store, const char *path, const struct wcx_file_id *id, char *dst,
			  size_t dst_bytes)
{
	struct wcx_store_entry now;
	struct wcx_store_file *file;
	struct wcx_error err;
	ssize_t n = wcx_store_open(store, path, &now, &file, &err);

	if (n)
		return n;
	n = wcx_file_id_compare(&now.id, id) ? -ESTALE : print_dtypes(wcx_store_file_image(file), dst, dst_bytes);
	wcx_store_close(store, file);
	return n;
}

/* --- the others --- */

static ssize_t print_sha256(const uint8_t *sha256, char *dst, size_t dst_bytes)
{
	if (dst_bytes <= 2 * WCX_SHA256_BYTES)
		return -ERANGE;
	for (size_t i = 0; i < WCX_SHA256_BYTES; i++)
		snprintf(dst + 2 * i, 3, "%02x", sha256[i]);
	return 2 * WCX_SHA256_BYTES;
}

static ssize_t print_counts(const struct wcx_image_counts *counts, char *dst, size_t dst_bytes)
{
	static const struct wcx_image_counts none;

	counts = counts ? counts : &none;
	return fitting(snprintf(dst, dst_bytes,
				"{\"requests\": %" PRIu64 ", \"requested_bytes\": %" PRIu64 ", \"decoded_bytes\": %" PRIu64
				", \"pushed_bytes\": %" PRIu64 ", \"errors\": %" PRIu64 "}",
				wcx_count_get(&counts->requests), wcx_count_get(&counts->requested_bytes),
				wcx_count_get(&counts->decoded_bytes), wcx_count_get(&counts->pushed_bytes),
				wcx_count_get(&counts->errors)),
		       dst_bytes);
}

ssize_t wcx_attribute_get(struct wcx_store *store, const char *path, const struct wcx_store_entry *entry, const char *name,
			  char *dst, size_t dst_bytes)
{
	struct wcx_store_packed packed;
	int r;

	if (!entry->packed || !S_ISREG(entry->attr.st_mode) || strncmp(name, "user.wcx.", strlen("user.wcx.")) != 0)
		return -ENODATA;
	if (strcmp(name, "user.wcx.dtypes") == 0)
		return get_dtypes(store, path, &entry->id, dst, dst_bytes);
	r = wcx_store_packed_get(store, path, &entry->id, &packed);
	if (r)
		return r;
	if (strcmp(name, "user.wcx.ratio") == 0)
		return fitting(snprintf(dst, dst_bytes, "%.3f",
					(double)packed.original_bytes / (double)WCX_MAX(packed.packed_bytes, UINT64_C(1))),
			       dst_bytes);
	if (strcmp(name, "user.wcx.packed_bytes") == 0)
		return fitting(snprintf(dst, dst_bytes, "%" PRIu64, packed.packed_bytes), dst_bytes);
	if (strcmp(name, "user.wcx.sha256") == 0)
		return print_sha256(packed.sha256, dst, dst_bytes);
	if (strcmp(name, WCX_ATTRIBUTE_STATUS) == 0)
		return print_counts(packed.counts, dst, dst_bytes);
	return -ENODATA;
}

size_t wcx_attribute_list(const struct wcx_store_entry *entry, char dst[WCX_ATTRIBUTE_LIST_BYTES])
{
	size_t used = 0;

	if (!entry->packed || !S_ISREG(entry->attr.st_mode))
		return 0;
	for (size_t i = 0; i < WCX_ARRAY_COUNT(listed_names); i++)
		used += (size_t)snprintf(dst + used, WCX_ATTRIBUTE_LIST_BYTES - used, "%s", listed_names[i]) + 1;
	return used;
}
