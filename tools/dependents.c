/* SPDX-License-Identifier: MIT */
/* Tells whether a packed file may be replaced or removed. */
#include "tools/dependents.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/base/ancestors.h"
#include "fs/base/array.h"
#include "fs/base/host_limits.h"
#include "fs/base/path.h"
#include "fs/base/same_file.h"
#include "fs/base/tree.h"
#include "fs/read/base_lock.h"
#include "fs/read/base_mark.h"
#include "fs/read/packed_index.h"
#include "tools/command.h"

static int no_memory(struct wcx_error *err)
{
	return wcx_fail(err, ENOMEM, "no memory");
}

/* --- the search --- */

/* A directory where searches began. */
struct place {
	struct wcx_family family;
	uint64_t look; /* the number of the last look at it; 0: that failed */
};

struct wcx_dependents {
	const char *store; /* NULL: not given */
	pthread_mutex_t lock;
	struct place *places;
	size_t count, capacity;
	_Atomic uint64_t looks; /* that have begun */
	/* Files that are locked, under their own mutex. */
	pthread_mutex_t held_lock;
	struct held {
		int fd;
		struct stat st;
		uint64_t looks; /* that had begun when it was locked */
		bool is_ahead;  /* nobody has opened it yet */
	} * held;
	size_t held_count, held_capacity;
};

struct wcx_dependents *wcx_dependents_create(const char *store)
{
	struct wcx_dependents *dependents = calloc(1, sizeof *dependents);

	if (!dependents)
		return NULL;
	wcx_host_raise_fd_limit(); /* wcx rm and wcx quantize lock all files of a tree at a time */
	dependents->store = store;
	pthread_mutex_init(&dependents->lock, NULL);
	pthread_mutex_init(&dependents->held_lock, NULL);
	return dependents;
}

void wcx_dependents_free(struct wcx_dependents *dependents)
{
	if (!dependents)
		return;
	for (size_t i = 0; i < dependents->count; i++)
		wcx_family_free(&dependents->places[i].family);
	wcx_dependents_unlock_ahead(dependents);
	free(dependents->places);
	free(dependents->held);
	pthread_mutex_destroy(&dependents->lock);
	pthread_mutex_destroy(&dependents->held_lock);
	free(dependents);
}

static struct held *reserve_held(struct wcx_dependents *dependents)
{
	struct held *grown =
		wcx_array_reserve(dependents->held, &dependents->held_capacity, dependents->held_count + 1, sizeof *grown);

	dependents->held = grown ? grown : dependents->held;
	return grown ? grown + dependents->held_count : NULL;
}

/* A file that the command has locked; NULL: it has not. */
static struct held *find_held(const struct wcx_dependents *dependents, const struct stat *st)
{
	for (size_t i = 0; i < dependents->held_count; i++)
		if (wcx_is_same_file(&dependents->held[i].st, st))
			return &dependents->held[i];
	return NULL;
}

static void drop_held(struct wcx_dependents *dependents, struct held *held)
{
	close(held->fd);
	*held = dependents->held[--dependents->held_count];
}

static int open_held(struct wcx_dependents *dependents, int directory_fd, const char *name, struct stat *st_ret)
{
	struct held *fresh = reserve_held(dependents), *shared = NULL;
	struct stat now;
	int fd;

	if (!fresh)
		return -ENOMEM;
	while ((fd = wcx_base_open_for_removal(directory_fd, name, st_ret)) == -EWOULDBLOCK) {
		shared = find_held(dependents, st_ret);
		if (!shared)
			return -EWOULDBLOCK;
		fd = fcntl(shared->fd, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			return -EMFILE;
		if (fstatat(directory_fd, name, &now, AT_SYMLINK_NOFOLLOW) == 0 && wcx_is_same_file(&now, st_ret))
			break;
		close(fd);
		shared = NULL;
	}
	if (fd < 0)
		return fd;
	*fresh = (struct held){ fd, *st_ret, shared ? shared->looks : dependents->looks, false };
	dependents->held_count++;
	if (shared && shared->is_ahead)
		drop_held(dependents, shared); /* the lock is that of the duplicate, too */
	return fd;
}

int wcx_dependents_open(struct wcx_dependents *dependents, int directory_fd, const char *name, struct stat *st_ret)
{
	int r;

	pthread_mutex_lock(&dependents->held_lock);
	r = open_held(dependents, directory_fd, name, st_ret);
	pthread_mutex_unlock(&dependents->held_lock);
	return r;
}

void wcx_dependents_close(struct wcx_dependents *dependents, int fd)
{
	if (fd < 0)
		return;
	pthread_mutex_lock(&dependents->held_lock);
	for (size_t i = 0; i < dependents->held_count; i++)
		if (dependents->held[i].fd == fd) {
			drop_held(dependents, &dependents->held[i]);
			break;
		}
	pthread_mutex_unlock(&dependents->held_lock);
}

void wcx_dependents_lock_ahead(struct wcx_dependents *dependents, int directory_fd, const char *name)
{
	struct wcx_superblock sb;
	struct held *fresh;
	struct stat st;
	int fd;

	pthread_mutex_lock(&dependents->held_lock);
	fresh = reserve_held(dependents);
	fd = fresh ? wcx_base_open_for_removal(directory_fd, name, &st) : -1;
	if (fd >= 0 && wcx_base_is_locked(fd) && wcx_superblock_read(fd, name, &sb, NULL) == 0 && !sb.base_count) {
		*fresh = (struct held){ fd, st, dependents->looks, true };
		dependents->held_count++;
	} else if (fd >= 0) {
		close(fd);
	}
	pthread_mutex_unlock(&dependents->held_lock);
}

void wcx_dependents_unlock_ahead(struct wcx_dependents *dependents)
{
	pthread_mutex_lock(&dependents->held_lock);
	for (size_t i = dependents->held_count; i-- > 0;)
		if (dependents->held[i].is_ahead)
			drop_held(dependents, &dependents->held[i]);
	pthread_mutex_unlock(&dependents->held_lock);
}

/* How many looks had begun when a file was locked; without that, it counts as locked just now. */
static uint64_t looks_before(struct wcx_dependents *dependents, int fd)
{
	uint64_t looks = UINT64_MAX;

	pthread_mutex_lock(&dependents->held_lock);
	for (size_t i = 0; i < dependents->held_count; i++)
		if (dependents->held[i].fd == fd)
			looks = dependents->held[i].looks;
	pthread_mutex_unlock(&dependents->held_lock);
	return looks;
}

static struct place *find_place(struct wcx_dependents *dependents, const char *start, bool climbs)
{
	for (size_t i = 0; i < dependents->count; i++) {
		const struct wcx_store_walk *walk = &dependents->places[i].family.walk;

		if (walk->climbs == climbs && strcmp(walk->start, start) == 0)
			return &dependents->places[i];
	}
	return NULL;
}

/* Looks at a place for the first time. */
static int add_place(struct wcx_dependents *dependents, const char *start, bool climbs, struct place **ret,
		     struct wcx_error *err)
{
	struct place *grown =
		wcx_array_reserve(dependents->places, &dependents->capacity, dependents->count + 1, sizeof *grown);
	int r;

	if (!grown)
		return no_memory(err);
	dependents->places = grown;
	*ret = grown += dependents->count;
	r = wcx_family_scan(&grown->family, start, climbs, &wcx_command_stop, err);
	if (r < 0)
		wcx_family_free(&grown->family);
	else
		dependents->count++;
	return r;
}

/* Looks at a place, with climbs also around it, unless a look has begun after so many; *ret is valid until the next one. */
static int look_after(struct wcx_dependents *dependents, const char *start, bool climbs, uint64_t looks,
		      const struct wcx_family **ret, struct wcx_error *err)
{
	struct place *place = find_place(dependents, start, climbs);
	uint64_t number;
	int r = 0;

	if (!place || place->look <= looks) {
		number = ++dependents->looks;
		r = place ? wcx_family_refresh(&place->family, &wcx_command_stop, err)
			  : add_place(dependents, start, climbs, &place, err);
		if (place)
			place->look = r == 0 ? number : 0;
	}
	*ret = r == 0 ? &place->family : NULL;
	return r;
}

int wcx_dependents_read(struct wcx_dependents *dependents, const char *start, const struct wcx_family **ret,
			struct wcx_error *err)
{
	const char *store = dependents->store;

	return look_after(dependents, store ? store : start, !store, UINT64_MAX, ret, err);
}

/* Whether a directory is above a file of a family, or is that: 1, 0, or -errno if nobody can tell. */
static int is_above(const struct wcx_family *family, const struct wcx_family_file *file, const struct stat *above)
{
	char *directory = wcx_directory_of(file->path);
	const int fd = directory ? openat(family->walk.fd, directory, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	struct stat st;
	int r = fd < 0 ? -EIO : 0;

	if (r == 0)
		r = wcx_levels_above(fd, above) >= 0 ||
		    (fstatat(family->walk.fd, file->path, &st, AT_SYMLINK_NOFOLLOW) == 0 && wcx_is_same_file(&st, above));
	if (fd >= 0)
		close(fd);
	free(directory);
	return r;
}

/* Finds the directory of a mark at or above an open one, up to top; NULL: the root. */
static bool find_marked(int fd, dev_t device, ino_t inode, const struct stat *top, struct stat *ret)
{
	struct wcx_ancestor at;
	bool is_found = false, is_top = false;

	if (!inode)
		return false;
	for (bool is_there = wcx_ancestor_first(&at, fd); is_there && !is_found && !is_top;) {
		is_found = at.st.st_ino == inode && at.st.st_dev == device;
		is_top = top && wcx_is_same_file(&at.st, top);
		*ret = at.st;
		if (!is_found && !is_top)
			is_there = wcx_ancestor_next(&at);
	}
	wcx_ancestor_end(&at);
	return is_found;
}

/* Whether what a mark tells of may be in a store that does not have the base: on another device, or below the mark's
 * directory. */
static bool may_be_in(const char *store, dev_t device, ino_t mark)
{
	const int fd = open(store, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat st, marked;
	bool ret;

	if (fd < 0)
		return false;
	ret = mark ? find_marked(fd, device, mark, NULL, &marked) : fstat(fd, &st) == 0 && st.st_dev != device;
	close(fd);
	return ret;
}

/* Says what is not known of what was packed below the directory of a mark; *why stays NULL if all is. */
static int explain(const struct wcx_family *family, const char *store, const struct wcx_packed_name *file, ino_t mark,
		   char **why)
{
	struct stat own, marked;
	char *top;
	int r = 0;

	if (fstat(file->directory_fd, &own) < 0 ||
	    !find_marked(file->directory_fd, own.st_dev, mark, &family->walk.top, &marked)) {
		if (store && may_be_in(store, own.st_dev, mark))
			return 0;
		top = wcx_store_walk_shown(&family->walk, NULL);
		if (!top ||
		    asprintf(why, "files were packed against it, none of which is found in %s%s%s" WCX_COMMAND_STORE_ADVICE,
			     top, store ? " or " : "", store ? store : "") < 0)
			r = -ENOMEM;
		free(top);
	}
	for (size_t i = 0; i < family->count && r == 0 && !*why; i++)
		if (wcx_family_is_unknown(&family->files[i]) && is_above(family, &family->files[i], &marked) &&
		    asprintf(why, "what is packed against it is not known: %s" WCX_COMMAND_STORE_ADVICE,
			     family->files[i].why->text) < 0)
			r = -ENOMEM;
	if (r < 0)
		*why = NULL;
	return r;
}

/* wcx_dependents_unknown around a file, where a store that does not have it was looked through as well; NULL: none was. */
static int find_unknown(const struct wcx_family *family, const char *store, const struct wcx_packed_name *file, char **why)
{
	ino_t *marks = NULL;
	size_t count = 0;
	int r = 0;

	*why = NULL;
	if (wcx_base_marks(file->fd, &marks, &count) < 0)
		r = explain(family, store, file, 0, why); /* marks that cannot be read may be there */
	for (size_t i = 0; i < count && r == 0 && !*why; i++)
		r = explain(family, store, file, marks[i], why);
	free(marks);
	return r;
}

/*
 * Whether a store that has a file reaches as far as its marks: none is of a directory above the store.  A file that was
 * moved or copied is in none of these directories, and the store is what the user says.
 */
static bool reaches_marks(const struct wcx_family *family, const struct wcx_packed_name *file)
{
	const struct stat *top = &family->walk.top;
	ino_t *marks = NULL;
	size_t count = 0;
	struct stat marked;
	bool ret = true;

	wcx_base_marks(file->fd, &marks, &count);
	for (size_t i = 0; i < count && ret; i++)
		ret = !find_marked(family->walk.fd, top->st_dev, marks[i], NULL, &marked) || wcx_is_same_file(&marked, top);
	free(marks);
	return ret;
}

int wcx_dependents_unknown(const struct wcx_family *family, const struct wcx_packed_name *file, char **why)
{
	char *store;
	int r = 0;

	if (family->walk.climbs)
		return find_unknown(family, NULL, file, why);
	*why = NULL;
	if (reaches_marks(family, file))
		return 0;
	store = wcx_store_walk_shown(&family->walk, NULL);
	if (!store || asprintf(why, "files outside of %s were packed against it" WCX_COMMAND_STORE_ADVICE, store) < 0) {
		*why = NULL;
		r = -ENOMEM;
	}
	free(store);
	return r;
}

/* Looks through the files of a family. */
static int find_in(const struct wcx_family *family, const char *store, const struct wcx_packed_name *file, char **why,
		   struct wcx_error *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < family->count && !*why; i++) {
		const struct wcx_family_file *other = &family->files[i];
		const bool hides = wcx_family_hides(other);
		char *shown;

		if ((!hides && !wcx_family_needs(family, other, file)) ||
		    (file->tree && is_above(family, other, file->tree) == 1))
			continue;
		shown = wcx_store_walk_shown(&family->walk, other->path);
		if (hides)
			r = wcx_fail(err, EACCES, "what is packed against it is not known: %s", other->why->text);
		else if (!shown || asprintf(why, "%s is packed against it", shown) < 0)
			r = no_memory(err);
		free(shown);
	}
	if (r == 0 && !*why && family->walk.climbs && find_unknown(family, store, file, why) < 0)
		r = no_memory(err);
	return r;
}

/*
 * Looks in --store, and around a file that is not in there, or not alone according to its marks: --store may name only where
 * bases are, or be too narrow, or mistyped.
 */
static int find_after(struct wcx_dependents *dependents, const char *start, uint64_t looks,
		      const struct wcx_packed_name *file, char **why, struct wcx_error *err)
{
	const char *store = dependents->store;
	const struct wcx_family *family;
	bool has_file;
	int r = 0;

	*why = NULL;
	if (store) {
		r = look_after(dependents, store, false, looks, &family, err);
		if (r == 0)
			r = find_in(family, NULL, file, why, err);
		if (r < 0 || *why)
			return r;
		has_file = wcx_levels_above(file->directory_fd, &family->walk.top) >= 0;
		if (has_file && reaches_marks(family, file))
			return 0;
		store = has_file ? NULL : store; /* what is missing is not in there */
	}
	r = look_after(dependents, start, true, looks, &family, err);
	return r == 0 ? find_in(family, store, file, why, err) : r;
}

int wcx_dependents_find(struct wcx_dependents *dependents, const char *start, const struct wcx_packed_name *file, char **why,
			struct wcx_error *err)
{
	int r;

	pthread_mutex_lock(&dependents->lock);
	r = find_after(dependents, start, looks_before(dependents, file->fd), file, why, err);
	if (r < 0 || *why) { /* what needed it may have gone since then */
		free(*why);
		r = find_after(dependents, start, UINT64_MAX, file, why, err);
	}
	pthread_mutex_unlock(&dependents->lock);
	return r;
}

int wcx_dependents_lock(struct wcx_dependents *dependents, const char *start, int directory_fd, const char *name,
			const char *path, const char *what, struct stat *st_ret, struct wcx_error *err)
{
	struct wcx_superblock sb;
	struct wcx_packed_name file = { .directory_fd = directory_fd, .name = name, .sb = &sb };
	struct wcx_error fault = { "" };
	char *why = NULL;
	int r;

	file.fd = wcx_dependents_open(dependents, directory_fd, name, st_ret);
	if (file.fd == -EWOULDBLOCK)
		return wcx_fail(err, EBUSY, "%s: %s, since another process packs against it", path, what);
	if (file.fd < 0)
		return file.fd == -ENOENT ? -ENOENT : wcx_fail(err, -file.fd, "%s: %s", path, strerror(-file.fd));
	r = wcx_superblock_read(file.fd, path, &sb, &fault);
	if (r == -EBADMSG || (r == -ENOTSUP && wcx_is_version3(file.fd, st_ret)))
		return file.fd; /* nobody can be packed against it */
	if (r == 0 && !sb.base_count)
		r = wcx_dependents_find(dependents, start, &file, &why, &fault);
	if (r < 0 || why) /* -ENOENT is for the file, not for a store that is missing */
		r = wcx_fail(err, r < 0 && r != -ENOENT ? -r : EBUSY, "%s: %s, since %s", path, what,
			     why ? why : fault.text);
	free(why);
	if (r == 0)
		return file.fd;
	wcx_dependents_close(dependents, file.fd);
	return r;
}

/* --- a whole directory --- */

struct wcx_guarded_file {
	char *path; /* relative to the directory */
	int fd;
	struct wcx_superblock sb;
	bool is_base;
};

struct tree_check {
	struct wcx_tree_guard *guard;
	const char *path;
	int fd;
	struct wcx_error *err;
};

/* Locks a packed file of the directory. */
static int guard_file(void *user, const char *path)
{
	const struct tree_check *check = user;
	struct wcx_tree_guard *guard = check->guard;
	char *copy = strdup(path), *directory = wcx_directory_of(path);
	struct wcx_guarded_file *file =
		copy && directory ? wcx_array_reserve(guard->files, &guard->capacity, guard->count + 1, sizeof *file) : NULL;
	int directory_fd = -1, r = file ? 0 : -ENOMEM;
	struct stat st;

	if (file) {
		guard->files = file;
		file += guard->count;
		directory_fd = wcx_open_without_links(check->fd, directory, O_RDONLY | O_DIRECTORY);
		r = directory_fd < 0 ? directory_fd
				     : wcx_dependents_open(guard->dependents, directory_fd, wcx_last_name(path), &st);
	}
	if (r >= 0) {
		*file = (struct wcx_guarded_file){ .path = copy, .fd = r };
		guard->count++;
		copy = NULL;
		r = wcx_superblock_read(file->fd, path, &file->sb, NULL);
		file->is_base = r == 0 && !file->sb.base_count;
		if (r == -EBADMSG || (r == -ENOTSUP && wcx_is_version3(file->fd, &st)))
			r = 0; /* nobody is packed against it */
	}
	if (directory_fd >= 0)
		close(directory_fd);
	free(directory);
	free(copy);
	if (r == -EWOULDBLOCK)
		return wcx_fail(check->err, EBUSY,
				"%s/%s: not replaced, since another process packs against it, or replaces it", check->path,
				path);
	if (r < 0 && r != -ENOENT && r != -EINVAL && r != -ELOOP)
		return wcx_fail(check->err, -r, "%s/%s: not replaced, since nobody can tell whether others need it: %s",
				check->path, path, strerror(-r));
	return 0;
}

/* There may be a packed file in it. */
static int refuse_unlisted(void *user, const char *path, int errnum)
{
	const struct tree_check *check = user;

	return errnum == ENOENT ? 0
				: wcx_fail(check->err, errnum, "%s/%s: not replaced, since it cannot be listed: %s",
					   check->path, path, strerror(errnum));
}

/* Looks for dependents of a locked file. */
static int check_file(const struct tree_check *check, const struct wcx_guarded_file *file)
{
	char *directory = wcx_directory_of(file->path), *why = NULL;
	struct stat tree;
	const struct wcx_packed_name name = {
		.directory_fd = directory ? wcx_open_without_links(check->fd, directory, O_RDONLY | O_DIRECTORY) : -ENOMEM,
		.fd = file->fd,
		.name = wcx_last_name(file->path),
		.sb = &file->sb,
		.tree = fstat(check->fd, &tree) == 0 ? &tree : NULL,
	};
	struct wcx_error text;
	int r = name.directory_fd < 0 ? wcx_fail(&text, -name.directory_fd, "%s", strerror(-name.directory_fd))
				      : wcx_dependents_find(check->guard->dependents, check->path, &name, &why, &text);

	if (r < 0 || why)
		r = wcx_fail(check->err, r < 0 ? -r : EBUSY, "%s/%s: not replaced, since %s", check->path, file->path,
			     why ? why : text.text);
	if (name.directory_fd >= 0)
		close(name.directory_fd);
	free(directory);
	free(why);
	return r;
}

int wcx_tree_guard_begin(struct wcx_tree_guard *guard, struct wcx_dependents *dependents, const char *path,
			 struct wcx_error *err)
{
	struct tree_check check = { guard, path, open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err };
	int r;

	*guard = (struct wcx_tree_guard){ .dependents = dependents };
	*err = (struct wcx_error){ "" };
	if (check.fd < 0)
		return 0; /* whoever replaces it will say why not */
	r = wcx_packed_paths(&(struct wcx_tree_access){ .open = wcx_open_below, .user = &check.fd }, &wcx_command_stop,
			     guard_file, refuse_unlisted, &check);
	for (size_t i = 0; i < guard->count && r == 0; i++)
		if (guard->files[i].is_base)
			r = check_file(&check, &guard->files[i]);
	close(check.fd);
	return r < 0 && !*err->text ? wcx_fail(err, -r, "%s: %s", path, r == -EINTR ? "interrupted" : strerror(-r)) : r;
}

void wcx_tree_guard_end(struct wcx_tree_guard *guard)
{
	for (size_t i = 0; i < guard->count; i++) {
		wcx_dependents_close(guard->dependents, guard->files[i].fd);
		free(guard->files[i].path);
	}
	free(guard->files);
	*guard = (struct wcx_tree_guard){ 0 };
}
