/* SPDX-License-Identifier: MIT */
/* wcx hub: packs the blobs of a live Hugging Face cache, and leaves links into a mount of it in their place. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/pack/pack.h"
#include "fs/pack/pack_done.h"
#include "fs/read/unpack.h"
#include "tools/command.h"
#include "tools/dependents.h"
#include "tools/hub_blob.h"
#include "tools/hub_names.h"

static const char help[] = "usage: wcx hub [OPTIONS] CACHE MOUNT\n"
			   "       wcx hub --undo [OPTIONS] CACHE\n"
			   "\n"
			   "Packs what is new in a Hugging Face cache that is in use.  MOUNT is where wcxfs shows\n"
			   "CACHE; it must be another directory.  Each blob BLOB that is a safetensors file becomes\n"
			   "BLOB.wcx, and BLOB a symbolic link to the file in MOUNT.  So CACHE stays an ordinary,\n"
			   "writable cache for `hf download`, `hf cache` and every loader.  A source is replaced\n"
			   "only after its packed file is verified and synced and MOUNT shows it.\n"
			   "\n"
			   "Also removes packed blobs that `hf cache rm` and `hf cache prune` left behind.\n"
			   "Run it after a download or from a timer; what is done already is skipped.\n"
			   "\n"
			   "      --undo        restore the originals and remove the packed files\n"
			   "      --relative    make links relative, for a CACHE and MOUNT that move together\n"
			   "      --for=GOAL    size (default) or speed, as of wcx pack\n"
			   "      --store=DIR   look in DIR for files that are packed against blobs, which are kept then\n"
			   "                    (by default as wcx rm does, from CACHE upwards)\n"
			   "  -n, --dry-run     print what would be done\n"
			   "  -j, --threads=N   use N threads (default: one per core)\n"
			   "  -q, --quiet       print only errors\n"
			   "  -v, --verbose     print each blob\n"
			   "  -h, --help        print this text\n"
			   "\n"
			   "Example:\n"
			   "  wcxfs ~/.cache/huggingface/hub ~/.cache/huggingface/unpacked\n"
			   "  wcx hub ~/.cache/huggingface/hub ~/.cache/huggingface/unpacked\n"
			   "\n"
			   "Exit codes: 0 success, 1 failure (the message says why; other blobs are done), 2 invalid\n"
			   "command line.\n";

struct hub {
	struct command *command;
	struct wcx_dependents *dependents;
	char cache[PATH_MAX], mount[PATH_MAX]; /* absolute, without links */
	dev_t mount_device;
	bool undo, relative, dry_run;
	unsigned packed, restored, removed, failed;
	uint64_t original_bytes, packed_bytes; /* of what this run packed */
};

static void fail(struct hub *hub, const struct wcx_error *err)
{
	hub->failed++;
	wcx_command_failed(hub->command, err);
}

static void tell(const struct hub *hub, const struct wcx_hub_blob *blob, const char *what)
{
	wcx_progress_clear(hub->command);
	if (hub->command->verbose || hub->dry_run)
		printf("%s: %s\n", blob->path, what);
}

/*
 * Opens BLOB.wcx before it is removed or replaced, so that nobody packs against it until it is closed.  -ENOENT: it is not
 * there; another -errno has a message: others need it.
 */
static int lock_packed(struct hub *hub, const struct wcx_hub_blob *blob, const char *what, struct wcx_error *err)
{
	char name[NAME_MAX + 8], path[PATH_MAX + 8];
	struct stat st;

	snprintf(name, sizeof name, "%s.wcx", blob->name);
	snprintf(path, sizeof path, "%s.wcx", blob->path);
	return wcx_dependents_lock(hub->dependents, hub->cache, blob->dir_fd, name, path, what, &st, err);
}

/* --- packing --- */

/* Whether BLOB.wcx is what the blob is packed into, by the bytes of the blob: some are not named by their SHA-256. */
static bool has_contents(const struct wcx_hub_blob *blob)
{
	char name[NAME_MAX + 8];
	const int fd = openat(blob->dir_fd, blob->name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	uint8_t sha256[WCX_SHA256_BYTES];
	struct wcx_superblock sb;
	bool ret = false;
	int packed_fd;

	snprintf(name, sizeof name, "%s.wcx", blob->name);
	packed_fd = openat(blob->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0 && packed_fd >= 0 && wcx_superblock_read(packed_fd, name, &sb, NULL) == 0)
		ret = wcx_file_sha256(fd, name, &wcx_command_stop, sha256, NULL) == 0 &&
		      memcmp(sha256, sb.sha256, sizeof sha256) == 0;
	if (packed_fd >= 0)
		close(packed_fd);
	if (fd >= 0)
		close(fd);
	return ret;
}

/* Makes BLOB.wcx, unless an interrupted run has.  Returns 0, 1 if the blob is no safetensors file, or -errno. */
static int make_packed(struct hub *hub, const struct wcx_hub_blob *blob, struct wcx_error *err)
{
	const struct wcx_pack_options options = {
		.job = { .thread_count = hub->command->thread_count,
			 .replace = true,
			 .stop = &wcx_command_stop,
			 .progress = wcx_progress,
			 .warn = wcx_warn,
			 .user = hub->command },
		.for_speed = hub->command->for_speed,
	};
	char packed_path[PATH_MAX + 8];
	struct wcx_pack_result result;
	int lock, r;

	if (wcx_hub_blob_is_packed(blob))
		return 0;
	lock = lock_packed(hub, blob, "not replaced", err);
	if (lock < 0 && lock != -ENOENT)
		return has_contents(blob) ? 0 : lock;
	snprintf(packed_path, sizeof packed_path, "%s.wcx", blob->path);
	r = wcx_pack(blob->path, packed_path, &options, &result, err);
	if (lock >= 0)
		close(lock);
	if (r == -EINVAL) /* malformed: as it came */
		wcx_warn(hub->command, err->text);
	if (r == -EMEDIUMTYPE || r == -EINVAL)
		return 1;
	if (r == 0) {
		hub->original_bytes += result.original_bytes;
		hub->packed_bytes += result.packed_bytes;
	}
	return r;
}

static void pack_blob(struct hub *hub, const struct wcx_hub_blob *blob)
{
	struct wcx_error err;
	char text[PATH_MAX];
	int r;

	if (hub->dry_run) {
		if (wcx_hub_blob_is_safetensors(blob))
			tell(hub, blob, "would be packed");
		return;
	}
	if (!wcx_hub_blob_is_safetensors(blob)) {
		tell(hub, blob, "not a safetensors file, left as it is");
		return;
	}
	r = make_packed(hub, blob, &err);
	if (r == 1) {
		tell(hub, blob, "not a valid safetensors file, left as it is");
		return;
	}
	if (r == 0)
		r = wcx_hub_link_text(blob, hub->cache, hub->mount, hub->relative, text, &err);
	if (r == 0)
		r = wcx_hub_blob_replace(blob, text, hub->mount_device, &err);
	if (r == -EAGAIN) /* removed or replaced meanwhile: the next run will see */
		return;
	if (r < 0) {
		fail(hub, &err);
		return;
	}
	hub->packed++;
	tell(hub, blob, "packed");
}

/* --- unpacking --- */

static void restore_blob(struct hub *hub, const struct wcx_hub_blob *blob)
{
	const struct wcx_job_options job = { .thread_count = hub->command->thread_count,
					     .replace = true,
					     .stop = &wcx_command_stop,
					     .progress = wcx_progress,
					     .warn = wcx_warn,
					     .user = hub->command };
	char packed_path[PATH_MAX + 8], new_path[PATH_MAX + 16];
	struct wcx_image *image = NULL;
	struct wcx_error err;
	int lock = -1, r;

	if (hub->dry_run) {
		tell(hub, blob, "would be restored");
		return;
	}
	snprintf(packed_path, sizeof packed_path, "%s.wcx", blob->path);
	snprintf(new_path, sizeof new_path, "%s.restored", blob->path);
	r = wcx_command_open(hub->command, packed_path, &image, &err);
	if (r == 0)
		r = wcx_unpack(image, new_path, &job, &err);
	wcx_image_put(image);
	if (r == 0 && (rename(new_path, blob->path) < 0 || fsync(blob->dir_fd) < 0))
		r = wcx_fail(&err, errno, "%s: %s", blob->path, strerror(errno));
	if (r == 0) {
		lock = lock_packed(hub, blob, "restored, but kept", &err);
		r = lock == -ENOENT ? 0 : WCX_MIN(lock, 0);
	}
	if (lock >= 0 && unlink(packed_path) < 0)
		r = wcx_fail(&err, errno, "%s: %s", packed_path, strerror(errno));
	if (lock >= 0)
		close(lock);
	if (r < 0) {
		fail(hub, &err);
		return;
	}
	hub->restored++;
	tell(hub, blob, "restored");
}

/* --- what nothing names any more --- */

static void remove_packed(struct hub *hub, const struct wcx_hub_blob *blob, bool with_link)
{
	char packed_path[PATH_MAX + 8];
	struct wcx_error err;
	int lock;

	if (hub->dry_run) {
		tell(hub, blob, "is not in use, and would be removed");
		return;
	}
	lock = lock_packed(hub, blob, "no longer in use, but kept", &err);
	if (lock < 0 && lock != -ENOENT) {
		wcx_warn(hub->command, err.text); /* as it should be */
		return;
	}
	snprintf(packed_path, sizeof packed_path, "%s.wcx", blob->path);
	/* The link first: a link without its file would look like a blob that is still to come. */
	if ((with_link && unlink(blob->path) < 0 && errno != ENOENT) || (unlink(packed_path) < 0 && errno != ENOENT)) {
		wcx_fail(&err, errno, "%s: %s", blob->path, strerror(errno));
		fail(hub, &err);
	} else {
		hub->removed++;
		tell(hub, blob, "not in use, removed");
	}
	if (lock >= 0)
		close(lock);
}

/*
 * Removes a link that no snapshot names.  Before release 1.32, huggingface_hub removes what blobs lead to instead of the
 * blobs, so it leaves the links.  Its lock keeps downloads of the blob away meanwhile.  One that saw the blob just before it
 * waited for the lock makes a link to nothing, and its next call downloads the blob.
 */
static void remove_unnamed(struct hub *hub, const struct wcx_hub_blob *blob, const char *repository)
{
	struct wcx_hub_names names;
	bool unnamed;
	int lock = wcx_hub_lock(hub->cache, repository, blob->name);

	if (lock == -EWOULDBLOCK)
		return;
	unnamed = wcx_hub_names_read(&names, hub->cache, repository) == 0 && !wcx_hub_names_has(&names, blob->name);
	wcx_hub_names_free(&names);
	if (unnamed)
		remove_packed(hub, blob, true);
	if (lock >= 0)
		close(lock);
}

/* --- directories --- */

/* A packed file without a blob: of a blob that was removed, or packed in place by another command. */
static void handle_left_over(struct hub *hub, const struct wcx_hub_blob *blob, const struct wcx_hub_names *names)
{
	struct wcx_error err;
	char text[PATH_MAX];
	int r;

	if (!names) /* nothing is known, so nothing is removed */
		return;
	if (!wcx_hub_names_has(names, blob->name)) {
		if (!hub->undo)
			remove_packed(hub, blob, false);
	} else if (hub->undo) {
		restore_blob(hub, blob);
	} else if (hub->dry_run) {
		tell(hub, blob, "would be linked");
	} else {
		r = wcx_hub_link_text(blob, hub->cache, hub->mount, hub->relative, text, &err);
		if (r == 0)
			r = wcx_hub_blob_link(blob, text, &err);
		if (r < 0)
			fail(hub, &err);
		else
			tell(hub, blob, "linked");
	}
}

/* names is NULL if the snapshots cannot be read. */
static void handle_entry(struct hub *hub, struct wcx_hub_blob *blob, const char *repository,
			 const struct wcx_hub_names *names)
{
	switch (wcx_hub_blob_look(blob, hub->cache)) {
	case WCX_HUB_PLAIN:
	case WCX_HUB_SHARED:
		if (!hub->undo)
			pack_blob(hub, blob);
		break;
	case WCX_HUB_LINKED:
		if (hub->undo)
			restore_blob(hub, blob);
		else if (names && !wcx_hub_names_has(names, blob->name))
			remove_unnamed(hub, blob, repository);
		break;
	case WCX_HUB_LEFT_OVER:
		handle_left_over(hub, blob, names);
		break;
	case WCX_HUB_DANGLING: /* its packed file is gone: for huggingface_hub there is no such blob */
	case WCX_HUB_OTHER:
		break;
	}
}

static void handle_repository(struct hub *hub, const char *repository)
{
	struct wcx_hub_blob blob = { .dir_fd = -1 };
	struct wcx_hub_names names;
	char blobs[PATH_MAX];
	struct dirent **entries = NULL;
	const bool named = wcx_hub_names_read(&names, hub->cache, repository) == 0;
	int count = -1;

	if (snprintf(blobs, sizeof blobs, "%s/%s/blobs", hub->cache, repository) < (int)sizeof blobs - NAME_MAX - 2)
		blob.dir_fd = open(blobs, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (blob.dir_fd >= 0)
		count = scandir(blobs, &entries, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		if (!wcx_command_stop && wcx_hub_blob_set(&blob, blobs, repository, entries[i]->d_name))
			handle_entry(hub, &blob, repository, named ? &names : NULL);
		free(entries[i]);
	}
	free(entries);
	if (blob.dir_fd >= 0)
		close(blob.dir_fd);
	wcx_hub_names_free(&names);
}

static int is_repository(const struct dirent *entry)
{
	return entry->d_name[0] != '.' && strstr(entry->d_name, "--") != NULL;
}

static int handle_cache(struct hub *hub, struct wcx_error *err)
{
	struct dirent **entries;
	int count, lock = open(hub->cache, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (lock < 0)
		return wcx_fail(err, errno, "%s: %s", hub->cache, strerror(errno));
	if (flock(lock, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK) {
		close(lock);
		return wcx_fail(err, EBUSY, "%s: another wcx hub is at work there", hub->cache);
	}
	count = scandir(hub->cache, &entries, is_repository, alphasort);
	for (int i = 0; i < count; i++) {
		if (!wcx_command_stop)
			handle_repository(hub, entries[i]->d_name);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	close(lock);
	return count < 0 ? wcx_fail(err, errno, "%s: %s", hub->cache, strerror(errno)) : 0;
}

static int find_directory(const char *path, char ret[PATH_MAX], struct stat *st, struct wcx_error *err)
{
	if (!realpath(path, ret) || stat(ret, st) < 0)
		return wcx_fail(err, errno, "%s: %s", path, strerror(errno));
	return S_ISDIR(st->st_mode) ? 0 : wcx_fail(err, ENOTDIR, "%s: not a directory", path);
}

/* Whether the mount shows the cache, and not another one with the same files: whether it has a new file, too. */
static int check_shown(const struct hub *hub, struct wcx_error *err)
{
	static const char *const dirs[] = { ".locks/", "" }; /* `hf cache` passes over the first; an old cache may lack it */
	char path[PATH_MAX + 32], shown[2 * PATH_MAX];
	struct stat st;
	int fd = -1, r = 0;

	for (size_t i = 0; i < WCX_ARRAY_COUNT(dirs) && fd < 0; i++) {
		snprintf(path, sizeof path, "%s/%s.wcx-hub-XXXXXX", hub->cache, dirs[i]);
		fd = mkostemp(path, O_CLOEXEC);
	}
	if (fd < 0)
		return wcx_fail(err, errno, "%s: %s", hub->cache, strerror(errno));
	snprintf(shown, sizeof shown, "%s%s", hub->mount, path + strlen(hub->cache));
	if (stat(shown, &st) < 0)
		r = wcx_fail(err, EINVAL, "%s: does not show %s", hub->mount, hub->cache);
	unlink(path);
	close(fd);
	return r;
}

static int find_directories(struct hub *hub, char **paths, struct wcx_error *err)
{
	struct stat cache, mount;
	struct statfs fs;
	int r = find_directory(paths[0], hub->cache, &cache, err);

	if (r < 0 || hub->undo)
		return r;
	r = find_directory(paths[1], hub->mount, &mount, err);
	if (r < 0)
		return r;
	if (statfs(hub->cache, &fs) == 0 && fs.f_type == FUSE_SUPER_MAGIC && access(hub->cache, W_OK) < 0)
		return wcx_fail(err, EROFS, "%s: read-only: give the directory that is mounted, not the mount", hub->cache);
	if (statfs(hub->mount, &fs) < 0 || fs.f_type != FUSE_SUPER_MAGIC || mount.st_dev == cache.st_dev)
		return wcx_fail(err, EINVAL, "%s: not a mount of wcxfs; run `wcxfs %s %s` first", hub->mount, hub->cache,
				hub->mount);
	hub->mount_device = mount.st_dev;
	return hub->dry_run ? 0 : check_shown(hub, err);
}

static void print_summary(const struct hub *hub)
{
	wcx_progress_clear(hub->command);
	if (hub->command->quiet || hub->dry_run)
		return;
	fprintf(stderr, "%s: %u packed", hub->cache, hub->packed);
	if (hub->original_bytes)
		fprintf(stderr, " (%.2f MB into %.2f MB)", (double)hub->original_bytes * 1e-6,
			(double)hub->packed_bytes * 1e-6);
	fprintf(stderr, ", %u restored, %u no longer in use removed, %u failed\n", hub->restored, hub->removed, hub->failed);
}

int wcx_command_hub(struct command *command, int argc, char **argv)
{
	static const struct option options[] = { WCX_COMMAND_LONG_OPTIONS,
						 WCX_COMMAND_GOAL_OPTION,
						 WCX_COMMAND_STORE_OPTION,
						 { "undo", no_argument, NULL, 'u' },
						 { "relative", no_argument, NULL, 'r' },
						 { "dry-run", no_argument, NULL, 'n' },
						 { 0 } };
	struct hub hub = { .command = command };
	struct wcx_error err;
	int option, status, r = 0;

	while ((option = getopt_long(argc, argv, WCX_COMMAND_SHORT_OPTIONS "n", options, NULL)) != -1) {
		if (option == 'u')
			hub.undo = true;
		else if (option == 'r')
			hub.relative = true;
		else if (option == 'n')
			hub.dry_run = true;
		else if ((status = wcx_command_option(command, option, help)) >= 0)
			return status;
	}
	if (argc - optind != (hub.undo ? 1 : 2))
		return wcx_command_usage(command, hub.undo ? "expected a cache" : "expected a cache and its mount");
	wcx_command_catch_signals();
	hub.dependents = wcx_dependents_create(command->store);
	if (!hub.dependents)
		r = wcx_fail(&err, ENOMEM, "no memory");
	if (r == 0)
		r = find_directories(&hub, argv + optind, &err);
	if (r == 0)
		r = handle_cache(&hub, &err);
	wcx_dependents_free(hub.dependents);
	if (r < 0)
		return wcx_command_failed(command, &err);
	print_summary(&hub);
	return hub.failed || wcx_command_stop ? WCX_EXIT_FAILED : WCX_EXIT_OK;
}
