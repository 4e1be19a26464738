/* SPDX-License-Identifier: MIT */
/* The program wcx: finds the command, runs it, and provides what commands share. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/clock.h"
#include "fs/base/host_limits.h"
#include "fs/base/size_text.h"
#include "fs/base/suggest.h"
#include "fs/base/version.h"
#include "tools/command.h"
#include "tools/print.h"
#include "tools/report.h"

enum { THREADS_MAX = 1024, CACHE_BYTES = 64 << 20, PROGRESS_INTERVAL_MS = 100 };

static const struct {
	const char *name;
	int (*run)(struct command *command, int argc, char **argv);
	const char *arguments, *summary;
} commands[] = {
	{ "pack", wcx_command_pack, "FILE|TREE [OUTPUT]", "compress safetensors files losslessly" },
	{ "unpack", wcx_command_unpack, "FILE|TREE [OUTPUT]", "restore the original files" },
	{ "verify", wcx_command_verify, "FILE|TREE...", "check every byte of packed files" },
	{ "convert", wcx_command_convert, "FILE|TREE...", "bring older packed files to the stable format" },
	{ "rm", wcx_command_rm, "FILE|TREE...", "remove packed files that no other file needs" },
	{ "quantize", wcx_command_quantize, "MODEL_DIR OUT_DIR", "make an INT8 model, packed on request" },
	{ "warm", wcx_command_warm, "PATH...", "read files of a mount into the page cache" },
	{ "hub", wcx_command_hub, "CACHE MOUNT", "pack a Hugging Face cache that is in use" },
	{ "status", wcx_command_status, "[MOUNT...]", "show what mounts hold and do" },
	{ "info", wcx_command_info, "FILE|TREE", "show what packed files contain" },
};

atomic_bool wcx_command_stop;
static volatile sig_atomic_t caught_signal; /* 0: none */

static void on_signal(int number)
{
	caught_signal = number;
	wcx_command_stop = true;
}

void wcx_command_catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART }, hangup;

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) /* not under nohup */
		sigaction(SIGHUP, &action, NULL);
	/* write then fails as it does on a full disk, and the temporary file is removed. */
	signal(SIGXFSZ, SIG_IGN);
}

static void print_help(FILE *out)
{
	fprintf(out, "usage: wcx COMMAND [OPTIONS] ...\n\n"
		     "Compresses safetensors files losslessly.  wcxfs mounts the packed files.\n\n");
	for (size_t i = 0; i < WCX_ARRAY_COUNT(commands); i++)
		fprintf(out, "  wcx %-8s %-26s %s\n", commands[i].name, commands[i].arguments, commands[i].summary);
	fprintf(out, "  wcx %-8s %-26s %s\n", "help", "[COMMAND]", "print this text, or describe a command");
	fprintf(out, "\n  -h, --help     print this text; `wcx COMMAND --help` describes a command\n"
		     "  -V, --version  print the version\n\n"
		     "Exit codes: 0 success, 1 failure (the message says why), 2 invalid command line,\n"
		     "3 some files that were named are of another kind, the rest is done.  SIGINT, SIGTERM and\n"
		     "SIGHUP end a command once it has cleaned up; shells tell that as 128 and the signal's number.\n");
}

int wcx_command_getopt(int argc, char **argv, const char *short_options, const struct option *options)
{
	const char *typed = argv[optind < argc ? optind : argc - 1];
	const int option = getopt_long(argc, argv, short_options, options, NULL);
	struct wcx_suggestion suggestion = { .word = typed + 2 };

	if (option != '?' || strncmp(typed, "--", 2) != 0)
		return option;
	suggestion.word_bytes = strcspn(suggestion.word, "=");
	for (const struct option *known = options; known->name; known++)
		wcx_suggest_more(&suggestion, known->name);
	/* Not for an argument that is missing or too much, of which getopt_long has told. */
	if (suggestion.best && suggestion.best_distance > 0)
		fprintf(stderr, "%s: did you mean `--%s'?\n", argv[0], suggestion.best);
	return option;
}

int wcx_command_each(struct command *command, int argc, char **argv, const struct option *options, const char *help,
		     const char *missing, int (*handle)(struct command *command, char *path))
{
	int option, status = WCX_EXIT_OK;

	while ((option = wcx_command_getopt(argc, argv, WCX_COMMAND_SHORT_OPTIONS, options)) != -1)
		if ((status = wcx_command_option(command, option, help)) >= 0)
			return status;
	if (optind == argc)
		return wcx_command_usage(command, missing);
	wcx_command_catch_signals();
	for (status = WCX_EXIT_OK; optind < argc && !wcx_command_stop; optind++)
		status = wcx_command_worse(status, handle(command, argv[optind]));
	return wcx_command_stop ? WCX_EXIT_FAILED : status;
}

int wcx_command_usage(const struct command *command, const char *what)
{
	fprintf(stderr, "wcx %s: %s; see wcx %s --help\n", command->name, what, command->name);
	return WCX_EXIT_USAGE;
}

int wcx_command_failed(const struct command *command, const struct wcx_error *err)
{
	wcx_progress_clear(command);
	fprintf(stderr, "wcx %s: %s\n", command->name, err->text);
	return WCX_EXIT_FAILED;
}

int wcx_command_option(struct command *command, int option, const char *help)
{
	unsigned long threads;
	char *end;

	switch (option) {
	case 'h':
		fputs(help, stdout);
		return WCX_EXIT_OK;
	case 'q':
		command->quiet = true;
		return -1;
	case 'v':
		command->verbose = true;
		return -1;
	case 'J':
		command->json = true;
		return -1;
	case 'j':
		threads = strtoul(optarg, &end, 10);
		if (*optarg < '0' || *optarg > '9' || *end || threads < 1 || threads > THREADS_MAX)
			return wcx_command_usage(command, "--threads must be 1 to 1024");
		command->thread_count = (unsigned)threads;
		return -1;
	case 'O':
		command->for_speed = strcmp(optarg, "speed") == 0;
		if (!command->for_speed && strcmp(optarg, "size") != 0)
			return wcx_command_usage(command, "--for must be size or speed");
		return -1;
	case 'S':
		command->store = optarg;
		return -1;
	case 'D':
		if (wcx_decoder_kind_parse(optarg, &command->decoder_kind) < 0)
			return wcx_command_usage(command, "--decoder must be auto, cpu, cuda or cuda:N");
		return -1;
	default: /* getopt_long has printed what is wrong */
		return WCX_EXIT_USAGE;
	}
}

static void print_notice(void *user, const char *text)
{
	const struct command *command = user;

	if (command->verbose)
		fprintf(stderr, "wcx %s: %s\n", command->name, text);
}

int wcx_command_prepare(struct command *command, struct wcx_error *err)
{
	int r;

	if (!command->cache)
		command->cache = wcx_tile_cache_create(CACHE_BYTES);
	if (!command->cache)
		return wcx_fail(err, ENOMEM, "no memory for a tile cache");
	if (!command->decoder) {
		r = wcx_decoder_create(command->decoder_kind, print_notice, command, &command->decoder, err);
		if (r < 0)
			return r;
		if (command->verbose)
			fprintf(stderr, "wcx %s: decoder: %s\n", command->name, wcx_decoder_name(command->decoder));
	}
	return 0;
}

int wcx_command_open(struct command *command, const char *path, struct wcx_image **ret, struct wcx_error *err)
{
	int fd, r = wcx_command_prepare(command, err);

	if (r < 0)
		return r;
	if (!command->bases)
		command->bases = wcx_base_search_create(command->store, command->cache, command->decoder, &wcx_command_stop);
	if (!command->bases)
		return wcx_fail(err, ENOMEM, "%s: no memory", path);
	if (!command->store)
		wcx_base_search_advise(command->bases, WCX_COMMAND_STORE_ADVICE);
	/* O_NONBLOCK: opening a FIFO would wait for a writer.  The container refuses all but regular files. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return wcx_fail(err, errno, "%s: %s", path, strerror(errno));
	r = wcx_image_open(fd, path, command->cache, command->decoder, ret, err);
	if (r < 0)
		close(fd);
	else
		wcx_base_search_use(command->bases, *ret);
	return r;
}

/* The progress line, which is drawn over itself. */
static struct {
	const char *what; /* NULL: the line is not on the screen */
	uint64_t started_ms, drawn_ms;
} progress;

void wcx_progress_clear(const struct command *command)
{
	if (progress.what && !command->quiet)
		fprintf(stderr, "\r\033[K");
	progress.what = NULL;
}

void wcx_warn(void *user, const char *text)
{
	const struct command *command = user;

	wcx_progress_clear(command);
	wcx_print(stderr, "wcx %s: warning: %s\n", command->name, text);
}

void wcx_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
	const struct command *command = user;
	const uint64_t now = wcx_now_ms();
	char left[WCX_TIME_LEFT_BYTES], size[WCX_SIZE_TEXT_BYTES], whole[WCX_SIZE_TEXT_BYTES], rate[WCX_SIZE_TEXT_BYTES];
	double seconds;

	if (command->quiet || !isatty(STDERR_FILENO))
		return;
	if (!progress.what || strcmp(progress.what, what) != 0) {
		progress.what = what;
		progress.started_ms = now;
	} else if (now - progress.drawn_ms < PROGRESS_INTERVAL_MS && done < total) {
		return;
	}
	progress.drawn_ms = now;
	seconds = (double)(now - progress.started_ms) / 1000;
	wcx_format_time_left(done ? seconds * (double)(total - done) / (double)done : 0, left);
	fprintf(stderr, "\r\033[K%s %3.0f %%  %s of %s  %s/s  %s", what, 100.0 * (double)done / (double)total,
		wcx_size_text((double)done, size), wcx_size_text((double)total, whole),
		wcx_size_text(seconds > 0 ? (double)done / seconds : 0, rate), left);
}

static int fail_unknown(const char *name)
{
	struct wcx_suggestion suggestion = { .word = name, .word_bytes = strlen(name) };

	for (size_t i = 0; i < WCX_ARRAY_COUNT(commands); i++)
		wcx_suggest_more(&suggestion, commands[i].name);
	wcx_suggest_more(&suggestion, "help");
	if (suggestion.best)
		wcx_print(stderr, "wcx: unknown command `%s'; did you mean `%s'?\n", name, suggestion.best);
	else
		wcx_print(stderr, "wcx: unknown command `%s'; see wcx help\n", name);
	return WCX_EXIT_USAGE;
}

static int run_command(int argc, char **argv)
{
	static char name[32] = "wcx "; /* for getopt's messages */
	struct wcx_host_limits limits;
	struct command command = { 0 };
	int status;

	wcx_host_limits_get(&limits);
	command.thread_count = WCX_MIN(limits.cores, (unsigned)THREADS_MAX);
	for (size_t i = 0; i < WCX_ARRAY_COUNT(commands); i++) {
		if (strcmp(argv[0], commands[i].name) != 0)
			continue;
		command.name = commands[i].name;
		argv[0] = strcat(name, command.name);
		status = commands[i].run(&command, argc, argv);
		wcx_progress_clear(&command);
		wcx_base_search_free(command.bases);
		wcx_decoder_free(command.decoder);
		wcx_tile_cache_free(command.cache);
		return status;
	}
	return fail_unknown(argv[0]);
}

/* wcx help [COMMAND] */
static int run_help(int argc, char **argv)
{
	char *command_help[] = { argc > 1 ? argv[1] : NULL, (char[]){ "--help" }, NULL };

	if (argc > 2) {
		fprintf(stderr, "wcx help: expected at most one command\n");
		return WCX_EXIT_USAGE;
	}
	if (argc == 2 && strcmp(argv[1], "help") != 0)
		return run_command(2, command_help);
	print_help(stdout);
	return WCX_EXIT_OK;
}

/* What was begun has been cleaned up.  A shell ends a loop only if it sees that the signal ended the command. */
static int end_by_signal(int number)
{
	signal(number, SIG_DFL);
	raise(number);
	return 128 + number; /* PID 1 of a container survives */
}

int main(int argc, char **argv)
{
	int status;

	if (argc < 2) {
		print_help(stderr);
		return WCX_EXIT_USAGE;
	}
	if (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0) {
		print_help(stdout);
		status = WCX_EXIT_OK;
	} else if (strcmp(argv[1], "-V") == 0 || strcmp(argv[1], "--version") == 0) {
		printf("wcx %s\n", WCX_VERSION_TEXT);
		status = WCX_EXIT_OK;
	} else if (strcmp(argv[1], "help") == 0) {
		status = run_help(argc - 1, argv + 1);
	} else {
		status = run_command(argc - 1, argv + 1);
	}
	if ((fflush(stdout) == EOF || ferror(stdout)) && status == WCX_EXIT_OK) {
		perror("wcx: standard output");
		status = WCX_EXIT_FAILED;
	}
	return caught_signal ? end_by_signal(caught_signal) : status;
}
