/* SPDX-License-Identifier: MIT */
/* wcx pack: compresses safetensors files, one, several or a tree. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/arguments.h"
#include "tools/command.h"
#include "tools/pack_file.h"

static const char help[] =
	"usage: wcx pack [OPTIONS] FILE [FILE.wcx]\n"
	"       wcx pack [OPTIONS] FILE... DIR\n"
	"       wcx pack [OPTIONS] TREE NEW_TREE\n"
	"       wcx pack [OPTIONS] --rm FILE|TREE...\n"
	"\n"
	"Compresses safetensors files losslessly.  A source is only read.  An output is decoded and\n"
	"compared with its source before it appears under its name.\n"
	"\n"
	"Without a second name FILE becomes FILE.wcx beside it; with a directory, DIR/FILE.wcx.\n"
	"\n"
	"TREE is a directory: a model, or a whole Hugging Face cache.  NEW_TREE is made, with what is\n"
	"missing above it, or continued if it exists.  Each safetensors file NAME, told by its contents,\n"
	"becomes NAME.wcx; everything else is copied: links with the same text, empty directories, owners,\n"
	"permissions and times.  Special files are left out.  What is in NEW_TREE already is skipped, so\n"
	"that a run which was interrupted goes on, and a second run packs what is new: a file is done if\n"
	"its size and time are the same, or if its name is the SHA-256 of its contents, as in a Hugging\n"
	"Face cache.  What is older than its source is taken for an earlier run's, and replaced; what is\n"
	"not is left, and told of.\n"
	"\n"
	"      --base=BASE   pack against BASE, a packed file or a directory of such: a tensor that is\n"
	"                    smaller as the difference from the base's is kept as that, and from then\n"
	"                    on the output needs the base.  May be given several times.  auto looks for\n"
	"                    bases in the output's directory and below (default for TREE), none does\n"
	"                    not (default for FILE)\n"
	"      --store=DIR   look for bases in DIR instead, and for what is packed against a file that\n"
	"                    would be replaced: that one stays.  By default, and if that file is not in\n"
	"                    DIR, this is looked for in the output's directory and below, and in up to\n"
	"                    four directories above it as far as they hold packed files, on the same\n"
	"                    file system, without / and the home directory\n"
	"      --for=GOAL    size (default), or speed: BF16, F16 and INT8 may take up to 2 % more space,\n"
	"                    mostly less than 1 %, where that decodes faster, on a GPU above all\n"
	"      --rm          pack in place: remove each source once its packed file is verified, synced\n"
	"                    to disk and found to hold the source's contents\n"
	"      --check       compare the contents of what is done already\n"
	"      --reflink     let copies share blocks with their sources, where the file system can\n"
	"      --link        make hard links of what is not packed, where the file system can\n"
	"  -f, --force       replace an existing output, whatever it is, and in NEW_TREE remove another\n"
	"                    NAME beside NAME.wcx; what others are packed against gets the name\n"
	"                    NAME.base-SHA256.wcx, by which they find it\n"
	"      --mode=MODE   best (default), or reference: a baseline for comparisons\n"
	"                    (256 x 256 tiles, predictor LEFT2, one table per tensor)\n"
	"      --json        print a line of JSON for each file, and one for a tree, on standard output\n"
	"  -j, --threads=N   use N threads (default: one per core)\n"
	"  -q, --quiet       print only warnings and errors\n"
	"  -v, --verbose     print what becomes of each file of a tree\n"
	"  -h, --help        print this text\n"
	"\n"
	"Examples:\n"
	"  wcx pack model.safetensors store/model.safetensors.wcx\n"
	"  wcx pack models/llama store/llama\n"
	"  wcx pack ~/.cache/huggingface/hub /data/hub\n"
	"  wcx pack --base=store/llama/model.safetensors.wcx tuned/model.safetensors store/tuned.wcx\n"
	"  wcx pack --rm models\n"
	"\n"
	"Exit codes: 0 success, 1 failure (the message says why), 2 invalid command line,\n"
	"3 some files that were named are no safetensors files, and the rest is done.\n";

static char *output_name(const char *name)
{
	char *output;

	return asprintf(&output, "%s.wcx", name) < 0 ? NULL : output;
}

/* Notes what --base says; -EINVAL if it contradicts an earlier one. */
static int add_base(struct wcx_tree_options *options, char *value)
{
	const enum wcx_base_choice choice = strcmp(value, "none") == 0   ? WCX_BASE_NONE
					    : strcmp(value, "auto") == 0 ? WCX_BASE_FIND
									 : WCX_BASE_GIVEN;
	char **grown;

	if (options->base_choice != WCX_BASE_DEFAULT && options->base_choice != choice)
		return -EINVAL;
	options->base_choice = choice;
	if (choice != WCX_BASE_GIVEN)
		return 0;
	grown = reallocarray(options->base_paths, options->base_path_count + 1, sizeof *grown);
	if (!grown)
		return -ENOMEM;
	grown[options->base_path_count++] = value;
	options->base_paths = grown;
	return 0;
}

int wcx_command_pack(struct command *command, int argc, char **argv)
{
	static const struct option options[] = { WCX_COMMAND_LONG_OPTIONS,
						 WCX_COMMAND_JSON_OPTION,
						 WCX_COMMAND_STORE_OPTION,
						 { "force", no_argument, NULL, 'f' },
						 WCX_COMMAND_GOAL_OPTION,
						 { "mode", required_argument, NULL, 'm' },
						 { "rm", no_argument, NULL, 'R' },
						 { "base", required_argument, NULL, 'B' },
						 { "check", no_argument, NULL, 'C' },
						 { "reflink", no_argument, NULL, 'F' },
						 { "link", no_argument, NULL, 'L' },
						 { 0 } };
	struct wcx_tree_options tree = { 0 };
	int option, status;

	while ((option = wcx_command_getopt(argc, argv, WCX_COMMAND_SHORT_OPTIONS "f", options)) != -1) {
		if (option == 'f')
			tree.replace = true;
		else if (option == 'R')
			tree.remove = true;
		else if (option == 'B' && !*optarg)
			return wcx_command_usage(command, "--base: empty path");
		else if (option == 'B' && add_base(&tree, optarg) < 0)
			return wcx_command_usage(command, "--base: paths, none and auto exclude each other");
		else if (option == 'B')
			continue;
		else if (option == 'C')
			tree.check = true;
		else if (option == 'F')
			tree.reflink = true;
		else if (option == 'L')
			tree.link = true;
		else if (option == 'm' && strcmp(optarg, "reference") == 0)
			tree.is_reference = true;
		else if (option == 'm' && strcmp(optarg, "best") == 0)
			tree.is_reference = false;
		else if (option == 'm')
			return wcx_command_usage(command, "--mode must be best or reference");
		else if ((status = wcx_command_option(command, option, help)) >= 0)
			return status;
	}
	if (command->for_speed && tree.is_reference)
		return wcx_command_usage(command, "--for=speed is not for --mode=reference");
	command->decoder_kind = WCX_DECODER_CPU; /* to verify while other cores pack */
	status = wcx_run_arguments(command, &wcx_pack_ops, &tree, argv + optind, (size_t)(argc - optind), output_name);
	free(tree.base_paths);
	return status;
}
