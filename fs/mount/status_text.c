/* SPDX-License-Identifier: MIT */
/* Writes the status of a mount as JSON. */
#include "fs/mount/status_text.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "fs/base/version.h"

enum { REAL_DIGITS = 10 };

static json_t *count(uint64_t value)
{
	return json_integer((json_int_t)value);
}

static json_t *cache_object(const struct wcx_status *status)
{
	const struct wcx_tile_cache_stats *cache = &status->cache;

	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "budget_bytes", count(status->cache_budget_bytes), "bytes",
			 count(cache->bytes), "peak_bytes", count(cache->peak_bytes), "hits", count(cache->hits), "misses",
			 count(cache->misses), "waits", count(cache->waits), "evictions", count(cache->evictions));
}

static json_t *work_object(const struct wcx_decoder_work *work)
{
	return json_pack("{s:o, s:o, s:f}", "bytes", count(work->bytes), "batches", count(work->batches), "seconds",
			 (double)work->ns * 1e-9);
}

char *wcx_status_print(const struct wcx_status *status)
{
	const struct wcx_prefetch_stats *requests = &status->requests;
	json_t *object = json_pack(
		"{s:s, s:i, s:f, s:s, s:b, s:{s:o, s:o, s:o}, s:o, s:{s:o, s:o}, s:{s:o, s:o}, s:{s:o, s:o}, s:{s:o, "
		"s:o, s:o, s:o}, s:o}",
		"version", WCX_VERSION_TEXT, "pid", (int)getpid(), "uptime_seconds", status->uptime_s, "decoder",
		status->decoder, "gpu_lost", (int)status->decoded.gpu_lost, "gpu_memory", "device_bytes",
		count(status->decoded.gpu_device_bytes), "pinned_bytes", count(status->decoded.gpu_pinned_bytes),
		"buffer_bytes", count(status->gpu_buffer_bytes), "cache", cache_object(status), "decoded", "cpu",
		work_object(&status->decoded.cpu), "gpu", work_object(&status->decoded.gpu), "packed_reads", "requests",
		count(requests->requests), "bytes", count(requests->requested_bytes), "plain_reads", "requests",
		count(status->plain.requests), "bytes", count(status->plain.bytes), "ahead", "pushed_bytes",
		count(requests->pushed_bytes), "decoded_bytes", count(requests->decoded_bytes), "readers_followed",
		count(requests->followed), "readers_lost", count(requests->given_up), "errors", count(status->errors));
	char *text =
		object ? json_dumps(object, JSON_PRESERVE_ORDER | JSON_COMPACT | JSON_REAL_PRECISION(REAL_DIGITS)) : NULL;

	json_decref(object);
	return text;
}
