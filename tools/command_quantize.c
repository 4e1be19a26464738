/* SPDX-License-Identifier: MIT */
/* wcx quantize: makes an INT8 model of a directory with weights in F16, BF16 or F32. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/base/array.h"
#include "fs/base/clock.h"
#include "fs/base/parents.h"
#include "fs/pack/pack.h"
#include "fs/quantize/quantize.h"
#include "tools/command.h"
#include "tools/dependents.h"
#include "tools/quantize_report.h"

static const char help[] =
	"usage: wcx quantize [OPTIONS] MODEL_DIR OUT_DIR\n"
	"       wcx quantize --dry-run [OPTIONS] MODEL_DIR\n"
	"\n"
	"Makes an INT8 model that transformers (with compressed-tensors) and vLLM load.  The\n"
	"weights of linear layers, in F16, BF16 or F32, are rounded to the nearest of 256\n"
	"values, symmetrically, with a scale for each output channel.  Embeddings, norms and\n"
	"the output layer stay.  Values and scales are bit for bit those of compressed-tensors.\n"
	"config.json gets a quantization_config; tokenizer and all else is copied.  OUT_DIR\n"
	"appears when it is complete.\n"
	"\n"
	"      --pack           store the weights packed (NAME.safetensors.wcx), for wcxfs\n"
	"      --for=GOAL       with --pack: size (default) or speed, as of wcx pack\n"
	"      --format=FORMAT  int-quantized (default): W8A8, activations are quantised for each\n"
	"                       token at run time; or pack-quantized: W8A16, weights only\n"
	"      --strategy=WHAT  channel (default): a scale for each output channel; or tensor: one\n"
	"                       for each tensor\n"
	"      --dtype=DTYPE    F16, BF16 or F32: dtype of scales (default: that of the weights)\n"
	"      --ignore=NAME    leave this layer as it is; NAME may be re: and an expression that\n"
	"                       matches from the start of names; may be given several times\n"
	"      --unknown-type   accept a model_type that is not known: decide by names and shapes\n"
	"  -n, --dry-run        only show which tensors would become INT8, and why\n"
	"      --json           print JSON lines: an object for each tensor, and a total\n"
	"  -f, --force          replace OUT_DIR with all that is in it, if it is a model's directory (has\n"
	"                       a config.json), MODEL_DIR is not in it, and no other file is packed\n"
	"                       against one in it\n"
	"      --store=DIR      look for such files in DIR (by default, and if OUT_DIR is not in DIR, as\n"
	"                       wcx rm does without --store, from OUT_DIR upwards)\n"
	"  -j, --threads=N      use N threads (default: one per core)\n"
	"  -q, --quiet          print neither progress nor a summary\n"
	"  -v, --verbose        accepted and ignored\n"
	"  -h, --help           print this text\n"
	"\n"
	"The summary has the precision as the ratio of signal to quantisation noise (SQNR), and\n"
	"the tensors where it is lowest; below 30 dB, try --ignore.\n"
	"\n"
	"Examples:\n"
	"  wcx quantize --dry-run models/llama\n"
	"  wcx quantize --pack models/llama store/llama-int8 && wcxfs store /mnt/models\n"
	"  wcx quantize --format=pack-quantized --ignore='re:.*down_proj' models/llama llama-w8a16\n"
	"\n"
	"Exit codes: 0 success, 1 failure (the message says why; nothing is left), 2 invalid\n"
	"command line, 3 a file of the model is no safetensors file.\n";

/* What the callbacks need. */
struct quantising {
	struct command *command;
	struct wcx_quantize_report report;
	const char **ignore;
	size_t ignore_count, ignore_capacity;
	bool packs;
	/* Of the directory that is replaced. */
	const char *target;
	struct wcx_dependents *dependents;
	struct wcx_tree_guard guard;
};

/* Looks again, just before the directory goes: something may have come into it, and have been packed against. */
static int guard_target(void *user, struct wcx_error *err)
{
	struct quantising *quantising = user;

	wcx_tree_guard_end(&quantising->guard);
	return wcx_tree_guard_begin(&quantising->guard, quantising->dependents, quantising->target, err);
}

static void tell_tensor(void *user, const struct wcx_shard *shard, const struct wcx_shard_tensor *tensor)
{
	struct quantising *quantising = user;

	wcx_progress_clear(quantising->command);
	wcx_quantize_report_tensor(&quantising->report, shard, tensor);
}

static void draw(void *user, const char *what, uint64_t done, uint64_t total)
{
	const struct quantising *quantising = user;

	wcx_progress(quantising->command, what, done, total);
}

static void warn(void *user, const char *text)
{
	const struct quantising *quantising = user;

	wcx_warn(quantising->command, text);
}

/* Packs a quantised file, which has no name, to path with .wcx behind it. */
static int pack(void *user, int fd, const char *path, struct wcx_error *err)
{
	struct quantising *quantising = user;
	const struct wcx_pack_options options = {
		.job = { .thread_count = quantising->command->thread_count,
			 .stop = &wcx_command_stop,
			 .progress = draw,
			 .warn = warn,
			 .user = user },
		.shown_src = path,
		.for_speed = quantising->command->for_speed,
	};
	struct wcx_pack_result result;
	struct wcx_image *image = NULL;
	char source[32], *target;
	int r;

	if (asprintf(&target, "%s.wcx", path) < 0)
		return wcx_fail(err, ENOMEM, "%s: no memory", path);
	snprintf(source, sizeof source, "/proc/self/fd/%d", fd);
	r = wcx_pack(source, target, &options, &result, err);
	if (r == 0)
		r = wcx_command_open(quantising->command, target, &image, err);
	if (r == 0)
		r = wcx_quantize_report_packed(&quantising->report, image, err);
	wcx_image_put(image);
	free(target);
	return r;
}

static int add_ignored(struct quantising *quantising, const char *name)
{
	const char **grown = wcx_array_reserve(quantising->ignore, &quantising->ignore_capacity,
					       quantising->ignore_count + 1, sizeof *grown);

	if (!grown)
		return -ENOMEM;
	quantising->ignore = grown;
	grown[quantising->ignore_count++] = name;
	return 0;
}

/* The index of a word, or -1. */
static int find_word(const char *word, const char *const *words, int count)
{
	for (int i = 0; i < count; i++)
		if (strcasecmp(word, words[i]) == 0)
			return i;
	return -1;
}

/* Handles an option of this command; returns as wcx_command_option does. */
static int take_option(struct quantising *quantising, struct wcx_quantize_options *options, int option)
{
	static const char *const formats[] = { "int-quantized", "pack-quantized" },
				 *const strategies[] = { "channel", "tensor" }, *const dtypes[] = { "F16",      "BF16",
												    "F32",      "float16",
												    "bfloat16", "float32" };
	int word;

	switch (option) {
	case 'f':
		options->job.replace = true;
		return -1;
	case 'P':
		quantising->packs = true;
		return -1;
	case 'F':
		word = find_word(optarg, formats, 2);
		options->is_packed = word == 1;
		return word < 0 ? wcx_command_usage(quantising->command, "--format must be int-quantized or pack-quantized")
				: -1;
	case 's':
		word = find_word(optarg, strategies, 2);
		options->is_per_tensor = word == 1;
		return word < 0 ? wcx_command_usage(quantising->command, "--strategy must be channel or tensor") : -1;
	case 'd':
		word = find_word(optarg, dtypes, 6);
		options->has_scales = true;
		options->scales = (enum wcx_float_type)(word % 3);
		return word < 0 ? wcx_command_usage(quantising->command, "--dtype must be F16, BF16 or F32") : -1;
	case 'i':
		return add_ignored(quantising, optarg) < 0 ? WCX_EXIT_FAILED : -1;
	case 'u':
		options->allows_unknown_types = true;
		return -1;
	case 'n':
		options->is_dry_run = quantising->report.is_dry_run = true;
		return -1;
	case 'J':
		quantising->report.is_json = true;
		return -1;
	default:
		return wcx_command_option(quantising->command, option, help);
	}
}

static int quantise(struct quantising *quantising, struct wcx_quantize_options *options, const char *source,
		    const char *target)
{
	struct command *command = quantising->command;
	struct wcx_quantize_result result;
	struct wcx_error err;
	size_t made_above = 0;
	int r = 0;

	options->ignore = quantising->ignore;
	options->ignore_count = quantising->ignore_count;
	options->job.thread_count = command->thread_count;
	if (quantising->packs)
		options->keep = pack;
	wcx_command_catch_signals();
	if (target && options->job.replace && !options->is_dry_run) {
		quantising->target = target;
		quantising->dependents = wcx_dependents_create(command->store);
		options->replaces = guard_target;
		r = quantising->dependents ? guard_target(quantising, &err) : wcx_fail(&err, ENOMEM, "no memory");
	}
	if (r == 0 && target && !options->is_dry_run) {
		r = wcx_parents_make(target, &made_above);
		if (r < 0)
			wcx_fail(&err, -r, "%s: %s", target, strerror(-r));
	}
	if (r == 0)
		r = wcx_quantize(source, target, options, &result, &err);
	if (r < 0 && made_above)
		wcx_parents_remove(target, made_above);
	wcx_tree_guard_end(&quantising->guard);
	wcx_dependents_free(quantising->dependents);
	if (r < 0) {
		wcx_command_failed(command, &err);
		return r == -EMEDIUMTYPE ? WCX_EXIT_OTHER_FILES : WCX_EXIT_FAILED;
	}
	wcx_progress_clear(command);
	wcx_quantize_report_end(&quantising->report, &result, target, command->quiet);
	return WCX_EXIT_OK;
}

int wcx_command_quantize(struct command *command, int argc, char **argv)
{
	static const struct option long_options[] = { WCX_COMMAND_LONG_OPTIONS,
						      { "force", no_argument, NULL, 'f' },
						      WCX_COMMAND_STORE_OPTION,
						      WCX_COMMAND_GOAL_OPTION,
						      { "pack", no_argument, NULL, 'P' },
						      { "format", required_argument, NULL, 'F' },
						      { "strategy", required_argument, NULL, 's' },
						      { "dtype", required_argument, NULL, 'd' },
						      { "ignore", required_argument, NULL, 'i' },
						      { "unknown-type", no_argument, NULL, 'u' },
						      { "dry-run", no_argument, NULL, 'n' },
						      { "json", no_argument, NULL, 'J' },
						      { 0 } };
	struct quantising quantising = { .command = command, .report.started_ms = wcx_now_ms() };
	struct wcx_quantize_options options = {
		.job = { .stop = &wcx_command_stop, .progress = draw, .warn = warn, .user = &quantising },
		.tensor = tell_tensor,
	};
	int option, status = -1;

	command->decoder_kind = WCX_DECODER_CPU; /* decodes only headers */
	while (status < 0 && (option = wcx_command_getopt(argc, argv, WCX_COMMAND_SHORT_OPTIONS "fn", long_options)) != -1)
		status = take_option(&quantising, &options, option);
	if (status < 0 && argc - optind != 2 && !(options.is_dry_run && argc - optind == 1))
		status = wcx_command_usage(command, "expected a model's directory and an output directory");
	if (status < 0)
		status = quantise(&quantising, &options, argv[optind], argv[optind + 1]);
	wcx_quantize_report_free(&quantising.report);
	free(quantising.ignore);
	return status;
}
