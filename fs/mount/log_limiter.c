/* SPDX-License-Identifier: MIT */
/* Limits messages by file and by rate. */
#include "fs/mount/log_limiter.h"

#include <string.h>

#include "codec/arith.h"

enum {
	LINE_MILLILINES = 1000,
	FILE_REFILL_MS = 10000, /* a line about a file */
	ALL_REFILL_MS = 200,    /* a line about any */
	SAME_LINE_MS = 3600 * 1000,
};

/* FNV-1a, never 0.  Two lines with one hash cost a message at worst. */
static uint64_t hash(const char *text)
{
	uint64_t value = UINT64_C(14695981039346656037);

	for (; *text; text++)
		value = (value ^ (unsigned char)*text) * UINT64_C(1099511628211);
	return value ? value : 1;
}

/* What has grown since it was last brought up to date; the rest of the division stays for later. */
static void refill(struct wcx_log_allowance *allowance, uint64_t most, uint64_t refill_ms, uint64_t now_ms)
{
	const uint64_t grown = (now_ms - allowance->updated_ms) * LINE_MILLILINES / refill_ms;

	if (!allowance->updated_ms || allowance->millilines + grown >= most)
		*allowance = (struct wcx_log_allowance){ most, now_ms };
	else
		*allowance = (struct wcx_log_allowance){ allowance->millilines + grown,
							 allowance->updated_ms + grown * refill_ms / LINE_MILLILINES };
}

/* The place of a file, or the one that was not used for longest, made ready for it. */
static struct wcx_log_file *find_file(struct wcx_log_limiter *limiter, const char *name)
{
	const uint64_t file = hash(name);
	struct wcx_log_file *oldest = &limiter->files[0];

	for (size_t i = 0; i < WCX_LOG_FILES_MAX; i++) {
		if (limiter->files[i].file == file)
			return &limiter->files[i];
		if (limiter->files[i].used_ms < oldest->used_ms)
			oldest = &limiter->files[i];
	}
	*oldest = (struct wcx_log_file){ .file = file };
	return oldest;
}

static bool was_logged(const struct wcx_log_file *file, uint64_t line, uint64_t now_ms)
{
	for (size_t i = 0; i < WCX_LOG_RECENT_LINES; i++)
		if (file->recent[i].line == line && now_ms - file->recent[i].logged_ms < SAME_LINE_MS)
			return true;
	return false;
}

static void remember(struct wcx_log_file *file, uint64_t line, uint64_t now_ms)
{
	file->recent[file->next_recent].line = line;
	file->recent[file->next_recent].logged_ms = now_ms;
	file->next_recent = (file->next_recent + 1) % WCX_LOG_RECENT_LINES;
}

static bool admit_locked(struct wcx_log_limiter *limiter, const char *name, const char *text, uint64_t now_ms,
			 uint64_t *suppressed_ret)
{
	struct wcx_log_file *file = find_file(limiter, name);
	const uint64_t line = hash(text);

	file->used_ms = now_ms;
	if (was_logged(file, line, now_ms))
		return false;
	refill(&limiter->allowance, WCX_LOG_LINES_MAX * LINE_MILLILINES, ALL_REFILL_MS, now_ms);
	refill(&file->allowance, WCX_LOG_LINES_PER_FILE * LINE_MILLILINES, FILE_REFILL_MS, now_ms);
	if (limiter->allowance.millilines < LINE_MILLILINES || file->allowance.millilines < LINE_MILLILINES) {
		file->suppressed++;
		return false;
	}
	limiter->allowance.millilines -= LINE_MILLILINES;
	file->allowance.millilines -= LINE_MILLILINES;
	remember(file, line, now_ms);
	*suppressed_ret = file->suppressed;
	file->suppressed = 0;
	return true;
}

bool wcx_log_limiter_admit(struct wcx_log_limiter *limiter, const char *file, const char *line, uint64_t now_ms,
			   uint64_t *suppressed_ret)
{
	bool admitted;

	pthread_mutex_lock(&limiter->lock);
	admitted = admit_locked(limiter, file, line, now_ms, suppressed_ret);
	pthread_mutex_unlock(&limiter->lock);
	return admitted;
}

void wcx_log_limiter_init(struct wcx_log_limiter *limiter)
{
	memset(limiter, 0, sizeof *limiter);
	pthread_mutex_init(&limiter->lock, NULL);
}

void wcx_log_limiter_destroy(struct wcx_log_limiter *limiter)
{
	pthread_mutex_destroy(&limiter->lock);
}
