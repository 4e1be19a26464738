/* SPDX-License-Identifier: MIT */
/* Copies what a file has besides its contents. */
#include "fs/base/file_metadata.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fs/base/error.h"

static const char acl_name[] = "system.posix_acl_access";
static const char default_acl_name[] = "system.posix_acl_default"; /* of a directory, for what is created in it */

/* A copy on its way. */
struct copy {
	int src_fd, dst_fd;
	const char *path;
	wcx_warn_fn *warn;
	void *user;
};

static void warn_lost(const struct copy *copy, const char *what, const char *consequence)
{
	struct wcx_error text;

	if (!copy->warn)
		return;
	wcx_fail(&text, errno, "%s: %s cannot be kept: %s%s", copy->path, what, strerror(errno), consequence);
	copy->warn(copy->user, text.text);
}

/* Reads an extended attribute; NULL with errno where there is none (ENODATA, EOPNOTSUPP) or no memory. */
static void *read_attribute(int fd, const char *name, size_t *bytes_ret)
{
	for (;;) {
		ssize_t bytes = fgetxattr(fd, name, NULL, 0);
		void *value = bytes < 0 ? NULL : malloc((size_t)bytes + 1);

		if (!value)
			return NULL;
		bytes = fgetxattr(fd, name, value, (size_t)bytes);
		if (bytes >= 0) {
			*bytes_ret = (size_t)bytes;
			return value;
		}
		free(value);
		if (errno != ERANGE) /* it has grown meanwhile */
			return NULL;
	}
}

/* Labels decide on access, too; capabilities and signatures would be wrong for other contents. */
static bool is_label(const char *name)
{
	static const char *const others[] = { "security.capability", "security.ima", "security.evm" };

	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
		if (strcmp(name, others[i]) == 0)
			return false;
	return strncmp(name, "security.", strlen("security.")) == 0;
}

static void copy_labels(const struct copy *copy)
{
	const ssize_t room = flistxattr(copy->src_fd, NULL, 0);
	char *names = room > 0 ? malloc((size_t)room) : NULL;
	const ssize_t bytes = names ? flistxattr(copy->src_fd, names, (size_t)room) : 0;

	for (const char *name = names; bytes > 0 && name < names + bytes; name += strlen(name) + 1) {
		size_t value_bytes = 0;
		void *value = is_label(name) ? read_attribute(copy->src_fd, name, &value_bytes) : NULL;

		if (value && fsetxattr(copy->dst_fd, name, value, value_bytes, 0) < 0)
			errno = 0; /* the system's policy labels the file */
		free(value);
	}
	free(names);
}

/* Owner and group; clears from *mode what they would give to others than those who had it. */
static bool copy_owner(const struct copy *copy, const struct stat *src, const struct stat *dst, mode_t *mode)
{
	bool kept = true;

	if (dst->st_gid != src->st_gid && fchown(copy->dst_fd, (uid_t)-1, src->st_gid) < 0) {
		const mode_t shared = *mode >> 3 & *mode & S_IRWXO;

		warn_lost(copy, "the group", "; the new group gets only what all others may do");
		*mode = (*mode & ~(mode_t)(S_IRWXG | S_IRWXO)) | shared << 3 | shared;
		kept = false;
	}
	if (dst->st_uid != src->st_uid && fchown(copy->dst_fd, src->st_uid, (gid_t)-1) < 0) {
		const mode_t owner = (*mode & S_IRWXU) >> 6;

		warn_lost(copy, "the owner", "");
		*mode &= S_IRWXU | owner << 3 | owner;
		kept = false;
	}
	return kept;
}

/* Sets the source's ACL, or none; returns whether the destination has what the source has. */
static bool copy_acl(const struct copy *copy, bool owners_kept)
{
	size_t bytes = 0;
	void *acl = read_attribute(copy->src_fd, acl_name, &bytes);
	bool kept = false;

	if (!acl && errno != ENODATA && errno != EOPNOTSUPP) {
		warn_lost(copy, "the ACL", "; only the owner has access");
		return false;
	}
	if (!acl) /* what the directory gave the new file by default would be more than the source had */
		return fremovexattr(copy->dst_fd, acl_name) == 0 || errno == ENODATA || errno == EOPNOTSUPP;
	errno = EPERM;
	kept = owners_kept && fsetxattr(copy->dst_fd, acl_name, acl, bytes, 0) == 0;
	if (!kept) {
		warn_lost(copy, "the ACL", "; only the owner has access");
		fremovexattr(copy->dst_fd, acl_name);
	}
	free(acl);
	return kept;
}

/* Sets the default ACL of a directory; it gives nobody access by itself. */
static void copy_default_acl(const struct copy *copy)
{
	size_t bytes = 0;
	void *acl = read_attribute(copy->src_fd, default_acl_name, &bytes);

	if (!acl)
		fremovexattr(copy->dst_fd, default_acl_name);
	else if (fsetxattr(copy->dst_fd, default_acl_name, acl, bytes, 0) < 0)
		warn_lost(copy, "the default ACL", "");
	free(acl);
}

int wcx_file_metadata_copy(int src_fd, int dst_fd, const char *path, wcx_warn_fn *warn, void *user)
{
	const struct copy copy = { src_fd, dst_fd, path, warn, user };
	struct stat src, dst;
	struct timespec times[2];
	mode_t mode;

	if (fstat(src_fd, &src) < 0 || fstat(dst_fd, &dst) < 0)
		return -errno;
	/* A file that runs as its owner would be wrong for other contents; a directory's bits are about its entries. */
	mode = src.st_mode & (S_ISDIR(src.st_mode) ? 03777 : 0777);
	if (!copy_acl(&copy, copy_owner(&copy, &src, &dst, &mode)))
		mode &= S_IRWXU;
	if (S_ISDIR(src.st_mode))
		copy_default_acl(&copy);
	copy_labels(&copy);
	/* The bits of an ACL's mask are the group's, and its mask is set by them. */
	if (fchmod(dst_fd, mode) < 0) {
		const int errnum = errno;

		if (fstat(dst_fd, &dst) < 0 || errnum != EPERM)
			return -errnum;
		/* Such as exfat: all its files have the permissions that were given when it was mounted. */
		errno = errnum;
		warn_lost(&copy, "the permissions", "; they are the file system's own");
	} else if (fstat(dst_fd, &dst) == 0 && dst.st_mode & 0777 & ~mode) {
		/* Some say that it was done, and do nothing. */
		errno = EPERM;
		warn_lost(&copy, "the permissions", "; they are the file system's own");
	}
	times[0] = src.st_atim;
	times[1] = src.st_mtim;
	if (futimens(dst_fd, times) < 0)
		warn_lost(&copy, "the times", "");
	return 0;
}
