/* SPDX-License-Identifier: MIT */
/* wcx rm: removes packed files, but no base that another file of the store needs. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/ancestors.h"
#include "fs/base/array.h"
#include "fs/base/path.h"
#include "fs/base/same_file.h"
#include "fs/base/tree.h"
#include "fs/read/base_mark.h"
#include "fs/read/packed_index.h"
#include "tools/command.h"
#include "tools/dependents.h"
#include "tools/file_task.h"
#include "tools/print.h"
#include "tools/rebase_file.h"

static const char help[] =
	"usage: wcx rm [OPTIONS] FILE.wcx|TREE...\n"
	"\n"
	"Removes packed files; of a directory, all packed files in it, and nothing else.  A file that\n"
	"another file of the store is packed against is not removed, unless that file goes too: its\n"
	"dependents are named, and the exit code is 1.\n"
	"\n"
	"      --store=DIR     look for dependents in DIR, which has to hold the base and them.  Default: the\n"
	"                      working directory, for a path that leads down from it, otherwise TREE or\n"
	"                      the directory of FILE.wcx; and up to four directories above that as far as\n"
	"                      these hold packed files, on the same file system, without / and the home\n"
	"                      directory\n"
	"      --rebase        first pack the dependents again, without the files that are to go\n"
	"  -n, --dry-run       only print what would be removed and packed again, and what would be kept\n"
	"      --for=GOAL      size (default) or speed, as of wcx pack: how these are packed\n"
	"  -j, --threads=N     use N threads for that (default: one per core)\n"
	"      --decoder=NAME  auto, cpu (default) or cuda\n"
	"  -q, --quiet         print only errors\n"
	"  -v, --verbose       print the store, and each file that is removed or packed again\n"
	"  -h, --help          print this text\n"
	"\n"
	"While wcx pack works against a base, that is locked, and is not removed either.\n"
	"\n"
	"Examples:\n"
	"  wcx rm --store=/data/models /data/models/llama/*.wcx\n"
	"  wcx rm --store=/data/models --dry-run --rebase /data/models/llama\n"
	"\n"
	"Exit codes: 0 all files are removed, 1 a file was not (the message says why), 2 invalid command line;\n"
	"the same with --dry-run, which knows all but failures while files are packed again or removed.\n";

/* A file that is to be removed. */
struct victim {
	char *path;
	const char *name; /* in its directory */
	int directory_fd; /* the same for neighbours in one directory */
	int fd;
	struct stat st;
	const char *start; /* where its dependents are looked for */
	struct wcx_superblock sb;
	bool is_kept; /* it was told why */
};

/* A name of a file that was packed again; other names of what it was still have that. */
struct rebased {
	struct stat st; /* before */
	char *path;
};

struct removal {
	struct command *command;
	struct victim *victims;
	size_t count, capacity;
	char **starts; /* of arguments */
	struct wcx_dependents *dependents;
	struct rebased *rebased; /* what was packed again since the store was read; with --dry-run, what would be */
	size_t rebased_count, rebased_capacity;
	bool rebases, is_dry_run, has_looked;
	int status;
};

static void tell(struct removal *removal, const struct wcx_error *err)
{
	removal->status = wcx_command_failed(removal->command, err);
}

/* What was done, or with --dry-run would be. */
static void tell_done(const struct removal *removal, const char *path, const char *what)
{
	if (removal->is_dry_run)
		wcx_print(stdout, "%s: would be %s\n", path, what);
	else if (removal->command->verbose)
		wcx_print(stderr, "wcx rm: %s: %s\n", path, what);
}

static void keep(struct removal *removal, struct victim *victim, const struct wcx_error *why)
{
	tell(removal, why);
	victim->is_kept = true;
}

/* --- what is to be removed --- */

/*
 * Opens the directory of a path.  That of an argument is the user's choice, links and all.  But what was listed below a tree
 * is opened from its descriptor on (tree_fd, -1: no tree), so that a directory exchanged for a link leads nowhere.
 */
static int open_directory(int tree_fd, const char *path)
{
	char *directory = wcx_directory_of(path);
	int r = -ENOMEM;

	if (directory && tree_fd >= 0) {
		r = wcx_open_without_links(tree_fd, directory, O_RDONLY | O_DIRECTORY);
	} else if (directory) {
		r = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (r < 0)
			r = -errno;
	}
	free(directory);
	return r;
}

/* Whether the directory of a victim is that of the one before it, by its path. */
static bool is_beside_last(const struct removal *removal, const struct victim *victim)
{
	const size_t bytes = (size_t)(victim->name - victim->path);

	return victim > removal->victims && victim[-1].directory_fd >= 0 &&
	       (size_t)(victim[-1].name - victim[-1].path) == bytes && memcmp(victim[-1].path, victim->path, bytes) == 0;
}

/* path: relative to the tree, or else victim->path. */
static int open_victim(const struct removal *removal, struct victim *victim, int tree_fd, const char *path,
		       struct wcx_error *err)
{
	int r;

	victim->name = wcx_last_name(victim->path);
	r = victim->directory_fd = is_beside_last(removal, victim) ? victim[-1].directory_fd : open_directory(tree_fd, path);
	if (r >= 0)
		r = victim->fd = wcx_dependents_open(removal->dependents, victim->directory_fd, victim->name, &victim->st);
	if (r == -EWOULDBLOCK)
		return wcx_fail(err, EWOULDBLOCK, "%s: not removed: another process packs against it, or removes it",
				victim->path);
	if (r < 0)
		return wcx_fail(err, -r, "%s: %s", victim->path,
				r == -ELOOP    ? "a link, which is not removed"
				: r == -EINVAL ? "not a packed file"
					       : strerror(-r));
	if (removal->is_dry_run)
		flock(victim->fd, LOCK_UN); /* nobody is in its way: it was only to be seen whether it can be locked */
	return wcx_superblock_read(victim->fd, victim->path, &victim->sb, err);
}

/* below: the path relative to the directory tree_fd; NULL: path itself, which becomes the victim's. */
static int add_victim(struct removal *removal, char *path, int tree_fd, const char *below, const char *start)
{
	struct victim *grown =
		path ? wcx_array_reserve(removal->victims, &removal->capacity, removal->count + 1, sizeof *grown) : NULL;
	struct wcx_error err;

	if (!grown) {
		free(path);
		return -ENOMEM;
	}
	removal->victims = grown;
	grown += removal->count++;
	*grown = (struct victim){ .path = path, .directory_fd = -1, .fd = -1, .start = start };
	if (open_victim(removal, grown, tree_fd, below ? below : path, &err) < 0)
		keep(removal, grown, &err);
	return 0;
}

/* A directory whose packed files are to be removed. */
struct tree {
	struct removal *removal;
	int fd;
	const char *path, *start;
};

static int add_from_tree(void *user, const char *path)
{
	const struct tree *tree = user;
	char *whole;

	return add_victim(tree->removal, asprintf(&whole, "%s/%s", tree->path, path) < 0 ? NULL : whole, tree->fd, path,
			  tree->start);
}

static int tell_unlisted(void *user, const char *path, int errnum)
{
	const struct tree *tree = user;
	struct wcx_error err;

	if (errnum == ENOENT)
		return 0;
	wcx_fail(&err, errnum, "%s/%s: cannot be listed: %s", tree->path, path, strerror(errnum));
	tell(tree->removal, &err);
	return 0;
}

/* Whether a path leads down from the working directory: without links, which scans do not follow. */
static bool leads_down(const char *path)
{
	bool leads = true;
	char *at = strdup(path);
	struct stat st;

	for (size_t end = 0, bytes; at && leads && path[end]; end += bytes + (path[end + bytes] == '/')) {
		bytes = strcspn(path + end, "/");
		leads = bytes && !(bytes == 2 && memcmp(path + end, "..", 2) == 0);
		at[end + bytes] = '\0';
		leads &= lstat(at, &st) < 0 || !S_ISLNK(st.st_mode) || !path[end + bytes];
		at[end + bytes] = path[end + bytes];
	}
	free(at);
	return at && leads;
}

static int add_argument(struct removal *removal, const char *path, char **start_ret)
{
	struct stat st;
	const bool is_tree = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
	struct tree tree = { removal, -1, path, NULL };
	const size_t count = removal->count;
	struct wcx_error err;
	int r;

	tree.start = *start_ret = leads_down(path) ? strdup(".") : is_tree ? strdup(path) : wcx_directory_of(path);
	if (!tree.start)
		return -ENOMEM;
	if (!is_tree)
		return add_victim(removal, strdup(path), -1, NULL, tree.start);
	tree.fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = tree.fd < 0 ? -errno
			: wcx_packed_paths(&(struct wcx_tree_access){ .open = wcx_open_below, .user = &tree.fd },
					   &wcx_command_stop, add_from_tree, tell_unlisted, &tree);
	if (tree.fd >= 0)
		close(tree.fd);
	if (r == 0 && removal->count == count) {
		wcx_fail_without_packed(path, &err);
		tell(removal, &err);
	}
	return r;
}

/* --- dependents --- */

/* Whether a file of a family is the victim's name, and not another name of the same file, which stays. */
static bool is_name_of(const struct victim *victim, const struct wcx_family *family, const struct wcx_family_file *file)
{
	struct stat own, other;
	char *directory;
	bool is_same;

	if (!wcx_is_same_file(&victim->st, &file->st) || strcmp(victim->name, wcx_last_name(file->path)) != 0)
		return false;
	directory = wcx_directory_of(file->path);
	is_same = directory && fstat(victim->directory_fd, &own) == 0 &&
		  fstatat(family->walk.fd, directory, &other, 0) == 0 && wcx_is_same_file(&own, &other);
	free(directory);
	return is_same;
}

static bool is_victim(const struct removal *removal, const struct wcx_family *family, const struct wcx_family_file *file)
{
	for (size_t i = 0; i < removal->count; i++)
		if (!removal->victims[i].is_kept && is_name_of(&removal->victims[i], family, file))
			return true;
	return false;
}

/* A file that was packed against several victims is packed again once. */
static bool is_rebased(const struct removal *removal, const struct wcx_family *family, const struct wcx_family_file *file)
{
	char *path = removal->rebased_count ? wcx_store_walk_shown(&family->walk, file->path) : NULL;
	bool ret = false;

	for (size_t i = 0; i < removal->rebased_count && path && !ret; i++)
		ret = wcx_is_same_file(&removal->rebased[i].st, &file->st) && strcmp(removal->rebased[i].path, path) == 0;
	free(path);
	return ret;
}

static void forget_rebased(struct removal *removal)
{
	while (removal->rebased_count)
		free(removal->rebased[--removal->rebased_count].path);
}

static int rebase(struct removal *removal, const struct wcx_family *family, const struct wcx_family_file *file,
		  struct wcx_error *err)
{
	struct rebased *grown =
		wcx_array_reserve(removal->rebased, &removal->rebased_capacity, removal->rebased_count + 1, sizeof *grown);
	char *path = wcx_store_walk_shown(&family->walk, file->path), *store = wcx_store_walk_shown(&family->walk, NULL);
	int r = grown && path && store ? 0 : wcx_fail(err, ENOMEM, "no memory");

	removal->rebased = grown ? grown : removal->rebased;
	if (r == 0 && !removal->is_dry_run)
		r = wcx_rebase_file(removal->command, path, &file->st, store, err);
	if (r == 0) {
		removal->rebased[removal->rebased_count++] = (struct rebased){ file->st, path };
		tell_done(removal, path, "packed again, without a base");
		path = NULL;
	}
	free(path);
	free(store);
	return r;
}

/* Packs again what needs a victim, or tells of it, and keeps the victim. */
static void check_dependents(struct removal *removal, struct victim *victim, const struct wcx_family *family, bool rebases)
{
	const struct wcx_packed_name name = { victim->directory_fd, victim->fd, victim->name, &victim->sb, NULL };
	const unsigned shown_max = 20;
	unsigned needed = 0;
	struct wcx_error err = { "" };

	for (size_t i = 0; i < family->count && !victim->is_kept && !wcx_command_stop; i++) {
		const struct wcx_family_file *file = &family->files[i];
		const bool hides = wcx_family_hides(file);
		char *path;

		if ((!hides && !wcx_family_needs(family, file, &name)) || is_victim(removal, family, file) ||
		    is_rebased(removal, family, file))
			continue;
		if (hides) {
			wcx_fail(&err, EACCES, "%s: not removed, since what is packed against it is not known: %s",
				 victim->path, file->why->text);
			keep(removal, victim, &err);
		} else if (rebases) {
			if (rebase(removal, family, file, &err) < 0)
				keep(removal, victim, &err);
		} else if (needed++ < shown_max) {
			path = wcx_store_walk_shown(&family->walk, file->path);
			wcx_fail(&err, EBUSY, "%s: needed by %s", victim->path, path ? path : file->path);
			tell(removal, &err);
			free(path);
		}
	}
	if (needed) {
		wcx_fail(&err, EBUSY, "%s: not removed: %u file%s packed against it; --rebase packs %s without it first",
			 victim->path, needed, needed == 1 ? " is" : "s are", needed == 1 ? "that" : "these");
		keep(removal, victim, &err);
	}
}

/*
 * Whether others were packed against a file that is not in --store.  What is looked for there may be elsewhere: it is a
 * mistyped name, mostly.
 */
static bool is_base_elsewhere(const struct removal *removal, const struct victim *victim)
{
	ino_t *marks = NULL;
	size_t count = 0;
	struct stat store;
	const bool is_base = removal->command->store && wcx_base_marks(victim->fd, &marks, &count) == 0 && count;

	free(marks);
	return is_base && stat(removal->command->store, &store) == 0 && wcx_levels_above(victim->directory_fd, &store) < 0;
}

/* Keeps a victim that may have dependents according to its marks, although none has been found. */
static void check_marks(struct removal *removal, struct victim *victim, const struct wcx_family *family)
{
	const struct wcx_packed_name name = { victim->directory_fd, victim->fd, victim->name, &victim->sb, NULL };
	struct wcx_error err;
	char *why = NULL;
	const int r = victim->is_kept ? 0 : wcx_dependents_unknown(family, &name, &why);

	if (r < 0 || why) {
		wcx_fail(&err, EBUSY, "%s: not removed, since %s", victim->path, why ? why : "there is no memory");
		keep(removal, victim, &err);
	} else if (!victim->is_kept && is_base_elsewhere(removal, victim)) {
		wcx_fail(&err, EBUSY, "%s: not removed, since files were packed against it, and it is not in the store %s",
			 victim->path, removal->command->store);
		keep(removal, victim, &err);
	}
	free(why);
}

/* Looks for what needs the victims of one place that are not kept yet. */
static void check_place(struct removal *removal, const char *start, bool rebases)
{
	const struct wcx_family *family;
	struct wcx_error err;
	const int r = wcx_dependents_read(removal->dependents, start, &family, &err);
	char *top = r == 0 && removal->command->verbose && !removal->has_looked ? wcx_store_walk_shown(&family->walk, NULL)
										: NULL;

	if (top)
		wcx_print(stderr, "wcx rm: store: %s\n", top);
	free(top);
	if (!removal->is_dry_run)
		forget_rebased(removal);
	for (size_t i = 0; i < removal->count; i++) {
		struct victim *victim = &removal->victims[i];

		if (victim->is_kept || strcmp(victim->start, start) != 0)
			continue;
		if (r < 0) {
			keep(removal, victim, &err);
		} else if (!victim->sb.base_count) {
			check_dependents(removal, victim, family, rebases);
			check_marks(removal, victim, family);
		}
	}
}

static void check_places(struct removal *removal, bool rebases)
{
	for (size_t i = 0; i < removal->count; i++) {
		bool is_first = true;

		for (size_t before = 0; before < i && is_first; before++)
			is_first = strcmp(removal->victims[before].start, removal->victims[i].start) != 0;
		if (is_first && !wcx_command_stop)
			check_place(removal, removal->victims[i].start, rebases);
	}
	removal->has_looked = true;
}

/* --- the removal --- */

static int unlink_victim(const struct removal *removal, const struct victim *victim)
{
	return removal->is_dry_run ? faccessat(victim->directory_fd, ".", W_OK | X_OK, AT_EACCESS)
				   : unlinkat(victim->directory_fd, victim->name, 0);
}

static void remove_file(struct removal *removal, struct victim *victim)
{
	struct wcx_error err;
	struct stat now;

	if (fstatat(victim->directory_fd, victim->name, &now, AT_SYMLINK_NOFOLLOW) < 0 ||
	    (wcx_is_same_file(&now, &victim->st) && unlink_victim(removal, victim) < 0)) {
		wcx_fail(&err, errno, "%s: %s", victim->path, strerror(errno));
		keep(removal, victim, &err);
	} else if (!wcx_is_same_file(&now, &victim->st)) {
		wcx_fail(&err, EBUSY, "%s: not removed, since it was replaced meanwhile", victim->path);
		keep(removal, victim, &err);
	} else {
		tell_done(removal, victim->path, "removed");
	}
}

/* Removes dependents first: an interruption leaves none without its base.  If one stays, its base is checked again. */
static void remove_all(struct removal *removal)
{
	bool has_kept = false;

	for (size_t i = 0; i < removal->count && !wcx_command_stop; i++) {
		struct victim *victim = &removal->victims[i];

		if (!victim->is_kept && victim->sb.base_count)
			remove_file(removal, victim);
		has_kept |= victim->is_kept;
	}
	if (has_kept)
		check_places(removal, false);
	for (size_t i = 0; i < removal->count && !wcx_command_stop; i++)
		if (!removal->victims[i].is_kept && !removal->victims[i].sb.base_count)
			remove_file(removal, &removal->victims[i]);
}

static void free_removal(struct removal *removal, size_t start_count)
{
	for (size_t i = 0; i < removal->count; i++) {
		struct victim *victim = &removal->victims[i];

		wcx_dependents_close(removal->dependents, victim->fd);
		if (victim->directory_fd >= 0 &&
		    (i + 1 == removal->count || removal->victims[i + 1].directory_fd != victim->directory_fd))
			close(victim->directory_fd);
		free(victim->path);
	}
	for (size_t i = 0; i < start_count; i++)
		free(removal->starts[i]);
	free(removal->starts);
	free(removal->victims);
	forget_rebased(removal);
	free(removal->rebased);
	wcx_dependents_free(removal->dependents);
}

static int run(struct removal *removal, char **paths, size_t count)
{
	struct wcx_error err;
	int r = 0;

	removal->starts = calloc(count, sizeof *removal->starts);
	removal->dependents = wcx_dependents_create(removal->command->store);
	if (!removal->starts || !removal->dependents)
		r = -ENOMEM;
	wcx_command_catch_signals();
	for (size_t i = 0; i < count && r == 0; i++)
		r = add_argument(removal, paths[i], &removal->starts[i]);
	if (r < 0) {
		wcx_fail(&err, -r, "%s", r == -EINTR ? "interrupted" : strerror(-r));
		tell(removal, &err);
	} else {
		check_places(removal, removal->rebases);
		if (removal->rebases)
			check_places(removal, false);
		remove_all(removal);
	}
	free_removal(removal, removal->starts ? count : 0);
	return wcx_command_stop ? WCX_EXIT_FAILED : removal->status;
}

int wcx_command_rm(struct command *command, int argc, char **argv)
{
	static const struct option options[] = {
		WCX_COMMAND_LONG_OPTIONS,
		WCX_COMMAND_STORE_OPTION,
		WCX_COMMAND_DECODER_OPTION,
		WCX_COMMAND_GOAL_OPTION,
		{ "rebase", no_argument, NULL, 'B' },
		{ "dry-run", no_argument, NULL, 'n' },
		{ 0 },
	};
	struct removal removal = { .command = command };
	int option, status;

	command->decoder_kind = WCX_DECODER_CPU; /* often nothing is decoded, and measuring a GPU takes longer */
	while ((option = wcx_command_getopt(argc, argv, WCX_COMMAND_SHORT_OPTIONS "n", options)) != -1) {
		if (option == 'B')
			removal.rebases = true;
		else if (option == 'n')
			removal.is_dry_run = true;
		else if ((status = wcx_command_option(command, option, help)) >= 0)
			return status;
	}
	if (optind == argc)
		return wcx_command_usage(command, "expected a packed file or a directory");
	return run(&removal, argv + optind, (size_t)(argc - optind));
}
