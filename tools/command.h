/* SPDX-License-Identifier: MIT */
/* What the commands of the program wcx share: options, messages, signals, progress. */
#ifndef WCX_COMMAND_H
#define WCX_COMMAND_H

#include <getopt.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/read/base_search.h"
#include "fs/read/decoder.h"
#include "fs/read/image.h"

/*
 * Exit codes; the help of every command lists those that it has.  WCX_EXIT_OTHER_FILES: of the files that were named, some
 * were of another kind and the rest is done.  Of several, the one that stands first in wcx_command_worse.
 */
enum { WCX_EXIT_OK, WCX_EXIT_FAILED, WCX_EXIT_USAGE, WCX_EXIT_OTHER_FILES };

/* wcx_command_worse - the exit code of two pieces of work: failed, else other files, else done */
static inline int wcx_command_worse(int a, int b)
{
	if (a == WCX_EXIT_FAILED || b == WCX_EXIT_FAILED)
		return WCX_EXIT_FAILED;
	return a != WCX_EXIT_OK ? a : b;
}

/* The values of common options, and what commands share while they run. */
struct command {
	const char *name; /* for messages */
	bool quiet, verbose, json;
	bool for_speed;    /* pack for decoding speed rather than size */
	const char *store; /* where bases are; NULL: in the tree that is worked on, or around a file */
	unsigned thread_count;
	enum wcx_decoder_kind decoder_kind;
	struct wcx_tile_cache *cache; /* both NULL until wcx_command_prepare */
	struct wcx_decoder *decoder;
	struct wcx_base_search *bases; /* NULL until wcx_command_open */
};

int wcx_command_pack(struct command *command, int argc, char **argv);
int wcx_command_unpack(struct command *command, int argc, char **argv);
int wcx_command_convert(struct command *command, int argc, char **argv);
int wcx_command_verify(struct command *command, int argc, char **argv);
int wcx_command_warm(struct command *command, int argc, char **argv);
int wcx_command_hub(struct command *command, int argc, char **argv);
int wcx_command_status(struct command *command, int argc, char **argv);
int wcx_command_rm(struct command *command, int argc, char **argv);
int wcx_command_info(struct command *command, int argc, char **argv);
int wcx_command_quantize(struct command *command, int argc, char **argv);

/* The common options, for each command's own lists; wcx_command_option handles them. */
#define WCX_COMMAND_SHORT_OPTIONS "hqvj:"
#define WCX_COMMAND_LONG_OPTIONS                                                                                            \
	{ "help", no_argument, NULL, 'h' }, { "quiet", no_argument, NULL, 'q' }, { "verbose", no_argument, NULL, 'v' },     \
	{                                                                                                                   \
		"threads", required_argument, NULL, 'j'                                                                     \
	}
/* For the commands that print JSON on request; docs/json.md describes it. */
#define WCX_COMMAND_JSON_OPTION                                                                                             \
	{                                                                                                                   \
		"json", no_argument, NULL, 'J'                                                                              \
	}
#define WCX_COMMAND_STORE_ADVICE "; --store=DIR says where else to look"
/* For the commands that read files which may have bases. */
#define WCX_COMMAND_STORE_OPTION                                                                                            \
	{                                                                                                                   \
		"store", required_argument, NULL, 'S'                                                                       \
	}
/* For the commands that decode. */
#define WCX_COMMAND_DECODER_OPTION                                                                                          \
	{                                                                                                                   \
		"decoder", required_argument, NULL, 'D'                                                                     \
	}

/* For the commands that pack; wcx pack --help says what it means. */
#define WCX_COMMAND_GOAL_OPTION                                                                                             \
	{                                                                                                                   \
		"for", required_argument, NULL, 'O'                                                                         \
	}

/*
 * wcx_command_getopt - getopt_long, which also says what may be meant by an unknown option
 *
 * short_options begins with WCX_COMMAND_SHORT_OPTIONS.
 */
int wcx_command_getopt(int argc, char **argv, const char *short_options, const struct option *options);

/*
 * wcx_command_option - handle a common option, as wcx_command_getopt returned it
 *
 * Returns -1 to continue, or the exit code to stop with: after -h, which prints help, and after an invalid option.
 */
int wcx_command_option(struct command *command, int option, const char *help);

/*
 * wcx_command_each - run a command that takes paths, and no options but these
 *
 * Calls handle for every path until a signal arrives; handle returns an exit code.  missing is the message for a command
 * line without paths.  Returns the worst of these codes, and WCX_EXIT_FAILED if a signal arrived.
 */
int wcx_command_each(struct command *command, int argc, char **argv, const struct option *options, const char *help,
		     const char *missing, int (*handle)(struct command *command, char *path));

/* wcx_command_usage - print what is wrong with the command line; returns WCX_EXIT_USAGE */
int wcx_command_usage(const struct command *command, const char *what);

/* wcx_command_failed - print an error; returns WCX_EXIT_FAILED */
int wcx_command_failed(const struct command *command, const struct wcx_error *err);

/* wcx_command_prepare - make the command's cache and decoder, unless it has them; 0 or -errno */
int wcx_command_prepare(struct command *command, struct wcx_error *err);

/*
 * wcx_command_open - open a .wcx file with the command's cache and decoder, which the first call creates
 *
 * The image finds its bases in the command's store.  With --verbose the first call prints what decodes.  The caller releases
 * *ret with wcx_image_put; main frees cache and decoder.  Returns 0, or -errno with *ret left alone.
 */
int wcx_command_open(struct command *command, const char *path, struct wcx_image **ret, struct wcx_error *err);

/*
 * wcx_command_catch_signals - set wcx_command_stop at SIGINT, SIGTERM or SIGHUP
 *
 * Once the command has returned, main ends the process by that signal.
 *
 * SIGHUP stays ignored under nohup.  SIGXFSZ becomes ignored, so that writing beyond the file size limit fails with EFBIG.
 */
void wcx_command_catch_signals(void);
extern atomic_bool wcx_command_stop;

/*
 * wcx_progress - draw a progress line on standard error, if that is a terminal
 *
 * user is the struct command; what must be a string that stays.  One thread at a time.
 */
void wcx_progress(void *user, const char *what, uint64_t done, uint64_t total);
void wcx_warn(void *user, const char *text);            /* print a warning; user is the struct command */
void wcx_progress_clear(const struct command *command); /* remove the line, before other output */

#endif
