/* SPDX-License-Identifier: MIT */
/* The table of dtypes. */
#include "fs/format/dtype.h"

#include <stddef.h>
#include <string.h>

#include "codec/arith.h"

static const struct wcx_dtype dtypes[] = {
	{ "BOOL", 8, 1, WCX_KIND_INTEGER },    { "F4", 4, 1, WCX_KIND_BYTES },
	{ "F6_E2M3", 6, 1, WCX_KIND_BYTES },   { "F6_E3M2", 6, 1, WCX_KIND_BYTES },
	{ "U8", 8, 1, WCX_KIND_BYTES },        { "I8", 8, 1, WCX_KIND_BYTES },
	{ "F8_E5M2", 8, 1, WCX_KIND_FP8 },     { "F8_E4M3", 8, 1, WCX_KIND_FP8 },
	{ "F8_E8M0", 8, 1, WCX_KIND_BYTES }, /* powers of two without a sign */
	{ "F8_E4M3FNUZ", 8, 1, WCX_KIND_FP8 }, { "F8_E5M2FNUZ", 8, 1, WCX_KIND_FP8 },
	{ "I16", 16, 2, WCX_KIND_INTEGER },    { "U16", 16, 2, WCX_KIND_INTEGER },
	{ "F16", 16, 2, WCX_KIND_FP16 },       { "BF16", 16, 2, WCX_KIND_BF16 },
	{ "I32", 32, 4, WCX_KIND_INTEGER },    { "U32", 32, 4, WCX_KIND_INTEGER },
	{ "F32", 32, 4, WCX_KIND_FP32 },       { "C64", 64, 4, WCX_KIND_FP32 },
	{ "F64", 64, 8, WCX_KIND_FP64 },       { "I64", 64, 8, WCX_KIND_INTEGER },
	{ "U64", 64, 8, WCX_KIND_INTEGER },
};

const struct wcx_dtype *wcx_dtype_find(const char *name)
{
	for (size_t i = 0; i < WCX_ARRAY_COUNT(dtypes); i++)
		if (strcmp(dtypes[i].name, name) == 0)
			return &dtypes[i];
	return NULL;
}
