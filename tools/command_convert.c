/* SPDX-License-Identifier: MIT */
/* wcx convert: brings packed files of format version 3 to version 1. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/read/convert.h"
#include "tools/arguments.h"
#include "tools/command.h"
#include "tools/file_task.h"

static const char help[] =
	"usage: wcx convert [OPTIONS] FILE.wcx|TREE...\n"
	"\n"
	"Brings packed files of format version 3, the last draft, to version 1, which every later wcx\n"
	"reads.  Packed tiles are copied as they are.  The new file is decoded completely, which checks\n"
	"every tile and the SHA-256 of the original, and then takes the place of the old one in one\n"
	"step, with owner, permissions and times.  A damaged file stays as it is.\n"
	"\n"
	"Of a directory, all packed files are converted, several at a time; names of one file stay names\n"
	"of one file.  Files of version 1 are done already, so the same command continues a run that was\n"
	"interrupted.  There must be space for one more copy of the files that are worked on at a time.\n"
	"\n"
	"      --json          print a line of JSON for each file, and one for a tree\n"
	"  -j, --threads=N     use N threads (default: one per core)\n"
	"      --decoder=NAME  auto (default), cpu or cuda\n"
	"  -q, --quiet         print only warnings and errors\n"
	"  -v, --verbose       print the decoder in use, and what becomes of each file of a tree\n"
	"  -h, --help          print this text\n"
	"\n"
	"Examples:\n"
	"  wcx convert store/model.safetensors.wcx\n"
	"  wcx convert store\n"
	"\n"
	"Exit codes: 0 success, 1 failure (the message says why), 2 invalid command line.\n";

/* A link would be replaced by a file. */
static int check_name(const struct wcx_file_task *task, struct wcx_error *err)
{
	struct stat st;

	if (fstatat(task->directory_fd, task->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return wcx_task_fail(task, errno, err);
	if (S_ISLNK(st.st_mode))
		return wcx_fail(err, EINVAL, "%s: is a link; name the file that it leads to", task->path);
	return 0;
}

static void tell_sizes(struct wcx_file_task *task, const struct wcx_superblock *sb)
{
	task->result.output = strdup(task->path);
	task->result.bytes = sb->original_bytes;
	task->result.packed_bytes = sb->packed_bytes;
	task->result.has_sha256 = true;
	memcpy(task->result.sha256, sb->sha256, sizeof sb->sha256);
}

/* A file that is not of version 3 is done, or refused for what it is. */
static int look_at_other(struct wcx_file_task *task, struct wcx_error *err)
{
	struct wcx_superblock sb;
	const int r = wcx_superblock_read(task->fd, task->path, &sb, err);

	if (r == 0)
		tell_sizes(task, &sb);
	task->result.outcome = WCX_OUTCOME_DONE;
	return r;
}

static int convert_file(struct wcx_file_task *task, struct wcx_error *err)
{
	struct command *command = task->run->command;
	const struct wcx_job_options job = wcx_task_job(task, true, task->path);
	char path[WCX_FD_PATH_BYTES];
	struct wcx_superblock sb;
	int r;

	task->result.outcome = WCX_OUTCOME_LEFT;
	if (!task->is_named && !wcx_is_packed_file(task->fd))
		return 0;
	r = check_name(task, err);
	if (r == 0)
		r = wcx_convert(task->fd, wcx_fd_path(task->directory_fd, task->name, task->path, path), &job,
				command->cache, command->decoder, &sb, err);
	if (r == -EMEDIUMTYPE)
		return look_at_other(task, err);
	if (r < 0)
		return r;
	tell_sizes(task, &sb);
	task->change = WCX_NAME_REPLACED;
	task->result.outcome = WCX_OUTCOME_CONVERTED;
	return 0;
}

int wcx_command_convert(struct command *command, int argc, char **argv)
{
	static const struct option options[] = {
		WCX_COMMAND_LONG_OPTIONS, WCX_COMMAND_JSON_OPTION, WCX_COMMAND_DECODER_OPTION, { 0 }
	};
	static const struct wcx_tree_ops ops = {
		.what = "converting", .decodes = true, .replaces = true, .file = convert_file
	};
	int option, status;

	while ((option = wcx_command_getopt(argc, argv, WCX_COMMAND_SHORT_OPTIONS, options)) != -1)
		if ((status = wcx_command_option(command, option, help)) >= 0)
			return status;
	return wcx_run_inputs(command, &ops, argv + optind, (size_t)(argc - optind),
			      "expected a packed file or a directory");
}
