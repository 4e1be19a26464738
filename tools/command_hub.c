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
#include "fs/base/file_copy.h"
#include "fs/base/file_io.h"
#include "fs/base/size_text.h"
#include "fs/pack/pack.h"
#include "fs/pack/pack_done.h"
#include "fs/read/base_lock.h"
#include "fs/read/export.h"
#include "fs/read/unpack.h"
#include "tools/command.h"
#include "tools/dependents.h"
#include "tools/hub_blob.h"
#include "tools/hub_names.h"
#include "tools/print.h"

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
			   "                    (by default, and if CACHE is not in DIR, from CACHE upwards, like\n"
			   "                    wcx rm, which has no DIR then)\n"
			   "  -n, --dry-run     only print what would be done\n"
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
	int pass; /* --undo makes two */
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
		wcx_print(stdout, "%s: %s\n", blob->path, what);
}

/*
 * Opens BLOB.wcx before it is removed or replaced, so that nobody packs against it until it is closed.  -ENOENT: it is not
 * there; another -errno has a message: others need it.
 */
static int lock_packed(struct hub *hub, const struct wcx_hub_blob *blob, const char *what, struct stat *st,
		       struct wcx_error *err)
{
	char name[NAME_MAX + 8], path[PATH_MAX + 8];

	snprintf(name, sizeof name, "%s.wcx", blob->name);
	snprintf(path, sizeof path, "%s.wcx", blob->path);
	return wcx_dependents_lock(hub->dependents, hub->cache, blob->dir_fd, name, path, what, st, err);
}

/* Opens BLOB.wcx and reads its superblock; a descriptor or -errno. */
static int open_packed(const struct wcx_hub_blob *blob, struct wcx_superblock *sb, struct wcx_error *err)
{
	char name[NAME_MAX + 8], path[PATH_MAX + 8];
	int fd, r;

	snprintf(name, sizeof name, "%s.wcx", blob->name);
	snprintf(path, sizeof path, "%s.wcx", blob->path);
	fd = openat(blob->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return wcx_fail(err, errno, "%s: %s", path, strerror(errno));
	r = wcx_superblock_read(fd, path, sb, err);
	if (r == 0)
		return fd;
	close(fd);
	return r;
}

static bool has_bases(const struct wcx_hub_blob *blob)
{
	struct wcx_superblock sb;
	struct wcx_error ignored;
	const int fd = open_packed(blob, &sb, &ignored);

	if (fd >= 0)
		close(fd);
	return fd >= 0 && sb.base_count;
}

/* Whether the blob has the contents that a packed file says it holds: 1, 0, or -errno if that cannot be told. */
static int has_contents(const struct wcx_hub_blob *blob, const struct wcx_superblock *sb, struct wcx_error *err)
{
	uint8_t sha256[WCX_SHA256_BYTES];
	int fd, r;

	if (sb->original_bytes != (uint64_t)blob->source.st_size)
		return 0;
	fd = openat(blob->dir_fd, blob->name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return wcx_fail(err, errno, "%s: %s", blob->path, strerror(errno));
	r = wcx_file_sha256(fd, blob->path, &wcx_command_stop, sha256, err);
	close(fd);
	return r < 0 ? r : memcmp(sha256, sb->sha256, sizeof sha256) == 0;
}

/* --- packing --- */

static void report_verifying(void *user, uint64_t done, uint64_t total)
{
	wcx_progress(user, "verifying", done, total);
}

/* Whether an open packed file is sound: 1, 0, or -errno if the command is to stop. */
static int is_sound(struct hub *hub, const struct wcx_hub_blob *blob, int packed_fd, struct wcx_error *err)
{
	const struct wcx_export_ops ops = { .progress = report_verifying };
	struct command *command = hub->command;
	struct wcx_image *image = NULL;
	struct wcx_error damage;
	const int copy = fcntl(packed_fd, F_DUPFD_CLOEXEC, 0);
	int r = copy < 0 ? wcx_fail(err, errno, "%s: %s", blob->path, strerror(errno)) : wcx_command_prepare(command, err);

	if (r < 0) {
		if (copy >= 0)
			close(copy);
		return r;
	}
	r = wcx_image_open(copy, blob->path, command->cache, command->decoder, &image, &damage);
	if (r < 0)
		close(copy);
	else
		r = wcx_verify(image, command->thread_count, &ops, command, &wcx_command_stop, &damage);
	wcx_image_put(image);
	return r == -EINTR ? wcx_fail(err, EINTR, "interrupted") : r == 0;
}

/*
 * Opens BLOB.wcx if it gives back all of the blob, by itself, from the disk.  Until it is closed, no command of wcx removes
 * it.  Returns a descriptor, -ENOENT if there is no such file or it is to be made anew, or another -errno with a message.
 */
static int open_sound(struct hub *hub, const struct wcx_hub_blob *blob, struct wcx_error *err)
{
	struct wcx_superblock sb;
	struct wcx_error ignored;
	const int fd = open_packed(blob, &sb, &ignored);
	int r;

	if (fd < 0)
		return -ENOENT;
	r = sb.base_count ? 0 : has_contents(blob, &sb, err);
	if (r > 0 && wcx_base_lock(fd) < 0)
		r = wcx_fail(err, EBUSY, "%s.wcx: another process removes or replaces it", blob->path);
	if (r > 0)
		r = is_sound(hub, blob, fd, err);
	if (r > 0 && fsync(fd) < 0)
		r = wcx_fail(err, errno, "%s.wcx: %s", blob->path, strerror(errno));
	if (r > 0)
		return fd;
	close(fd);
	return r < 0 ? r : -ENOENT;
}

/*
 * Makes BLOB.wcx, unless an interrupted run or another command has.  Returns 0, 1 if the blob is no safetensors file, or
 * -errno; with 0 *held_ret is BLOB.wcx, to be closed when the source is gone.
 */
static int make_packed(struct hub *hub, const struct wcx_hub_blob *blob, int *held_ret, struct wcx_error *err)
{
	struct wcx_pack_options options = {
		.job = { .thread_count = hub->command->thread_count,
			 .stop = &wcx_command_stop,
			 .progress = wcx_progress,
			 .warn = wcx_warn,
			 .user = hub->command },
		.for_speed = hub->command->for_speed,
	};
	char packed_path[PATH_MAX + 8];
	struct wcx_pack_result result;
	struct wcx_superblock sb;
	struct stat st;
	int lock, r;

	*held_ret = open_sound(hub, blob, err);
	if (*held_ret != -ENOENT)
		return WCX_MIN(*held_ret, 0);
	lock = lock_packed(hub, blob, "not replaced", &st, err);
	if (lock < 0 && lock != -ENOENT)
		return lock;
	snprintf(packed_path, sizeof packed_path, "%s.wcx", blob->path);
	options.job.replace = lock >= 0; /* what comes there meanwhile may be a base soon */
	r = wcx_pack(blob->path, packed_path, &options, &result, err);
	wcx_dependents_close(hub->dependents, lock);
	if (r == -EINVAL) /* malformed: as it came */
		wcx_warn(hub->command, err->text);
	if (r == -EMEDIUMTYPE || r == -EINVAL)
		return 1;
	if (r < 0)
		return r;
	hub->original_bytes += result.original_bytes;
	hub->packed_bytes += result.packed_bytes;
	r = *held_ret = open_packed(blob, &sb, err);
	if (r < 0)
		return r;
	if (wcx_base_lock(r) == 0 && memcmp(sb.sha256, result.sha256, sizeof sb.sha256) == 0)
		return 0;
	close(r);
	return wcx_fail(err, EBUSY, "%s: another process removes or replaces it", packed_path);
}

static void pack_blob(struct hub *hub, const struct wcx_hub_blob *blob)
{
	struct wcx_error err;
	char text[PATH_MAX];
	int held, r;

	if (hub->dry_run) {
		if (wcx_hub_blob_is_safetensors(blob))
			tell(hub, blob, "would be packed");
		return;
	}
	if (!wcx_hub_blob_is_safetensors(blob)) {
		tell(hub, blob, "not a safetensors file, left as it is");
		return;
	}
	r = make_packed(hub, blob, &held, &err);
	if (r == 1) {
		tell(hub, blob, "not a valid safetensors file, left as it is");
		return;
	}
	if (r == 0) {
		r = wcx_hub_link_text(blob, hub->cache, hub->mount, hub->relative, text, &err);
		if (r == 0)
			r = wcx_hub_blob_replace(blob, text, hub->mount_device, &err);
		close(held);
	}
	if (r == -EAGAIN) /* removed or changed meanwhile: the next run will see */
		return;
	if (r < 0) {
		fail(hub, &err);
		return;
	}
	hub->packed++;
	tell(hub, blob, "packed");
}

/* --- unpacking --- */

/* Removes BLOB.wcx, if it is still what the blob has been restored from. */
static int remove_restored(struct hub *hub, const struct wcx_hub_blob *blob, const struct stat *was, struct wcx_error *err)
{
	char name[NAME_MAX + 8];
	struct stat st, restored;
	int r = 0, lock = lock_packed(hub, blob, "restored, but kept", &st, err);

	if (lock < 0)
		return lock == -ENOENT ? 0 : lock;
	snprintf(name, sizeof name, "%s.wcx", blob->name);
	if (!wcx_same_version(&st, was))
		r = wcx_fail(err, EBUSY, "%s.wcx: restored, but kept, since it changed meanwhile", blob->path);
	else if (fstatat(blob->dir_fd, blob->name, &restored, 0) < 0 || !S_ISREG(restored.st_mode))
		r = wcx_fail(err, EBUSY, "%s.wcx: kept, since another process has removed what was restored", blob->path);
	else if (unlinkat(blob->dir_fd, name, 0) < 0)
		r = wcx_fail(err, errno, "%s.wcx: %s", blob->path, strerror(errno));
	wcx_dependents_close(hub->dependents, lock);
	return r;
}

static void end_restoring(struct hub *hub, const struct wcx_hub_blob *blob, int r, const struct wcx_error *err)
{
	if (r == -EAGAIN) /* removed or downloaded meanwhile: the next run will see */
		return;
	if (r < 0) {
		fail(hub, err);
		return;
	}
	hub->restored++;
	tell(hub, blob, "restored");
}

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
	struct stat was;
	int r;

	if (hub->dry_run) {
		tell(hub, blob, "would be restored");
		return;
	}
	snprintf(packed_path, sizeof packed_path, "%s.wcx", blob->path);
	wcx_hub_blob_temporary_path(blob, new_path);
	r = wcx_command_open(hub->command, packed_path, &image, &err);
	if (r == 0 && fstat(wcx_container_fd(wcx_image_container(image)), &was) < 0)
		r = wcx_fail(&err, errno, "%s: %s", packed_path, strerror(errno));
	if (r == 0)
		r = wcx_unpack(image, new_path, &job, &err);
	wcx_image_put(image);
	if (r == 0)
		r = wcx_hub_blob_restore(blob, &err);
	if (r == 0)
		r = remove_restored(hub, blob, &was, &err);
	end_restoring(hub, blob, r, &err);
}

/* Removes a packed file beside its original: a run was killed in between, or the blob was downloaded again. */
static void finish_restoring(struct hub *hub, const struct wcx_hub_blob *blob)
{
	struct wcx_superblock sb;
	struct wcx_error err;
	struct stat was;
	int r, fd = open_packed(blob, &sb, &err), source_fd;

	if (fd < 0)
		return;
	r = has_contents(blob, &sb, &err);
	if (r > 0 && hub->dry_run) {
		tell(hub, blob, "its packed file would be removed");
	} else if (r > 0) {
		source_fd = openat(blob->dir_fd, blob->name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (source_fd < 0 || fsync(source_fd) < 0 || wcx_sync_directory(blob->dir_fd) < 0 || fstat(fd, &was) < 0)
			r = wcx_fail(&err, errno, "%s: %s", blob->path, strerror(errno));
		if (source_fd >= 0)
			close(source_fd);
		if (r > 0)
			r = remove_restored(hub, blob, &was, &err);
		end_restoring(hub, blob, r, &err);
	} else if (r < 0) {
		fail(hub, &err);
	}
	close(fd);
}

/* What is packed against others is restored before these. */
static bool is_due(const struct hub *hub, const struct wcx_hub_blob *blob)
{
	return !hub->undo || has_bases(blob) == (hub->pass == 0);
}

/* --- what nothing names any more --- */

static void remove_packed(struct hub *hub, const struct wcx_hub_blob *blob, bool with_link)
{
	char name[NAME_MAX + 8];
	struct wcx_error err;
	struct stat st;
	int lock;

	if (hub->dry_run) {
		tell(hub, blob, "is not in use, and would be removed");
		return;
	}
	lock = lock_packed(hub, blob, "no longer in use, but kept", &st, &err);
	if (lock < 0 && lock != -ENOENT) {
		wcx_warn(hub->command, err.text); /* as it should be */
		return;
	}
	snprintf(name, sizeof name, "%s.wcx", blob->name);
	/* The link first: a link without its file would look like a blob that is still to come. */
	if ((with_link && unlinkat(blob->dir_fd, blob->name, 0) < 0 && errno != ENOENT) ||
	    (unlinkat(blob->dir_fd, name, 0) < 0 && errno != ENOENT)) {
		wcx_fail(&err, errno, "%s: %s", blob->path, strerror(errno));
		fail(hub, &err);
	} else {
		hub->removed++;
		tell(hub, blob, "not in use, removed");
	}
	wcx_dependents_close(hub->dependents, lock);
}

/*
 * Removes a packed file that no snapshot names, and its link.  Before release 1.32, huggingface_hub removes what blobs lead
 * to instead of the blobs, so it leaves the links.  Its lock keeps downloads of the blob away meanwhile.  One that saw the
 * blob just before it waited for the lock makes a link to nothing, and its next call downloads the blob.
 */
static void remove_unnamed(struct hub *hub, struct wcx_hub_blob *blob, const char *repository, enum wcx_hub_kind kind)
{
	struct wcx_hub_names names = { 0 };
	bool unnamed;
	int lock = wcx_hub_lock(hub->cache, repository, blob->name);

	if (lock == -EWOULDBLOCK)
		return;
	unnamed = wcx_hub_blob_look(blob, hub->cache) == kind && wcx_hub_names_read(&names, hub->cache, repository) == 0 &&
		  !wcx_hub_names_has(&names, blob->name);
	wcx_hub_names_free(&names);
	if (unnamed)
		remove_packed(hub, blob, kind == WCX_HUB_LINKED);
	if (lock >= 0)
		close(lock);
}

/* --- directories --- */

/* A packed file without a blob: packed in place by another command. */
static void link_left_over(struct hub *hub, const struct wcx_hub_blob *blob)
{
	struct wcx_error err;
	char text[PATH_MAX];
	int r;

	if (hub->dry_run) {
		tell(hub, blob, "would be linked");
		return;
	}
	r = wcx_hub_link_text(blob, hub->cache, hub->mount, hub->relative, text, &err);
	if (r == 0)
		r = wcx_hub_blob_link(blob, text, &err);
	if (r < 0) {
		fail(hub, &err);
		return;
	}
	tell(hub, blob, "linked");
	if (has_bases(blob)) {
		wcx_fail(&err, 0, "%s.wcx: packed against another file, which `hf cache rm` may remove", blob->path);
		wcx_warn(hub->command, err.text);
	}
}

/* names is NULL if the snapshots cannot be read: nothing is known, so nothing is removed. */
static void handle_entry(struct hub *hub, struct wcx_hub_blob *blob, const char *repository,
			 const struct wcx_hub_names *names)
{
	const enum wcx_hub_kind kind = wcx_hub_blob_look(blob, hub->cache);
	const bool is_named = names && wcx_hub_names_has(names, blob->name);

	switch (kind) {
	case WCX_HUB_PLAIN:
	case WCX_HUB_SHARED:
		if (hub->undo)
			finish_restoring(hub, blob);
		else
			pack_blob(hub, blob);
		break;
	case WCX_HUB_LINKED:
		if (hub->undo)
			restore_blob(hub, blob);
		else if (names && !is_named)
			remove_unnamed(hub, blob, repository, kind);
		break;
	case WCX_HUB_LEFT_OVER: /* of a blob that was removed, or packed in place by another command */
		if (hub->undo && (is_named || !names))
			restore_blob(hub, blob);
		else if (!hub->undo && is_named)
			link_left_over(hub, blob);
		else if (!hub->undo && names)
			remove_unnamed(hub, blob, repository, kind);
		break;
	case WCX_HUB_DANGLING: /* its packed file is gone: for huggingface_hub there is no such blob */
	case WCX_HUB_OTHER:
		break;
	}
}

static void fail_on(struct hub *hub, const char *repository, const char *directory, int errnum)
{
	struct wcx_error err;

	wcx_fail(&err, errnum, "%s/%s/%s: %s", hub->cache, repository, directory, strerror(errnum));
	fail(hub, &err);
}

static void handle_repository(struct hub *hub, const char *repository)
{
	struct wcx_hub_blob blob = { .dir_fd = -1 };
	struct wcx_hub_names names;
	char blobs[PATH_MAX];
	struct dirent **entries = NULL;
	const int r = wcx_hub_names_read(&names, hub->cache, repository);
	const bool named = r == 0;
	int count = 0;

	if (r < 0 && r != -ENOENT && hub->pass == 0)
		fail_on(hub, repository, "snapshots", -r);
	if (snprintf(blobs, sizeof blobs, "%s/%s/blobs", hub->cache, repository) < (int)sizeof blobs - NAME_MAX - 2)
		blob.dir_fd = open(blobs, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (blob.dir_fd >= 0)
		count = scandir(blobs, &entries, NULL, alphasort);
	if ((count < 0 || (blob.dir_fd < 0 && errno != ENOENT)) && hub->pass == 0)
		fail_on(hub, repository, "blobs", errno);
	for (int i = 0; i < count; i++) {
		if (!wcx_command_stop && wcx_hub_blob_set(&blob, blobs, repository, entries[i]->d_name, !hub->dry_run) &&
		    is_due(hub, &blob))
			handle_entry(hub, &blob, repository, named ? &names : NULL);
		free(entries[i]);
	}
	free(entries);
	if (blob.dir_fd >= 0)
		close(blob.dir_fd);
	wcx_hub_names_free(&names);
}

/* --- whether the mount is that of the cache --- */

/* Where files are made that are only to be seen in the mount: `hf cache` passes over the first; an old cache may lack it. */
static const char *const probe_directories[] = { ".locks/", "" };
static const char probe_prefix[] = ".wcx-hub-";

/* Removes such files as a run has left that was killed.  No other run is at work. */
static void remove_probes(const struct hub *hub, const char *directory_name)
{
	const size_t prefix_bytes = strlen(probe_prefix);
	char path[PATH_MAX + 32];
	struct stat st;
	DIR *directory;

	snprintf(path, sizeof path, "%s/%s", hub->cache, directory_name);
	directory = opendir(path);
	for (const struct dirent *entry; directory && (entry = readdir(directory));)
		if (strncmp(entry->d_name, probe_prefix, prefix_bytes) == 0 && strlen(entry->d_name) == prefix_bytes + 6 &&
		    fstatat(dirfd(directory), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
		    !st.st_size && st.st_uid == geteuid())
			unlinkat(dirfd(directory), entry->d_name, 0);
	if (directory)
		closedir(directory);
}

/* Whether the mount shows the cache, and not another one with the same files: whether it has a new file, too. */
static int check_shown(const struct hub *hub, struct wcx_error *err)
{
	char path[PATH_MAX + 32], shown[2 * PATH_MAX];
	struct stat st;
	int fd = -1, r = 0;

	for (size_t i = 0; i < WCX_ARRAY_COUNT(probe_directories) && fd < 0; i++) {
		snprintf(path, sizeof path, "%s/%s%sXXXXXX", hub->cache, probe_directories[i], probe_prefix);
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

/* --- the cache --- */

static int is_repository(const struct dirent *entry)
{
	return entry->d_name[0] != '.' && strstr(entry->d_name, "--") != NULL && entry->d_type != DT_REG;
}

static int handle_repositories(struct hub *hub, struct wcx_error *err)
{
	struct dirent **entries;
	const int count = scandir(hub->cache, &entries, is_repository, alphasort);

	if (count < 0)
		return wcx_fail(err, errno, "%s: %s", hub->cache, strerror(errno));
	for (hub->pass = 0; hub->pass < (hub->undo ? 2 : 1); hub->pass++)
		for (int i = 0; i < count && !wcx_command_stop; i++)
			handle_repository(hub, entries[i]->d_name);
	for (int i = 0; i < count; i++)
		free(entries[i]);
	free(entries);
	return 0;
}

static int handle_cache(struct hub *hub, struct wcx_error *err)
{
	const int lock = open(hub->cache, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool is_alone;
	int r = 0;

	if (lock < 0)
		return wcx_fail(err, errno, "%s: %s", hub->cache, strerror(errno));
	is_alone = flock(lock, LOCK_EX | LOCK_NB) == 0; /* otherwise another is at work, or there are no locks */
	if (!is_alone && errno == EWOULDBLOCK)
		r = wcx_fail(err, EBUSY, "%s: another wcx hub is at work there", hub->cache);
	for (size_t i = 0; i < WCX_ARRAY_COUNT(probe_directories) && is_alone && !hub->dry_run; i++)
		remove_probes(hub, probe_directories[i]);
	if (r == 0 && !hub->undo && !hub->dry_run)
		r = check_shown(hub, err);
	if (r == 0)
		r = handle_repositories(hub, err);
	close(lock);
	return r;
}

static int find_directory(const char *path, char ret[PATH_MAX], struct stat *st, struct wcx_error *err)
{
	if (!realpath(path, ret) || stat(ret, st) < 0)
		return wcx_fail(err, errno, "%s: %s", path, strerror(errno));
	return S_ISDIR(st->st_mode) ? 0 : wcx_fail(err, ENOTDIR, "%s: not a directory", path);
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
	return 0;
}

static void print_summary(const struct hub *hub)
{
	char original[WCX_SIZE_TEXT_BYTES], packed[WCX_SIZE_TEXT_BYTES];

	wcx_progress_clear(hub->command);
	if (hub->command->quiet || hub->dry_run)
		return;
	wcx_print(stderr, "%s: %u packed", hub->cache, hub->packed);
	if (hub->original_bytes)
		fprintf(stderr, " (%s into %s)", wcx_size_text((double)hub->original_bytes, original),
			wcx_size_text((double)hub->packed_bytes, packed));
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

	while ((option = wcx_command_getopt(argc, argv, WCX_COMMAND_SHORT_OPTIONS "n", options)) != -1) {
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
	command->store = hub.cache; /* where blobs find their bases */
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
