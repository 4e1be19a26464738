/* SPDX-License-Identifier: MIT */
/* The command line of mount.wcxfs, options of /etc/fstab, and messages to a service manager. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/mount/mount_helper.h"
#include "fs/mount/notify.h"
#include "tests/unit/check.h"

enum { WORDS_MAX = 16 };

static struct wcx_mount_helper helper;
static struct wcx_error err;

/* Parses a command line of words between single spaces; a word _ is the empty string. */
static int parse(const char *line)
{
	static char copy[256];
	char *argv[WORDS_MAX + 1], *next = copy;
	int argc = 0;

	snprintf(copy, sizeof copy, "%s", line);
	while (next && argc < WORDS_MAX) {
		argv[argc] = strsep(&next, " ");
		if (strcmp(argv[argc], "_") == 0)
			*argv[argc] = '\0';
		argc++;
	}
	argv[argc] = NULL;
	return wcx_mount_helper_parse(argc, argv, &helper, &err);
}

static bool has_words(int count, const char *const *words)
{
	bool same = helper.argc == count && !helper.argv[count];

	for (int i = 0; i < count && same; i++)
		same = strcmp(helper.argv[i], words[i]) == 0;
	return same;
}

static void what_mount_passes_becomes_a_command_line(void)
{
	static const char *const words[] = { "wcxfs", "/store", "/mnt", "-o", "rw,cache_size=1G" };

	CHECK(parse("/sbin/mount.wcxfs /store /mnt -o rw,cache_size=1G") == 0 && has_words(5, words));
	CHECK(!helper.is_fake && !helper.is_verbose && !helper.namespace);
	CHECK(parse("mount.wcxfs /store /mnt -sfnv -N /run/ns -o rw,cache_size=1G -t wcxfs") == 0 && has_words(5, words));
	CHECK(helper.is_fake && helper.is_verbose && strcmp(helper.namespace, "/run/ns") == 0);
	CHECK(parse("mount.wcxfs -n -o rw,cache_size=1G /store /mnt") == 0 && has_words(5, words));
	CHECK(parse("mount.wcxfs /store /mnt") == 0 && has_words(3, words));
	CHECK(parse("mount.wcxfs") == 0 && has_words(1, words));
	CHECK(parse("mount.wcxfs -h") == 0 && helper.argc == 2 && strcmp(helper.argv[1], "-h") == 0);
}

static void other_command_lines_are_refused(void)
{
	static const char *const lines[] = {
		"mount.wcxfs /store /mnt third",     "mount.wcxfs /store /mnt -x", "mount.wcxfs /store /mnt -o",
		"mount.wcxfs /store /mnt -o a -o b", "mount.wcxfs -h -h -h -V",
	};

	for (size_t i = 0; i < WCX_ARRAY_COUNT(lines); i++)
		CHECK(parse(lines[i]) == -EINVAL && err.text[0]);
}

static void the_name_decides_who_calls(void)
{
	CHECK(wcx_mount_helper_is("mount.wcxfs") && wcx_mount_helper_is("/sbin/mount.wcxfs"));
	CHECK(!wcx_mount_helper_is("wcxfs") && !wcx_mount_helper_is("/mount.wcxfs/wcxfs") && !wcx_mount_helper_is(""));
}

static void options_for_others_are_ignored_and_no_others(void)
{
	static const char *const ignored[] = {
		"",
		"_netdev",
		"nofail",
		"noauto",
		"user",
		"user=joe",
		"users",
		"owner",
		"defaults",
		"x-systemd.automount",
		"x-gvfs-show",
		"X-mount.mkdir",
		"comment=x",
		"group",
		"relatime",
		"x-systemd.requires=a.mount",
		"uhelper=udisks2",
		"auto",
		"nodiratime",
		"iversion",
	};
	static const char *const kept[] = { "ro",         "rw",      "allow_other", "cache_size=1G",
					    "nofai",      "nofail2", "userx",       "comment",
					    "x",          "-x",      "warm=x-",     "default_permissions",
					    "nosymfollow" };

	for (size_t i = 0; i < WCX_ARRAY_COUNT(ignored); i++)
		CHECK(wcx_mount_option_is_ignored(ignored[i]));
	for (size_t i = 0; i < WCX_ARRAY_COUNT(kept); i++)
		CHECK(!wcx_mount_option_is_ignored(kept[i]));
}

static void a_namespace_that_does_not_exist_is_named(void)
{
	CHECK(wcx_mount_helper_enter("999999999", &err) == -ENOENT && strstr(err.text, "namespace 999999999"));
	CHECK(wcx_mount_helper_enter("/none/such", &err) == -ENOENT && strstr(err.text, "/none/such"));
}

static void a_service_manager_gets_one_datagram(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char text[256], name[64];
	socklen_t address_bytes;
	ssize_t n;
	int fd;

	unsetenv("NOTIFY_SOCKET");
	CHECK(wcx_notify("READY=1") == 0);
	snprintf(name, sizeof name, "@wcx-test-%d", (int)getpid());
	memcpy(address.sun_path + 1, name + 1, strlen(name + 1));
	address_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	CHECK(fd >= 0 && bind(fd, (const struct sockaddr *)&address, address_bytes) == 0);
	setenv("NOTIFY_SOCKET", name, 1);
	CHECK(wcx_notify("READY=%d\nSTATUS=%s", 1, "mounted") == 0);
	n = recv(fd, text, sizeof text, MSG_DONTWAIT);
	CHECK(n == 22 && memcmp(text, "READY=1\nSTATUS=mounted", 22) == 0);
	close(fd);
	CHECK(wcx_notify("READY=1") == -ECONNREFUSED);
	setenv("NOTIFY_SOCKET", "relative", 1);
	CHECK(wcx_notify("READY=1") == -EINVAL);
	setenv("NOTIFY_SOCKET", "/none/such", 1);
	CHECK(wcx_notify("READY=1") == -ENOENT);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(what_mount_passes_becomes_a_command_line),
		CHECK_TEST(other_command_lines_are_refused),
		CHECK_TEST(the_name_decides_who_calls),
		CHECK_TEST(options_for_others_are_ignored_and_no_others),
		CHECK_TEST(a_namespace_that_does_not_exist_is_named),
		CHECK_TEST(a_service_manager_gets_one_datagram),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
