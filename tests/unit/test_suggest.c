/* SPDX-License-Identifier: MIT */
/* Suggestions for mistyped words. */
#include "fs/base/suggest.h"

#include "tests/unit/check.h"

static const char *const commands[] = { "pack", "unpack", "verify", "warm", "info", "status", "quantize" };
static const char *const options[] = { "cache_size", "decoder", "prefetch", "readahead", "warm", "drop_packed" };

static const char *command(const char *word)
{
	const char *best = wcx_suggest(word, commands, WCX_ARRAY_COUNT(commands));

	return best ? best : "";
}

static const char *option(const char *word)
{
	const char *best = wcx_suggest(word, options, WCX_ARRAY_COUNT(options));

	return best ? best : "";
}

static void one_letter_too_much_too_few_or_wrong(void)
{
	CHECK_TEXT(command("packk"), "pack");
	CHECK_TEXT(command("pac"), "pack");
	CHECK_TEXT(command("pakc"), "pack");
	CHECK_TEXT(command("peck"), "pack");
	CHECK_TEXT(command("unpck"), "unpack");
	CHECK_TEXT(option("cachesize"), "cache_size");
	CHECK_TEXT(option("cache-size"), "cache_size");
	CHECK_TEXT(option("droppacked"), "drop_packed");
}

static void case_does_not_count(void)
{
	CHECK_TEXT(command("PACK"), "pack");
	CHECK_TEXT(option("Cache_Size"), "cache_size");
}

static void the_start_of_a_word_suggests_it(void)
{
	CHECK_TEXT(command("quant"), "quantize");
	CHECK_TEXT(option("cache"), "cache_size");
	CHECK_TEXT(command("qu"), "");
}

static void other_words_suggest_nothing(void)
{
	CHECK_TEXT(command("frobnicate"), "");
	CHECK_TEXT(command(""), "");
	CHECK_TEXT(command("mount"), "");
	CHECK_TEXT(option("no_such_option"), "");
	CHECK_TEXT(command("ppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppack"), "");
}

/* Of two at the same distance, the first of the list; a nearer one wins wherever it stands. */
static void the_nearest_word_is_suggested(void)
{
	static const char *const words[] = { "bake", "cake", "lake" };

	CHECK_TEXT(wcx_suggest("make", words, 3), "bake");
	CHECK_TEXT(wcx_suggest("lake", words, 3), "lake");
	CHECK(wcx_suggest("lake", words, 0) == NULL);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(one_letter_too_much_too_few_or_wrong), CHECK_TEST(case_does_not_count),
		CHECK_TEST(the_start_of_a_word_suggests_it),      CHECK_TEST(other_words_suggest_nothing),
		CHECK_TEST(the_nearest_word_is_suggested),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
