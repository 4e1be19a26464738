/* SPDX-License-Identifier: MIT */
/* wcx rm: removes packed files, but no base that another file of the store needs. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/array.h"
#include "fs/base/same_file.h"
#include "fs/base/tree.h"
#include "fs/read/base_lock.h"
#include "fs/read/packed_index.h"
#include "tools/command.h"
#include "tools/dependents.h"
#include "tools/family.h"
#include "tools/rebase_file.h"

static const char help[] =
	"usage: wcx rm [OPTIONS] FILE.wcx|TREE...\n"
	"\n"
	"Removes packed files; of a directory, all packed files in it, and nothing else.  A file that\n"
	"another file of the store is packed against is not removed, unless that file goes too: its\n"
	"dependents are named, and the exit code is 1.\n"
	"\n"
	"      --store=DIR     look for dependents in DIR.  Default: the working directory, for a path that\n"
	"                      leads down from it, otherwise TREE or the directory of FILE.wcx; and up to\n"
	"                      four directories above that as far as these hold packed files, on the same\n"
	"                      file system, without / and the home directory\n"
	"      --rebase        first pack the dependents again, without the files that are to go\n"
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
	"  wcx rm --store=/data/models --rebase /data/models/llama\n"
	"\n"
	"Exit codes: 0 all files are removed, 1 a file was not (the message says why), 2 invalid command line.\n";

/* A file that is to be removed. */
struct victim {
	char *path;
	const char *name; /* in its directory */
	int directory_fd, fd;
	struct stat st;
	const struct wcx_store_scope *scope;
	struct wcx_superblock sb;
	struct wcx_family_file self; /* what is known of it, without a path */
	bool is_kept;                /* it was told why */
};

struct removal {
	struct command *command;
	struct victim *victims;
	size_t count, capacity;
	struct wcx_store_scope *scopes; /* of arguments */
	bool rebases;
	int status;
};

static void tell(struct removal *removal, const struct wcx_error *err)
{
	removal->status = wcx_command_failed(removal->command, err);
}

static void keep(struct removal *removal, struct victim *victim, const struct wcx_error *why)
{
	tell(removal, why);
	victim->is_kept = true;
}

/* --- what is to be removed --- */

/* The bytes of a path in front of its last name; 0: none. */
static size_t directory_bytes(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? (size_t)(slash - path) + (slash == path) : 0;
}

/*
 * Opens the directory of a path.  That of an argument is the user's choice, links and all.  But what was listed below a tree
 * is opened from its descriptor on (tree_fd, -1: no tree), so that a directory exchanged for a link leads nowhere.
 */
static int open_directory(int tree_fd, const char *path)
{
	const size_t bytes = directory_bytes(path);
	char *directory = bytes ? strndup(path, bytes) : strdup(".");
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

/* path: relative to the tree, or else victim->path. */
static int open_victim(struct victim *victim, int tree_fd, const char *path, struct wcx_error *err)
{
	const char *slash = strrchr(victim->path, '/');
	struct wcx_superblock sb;
	int r = 0;

	victim->name = slash ? slash + 1 : victim->path;
	victim->directory_fd = open_directory(tree_fd, path);
	if (victim->directory_fd >= 0)
		victim->fd = openat(victim->directory_fd, victim->name,
				    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	else
		errno = -victim->directory_fd;
	if (victim->fd < 0 || fstat(victim->fd, &victim->st) < 0)
		r = wcx_fail(err, errno, "%s: %s", victim->path,
			     errno == ELOOP ? "a link, which is not removed" : strerror(errno));
	else if (!S_ISREG(victim->st.st_mode))
		r = wcx_fail(err, EINVAL, "%s: not a packed file", victim->path);
	if (r == 0)
		r = wcx_superblock_read(victim->fd, victim->path, &sb, err);
	if (r < 0)
		return r;
	victim->sb = sb;
	memcpy(victim->self.sha256, sb.sha256, sizeof sb.sha256);
	victim->self.original_bytes = sb.original_bytes;
	victim->self.base_count = sb.base_count;
	if (wcx_base_lock_for_removal(victim->fd) == -EWOULDBLOCK)
		return wcx_fail(err, EWOULDBLOCK, "%s: not removed: another process packs against it, or removes it",
				victim->path);
	return 0;
}

/* below: the path relative to the directory tree_fd; NULL: path itself, which becomes the victim's. */
static int add_victim(struct removal *removal, char *path, int tree_fd, const char *below,
		      const struct wcx_store_scope *scope)
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
	*grown = (struct victim){ .path = path, .directory_fd = -1, .fd = -1, .scope = scope };
	if (open_victim(grown, tree_fd, below ? below : path, &err) < 0)
		keep(removal, grown, &err);
	return 0;
}

/* A directory whose packed files are to be removed. */
struct tree {
	struct removal *removal;
	int fd;
	const char *path;
	const struct wcx_store_scope *scope;
};

static int add_from_tree(void *user, const char *path)
{
	const struct tree *tree = user;
	char *whole;

	return add_victim(tree->removal, asprintf(&whole, "%s/%s", tree->path, path) < 0 ? NULL : whole, tree->fd, path,
			  tree->scope);
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

/* Finds where the dependents of an argument are. */
static int find_scope(const struct removal *removal, const char *path, bool is_tree, struct wcx_store_scope *ret)
{
	const size_t bytes = directory_bytes(path);
	char *start = leads_down(path) ? strdup(".") : is_tree ? strdup(path) : bytes ? strndup(path, bytes) : strdup(".");
	const int r = start ? wcx_store_scope_find(ret, removal->command->store, start, &wcx_command_stop) : -ENOMEM;

	free(start);
	return r;
}

static int add_argument(struct removal *removal, const char *path, struct wcx_store_scope *scope)
{
	struct stat st;
	const bool is_tree = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
	struct tree tree = { removal, -1, path, scope };
	int r = find_scope(removal, path, is_tree, scope);

	if (r < 0)
		return r;
	if (!is_tree)
		return add_victim(removal, strdup(path), -1, NULL, scope);
	tree.fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = tree.fd < 0 ? -errno
			: wcx_packed_paths(&(struct wcx_tree_access){ .open = wcx_open_below, .user = &tree.fd },
					   &wcx_command_stop, add_from_tree, &tree);
	if (tree.fd >= 0)
		close(tree.fd);
	return r;
}

/* --- dependents --- */

/* Whether a file of a family is the victim's name, and not another name of the same file, which stays. */
static bool is_name_of(const struct victim *victim, const struct wcx_family *family, const struct wcx_family_file *file)
{
	const size_t bytes = directory_bytes(file->path);
	struct stat own, other;
	char *directory;
	bool is_same;

	if (!wcx_is_same_file(&victim->st, &file->st) || strcmp(victim->name, file->path + bytes + (bytes > 0)) != 0)
		return false;
	directory = bytes ? strndup(file->path, bytes) : strdup(".");
	is_same = directory && fstat(victim->directory_fd, &own) == 0 &&
		  fstatat(family->store_fd, directory, &other, 0) == 0 && wcx_is_same_file(&own, &other);
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

static int rebase(struct removal *removal, const struct wcx_family *family, const struct wcx_family_file *file,
		  struct wcx_error *err)
{
	char *path;
	int r = asprintf(&path, "%s/%s", family->store, file->path) < 0 ? wcx_fail(err, ENOMEM, "no memory") : 0;

	if (r < 0)
		return r;
	r = wcx_rebase_file(removal->command, path, &file->st, family->store, err);
	if (r == 0 && removal->command->verbose)
		fprintf(stderr, "wcx rm: %s: packed again, without a base\n", path);
	free(path);
	return r;
}

/* Packs again what needs a victim, or tells of it, and keeps the victim. */
static void check_dependents(struct removal *removal, struct victim *victim, const struct wcx_family *family, bool rebases)
{
	const unsigned shown_max = 20;
	unsigned needed = 0;
	struct wcx_error err = { "" };

	for (size_t i = 0; i < family->count && !victim->is_kept && !wcx_command_stop; i++) {
		const struct wcx_family_file *file = &family->files[i];
		int r = 0;

		if (is_victim(removal, family, file))
			continue;
		if (wcx_family_hides(file)) {
			wcx_fail(&err, EACCES, "%s: not removed, since what is packed against it is not known: %s",
				 victim->path, file->why->text);
			keep(removal, victim, &err);
		} else if (!wcx_family_needs(family, file, &victim->self, &victim->st)) {
			continue;
		} else if (rebases) {
			r = rebase(removal, family, file, &err);
			if (r < 0)
				keep(removal, victim, &err);
		} else if (needed++ < shown_max) {
			wcx_fail(&err, EBUSY, "%s: needed by %s/%s", victim->path, family->store, file->path);
			tell(removal, &err);
		}
	}
	if (needed) {
		wcx_fail(&err, EBUSY, "%s: not removed: %u file%s packed against it; --rebase packs %s without it first",
			 victim->path, needed, needed == 1 ? " is" : "s are", needed == 1 ? "that" : "these");
		keep(removal, victim, &err);
	}
}

static bool is_same_scope(const struct wcx_store_scope *a, const struct wcx_store_scope *b)
{
	return strcmp(a->path, b->path) == 0 && !a->named == !b->named && (!a->named || strcmp(a->named, b->named) == 0);
}

/* Keeps a victim that has dependents according to its marks, although the scan of its store has found none. */
static void check_marks(struct removal *removal, struct victim *victim, const struct wcx_family *family)
{
	const struct wcx_packed_name file = { victim->directory_fd, victim->fd, &victim->sb, victim->st, false };
	struct wcx_error err;
	char *why;
	const int r = victim->is_kept ? 0 : wcx_dependents_unknown(victim->scope, family, &file, &why);

	if (victim->is_kept)
		return;
	if (r < 0 || why) {
		wcx_fail(&err, EBUSY, "%s: not removed, since %s", victim->path, why ? why : "there is no memory");
		keep(removal, victim, &err);
	}
	free(why);
}

/* Looks for what needs the victims of a store that are not kept yet. */
static void check_store(struct removal *removal, const struct wcx_store_scope *scope, bool rebases)
{
	struct wcx_family family;
	struct wcx_error err;
	const int r = wcx_family_scan_scope(&family, scope, &wcx_command_stop, &err);

	for (size_t i = 0; i < removal->count; i++) {
		struct victim *victim = &removal->victims[i];

		if (victim->is_kept || !is_same_scope(victim->scope, scope))
			continue;
		if (r < 0) {
			keep(removal, victim, &err);
		} else if (!victim->self.base_count) {
			check_dependents(removal, victim, &family, rebases);
			check_marks(removal, victim, &family);
		}
	}
	wcx_family_free(&family);
}

static void check_stores(struct removal *removal, bool rebases)
{
	for (size_t i = 0; i < removal->count; i++) {
		bool is_first = true;

		for (size_t before = 0; before < i && is_first; before++)
			is_first = !is_same_scope(removal->victims[before].scope, removal->victims[i].scope);
		if (!is_first || wcx_command_stop)
			continue;
		if (removal->command->verbose)
			fprintf(stderr, "wcx rm: store: %s\n", removal->victims[i].scope->path);
		check_store(removal, removal->victims[i].scope, rebases);
	}
}

/* --- the removal --- */

static void remove_file(struct removal *removal, struct victim *victim)
{
	struct wcx_error err;
	struct stat now;

	if (fstatat(victim->directory_fd, victim->name, &now, AT_SYMLINK_NOFOLLOW) < 0 ||
	    (wcx_is_same_file(&now, &victim->st) && unlinkat(victim->directory_fd, victim->name, 0) < 0)) {
		wcx_fail(&err, errno, "%s: %s", victim->path, strerror(errno));
		keep(removal, victim, &err);
	} else if (!wcx_is_same_file(&now, &victim->st)) {
		wcx_fail(&err, EBUSY, "%s: not removed, since it was replaced meanwhile", victim->path);
		keep(removal, victim, &err);
	} else if (removal->command->verbose) {
		fprintf(stderr, "wcx rm: %s: removed\n", victim->path);
	}
}

/* Removes dependents first: an interruption leaves none without its base.  If one stays, its base is checked again. */
static void remove_all(struct removal *removal)
{
	bool has_kept = false;

	for (size_t i = 0; i < removal->count && !wcx_command_stop; i++) {
		struct victim *victim = &removal->victims[i];

		if (!victim->is_kept && victim->self.base_count)
			remove_file(removal, victim);
		has_kept |= victim->is_kept;
	}
	if (has_kept)
		check_stores(removal, false);
	for (size_t i = 0; i < removal->count && !wcx_command_stop; i++)
		if (!removal->victims[i].is_kept && !removal->victims[i].self.base_count)
			remove_file(removal, &removal->victims[i]);
}

static void free_removal(struct removal *removal, size_t scope_count)
{
	for (size_t i = 0; i < removal->count; i++) {
		struct victim *victim = &removal->victims[i];

		if (victim->fd >= 0)
			close(victim->fd);
		if (victim->directory_fd >= 0)
			close(victim->directory_fd);
		free(victim->path);
	}
	for (size_t i = 0; i < scope_count; i++)
		wcx_store_scope_free(&removal->scopes[i]);
	free(removal->scopes);
	free(removal->victims);
}

static int run(struct removal *removal, char **paths, size_t count)
{
	struct wcx_error err;
	int r = 0;

	removal->scopes = calloc(count, sizeof *removal->scopes);
	wcx_command_catch_signals();
	for (size_t i = 0; i < count && r == 0; i++)
		r = removal->scopes ? add_argument(removal, paths[i], &removal->scopes[i]) : -ENOMEM;
	if (r < 0) {
		wcx_fail(&err, -r, "%s", r == -EINTR ? "interrupted" : strerror(-r));
		tell(removal, &err);
	} else {
		check_stores(removal, removal->rebases);
		if (removal->rebases)
			check_stores(removal, false);
		remove_all(removal);
	}
	free_removal(removal, removal->scopes ? count : 0);
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
		{ 0 },
	};
	struct removal removal = { .command = command };
	int option, status;

	command->decoder_kind = WCX_DECODER_CPU; /* often nothing is decoded, and measuring a GPU takes longer */
	while ((option = wcx_command_getopt(argc, argv, WCX_COMMAND_SHORT_OPTIONS, options)) != -1) {
		if (option == 'B')
			removal.rebases = true;
		else if ((status = wcx_command_option(command, option, help)) >= 0)
			return status;
	}
	if (optind == argc)
		return wcx_command_usage(command, "expected a packed file or a directory");
	return run(&removal, argv + optind, (size_t)(argc - optind));
}
