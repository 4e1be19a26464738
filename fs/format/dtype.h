/* SPDX-License-Identifier: MIT */
/*
 * The dtypes of safetensors: one table of all that any part of the program needs to know about them.
 *
 * To code FP4 (F4 is two elements a byte, packed as plain bytes today): give it a kind here and a row of that kind in
 * dtype.c; say in fs/pack/plan_choice.c what fields an element of the kind is cut into.  The format and the decoders need
 * no change as long as the fields can be described by a recipe (codec/tile.h); test_tensor_plan.c goes over all dtypes.
 */
#ifndef WCX_DTYPE_H
#define WCX_DTYPE_H

#include <stdint.h>

/* What the bits of an element mean, as far as the packer makes a difference. */
enum wcx_elem_kind {
	WCX_KIND_BYTES,   /* packed byte by byte, whatever they are: INT8 and all types of less than a byte, too */
	WCX_KIND_INTEGER, /* counters and indices, not weights */
	WCX_KIND_FP8,
	WCX_KIND_FP16,
	WCX_KIND_BF16,
	WCX_KIND_FP32,
	WCX_KIND_FP64
};

struct wcx_dtype {
	const char *name; /* as safetensors headers write it */
	uint8_t bits;     /* of an element, for the size of a tensor */
	/* Bytes of an element as coding sees it, 1, 2, 4 or 8: a complex number is two floats, two F4 are a byte. */
	uint8_t elem_bytes;
	enum wcx_elem_kind kind;
};

/* wcx_dtype_find - the dtype of that name, or NULL: newer libraries may have more, which are bytes to us */
const struct wcx_dtype *wcx_dtype_find(const char *name);

#endif
