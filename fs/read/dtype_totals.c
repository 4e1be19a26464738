/* SPDX-License-Identifier: MIT */
/* Adds up tensors and their packed bytes by dtype. */
#include "fs/read/dtype_totals.h"

#include <stdio.h>
#include <string.h>

static struct wcx_dtype_total *find(struct wcx_dtype_totals *totals, const char *dtype)
{
	char text[WCX_DTYPE_TEXT_BYTES];

	snprintf(text, sizeof text, "%s", totals->count == WCX_DTYPE_TOTALS_MAX ? "other" : dtype);
	for (size_t i = 0; i < totals->count; i++)
		if (strcmp(totals->items[i].dtype, text) == 0)
			return &totals->items[i];
	if (totals->count == WCX_DTYPE_TOTALS_MAX - 1)
		snprintf(text, sizeof text, "other");
	if (totals->count < WCX_DTYPE_TOTALS_MAX)
		totals->count++;
	memcpy(totals->items[totals->count - 1].dtype, text, sizeof text);
	return &totals->items[totals->count - 1];
}

static uint64_t packed_bytes_of(const struct wcx_container *container, const struct wcx_segment *segment)
{
	uint64_t bytes = 0;

	for (uint64_t t = segment->first_tile; !segment->same_as && t < segment->first_tile + segment->tile_count; t++) {
		struct wcx_tile_info tile;

		wcx_container_tile(container, segment, t, &tile);
		bytes += tile.packed_bytes;
	}
	return bytes;
}

void wcx_dtype_totals_add(struct wcx_dtype_totals *totals, const struct wcx_container *container,
			  const struct wcx_safetensors *st)
{
	const struct wcx_segment *segment = NULL;
	uint64_t segment_packed_bytes = 0;

	for (size_t i = 0; i < st->tensor_count; i++) {
		const struct wcx_tensor *tensor = &st->tensors[i];
		struct wcx_dtype_total *total = find(totals, tensor->dtype);
		const struct wcx_segment *its;

		total->tensors++;
		total->bytes += tensor->bytes;
		if (!tensor->bytes)
			continue;
		its = wcx_container_segment(container, wcx_container_segment_at(container, tensor->offset));
		if (its != segment) {
			segment = its;
			segment_packed_bytes = packed_bytes_of(container, segment);
		}
		total->packed_bytes +=
			(uint64_t)((double)segment_packed_bytes * ((double)tensor->bytes / (double)segment->bytes));
	}
}

void wcx_dtype_totals_merge(struct wcx_dtype_totals *totals, const struct wcx_dtype_totals *more)
{
	for (size_t i = 0; i < more->count; i++) {
		struct wcx_dtype_total *total = find(totals, more->items[i].dtype);

		total->tensors += more->items[i].tensors;
		total->bytes += more->items[i].bytes;
		total->packed_bytes += more->items[i].packed_bytes;
	}
}
