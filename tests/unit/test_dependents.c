/* SPDX-License-Identifier: MIT */
/*
 * Dependents of files that are replaced one after the other: how often they are looked for, and that none is missed.
 *
 * Must be linked with --wrap=wcx_packed_list, to count the directories that are listed.
 */
#include "tools/dependents.h"

#include <errno.h>
#include <fcntl.h>

#include "fs/read/base_lock.h"
#include "fs/read/packed_index.h"
#include "tests/fixtures/sample_family.h"
#include "tests/unit/check.h"
#include "tools/command.h"

enum { BASES = 20 };

atomic_bool wcx_command_stop;

static unsigned listings;

int __real_wcx_packed_list(int fd, const char *path, const struct wcx_packed_visitor *visitor);
int __wrap_wcx_packed_list(int fd, const char *path, const struct wcx_packed_visitor *visitor);

int __wrap_wcx_packed_list(int fd, const char *path, const struct wcx_packed_visitor *visitor)
{
	listings++;
	return __real_wcx_packed_list(fd, path, visitor);
}

/* --- fixture --- */

/* A directory with packed files 00.wcx to 19.wcx, each of another original: the first byte of the SHA-256 is its number. */
struct fixture {
	char *dir;
	int fd;
	struct sample_family family;
	struct wcx_dependents *dependents;
};

static void add(const struct fixture *fixture, const char *name, struct sample_bytes file)
{
	char *temporary = sample_path(fixture->dir, "new"), *path = sample_path(fixture->dir, name);

	sample_write(temporary, file);
	sample_require(rename(temporary, path) == 0, path);
	free(temporary);
	free(path);
}

static const char *name_of(int number, char name[16])
{
	snprintf(name, 16, "%02d.wcx", number);
	return name;
}

static void add_base(struct fixture *fixture, const char *name, uint8_t number)
{
	const uint8_t sha256[WCX_SHA256_BYTES] = { number };

	sample_set_sha256(fixture->family.base, sha256);
	add(fixture, name, fixture->family.base);
}

static void open_fixture(struct fixture *fixture)
{
	char name[16];

	*fixture = (struct fixture){ .dir = sample_dir_create(), .family = sample_family_make("moved.wcx") };
	fixture->fd = open(fixture->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < BASES; i++)
		add_base(fixture, name_of(i, name), (uint8_t)i);
	fixture->dependents = wcx_dependents_create(fixture->dir);
	listings = 0;
}

static void close_fixture(struct fixture *fixture)
{
	wcx_dependents_free(fixture->dependents);
	close(fixture->fd);
	sample_family_free(&fixture->family);
	sample_dir_remove(fixture->dir);
}

/* Opens a file as whoever replaces it does, and looks for what needs it: 1, 0 or -errno.  The caller closes *fd_ret. */
static int is_needed(struct fixture *fixture, const char *name, int *fd_ret)
{
	struct wcx_superblock sb;
	struct wcx_packed_name file = { .directory_fd = fixture->fd, .name = name, .sb = &sb };
	struct wcx_error err = { "" };
	struct stat st;
	char *why = NULL;
	int r;

	*fd_ret = file.fd = wcx_dependents_open(fixture->dependents, fixture->fd, name, &st);
	r = file.fd < 0 ? file.fd : wcx_superblock_read(file.fd, name, &sb, &err);
	if (r == 0)
		r = wcx_dependents_find(fixture->dependents, fixture->dir, &file, &why, &err);
	r = r == 0 ? why != NULL : r;
	free(why);
	return r;
}

/* Replaces a file that nothing needs. */
static bool is_replaced(struct fixture *fixture, const char *name)
{
	int fd;
	const bool is_free = is_needed(fixture, name, &fd) == 0;

	add_base(fixture, name, 100);
	wcx_dependents_close(fixture->dependents, fd);
	return is_free;
}

/* --- tests --- */

static void files_that_were_locked_together_are_looked_for_once(void)
{
	struct fixture fixture;
	char name[16];

	open_fixture(&fixture);
	for (int i = 0; i < BASES - 1; i++)
		wcx_dependents_lock_ahead(fixture.dependents, fixture.fd, name_of(i, name));
	for (int i = 0; i < BASES - 1; i++)
		CHECK(is_replaced(&fixture, name_of(i, name)));
	CHECK(listings == 1);
	CHECK(is_replaced(&fixture, name_of(BASES - 1, name))); /* which was not among them */
	CHECK(is_replaced(&fixture, name_of(0, name)));         /* nor is what has its name now */
	CHECK(listings == 3);
	close_fixture(&fixture);
}

static void a_file_that_is_locked_ahead_is_nobodys_base(void)
{
	struct fixture fixture;
	char name[16];
	int fd, other;

	open_fixture(&fixture);
	other = openat(fixture.fd, "00.wcx", O_RDONLY | O_CLOEXEC);
	wcx_dependents_lock_ahead(fixture.dependents, fixture.fd, "00.wcx");
	CHECK(wcx_base_lock(other) == -EWOULDBLOCK);
	CHECK(is_needed(&fixture, "00.wcx", &fd) == 0);
	CHECK(wcx_base_lock(other) == -EWOULDBLOCK);
	wcx_dependents_close(fixture.dependents, fd);
	CHECK(wcx_base_lock(other) == 0);
	/* What somebody packs against is not locked. */
	wcx_dependents_lock_ahead(fixture.dependents, fixture.fd, "00.wcx");
	CHECK(is_needed(&fixture, "00.wcx", &fd) == -EWOULDBLOCK);
	close(other);
	/* At the end nothing is, but for what is opened. */
	for (int i = 1; i < 6; i++)
		wcx_dependents_lock_ahead(fixture.dependents, fixture.fd, name_of(i, name));
	CHECK(is_needed(&fixture, "03.wcx", &fd) == 0);
	wcx_dependents_unlock_ahead(fixture.dependents);
	for (int i = 1; i < 6; i++) {
		other = openat(fixture.fd, name_of(i, name), O_RDONLY | O_CLOEXEC);
		CHECK(wcx_base_lock(other) == (i == 3 ? -EWOULDBLOCK : 0));
		close(other);
	}
	wcx_dependents_close(fixture.dependents, fd);
	close_fixture(&fixture);
}

static void what_was_packed_before_the_lock_is_seen(void)
{
	struct fixture fixture;
	int fd, again;

	open_fixture(&fixture);
	wcx_dependents_lock_ahead(fixture.dependents, fixture.fd, "00.wcx");
	CHECK(is_needed(&fixture, "00.wcx", &fd) == 0);
	sample_set_sha256(fixture.family.base, fixture.family.entry.sha256);
	add(&fixture, "base.wcx", fixture.family.base);
	add(&fixture, "tuned.wcx", fixture.family.tuned);
	wcx_dependents_lock_ahead(fixture.dependents, fixture.fd, "base.wcx");
	CHECK(is_needed(&fixture, "base.wcx", &again) == 1);
	wcx_dependents_close(fixture.dependents, again);
	wcx_dependents_close(fixture.dependents, fd);
	close_fixture(&fixture);
}

static void what_needed_a_file_may_go_after_that_was_locked(void)
{
	struct fixture fixture;
	int fd;

	open_fixture(&fixture);
	sample_set_sha256(fixture.family.base, fixture.family.entry.sha256);
	add(&fixture, "base.wcx", fixture.family.base);
	add(&fixture, "tuned.wcx", fixture.family.tuned);
	wcx_dependents_lock_ahead(fixture.dependents, fixture.fd, "00.wcx");
	wcx_dependents_lock_ahead(fixture.dependents, fixture.fd, "base.wcx");
	CHECK(is_replaced(&fixture, "00.wcx"));
	sample_require(unlinkat(fixture.fd, "tuned.wcx", 0) == 0, "unlinkat");
	CHECK(is_needed(&fixture, "base.wcx", &fd) == 0);
	wcx_dependents_close(fixture.dependents, fd);
	close_fixture(&fixture);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(files_that_were_locked_together_are_looked_for_once),
		CHECK_TEST(a_file_that_is_locked_ahead_is_nobodys_base),
		CHECK_TEST(what_was_packed_before_the_lock_is_seen),
		CHECK_TEST(what_needed_a_file_may_go_after_that_was_locked),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
