/* SPDX-License-Identifier: MIT */
/* Paths on the command line: files and trees, and where their outputs go. */
#ifndef WCX_ARGUMENTS_H
#define WCX_ARGUMENTS_H

#include "tools/tree_run.h"

/*
 * wcx_run_arguments - run a command that has outputs
 *
 * Of paths, the last is the output if there are several and options->remove is not set: of a tree a tree, of one file a file
 * or a directory, of several a directory.  output_name gives the name of a file's output where only its directory is known
 * (the caller frees it; NULL: no memory); a name that is no input of the command is given back as it is.  Returns the exit
 * code.
 */
int wcx_run_arguments(struct command *command, const struct wcx_tree_ops *ops, const struct wcx_tree_options *options,
		      char **paths, size_t count, char *(*output_name)(const char *name));

/* wcx_run_inputs - run a command that has no outputs, on files and trees; missing is the message if there are none */
int wcx_run_inputs(struct command *command, const struct wcx_tree_ops *ops, char **paths, size_t count, const char *missing);

#endif
