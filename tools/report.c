/* SPDX-License-Identifier: MIT */
/* Tells what a command does: progress, a line for each file, and totals at the end. */
#include "tools/report.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/clock.h"
#include "fs/base/size_text.h"
#include "tools/json_output.h"
#include "tools/print.h"

enum { DRAW_INTERVAL_MS = 100 };

static const char *const outcome_names[WCX_OUTCOMES] = {
	[WCX_OUTCOME_PACKED] = "packed",         [WCX_OUTCOME_UNPACKED] = "unpacked", [WCX_OUTCOME_COPIED] = "copied",
	[WCX_OUTCOME_LINKED] = "linked",         [WCX_OUTCOME_DONE] = "done",         [WCX_OUTCOME_SOUND] = "sound",
	[WCX_OUTCOME_SHOWN] = "shown",           [WCX_OUTCOME_WARMED] = "warmed",     [WCX_OUTCOME_LEFT] = "left",
	[WCX_OUTCOME_OTHER_KIND] = "other_kind", [WCX_OUTCOME_FAILED] = "failed",     [WCX_OUTCOME_CONVERTED] = "converted",
};

void wcx_report_begin(struct wcx_report *report, struct command *command, const char *what, bool is_tree, uint64_t files,
		      uint64_t bytes)
{
	*report = (struct wcx_report){
		.command = command,
		.what = what,
		.is_tree = is_tree,
		.started_ms = wcx_now_ms(),
		.total_files = files,
		.total_bytes = bytes,
	};
	pthread_mutex_init(&report->lock, NULL);
}

static double seconds_of(const struct wcx_report *report)
{
	return (double)(wcx_now_ms() - report->started_ms) / 1000;
}

static double ratio_of(uint64_t from, uint64_t to)
{
	return (double)from / (double)to;
}

/* Whether the bytes of a file were worked on, and so count for the rate: not if it failed or was passed over. */
static bool is_work(enum wcx_outcome outcome)
{
	switch (outcome) {
	case WCX_OUTCOME_PACKED:
	case WCX_OUTCOME_UNPACKED:
	case WCX_OUTCOME_CONVERTED:
	case WCX_OUTCOME_COPIED:
	case WCX_OUTCOME_SOUND:
	case WCX_OUTCOME_WARMED:
		return true;
	default:
		return false;
	}
}

/* --- progress --- */

static void clear_line(struct wcx_report *report)
{
	if (report->drawn_ms)
		fputs("\r\033[K", stderr);
	report->drawn_ms = 0;
}

void wcx_format_time_left(double seconds, char text[WCX_TIME_LEFT_BYTES])
{
	const unsigned whole = seconds < 0 ? 0 : seconds > 359999 ? 359999 : (unsigned)(seconds + 0.5);

	if (whole >= 3600)
		snprintf(text, WCX_TIME_LEFT_BYTES, "%u:%02u:%02u left", whole / 3600, whole / 60 % 60, whole % 60);
	else
		snprintf(text, WCX_TIME_LEFT_BYTES, "%u:%02u left", whole / 60, whole % 60);
}

static void draw(struct wcx_report *report, const char *what)
{
	const uint64_t now = wcx_now_ms();
	const double seconds = seconds_of(report);
	uint64_t done = report->done_bytes, worked = report->worked_bytes;
	char left[WCX_TIME_LEFT_BYTES], ratio[24] = "", files[64] = "";
	char size[WCX_SIZE_TEXT_BYTES], total[WCX_SIZE_TEXT_BYTES], rate[WCX_SIZE_TEXT_BYTES];

	if (report->command->quiet || now - report->drawn_ms < DRAW_INTERVAL_MS || !isatty(STDERR_FILENO))
		return;
	for (int i = 0; i < WCX_REPORT_SLOTS; i++)
		done += report->slot_bytes[i], worked += report->slot_bytes[i];
	done = WCX_MIN(done, report->total_bytes);
	wcx_format_time_left(worked ? seconds * (double)(report->total_bytes - done) / (double)worked : 0, left);
	if (report->packed_to)
		snprintf(ratio, sizeof ratio, "  ratio %.3f", ratio_of(report->packed_from, report->packed_to));
	if (report->is_tree)
		snprintf(files, sizeof files, "  %llu of %llu files", (unsigned long long)report->done_files,
			 (unsigned long long)report->total_files);
	fprintf(stderr, "\r\033[K%s %3.0f %%%s  %s of %s  %s/s%s  %s", what,
		report->total_bytes ? 100.0 * (double)done / (double)report->total_bytes : 100.0, files,
		wcx_size_text((double)done, size), wcx_size_text((double)report->total_bytes, total),
		wcx_size_text(seconds > 0 ? (double)worked / seconds : 0, rate), ratio, left);
	report->drawn_ms = now;
}

void wcx_report_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
	const struct wcx_report_slot *slot = user;
	struct wcx_report *report = slot->report;

	pthread_mutex_lock(&report->lock);
	/* A second pass over the file does not take its bytes back. */
	report->slot_bytes[slot->number] = WCX_MAX(done, report->slot_bytes[slot->number]);
	if (done == total)
		report->drawn_ms = report->drawn_ms ? 1 : 0; /* the end of a pass is always shown */
	draw(report, report->is_tree ? report->what : what);
	pthread_mutex_unlock(&report->lock);
}

/* --- lines --- */

/* Whether it was said of another file that the same of it cannot be kept, and so this is only counted. */
static bool hide_warning_locked(struct wcx_report *report, const char *text)
{
	const char *what = strstr(text, " cannot be kept: ") ? strstr(text, ": ") : NULL;

	for (int i = 0; i < WCX_REPORT_WARNINGS && what && !report->command->verbose; i++) {
		if (!report->warnings[i].what) {
			report->warnings[i].what = strdup(what + 2);
			return false;
		}
		if (strcmp(report->warnings[i].what, what + 2) == 0) {
			report->warnings[i].hidden++;
			return true;
		}
	}
	return false;
}

void wcx_report_warn(void *user, const char *text)
{
	const struct wcx_report_slot *slot = user;
	struct wcx_report *report = slot->report;

	pthread_mutex_lock(&report->lock);
	if (!hide_warning_locked(report, text)) {
		clear_line(report);
		wcx_print(stderr, "wcx %s: warning: %s\n", report->command->name, text);
	}
	pthread_mutex_unlock(&report->lock);
}

static void print_hidden_warnings(struct wcx_report *report)
{
	for (int i = 0; i < WCX_REPORT_WARNINGS; i++) {
		if (report->warnings[i].hidden)
			wcx_print(stderr, "wcx %s: warning: %llu more (-v names them): %s\n", report->command->name,
				  (unsigned long long)report->warnings[i].hidden, report->warnings[i].what);
		free(report->warnings[i].what);
	}
}

static void print_failure(struct wcx_report *report, const struct wcx_error *why)
{
	clear_line(report);
	fprintf(stderr, "wcx %s: %s\n", report->command->name, why->text);
}

void wcx_report_note(struct wcx_report *report, const struct wcx_error *what)
{
	pthread_mutex_lock(&report->lock);
	print_failure(report, what);
	pthread_mutex_unlock(&report->lock);
}

void wcx_report_print(struct wcx_report *report, const char *format, ...)
{
	va_list args;

	pthread_mutex_lock(&report->lock);
	clear_line(report);
	va_start(args, format);
	wcx_print_list(stdout, format, args);
	va_end(args);
	putchar('\n');
	pthread_mutex_unlock(&report->lock);
}

void wcx_report_problem(void *user, const struct wcx_error *why)
{
	struct wcx_report *report = user;

	pthread_mutex_lock(&report->lock);
	report->counts[WCX_OUTCOME_FAILED]++;
	print_failure(report, why);
	pthread_mutex_unlock(&report->lock);
}

static json_t *json_dtypes(const struct wcx_dtype_totals *totals)
{
	json_t *dtypes = json_object();

	for (size_t i = 0; i < totals->count; i++) {
		const struct wcx_dtype_total *total = &totals->items[i];
		json_t *object = json_object();

		wcx_json_set_count(object, "tensors", total->tensors);
		wcx_json_set_count(object, "bytes", total->bytes);
		wcx_json_set_count(object, "packed_bytes", total->packed_bytes);
		json_object_set_new(dtypes, total->dtype, object);
	}
	return dtypes;
}

static json_t *json_sha256(const uint8_t sha256[WCX_SHA256_BYTES])
{
	char text[2 * WCX_SHA256_BYTES + 1];

	for (int i = 0; i < WCX_SHA256_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", sha256[i]);
	return json_string(text);
}

static json_t *json_bases(const struct wcx_file_result *result)
{
	json_t *bases = json_array();

	for (uint32_t i = 0; i < result->base_count; i++)
		json_array_append_new(bases, json_sha256(result->base_sha256[i]));
	return bases;
}

static void print_json_file(const struct wcx_report *report, const struct wcx_file_result *result)
{
	json_t *object = json_object();

	json_object_set_new(object, "type", json_string("file"));
	json_object_set_new(object, "command", json_string(report->command->name));
	json_object_set_new(object, "outcome", json_string(outcome_names[result->outcome]));
	wcx_json_set_path(object, "path", result->path);
	if (result->output)
		wcx_json_set_path(object, "output", result->output);
	wcx_json_set_count(object, "bytes", result->bytes);
	if (result->packed_bytes) {
		wcx_json_set_count(object, "packed_bytes", result->packed_bytes);
		json_object_set_new(object, "ratio", json_real(ratio_of(result->bytes, result->packed_bytes)));
	}
	if (result->has_sha256)
		json_object_set_new(object, "sha256", json_sha256(result->sha256));
	if (result->base_count) {
		wcx_json_set_path(object, "base", result->base);
		wcx_json_set_count(object, "base_count", result->base_count);
		wcx_json_set_count(object, "based_bytes", result->based_bytes);
		json_object_set_new(object, "bases", json_bases(result));
	}
	if (result->dtypes.count)
		json_object_set_new(object, "dtypes", json_dtypes(&result->dtypes));
	if (result->is_removed)
		json_object_set_new(object, "removed", json_true());
	if (result->error.text[0])
		json_object_set_new(object, "error", json_string(result->error.text));
	wcx_json_print_line(object);
}

/* ", 99.8 % of it against ../base.wcx and 2 more" */
static void print_bases(const struct wcx_file_result *result)
{
	if (!result->base_count)
		return;
	wcx_print(stderr, ", %.1f %% of it against %s", 100.0 * (double)result->based_bytes / (double)result->bytes,
		  *result->base ? result->base : "a base");
	if (result->base_count > 1)
		fprintf(stderr, " and %u more", result->base_count - 1);
}

void wcx_report_file(struct wcx_report *report, unsigned slot, const struct wcx_file_result *result)
{
	const enum wcx_outcome outcome = result->outcome;

	pthread_mutex_lock(&report->lock);
	report->slot_bytes[slot] = 0;
	report->done_files++;
	report->done_bytes += result->bytes;
	if (is_work(outcome))
		report->worked_bytes += result->bytes;
	report->counts[outcome]++;
	report->removed_files += result->is_removed;
	report->based_files += result->base_count > 0;
	report->based_bytes += result->based_bytes;
	if (result->packed_bytes) {
		report->packed_from += result->bytes;
		report->packed_to += result->packed_bytes;
	}
	if (outcome == WCX_OUTCOME_COPIED)
		report->copied_bytes += result->bytes;
	wcx_dtype_totals_merge(&report->dtypes, &result->dtypes);
	if (outcome == WCX_OUTCOME_FAILED || (outcome == WCX_OUTCOME_OTHER_KIND && !report->is_tree))
		print_failure(report, &result->error);
	if ((outcome == WCX_OUTCOME_PACKED || (outcome == WCX_OUTCOME_DONE && result->packed_bytes)) && !report->is_tree &&
	    !report->command->quiet && !report->command->json) {
		clear_line(report);
		wcx_print(stderr, "%s: %llu bytes packed %sinto %llu, ratio %.4f", result->output,
			  (unsigned long long)result->bytes, outcome == WCX_OUTCOME_DONE ? "already " : "",
			  (unsigned long long)result->packed_bytes, ratio_of(result->bytes, result->packed_bytes));
		print_bases(result);
		fputs(result->is_removed ? "; source removed\n" : "\n", stderr);
	}
	if (outcome == WCX_OUTCOME_CONVERTED && !report->is_tree && !report->command->quiet && !report->command->json) {
		clear_line(report);
		wcx_print(stderr, "%s: converted to version %d\n", result->path, WCX_VERSION);
	}
	if (outcome == WCX_OUTCOME_SOUND && !report->command->quiet && !report->command->json) {
		clear_line(report);
		wcx_print(stdout, "%s: sound%s%s\n", result->path, result->base_found ? ", with the base " : "",
			  result->base_found ? result->base_found : "");
	}
	if (report->command->json) {
		clear_line(report);
		print_json_file(report, result);
	} else if (report->command->verbose && (report->is_tree || outcome == WCX_OUTCOME_WARMED)) {
		clear_line(report);
		wcx_print(stderr, "wcx %s: %s: %s", report->command->name, result->path, outcome_names[outcome]);
		print_bases(result);
		fputc('\n', stderr);
	}
	draw(report, report->what);
	pthread_mutex_unlock(&report->lock);
}

/* --- the end --- */

static void print_json_total(const struct wcx_report *report)
{
	json_t *object = json_object(), *files = json_object();

	json_object_set_new(object, "type", json_string("total"));
	json_object_set_new(object, "command", json_string(report->command->name));
	for (int i = 0; i < WCX_OUTCOMES; i++)
		if (report->counts[i])
			wcx_json_set_count(files, outcome_names[i], report->counts[i]);
	json_object_set_new(object, "files", files);
	wcx_json_set_count(object, "bytes", report->packed_from);
	wcx_json_set_count(object, "packed_bytes", report->packed_to);
	if (report->packed_to)
		json_object_set_new(object, "ratio", json_real(ratio_of(report->packed_from, report->packed_to)));
	if (report->based_files) {
		wcx_json_set_count(object, "based_files", report->based_files);
		wcx_json_set_count(object, "based_bytes", report->based_bytes);
	}
	wcx_json_set_count(object, "copied_bytes", report->copied_bytes);
	wcx_json_set_count(object, "removed", report->removed_files);
	json_object_set_new(object, "dtypes", json_dtypes(&report->dtypes));
	json_object_set_new(object, "seconds", json_real(seconds_of(report)));
	wcx_json_print_line(object);
}

static int compare_totals(const void *a, const void *b)
{
	const struct wcx_dtype_total *x = a, *y = b;

	return x->bytes != y->bytes ? (x->bytes > y->bytes ? -1 : 1) : strcmp(x->dtype, y->dtype);
}

static void print_row(FILE *out, const char *dtype, uint64_t tensors, uint64_t bytes, uint64_t packed, bool has_ratio)
{
	wcx_print(out, "%-10s %9llu %16llu %16llu", dtype, (unsigned long long)tensors, (unsigned long long)bytes,
		  (unsigned long long)packed);
	/* Nothing has no ratio to something, nor something to nothing; nor have headers to the index, which is about
	 * tensors. */
	if (bytes && packed && has_ratio)
		fprintf(out, " %8.3f", ratio_of(bytes, packed));
	else
		fprintf(out, " %8s", "-");
	if (bytes && has_ratio)
		fprintf(out, " %8.1f %%\n", 100.0 * (1 - (double)packed / (double)bytes));
	else
		fprintf(out, " %8s\n", "-");
}

static void print_table(const struct wcx_report *report)
{
	FILE *out = report->shows ? stdout : stderr;
	uint64_t tensors = 0, bytes = report->packed_from, packed = report->packed_to;

	fprintf(out, "%-10s %9s %16s %16s %8s %10s\n", "dtype", "tensors", "bytes", "packed", "ratio", "saved");
	for (size_t i = 0; i < report->dtypes.count; i++) {
		const struct wcx_dtype_total *total = &report->dtypes.items[i];

		print_row(out, total->dtype, total->tensors, total->bytes, total->packed_bytes, true);
		tensors += total->tensors;
		bytes -= WCX_MIN(total->bytes, bytes);
		packed -= WCX_MIN(total->packed_bytes, packed);
	}
	print_row(out, "headers", 0, bytes, packed, false);
	print_row(out, "total", tensors, report->packed_from, report->packed_to, true);
}

static void print_summary(const struct wcx_report *report)
{
	const double seconds = seconds_of(report);
	const char *separator = "";
	char rate[WCX_SIZE_TEXT_BYTES];

	fprintf(stderr, "wcx %s: ", report->command->name);
	for (int i = 0; i < WCX_OUTCOMES; i++) {
		if (!report->counts[i])
			continue;
		fprintf(stderr, "%s%llu %s", separator, (unsigned long long)report->counts[i],
			i == WCX_OUTCOME_DONE         ? "done already"
			: i == WCX_OUTCOME_LEFT       ? "left out"
			: i == WCX_OUTCOME_OTHER_KIND ? "of another kind"
						      : outcome_names[i]);
		separator = ", ";
	}
	if (report->removed_files)
		fprintf(stderr, "%s%llu source%s removed", separator, (unsigned long long)report->removed_files,
			report->removed_files == 1 ? "" : "s");
	fprintf(stderr, "%s in %.1f s", *separator ? "" : "no files", seconds);
	if (report->worked_bytes && seconds > 0)
		fprintf(stderr, " (%s/s)", wcx_size_text((double)report->worked_bytes / seconds, rate));
	if (report->based_files && strcmp(report->command->name, "unpack") != 0) /* originals need no base */
		fprintf(stderr, "; %llu packed against bases, which wcx rm keeps", (unsigned long long)report->based_files);
	fputc('\n', stderr);
}

int wcx_report_end(struct wcx_report *report, int r, const struct wcx_error *err)
{
	int status = WCX_EXIT_OK;

	clear_line(report);
	print_hidden_warnings(report);
	if (r < 0)
		print_failure(report, err);
	qsort(report->dtypes.items, report->dtypes.count, sizeof report->dtypes.items[0], compare_totals);
	if (report->is_tree && report->command->json)
		print_json_total(report);
	if (!report->command->quiet && !report->command->json && r == 0 &&
	    (report->is_tree || report->counts[WCX_OUTCOME_PACKED])) {
		if (report->dtypes.count)
			print_table(report);
		if (!report->shows)
			print_summary(report);
	}
	if (!report->is_tree && report->counts[WCX_OUTCOME_OTHER_KIND])
		status = WCX_EXIT_OTHER_FILES;
	if (r < 0 || report->counts[WCX_OUTCOME_FAILED])
		status = WCX_EXIT_FAILED;
	pthread_mutex_destroy(&report->lock);
	return status;
}
