/* SPDX-License-Identifier: MIT */
/* What the commands of the program wcx share. */
#ifndef WCX_COMMAND_H
#define WCX_COMMAND_H

#include <stdatomic.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/read/decoder.h"
#include "fs/read/image.h"

/* Exit codes, as the help of every command lists them. */
enum { WCX_EXIT_OK, WCX_EXIT_FAILED, WCX_EXIT_USAGE };

/* Options that all commands have, and what those need to run. */
struct command {
	const char *name; /* of the command, for messages */
	int quiet, verbose;
	unsigned thread_count;
	enum wcx_decoder_kind decoder_kind;
	struct wcx_tile_cache *cache;
	struct wcx_decoder *decoder;
};

int wcx_command_pack(struct command *command, int argc, char **argv);
int wcx_command_unpack(struct command *command, int argc, char **argv);
int wcx_command_verify(struct command *command, int argc, char **argv);
int wcx_command_warm(struct command *command, int argc, char **argv);
int wcx_command_info(struct command *command, int argc, char **argv);

/* Options for wcx_command_option, to be put into every command's own. */
#define WCX_COMMAND_SHORT_OPTIONS "hqvj:"
#define WCX_COMMAND_LONG_OPTIONS                                                                                            \
	{ "help", no_argument, NULL, 'h' }, { "quiet", no_argument, NULL, 'q' }, { "verbose", no_argument, NULL, 'v' },     \
		{ "threads", required_argument, NULL, 'j' },                                                                \
	{                                                                                                                   \
		"decoder", required_argument, NULL, 'D'                                                                     \
	}

/*
 * wcx_command_option - handle an option that all commands have
 *
 * Returns -1 to go on, or the exit code with which to end (after -h, which prints help, or a wrong option).
 */
int wcx_command_option(struct command *command, int option, const char *help);

/*
 * wcx_command_each - do something for every path of a command line that has only these options
 *
 * missing says what is needed where there is none.  handle returns an exit code; the command's is WCX_EXIT_FAILED if one
 * was, or when a signal came.
 */
int wcx_command_each(struct command *command, int argc, char **argv, const char *help, const char *missing,
		     int (*handle)(struct command *command, char *path));

/* wcx_command_usage - say what is wrong with the command line; returns WCX_EXIT_USAGE */
int wcx_command_usage(const struct command *command, const char *what);

/* wcx_command_failed - print an error; returns WCX_EXIT_FAILED */
int wcx_command_failed(const struct command *command, const struct wcx_error *err);

/* wcx_command_open - open a .wcx file with the command's cache and decoder, which are made at the first call; 0 or -errno */
int wcx_command_open(struct command *command, const char *path, struct wcx_image **ret, struct wcx_error *err);

/*
 * wcx_command_catch_signals - have wcx_command_stop become nonzero at SIGINT, SIGTERM or SIGHUP
 *
 * SIGHUP stays ignored where it is (nohup), and SIGXFSZ is from now on, so that writing fails with EFBIG.
 */
void wcx_command_catch_signals(void);
extern atomic_bool wcx_command_stop;

/* wcx_progress - draw how far something is, on standard error if that is a terminal; user is the struct command */
void wcx_progress(void *user, const char *what, uint64_t done, uint64_t total);
void wcx_progress_clear(const struct command *command); /* before anything else is printed */

#endif
