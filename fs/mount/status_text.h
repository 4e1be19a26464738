/* SPDX-License-Identifier: MIT */
/* The status of a mount as JSON, which `wcx status' reads from the attribute user.wcx.status of a directory. */
#ifndef WCX_STATUS_TEXT_H
#define WCX_STATUS_TEXT_H

#include <stdint.h>

#include "fs/mount/prefetch.h"
#include "fs/mount/store.h"
#include "fs/read/decoder.h"
#include "fs/read/tile_cache.h"

struct wcx_status {
	double uptime_s;
	uint64_t cache_budget_bytes, gpu_buffer_bytes; /* for tiles, and for buffers of a GPU: cache_size together */
	const char *decoder;                           /* its name */
	struct wcx_tile_cache_stats cache;
	struct wcx_decoder_stats decoded;
	struct wcx_prefetch_stats requests; /* for packed files, and what was done ahead of them */
	struct wcx_store_stats plain;       /* reads of files that are not packed */
	uint64_t errors;                    /* requests that failed for a reason that the log tells */
};

/* wcx_status_print - write the status as JSON; the caller frees it.  NULL: out of memory */
char *wcx_status_print(const struct wcx_status *status);

#endif
