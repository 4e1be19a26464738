/* SPDX-License-Identifier: MIT */
/* Threads that decode and push what the read-ahead policy asks for. */
#include "fs/mount/prefetch.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <time.h>

#include "codec/arith.h"
#include "fs/mount/readahead.h"

enum {
	PAGE_BYTES = WCX_READAHEAD_PAGE_BYTES,
	ASKED_MAX = 128, /* requests in flight; a push to the page of another one waits until that is answered */
};

struct task;

STAILQ_HEAD(task_list, task); /* first in, first out */

/* image, target and release never change; prefetcher.lock protects the rest. */
struct wcx_prefetch_file {
	struct wcx_image *image;
	uint64_t target;
	wcx_prefetch_release_fn *release;
	unsigned open_count, busy_count; /* busy: tasks, and requests in flight */
	bool is_dead;                    /* the target takes no more, or a tile is damaged */
	bool is_shared;                  /* has been open more than once at a time */
	struct wcx_readahead readahead;
	struct wcx_readahead_range asked[ASKED_MAX]; /* pages of requests in flight */
	size_t asked_count;
	unsigned pusher_count;  /* tasks that push to it */
	struct task_list turns; /* tasks that wait until fewer do */
	unsigned pushed_count;  /* tasks for its page cache */
	unsigned direct_count;  /* tasks for its O_DIRECT readers */
	atomic_bool is_cached;  /* as far as seen: nothing is decoded for O_DIRECT readers.  Written under the lock */
	atomic_bool is_refused; /* its pages can never be asked for */
	struct wcx_prefetch_file *next, **link; /* in the list of all files */
	struct wcx_prefetch_file *next_waiting; /* in the queue of files that may have work */
	bool is_waiting;
};

/* What is to be done next with a task. */
enum step { START, OPEN_PART, SHOW_PART, PUSH_PART, FINISH };

/*
 * A piece in hand.  It belongs to one thread at a time, or to the decoder, or waits: to go on, or for its turn to push.  So
 * no thread waits for a GPU or for others that push.  prefetcher.lock protects link.
 */
struct task {
	struct wcx_prefetcher *prefetcher;
	struct wcx_prefetch_file *file;
	struct wcx_readahead_piece piece;
	enum step step;
	int r;
	uint64_t start, stop; /* the part in hand, of what is left: as much as one view shows, in whole pages */
	struct wcx_image_opening *opening;
	struct wcx_image_view view;
	uint8_t *copy;    /* what view shows where none can, or NULL */
	bool was_cached;  /* all of the piece, before anything was decoded */
	bool is_last_use; /* of the part's tiles, once they are pushed */
	/*
	 * The target for pages, instead of pushing them; of the part in hand.  A single thread of the kernel inserts them
	 * without waiting for a lock, and faster than they are read.
	 */
	bool may_ask, has_asked;
	bool is_decoded; /* counts among prefetcher.decoded_count */
	STAILQ_ENTRY(task) link;
};

/* A thread.  prefetcher.lock protects what is below thread. */
struct worker {
	struct wcx_prefetcher *prefetcher;
	pthread_t thread;
	pthread_cond_t work; /* signalled when is_idle is cleared */
	bool is_idle;
	struct worker *next_idle;
};

struct wcx_prefetcher {
	struct wcx_prefetch_options options;
	unsigned thread_count;
	atomic_bool is_stopping; /* set under lock */

	/* Protects everything below up to joined_count, and the files.  Never held while decoding or pushing. */
	pthread_mutex_t lock;
	pthread_cond_t settled; /* signalled when a thread has ended, or there is nothing to do */
	struct worker *idle;    /* threads without work; the one that had some last comes first */
	struct task_list ready; /* tasks that may go on */
	struct task_list free;
	struct wcx_prefetch_file *files;
	struct wcx_prefetch_file *waiting, **waiting_end;
	struct wcx_prefetch_stats stats;
	struct wcx_readahead_counts counts;
	unsigned task_count, decoded_count; /* tasks in hand; those whose first part is not open yet */
	unsigned ended_count;               /* threads */

	unsigned joined_count; /* these are used by create, stop and free only */
	struct task *tasks;
	struct worker workers[];
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

/* --- threads that wait for work --- */

/* Whether a piece of a file may be taken in hand. */
static bool may_begin_locked(const struct wcx_prefetcher *prefetcher)
{
	return prefetcher->waiting && !STAILQ_EMPTY(&prefetcher->free) &&
	       prefetcher->decoded_count < prefetcher->options.decoded_pieces && !prefetcher->is_stopping;
}

static void end_idle_locked(struct wcx_prefetcher *prefetcher)
{
	prefetcher->idle->is_idle = false;
	prefetcher->idle = prefetcher->idle->next_idle;
}

/*
 * Takes a thread that is to be woken, if there is work for one and one is idle: the last that had work, since its core and
 * caches still know of it.
 */
static struct worker *take_idle_locked(struct wcx_prefetcher *prefetcher)
{
	struct worker *worker = !STAILQ_EMPTY(&prefetcher->ready) || may_begin_locked(prefetcher) ? prefetcher->idle : NULL;

	if (worker)
		end_idle_locked(prefetcher);
	return worker;
}

/* Unlocks before it wakes the thread, which would only wait for the lock. */
static void unlock_and_wake(struct wcx_prefetcher *prefetcher)
{
	struct worker *worker = take_idle_locked(prefetcher);

	pthread_mutex_unlock(&prefetcher->lock);
	if (worker)
		pthread_cond_signal(&worker->work);
}

static void wake_all_locked(struct wcx_prefetcher *prefetcher)
{
	while (prefetcher->idle) {
		pthread_cond_signal(&prefetcher->idle->work);
		end_idle_locked(prefetcher);
	}
}

static void wait_for_work_locked(struct wcx_prefetcher *prefetcher, struct worker *worker)
{
	worker->is_idle = true;
	worker->next_idle = prefetcher->idle;
	prefetcher->idle = worker;
	while (worker->is_idle)
		pthread_cond_wait(&worker->work, &prefetcher->lock);
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
		STAILQ_INIT(&fresh->turns);
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

	if (wants_work(file) && file->pushed_count < prefetcher->options.file_pieces)
		kinds |= WCX_READERS_PUSHED;
	if (wants_work(file) && file->direct_count < prefetcher->options.direct_pieces && !file->is_cached)
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
		if (wcx_readahead_note(&file->readahead, request, is_direct) && !prefetcher->is_stopping &&
		    wanted_kinds(prefetcher, file) & (is_direct ? WCX_READERS_DIRECT : WCX_READERS_PUSHED))
			add_waiting(prefetcher, file);
	}
	unlock_and_wake(prefetcher);
}

void wcx_prefetch_missed(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file)
{
	if (!file || !atomic_load_explicit(&file->is_cached, memory_order_relaxed))
		return;
	pthread_mutex_lock(&prefetcher->lock);
	file->is_cached = false;
	if (wants_work(file) && !prefetcher->is_stopping)
		add_waiting(prefetcher, file);
	unlock_and_wake(prefetcher);
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

/* Has the target ask for [start, end) of the part in hand or, if it cannot, pushes it. */
static int put_pages(struct wcx_prefetcher *prefetcher, struct task *task, uint64_t start, uint64_t end)
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
	return options->push(options->user, target, start, segments,
			     cut_segments(&task->view, task->start, start, end, segments));
}

/* Pushes [start, end) of the part in hand, but for what the reader has passed or asked for meanwhile. */
static int push_range(struct wcx_prefetcher *prefetcher, struct task *task, uint64_t start, uint64_t end)
{
	int r = 0;

	while (start < end && r == 0) {
		uint64_t stop;

		start = drop_behind(prefetcher, task, start, end);
		stop = next_unasked(prefetcher, task->file, &start, end);
		if (start >= end)
			break;
		r = put_pages(prefetcher, task, start, stop);
		start = stop;
	}
	return r;
}

/* Pushes the part in hand, but for the marker. */
static int push_part(struct wcx_prefetcher *prefetcher, struct task *task)
{
	const uint64_t start = task->start, stop = task->stop, marker = task->piece.marker;
	int r;

	if (marker < start || marker >= stop)
		return push_range(prefetcher, task, start, stop);
	r = push_range(prefetcher, task, start, marker);
	return r ? r : push_range(prefetcher, task, marker + PAGE_BYTES, stop);
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

/* --- tasks --- */

/* The first task of a list, or NULL. */
static struct task *take_task(struct task_list *list)
{
	struct task *task = STAILQ_FIRST(list);

	if (task)
		STAILQ_REMOVE_HEAD(list, link);
	return task;
}

static void note_open_locked(struct wcx_prefetcher *prefetcher, struct task *task)
{
	prefetcher->decoded_count -= task->is_decoded;
	task->is_decoded = false;
}

/* Told by the decoder: has any thread go on. */
static void part_is_open(void *user)
{
	struct task *task = user;
	struct wcx_prefetcher *prefetcher = task->prefetcher;
	struct worker *worker;

	pthread_mutex_lock(&prefetcher->lock);
	note_open_locked(prefetcher, task);
	STAILQ_INSERT_TAIL(&prefetcher->ready, task, link);
	worker = take_idle_locked(prefetcher);
	if (worker) /* with the lock: without it, the task may be finished at any time, and all be gone */
		pthread_cond_signal(&worker->work);
	pthread_mutex_unlock(&prefetcher->lock);
}

static void start_task(struct wcx_prefetcher *prefetcher, struct task *task)
{
	const struct wcx_readahead_range pages = task->piece.pages, fetch = task->piece.fetch;

	if (fetch.start < fetch.end)
		wcx_image_advise(task->file->image, fetch.start, fetch.end - fetch.start, POSIX_FADV_WILLNEED);
	task->start = drop_behind(prefetcher, task, pages.start, pages.end);
	task->was_cached = task->start < pages.end;
	task->r = 0;
	task->step = OPEN_PART;
}

/* Opens a view of what is left.  Returns whether the task is still ours: not while a GPU decodes. */
static bool open_part(struct wcx_prefetcher *prefetcher, struct task *task)
{
	const uint64_t end = task->piece.pages.end;

	task->step = task->start >= end || task->r || prefetcher->is_stopping ? FINISH : SHOW_PART;
	if (task->step == SHOW_PART && wcx_image_view_start(task->file->image, task->start, (size_t)(end - task->start),
							    task->opening, part_is_open, task))
		return false;
	pthread_mutex_lock(&prefetcher->lock);
	note_open_locked(prefetcher, task);
	unlock_and_wake(prefetcher);
	return true;
}

/* Decodes the rest into a copy: for tiles that a view cannot show. */
static int copy_rest(struct task *task)
{
	const size_t bytes = (size_t)(task->stop - task->start);
	uint8_t *copy = malloc(bytes);
	const ssize_t n = copy ? wcx_image_read(task->file->image, copy, bytes, task->start, NULL) : -ENOMEM;

	if (n < 0) {
		free(copy);
		return (int)n;
	}
	task->copy = copy;
	task->view.count = 1;
	task->view.bytes = bytes;
	task->view.slices[0] = (struct iovec){ copy, bytes };
	return 0;
}

/* Has view show a part, as much of the rest as it can. */
static int show_part(struct wcx_prefetcher *prefetcher, struct task *task)
{
	const uint64_t end = task->piece.pages.end;
	const int r = wcx_image_view_finish(task->opening, &task->view, NULL);

	task->stop = end;
	task->copy = NULL;
	if (r < 0 && r != -E2BIG)
		return r;
	if (r == 0 && task->start + task->view.bytes < end)
		task->stop = WCX_ALIGN_DOWN(task->start + task->view.bytes, PAGE_BYTES);
	task->is_last_use = !task->piece.is_direct && has_one_reader(prefetcher, task->file);
	task->may_ask = task->is_last_use && may_ask(prefetcher, task);
	task->has_asked = false;
	if (r == 0 && task->stop > task->start) {
		task->was_cached &= task->view.was_cached;
		return 0;
	}
	/* No view, or tiles so small that one shows less than a page. */
	if (r == 0)
		wcx_image_view_close(task->file->image, &task->view, WCX_VIEW_KEEP);
	task->was_cached = task->may_ask = false;
	task->stop = end;
	return copy_rest(task);
}

/* Takes a task's turn to push, if fewer than the most push to its file, or nobody does where pages are asked for. */
static bool take_turn(struct wcx_prefetcher *prefetcher, struct task *task)
{
	const unsigned most = task->may_ask ? 1 : prefetcher->options.file_pushers;
	struct wcx_prefetch_file *file = task->file;
	bool has_come;

	pthread_mutex_lock(&prefetcher->lock);
	has_come = file->pusher_count < most;
	if (has_come)
		file->pusher_count++;
	else
		STAILQ_INSERT_TAIL(&file->turns, task, link);
	pthread_mutex_unlock(&prefetcher->lock);
	return has_come;
}

/* Passes the turn on to the task that has waited longest. */
static void end_turn(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file)
{
	struct task *next;

	pthread_mutex_lock(&prefetcher->lock);
	next = take_task(&file->turns);
	if (next)
		STAILQ_INSERT_TAIL(&prefetcher->ready, next, link);
	else
		file->pusher_count--;
	unlock_and_wake(prefetcher);
}

static void close_part(struct task *task)
{
	if (task->copy)
		free(task->copy);
	else
		wcx_image_view_close(task->file->image, &task->view,
				     task->is_last_use && !task->has_asked ? WCX_VIEW_DROP_INNER : WCX_VIEW_KEEP);
	task->start = task->stop;
}

/* Queues a file behind the others if there is more to do for it: threads woken for nothing contend for the lock. */
static void add_waiting_for_more(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file)
{
	if (wcx_readahead_has_next(&file->readahead, wanted_kinds(prefetcher, file)))
		add_waiting(prefetcher, file);
}

/* After -errno the file is not worth more work, unless memory ran out. */
static void finish_task(struct wcx_prefetcher *prefetcher, struct task *task)
{
	const struct wcx_readahead_piece *piece = &task->piece;
	const uint64_t bytes = piece->pages.end - piece->pages.start;
	struct wcx_prefetch_file *file = task->file;
	struct wcx_prefetch_stats *stats = &prefetcher->stats;

	if (task->r == 0 && !piece->is_direct && prefetcher->options.drop_packed)
		wcx_image_advise(file->image, piece->pages.start, bytes, POSIX_FADV_DONTNEED);
	pthread_mutex_lock(&prefetcher->lock);
	file->is_dead |= task->r < 0 && task->r != -ENOMEM; /* memory may be available again soon */
	*(piece->is_direct ? &stats->decoded_bytes : &stats->pushed_bytes) += bytes;
	if (!piece->is_direct)
		wcx_count(&wcx_image_counts(file->image)->pushed_bytes, bytes);
	/* Where the reader was faster, its own requests may have brought the tiles. */
	file->is_cached |= piece->is_direct && task->was_cached && wcx_readahead_is_ahead(&file->readahead, piece);
	*(piece->is_direct ? &file->direct_count : &file->pushed_count) -= 1;
	add_waiting_for_more(prefetcher, file); /* if there were enough tasks until now */
	file->busy_count--;
	unlock_and_free_unused(prefetcher, file);
}

/* Goes on with a task until it is finished, which is returned, or waits where another thread will find it. */
static bool go_on(struct wcx_prefetcher *prefetcher, struct task *task)
{
	for (;;) {
		switch (task->step) {
		case START:
			start_task(prefetcher, task);
			break;
		case OPEN_PART:
			if (!open_part(prefetcher, task))
				return false;
			break;
		case SHOW_PART:
			task->r = show_part(prefetcher, task);
			task->step = task->r ? FINISH : PUSH_PART;
			if (task->step == PUSH_PART && !task->piece.is_direct && !take_turn(prefetcher, task))
				return false;
			break;
		case PUSH_PART:
			if (!task->piece.is_direct) {
				task->r = prefetcher->is_stopping ? 0 : push_part(prefetcher, task);
				end_turn(prefetcher, task->file);
			}
			close_part(task);
			task->step = OPEN_PART;
			break;
		case FINISH:
			finish_task(prefetcher, task);
			return true;
		}
	}
}

/* --- threads --- */

/* A task that may go on, or a new one, for a piece of the first file that has one; NULL if there is none. */
static struct task *next_task_locked(struct wcx_prefetcher *prefetcher)
{
	struct task *task = take_task(&prefetcher->ready);

	while (!task && may_begin_locked(prefetcher)) {
		struct wcx_prefetch_file *file = take_waiting(prefetcher);

		if (!wcx_readahead_next(&file->readahead, wanted_kinds(prefetcher, file),
					&STAILQ_FIRST(&prefetcher->free)->piece))
			continue;
		task = take_task(&prefetcher->free);
		prefetcher->task_count++;
		prefetcher->decoded_count++;
		task->is_decoded = true;
		task->file = file;
		task->step = START;
		file->busy_count++;
		*(task->piece.is_direct ? &file->direct_count : &file->pushed_count) += 1;
		add_waiting_for_more(prefetcher, file);
	}
	return task;
}

static void free_task_locked(struct wcx_prefetcher *prefetcher, struct task *task)
{
	STAILQ_INSERT_HEAD(&prefetcher->free, task, link);
	if (--prefetcher->task_count == 0 && prefetcher->is_stopping)
		wake_all_locked(prefetcher);
}

static bool is_idle_locked(const struct wcx_prefetcher *prefetcher)
{
	return !prefetcher->waiting && !prefetcher->task_count;
}

static bool has_ended_locked(const struct wcx_prefetcher *prefetcher)
{
	return prefetcher->ended_count == prefetcher->thread_count;
}

static void *work_loop(void *user)
{
	struct worker *worker = user;
	struct wcx_prefetcher *prefetcher = worker->prefetcher;
	struct task *task;
	bool is_finished;

	pthread_mutex_lock(&prefetcher->lock);
	while (!prefetcher->is_stopping || prefetcher->task_count) {
		task = next_task_locked(prefetcher);
		if (!task) {
			if (is_idle_locked(prefetcher))
				pthread_cond_broadcast(&prefetcher->settled);
			wait_for_work_locked(prefetcher, worker);
			continue;
		}
		unlock_and_wake(prefetcher);
		is_finished = go_on(prefetcher, task);
		pthread_mutex_lock(&prefetcher->lock);
		if (is_finished)
			free_task_locked(prefetcher, task);
	}
	prefetcher->ended_count++;
	pthread_cond_broadcast(&prefetcher->settled);
	pthread_mutex_unlock(&prefetcher->lock);
	return NULL;
}

/* Makes as many tasks as there is memory for, up to count. */
static void add_free_tasks(struct wcx_prefetcher *prefetcher, unsigned count)
{
	prefetcher->tasks = calloc(count, sizeof *prefetcher->tasks);
	for (unsigned i = 0; i < count && prefetcher->tasks; i++) {
		struct task *task = &prefetcher->tasks[i];

		task->prefetcher = prefetcher;
		task->opening = wcx_image_opening_create();
		if (!task->opening)
			break;
		STAILQ_INSERT_HEAD(&prefetcher->free, task, link);
	}
}

static bool start_worker(struct wcx_prefetcher *prefetcher, struct worker *worker)
{
	worker->prefetcher = prefetcher;
	pthread_cond_init(&worker->work, NULL);
	return pthread_create(&worker->thread, NULL, work_loop, worker) == 0;
}

struct wcx_prefetcher *wcx_prefetcher_create(const struct wcx_prefetch_options *options)
{
	struct wcx_prefetcher *prefetcher = calloc(1, sizeof *prefetcher + options->threads * sizeof prefetcher->workers[0]);
	pthread_condattr_t monotonic;

	if (!prefetcher)
		return NULL;
	prefetcher->options = *options;
	prefetcher->waiting_end = &prefetcher->waiting;
	STAILQ_INIT(&prefetcher->ready);
	STAILQ_INIT(&prefetcher->free);
	add_free_tasks(prefetcher, options->pieces);
	pthread_mutex_init(&prefetcher->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&prefetcher->settled, &monotonic);
	pthread_condattr_destroy(&monotonic);
	while (!STAILQ_EMPTY(&prefetcher->free) && prefetcher->thread_count < options->threads &&
	       start_worker(prefetcher, &prefetcher->workers[prefetcher->thread_count]))
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
	wake_all_locked(prefetcher);
	r = wait_locked(prefetcher, has_ended_locked, timeout_ms);
	pthread_mutex_unlock(&prefetcher->lock);
	for (; r == 0 && prefetcher->joined_count < prefetcher->thread_count; prefetcher->joined_count++)
		pthread_join(prefetcher->workers[prefetcher->joined_count].thread, NULL);
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
	for (unsigned i = 0; i < prefetcher->options.pieces && prefetcher->tasks; i++)
		wcx_image_opening_free(prefetcher->tasks[i].opening);
	free(prefetcher->tasks);
	for (unsigned i = 0; i < prefetcher->thread_count; i++)
		pthread_cond_destroy(&prefetcher->workers[i].work);
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
