/* SPDX-License-Identifier: MIT */
/* Bases of a file that is packed, and which of their bytes a tensor may be coded against. */
#ifndef WCX_PACK_BASE_H
#define WCX_PACK_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/format/safetensors.h"
#include "fs/pack/tensor_plan.h"
#include "fs/read/image.h"

/* A packed file that refers to no base itself.  The caller owns what it points to. */
struct wcx_pack_base {
	struct wcx_image *image;
	struct wcx_safetensors *st; /* of the image */
	const char *hint;           /* path from the output's directory to the packed file, for the output to note */
};

/* The tensors of bases, found by name or by contents.  For one thread at a time. */
struct wcx_base_matcher;

/* wcx_base_matcher_create - the bases must outlive it; an image may be NULL if only names are asked for.  NULL: no memory */
struct wcx_base_matcher *wcx_base_matcher_create(const struct wcx_pack_base *bases, size_t count);
void wcx_base_matcher_free(struct wcx_base_matcher *matcher); /* NULL is fine */

/*
 * wcx_base_match_name - find the tensor of a base that has a tensor's name, dtype and shape
 *
 * Of several bases that have one, the first.  Returns false if there is none.
 */
bool wcx_base_match_name(const struct wcx_base_matcher *matcher, const struct wcx_tensor *tensor,
			 struct wcx_base_range *ret);

/*
 * wcx_base_match_contents - find a tensor of a base that begins with the same bytes, and has the same dtype and size
 *
 * head is the first min(bytes, WCX_MATCH_BYTES) bytes of the tensor.  A sketch: the rest of the bytes may differ, which
 * costs bits and no more.  The first call reads that much of every tensor of the bases.  Returns 1; 0 if there is none;
 * -ENOMEM without a message, or what reading a base returned.
 */
enum { WCX_MATCH_BYTES = 4096 };
int wcx_base_match_contents(struct wcx_base_matcher *matcher, const struct wcx_tensor *tensor, const uint8_t *head,
			    struct wcx_base_range *ret, struct wcx_error *err);

#endif
