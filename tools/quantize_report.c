/* SPDX-License-Identifier: MIT */
/* Tables and JSON of `wcx quantize`. */
#include "tools/quantize_report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/base/clock.h"
#include "fs/base/size_text.h"
#include "fs/format/container.h"
#include "tools/json_output.h"
#include "tools/print.h"

enum { SHAPE_TEXT_BYTES = 64 };

/* Ten times the decimal logarithm of signal over noise: every bit of precision is worth 6 dB.  Infinite without noise. */
static double sqnr_db(const struct wcx_int8_error *error)
{
	return error->noise > 0 ? 10 * log10(error->signal / error->noise) : INFINITY;
}

static void note_worst(struct wcx_quantize_report *report, const char *name, double db)
{
	struct wcx_worst_tensor next = { NULL, db };

	if (report->worst[WCX_WORST_COUNT - 1].name && db >= report->worst[WCX_WORST_COUNT - 1].sqnr_db)
		return;
	next.name = strdup(name);
	for (size_t i = 0; i < WCX_WORST_COUNT && next.name; i++) {
		if (!report->worst[i].name || next.sqnr_db < report->worst[i].sqnr_db) {
			const struct wcx_worst_tensor moved = report->worst[i];

			report->worst[i] = next;
			next = moved;
		}
	}
	free(next.name);
}

/* An object as every line has it. */
static json_t *json_line(const char *type)
{
	return json_pack("{s:s, s:s}", "type", type, "command", "quantize");
}

static void print_json_tensor(const struct wcx_quantize_report *report, const struct wcx_shard *shard,
			      const struct wcx_shard_tensor *tensor)
{
	const struct wcx_tensor *source = tensor->source;
	const bool is_quantised = tensor->role == WCX_ROLE_LINEAR;
	json_t *object = json_line("tensor");

	wcx_json_set_path(object, "file", shard->name);
	json_object_set_new(object, "tensor", json_string(source->name));
	json_object_set_new(object, "dtype", json_string(source->dtype));
	json_object_set_new(object, "shape", wcx_json_shape(source->shape, source->dim_count));
	json_object_set_new(object, "role", json_string(wcx_tensor_role_name(tensor->role)));
	json_object_set_new(object, "quantised", json_boolean(is_quantised));
	if (is_quantised && !report->is_dry_run && tensor->error.noise > 0)
		json_object_set_new(object, "sqnr_db", json_real(sqnr_db(&tensor->error)));
	wcx_json_print_line(object);
}

static void print_table_tensor(struct wcx_quantize_report *report, const struct wcx_shard_tensor *tensor)
{
	const struct wcx_tensor *source = tensor->source;
	char shape[SHAPE_TEXT_BYTES] = "[";
	size_t at = 1;

	for (size_t i = 0; i < source->dim_count && at < sizeof shape; i++)
		at += (size_t)snprintf(shape + at, sizeof shape - at, "%s%" PRIu64, i ? "," : "", source->shape[i]);
	if (report->tensor_count == 0)
		printf("%-7s %-13s %-5s %-16s %s\n", "becomes", "because", "dtype", "shape", "tensor");
	wcx_print(stdout, "%-7s %-13s %-5s %-16s %s\n", tensor->role == WCX_ROLE_LINEAR ? "INT8" : "same",
		  wcx_tensor_role_name(tensor->role), source->dtype, strncat(shape, "]", sizeof shape - strlen(shape) - 1),
		  source->name);
}

void wcx_quantize_report_tensor(struct wcx_quantize_report *report, const struct wcx_shard *shard,
				const struct wcx_shard_tensor *tensor)
{
	if (report->is_json)
		print_json_tensor(report, shard, tensor);
	else if (report->is_dry_run)
		print_table_tensor(report, tensor);
	report->tensor_count++;
	if (tensor->role != WCX_ROLE_LINEAR || report->is_dry_run)
		return;
	report->total.signal += tensor->error.signal;
	report->total.noise += tensor->error.noise;
	if (tensor->error.noise > 0)
		note_worst(report, tensor->source->name, sqnr_db(&tensor->error));
}

/* The share of its segment's tiles that a tensor has. */
static double packed_bytes_of(const struct wcx_container *container, const struct wcx_tensor *tensor)
{
	const struct wcx_segment *segment =
		wcx_container_segment(container, wcx_container_segment_at(container, tensor->offset));
	uint64_t bytes = 0;

	for (uint64_t t = segment->first_tile; !segment->same_as && t < segment->first_tile + segment->tile_count; t++) {
		struct wcx_tile_info tile;

		wcx_container_tile(container, segment, t, &tile);
		bytes += tile.packed_bytes;
	}
	return (double)bytes * ((double)tensor->bytes / (double)segment->bytes);
}

static bool is_quantised_part(const struct wcx_tensor *tensor)
{
	return strcmp(tensor->dtype, "I8") == 0 || strcmp(tensor->dtype, "I32") == 0 ||
	       (tensor->name_bytes > 13 && strcmp(tensor->name + tensor->name_bytes - 13, ".weight_scale") == 0);
}

int wcx_quantize_report_packed(struct wcx_quantize_report *report, struct wcx_image *image, struct wcx_error *err)
{
	const struct wcx_container *container = wcx_image_container(image);
	struct wcx_safetensors *st;
	double linear = 0;
	const int r = wcx_image_header(image, &st, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < st->tensor_count; i++)
		if (st->tensors[i].bytes && is_quantised_part(&st->tensors[i]))
			linear += packed_bytes_of(container, &st->tensors[i]);
	report->linear_packed_bytes += (uint64_t)linear;
	report->packed_bytes += wcx_container_superblock(container)->packed_bytes;
	wcx_safetensors_free(st);
	return 0;
}

static double ratio(uint64_t before, uint64_t after)
{
	return after ? (double)before / (double)after : 0;
}

/* The type that the weights had before. */
static const char *source_dtype(const struct wcx_quantize_result *result)
{
	static const char *const names[] = { "FP16", "BF16", "FP32" };
	const char *name = NULL;

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (result->has_dtype[i])
			name = name ? "mixed" : names[i];
	return name ? name : "";
}

/* One line of sizes: before, quantised and, if it is, packed. */
static void print_sizes(const char *what, const char *dtype, uint64_t before, uint64_t quantised, uint64_t packed)
{
	char text[WCX_SIZE_TEXT_BYTES], quantised_text[WCX_SIZE_TEXT_BYTES];

	fprintf(stderr, "  %-14s %s %s -> INT8 %s: %.3f x", what, dtype, wcx_size_text((double)before, text),
		wcx_size_text((double)quantised, quantised_text), ratio(before, quantised));
	if (packed)
		fprintf(stderr, " -> packed %s: %.3f x, in all %.3f x", wcx_size_text((double)packed, text),
			ratio(quantised, packed), ratio(before, packed));
	fputc('\n', stderr);
}

static void print_text(const struct wcx_quantize_report *report, const struct wcx_quantize_result *result,
		       const char *target)
{
	wcx_print(stderr, "%s%s%zu tensors in %zu file%s: %zu %s INT8, %zu the same\n", target ? target : "",
		  target ? ": " : "", result->linear_count + result->kept_count, result->file_count,
		  result->file_count == 1 ? "" : "s", result->linear_count, report->is_dry_run ? "would become" : "became",
		  result->kept_count);
	print_sizes("whole model", source_dtype(result), result->source_bytes, result->quantised_bytes,
		    report->packed_bytes);
	print_sizes("linear layers", source_dtype(result), result->linear_source_bytes, result->linear_quantised_bytes,
		    report->linear_packed_bytes);
	if (report->is_dry_run)
		return;
	fprintf(stderr, "  signal to quantisation noise %.2f dB; the lowest:\n", sqnr_db(&report->total));
	for (size_t i = 0; i < WCX_WORST_COUNT && report->worst[i].name; i++)
		wcx_print(stderr, "    %6.2f dB  %s\n", report->worst[i].sqnr_db, report->worst[i].name);
}

static void print_json_summary(const struct wcx_quantize_report *report, const struct wcx_quantize_result *result,
			       const char *target)
{
	const uint64_t after = report->packed_bytes ? report->packed_bytes : result->quantised_bytes;
	json_t *object = json_line("total"), *worst = json_array();

	if (target)
		wcx_json_set_path(object, "output", target);
	json_object_set_new(object, "files", json_pack("{s:I}", "quantised", (json_int_t)result->file_count));
	json_object_set_new(object, "tensors",
			    json_pack("{s:I, s:I}", "quantised", (json_int_t)result->linear_count, "same",
				      (json_int_t)result->kept_count));
	wcx_json_set_count(object, "source_bytes", result->source_bytes);
	wcx_json_set_count(object, "bytes", result->quantised_bytes);
	wcx_json_set_count(object, "linear_source_bytes", result->linear_source_bytes);
	wcx_json_set_count(object, "linear_bytes", result->linear_quantised_bytes);
	if (report->packed_bytes) {
		wcx_json_set_count(object, "packed_bytes", report->packed_bytes);
		wcx_json_set_count(object, "linear_packed_bytes", report->linear_packed_bytes);
	}
	json_object_set_new(object, "ratio", json_real(ratio(result->source_bytes, after)));
	wcx_json_set_count(object, "copied_bytes", result->rest_bytes);
	if (!report->is_dry_run && report->total.noise > 0)
		json_object_set_new(object, "sqnr_db", json_real(sqnr_db(&report->total)));
	for (size_t i = 0; i < WCX_WORST_COUNT && report->worst[i].name; i++) {
		json_t *tensor = json_object();

		json_object_set_new(tensor, "tensor", json_string(report->worst[i].name));
		json_object_set_new(tensor, "sqnr_db", json_real(report->worst[i].sqnr_db));
		json_array_append_new(worst, tensor);
	}
	json_object_set_new(object, "lowest_sqnr", worst);
	json_object_set_new(object, "seconds", json_real((double)(wcx_now_ms() - report->started_ms) / 1000));
	wcx_json_print_line(object);
}

void wcx_quantize_report_end(const struct wcx_quantize_report *report, const struct wcx_quantize_result *result,
			     const char *target, bool is_quiet)
{
	if (report->is_json)
		print_json_summary(report, result, target);
	else if (!is_quiet)
		print_text(report, result, target);
}

void wcx_quantize_report_free(struct wcx_quantize_report *report)
{
	for (size_t i = 0; i < WCX_WORST_COUNT; i++)
		free(report->worst[i].name);
}
