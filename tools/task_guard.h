/* SPDX-License-Identifier: MIT */
/* The packed files that a run replaces or removes: no base that others need is lost. */
#ifndef WCX_TASK_GUARD_H
#define WCX_TASK_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "tools/tree_run.h"

/* What an output is made of, as far as it may be the original of what is there. */
struct wcx_output_source {
	int fd;     /* -1: the output is no packed file */
	bool packs; /* it is an original, and is packed; otherwise it is a packed file, and copied */
};

/*
 * wcx_task_guard_begin - before an output of a task is replaced: see to it that nobody loses a base
 *
 * What is there under that name in the output's directory may be anything.  If others need it, that is an error; but if the
 * output will hold the same original, or with --force, it has a second name meanwhile.  Locks it until wcx_task_guard_end
 * is called, which is due in either case.
 */
struct wcx_task_guard {
	int fd;         /* of what was there; -1: nothing that others can need */
	bool is_there;  /* something was */
	bool keeps;     /* it is needed, and has a second name */
	bool made_kept; /* which it did not have before */
	int kept_fd;    /* with a lock: a file that has the second name, and holds the same; -1: it is what was there */
	char *kept;     /* the second name */
	char *why;      /* who needs it */
	char *path;     /* of the output, for messages */
	uint8_t sha256[32];
	uint64_t original_bytes;
};
int wcx_task_guard_begin(struct wcx_task_guard *guard, struct wcx_file_task *task, const char *name, const char *path,
			 const struct wcx_output_source *source, struct wcx_error *err);

/*
 * wcx_task_guard_end - once an output has been written (r 0) or not (r negative): unlock what was there
 *
 * A second name stays only if the output is another file than what was there, and is told of.
 */
void wcx_task_guard_end(struct wcx_task_guard *guard, struct wcx_file_task *task, const char *name, int r);

/*
 * wcx_task_lock_source - before the packed file that is the source of a task is removed, since it is unpacked
 *
 * Returns a descriptor, with a lock that nobody can pack against it until wcx_dependents_close; or -errno with a message:
 * others need it.
 */
int wcx_task_lock_source(const struct wcx_file_task *task, struct wcx_error *err);

#endif
