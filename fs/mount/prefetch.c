/* SPDX-License-Identifier: MIT */
/* Threads that decode and push what the read-ahead policy asks for. */
#include "fs/mount/prefetch.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "codec/arith.h"
#include "fs/mount/readahead.h"

enum {
	PAGE_BYTES = WCX_READAHEAD_PAGE_BYTES,
	ASKED_MAX = 128, /* requests in flight; a push to the page of another one waits until that is answered */
};

/* A thread that waits until fewer than file_pushers threads push to its file. */
struct push_turn {
	pthread_cond_t come;
	bool has_come;
	struct push_turn *next;
};

/* image, target and release never change; prefetcher.lock protects the rest. */
struct wcx_prefetch_file {
	struct wcx_image *image;
	uint64_t target;
	wcx_prefetch_release_fn *release;
	unsigned open_count, busy_count; /* busy: pieces in hand, and requests in flight */
	bool is_dead;                    /* the target takes no more, or a tile is damaged */
	bool is_shared;                  /* has been open more than once at a time */
	struct wcx_readahead readahead;
	struct wcx_readahead_range asked[ASKED_MAX]; /* pages of requests in flight */
	size_t asked_count;
	unsigned pusher_count;
	unsigned worker_count;   /* threads that decode for its page cache, or push to it */
	unsigned direct_count;   /* threads that decode for its O_DIRECT readers */
	atomic_bool is_cached;   /* as far as seen: nothing is decoded for O_DIRECT readers.  Written under the lock */
	atomic_bool is_refused;  /* its pages can never be asked for */
	struct push_turn *turns; /* first in, first out */
	struct wcx_prefetch_file *next, **link; /* in the list of all files */
	struct wcx_prefetch_file *next_waiting; /* in the queue of files that may have work */
	bool is_waiting;
};

struct wcx_prefetcher {
	struct wcx_prefetch_options options;
	unsigned thread_count;
	atomic_bool is_stopping; /* set under lock */

	/* Protects everything below up to threads, and the files.  Never held while decoding or pushing. */
	pthread_mutex_t lock;
	pthread_cond_t work;    /* signalled when a file is queued, or is_stopping set */
	pthread_cond_t settled; /* signalled when a thread has ended, or all are idle */
	struct wcx_prefetch_file *files;
	struct wcx_prefetch_file *waiting, **waiting_end;
	struct wcx_prefetch_stats stats;
	struct wcx_readahead_counts counts;
	unsigned working_count, ended_count; /* threads with a piece in hand; threads that have ended */

	unsigned joined_count; /* these are used by create and stop only */
	pthread_t threads[];
};

/* --- the queue of files that may have work --- */

static void add_waiting(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file)
{
	if (file->is_waiting)
		return;
	file->is_waiting = true;
	file->next_waiting = NULL;
	*prefetcher->waiting_end = file;
	prefetcher->waiting_end = &file->next_waiting;
}

static struct wcx_prefetch_file *take_waiting(struct wcx_prefetcher *prefetcher)
{
	struct wcx_prefetch_file *file = prefetcher->waiting;

	prefetcher->waiting = file->next_waiting;
	if (!prefetcher->waiting)
		prefetcher->waiting_end = &prefetcher->waiting;
	file->is_waiting = false;
	return file;
}

static void remove_waiting(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file)
{
	struct wcx_prefetch_file **at = &prefetcher->waiting;

	if (!file->is_waiting)
		return;
	while (*at != file)
		at = &(*at)->next_waiting;
	*at = file->next_waiting;
	if (!*at)
		prefetcher->waiting_end = at;
	file->is_waiting = false;
}

/* --- files --- */

/* Unlinks a file that has neither opens nor work in hand; the caller then frees it, without the lock. */
static bool unlink_if_unused_locked(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file)
{
	if (file->open_count || file->busy_count)
		return false;
	remove_waiting(prefetcher, file);
	*file->link = file->next;
	if (file->next)
		file->next->link = file->link;
	return true;
}

static void free_file(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file)
{
	file->release(prefetcher->options.user, file->target, false);
	wcx_image_put(file->image);
	free(file);
}

/* Ends a use of the file, which must not be touched afterwards. */
static void unlock_and_free_unused(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file)
{
	const bool is_unused = unlink_if_unused_locked(prefetcher, file);

	pthread_mutex_unlock(&prefetcher->lock);
	if (is_unused)
		free_file(prefetcher, file);
}

/* A target that took no more may accept pages again once it is opened anew. */
static struct wcx_prefetch_file *reopen_locked(struct wcx_prefetcher *prefetcher, struct wcx_image *image, uint64_t target)
{
	struct wcx_prefetch_file *file = prefetcher->files;

	while (file && (file->image != image || file->target != target))
		file = file->next;
	if (file) {
		file->is_shared |= file->open_count++ > 0;
		file->is_dead = false;
	}
	return file;
}

/* A segment of the container stands for a tensor: only small ones share a segment. */
static struct wcx_readahead_range tensor_at(const void *user, uint64_t offset)
{
	const struct wcx_container *container = user;
	const struct wcx_segment *segment = wcx_container_segment(container, wcx_container_segment_at(container, offset));

	return (struct wcx_readahead_range){ segment->offset, segment->offset + segment->bytes };
}

static void add_file_locked(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file)
{
	file->open_count = 1;
	file->next = prefetcher->files;
	file->link = &prefetcher->files;
	if (file->next)
		file->next->link = &file->next;
	prefetcher->files = file;
}

struct wcx_prefetch_file *wcx_prefetch_open(struct wcx_prefetcher *prefetcher, struct wcx_image *image, uint64_t target,
					    wcx_prefetch_release_fn *release)
{
	struct wcx_prefetch_file *fresh = calloc(1, sizeof *fresh), *file;

	pthread_mutex_lock(&prefetcher->lock);
	file = reopen_locked(prefetcher, image, target);
	if (!file && fresh) {
		fresh->image = wcx_image_get(image);
		fresh->target = target;
		fresh->release = release;
		fresh->readahead = (struct wcx_readahead){
			.file_bytes = wcx_image_bytes(image),
			.window_bytes = prefetcher->options.window_bytes,
			.piece_bytes = prefetcher->options.piece_bytes,
			.tensor_at = tensor_at,
			.user = wcx_image_container(image),
			.counts = &prefetcher->counts,
		};
		add_file_locked(prefetcher, fresh);
		pthread_mutex_unlock(&prefetcher->lock);
		return fresh;
	}
	pthread_mutex_unlock(&prefetcher->lock);
	free(fresh);
	release(prefetcher->options.user, target,
		file != NULL); /* a file that exists holds its own reference to the target */
	return file;
}

void wcx_prefetch_close(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file)
{
	if (!file)
		return;
	pthread_mutex_lock(&prefetcher->lock);
	file->open_count--;
	unlock_and_free_unused(prefetcher, file);
}

/* --- requests --- */

static bool wants_work(const struct wcx_prefetch_file *file)
{
	return file->open_count && !file->is_dead;
}

/* The readers of a file for whom another thread may work. */
static enum wcx_reader_kinds wanted_kinds(const struct wcx_prefetcher *prefetcher, const struct wcx_prefetch_file *file)
{
	enum wcx_reader_kinds kinds = 0;

	if (wants_work(file) && file->worker_count < prefetcher->options.file_threads)
		kinds |= WCX_READERS_PUSHED;
	if (wants_work(file) && file->direct_count < prefetcher->options.direct_threads && !file->is_cached)
		kinds |= WCX_READERS_DIRECT;
	return kinds;
}

/* The part of a request that lies in the file; empty if there is none. */
static struct wcx_readahead_range clip(const struct wcx_prefetch_file *file, uint64_t offset, size_t bytes)
{
	const uint64_t file_bytes = wcx_image_bytes(file->image), start = WCX_MIN(offset, file_bytes);

	return (struct wcx_readahead_range){ start, start + WCX_MIN(bytes, file_bytes - start) };
}

static struct wcx_readahead_range pages_of(struct wcx_readahead_range range)
{
	return (struct wcx_readahead_range){ WCX_ALIGN_DOWN(range.start, PAGE_BYTES), WCX_ALIGN_UP(range.end, PAGE_BYTES) };
}

void wcx_prefetch_note(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file, uint64_t offset, size_t bytes,
		       bool is_direct)
{
	struct wcx_readahead_range request;
	bool wakes = false;

	if (!file)
		return;
	request = clip(file, offset, bytes);
	pthread_mutex_lock(&prefetcher->lock);
	file->busy_count++; /* keeps the file until the answer: it may be closed before */
	if (request.start < request.end) {
		if (!is_direct && file->asked_count < ASKED_MAX)
			file->asked[file->asked_count++] = pages_of(request);
		wcx_count(&wcx_image_counts(file->image)->requests, 1);
		wcx_count(&wcx_image_counts(file->image)->requested_bytes, request.end - request.start);
		prefetcher->stats.requests++;
		prefetcher->stats.requested_bytes += request.end - request.start;
		wakes = wcx_readahead_note(&file->readahead, request, is_direct) && !prefetcher->is_stopping &&
			wanted_kinds(prefetcher, file) & (is_direct ? WCX_READERS_DIRECT : WCX_READERS_PUSHED);
		if (wakes)
			add_waiting(prefetcher, file);
	}
	pthread_mutex_unlock(&prefetcher->lock);
	if (wakes) /* without the lock, for which the other thread would only wait again */
		pthread_cond_signal(&prefetcher->work);
}

void wcx_prefetch_missed(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file)
{
	if (!file || !atomic_load_explicit(&file->is_cached, memory_order_relaxed))
		return;
	pthread_mutex_lock(&prefetcher->lock);
	file->is_cached = false;
	if (wants_work(file) && !prefetcher->is_stopping) {
		add_waiting(prefetcher, file);
		pthread_cond_signal(&prefetcher->work);
	}
	pthread_mutex_unlock(&prefetcher->lock);
}

static void forget_asked_locked(struct wcx_prefetch_file *file, struct wcx_readahead_range pages)
{
	for (size_t i = 0; i < file->asked_count; i++) {
		if (file->asked[i].start != pages.start || file->asked[i].end != pages.end)
			continue;
		file->asked[i] = file->asked[--file->asked_count];
		return;
	}
}

void wcx_prefetch_answered(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file, uint64_t offset, size_t bytes,
			   bool is_direct)
{
	struct wcx_readahead_range request;

	if (!file)
		return;
	request = clip(file, offset, bytes);
	pthread_mutex_lock(&prefetcher->lock);
	if (request.start < request.end && !is_direct)
		forget_asked_locked(file, pages_of(request));
	file->busy_count--;
	unlock_and_free_unused(prefetcher, file);
}

/* --- pushing --- */

/* A piece in the hands of a thread. */
struct task {
	struct wcx_prefetch_file *file;
	struct wcx_readahead_piece piece;
	bool was_cached; /* all of it, before anything was decoded */
	/*
	 * The target for pages, instead of pushing them; for the view in hand.  A single thread of the kernel inserts them
	 * without waiting for a lock, and faster than they are read.
	 */
	bool may_ask, has_asked;
};

/* Moves start past what the reader has passed. */
static uint64_t drop_behind(struct wcx_prefetcher *prefetcher, const struct task *task, uint64_t start, uint64_t end)
{
	pthread_mutex_lock(&prefetcher->lock);
	start = wcx_readahead_drop_behind(&task->file->readahead, &task->piece, start, end);
	pthread_mutex_unlock(&prefetcher->lock);
	return start;
}

/* The first part of [*start, end) without a request in flight: moves *start there, and returns where the part ends. */
static uint64_t next_unasked(struct wcx_prefetcher *prefetcher, const struct wcx_prefetch_file *file, uint64_t *start,
			     uint64_t end)
{
	size_t i;

	pthread_mutex_lock(&prefetcher->lock);
	for (i = 0; i < file->asked_count;) {
		const bool is_asked = file->asked[i].start <= *start && file->asked[i].end > *start;

		*start = is_asked ? file->asked[i].end : *start;
		i = is_asked ? 0 : i + 1; /* another one may begin there */
	}
	for (i = 0; i < file->asked_count; i++)
		if (file->asked[i].start > *start && file->asked[i].start < end)
			end = file->asked[i].start;
	pthread_mutex_unlock(&prefetcher->lock);
	return end;
}

/* The segments of a view that make up [start, end) of the file, where the view begins at offset; returns how many. */
static size_t cut_segments(const struct wcx_image_view *view, uint64_t offset, uint64_t start, uint64_t end,
			   struct iovec segments[WCX_VIEW_SLICES_MAX])
{
	size_t count = 0;

	for (size_t i = 0; i < view->count; offset += view->slices[i++].iov_len) {
		const uint64_t from = WCX_MAX(offset, start), to = WCX_MIN(offset + view->slices[i].iov_len, end);

		if (from < to)
			segments[count++] =
				(struct iovec){ (uint8_t *)view->slices[i].iov_base + (from - offset), (size_t)(to - from) };
	}
	return count;
}

/* Has the target ask for [start, end) of a view that begins at offset or, if it cannot, pushes it. */
static int put_pages(struct wcx_prefetcher *prefetcher, struct task *task, const struct wcx_image_view *view,
		     uint64_t offset, uint64_t start, uint64_t end)
{
	const struct wcx_prefetch_options *options = &prefetcher->options;
	const uint64_t target = task->file->target;
	struct iovec segments[WCX_VIEW_SLICES_MAX];

	if (task->may_ask) {
		const int r = options->ask(options->user, target, start, end - start);

		task->has_asked |= r == 0;
		if (r == 0)
			return 0;
		if (r != -EAGAIN)
			task->file->is_refused = true;
	}
	return options->push(options->user, target, start, segments, cut_segments(view, offset, start, end, segments));
}

/* Pushes [start, end) of a view that begins at offset, but for what the reader has passed or asked for meanwhile. */
static int push_range(struct wcx_prefetcher *prefetcher, struct task *task, const struct wcx_image_view *view,
		      uint64_t offset, uint64_t start, uint64_t end)
{
	int r = 0;

	while (start < end && r == 0) {
		uint64_t stop;

		start = drop_behind(prefetcher, task, start, end);
		stop = next_unasked(prefetcher, task->file, &start, end);
		if (start >= end)
			break;
		r = put_pages(prefetcher, task, view, offset, start, stop);
		start = stop;
	}
	return r;
}

/* Waits until fewer than the most threads push to the file; who asks for pages, until none does. */
static void begin_push(struct wcx_prefetcher *prefetcher, const struct task *task)
{
	const unsigned most = task->may_ask ? 1 : prefetcher->options.file_pushers;
	struct wcx_prefetch_file *file = task->file;
	struct push_turn turn = { .come = PTHREAD_COND_INITIALIZER }, **at = &file->turns;

	pthread_mutex_lock(&prefetcher->lock);
	if (file->pusher_count < most) {
		file->pusher_count++;
	} else {
		while (*at)
			at = &(*at)->next;
		*at = &turn;
		while (!turn.has_come)
			pthread_cond_wait(&turn.come, &prefetcher->lock);
	}
	pthread_mutex_unlock(&prefetcher->lock);
	pthread_cond_destroy(&turn.come);
}

static void end_push(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file)
{
	struct push_turn *turn;

	pthread_mutex_lock(&prefetcher->lock);
	turn = file->turns;
	if (turn) { /* pusher_count stays: the place passes to the next */
		file->turns = turn->next;
		turn->has_come = true;
		pthread_cond_signal(&turn->come);
	} else {
		file->pusher_count--;
	}
	pthread_mutex_unlock(&prefetcher->lock);
}

/* Pushes [offset, end), which is whole pages and begins the view, but for the marker. */
static int push_view(struct wcx_prefetcher *prefetcher, struct task *task, const struct wcx_image_view *view,
		     uint64_t offset, uint64_t end)
{
	const uint64_t marker = task->piece.marker;
	int r = 0;

	begin_push(prefetcher, task);
	if (marker < offset || marker >= end) {
		r = push_range(prefetcher, task, view, offset, offset, end);
	} else {
		r = push_range(prefetcher, task, view, offset, offset, marker);
		if (r == 0)
			r = push_range(prefetcher, task, view, offset, marker + PAGE_BYTES, end);
	}
	end_push(prefetcher, task->file);
	return r;
}

/* Decodes into a copy: for tiles that a view cannot show. */
static int push_copy(struct wcx_prefetcher *prefetcher, struct task *task, uint64_t start, uint64_t end)
{
	struct wcx_image_view view = { .count = 1, .bytes = (size_t)(end - start) };
	uint8_t *copy = malloc(view.bytes);
	ssize_t n = copy ? wcx_image_read(task->file->image, copy, view.bytes, start, NULL) : -ENOMEM;
	int r = n < 0 ? (int)n : 0;

	view.slices[0] = (struct iovec){ copy, view.bytes };
	task->may_ask = false;
	if (r == 0 && !task->piece.is_direct)
		r = push_view(prefetcher, task, &view, start, end);
	free(copy);
	return r;
}

/* Pushed tiles are of no more use to a sole reader.  One of several may evict pages that the others have yet to read. */
static bool has_one_reader(struct wcx_prefetcher *prefetcher, const struct wcx_prefetch_file *file)
{
	bool is_shared;

	pthread_mutex_lock(&prefetcher->lock);
	is_shared = file->is_shared;
	pthread_mutex_unlock(&prefetcher->lock);
	return !is_shared;
}

/* Not where a reader is only guessed to read on: asking for what nobody reads cost random readers a fifth of their rate. */
static bool may_ask(const struct wcx_prefetcher *prefetcher, const struct task *task)
{
	return prefetcher->options.ask && !task->file->is_refused && !task->piece.is_guess;
}

/* Decodes and pushes the first part of [*start, end), as much as one view shows, and moves *start behind it. */
static int do_part(struct wcx_prefetcher *prefetcher, struct task *task, uint64_t *start, uint64_t end)
{
	struct wcx_image *image = task->file->image;
	const bool is_direct = task->piece.is_direct;
	struct wcx_image_view view;
	uint64_t stop = end;
	int r = wcx_image_view_open(image, *start, (size_t)(end - *start), &view, NULL);

	if (r < 0 && r != -E2BIG)
		return r;
	if (r == 0 && *start + view.bytes < end)
		stop = WCX_ALIGN_DOWN(*start + view.bytes, PAGE_BYTES);
	if (r == 0 && stop > *start) {
		const bool is_last_use = !is_direct && has_one_reader(prefetcher, task->file);

		task->was_cached &= view.was_cached;
		task->may_ask = may_ask(prefetcher, task) && is_last_use;
		task->has_asked = false;
		if (!is_direct)
			r = push_view(prefetcher, task, &view, *start, stop);
		wcx_image_view_close(image, &view, is_last_use && !task->has_asked ? WCX_VIEW_DROP_INNER : WCX_VIEW_KEEP);
	} else { /* no view, or tiles so small that one shows less than a page */
		if (r == 0)
			wcx_image_view_close(image, &view, WCX_VIEW_KEEP);
		task->was_cached = false;
		stop = end;
		r = push_copy(prefetcher, task, *start, stop);
	}
	*start = stop;
	return r;
}

/* Decodes and pushes a piece.  After -errno the file is not worth more work, unless memory ran out. */
static int do_task(struct wcx_prefetcher *prefetcher, struct task *task)
{
	const struct wcx_readahead_range pages = task->piece.pages, fetch = task->piece.fetch;
	uint64_t start;
	int r = 0;

	if (fetch.start < fetch.end)
		wcx_image_advise(task->file->image, fetch.start, fetch.end - fetch.start, POSIX_FADV_WILLNEED);
	start = drop_behind(prefetcher, task, pages.start, pages.end);
	task->was_cached = start < pages.end;
	while (start < pages.end && r == 0 && !prefetcher->is_stopping)
		r = do_part(prefetcher, task, &start, pages.end);
	if (r == 0 && !task->piece.is_direct && prefetcher->options.drop_packed)
		wcx_image_advise(task->file->image, pages.start, pages.end - pages.start, POSIX_FADV_DONTNEED);
	return r;
}

/* --- threads --- */

/* Queues a file behind the others if there is more to do for it: threads woken for nothing contend for the lock. */
static void add_waiting_for_more(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file)
{
	if (wcx_readahead_has_next(&file->readahead, wanted_kinds(prefetcher, file)))
		add_waiting(prefetcher, file);
}

/* Takes a piece of the first file that has one. */
static bool take_task_locked(struct wcx_prefetcher *prefetcher, struct task *task_ret)
{
	while (prefetcher->waiting) {
		struct wcx_prefetch_file *file = take_waiting(prefetcher);

		if (!wcx_readahead_next(&file->readahead, wanted_kinds(prefetcher, file), &task_ret->piece))
			continue;
		task_ret->file = file;
		*(task_ret->piece.is_direct ? &file->direct_count : &file->worker_count) += 1;
		file->busy_count++;
		prefetcher->working_count++;
		add_waiting_for_more(prefetcher, file);
		return true;
	}
	return false;
}

static void finish_task(struct wcx_prefetcher *prefetcher, const struct task *task, int r)
{
	const uint64_t bytes = task->piece.pages.end - task->piece.pages.start;
	struct wcx_prefetch_stats *stats = &prefetcher->stats;

	pthread_mutex_lock(&prefetcher->lock);
	task->file->is_dead |= r < 0 && r != -ENOMEM; /* memory may be available again soon */
	*(task->piece.is_direct ? &stats->decoded_bytes : &stats->pushed_bytes) += bytes;
	if (!task->piece.is_direct)
		wcx_count(&wcx_image_counts(task->file->image)->pushed_bytes, bytes);
	/* Where the reader was faster, its own requests may have brought the tiles. */
	task->file->is_cached |=
		task->piece.is_direct && task->was_cached && wcx_readahead_is_ahead(&task->file->readahead, &task->piece);
	*(task->piece.is_direct ? &task->file->direct_count : &task->file->worker_count) -= 1;
	add_waiting_for_more(prefetcher, task->file); /* if there were enough threads until now */
	task->file->busy_count--;
	unlock_and_free_unused(prefetcher, task->file);
}

static bool is_idle_locked(const struct wcx_prefetcher *prefetcher)
{
	return !prefetcher->waiting && !prefetcher->working_count;
}

static bool has_ended_locked(const struct wcx_prefetcher *prefetcher)
{
	return prefetcher->ended_count == prefetcher->thread_count;
}

static void *work_loop(void *user)
{
	struct wcx_prefetcher *prefetcher = user;
	struct task task;
	bool wakes;

	pthread_mutex_lock(&prefetcher->lock);
	while (!prefetcher->is_stopping) {
		if (!take_task_locked(prefetcher, &task)) {
			if (is_idle_locked(prefetcher))
				pthread_cond_broadcast(&prefetcher->settled);
			pthread_cond_wait(&prefetcher->work, &prefetcher->lock);
			continue;
		}
		wakes = prefetcher->waiting;
		pthread_mutex_unlock(&prefetcher->lock);
		if (wakes)
			pthread_cond_signal(&prefetcher->work);
		finish_task(prefetcher, &task, do_task(prefetcher, &task));
		pthread_mutex_lock(&prefetcher->lock);
		prefetcher->working_count--;
	}
	prefetcher->ended_count++;
	pthread_cond_broadcast(&prefetcher->settled);
	pthread_mutex_unlock(&prefetcher->lock);
	return NULL;
}

struct wcx_prefetcher *wcx_prefetcher_create(const struct wcx_prefetch_options *options)
{
	struct wcx_prefetcher *prefetcher = calloc(1, sizeof *prefetcher + options->threads * sizeof prefetcher->threads[0]);
	pthread_condattr_t monotonic;

	if (!prefetcher)
		return NULL;
	prefetcher->options = *options;
	prefetcher->waiting_end = &prefetcher->waiting;
	pthread_mutex_init(&prefetcher->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&prefetcher->settled, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_cond_init(&prefetcher->work, NULL);
	while (prefetcher->thread_count < options->threads &&
	       pthread_create(&prefetcher->threads[prefetcher->thread_count], NULL, work_loop, prefetcher) == 0)
		prefetcher->thread_count++;
	prefetcher->is_stopping = !prefetcher->thread_count; /* then no file is ever queued */
	return prefetcher;
}

static int wait_locked(struct wcx_prefetcher *prefetcher, bool (*is_settled)(const struct wcx_prefetcher *),
		       unsigned timeout_ms)
{
	struct timespec until;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += timeout_ms % 1000 * 1000000L;
	until.tv_sec += timeout_ms / 1000 + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	while (!is_settled(prefetcher) && r == 0)
		r = pthread_cond_timedwait(&prefetcher->settled, &prefetcher->lock, &until);
	return is_settled(prefetcher) ? 0 : -ETIMEDOUT;
}

int wcx_prefetcher_wait_idle(struct wcx_prefetcher *prefetcher, unsigned timeout_ms)
{
	int r;

	pthread_mutex_lock(&prefetcher->lock);
	r = wait_locked(prefetcher, is_idle_locked, timeout_ms);
	pthread_mutex_unlock(&prefetcher->lock);
	return r;
}

int wcx_prefetcher_stop(struct wcx_prefetcher *prefetcher, unsigned timeout_ms)
{
	int r;

	pthread_mutex_lock(&prefetcher->lock);
	prefetcher->is_stopping = true;
	pthread_cond_broadcast(&prefetcher->work);
	r = wait_locked(prefetcher, has_ended_locked, timeout_ms);
	pthread_mutex_unlock(&prefetcher->lock);
	for (; r == 0 && prefetcher->joined_count < prefetcher->thread_count; prefetcher->joined_count++)
		pthread_join(prefetcher->threads[prefetcher->joined_count], NULL);
	return r;
}

void wcx_prefetcher_free(struct wcx_prefetcher *prefetcher)
{
	if (!prefetcher)
		return;
	while (prefetcher->files) { /* still open when the mount ended */
		struct wcx_prefetch_file *file = prefetcher->files;

		prefetcher->files = file->next;
		free_file(prefetcher, file);
	}
	pthread_cond_destroy(&prefetcher->work);
	pthread_cond_destroy(&prefetcher->settled);
	pthread_mutex_destroy(&prefetcher->lock);
	free(prefetcher);
}

void wcx_prefetcher_get_stats(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_stats *ret)
{
	pthread_mutex_lock(&prefetcher->lock);
	*ret = prefetcher->stats;
	ret->followed = prefetcher->counts.followed;
	ret->given_up = prefetcher->counts.given_up;
	pthread_mutex_unlock(&prefetcher->lock);
}
