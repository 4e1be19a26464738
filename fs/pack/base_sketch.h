/* SPDX-License-Identifier: MIT */
/* How well a base suits a file, by samples of a few tensors. */
#ifndef WCX_BASE_SKETCH_H
#define WCX_BASE_SKETCH_H

#include "fs/pack/pack_base.h"

struct wcx_base_sketch {
	uint64_t matched_bytes; /* of the file, in tensors that the base has too */
	double gain;            /* share of the bits of these that the base saves, 0 to 1 */
};

/* What was looked at of a file, by offset: it is not read again for another sketch. */
struct wcx_looks {
	struct wcx_looked {
		uint64_t offset;
		uint8_t *elements;
	} * items;
	size_t count, capacity, bytes;
};

void wcx_looks_free(struct wcx_looks *looks);

/* A safetensors file, packed or not: its header, and how it is read (read_base is not used). */
struct wcx_sketched_file {
	const struct wcx_safetensors *st;
	struct wcx_plan_reader reader;
	struct wcx_looks *looks; /* to be kept for further sketches of the file; may be NULL */
};

/* wcx_sketched_image - a packed file, for a sketch */
struct wcx_sketched_file wcx_sketched_image(struct wcx_image *image, const struct wcx_safetensors *st);

/*
 * wcx_base_sketch_make - draft a few tensors of a file alone and against a base
 *
 * Takes up to tensor_count of the tensors that have a namesake in the base, spread over their bytes, and 128 KiB of each.
 * A look at some elements, which takes a hundredth of a millisecond a tensor once they are read, comes first: unless those
 * of some tensor have to do with the base's, nothing is drafted, and the gain is 0.  Drafts take 2 ms a tensor.  Returns 0,
 * -ENOMEM without a message, or what reading returned.
 */
int wcx_base_sketch_make(const struct wcx_sketched_file *base, const struct wcx_sketched_file *file, unsigned tensor_count,
			 struct wcx_base_sketch *ret, struct wcx_error *err);

#endif
