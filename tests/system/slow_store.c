/* SPDX-License-Identifier: MIT */
/*
 * A store on a slow network: shows a directory, read-only, with a delay before each answer, or without answers.
 *
 *	slow_store DIR MOUNTPOINT DELAY_MS GATE
 *
 * While the file GATE exists, no request is answered that contains the text in it, such as "read /a" or just "/a"; an empty
 * text is in every request.
 */
#define FUSE_USE_VERSION 314

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { POLL_US = 10000 };

static int dir_fd;
static unsigned delay_us;
static const char *gate;

static int is_held(const char *operation, const char *path)
{
	char text[64] = "", request[PATH_MAX + 16];
	FILE *file = fopen(gate, "re");

	if (!file)
		return 0;
	if (fgets(text, sizeof text, file))
		text[strcspn(text, "\n")] = '\0';
	fclose(file);
	snprintf(request, sizeof request, "%s %s", operation, path);
	return strstr(request, text) != NULL;
}

/* Waits as long as the network takes; returns the path below DIR. */
static const char *cross_network(const char *operation, const char *path)
{
	usleep(delay_us);
	while (is_held(operation, path))
		usleep(POLL_US);
	return path[1] ? path + 1 : ".";
}

static int op_getattr(const char *path, struct stat *st, struct fuse_file_info *info)
{
	(void)info;
	return fstatat(dir_fd, cross_network("getattr", path), st, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

static int op_readlink(const char *path, char *dst, size_t bytes)
{
	const ssize_t n = readlinkat(dir_fd, cross_network("readlink", path), dst, bytes - 1);

	if (n < 0)
		return -errno;
	dst[n] = '\0';
	return 0;
}

static int op_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *info,
		      enum fuse_readdir_flags flags)
{
	const int fd = openat(dir_fd, cross_network("readdir", path), O_RDONLY | O_DIRECTORY);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;

	(void)offset, (void)info, (void)flags;
	if (!dir)
		return -errno;
	while ((entry = readdir(dir)))
		fill(buffer, entry->d_name, NULL, 0, 0);
	closedir(dir);
	return 0;
}

static int op_open(const char *path, struct fuse_file_info *info)
{
	const int fd = openat(dir_fd, cross_network("open", path), O_RDONLY);

	info->fh = (uint64_t)fd;
	return fd < 0 ? -errno : 0;
}

static int op_read(const char *path, char *dst, size_t bytes, off_t offset, struct fuse_file_info *info)
{
	ssize_t n;

	cross_network("read", path);
	n = pread((int)info->fh, dst, bytes, offset);
	return n < 0 ? -errno : (int)n;
}

/* What close(2) waits for. */
static int op_flush(const char *path, struct fuse_file_info *info)
{
	(void)info;
	cross_network("flush", path);
	return 0;
}

static int op_release(const char *path, struct fuse_file_info *info)
{
	(void)path;
	return close((int)info->fh);
}

/* There are none, and the kernel asks once. */
static int op_getxattr(const char *path, const char *name, char *dst, size_t bytes)
{
	(void)name, (void)dst, (void)bytes;
	cross_network("getxattr", path);
	return -ENOSYS;
}

static int op_statfs(const char *path, struct statvfs *st)
{
	cross_network("statfs", path);
	return fstatvfs(dir_fd, st) ? -errno : 0;
}

/* By default, 12 requests of readers of one file keep everybody else's in the kernel. */
static void *op_init(struct fuse_conn_info *conn, struct fuse_config *config)
{
	(void)config;
	conn->max_background = 1000;
	return NULL;
}

int main(int argc, char **argv)
{
	static const struct fuse_operations operations = {
		.init = op_init,
		.getattr = op_getattr,
		.readlink = op_readlink,
		.readdir = op_readdir,
		.open = op_open,
		.read = op_read,
		.flush = op_flush,
		.release = op_release,
		.getxattr = op_getxattr,
		.statfs = op_statfs,
	};
	char *arguments[] = { argv[0], argc == 5 ? argv[2] : NULL, "-o", "max_threads=256,max_idle_threads=64" };

	if (argc != 5) {
		fprintf(stderr, "usage: slow_store DIR MOUNTPOINT DELAY_MS GATE\n");
		return 2;
	}
	dir_fd = open(argv[1], O_RDONLY | O_DIRECTORY);
	delay_us = (unsigned)strtoul(argv[3], NULL, 10) * 1000;
	gate = argv[4];
	if (dir_fd < 0) {
		perror(argv[1]);
		return 1;
	}
	return fuse_main(4, arguments, &operations, NULL);
}
