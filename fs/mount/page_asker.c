/* SPDX-License-Identifier: MIT */
/* Has the kernel ask for pages of the daemon's own files, ahead of their readers. */
#include "fs/mount/page_asker.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/mount/fuse_ops.h"

enum { SEQUENTIAL_FACTOR = 2 }; /* the page cache of a file in order is read ahead so much further */

enum file_state { OPENING, OPEN, FAILED };

struct asked_file {
	uint64_t target;
	enum file_state state;
	pid_t opener;       /* the thread that opens it */
	bool is_recognized; /* its request to open has been seen */
	unsigned users;     /* threads that open it or ask for pages */
	bool is_closed;     /* no longer in the list: its last user frees it */
	int fd, errnum;
	struct asked_file *next;
};

struct wcx_page_asker {
	dev_t device;
	uint64_t ask_bytes;
	pthread_mutex_t lock; /* protects the files; never held across a system call on the mount */
	struct asked_file *files;
	char mountpoint[];
};

/* Copies the mount at a path, for as long as the descriptor, or one of a file below it, is open; returns it or -errno. */
static int copy_mount(const char *mountpoint)
{
	const int tree = (int)syscall(SYS_open_tree, AT_FDCWD, mountpoint, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	return tree < 0 ? -errno : tree;
}

struct wcx_page_asker *wcx_page_asker_create(const char *mountpoint, dev_t device, uint64_t readahead_bytes)
{
	const size_t bytes = strlen(mountpoint) + 1;
	const int tree = readahead_bytes ? copy_mount(mountpoint) : -EINVAL; /* whether it may; nobody is asked for that */
	struct wcx_page_asker *asker = tree >= 0 ? malloc(sizeof *asker + bytes) : NULL;

	if (tree >= 0)
		close(tree);
	if (!asker)
		return NULL;
	asker->device = device;
	asker->ask_bytes = WCX_MIN(readahead_bytes * SEQUENTIAL_FACTOR, (uint64_t)WCX_FUSE_READ_BYTES);
	asker->files = NULL;
	memcpy(asker->mountpoint, mountpoint, bytes);
	pthread_mutex_init(&asker->lock, NULL);
	return asker;
}

void wcx_page_asker_free(struct wcx_page_asker *asker)
{
	if (!asker)
		return;
	while (asker->files)
		wcx_page_asker_close(asker, asker->files->target);
	pthread_mutex_destroy(&asker->lock);
	free(asker);
}

static struct asked_file **find_locked(struct wcx_page_asker *asker, uint64_t target)
{
	struct asked_file **at = &asker->files;

	while (*at && (*at)->target != target)
		at = &(*at)->next;
	return at;
}

/*
 * Opens a path of the mount in a copy of it; returns the descriptor or -errno.  A path of a node has no links.  What is
 * there now may be a link to anywhere, or a pipe that nobody writes.
 */
static int open_in_copy(const struct wcx_page_asker *asker, const char *path)
{
	const struct open_how how = {
		.flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
	};
	const int tree = copy_mount(asker->mountpoint);
	struct stat st;
	int fd, r = 0;

	if (tree < 0)
		return tree;
	if (fstat(tree, &st) < 0 || st.st_dev != asker->device) /* something else is mounted over it */
		r = -EXDEV;
	fd = r ? r : (int)syscall(SYS_openat2, tree, path, &how, sizeof how);
	if (!r && fd < 0)
		fd = -errno;
	close(tree);
	return fd;
}

static struct asked_file *add_locked(struct wcx_page_asker *asker, uint64_t target)
{
	struct asked_file *file = calloc(1, sizeof *file);

	if (!file)
		return NULL;
	file->target = target;
	file->state = OPENING;
	file->opener = (pid_t)syscall(SYS_gettid);
	file->users = 1;
	file->fd = -1;
	file->next = asker->files;
	asker->files = file;
	return file;
}

static void open_file(struct wcx_page_asker *asker, struct asked_file *file, const char *path)
{
	const int fd = open_in_copy(asker, path);
	bool is_open;

	if (fd >= 0)
		posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	pthread_mutex_lock(&asker->lock);
	is_open = fd >= 0 && file->is_recognized;
	file->state = is_open ? OPEN : FAILED;
	file->fd = is_open ? fd : -1;
	file->errnum = fd < 0 ? -fd : ESTALE;
	pthread_mutex_unlock(&asker->lock);
	if (fd >= 0 && !is_open) /* another file, which must not count as open; nobody waits for this thread */
		close(fd);
}

/* Begins to use the file of a target, which is opened if that was never tried. */
static int use(struct wcx_page_asker *asker, uint64_t target, const char *path, struct asked_file **file_ret)
{
	struct asked_file *file;
	bool is_new;
	int r = 0;

	pthread_mutex_lock(&asker->lock);
	file = *find_locked(asker, target);
	is_new = !file;
	if (is_new)
		file = add_locked(asker, target);
	else if (file->state == OPEN)
		file->users++;
	else
		r = file->state == OPENING ? -EAGAIN : -file->errnum;
	pthread_mutex_unlock(&asker->lock);
	if (!file)
		return -EAGAIN;
	if (is_new)
		open_file(asker, file, path);
	*file_ret = file;
	return r;
}

static void free_file(struct asked_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	free(file);
}

static void end_use(struct wcx_page_asker *asker, struct asked_file *file)
{
	bool is_last;

	pthread_mutex_lock(&asker->lock);
	is_last = --file->users == 0 && file->is_closed;
	pthread_mutex_unlock(&asker->lock);
	if (is_last)
		free_file(file);
}

int wcx_page_asker_ask(struct wcx_page_asker *asker, uint64_t target, const char *path, uint64_t offset, uint64_t bytes)
{
	struct asked_file *file;
	int r = use(asker, target, path, &file);

	if (r)
		return r;
	r = file->state == OPEN ? 0 : -file->errnum;
	for (uint64_t done = 0; r == 0 && done < bytes; done += asker->ask_bytes)
		r = -posix_fadvise(file->fd, (off_t)(offset + done), (off_t)WCX_MIN(bytes - done, asker->ask_bytes),
				   POSIX_FADV_WILLNEED);
	end_use(asker, file);
	return r;
}

void wcx_page_asker_close(struct wcx_page_asker *asker, uint64_t target)
{
	struct asked_file **at, *file;
	bool is_unused = false;

	if (!asker)
		return;
	pthread_mutex_lock(&asker->lock);
	at = find_locked(asker, target);
	file = *at;
	if (file) {
		*at = file->next;
		file->is_closed = true;
		is_unused = file->users == 0;
	}
	pthread_mutex_unlock(&asker->lock);
	if (is_unused)
		free_file(file);
}

bool wcx_page_asker_is_own(struct wcx_page_asker *asker, uint64_t target, pid_t task)
{
	struct asked_file *file;
	bool is_own;

	if (!asker)
		return false;
	pthread_mutex_lock(&asker->lock);
	file = *find_locked(asker, target);
	is_own = file && file->state == OPENING && file->opener == task;
	if (is_own)
		file->is_recognized = true;
	pthread_mutex_unlock(&asker->lock);
	return is_own;
}
