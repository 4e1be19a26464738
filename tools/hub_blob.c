/* SPDX-License-Identifier: MIT */
/* Looks at a blob of a Hugging Face cache, and replaces it by a link. */
#include "tools/hub_blob.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "codec/le.h"
#include "fs/base/file_io.h"
#include "fs/base/output_file.h"
#include "fs/base/same_file.h"
#include "fs/format/container.h"
#include "fs/pack/pack_done.h"
#include "tools/command.h"
#include "tools/hub_names.h"

enum {
	SUFFIX_BYTES = sizeof ".wcx" - 1,
	LENGTH_BYTES = 8,       /* in front of the header of a safetensors file */
	HEADER_MAX = 100000000, /* bytes of that header */
	SHOWN_TRIES = 40,       /* a mount shows changes within a second */
	TRY_NS = 50 * 1000 * 1000,
};

static const char temporary_prefix[] = ".wcx-link-";

static int fail_on(const struct wcx_hub_blob *blob, int errnum, struct wcx_error *err)
{
	return wcx_fail(err, errnum, "%s: %s", blob->path, strerror(errnum));
}

/* --- what is there --- */

static bool is_hash(const char *name)
{
	const size_t digits = strspn(name, "0123456789abcdef");

	return !name[digits] && (digits == 40 || digits == 64); /* a SHA-1 of Git, or a SHA-256 */
}

/* Whether a path without links is that of a file in the cache's shared blobs, CACHE/blobs. */
static bool is_shared_path(const char *path, const char *cache)
{
	const size_t bytes = strlen(cache);

	return strncmp(path, cache, bytes) == 0 && strncmp(path + bytes, "/blobs/", strlen("/blobs/")) == 0;
}

static bool has_packed(const struct wcx_hub_blob *blob)
{
	char name[NAME_MAX + 1];
	struct stat st;

	return snprintf(name, sizeof name, "%s.wcx", blob->name) < (int)sizeof name &&
	       fstatat(blob->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

/* Whether a name of the directory is a link that `wcx hub` has made for the blob: it ends in the blob's own path. */
static bool is_own_link(const struct wcx_hub_blob *blob, const char *name)
{
	char text[PATH_MAX];
	const ssize_t bytes = readlinkat(blob->dir_fd, name, text, sizeof text - 1);
	const size_t own = strlen(blob->relative);

	if (bytes <= (ssize_t)own)
		return false;
	text[bytes] = '\0';
	return text[(size_t)bytes - own - 1] == '/' && strcmp(text + bytes - own, blob->relative) == 0;
}

enum wcx_hub_kind wcx_hub_blob_look(struct wcx_hub_blob *blob, const char *cache)
{
	char target[PATH_MAX];

	if (fstatat(blob->dir_fd, blob->name, &blob->entry, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT && blob->only_packed && has_packed(blob) ? WCX_HUB_LEFT_OVER : WCX_HUB_OTHER;
	if (blob->only_packed)
		return WCX_HUB_OTHER; /* the blob has an entry of its own in the directory */
	blob->source = blob->entry;
	if (S_ISREG(blob->entry.st_mode))
		return WCX_HUB_PLAIN;
	if (!S_ISLNK(blob->entry.st_mode))
		return WCX_HUB_OTHER;
	if (is_own_link(blob, blob->name))
		return has_packed(blob) ? WCX_HUB_LINKED : WCX_HUB_DANGLING;
	if (realpath(blob->path, target) && is_shared_path(target, cache) && lstat(target, &blob->source) == 0 &&
	    S_ISREG(blob->source.st_mode))
		return WCX_HUB_SHARED;
	return WCX_HUB_OTHER;
}

/* Reads the length of the header and its first byte. */
static bool read_begin(int fd, uint8_t begin[LENGTH_BYTES + 1])
{
	return wcx_read_exact(fd, begin, LENGTH_BYTES + 1, 0) == 0;
}

bool wcx_hub_blob_is_safetensors(const struct wcx_hub_blob *blob)
{
	const int fd = openat(blob->dir_fd, blob->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	uint8_t begin[LENGTH_BYTES + 1];
	const bool read = fd >= 0 && read_begin(fd, begin);

	if (fd >= 0)
		close(fd);
	return read && wcx_le64_read(begin) <= HEADER_MAX &&
	       wcx_le64_read(begin) + LENGTH_BYTES <= (uint64_t)blob->source.st_size &&
	       strchr("{ \t\r\n", begin[LENGTH_BYTES]) && begin[LENGTH_BYTES];
}

/* Gives the blob its name back, unless that is somebody else's by now. */
static int name_again(const struct wcx_hub_blob *blob, const char *temporary, bool replaces)
{
	return renameat2(blob->dir_fd, temporary, blob->dir_fd, blob->name, replaces ? 0 : RENAME_NOREPLACE) < 0 ? -errno
														 : 0;
}

/*
 * Whether a file is what BLOB.wcx says it holds, or the only one of the two that is there.  Else it may be a part of the
 * source, in a copy of a cache that did not end.
 */
static bool is_whole(const struct wcx_hub_blob *blob, const char *name)
{
	const int fd = openat(blob->dir_fd, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	char packed_name[NAME_MAX + 1];
	uint8_t sha256[WCX_SHA256_BYTES];
	struct wcx_superblock sb;
	struct stat st;
	int packed_fd;
	bool ret = fd >= 0 && fstat(fd, &st) == 0;

	snprintf(packed_name, sizeof packed_name, "%.64s.wcx", blob->name);
	packed_fd = openat(blob->dir_fd, packed_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (ret && packed_fd >= 0 && wcx_superblock_read(packed_fd, packed_name, &sb, NULL) == 0)
		ret = (uint64_t)st.st_size == sb.original_bytes &&
		      wcx_file_sha256(fd, name, &wcx_command_stop, sha256, NULL) == 0 &&
		      memcmp(sha256, sb.sha256, sizeof sha256) == 0;
	if (packed_fd >= 0)
		close(packed_fd);
	if (fd >= 0)
		close(fd);
	return ret;
}

/*
 * What wcx_hub_blob_replace calls temporary is its link before the swap, and the source after it.  A source takes its name
 * back: whether its packed file is right is found out before it is replaced again.  What may be a part of it stays.
 */
static void tidy_up(const struct wcx_hub_blob *blob, const char *temporary)
{
	struct stat st;

	if (fstatat(blob->dir_fd, temporary, &st, AT_SYMLINK_NOFOLLOW) < 0 || (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode)))
		return;
	if (S_ISLNK(st.st_mode) && fstatat(blob->dir_fd, temporary, &st, 0) < 0 && errno != ENOENT)
		return;
	/* It leads nowhere, as its shared file is gone; or it was not swapped. */
	if (S_ISLNK(st.st_mode) || is_own_link(blob, temporary))
		unlinkat(blob->dir_fd, temporary, 0);
	else if (fstatat(blob->dir_fd, blob->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !is_own_link(blob, blob->name))
		unlinkat(blob->dir_fd, temporary, 0); /* it was downloaded again */
	else if (is_whole(blob, temporary))
		name_again(blob, temporary, S_ISLNK(st.st_mode));
}

static bool set(struct wcx_hub_blob *blob, const char *dir, const char *repository, const char *name, size_t bytes)
{
	if (snprintf(blob->path, sizeof blob->path, "%s/%.*s", dir, (int)bytes, name) >= (int)sizeof blob->path)
		return false;
	blob->name = strrchr(blob->path, '/') + 1;
	blob->relative = blob->name - strlen("/blobs/") - strlen(repository);
	return is_hash(blob->name);
}

bool wcx_hub_blob_set(struct wcx_hub_blob *blob, const char *dir, const char *repository, const char *name, bool tidies)
{
	const size_t bytes = strlen(name), prefix_bytes = strlen(temporary_prefix);

	blob->only_packed = bytes > SUFFIX_BYTES && strcmp(name + bytes - SUFFIX_BYTES, ".wcx") == 0;
	if (strncmp(name, temporary_prefix, prefix_bytes) != 0)
		return set(blob, dir, repository, name, bytes - (blob->only_packed ? SUFFIX_BYTES : 0));
	if (tidies && set(blob, dir, repository, name + prefix_bytes, bytes - prefix_bytes))
		tidy_up(blob, name);
	return false;
}

/* --- the mount --- */

/* The path from one directory to another, both absolute and without links. */
static int relative_path(const char *from, const char *to, char ret[PATH_MAX])
{
	size_t same = 0, at = 0, bytes;

	for (size_t i = 0;; i++) {
		const bool from_ends = !from[i] || from[i] == '/', to_ends = !to[i] || to[i] == '/';

		if (from_ends && to_ends)
			same = i;
		if (from[i] != to[i] || !from[i])
			break;
	}
	for (const char *rest = from + same; (rest = strchr(rest, '/')); rest++) {
		if (at + sizeof "../" > PATH_MAX)
			return -ENAMETOOLONG;
		memcpy(ret + at, "../", 3);
		at += 3;
	}
	bytes = strlen(to + same + (to[same] == '/'));
	if (at + bytes >= PATH_MAX)
		return -ENAMETOOLONG;
	memcpy(ret + at, to + same + (to[same] == '/'), bytes + 1);
	return 0;
}

int wcx_hub_link_text(const struct wcx_hub_blob *blob, const char *cache, const char *mount, bool relative,
		      char ret[PATH_MAX], struct wcx_error *err)
{
	char dir[2 * PATH_MAX], base[PATH_MAX], text[2 * PATH_MAX];

	snprintf(base, sizeof base, "%s", mount);
	snprintf(dir, sizeof dir, "%s/%s", cache, blob->relative);
	*strrchr(dir, '/') = '\0';
	if (relative && relative_path(dir, mount, base) < 0)
		return fail_on(blob, ENAMETOOLONG, err);
	snprintf(text, sizeof text, "%s/%s", base, blob->relative);
	if (strlen(text) >= PATH_MAX)
		return fail_on(blob, ENAMETOOLONG, err);
	strcpy(ret, text);
	return 0;
}

/* --- replacing --- */

static bool is_same(const struct stat *a, const struct stat *b)
{
	return wcx_is_same_file(a, b) && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Whether the blob's name now leads to a file in the mount that begins as the source, which is open as source_fd, does. */
static bool leads_to_mount(const struct wcx_hub_blob *blob, dev_t mount_device, int source_fd)
{
	const int fd = openat(blob->dir_fd, blob->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	uint8_t shown[LENGTH_BYTES + 1], source[LENGTH_BYTES + 1];
	struct stat st;
	const bool right = fd >= 0 && fstat(fd, &st) == 0 && st.st_dev == mount_device && S_ISREG(st.st_mode) &&
			   st.st_size == blob->source.st_size && read_begin(fd, shown) && read_begin(source_fd, source) &&
			   memcmp(shown, source, sizeof shown) == 0;

	if (fd >= 0)
		close(fd);
	return right;
}

static bool wait_until_shown(const struct wcx_hub_blob *blob, dev_t mount_device, int source_fd)
{
	const struct timespec pause = { .tv_nsec = TRY_NS };

	for (int i = 0; i < SHOWN_TRIES; i++) {
		if (leads_to_mount(blob, mount_device, source_fd))
			return true;
		nanosleep(&pause, NULL);
	}
	return false;
}

/*
 * Removes a shared file, if it is the source still, unless a blob in the list beside it, HASH.refs, leads to it, or may;
 * without a list it stays.
 */
static void release_shared(const char *path, const char *cache, const struct stat *source)
{
	char list_path[PATH_MAX + 8], lock_path[PATH_MAX + 8], candidate[2 * PATH_MAX], line[PATH_MAX];
	struct stat shared, st;
	bool used = false;
	FILE *list;
	int lock;

	snprintf(list_path, sizeof list_path, "%s.refs", path);
	snprintf(lock_path, sizeof lock_path, "%s.lock", path);
	lock = wcx_hub_open_lock(lock_path);
	list = lock >= 0 && flock(lock, LOCK_EX) == 0 ? fopen(list_path, "re") : NULL;
	if (list && lstat(path, &shared) == 0 && is_same(&shared, source)) {
		while (!used && fgets(line, sizeof line, list)) {
			line[strcspn(line, "\n")] = '\0';
			snprintf(candidate, sizeof candidate, "%s/%s", cache, line);
			used = stat(candidate, &st) == 0 ? wcx_is_same_file(&st, &shared)
							 : errno != ENOENT && errno != ENOTDIR;
		}
		if (!used && !ferror(list) && unlink(path) == 0)
			unlink(list_path);
	}
	if (list)
		fclose(list);
	if (lock >= 0)
		close(lock);
}

/* Whether the source is as it was when it was looked at. */
static bool is_unchanged(const struct wcx_hub_blob *blob, int source_fd)
{
	struct stat st;

	return fstat(source_fd, &st) == 0 && is_same(&st, &blob->source);
}

/* Swaps the blob and the link, which is called temporary.  Unlike a rename, this fails if the blob has been removed. */
static int swap(const struct wcx_hub_blob *blob, const char *temporary)
{
	return renameat2(blob->dir_fd, temporary, blob->dir_fd, blob->name, RENAME_EXCHANGE) < 0 ? -errno : 0;
}

/* After a success temporary is the source; after a failure it is the link, or gone. */
static int exchange(const struct wcx_hub_blob *blob, const char *temporary, dev_t mount_device, int source_fd,
		    struct wcx_error *err)
{
	struct stat was;
	int r = swap(blob, temporary);

	if (r == -ENOENT)
		return -EAGAIN;
	if (r < 0)
		return wcx_fail(err, -r, "%s: cannot be swapped with a link: %s", blob->path, strerror(-r));
	if (fstatat(blob->dir_fd, temporary, &was, AT_SYMLINK_NOFOLLOW) < 0 || !is_same(&was, &blob->entry))
		r = -EAGAIN;
	else if (!wait_until_shown(blob, mount_device, source_fd))
		r = wcx_fail(err, EIO, "%s: the mount does not show the packed file; left as it was", blob->path);
	else if ((r = wcx_sync_directory(blob->dir_fd)) < 0)
		r = fail_on(blob, -r, err);
	else if (!is_unchanged(blob, source_fd))
		r = -EAGAIN;
	if (r < 0 && swap(blob, temporary) < 0)
		renameat(blob->dir_fd, temporary, blob->dir_fd, blob->name); /* the link has been removed */
	return r;
}

int wcx_hub_blob_replace(const struct wcx_hub_blob *blob, const char *text, dev_t mount_device, struct wcx_error *err)
{
	char temporary[NAME_MAX + 1], shared[PATH_MAX], cache[PATH_MAX];
	const bool is_shared = S_ISLNK(blob->entry.st_mode) && realpath(blob->path, shared);
	const int source_fd = openat(blob->dir_fd, blob->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat left;
	int r;

	if (source_fd < 0)
		return errno == ENOENT ? -EAGAIN : fail_on(blob, errno, err);
	if (!is_unchanged(blob, source_fd)) {
		close(source_fd);
		return -EAGAIN;
	}
	snprintf(temporary, sizeof temporary, "%s%.64s", temporary_prefix, blob->name);
	r = symlinkat(text, blob->dir_fd, temporary) < 0 ? fail_on(blob, errno, err) : 0;
	if (r == 0 && geteuid() == 0 &&
	    fchownat(blob->dir_fd, temporary, blob->entry.st_uid, blob->entry.st_gid, AT_SYMLINK_NOFOLLOW) < 0)
		r = fail_on(blob, errno, err);
	if (r == 0)
		r = exchange(blob, temporary, mount_device, source_fd, err);
	/* Never the source, if it could not get its name back. */
	if (r == 0 || (fstatat(blob->dir_fd, temporary, &left, AT_SYMLINK_NOFOLLOW) == 0 && !is_same(&left, &blob->entry)))
		unlinkat(blob->dir_fd, temporary, 0);
	close(source_fd);
	if (r == 0 && is_shared) {
		snprintf(cache, sizeof cache, "%.*s", (int)(blob->relative - blob->path - 1), blob->path);
		release_shared(shared, cache, &blob->source);
	}
	return r;
}

void wcx_hub_blob_temporary_path(const struct wcx_hub_blob *blob, char ret[PATH_MAX + 16])
{
	snprintf(ret, PATH_MAX + 16, "%.*s%s%s", (int)(blob->name - blob->path), blob->path, temporary_prefix, blob->name);
}

int wcx_hub_blob_restore(const struct wcx_hub_blob *blob, struct wcx_error *err)
{
	char temporary[NAME_MAX + 1];
	struct stat now;
	int r = 0;

	snprintf(temporary, sizeof temporary, "%s%.64s", temporary_prefix, blob->name);
	if (!blob->only_packed &&
	    (fstatat(blob->dir_fd, blob->name, &now, AT_SYMLINK_NOFOLLOW) < 0 || !is_same(&now, &blob->entry)))
		r = -EAGAIN;
	if (r == 0)
		r = name_again(blob, temporary, !blob->only_packed);
	if (r == 0)
		r = wcx_sync_directory(blob->dir_fd);
	if (r < 0)
		unlinkat(blob->dir_fd, temporary, 0);
	if (r == -EEXIST)
		r = -EAGAIN;
	return r == 0 || r == -EAGAIN ? r : fail_on(blob, -r, err);
}

int wcx_hub_blob_link(const struct wcx_hub_blob *blob, const char *text, struct wcx_error *err)
{
	return symlinkat(text, blob->dir_fd, blob->name) < 0 && errno != EEXIST ? fail_on(blob, errno, err) : 0;
}
