/* SPDX-License-Identifier: MIT */
/* wcx verify: checks packed files. */
#include <errno.h>

#include "fs/base/ancestors.h"
#include "fs/base/path.h"
#include "fs/read/base_rules.h"
#include "fs/read/export.h"
#include "fs/read/image_bases.h"
#include "tools/arguments.h"
#include "tools/command.h"
#include "tools/file_task.h"

static const char help[] = "usage: wcx verify [OPTIONS] FILE.wcx|TREE...\n"
			   "\n"
			   "Checks packed files completely: superblock, index, the checksum and coding of every\n"
			   "tile, and the SHA-256 of the original.  Damage is reported with the tensor, the tile\n"
			   "and its offset.  Of a directory, all packed files are checked, several at a time.\n"
			   "A file that is packed against a base is checked with it; a base that is missing or was\n"
			   "changed is reported with the file that needs it, and so is one outside of TREE or DIR, where\n"
			   "a mount of that would not find it.\n"
			   "\n"
			   "      --store=DIR     look for bases in DIR (default: TREE, or around FILE.wcx as wcx rm does)\n"
			   "      --json          print a line of JSON for each file, and one for a tree\n"
			   "  -j, --threads=N     use N threads (default: one per core)\n"
			   "      --decoder=NAME  auto (default), cpu or cuda\n"
			   "  -q, --quiet         print only damage\n"
			   "  -v, --verbose       print the decoder in use\n"
			   "  -h, --help          print this text\n"
			   "\n"
			   "Examples:\n"
			   "  wcx verify store/*.wcx\n"
			   "  wcx verify store\n"
			   "\n"
			   "Exit codes: 0 all files are sound, 1 one is not, or there is none, 2 invalid command line.\n";

/* Damage is told tile by tile. */
static void print_damage(void *user, uint64_t tile_index, const struct wcx_error *why)
{
	const struct wcx_report_slot *slot = user;

	(void)tile_index;
	wcx_report_note(slot->report, why);
}

static void report_progress(void *user, uint64_t done, uint64_t total)
{
	wcx_report_progress(user, "verifying", done, total);
}

/* Whether a mount of the store will read a base too; the name of the first is shown with a file that was named. */
static int check_base(struct wcx_file_task *task, struct wcx_image *image, uint32_t number, struct wcx_error *err)
{
	const char *store = task->run->store, *path;
	char text[WCX_BASE_TEXT_BYTES];
	struct wcx_image *base;
	struct stat st;
	int fd, r = wcx_image_bases_get(wcx_image_bases(image), number, &base, err);

	if (r < 0)
		return r;
	wcx_base_describe(wcx_container_base(wcx_image_container(image), number), text);
	path = wcx_container_path(wcx_image_container(base));
	fd = wcx_container_fd(wcx_image_container(base));
	if (!store && number == 1)
		task->result.base_found = wcx_plain_path(path);
	else if (store && !wcx_is_below(path, store))
		r = wcx_fail(err, EXDEV,
			     "%s: sound, but a mount of %s cannot read it: %s is not in there; --store=DIR names the store",
			     task->path, store, text);
	else if (store && (fstat(fd, &st) < 0 || !wcx_base_suits(&task->st, &st, !wcx_has_acl(fd))))
		r = wcx_fail(err, EACCES,
			     "%s: sound, but a mount will not use %s, since that has another owner, or fewer may read it",
			     task->path, text);
	wcx_image_put(base);
	return r;
}

static int check_bases(struct wcx_file_task *task, struct wcx_image *image, struct wcx_error *err)
{
	const uint32_t count = wcx_container_base_count(wcx_image_container(image));
	int r = 0;

	for (uint32_t number = 1; number <= count && r == 0; number++)
		r = check_base(task, image, number, err);
	return r;
}

/* Files of a tree that are not packed are none of this command's business. */
static int verify_file(struct wcx_file_task *task, struct wcx_error *err)
{
	const struct wcx_export_ops ops = {
		.share = &task->run->share,
		.progress = report_progress,
		.damaged = print_damage,
	};
	struct command *command = task->run->command;
	struct wcx_image *image = NULL;
	int r;

	task->result.outcome = WCX_OUTCOME_LEFT;
	if (!task->is_named && !wcx_is_packed_file(task->fd) && !wcx_is_packed_name(task->name))
		return 0;
	r = wcx_task_open_image(task, &image, err);
	if (r == 0)
		r = wcx_image_find_bases(image, err);
	if (r == 0)
		r = wcx_verify(image, command->thread_count, &ops, &task->slot, &wcx_command_stop, err);
	if (r == 0)
		r = wcx_task_add_dtypes(task, image, err);
	if (r == 0)
		r = check_bases(task, image, err);
	wcx_image_put(image);
	task->result.outcome = WCX_OUTCOME_SOUND;
	return r;
}

int wcx_command_verify(struct command *command, int argc, char **argv)
{
	static const struct option options[] = {
		WCX_COMMAND_LONG_OPTIONS,
		WCX_COMMAND_JSON_OPTION,
		WCX_COMMAND_STORE_OPTION,
		WCX_COMMAND_DECODER_OPTION,
		{ 0 },
	};
	static const struct wcx_tree_ops ops = {
		.what = "verifying", .decodes = true, .wants_packed = true, .file = verify_file
	};
	int option, status;

	while ((option = wcx_command_getopt(argc, argv, WCX_COMMAND_SHORT_OPTIONS, options)) != -1)
		if ((status = wcx_command_option(command, option, help)) >= 0)
			return status;
	return wcx_run_inputs(command, &ops, argv + optind, (size_t)(argc - optind),
			      "expected a packed file or a directory");
}
