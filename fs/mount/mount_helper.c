/* SPDX-License-Identifier: MIT */
/* Translates what mount(8) passes to its helpers. */
#include "fs/mount/mount_helper.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "codec/arith.h"

bool wcx_mount_helper_is(const char *program)
{
	const char *slash = strrchr(program, '/');

	return strcmp(slash ? slash + 1 : program, WCX_MOUNT_HELPER_NAME) == 0;
}

int wcx_mount_helper_parse(int argc, char **argv, struct wcx_mount_helper *ret, struct wcx_error *err)
{
	static char program[] = "wcxfs", option_flag[] = "-o", help_flag[] = "-h", version_flag[] = "-V";
	char *options = NULL;
	int option, count = 0;

	*ret = (struct wcx_mount_helper){ .argv = { program } };
	optind = 0; /* glibc then forgets an earlier scan */
	opterr = 0;
	while ((option = getopt(argc, argv, "sfnvN:o:t:hV")) != -1) {
		if (option == 'f')
			ret->is_fake = true;
		else if (option == 'v')
			ret->is_verbose = true;
		else if (option == 'N')
			ret->namespace = optarg;
		else if (option == 'o' && options)
			return wcx_fail(err, EINVAL, "-o is given twice");
		else if (option == 'o')
			options = optarg;
		else if (option == 'h' || option == 'V')
			ret->argv[++count] = option == 'h' ? help_flag : version_flag;
		else if (option == '?')
			return wcx_fail(err, EINVAL, "unknown option -%c, or one without its argument", optopt);
		if (count > 1)
			return wcx_fail(err, EINVAL, "more than one of -h and -V");
	}
	if (argc - optind > 2)
		return wcx_fail(err, EINVAL, "unexpected argument %s", argv[optind + 2]);
	for (; optind < argc; optind++)
		ret->argv[++count] = argv[optind];
	if (options) {
		ret->argv[++count] = option_flag;
		ret->argv[++count] = options;
	}
	ret->argc = count + 1;
	return 0;
}

int wcx_mount_helper_enter(const char *namespace, struct wcx_error *err)
{
	const bool is_process = namespace[strspn(namespace, "0123456789")] == '\0';
	char path[PATH_MAX];
	int fd, errnum;

	snprintf(path, sizeof path, is_process ? "/proc/%s/ns/mnt" : "%s", namespace);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	errnum = fd < 0 || setns(fd, CLONE_NEWNS) ? errno : 0;
	if (fd >= 0)
		close(fd);
	return errnum ? wcx_fail(err, errnum, "mount namespace %s: %s", namespace, strerror(errnum)) : 0;
}

bool wcx_mount_option_is_ignored(const char *option)
{
	static const char *const names[] = {
		"_netdev", "auto",       "defaults", "group",   "iversion",   "lazytime",    "loud",    "mand",
		"noauto",  "nodiratime", "nofail",   "nogroup", "nolazytime", "nomand",      "noowner", "nouser",
		"nousers", "owner",      "relatime", "silent",  "sloppy",     "strictatime", "user",    "users",
	};
	static const char *const prefixes[] = { "x-", "X-", "comment=", "user=", "uhelper=", "helper=" };
	bool ignored = !*option; /* of "-o ''", or of two commas */

	for (size_t i = 0; i < WCX_ARRAY_COUNT(names); i++)
		ignored |= strcmp(option, names[i]) == 0;
	for (size_t i = 0; i < WCX_ARRAY_COUNT(prefixes); i++)
		ignored |= strncmp(option, prefixes[i], strlen(prefixes[i])) == 0;
	return ignored;
}
