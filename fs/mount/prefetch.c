/* SPDX-License-Identifier: MIT */
/* Works ahead of readers: which of them are followed, how far, and the threads that do it. */
#include "fs/mount/prefetch.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum {
	PAGE_BYTES = WCX_PREFETCH_PAGE_BYTES,
	ASKED_MAX = 128,  /* requests under way: more than a server has threads */
	READERS_MAX = 16, /* of a file, that are told apart: as many as the loader with the most threads has */
	PIECE_BYTES = 1 << 20,
	PUSHERS_MAX = 4, /* of a file, at a time: more wait for each other, spinning, for the lock of its page cache */
	MARKS = 2,       /* in a window: each makes the reader wait, but where it is known only when it gets to one */
	/*
	 * A reader is followed once it has read so much in order.  A random read of 1 MiB comes as several requests in
	 * order, and must not set anything off.
	 */
	PROVEN_BYTES = 2 << 20,
	/* The kernel sends requests of one reader side by side, so that they come out of order. */
	NEAR_BYTES = 1 << 20,
	NEAR_PROVEN_BYTES = 2 << 20,
	/* A reader that skips a part of the file is most likely the same. */
	SKIP_BYTES = 256 << 20,
	/*
	 * One that begins where a large tensor does will most likely want all of it.  Its window begins with half of this,
	 * and ends with the tensor until it has gone beyond; after some that wanted less, nobody is taken at their word.
	 */
	GUESSED_RUN_BYTES = 8 << 20,
	GUESSED_TENSOR_BYTES = 4 << 20,
	WRONG_GUESSES_MAX = 4,
	FETCH_BYTES = 4 << 20, /* of the original at a time: what a disk has to do at once, to be as fast as it can */
};

/*
 * A reader.  At first, low and high are what it has read, and forward and back how much of that was read at either end:
 * once one of these is PROVEN_BYTES it is followed, in that direction.  Then pos is where it will go on, and front how far
 * the work has been given out: forwards an end, backwards a start.
 */
struct reader {
	uint64_t low, high, forward, back;
	uint64_t pos, front;
	uint64_t run;     /* bytes that it has gone through in order */
	uint64_t marked;  /* where the last mark was left */
	uint64_t fetched; /* how far the packed bytes were asked for */
	uint64_t noticed; /* when it was last heard of: a count of notes */
	uint64_t guessed; /* the end of the tensor that it is expected to read; 0 where it was not, or has gone beyond */
	int backwards, direct;
	int is_followed;
};

/* Pages that have been asked for and not been answered yet. */
struct asked_range {
	uint64_t start, end;
};

/* A thread that has something to push, once others have. */
struct push_turn {
	pthread_cond_t come;
	int has_come;
	struct push_turn *next;
};

struct wcx_prefetch_file {
	struct wcx_image *image;
	uint64_t target, bytes;
	wcx_prefetch_release_fn *release;
	unsigned open_count, busy_count; /* opens; threads at work for it, and requests without an answer */
	int is_dead;                     /* the target takes no more, or a tile is damaged */
	uint64_t notes;
	unsigned wrong_guesses; /* one after the other */
	struct reader readers[READERS_MAX];
	struct asked_range asked[ASKED_MAX];
	size_t asked_count;
	unsigned pusher_count;
	struct push_turn *turns;                /* in order */
	struct wcx_prefetch_file *next, **link; /* of all files */
	struct wcx_prefetch_file *next_waiting; /* of those for which there is something to do */
	int is_waiting;
};

struct wcx_prefetcher {
	struct wcx_prefetch_options options;
	pthread_mutex_t lock; /* protects everything below, and in the files but for image, target, bytes and release */
	pthread_cond_t work;  /* there is a file waiting, or stop */
	struct wcx_prefetch_file *files;
	struct wcx_prefetch_file *waiting, **waiting_end;
	atomic_int stop; /* set under the lock */
	struct wcx_prefetch_stats stats;
	pthread_cond_t ended; /* ended_count has grown */
	unsigned thread_count, ended_count, joined_count;
	pthread_t threads[];
};

/*
 * A part of a file for one thread: [start, end), whose page at mark is left out; and [fetch_start, fetch_end), whose packed
 * bytes are asked for, because they will be wanted by those who come after.
 */
struct piece {
	struct wcx_prefetch_file *file;
	uint64_t start, end, mark;
	uint64_t fetch_start, fetch_end;
	int direct, backwards;
	size_t reader; /* number */
};

static const uint64_t no_mark = UINT64_MAX;

static uint64_t page_down(uint64_t offset)
{
	return offset / PAGE_BYTES * PAGE_BYTES;
}

/* --- windows --- */

static uint64_t window_of(const struct wcx_prefetcher *prefetcher, const struct reader *reader)
{
	const uint64_t window = reader->run / 2;

	return window < prefetcher->options.window_bytes ? window : prefetcher->options.window_bytes;
}

/* Where another reader has begun before a limit, what follows is that one's: several share a file in this way. */
static uint64_t forward_limit(const struct wcx_prefetch_file *file, const struct reader *reader, uint64_t limit)
{
	for (size_t i = 0; i < READERS_MAX; i++) {
		const struct reader *other = &file->readers[i];

		if (other->is_followed && other->direct == reader->direct && !other->backwards && other->low > reader->pos &&
		    other->low < limit)
			limit = other->low;
	}
	return limit;
}

/* A window from a place on, as far as there is something that the reader is expected to want. */
static uint64_t window_end(const struct wcx_prefetcher *prefetcher, const struct wcx_prefetch_file *file,
			   const struct reader *reader, uint64_t from)
{
	const uint64_t window = window_of(prefetcher, reader);
	const uint64_t end = file->bytes - from < window ? file->bytes : from + window;

	return reader->guessed && reader->guessed < end ? reader->guessed : end;
}

/* How far the work may go: forwards an end, backwards a start. */
static uint64_t window_limit(const struct wcx_prefetcher *prefetcher, const struct wcx_prefetch_file *file,
			     const struct reader *reader)
{
	const uint64_t window = window_of(prefetcher, reader);

	if (reader->backwards)
		return reader->pos > window ? reader->pos - window : 0;
	return forward_limit(file, reader, window_end(prefetcher, file, reader, reader->pos));
}

static int has_work(const struct wcx_prefetcher *prefetcher, const struct wcx_prefetch_file *file,
		    const struct reader *reader)
{
	const uint64_t limit = window_limit(prefetcher, file, reader);

	if (!reader->is_followed || file->is_dead || !file->open_count)
		return 0;
	/* By whole pieces, for a page more is not worth a thread's waking. */
	if (reader->backwards)
		return reader->front > limit && (limit == 0 || reader->front - limit >= PIECE_BYTES);
	return reader->front < limit &&
	       (limit == file->bytes || limit == reader->guessed || limit - reader->front >= PIECE_BYTES);
}

/* Has the packed bytes fetched as far ahead of the decoding as that is of the reader. */
static void fetch_ahead(const struct wcx_prefetcher *prefetcher, const struct wcx_prefetch_file *file, struct reader *reader,
			struct piece *piece)
{
	const uint64_t end = window_end(prefetcher, file, reader, reader->front);

	if (reader->fetched < reader->front)
		reader->fetched = reader->front;
	if (end < reader->fetched + FETCH_BYTES && !(end == file->bytes && end > reader->fetched))
		return;
	piece->fetch_start = reader->fetched;
	piece->fetch_end = reader->fetched = end;
}

/* Takes the next piece of a reader's window. */
static struct piece next_piece(const struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file, size_t number)
{
	struct reader *reader = &file->readers[number];
	const uint64_t spacing = window_of(prefetcher, reader) / MARKS;
	struct piece piece = { .file = file, .mark = no_mark, .direct = reader->direct, .reader = number };

	piece.backwards = reader->backwards;
	if (reader->backwards) {
		/* The page that it has read a part of is left to it. */
		piece.end = reader->front < file->bytes ? page_down(reader->front) : reader->front;
		piece.start = (reader->front - 1) / PIECE_BYTES * PIECE_BYTES;
		reader->front = piece.start;
		if (piece.start < piece.end && reader->marked - piece.start >= spacing)
			piece.mark = page_down(piece.end - 1);
	} else {
		piece.start = page_down(reader->front);
		piece.end = (piece.start / PIECE_BYTES + 1) * PIECE_BYTES;
		if (piece.end > file->bytes)
			piece.end = file->bytes;
		reader->front = piece.end;
		if (piece.end - reader->marked >= spacing)
			piece.mark = piece.start;
		fetch_ahead(prefetcher, file, reader, &piece);
	}
	if (piece.mark != no_mark)
		reader->marked = piece.mark;
	return piece;
}

/* --- readers --- */

/* How far a request is from what the reader has read or, if it is followed, from what it will find: 0 in there. */
static uint64_t distance(const struct reader *reader, uint64_t offset, uint64_t end)
{
	uint64_t low = reader->low, high = reader->high;

	if (reader->is_followed) {
		low = reader->backwards ? reader->front : reader->pos;
		high = reader->backwards ? reader->pos : reader->front;
	}
	if (end < low)
		return low - end;
	return offset > high ? offset - high : 0;
}

static int is_near(const struct reader *reader, uint64_t offset, uint64_t end, int direct)
{
	return reader->noticed && reader->direct == direct &&
	       distance(reader, offset, end) <= (uint64_t)(reader->is_followed ? NEAR_PROVEN_BYTES : NEAR_BYTES);
}

/* The reader that a request comes from, if it is a known one: the nearest, and of several that is followed. */
static struct reader *find_reader(struct wcx_prefetch_file *file, uint64_t offset, uint64_t end, int direct)
{
	struct reader *best = NULL;
	uint64_t least = UINT64_MAX;

	for (size_t i = 0; i < READERS_MAX; i++) {
		struct reader *reader = &file->readers[i];
		const uint64_t away = distance(reader, offset, end);

		if (!is_near(reader, offset, end, direct) || away > least ||
		    (away == least && reader->is_followed <= best->is_followed))
			continue;
		best = reader;
		least = away;
	}
	return best;
}

/* Of a reader that was taken at its word, whether it has not kept it as yet. */
static int is_unproven(const struct reader *reader)
{
	return reader->guessed && reader->pos - reader->low < PROVEN_BYTES;
}

static void follow(struct wcx_prefetcher *prefetcher, struct reader *reader, int backwards, uint64_t run)
{
	reader->is_followed = 1;
	reader->backwards = backwards;
	reader->run = run;
	reader->pos = reader->front = reader->marked = backwards ? reader->low : reader->high;
	prefetcher->stats.windows++;
}

/* Where the tensor ends that a request from elsewhere is the beginning of; 0 when it is of none, or of the header, too. */
static uint64_t guess_end(const struct wcx_prefetch_file *file, uint64_t offset, uint64_t end)
{
	const struct wcx_container *container = wcx_image_container(file->image);
	const struct wcx_segment *segment;

	if (offset == 0 || file->wrong_guesses == WRONG_GUESSES_MAX)
		return 0;
	segment = wcx_container_segment(container, wcx_container_segment_at(container, end - 1));
	return segment->offset >= offset && segment->bytes >= GUESSED_TENSOR_BYTES ? segment->offset + segment->bytes : 0;
}

static void count_wrong_guess(struct wcx_prefetch_file *file)
{
	file->wrong_guesses += file->wrong_guesses < WRONG_GUESSES_MAX;
}

/*
 * Puts a new reader in the place of the one that was not heard of for longest.  It may be one that has skipped a part, and
 * is then followed at once; or another, so that the one it might have been keeps its place, with less ahead of it.
 */
static struct reader *new_reader(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file, uint64_t offset,
				 uint64_t end, int direct)
{
	struct reader *place = &file->readers[0], *skipping = NULL;
	uint64_t run = 0;

	for (size_t i = 0; i < READERS_MAX; i++) {
		struct reader *reader = &file->readers[i];

		if (reader->noticed < place->noticed)
			place = reader;
		if (reader->is_followed && !reader->backwards && !is_unproven(reader) && reader->direct == direct &&
		    offset > reader->front && offset - reader->front <= SKIP_BYTES &&
		    (!skipping || reader->front > skipping->front))
			skipping = reader;
	}
	if (skipping) {
		skipping->run /= 4;
		run = skipping->run;
	}
	prefetcher->stats.given_up += place->is_followed && place->front != place->pos;
	if (is_unproven(place))
		count_wrong_guess(file);
	*place = (struct reader){ .low = offset, .high = end, .forward = end - offset, .direct = direct };
	place->guessed = guess_end(file, offset, end);
	if (place->guessed && run < GUESSED_RUN_BYTES)
		run = GUESSED_RUN_BYTES;
	if (run >= PROVEN_BYTES)
		follow(prefetcher, place, 0, run);
	return place;
}

/* A reader that was taken at its word goes the other way: so nothing is known of it but where it has been. */
static void take_back_guess(struct wcx_prefetch_file *file, struct reader *reader)
{
	count_wrong_guess(file);
	reader->is_followed = 0;
	reader->guessed = 0;
	reader->high = reader->pos;
	reader->forward = 0;
}

/* Moves a reader on by a request of its own. */
static void advance(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file, struct reader *reader,
		    uint64_t offset, uint64_t end)
{
	if (is_unproven(reader) && offset < reader->low)
		take_back_guess(file, reader);
	if (!reader->is_followed) {
		/* The gap that a request leaves is no part of what was read. */
		if (end > reader->high)
			reader->forward += end - (offset > reader->high ? offset : reader->high);
		if (offset < reader->low)
			reader->back += (end < reader->low ? end : reader->low) - offset;
		reader->high = end > reader->high ? end : reader->high;
		reader->low = offset < reader->low ? offset : reader->low;
		if (reader->forward >= PROVEN_BYTES || reader->back >= PROVEN_BYTES) {
			follow(prefetcher, reader, reader->back > reader->forward, PROVEN_BYTES);
			file->wrong_guesses = 0;
		}
	} else if (!reader->backwards && end > reader->pos) {
		reader->run += end - reader->pos;
		reader->pos = end;
		reader->front = reader->front < end ? end : reader->front;
		if (reader->guessed && !is_unproven(reader))
			file->wrong_guesses = 0;
		if (end >= reader->guessed)
			reader->guessed = 0;
	} else if (reader->backwards && offset < reader->pos) {
		reader->run += reader->pos - offset;
		reader->pos = offset;
		reader->front = reader->front > offset ? offset : reader->front;
	}
}

/* --- files --- */

static void add_waiting(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file)
{
	if (file->is_waiting)
		return;
	file->is_waiting = 1;
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
	file->is_waiting = 0;
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
	file->is_waiting = 0;
}

/* Takes the file out if nobody needs it; then it is the caller's to free. */
static int is_over_locked(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file)
{
	if (file->open_count || file->busy_count)
		return 0;
	remove_waiting(prefetcher, file);
	*file->link = file->next;
	if (file->next)
		file->next->link = file->link;
	return 1;
}

static void free_file(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file)
{
	file->release(prefetcher->options.user, file->target);
	wcx_image_put(file->image);
	free(file);
}

/* A target may take something again once it is opened anew. */
static struct wcx_prefetch_file *open_locked(struct wcx_prefetcher *prefetcher, struct wcx_image *image, uint64_t target)
{
	struct wcx_prefetch_file *file = prefetcher->files;

	while (file && (file->image != image || file->target != target))
		file = file->next;
	if (file) {
		file->open_count++;
		file->is_dead = 0;
	}
	return file;
}

struct wcx_prefetch_file *wcx_prefetch_open(struct wcx_prefetcher *prefetcher, struct wcx_image *image, uint64_t target,
					    wcx_prefetch_release_fn *release)
{
	struct wcx_prefetch_file *fresh = calloc(1, sizeof *fresh), *file;

	pthread_mutex_lock(&prefetcher->lock);
	file = open_locked(prefetcher, image, target);
	if (!file && fresh) {
		file = fresh;
		fresh = NULL;
		file->image = wcx_image_get(image);
		file->target = target;
		file->bytes = wcx_image_bytes(image);
		file->release = release;
		file->open_count = 1;
		file->next = prefetcher->files;
		file->link = &prefetcher->files;
		if (file->next)
			file->next->link = &file->next;
		prefetcher->files = file;
		pthread_mutex_unlock(&prefetcher->lock);
		return file;
	}
	pthread_mutex_unlock(&prefetcher->lock);
	free(fresh);
	release(prefetcher->options.user, target); /* the file that is there has one already */
	return file;
}

void wcx_prefetch_close(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file)
{
	int is_over;

	if (!file)
		return;
	pthread_mutex_lock(&prefetcher->lock);
	file->open_count--;
	is_over = is_over_locked(prefetcher, file);
	pthread_mutex_unlock(&prefetcher->lock);
	if (is_over)
		free_file(prefetcher, file);
}

/* Where a request ends in the file, in which it begins. */
static uint64_t request_end(const struct wcx_prefetch_file *file, uint64_t offset, size_t bytes)
{
	return bytes < file->bytes - offset ? offset + bytes : file->bytes;
}

static struct asked_range pages_of(uint64_t offset, uint64_t end)
{
	return (struct asked_range){ page_down(offset), page_down(end + PAGE_BYTES - 1) };
}

/* Finds out whose request it is, and whether there is something to do for that reader now. */
static void note_locked(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file, uint64_t offset, uint64_t end,
			int direct)
{
	struct reader *reader = find_reader(file, offset, end, direct);

	if (reader)
		advance(prefetcher, file, reader, offset, end);
	else
		reader = new_reader(prefetcher, file, offset, end, direct);
	reader->noticed = ++file->notes;
	prefetcher->stats.requests++;
	prefetcher->stats.requested_bytes += end - offset;
	if (has_work(prefetcher, file, reader) && !prefetcher->stop) {
		add_waiting(prefetcher, file);
		pthread_cond_signal(&prefetcher->work);
	}
}

void wcx_prefetch_note(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file, uint64_t offset, size_t bytes,
		       int direct)
{
	if (!file)
		return;
	direct = direct != 0;
	pthread_mutex_lock(&prefetcher->lock);
	file->busy_count++; /* until it is answered: then the file may be closed already */
	if (bytes && offset < file->bytes) {
		const uint64_t end = request_end(file, offset, bytes);

		if (!direct && file->asked_count < ASKED_MAX)
			file->asked[file->asked_count++] = pages_of(offset, end);
		note_locked(prefetcher, file, offset, end, direct);
	}
	pthread_mutex_unlock(&prefetcher->lock);
}

static void forget_asked(struct wcx_prefetch_file *file, struct asked_range range)
{
	for (size_t i = 0; i < file->asked_count; i++) {
		if (file->asked[i].start != range.start || file->asked[i].end != range.end)
			continue;
		file->asked[i] = file->asked[--file->asked_count];
		return;
	}
}

void wcx_prefetch_answered(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file, uint64_t offset, size_t bytes,
			   int direct)
{
	int is_over;

	if (!file)
		return;
	pthread_mutex_lock(&prefetcher->lock);
	if (bytes && offset < file->bytes && !direct)
		forget_asked(file, pages_of(offset, request_end(file, offset, bytes)));
	file->busy_count--;
	is_over = is_over_locked(prefetcher, file);
	pthread_mutex_unlock(&prefetcher->lock);
	if (is_over)
		free_file(prefetcher, file);
}

/* --- threads --- */

/* The part of a piece that its reader has not passed by now, as a view of it has it: may be empty. */
static void cut_passed(struct wcx_prefetcher *prefetcher, const struct piece *piece, uint64_t *start, uint64_t *end)
{
	const struct reader *reader = &piece->file->readers[piece->reader];

	pthread_mutex_lock(&prefetcher->lock);
	if (reader->is_followed && reader->backwards == piece->backwards && !piece->backwards && reader->pos > *start &&
	    reader->front >= piece->end)
		*start = reader->pos < *end ? (reader->pos + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES : *end;
	pthread_mutex_unlock(&prefetcher->lock);
	if (*start > *end)
		*start = *end;
}

/* The segments of a view that are [start, end) of what begins at offset; how many. */
static size_t cut_segments(const struct wcx_image_view *view, uint64_t offset, uint64_t start, uint64_t end,
			   struct iovec segments[WCX_VIEW_SEGMENTS_MAX])
{
	size_t count = 0;

	for (size_t i = 0; i < view->count; offset += view->segments[i++].iov_len) {
		const uint64_t from = offset > start ? offset : start, behind = offset + view->segments[i].iov_len;
		const uint64_t to = behind < end ? behind : end;

		if (from < to)
			segments[count++] = (struct iovec){ (uint8_t *)view->segments[i].iov_base + (from - offset),
							    (size_t)(to - from) };
	}
	return count;
}

/* The first part of [*start, end) that nobody waits for an answer to: moves *start there and returns where it ends. */
static uint64_t next_unasked(struct wcx_prefetcher *prefetcher, const struct wcx_prefetch_file *file, uint64_t *start,
			     uint64_t end)
{
	pthread_mutex_lock(&prefetcher->lock);
	for (size_t i = 0; i < file->asked_count; i++) {
		if (file->asked[i].start > *start || file->asked[i].end <= *start)
			continue;
		*start = file->asked[i].end;
		i = (size_t)-1; /* there may be one behind it */
	}
	for (size_t i = 0; i < file->asked_count; i++)
		if (file->asked[i].start > *start && file->asked[i].start < end)
			end = file->asked[i].start;
	pthread_mutex_unlock(&prefetcher->lock);
	return end;
}

static int push_range(struct wcx_prefetcher *prefetcher, const struct piece *piece, const struct wcx_image_view *view,
		      uint64_t offset, uint64_t start, uint64_t end)
{
	int r = 0;

	while (start < end && r == 0) {
		struct iovec segments[WCX_VIEW_SEGMENTS_MAX];
		uint64_t stop;

		cut_passed(prefetcher, piece, &start, &end);
		stop = next_unasked(prefetcher, piece->file, &start, end);
		if (start >= end)
			break;
		r = prefetcher->options.push(prefetcher->options.user, piece->file->target, start, segments,
					     cut_segments(view, offset, start, stop, segments));
		start = stop;
	}
	return r;
}

/* Waits until few enough push to the file. */
static void begin_push(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file)
{
	struct push_turn turn = { .come = PTHREAD_COND_INITIALIZER }, **at = &file->turns;

	pthread_mutex_lock(&prefetcher->lock);
	if (file->pusher_count < PUSHERS_MAX) {
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
	if (turn) { /* whose the place is now */
		file->turns = turn->next;
		turn->has_come = 1;
		pthread_cond_signal(&turn->come);
	} else {
		file->pusher_count--;
	}
	pthread_mutex_unlock(&prefetcher->lock);
}

/* Pushes whole pages of a view, but for the mark. */
static int push_view(struct wcx_prefetcher *prefetcher, const struct piece *piece, const struct wcx_image_view *view,
		     uint64_t offset, uint64_t end)
{
	int r = 0;

	begin_push(prefetcher, piece->file);
	if (piece->mark < offset || piece->mark >= end) {
		r = push_range(prefetcher, piece, view, offset, offset, end);
	} else {
		r = push_range(prefetcher, piece, view, offset, offset, piece->mark);
		if (r == 0 && piece->mark + PAGE_BYTES < end)
			r = push_range(prefetcher, piece, view, offset, piece->mark + PAGE_BYTES, end);
	}
	end_push(prefetcher, piece->file);
	return r;
}

/* The same for tiles that cannot be seen in one piece: by way of a copy. */
static int push_copy(struct wcx_prefetcher *prefetcher, const struct piece *piece, uint64_t start, uint64_t end)
{
	struct wcx_image_view view = { .count = 1, .bytes = (size_t)(end - start) };
	uint8_t *copy = malloc(view.bytes);
	ssize_t n = copy ? wcx_image_read(piece->file->image, copy, view.bytes, start, NULL) : -ENOMEM;
	int r = n < 0 ? (int)n : 0;

	view.segments[0] = (struct iovec){ copy, view.bytes };
	if (r == 0 && !piece->direct)
		r = push_view(prefetcher, piece, &view, start, end);
	free(copy);
	return r;
}

/* Decodes a part of a piece and pushes it; *start is then where the next begins. */
static int do_part(struct wcx_prefetcher *prefetcher, const struct piece *piece, uint64_t *start, uint64_t limit)
{
	struct wcx_image *image = piece->file->image;
	struct wcx_image_view view;
	uint64_t end;
	int r = wcx_image_view_open(image, *start, (size_t)(limit - *start), &view, NULL);

	if (r < 0 && r != -E2BIG)
		return r;
	end = r == 0 && *start + view.bytes < limit ? page_down(*start + view.bytes) : limit;
	if (r < 0 || end == *start) {
		/* Nor such as are so small that a batch has no whole page of them. */
		end = limit;
		if (r == 0)
			wcx_image_view_close(image, &view, false);
		r = push_copy(prefetcher, piece, *start, end);
	} else {
		if (!piece->direct)
			r = push_view(prefetcher, piece, &view, *start, end);
		wcx_image_view_close(image, &view, !piece->direct);
	}
	*start = end;
	return r;
}

/* Decodes a piece and pushes it.  Returns 0, or -errno when the file is not worth going on with. */
static int do_piece(struct wcx_prefetcher *prefetcher, const struct piece *piece)
{
	uint64_t at = piece->start, limit = piece->end;
	int r = 0;

	if (piece->fetch_start < piece->fetch_end)
		wcx_image_advise(piece->file->image, piece->fetch_start, piece->fetch_end - piece->fetch_start,
				 POSIX_FADV_WILLNEED);
	cut_passed(prefetcher, piece, &at, &limit);
	while (at < limit && r == 0 && !prefetcher->stop)
		r = do_part(prefetcher, piece, &at, limit);
	if (r == 0 && !piece->direct && prefetcher->options.drop_packed)
		wcx_image_advise(piece->file->image, piece->start, piece->end - piece->start, POSIX_FADV_DONTNEED);
	return r;
}

/* Takes a piece of a waiting file, whose turn comes again later; 0 if none has any. */
static int take_piece(struct wcx_prefetcher *prefetcher, struct piece *ret)
{
	while (prefetcher->waiting) {
		struct wcx_prefetch_file *file = take_waiting(prefetcher);

		for (size_t i = 0; i < READERS_MAX; i++) {
			const size_t number = (file->notes + i) % READERS_MAX;

			if (!has_work(prefetcher, file, &file->readers[number]))
				continue;
			*ret = next_piece(prefetcher, file, number);
			file->busy_count++;
			add_waiting(prefetcher, file);
			return 1;
		}
	}
	return 0;
}

static void finish_piece(struct wcx_prefetcher *prefetcher, const struct piece *piece, int r)
{
	int is_over;

	pthread_mutex_lock(&prefetcher->lock);
	piece->file->is_dead |= r < 0 && r != -ENOMEM; /* of memory there may be more soon */
	*(piece->direct ? &prefetcher->stats.decoded_bytes : &prefetcher->stats.pushed_bytes) += piece->end - piece->start;
	piece->file->busy_count--;
	is_over = is_over_locked(prefetcher, piece->file);
	pthread_mutex_unlock(&prefetcher->lock);
	if (is_over)
		free_file(prefetcher, piece->file);
}

static void *work_loop(void *user)
{
	struct wcx_prefetcher *prefetcher = user;
	struct piece piece;

	pthread_mutex_lock(&prefetcher->lock);
	while (!prefetcher->stop) {
		if (!take_piece(prefetcher, &piece)) {
			pthread_cond_wait(&prefetcher->work, &prefetcher->lock);
			continue;
		}
		if (prefetcher->waiting)
			pthread_cond_signal(&prefetcher->work);
		pthread_mutex_unlock(&prefetcher->lock);
		finish_piece(prefetcher, &piece, do_piece(prefetcher, &piece));
		pthread_mutex_lock(&prefetcher->lock);
	}
	prefetcher->ended_count++;
	pthread_cond_broadcast(&prefetcher->ended);
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
	pthread_cond_init(&prefetcher->ended, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_cond_init(&prefetcher->work, NULL);
	while (prefetcher->thread_count < options->threads &&
	       pthread_create(&prefetcher->threads[prefetcher->thread_count], NULL, work_loop, prefetcher) == 0)
		prefetcher->thread_count++;
	if (!prefetcher->thread_count) /* none reads it */
		prefetcher->stop = 1;
	return prefetcher;
}

static struct timespec in_ms(unsigned ms)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	time.tv_nsec += ms % 1000 * 1000000L;
	time.tv_sec += ms / 1000 + time.tv_nsec / 1000000000;
	time.tv_nsec %= 1000000000;
	return time;
}

int wcx_prefetcher_stop(struct wcx_prefetcher *prefetcher, unsigned timeout_ms)
{
	const struct timespec until = in_ms(timeout_ms);
	int r = 0;

	pthread_mutex_lock(&prefetcher->lock);
	prefetcher->stop = 1;
	pthread_cond_broadcast(&prefetcher->work);
	while (prefetcher->ended_count < prefetcher->thread_count && r == 0)
		r = pthread_cond_timedwait(&prefetcher->ended, &prefetcher->lock, &until);
	r = prefetcher->ended_count < prefetcher->thread_count ? -ETIMEDOUT : 0;
	pthread_mutex_unlock(&prefetcher->lock);
	for (; r == 0 && prefetcher->joined_count < prefetcher->thread_count; prefetcher->joined_count++)
		pthread_join(prefetcher->threads[prefetcher->joined_count], NULL);
	return r;
}

void wcx_prefetcher_free(struct wcx_prefetcher *prefetcher)
{
	if (!prefetcher)
		return;
	while (prefetcher->files) { /* those that were open when the mount ended */
		struct wcx_prefetch_file *file = prefetcher->files;

		prefetcher->files = file->next;
		free_file(prefetcher, file);
	}
	pthread_cond_destroy(&prefetcher->work);
	pthread_cond_destroy(&prefetcher->ended);
	pthread_mutex_destroy(&prefetcher->lock);
	free(prefetcher);
}

void wcx_prefetcher_get_stats(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_stats *ret)
{
	pthread_mutex_lock(&prefetcher->lock);
	*ret = prefetcher->stats;
	pthread_mutex_unlock(&prefetcher->lock);
}
