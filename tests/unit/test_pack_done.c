/* SPDX-License-Identifier: MIT */
/* Whether a file has been packed already: the decision, names that are a SHA-256, and the SHA-256 of a file. */
#include "fs/pack/pack_done.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "fs/base/file_copy.h"
#include "tests/unit/check.h"

/* The SHA-256 of "abc", from FIPS 180-2. */
#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static void a_name_is_a_sha256_if_it_has_64_lower_case_digits(void)
{
	static const char *const others[] = {
		"",
		"model.safetensors",
		"BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		ABC "0",
		"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a",
		"x" ABC,
		ABC ".incomplete",
		"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ag",
	};
	uint8_t sha256[WCX_SHA256_BYTES];

	CHECK(wcx_name_sha256(ABC, sha256));
	CHECK(sha256[0] == 0xBA && sha256[1] == 0x78 && sha256[31] == 0xAD);
	for (size_t i = 0; i < WCX_ARRAY_COUNT(others); i++)
		CHECK(!wcx_name_sha256(others[i], sha256));
}

static void sizes_and_times_or_the_name_decide(void)
{
	static const struct {
		const char *name;
		int64_t original, packed, seconds, nanoseconds; /* what the second file has more than it should */
		bool other_sha256, expected;
	} cases[] = {
		{ "a", 0, 0, 0, 0, false, true }, /* all the same */
		{ "a", 1, 0, 0, 0, false, false },
		{ "a", 0, 1, 0, 0, false, false }, /* a truncated packed file */
		{ "a", 0, 0, 1, 0, false, false },
		{ "a", 0, 0, 0, 1, false, false },
		{ "a", 0, 0, 0, 0, true, true }, /* only a name tells the SHA-256 */
		{ ABC, 0, 0, 7, 0, false, true },
		{ ABC, 0, 0, 7, 0, true, false },
		{ ABC, 1, 0, 7, 0, false, false },
		{ ABC, 0, 0, 0, 0, true, true }, /* a name that is wrong makes no difference */
	};

	for (size_t i = 0; i < WCX_ARRAY_COUNT(cases); i++) {
		struct wcx_superblock sb = { .original_bytes = 1000, .packed_bytes = 700 };
		struct stat src = { .st_size = 1000 + cases[i].original }, packed = { .st_size = 700 + cases[i].packed };

		src.st_mtim = (struct timespec){ 1234567890, 123456789 };
		packed.st_mtim = (struct timespec){ 1234567890 + cases[i].seconds, 123456789 + cases[i].nanoseconds };
		packed.st_ctim = (struct timespec){ 1234567999, 987654321 };
		CHECK(wcx_name_sha256(ABC, sb.sha256));
		sb.sha256[31] ^= cases[i].other_sha256;
		if (!CHECK(wcx_pack_is_current(cases[i].name, &src, &packed, &sb) == cases[i].expected))
			fprintf(stderr, "\tcase %zu\n", i);
	}
}

static void a_time_is_kept_as_far_as_the_file_system_can(void)
{
	static const struct {
		long kept_ns, changed_ns; /* of the copy: its time, and that of its last change */
		bool expected;
	} cases[] = {
		{ 123456789, 987654321, true },
		{ 123456700, 987654300, true }, /* SMB */
		{ 123456000, 987654000, true },
		{ 120000000, 980000000, true },  /* exFAT */
		{ 0, 0, true },                  /* SFTP, ext3 */
		{ 123456789, 0, true },          /* by chance */
		{ 123456700, 987654321, false }, /* of a file system that keeps more */
		{ 0, 987654300, false },
		{ 0, 987654321, false },
		{ 123456600, 987654300, false }, /* another time */
		{ 123456788, 987654321, false },
		{ 200000000, 0, false },
	};
	struct stat source = { .st_mtim = { 1234567890, 123456789 } };

	for (size_t i = 0; i < WCX_ARRAY_COUNT(cases); i++) {
		struct stat copy = { .st_mtim = { 1234567890, cases[i].kept_ns },
				     .st_ctim = { 1234567999, cases[i].changed_ns } };

		if (!CHECK(wcx_has_time_of(&copy, &source) == cases[i].expected))
			fprintf(stderr, "\tcase %zu\n", i);
		copy.st_mtim.tv_sec++;
		CHECK(!wcx_has_time_of(&copy, &source));
	}
}

static void a_file_is_hashed_from_its_start(void)
{
	char path[] = "/tmp/wcx-test-XXXXXX";
	const int fd = mkstemp(path);
	uint8_t sha256[WCX_SHA256_BYTES], expected[WCX_SHA256_BYTES];
	atomic_bool stop = false;
	struct wcx_error err;

	unlink(path);
	if (!CHECK(fd >= 0 && write(fd, "abc", 3) == 3))
		return;
	CHECK(wcx_name_sha256(ABC, expected));
	CHECK(wcx_file_sha256(fd, "x", &stop, sha256, &err) == 0 && memcmp(sha256, expected, sizeof sha256) == 0);
	stop = true;
	CHECK(wcx_file_sha256(fd, "x", &stop, sha256, &err) == -EINTR);
	CHECK_TEXT(err.text, "x: interrupted");
	close(fd);
	CHECK(wcx_file_sha256(fd, "x", NULL, sha256, &err) == -EBADF);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(a_name_is_a_sha256_if_it_has_64_lower_case_digits),
		CHECK_TEST(sizes_and_times_or_the_name_decide),
		CHECK_TEST(a_time_is_kept_as_far_as_the_file_system_can),
		CHECK_TEST(a_file_is_hashed_from_its_start),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
