/* SPDX-License-Identifier: MIT */
/* wcx unpack: restores safetensors files, one, several or a tree. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "tools/arguments.h"
#include "tools/command.h"
#include "tools/unpack_file.h"

static const char help[] =
	"usage: wcx unpack [OPTIONS] FILE.wcx [FILE]\n"
	"       wcx unpack [OPTIONS] FILE.wcx... DIR\n"
	"       wcx unpack [OPTIONS] TREE NEW_TREE\n"
	"       wcx unpack [OPTIONS] --rm FILE.wcx|TREE...\n"
	"\n"
	"Restores original files, byte for byte.  An output appears under its name when it is complete\n"
	"and its SHA-256 has been checked.\n"
	"\n"
	"Without a second name FILE.wcx becomes FILE beside it; with a directory, DIR/FILE.\n"
	"\n"
	"TREE is a directory as wcx pack makes it.  In NEW_TREE, which is made or continued, each packed\n"
	"file NAME.wcx becomes NAME, and everything else is copied, with owners, permissions and times.\n"
	"What is there already, with the same size and time, is skipped; what is older is replaced.\n"
	"\n"
	"A file that is packed against a base needs it; nothing else of the store is read.  Unpacking\n"
	"in place removes a base only if no other packed file needs it any more.\n"
	"\n"
	"      --store=DIR     look for bases in DIR (default: TREE, or around FILE.wcx as wcx rm does), and\n"
	"                      for files that need what --rm would remove (by default, and if that is not\n"
	"                      in DIR, as wcx rm does without --store)\n"
	"      --rm            unpack in place: remove each packed file once its original is complete,\n"
	"                      checked and synced to disk\n"
	"      --check         compare the contents of what is done already\n"
	"      --reflink       let copies share blocks with their sources, where the file system can\n"
	"      --link          make hard links of what is not packed, where the file system can\n"
	"  -f, --force         replace an existing output, whatever it is\n"
	"      --json          print a line of JSON for each file, and one for a tree, on standard output\n"
	"  -j, --threads=N     use N threads (default: one per core)\n"
	"      --decoder=NAME  auto (default), cpu or cuda\n"
	"  -q, --quiet         print only warnings and errors\n"
	"  -v, --verbose       print the decoder in use, and what becomes of each file of a tree\n"
	"  -h, --help          print this text\n"
	"\n"
	"Examples:\n"
	"  wcx unpack store/model.safetensors.wcx model.safetensors\n"
	"  wcx unpack store/llama models/llama\n"
	"\n"
	"Exit codes: 0 success, 1 failure (the message says why), 2 invalid command line.\n";

/* Without .wcx; another name gets a suffix, so that the file is not refused as its own output but for what it is. */
static char *output_name(const char *name)
{
	const size_t bytes = strlen(name), suffix_bytes = strlen(".wcx");
	char *output;

	if (bytes > suffix_bytes && strcmp(name + bytes - suffix_bytes, ".wcx") == 0)
		return strndup(name, bytes - suffix_bytes);
	return asprintf(&output, "%s.safetensors", name) < 0 ? NULL : output;
}

int wcx_command_unpack(struct command *command, int argc, char **argv)
{
	static const struct option options[] = {
		WCX_COMMAND_LONG_OPTIONS,
		WCX_COMMAND_JSON_OPTION,
		WCX_COMMAND_STORE_OPTION,
		WCX_COMMAND_DECODER_OPTION,
		{ "force", no_argument, NULL, 'f' },
		{ "rm", no_argument, NULL, 'R' },
		{ "check", no_argument, NULL, 'C' },
		{ "reflink", no_argument, NULL, 'F' },
		{ "link", no_argument, NULL, 'L' },
		{ 0 },
	};
	struct wcx_tree_options tree = { 0 };
	int option, status;

	while ((option = wcx_command_getopt(argc, argv, WCX_COMMAND_SHORT_OPTIONS "f", options)) != -1) {
		if (option == 'f')
			tree.replace = true;
		else if (option == 'R')
			tree.remove = true;
		else if (option == 'C')
			tree.check = true;
		else if (option == 'F')
			tree.reflink = true;
		else if (option == 'L')
			tree.link = true;
		else if ((status = wcx_command_option(command, option, help)) >= 0)
			return status;
	}
	return wcx_run_arguments(command, &wcx_unpack_ops, &tree, argv + optind, (size_t)(argc - optind), output_name);
}
