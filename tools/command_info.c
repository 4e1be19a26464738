/* SPDX-License-Identifier: MIT */
/* wcx info: shows what a packed file contains. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/parallel.h"
#include "fs/base/path.h"
#include "fs/pack/compare.h"
#include "tools/command.h"
#include "tools/family.h"
#include "tools/file_task.h"
#include "tools/info_report.h"
#include "tools/tree_run.h"

static const char help[] =
	"usage: wcx info [OPTIONS] FILE.wcx|TREE\n"
	"\n"
	"Shows what a packed file contains: the type, shape, size, packed size, tiles and mode\n"
	"of each tensor, and totals for the file.  \"bits\" is bits per element; \"limit\" is the\n"
	"order-0 entropy of each byte of an element, one table per tensor.  Of a directory, shows each\n"
	"packed file in a line, and totals by dtype.  A file that is packed against bases shows these,\n"
	"and where they are; of a directory, also who depends on whom.\n"
	"\n"
	"      --compare       also show what zstd -19 and the reference mode make of each tensor;\n"
	"                      this decodes the file and takes a second per 3 MB and core\n"
	"      --store=DIR     look for bases in DIR (default: TREE, or around FILE.wcx as wcx rm does)\n"
	"      --json          print one JSON object; of a directory, a line for each file and one for all\n"
	"  -j, --threads=N     use N threads for --compare (default: one per core)\n"
	"      --decoder=NAME  auto, cpu (default) or cuda\n"
	"  -q, --quiet         print no progress\n"
	"  -v, --verbose       print the decoder in use\n"
	"  -h, --help          print this text\n"
	"\n"
	"The mode of a tensor is stored, zstd, constant, empty, \"same as\" another tensor, or\n"
	"the coding of its first coded tile.  That lists the fields of an element, from the\n"
	"highest bits down: ransN, ransNxT (N bits, coded with a choice of T tables) or ransNxSxT\n"
	"(of S sets of T tables), pairsNxT (the same for two elements at a time), rawN (N bits,\n"
	"not coded) or const.\n"
	"A suffix follows, if the sign inverts the bits above it (+fold) or if there is a\n"
	"predictor (+left, +up or +left2), if each byte of an element is coded as one (by byte),\n"
	"as those of packed INT4 in I32 are, or if differences from a base are coded (+base); \"as\n"
	"base\" is a tensor whose differences are all the same, mostly none.  Small tensors may share\n"
	"tiles: each shows all of these tiles, but only its share of the packed bytes.\n"
	"\n"
	"Examples:\n"
	"  wcx info store/model.safetensors.wcx\n"
	"  wcx info store\n"
	"  wcx info --json store/model.safetensors.wcx | jq -r '.tensors[] | [.name, .packed_bytes] | @tsv'\n"
	"\n"
	"Exit codes: 0 success, 1 failure (the message says why), 2 invalid command line.\n";

/* What the threads of a comparison share.  Each item is a tensor, with its own result. */
struct compare_loop {
	struct command *command;
	struct wcx_image *image;
	const struct wcx_safetensors *st;
	struct wcx_comparison *comparisons;
	uint64_t done_bytes; /* belongs to the item between wcx_parallel_enter and leave */
};

static int compare_one(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	struct compare_loop *compare = user;
	const struct wcx_tensor *tensor = &compare->st->tensors[item];
	int r = wcx_compare_tensor(compare->image, tensor, &wcx_command_stop, &compare->comparisons[item], err);

	(void)worker;
	if (r == 0)
		r = wcx_parallel_enter(loop, item);
	if (r < 0)
		return r;
	compare->done_bytes += tensor->bytes;
	wcx_progress(compare->command, "comparing", compare->done_bytes,
		     compare->st->file_bytes - compare->st->header_bytes);
	wcx_parallel_leave(loop);
	return 0;
}

/* Compares all tensors; the caller frees *ret. */
static int compare_all(struct command *command, struct wcx_image *image, const struct wcx_safetensors *st,
		       struct wcx_comparison **ret, struct wcx_error *err)
{
	struct compare_loop compare = { .command = command, .image = image, .st = st };
	int r;

	compare.comparisons = calloc(st->tensor_count ? st->tensor_count : 1, sizeof *compare.comparisons);
	if (!compare.comparisons)
		return wcx_fail(err, ENOMEM, "%s: no memory", wcx_container_path(wcx_image_container(image)));
	*ret = compare.comparisons;
	wcx_command_catch_signals();
	r = wcx_parallel_for(command->thread_count, st->tensor_count, compare_one, &compare, &wcx_command_stop, err);
	wcx_progress_clear(command);
	return r;
}

/* Shows a file whole: all its tensors. */
static int show_file(struct command *command, const char *path, bool compare)
{
	struct wcx_comparison *comparisons = NULL;
	struct wcx_safetensors *st = NULL;
	struct wcx_image *image = NULL;
	struct wcx_error err;
	int r = wcx_command_open(command, path, &image, &err);

	if (r == 0)
		r = wcx_image_header(image, &st, &err);
	if (r == 0 && compare)
		r = compare_all(command, image, st, &comparisons, &err);
	if (r == 0) {
		const struct wcx_info info = { image, wcx_image_container(image), st, comparisons };

		if (command->json)
			wcx_info_print_json(&info);
		else
			wcx_info_print_table(&info);
	}
	free(comparisons);
	wcx_safetensors_free(st);
	wcx_image_put(image);
	return r < 0 ? wcx_command_failed(command, &err) : WCX_EXIT_OK;
}

/* Shows the bases of a file, and the files of the tree that are packed against it: a line for each. */
static void show_relatives(const struct wcx_file_task *task, struct wcx_image *image)
{
	const struct wcx_family *family = task->run->options.family;
	const struct wcx_container *c = wcx_image_container(image);
	const struct wcx_superblock *sb = wcx_container_superblock(c);
	struct wcx_family_file self = { .original_bytes = sb->original_bytes, .base_count = sb->base_count };
	struct wcx_error why;

	memcpy(self.sha256, sb->sha256, sizeof self.sha256);
	for (uint32_t number = 1; number <= wcx_container_base_count(c); number++) {
		struct wcx_image *base = NULL;
		char *path = NULL;

		if (wcx_image_bases_get(wcx_image_bases(image), number, &base, &why) == 0)
			path = wcx_plain_path(wcx_container_path(wcx_image_container(base)));
		wcx_report_print(task->slot.report, "%40s%s%s", "", path ? "base: " : "", path ? path : why.text);
		free(path);
		wcx_image_put(base);
	}
	for (size_t i = 0; family && i < family->count; i++) {
		if (!wcx_family_depends(&family->files[i], &self))
			continue;
		wcx_report_print(task->slot.report, "%40sbase of: %s/%s", "", family->walk.start, family->files[i].path);
	}
}

/* A file of a tree, which is told of in one line, and one for each file that it depends on or that depends on it. */
static int show_task(struct wcx_file_task *task, struct wcx_error *err)
{
	const struct wcx_superblock *sb;
	struct wcx_image *image = NULL;
	int r;

	task->result.outcome = WCX_OUTCOME_LEFT;
	if (!wcx_is_packed_file(task->fd) && !wcx_is_packed_name(task->name))
		return 0;
	r = wcx_task_open_image(task, &image, err);
	if (r == 0)
		r = wcx_task_add_dtypes(task, image, err);
	if (r == 0 && !task->run->command->json) {
		sb = wcx_container_superblock(wcx_image_container(image));
		if (!task->run->report.counts[WCX_OUTCOME_SHOWN])
			wcx_report_print(task->slot.report, "%14s %14s %7s  %s", "bytes", "packed", "ratio", "file");
		wcx_report_print(task->slot.report, "%14llu %14llu %7.4f  %s", (unsigned long long)sb->original_bytes,
				 (unsigned long long)sb->packed_bytes, (double)sb->original_bytes / (double)sb->packed_bytes,
				 task->path);
		show_relatives(task, image);
	}
	wcx_image_put(image);
	task->result.outcome = WCX_OUTCOME_SHOWN;
	return r;
}

static int show_tree(struct command *command, const char *path)
{
	static const struct wcx_tree_ops ops = {
		.what = "reading", .decodes = true, .wants_packed = true, .shows = true, .file = show_task
	};
	struct wcx_family family;
	const struct wcx_tree_options options = { .family = &family };
	struct wcx_error err;
	int status;

	wcx_command_catch_signals();
	if (wcx_family_scan(&family, command->store ? command->store : path, false, &wcx_command_stop, &err) < 0) {
		status = wcx_command_failed(command, &err);
	} else {
		status = wcx_run_tree(command, &ops, &options, path, NULL);
	}
	wcx_family_free(&family);
	return status;
}

int wcx_command_info(struct command *command, int argc, char **argv)
{
	static const struct option options[] = {
		WCX_COMMAND_LONG_OPTIONS,
		WCX_COMMAND_JSON_OPTION,
		WCX_COMMAND_STORE_OPTION,
		WCX_COMMAND_DECODER_OPTION,
		{ "compare", no_argument, NULL, 'C' },
		{ 0 },
	};
	bool compare = false;
	int option, status;
	struct stat st;

	command->decoder_kind = WCX_DECODER_CPU; /* decodes only the header; comparing takes far longer than decoding */
	while ((option = wcx_command_getopt(argc, argv, WCX_COMMAND_SHORT_OPTIONS, options)) != -1) {
		if (option == 'C')
			compare = true;
		else if ((status = wcx_command_option(command, option, help)) >= 0)
			return status;
	}
	if (argc - optind != 1)
		return wcx_command_usage(command, "expected one packed file or directory");
	if (stat(argv[optind], &st) < 0 || !S_ISDIR(st.st_mode))
		return show_file(command, argv[optind], compare);
	if (compare)
		return wcx_command_usage(command, "--compare is for one file");
	return show_tree(command, argv[optind]);
}
