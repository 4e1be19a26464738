/* SPDX-License-Identifier: MIT */
/* wcx unpack: restores the safetensors file. */
#include <getopt.h>
#include <stdio.h>

#include "fs/read/unpack.h"
#include "tools/command.h"

static const char help[] = "usage: wcx unpack [OPTIONS] FILE.wcx FILE.safetensors\n"
			   "\n"
			   "Restores the original file, byte for byte.  The output appears under its name when\n"
			   "it is complete and its SHA-256 has been checked.\n"
			   "\n"
			   "  -f, --force         replace an existing output\n"
			   "  -j, --threads=N     use N threads (default: one per core)\n"
			   "      --decoder=NAME  auto (default), cpu or cuda\n"
			   "  -q, --quiet         print no progress\n"
			   "  -v, --verbose       print the decoder in use\n"
			   "  -h, --help          print this text\n"
			   "\n"
			   "Example:\n"
			   "  wcx unpack store/model.safetensors.wcx model.safetensors\n"
			   "\n"
			   "Exit codes: 0 success, 1 failure (the message says why), 2 invalid command line.\n";

int wcx_command_unpack(struct command *command, int argc, char **argv)
{
	static const struct option options[] = {
		WCX_COMMAND_LONG_OPTIONS, WCX_COMMAND_DECODER_OPTION, { "force", no_argument, NULL, 'f' }, { 0 }
	};
	struct wcx_job_options unpack = {
		.stop = &wcx_command_stop, .progress = wcx_progress, .warn = wcx_warn, .user = command
	};
	struct wcx_image *image = NULL;
	struct wcx_error err;
	int option, status, r;

	while ((option = wcx_command_getopt(argc, argv, WCX_COMMAND_SHORT_OPTIONS "f", options)) != -1) {
		if (option == 'f')
			unpack.replace = true;
		else if ((status = wcx_command_option(command, option, help)) >= 0)
			return status;
	}
	if (argc - optind != 2)
		return wcx_command_usage(command, "expected a packed file and an output");
	unpack.thread_count = command->thread_count;
	wcx_command_catch_signals();
	r = wcx_command_open(command, argv[optind], &image, &err);
	if (r == 0)
		r = wcx_unpack(image, argv[optind + 1], &unpack, &err);
	wcx_image_put(image);
	return r < 0 ? wcx_command_failed(command, &err) : WCX_EXIT_OK;
}
