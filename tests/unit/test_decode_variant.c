/* SPDX-License-Identifier: MIT */
/* The lists of variants for decoding and encoding: found by name, chosen by measurement or features. */
#include "codec/decode_variant.h"
#include "codec/encode_variant.h"
#include "tests/unit/check.h"

enum { VARIANTS_MAX = 8 };

static void every_variant_is_found_by_its_name_and_no_other(void)
{
	static const char *const names[] = { "portable", "avx2", "avx2-gather", "avx512" };
	static const char *const others[] = { "", "avx", "avx2 ", "AVX2", "avx2-gathe", "avx5122", "neon" };
	const struct wcx_decode_variant *variant;
	unsigned count = 0, known = 0;

	for (; (variant = wcx_decode_variant_at(count)); count++) {
		CHECK(wcx_decode_variant_find(variant->name) == variant);
		CHECK(variant->decode_lines && variant->fill && variant->put_symbols && variant->put_plane && variant->fold);
	}
	CHECK(count >= 1 && count < VARIANTS_MAX && wcx_decode_variant_at(0) == &wcx_decode_variant_portable);
	for (unsigned i = count; i < count + 10; i++)
		CHECK(wcx_decode_variant_at(i) == NULL);
	CHECK(wcx_decode_variant_at((unsigned)-1) == NULL);
	for (size_t i = 0; i < WCX_ARRAY_COUNT(names); i++) {
		variant = wcx_decode_variant_find(names[i]);
		known += variant != NULL;
		if (variant)
			CHECK_TEXT(variant->name, names[i]);
	}
	CHECK(known == count);
	for (size_t i = 0; i < WCX_ARRAY_COUNT(others); i++)
		CHECK(wcx_decode_variant_find(others[i]) == NULL);
#ifdef __x86_64__
	CHECK((wcx_decode_variant_find("avx2") != NULL) ==
	      (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")));
	CHECK((wcx_decode_variant_find("avx2-gather") != NULL) == (wcx_decode_variant_find("avx2") != NULL));
	CHECK(wcx_decode_variant_find("avx512") == NULL || __builtin_cpu_supports("avx512bw"));
#endif
}

static void chosen_variant_is_one_that_this_cpu_can_run(void)
{
	for (int round = 0; round < 5; round++) {
		const struct wcx_decode_variant *chosen = wcx_decode_variant_choose();
		unsigned listed = 0;

		for (unsigned i = 0; wcx_decode_variant_at(i); i++)
			listed += wcx_decode_variant_at(i) == chosen;
		CHECK(listed == 1);
	}
}

static void encoding_variants_are_listed_in_the_same_way(void)
{
	unsigned count = 0;

	for (const struct wcx_encode_variant *variant; (variant = wcx_encode_variant_at(count)); count++) {
		CHECK(wcx_encode_variant_find(variant->name) == variant);
		CHECK(wcx_encode_variant_choose() == variant || wcx_encode_variant_at(count + 1) != NULL);
	}
	CHECK(count >= 1 && wcx_encode_variant_at(0) == &wcx_encode_variant_portable);
	CHECK(wcx_encode_variant_at((unsigned)-1) == NULL && wcx_encode_variant_find("avx") == NULL);
	CHECK((wcx_encode_variant_find("avx2") != NULL) == (wcx_decode_variant_find("avx2") != NULL));
	CHECK((wcx_encode_variant_find("avx512") != NULL) == (wcx_decode_variant_find("avx512") != NULL));
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(every_variant_is_found_by_its_name_and_no_other),
		CHECK_TEST(chosen_variant_is_one_that_this_cpu_can_run),
		CHECK_TEST(encoding_variants_are_listed_in_the_same_way),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
