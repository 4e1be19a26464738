/* SPDX-License-Identifier: MIT */
/* wcx verify: checks packed files. */
#include <errno.h>
#include <stdio.h>

#include "fs/read/export.h"
#include "tools/command.h"

static const char help[] =
	"usage: wcx verify [OPTIONS] FILE.wcx...\n"
	"\n"
	"Checks packed files completely: superblock, index, the checksum and coding of every\n"
	"tile, and the SHA-256 of the original.  Damage is reported with the tensor, the tile\n"
	"and its offset.\n"
	"\n"
	"  -j, --threads=N     use N threads (default: one per core)\n"
	"      --decoder=NAME  auto (default), cpu or cuda\n"
	"  -q, --quiet         print only damage\n"
	"  -v, --verbose       print the decoder in use\n"
	"  -h, --help          print this text\n"
	"\n"
	"Example:\n"
	"  wcx verify store/*.wcx\n"
	"\n"
	"Exit codes: 0 all files are sound, 1 a file is damaged or cannot be read, 2 invalid command line.\n";

static void print_damage(void *user, uint64_t tile_index, const struct wcx_error *why)
{
	(void)tile_index;
	wcx_command_failed(user, why);
}

static void draw(void *user, uint64_t done, uint64_t total)
{
	wcx_progress(user, "verifying", done, total);
}

static int verify_file(struct command *command, char *path)
{
	static const struct wcx_export_ops ops = { .progress = draw, .damaged = print_damage };
	struct wcx_image *image = NULL;
	struct wcx_error err;
	int r = wcx_command_open(command, path, &image, &err);

	if (r == 0)
		r = wcx_verify(image, command->thread_count, &ops, command, &wcx_command_stop, &err);
	wcx_image_put(image);
	if (r < 0)
		return wcx_command_failed(command, &err);
	wcx_progress_clear(command);
	if (!command->quiet)
		printf("%s: sound\n", path);
	return WCX_EXIT_OK;
}

int wcx_command_verify(struct command *command, int argc, char **argv)
{
	static const struct option options[] = { WCX_COMMAND_LONG_OPTIONS, WCX_COMMAND_DECODER_OPTION, { 0 } };

	return wcx_command_each(command, argc, argv, options, help, "expected a packed file", verify_file);
}
