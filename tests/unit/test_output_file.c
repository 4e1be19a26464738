/* SPDX-License-Identifier: MIT */
/*
 * Output files: nothing is there before they are complete, nothing is replaced unasked, and nobody gets access who had none
 * to the source, on file systems with all abilities and, by calls that are made to fail, on those without.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/output_file.h"
#include "tests/unit/check.h"

enum { SAYS_DONE = -1 }; /* for chmod: succeeds, and all files have all permissions, as with exfat's FUSE driver */

/* What a file system lacks: the calls fail with these; 0: they work. */
static struct {
	int tmpfile, noreplace, link, chmod, times, chown, acl;
} lacks;

int __real_openat64(int fd, const char *path, int flags, ...);
int __wrap_openat64(int fd, const char *path, int flags, ...);
int __real_renameat2(int old_fd, const char *old_path, int new_fd, const char *new_path, unsigned flags);
int __wrap_renameat2(int old_fd, const char *old_path, int new_fd, const char *new_path, unsigned flags);
int __real_linkat(int old_fd, const char *old_path, int new_fd, const char *new_path, int flags);
int __wrap_linkat(int old_fd, const char *old_path, int new_fd, const char *new_path, int flags);
int __real_fchmod(int fd, mode_t mode);
int __wrap_fchmod(int fd, mode_t mode);
int __real_futimens(int fd, const struct timespec times[2]);
int __wrap_futimens(int fd, const struct timespec times[2]);
int __real_fchown(int fd, uid_t owner, gid_t group);
int __wrap_fchown(int fd, uid_t owner, gid_t group);
int __real_fsetxattr(int fd, const char *name, const void *value, size_t bytes, int flags);
int __wrap_fsetxattr(int fd, const char *name, const void *value, size_t bytes, int flags);

static int fail_with(int errnum)
{
	errno = errnum;
	return -1;
}

int __wrap_openat64(int fd, const char *path, int flags, ...)
{
	va_list list;
	mode_t mode;

	va_start(list, flags);
	mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(list, mode_t) : 0;
	va_end(list);
	if (lacks.tmpfile && (flags & O_TMPFILE) == O_TMPFILE)
		return fail_with(lacks.tmpfile);
	return __real_openat64(fd, path, flags, mode);
}

int __wrap_renameat2(int old_fd, const char *old_path, int new_fd, const char *new_path, unsigned flags)
{
	return lacks.noreplace ? fail_with(lacks.noreplace) : __real_renameat2(old_fd, old_path, new_fd, new_path, flags);
}

/* Called once after a file has got its name. */
static void (*after_link)(void);

int __wrap_linkat(int old_fd, const char *old_path, int new_fd, const char *new_path, int flags)
{
	void (*const call)(void) = after_link;
	const int r = lacks.link ? fail_with(lacks.link) : __real_linkat(old_fd, old_path, new_fd, new_path, flags);

	after_link = NULL;
	if (call)
		call();
	return r;
}

int __wrap_fchmod(int fd, mode_t mode)
{
	if (lacks.chmod == SAYS_DONE)
		return __real_fchmod(fd, 0777);
	return lacks.chmod ? fail_with(lacks.chmod) : __real_fchmod(fd, mode);
}

int __wrap_futimens(int fd, const struct timespec times[2])
{
	return lacks.times ? fail_with(lacks.times) : __real_futimens(fd, times);
}

int __wrap_fchown(int fd, uid_t owner, gid_t group)
{
	return lacks.chown ? fail_with(lacks.chown) : __real_fchown(fd, owner, group);
}

int __wrap_fsetxattr(int fd, const char *name, const void *value, size_t bytes, int flags)
{
	return lacks.acl ? fail_with(lacks.acl) : __real_fsetxattr(fd, name, value, bytes, flags);
}

/* Abilities of file systems, in the order of what is tried. */
static const struct {
	const char *what;
	int tmpfile, noreplace, link;
} systems[] = {
	{ "all", 0, 0, 0 },
	{ "no unnamed files", EOPNOTSUPP, 0, 0 },
	{ "no unnamed files, no RENAME_NOREPLACE", EISDIR, EINVAL, 0 },
	{ "no links either, as exfat", EOPNOTSUPP, EINVAL, EPERM },
};

static char directory[32], source_path[64], output_path[64];
static int source_fd;
static char warnings[1024];

static void warn(void *user, const char *text)
{
	(void)user;
	strcat(strcat(warnings, text), "\n");
}

static void set_up(size_t system)
{
	memset(&lacks, 0, sizeof lacks);
	warnings[0] = '\0';
	strcpy(directory, "/var/tmp/wcx-out-XXXXXX");
	CHECK(mkdtemp(directory) != NULL);
	snprintf(source_path, sizeof source_path, "%s/source", directory);
	snprintf(output_path, sizeof output_path, "%s/output", directory);
	source_fd = open(source_path, O_RDWR | O_CREAT | O_EXCL, 0640);
	CHECK(source_fd >= 0 && write(source_fd, "source", 6) == 6);
	lacks.tmpfile = systems[system].tmpfile;
	lacks.noreplace = systems[system].noreplace;
	lacks.link = systems[system].link;
}

static void tear_down(void)
{
	char command[128];

	memset(&lacks, 0, sizeof lacks);
	close(source_fd);
	snprintf(command, sizeof command, "rm -r '%s'", directory);
	CHECK(system(command) == 0);
}

/* Names in the directory. */
static size_t count_names(bool temporary)
{
	DIR *open = opendir(directory);
	const struct dirent *entry;
	size_t count = 0;

	while (open && (entry = readdir(open)))
		count += temporary ? wcx_is_temporary_name(entry->d_name)
				   : strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	closedir(open);
	return count;
}

static bool holds(const char *path, const char *text)
{
	char bytes[64] = { 0 };
	const int fd = open(path, O_RDONLY);
	const ssize_t n = fd < 0 ? -1 : read(fd, bytes, sizeof bytes - 1);

	close(fd);
	return n == (ssize_t)strlen(text) && memcmp(bytes, text, strlen(text)) == 0;
}

static int begin(struct wcx_output_file *file, bool replace)
{
	const struct wcx_output_options options = {
		.path = output_path, .source_fd = source_fd, .replace = replace, .warn = warn
	};
	struct wcx_error err = { "" };
	int r = wcx_output_create(file, &options, &err);

	return r == 0 ? wcx_output_write(file, "packed", 6, 0, &err) : r;
}

static void write_output_file(const char *path, const char *text)
{
	const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && close(fd) == 0);
}

static void outputs_appear_when_they_are_committed(void)
{
	for (size_t i = 0; i < WCX_ARRAY_COUNT(systems); i++) {
		struct wcx_output_file file;
		struct wcx_error err = { "" };
		struct stat st;

		set_up(i);
		CHECK(begin(&file, false) == 0);
		CHECK(access(output_path, F_OK) < 0 && count_names(false) == 1u + count_names(true));
		CHECK(count_names(true) == (lacks.tmpfile ? 1 : 0));
		CHECK(fstat(file.fd, &st) == 0 && (st.st_mode & 0777) == 0600);
		CHECK(wcx_output_commit(&file, &err) == 0);
		CHECK(holds(output_path, "packed") && count_names(false) == 2);
		CHECK(stat(output_path, &st) == 0 && (st.st_mode & 0777) == 0640);
		CHECK_TEXT(warnings, "");
		tear_down();
	}
}

static void discarded_outputs_leave_nothing(void)
{
	for (size_t i = 0; i < WCX_ARRAY_COUNT(systems); i++) {
		struct wcx_output_file file;

		set_up(i);
		CHECK(begin(&file, true) == 0);
		wcx_output_discard(&file);
		CHECK(count_names(false) == 1);
		tear_down();
	}
}

static void existing_files_are_replaced_only_when_asked(void)
{
	for (size_t i = 0; i < WCX_ARRAY_COUNT(systems); i++) {
		struct wcx_output_file file;
		struct wcx_error err = { "" };

		set_up(i);
		CHECK(begin(&file, false) == 0);
		write_output_file(output_path, "another's"); /* meanwhile */
		CHECK(wcx_output_commit(&file, &err) == -EEXIST);
		CHECK(strstr(err.text, output_path) != NULL);
		wcx_output_discard(&file);
		CHECK(holds(output_path, "another's") && count_names(false) == 2);
		CHECK(begin(&file, false) == -EEXIST);
		CHECK(begin(&file, true) == 0);
		CHECK(holds(output_path, "another's"));
		CHECK(wcx_output_commit(&file, &err) == 0);
		CHECK(holds(output_path, "packed") && count_names(false) == 2);
		tear_down();
	}
}

static void unfit_paths_are_refused_before_the_work(void)
{
	struct wcx_output_file file;

	set_up(0);
	strcpy(output_path, source_path);
	CHECK(begin(&file, true) == -EINVAL);
	strcpy(output_path, directory);
	CHECK(begin(&file, true) == -EISDIR);
	strcat(output_path, "/new/");
	CHECK(begin(&file, true) == -EISDIR);
	strcat(output_path, "output");
	CHECK(begin(&file, true) == -ENOENT);
	strcpy(output_path, "/dev/null");
	CHECK(begin(&file, true) == -EINVAL);
	CHECK(holds(source_path, "source") && count_names(false) == 1);
	tear_down();
}

static void abandoned_outputs_are_removed_and_others_stay(void)
{
	static const char *const of_users[] = { ".wcx-config", ".wcx-tmp-abcdefghijklmno", ".wcx-tmp-abcdefghijklmnopq",
						".wcx-tmp-abcdefghijklmno-" };
	struct wcx_output_file first, second;
	struct wcx_error err = { "" };
	char path[128];

	set_up(1);
	snprintf(path, sizeof path, "%s/.wcx-tmp-abcdefghijklmn27", directory);
	write_output_file(path, "left by a process that was killed");
	for (size_t i = 0; i < WCX_ARRAY_COUNT(of_users); i++) {
		snprintf(path, sizeof path, "%s/%s", directory, of_users[i]);
		write_output_file(path, "a user's");
	}
	CHECK(begin(&first, true) == 0);
	CHECK(count_names(true) == 1 && count_names(false) == 2 + WCX_ARRAY_COUNT(of_users));
	CHECK(begin(&second, true) == 0); /* which finds the first at work */
	CHECK(count_names(true) == 2);
	CHECK(wcx_output_commit(&first, &err) == 0 && wcx_output_commit(&second, &err) == 0);
	CHECK(count_names(true) == 0 && count_names(false) == 2 + WCX_ARRAY_COUNT(of_users));
	tear_down();
}

static void begin_another(void)
{
	struct wcx_output_file other;

	CHECK(count_names(true) == 1);
	CHECK(begin(&other, true) == 0);
	wcx_output_discard(&other);
}

/* Between its temporary name and its own, a file that replaces another is not taken for abandoned. */
static void an_output_that_begins_meanwhile_removes_no_other(void)
{
	struct wcx_output_file file;
	struct wcx_error err = { "" };

	set_up(0);
	write_output_file(output_path, "old");
	CHECK(begin(&file, true) == 0);
	after_link = begin_another;
	CHECK(wcx_output_commit(&file, &err) == 0);
	CHECK_TEXT(err.text, "");
	CHECK(holds(output_path, "packed") && count_names(false) == 2);
	tear_down();
}

/* POSIX ACLs as Linux stores them: a version, then tag, permissions and id of each entry. */
struct acl {
	uint32_t version;
	struct {
		uint16_t tag, perm;
		uint32_t id;
	} entries[5];
};

/* User 12345 may read, the owning group may not: the mask shows as group bits rw. */
static const struct acl shut_out = { 2,
				     { { 0x01, 6, UINT32_MAX },
				       { 0x02, 4, 12345 },
				       { 0x04, 0, UINT32_MAX },
				       { 0x10, 6, UINT32_MAX },
				       { 0x20, 0, UINT32_MAX } } };

static bool commit_with_acl(void)
{
	struct wcx_output_file file;
	struct wcx_error err = { "" };

	return CHECK(begin(&file, true) == 0) && CHECK(wcx_output_commit(&file, &err) == 0);
}

static void acls_are_kept_or_access_is_the_owners_alone(void)
{
	struct acl got;
	struct stat st;

	set_up(0);
	if (__real_fsetxattr(source_fd, "system.posix_acl_access", &shut_out, sizeof shut_out, 0) < 0) {
		printf("skipped: no ACLs in %s: %s\n", directory, strerror(errno));
		tear_down();
		return;
	}
	if (commit_with_acl()) {
		CHECK(getxattr(output_path, "system.posix_acl_access", &got, sizeof got) == sizeof got);
		CHECK(memcmp(&got, &shut_out, sizeof got) == 0);
		CHECK(stat(output_path, &st) == 0 && (st.st_mode & 0777) == 0660);
		CHECK_TEXT(warnings, "");
	}
	lacks.acl = EOPNOTSUPP;
	if (commit_with_acl()) {
		CHECK(getxattr(output_path, "system.posix_acl_access", &got, sizeof got) < 0);
		CHECK(stat(output_path, &st) == 0 && (st.st_mode & 0777) == 0600);
		CHECK(strstr(warnings, "the ACL cannot be kept") != NULL);
	}
	tear_down();
}

static void default_acls_of_the_directory_give_nobody_more(void)
{
	static const struct acl open_to_user = { 2,
						 { { 0x01, 7, UINT32_MAX },
						   { 0x02, 7, 12345 },
						   { 0x04, 7, UINT32_MAX },
						   { 0x10, 7, UINT32_MAX },
						   { 0x20, 7, UINT32_MAX } } };
	struct acl got;
	struct stat st;

	for (size_t i = 0; i < 2; i++) {
		set_up(i);
		if (setxattr(directory, "system.posix_acl_default", &open_to_user, sizeof open_to_user, 0) < 0)
			printf("skipped: no ACLs in %s: %s\n", directory, strerror(errno));
		else if (commit_with_acl()) {
			CHECK(getxattr(output_path, "system.posix_acl_access", &got, sizeof got) < 0);
			CHECK(stat(output_path, &st) == 0 && (st.st_mode & 0777) == 0640);
		}
		tear_down();
	}
}

static void owners_are_kept_or_permissions_narrowed(void)
{
	static const struct {
		mode_t source, without_owner_and_group;
	} cases[] = { { 0640, 0600 }, { 0644, 0644 }, { 0604, 0600 }, { 0666, 0666 },
		      { 0600, 0600 }, { 0444, 0444 }, { 0664, 0644 } };
	struct stat st;

	if (getuid() != 0) {
		printf("skipped: only root can give files away\n");
		return;
	}
	for (size_t i = 0; i < WCX_ARRAY_COUNT(cases); i++) {
		set_up(0);
		CHECK(__real_fchown(source_fd, 12345, 23456) == 0 && __real_fchmod(source_fd, cases[i].source) == 0);
		if (commit_with_acl()) {
			CHECK(stat(output_path, &st) == 0 && st.st_uid == 12345 && st.st_gid == 23456);
			CHECK((st.st_mode & 0777) == cases[i].source);
			CHECK_TEXT(warnings, "");
		}
		lacks.chown = EPERM;
		if (commit_with_acl()) {
			CHECK(stat(output_path, &st) == 0 && st.st_uid == 0);
			CHECK((st.st_mode & 0777) == cases[i].without_owner_and_group);
			CHECK(strstr(warnings, "the group cannot be kept") && strstr(warnings, "the owner cannot be kept"));
		}
		tear_down();
	}
}

static void what_a_file_system_refuses_is_warned_of(void)
{
	struct stat source, st;

	for (size_t i = 0; i < WCX_ARRAY_COUNT(systems); i++) {
		set_up(i);
		CHECK(fstat(source_fd, &source) == 0);
		if (commit_with_acl() && CHECK(stat(output_path, &st) == 0))
			CHECK(st.st_mtim.tv_sec == source.st_mtim.tv_sec && st.st_mtim.tv_nsec == source.st_mtim.tv_nsec);
		lacks.chmod = lacks.times = EPERM;
		if (commit_with_acl()) {
			CHECK(holds(output_path, "packed"));
			CHECK(strstr(warnings, "the permissions cannot be kept") &&
			      strstr(warnings, "the times cannot be kept"));
			CHECK(strstr(warnings, output_path) != NULL);
		}
		lacks.chmod = SAYS_DONE;
		CHECK(__real_fchmod(source_fd, 0640) == 0);
		if (commit_with_acl())
			CHECK(strstr(warnings, "the permissions cannot be kept") != NULL);
		tear_down();
	}
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(outputs_appear_when_they_are_committed),
		CHECK_TEST(discarded_outputs_leave_nothing),
		CHECK_TEST(existing_files_are_replaced_only_when_asked),
		CHECK_TEST(unfit_paths_are_refused_before_the_work),
		CHECK_TEST(abandoned_outputs_are_removed_and_others_stay),
		CHECK_TEST(an_output_that_begins_meanwhile_removes_no_other),
		CHECK_TEST(acls_are_kept_or_access_is_the_owners_alone),
		CHECK_TEST(default_acls_of_the_directory_give_nobody_more),
		CHECK_TEST(owners_are_kept_or_permissions_narrowed),
		CHECK_TEST(what_a_file_system_refuses_is_warned_of),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
