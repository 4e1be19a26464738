/* SPDX-License-Identifier: MIT */
/* What a command tells of its work on one or many files: progress, a line for each file, and totals at the end. */
#ifndef WCX_REPORT_H
#define WCX_REPORT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "fs/read/dtype_totals.h"
#include "tools/command.h"

enum { WCX_REPORT_SLOTS = 8, WCX_TIME_LEFT_BYTES = 48 }; /* files that are worked on at a time */

/* What became of a file.  The names are in report.c; docs/json.md describes them. */
enum wcx_outcome {
	WCX_OUTCOME_PACKED,
	WCX_OUTCOME_UNPACKED,
	WCX_OUTCOME_CONVERTED,
	WCX_OUTCOME_COPIED,
	WCX_OUTCOME_LINKED, /* another name of a file that was dealt with */
	WCX_OUTCOME_DONE,   /* was done already */
	WCX_OUTCOME_SOUND,
	WCX_OUTCOME_SHOWN,
	WCX_OUTCOME_WARMED,
	WCX_OUTCOME_LEFT, /* not what the command is for, or a special file */
	WCX_OUTCOME_OTHER_KIND,
	WCX_OUTCOME_FAILED,
	WCX_OUTCOMES,
};

struct wcx_file_result {
	enum wcx_outcome outcome;
	const char *path;
	char *output;                 /* NULL: none; freed after it was told */
	uint64_t bytes, packed_bytes; /* of the original; packed: 0 where the file is not packed */
	bool has_sha256, is_removed;  /* the source */
	uint8_t sha256[WCX_SHA256_BYTES];
	uint32_t base_count;  /* of a packed file */
	uint64_t based_bytes; /* of the original, in tensors that are packed against bases */
	char *base_found;     /* where the first is, for a file that is sound; NULL: not told; freed after it was */
	char *base;           /* hint of the first; NULL: none; freed after it was told, as the next is */
	uint8_t (*base_sha256)[WCX_SHA256_BYTES]; /* of each base */
	struct wcx_dtype_totals dtypes;
	struct wcx_error error; /* of a failure, or why it was left */
};

enum { WCX_REPORT_WARNINGS = 8 }; /* kinds that are told apart */

struct wcx_report {
	struct command *command;
	const char *what; /* "packing" */
	bool shows;       /* totals go to standard output, and there is no summary */
	bool is_tree;     /* there are totals, and JSON has a line for them */
	uint64_t started_ms;
	uint64_t total_files, total_bytes;

	pthread_mutex_t lock; /* protects what follows, and standard output and error */
	uint64_t drawn_ms;
	uint64_t slot_bytes[WCX_REPORT_SLOTS]; /* done of the files that are worked on */
	uint64_t done_files, done_bytes;
	uint64_t worked_bytes; /* of these, of files that were worked on; without those that failed or were passed over */
	uint64_t counts[WCX_OUTCOMES];
	uint64_t packed_from, packed_to; /* of packed files: bytes of originals, and packed */
	uint64_t copied_bytes, removed_files;
	uint64_t based_files, based_bytes; /* that are packed against bases */
	struct wcx_dtype_totals dtypes;
	/* What cannot be kept, as warnings say after the path, and how often that was not printed. */
	struct {
		char *what;
		uint64_t hidden;
	} warnings[WCX_REPORT_WARNINGS];
};

/* What a file's worker passes to wcx_pack and the like, for progress and warnings. */
struct wcx_report_slot {
	struct wcx_report *report;
	unsigned number;
};

void wcx_report_begin(struct wcx_report *report, struct command *command, const char *what, bool is_tree, uint64_t files,
		      uint64_t bytes);

/* wcx_report_file - count a finished file, print its JSON line and its failure; safe from any thread */
void wcx_report_file(struct wcx_report *report, unsigned slot, const struct wcx_file_result *result);

/* wcx_format_time_left - "1:05 left" */
void wcx_format_time_left(double seconds, char text[WCX_TIME_LEFT_BYTES]);

/*
 * As struct wcx_job_options has them; user is a struct wcx_report_slot.  Of warnings "PATH: WHAT cannot be kept: WHY" that
 * differ in the path alone, the first is printed, and at the end how many more there were, unless --verbose asks for all.
 */
void wcx_report_progress(void *user, const char *what, uint64_t done, uint64_t total);
void wcx_report_warn(void *user, const char *text);

/* wcx_report_note - print a line about a file that will be told of as failed */
void wcx_report_note(struct wcx_report *report, const struct wcx_error *what);

/* wcx_report_print - print a line on standard output */
void wcx_report_print(struct wcx_report *report, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* wcx_report_problem - count and print a failure that belongs to no file's work; user is the report */
void wcx_report_problem(void *user, const struct wcx_error *why);

/*
 * wcx_report_end - print the totals, and free what the report holds
 *
 * r is 0, or why the work ended early (-EINTR and others), with err.  Returns the exit code.
 */
int wcx_report_end(struct wcx_report *report, int r, const struct wcx_error *err);

#endif
