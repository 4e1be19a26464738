/* SPDX-License-Identifier: MIT */
/* wcx pack: compresses a safetensors file. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "fs/pack/pack.h"
#include "tools/command.h"

static const char help[] = "usage: wcx pack [OPTIONS] FILE.safetensors FILE.wcx\n"
			   "\n"
			   "Compresses FILE.safetensors losslessly.  The source is only read.  The output is\n"
			   "decoded and compared with the source before it appears under its name; after a\n"
			   "failure there is no output.\n"
			   "\n"
			   "  -f, --force       replace an existing output\n"
			   "      --mode=MODE   best (default), or reference: a baseline for comparisons\n"
			   "                    (256 x 256 tiles, predictor LEFT2, one table per tensor)\n"
			   "  -j, --threads=N   use N threads (default: one per core)\n"
			   "  -q, --quiet       print neither progress nor a summary\n"
			   "  -v, --verbose     accepted and ignored\n"
			   "  -h, --help        print this text\n"
			   "\n"
			   "Examples:\n"
			   "  wcx pack model.safetensors store/model.safetensors.wcx\n"
			   "  for f in *.safetensors; do wcx pack -q \"$f\" \"store/$f.wcx\" || break; done\n"
			   "\n"
			   "Exit codes: 0 success, 1 failure (the message says why), 2 invalid command line,\n"
			   "3 FILE.safetensors is another kind of file.\n";

int wcx_command_pack(struct command *command, int argc, char **argv)
{
	static const struct option options[] = { WCX_COMMAND_LONG_OPTIONS,
						 { "force", no_argument, NULL, 'f' },
						 { "mode", required_argument, NULL, 'm' },
						 { 0 } };
	struct wcx_pack_options pack = {
		.job = { .stop = &wcx_command_stop, .progress = wcx_progress, .warn = wcx_warn, .user = command }
	};
	struct wcx_pack_result result;
	struct wcx_error err;
	int option, status, r;

	while ((option = wcx_command_getopt(argc, argv, WCX_COMMAND_SHORT_OPTIONS "f", options)) != -1) {
		if (option == 'f')
			pack.job.replace = true;
		else if (option == 'm' && strcmp(optarg, "reference") == 0)
			pack.is_reference = true;
		else if (option == 'm' && strcmp(optarg, "best") == 0)
			pack.is_reference = false;
		else if (option == 'm')
			return wcx_command_usage(command, "--mode must be best or reference");
		else if ((status = wcx_command_option(command, option, help)) >= 0)
			return status;
	}
	if (argc - optind != 2)
		return wcx_command_usage(command, "expected a source and an output");
	pack.job.thread_count = command->thread_count;
	wcx_command_catch_signals();
	r = wcx_pack(argv[optind], argv[optind + 1], &pack, &result, &err);
	if (r < 0) {
		wcx_command_failed(command, &err);
		return r == -EMEDIUMTYPE ? WCX_EXIT_OTHER_FILES : WCX_EXIT_FAILED;
	}
	wcx_progress_clear(command);
	if (!command->quiet)
		fprintf(stderr, "%s: %llu bytes packed into %llu, ratio %.4f\n", argv[optind + 1],
			(unsigned long long)result.original_bytes, (unsigned long long)result.packed_bytes,
			(double)result.original_bytes / (double)result.packed_bytes);
	return WCX_EXIT_OK;
}
