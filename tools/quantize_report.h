/* SPDX-License-Identifier: MIT */
/* What `wcx quantize` tells: a line or JSON object for each tensor, and a summary. */
#ifndef WCX_QUANTIZE_REPORT_H
#define WCX_QUANTIZE_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/quantize/quantize.h"
#include "fs/read/image.h"

enum { WCX_WORST_COUNT = 5 };

/* A tensor of little precision. */
struct wcx_worst_tensor {
	char *name; /* NULL: none */
	double sqnr_db;
};

/* Starts as zeros but for the first three; freed by wcx_quantize_report_free. */
struct wcx_quantize_report {
	bool is_json, is_dry_run;
	uint64_t started_ms;
	size_t tensor_count; /* told so far */
	struct wcx_int8_error total;
	struct wcx_worst_tensor worst[WCX_WORST_COUNT]; /* the worst first */
	uint64_t packed_bytes, linear_packed_bytes;     /* 0: not packed */
};

/* wcx_quantize_report_tensor - tell a tensor, and note its precision */
void wcx_quantize_report_tensor(struct wcx_quantize_report *report, const struct wcx_shard *shard,
				const struct wcx_shard_tensor *tensor);

/* wcx_quantize_report_packed - note what a packed file and its quantised tensors take; 0 or -errno */
int wcx_quantize_report_packed(struct wcx_quantize_report *report, struct wcx_image *image, struct wcx_error *err);

/* wcx_quantize_report_end - the summary: on standard error unless it is quiet, and in JSON; target may be NULL */
void wcx_quantize_report_end(const struct wcx_quantize_report *report, const struct wcx_quantize_result *result,
			     const char *target, bool is_quiet);

void wcx_quantize_report_free(struct wcx_quantize_report *report);

#endif
