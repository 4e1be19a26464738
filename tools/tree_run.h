/* SPDX-License-Identifier: MIT */
/*
 * Runs a command on the files of a tree, or on files that are named one by one, several at a time.
 *
 * The tree's directories are made in the destination first, for nobody but the user; then come files, largest first, then
 * further names of files that have several, then symbolic links; owners, permissions and times of directories come last.  So
 * a run that is interrupted leaves whole files only, and the next one goes on.
 */
#ifndef WCX_TREE_RUN_H
#define WCX_TREE_RUN_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "fs/base/job.h"
#include "fs/base/parallel.h"
#include "fs/base/tree.h"
#include "tools/command.h"
#include "tools/report.h"

struct wcx_tree_run;
struct wcx_family;
struct wcx_dependents;

/* What became of a name. */
enum wcx_name_change { WCX_NAME_KEPT, WCX_NAME_PACKED, WCX_NAME_UNPACKED, WCX_NAME_REPLACED };

/* A regular file to work on.  Descriptors and strings are the run's. */
struct wcx_file_task {
	struct wcx_tree_run *run;
	struct wcx_report_slot slot;
	size_t item;   /* its number in the run; SIZE_MAX: it is none of the items */
	bool is_named; /* by the user: output is the name to use; otherwise it is to be changed as the command does */
	const char *name, *path; /* in its directory; for messages */
	int directory_fd, fd;    /* the directory that it is in; the file, for reading */
	struct stat st;          /* when it was opened */
	int output_directory_fd; /* -1: the command has no output */
	const char *output, *output_path;
	enum wcx_name_change change;   /* set by the command */
	struct wcx_file_result result; /* to be filled in but for path and bytes */
};

/* What a command does. */
struct wcx_tree_ops {
	const char *what;  /* "packing", for progress */
	bool decodes;      /* the command's cache and decoder are needed */
	bool replaces;     /* puts what it makes of a file in that file's place: trees are worked on in place */
	bool wants_packed; /* has nothing to do in a tree without packed files, which is an error */
	bool shows;        /* is for what it prints: totals go to standard output, and files come in the tree's order */
	/* Works on a file.  Returns 0, or -errno with a message: that is counted, and the run goes on. */
	int (*file)(struct wcx_file_task *task, struct wcx_error *err);
	/*
	 * The bytes that the output of a file takes at least and at most; *least_ret and *most_ret are 0 before, and stay so
	 * where there is an output already.  Descriptors of directories that are missing are negative.  NULL: the command
	 * has no output.
	 */
	void (*needs)(const struct wcx_tree_run *run, int directory_fd, int output_directory_fd, const char *name,
		      const struct stat *st, uint64_t *least_ret, uint64_t *most_ret);
	/*
	 * Prepares a run whose items are known, and may put them into another order, before there are any outputs; then end
	 * is called.  Both may be NULL; with waits they are.
	 */
	int (*begin)(struct wcx_tree_run *run, struct wcx_error *err);
	void (*end)(struct wcx_tree_run *run);
	/* Whether a file waits until those that do not are done.  NULL: none does. */
	bool (*waits)(const struct wcx_tree_run *run, int directory_fd, const char *name);
	/* Changes name and text of a link for the destination, in place.  NULL: they stay as they are. */
	void (*link)(int directory_fd, char *name, char *text);
};

/* What wcx pack codes tensors against: what is given, or what it finds in the store; by default the latter for trees only.
 */
enum wcx_base_choice { WCX_BASE_DEFAULT, WCX_BASE_NONE, WCX_BASE_FIND, WCX_BASE_GIVEN };

struct wcx_tree_options {
	bool replace;       /* outputs that are none of the command's */
	bool check;         /* compare contents of what is done already */
	bool remove;        /* sources, once their outputs are verified and synced; a tree is worked on in place */
	bool reflink, link; /* what is not packed, instead of copying it */
	const struct wcx_family *family; /* the files of the tree, for a command that shows who depends on whom; or NULL */
	bool is_reference;               /* pack by the reference's scheme */
	enum wcx_base_choice base_choice;
	char **base_paths; /* packed files and trees */
	size_t base_path_count;
};

struct wcx_tree_run {
	struct command *command;
	const struct wcx_tree_ops *ops;
	struct wcx_tree_options options;
	bool is_in_place;
	const char *store;                 /* where bases and dependents are; NULL: around each file */
	struct wcx_base_search *bases;     /* for files that have bases; NULL: the command decodes nothing */
	struct wcx_dependents *dependents; /* of what is replaced and removed */
	pthread_mutex_t ahead_lock;
	size_t ahead_end; /* what items before that replace or remove is locked, as far as it could be */
	struct wcx_report report;
	struct wcx_core_share share;
	unsigned side_by_side; /* files at a time */
	struct wcx_tree tree;
	const char *output_root_path; /* NULL: the command has no output */
	int output_root_fd;
	bool is_begun;           /* directories and files may have been made */
	bool made_root;          /* the root of the output was made by this run */
	size_t made_above;       /* what of the path above that was made: see wcx_parents_make */
	bool sets_root;          /* the root of the output was made by this run, or by one that was interrupted */
	struct tree_mark *marks; /* one for each entry */
	size_t *items;           /* entries of regular files, largest first */
	size_t item_count;
	size_t first_count;      /* of these, so many are done before the others begin; set by begin */
	void *own;               /* of the command, between begin and end */
	char **paths, **outputs; /* of named files, instead of a tree */
	/* The items that are being done. */
	size_t first_item, end_item;
	atomic_size_t finished;
};

/* wcx_run_tree - run a command on a tree; output NULL: it has none, or works in place.  Tells all, returns the exit code. */
int wcx_run_tree(struct command *command, const struct wcx_tree_ops *ops, const struct wcx_tree_options *options,
		 const char *path, const char *output);

/* wcx_run_files - run a command on named files; outputs NULL: it has none.  Tells all, returns the exit code. */
int wcx_run_files(struct command *command, const struct wcx_tree_ops *ops, const struct wcx_tree_options *options,
		  char **paths, char **outputs, size_t count);

#endif
