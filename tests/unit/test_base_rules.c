/* SPDX-License-Identifier: MIT */
/* Who may be a base, and where hints lead: tables of cases. */
#include "fs/read/base_rules.h"

#include <errno.h>

#include "fs/read/base_search.h"
#include "tests/unit/check.h"

enum { ROOT = 0, ALICE = 1000, BOB = 1001, STAFF = 50, USERS = 100 };

static struct stat file(uid_t uid, gid_t gid, mode_t mode)
{
	return (struct stat){ .st_uid = uid, .st_gid = gid, .st_mode = S_IFREG | mode };
}

static void bases_of_root_the_reader_and_the_owner_are_trusted(void)
{
	const struct {
		uid_t reader, dependent, base;
		bool expected;
	} cases[] = {
		{ ALICE, BOB, ROOT, true },  { ALICE, BOB, ALICE, true },  { ALICE, BOB, BOB, true },
		{ ROOT, ALICE, BOB, false }, { ALICE, ALICE, BOB, false }, { ALICE, ROOT, BOB, false },
	};

	for (size_t i = 0; i < WCX_ARRAY_COUNT(cases); i++) {
		const struct stat dependent = file(cases[i].dependent, USERS, 0644), base = file(cases[i].base, USERS, 0644);

		CHECK(wcx_base_is_trusted(cases[i].reader, &dependent, &base) == cases[i].expected);
	}
}

static void a_base_must_be_readable_by_the_readers_of_the_dependent(void)
{
	const struct {
		struct stat dependent, base;
		bool is_public, expected;
	} cases[] = {
		{ file(ALICE, USERS, 0644), file(ROOT, STAFF, 0444), true, true },
		{ file(ALICE, USERS, 0644), file(ROOT, STAFF, 0444), false, false }, /* in a private directory */
		{ file(ALICE, USERS, 0600), file(ROOT, STAFF, 0440), true, false },
		{ file(ALICE, USERS, 0600), file(ALICE, USERS, 0600), true, true },
		{ file(ALICE, USERS, 0600), file(ALICE, USERS, 0600), false, true },
		{ file(ALICE, USERS, 0640), file(ALICE, USERS, 0600), true, false },
		{ file(ALICE, USERS, 0644), file(ALICE, USERS, 0640), true, false },
		{ file(ALICE, USERS, 0640), file(ALICE, STAFF, 0640), true, false }, /* another group */
		{ file(BOB, USERS, 0640), file(ALICE, USERS, 0640), true, false },
		{ file(ALICE, USERS, 0400), file(ALICE, USERS, 0644), false, true },
		{ file(ALICE, USERS, 0604), file(ALICE, USERS, 0604), false, true },
		{ file(BOB, USERS, 0644), file(ALICE, USERS, 0604), true, false }, /* its group is kept out */
	};

	for (size_t i = 0; i < WCX_ARRAY_COUNT(cases); i++)
		CHECK(wcx_base_is_open(&cases[i].dependent, &cases[i].base, cases[i].is_public) == cases[i].expected);
}

static void hints_lead_from_the_directory_of_the_dependent(void)
{
	static const struct {
		const char *dependent, *hint;
		int r;
		const char *expected;
	} cases[] = {
		{ "tuned.wcx", "base.wcx", 0, "base.wcx" },
		{ "tuned/a.wcx", "base.wcx", 0, "tuned/base.wcx" },
		{ "tuned/a.wcx", "../base/b.wcx", 0, "base/b.wcx" },
		{ "x/y/a.wcx", "../../z/./b.wcx", 0, "z/b.wcx" },
		{ "x/y/a.wcx", "..//w/../b.wcx", 0, "x/b.wcx" },
		{ "x/a.wcx", "../../b.wcx", -EXDEV, NULL },
		{ "x/a.wcx", "../../x/b.wcx", -EXDEV, NULL },
		{ "x/a.wcx", "../..b.wcx", 0, "..b.wcx" },
		{ "x/a.wcx", "..", -EXDEV, NULL },
		{ "a.wcx", "..", -EXDEV, NULL },
		{ "a.wcx", "/etc/b.wcx", -EXDEV, NULL },
		{ "a.wcx", "", -EXDEV, NULL },
		{ "a.wcx", ".", -EXDEV, NULL },
	};
	char path[PATH_MAX], name[PATH_MAX];

	for (size_t i = 0; i < WCX_ARRAY_COUNT(cases); i++) {
		const int r = wcx_base_hint_path(cases[i].dependent, cases[i].hint, path);

		if (CHECK(r == cases[i].r) && r == 0)
			CHECK_TEXT(path, cases[i].expected);
	}
	memset(name, 'a', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	CHECK(wcx_base_hint_path("x/a.wcx", name, path) == -ENAMETOOLONG);
	name[sizeof name - 2] = '\0';
	CHECK(wcx_base_hint_path("x/a.wcx", name, path) == -ENAMETOOLONG);
	name[sizeof name - 3] = '\0';
	CHECK(wcx_base_hint_path("x/a.wcx", name, path) == 0);
}

static void descriptions_are_short(void)
{
	char text[WCX_BASE_TEXT_BYTES], name[1000];
	struct wcx_base base = { .sha256 = { 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd }, .name = "../base.wcx" };

	wcx_base_describe(&base, text);
	CHECK_TEXT(text, "base 0123456789ab (../base.wcx)");
	memset(name, 'x', sizeof name);
	strcpy(name + sizeof name - 5, "/end");
	base.name = name;
	wcx_base_describe(&base, text);
	CHECK(strlen(text) == strlen("base 0123456789ab (...)") + 120);
	CHECK(strcmp(text + strlen(text) - 5, "/end)") == 0);
}

/* An open error says more than what is wrong with other files, which are seen before or after. */
static void a_base_that_cannot_be_opened_is_what_a_failure_tells_of(void)
{
	const struct wcx_base base = { .sha256 = { 0x01, 0x23, 0x45, 0x67, 0x89, 0xab }, .name = "b" };
	const struct stat device = { .st_mode = S_IFCHR };
	struct wcx_base_check check = { .base = &base };
	struct wcx_superblock sb;
	struct wcx_error err;

	CHECK(wcx_base_check_fail(&check, "here", &err) == -ENOENT);
	CHECK_TEXT(err.text, "base 0123456789ab (b): not found in here");
	CHECK(!wcx_base_check_file(&check, -1, "other", &device, false, &sb));
	CHECK(wcx_base_check_fail(&check, "here", &err) == -ENOENT);
	CHECK_TEXT(err.text, "base 0123456789ab (b): not found: other is there, but is no packed file that can be read");
	wcx_base_check_refuse(&check, -ENFILE, &(struct wcx_error){ "x.wcx: too many indexes" });
	CHECK(!wcx_base_check_file(&check, -1, "other", &device, false, &sb));
	CHECK(wcx_base_check_fail(&check, "here", &err) == -ENFILE);
	CHECK_TEXT(err.text, "base 0123456789ab (b): cannot be opened: x.wcx: too many indexes");
	wcx_base_check_refuse(&check, -ENOMEM, &(struct wcx_error){ "" });
	CHECK(wcx_base_check_fail(&check, "here", &err) == -ENOMEM && strstr(err.text, "cannot be opened: Cannot allocate"));
}

static void a_base_that_is_kept_has_a_name_of_its_own(void)
{
	const struct {
		const char *path, *expected;
	} cases[] = {
		{ "a.wcx", "a.base-010203040506.wcx" },
		{ "../x.wcx/model.safetensors.wcx", "../x.wcx/model.safetensors.base-010203040506.wcx" },
		{ "other", "other.base-010203040506.wcx" },
		{ ".wcx", ".wcx.base-010203040506.wcx" },
	};
	const uint8_t sha256[WCX_SHA256_BYTES] = { 1, 2, 3, 4, 5, 6, 7 };
	char kept[PATH_MAX], path[PATH_MAX];

	for (size_t i = 0; i < WCX_ARRAY_COUNT(cases); i++) {
		CHECK(wcx_base_kept_path(cases[i].path, sha256, kept) == 0);
		CHECK_TEXT(kept, cases[i].expected);
	}
	memset(path, 'a', PATH_MAX - 1);
	path[PATH_MAX - 1] = '\0';
	CHECK(wcx_base_kept_path(path, sha256, kept) == -ENAMETOOLONG);
	path[PATH_MAX - 1 - strlen(".base-010203040506.wcx")] = '\0';
	CHECK(wcx_base_kept_path(path, sha256, kept) == 0);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(bases_of_root_the_reader_and_the_owner_are_trusted),
		CHECK_TEST(a_base_must_be_readable_by_the_readers_of_the_dependent),
		CHECK_TEST(hints_lead_from_the_directory_of_the_dependent),
		CHECK_TEST(descriptions_are_short),
		CHECK_TEST(a_base_that_cannot_be_opened_is_what_a_failure_tells_of),
		CHECK_TEST(a_base_that_is_kept_has_a_name_of_its_own),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
