/* SPDX-License-Identifier: MIT */
/* wcx warm: reads files into the page cache. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/file_io.h"
#include "fs/base/parallel.h"
#include "fs/base/walk.h"
#include "tools/command.h"
#include "tools/report.h"

enum { BLOCK_BYTES = 4 << 20 };

static const char help[] = "usage: wcx warm [OPTIONS] PATH...\n"
			   "\n"
			   "Reads files, and all files under directories, so that their pages are in the page\n"
			   "cache before a model is loaded.  Use it on a mount, to decode files in advance.  The\n"
			   "kernel evicts pages again when memory is short.\n"
			   "\n"
			   "      --json          print a line of JSON for each file, and one for a directory\n"
			   "  -j, --threads=N     use N threads (default: one per core)\n"
			   "  -q, --quiet         print only errors\n"
			   "  -v, --verbose       print each file\n"
			   "  -h, --help          print this text\n"
			   "\n"
			   "Example:\n"
			   "  wcx warm /mnt/models/llama\n"
			   "\n"
			   "Exit codes: 0 success, 1 a file cannot be read, 2 invalid command line.\n";

/* A file that is being read, block by block. */
struct warming {
	struct command *command;
	const char *path;
	int fd;
	uint64_t bytes;
	uint8_t **buffers; /* one per thread, allocated by its first block */
};

static int read_block(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	struct warming *warming = user;
	const uint64_t offset = item * BLOCK_BYTES, left = warming->bytes - offset;
	const size_t wanted = (size_t)WCX_MIN(left, BLOCK_BYTES);
	ssize_t n;
	int r;

	if (!warming->buffers[worker])
		warming->buffers[worker] = malloc(BLOCK_BYTES);
	if (!warming->buffers[worker])
		return wcx_fail(err, ENOMEM, "%s: no memory", warming->path);
	n = wcx_read_at(warming->fd, warming->buffers[worker], wanted, offset);
	if (n < 0)
		return wcx_fail(err, (int)-n, "%s, offset %llu: %s", warming->path, (unsigned long long)offset,
				strerror((int)-n));
	r = wcx_parallel_enter(loop, item);
	if (r < 0)
		return r;
	wcx_progress(warming->command, "warming", offset + (uint64_t)n, warming->bytes);
	wcx_parallel_leave(loop);
	return 0;
}

static int warm_file(struct command *command, const char *path, uint64_t *bytes_ret, struct wcx_error *err)
{
	struct warming warming = { .command = command, .path = path };
	struct stat st;
	int r = 0;

	warming.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (warming.fd < 0 || fstat(warming.fd, &st))
		r = wcx_fail(err, errno, "%s: %s", path, strerror(errno));
	warming.buffers = calloc(command->thread_count, sizeof *warming.buffers);
	if (r == 0 && !warming.buffers)
		r = wcx_fail(err, ENOMEM, "%s: no memory", path);
	if (r == 0) {
		warming.bytes = (uint64_t)st.st_size;
		r = wcx_parallel_for(command->thread_count, WCX_DIV_UP(warming.bytes, BLOCK_BYTES), read_block, &warming,
				     &wcx_command_stop, err);
	}
	for (unsigned i = 0; warming.buffers && i < command->thread_count; i++)
		free(warming.buffers[i]);
	free(warming.buffers);
	if (warming.fd >= 0)
		close(warming.fd);
	wcx_progress_clear(command);
	*bytes_ret = warming.bytes;
	return r;
}

/* Warms a file and reports it. */
static void report_file(struct wcx_report *report, const char *path)
{
	struct wcx_file_result result = { .outcome = WCX_OUTCOME_WARMED, .path = path };

	const int r = warm_file(report->command, path, &result.bytes, &result.error);

	if (r == -EINTR)
		return;
	if (r < 0)
		result.outcome = WCX_OUTCOME_FAILED;
	wcx_report_file(report, 0, &result);
}

/* Warms the files of a tree one after the other.  Follows links, because loaders do. */
static int warm_tree(struct command *command, char *path)
{
	struct wcx_report report;
	struct wcx_error err = { "" };
	struct wcx_walk walk;
	struct stat st;
	int r;

	wcx_report_begin(&report, command, "warming", stat(path, &st) == 0 && S_ISDIR(st.st_mode), 0, 0);
	wcx_walk_begin(&walk, path, WCX_WALK_FOLLOW);
	while (!wcx_command_stop && wcx_walk_next(&walk)) {
		r = 0;
		if (walk.kind == WCX_WALK_FILE)
			report_file(&report, walk.path);
		else if (walk.kind == WCX_WALK_PROBLEM)
			r = wcx_fail(&err, walk.errnum, "%s: %s", walk.path, strerror(walk.errnum));
		else if (walk.kind == WCX_WALK_LINK && !walk.depth)
			r = wcx_fail(&err, ENOENT, "%s: broken symbolic link", walk.path);
		if (r < 0)
			wcx_report_problem(&report, &err);
	}
	wcx_walk_end(&walk);
	r = wcx_command_stop ? wcx_fail(&err, EINTR, "interrupted") : 0;
	return wcx_report_end(&report, r, &err);
}

int wcx_command_warm(struct command *command, int argc, char **argv)
{
	static const struct option options[] = { WCX_COMMAND_LONG_OPTIONS, WCX_COMMAND_JSON_OPTION, { 0 } };

	return wcx_command_each(command, argc, argv, options, help, "expected a file or directory", warm_tree);
}
