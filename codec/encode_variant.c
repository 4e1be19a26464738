/* SPDX-License-Identifier: MIT */
/* Enumerates the variants of the encoder's loops. */
#include "codec/encode_variant.h"

#include <string.h>

#include "codec/arith.h"
#include "codec/cpu_features.h"

const struct wcx_encode_variant *wcx_encode_variant_at(unsigned i)
{
	const struct {
		const struct wcx_encode_variant *variant;
		bool runs_here;
	} candidates[] = {
		{ &wcx_encode_variant_portable, true },
#ifdef __x86_64__
		{ &wcx_encode_variant_avx2, wcx_cpu_has_avx2() },
		{ &wcx_encode_variant_avx512, wcx_cpu_has_avx512() },
#endif
	};

	for (size_t c = 0; c < WCX_ARRAY_COUNT(candidates); c++)
		if (candidates[c].runs_here && i-- == 0)
			return candidates[c].variant;
	return NULL;
}

const struct wcx_encode_variant *wcx_encode_variant_find(const char *name)
{
	const struct wcx_encode_variant *variant = NULL;

	for (unsigned i = 0; (variant = wcx_encode_variant_at(i)) && strcmp(variant->name, name) != 0; i++)
		;
	return variant;
}

const struct wcx_encode_variant *wcx_encode_variant_choose(void)
{
	unsigned last = 0;

	while (wcx_encode_variant_at(last + 1))
		last++;
	return wcx_encode_variant_at(last);
}
