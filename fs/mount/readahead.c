/* SPDX-License-Identifier: MIT */
/* Decides what to decode ahead of the readers of one file. */
#include "fs/mount/readahead.h"

#include "codec/arith.h"

enum {
	PAGE_BYTES = WCX_READAHEAD_PAGE_BYTES,
	READERS_MAX = WCX_READAHEAD_READERS_MAX,
	PIECE_BYTES = 1 << 20, /* the smallest */
	PIECES_PER_WINDOW = 16,
	/* Each marker costs the reader a wait, but nothing else tells where it is. */
	MARKERS_PER_WINDOW = 2,
	/* Proof of a sequential reader.  Must exceed a random read of 1 MiB, which arrives as several requests in order. */
	PROOF_BYTES = 2 << 20,
	/* The kernel sends the requests of one reader in parallel, so they arrive out of order. */
	NEAR_BYTES = 1 << 20,
	NEAR_FOLLOWED_BYTES = 2 << 20,
	/* Threads that take the blocks of a file in turn, with O_DIRECT: as far ahead of the others may one be. */
	NEAR_DIRECT_BYTES = 8 << 20,
	/* A new reader this far ahead of a sequential one is most likely the same, which skipped a part. */
	SKIP_BYTES = 256 << 20,
	/*
	 * From here on the window is all that was read, not half of it: one that doubles reaches its limit in half as many
	 * steps, and in each of them the reader waits for the first piece.
	 */
	STEADY_BYTES = 4 << 20,
	/*
	 * A reader that begins where a tensor of at least GUESS_TENSOR_BYTES does most likely wants all of it: its first
	 * window is GUESS_SEQUENTIAL_BYTES.  After too many wrong guesses in a row there are no more.
	 */
	GUESS_TENSOR_BYTES = 4 << 20,
	GUESS_SEQUENTIAL_BYTES = STEADY_BYTES,
	WRONG_GUESSES_MAX = 4,
	/* The least to ask a disk for at a time: with this much it reaches its full speed. */
	FETCH_BYTES = 4 << 20,
};

static bool is_followed(const struct wcx_reader *reader)
{
	return reader->state >= WCX_READER_GUESSED;
}

/* Converts a range of the file to the reader's coordinates, or back. */
static struct wcx_readahead_range mirrored(const struct wcx_readahead *ahead, const struct wcx_reader *reader,
					   struct wcx_readahead_range range)
{
	if (!reader->is_backward)
		return range;
	return (struct wcx_readahead_range){ ahead->file_bytes - range.end, ahead->file_bytes - range.start };
}

/* --- windows, in the reader's coordinates --- */

static uint64_t window_bytes(const struct wcx_readahead *ahead, const struct wcx_reader *reader)
{
	const uint64_t bytes = reader->sequential_bytes;

	return WCX_MIN(bytes < STEADY_BYTES ? bytes / 2 : bytes, ahead->window_bytes);
}

static uint64_t window_end(const struct wcx_readahead *ahead, const struct wcx_reader *reader, uint64_t start)
{
	return WCX_MIN(start + window_bytes(ahead, reader), reader->stop);
}

/* A large window is cut into larger pieces, since each costs a launch and a wait, but into enough for all threads. */
static uint64_t piece_bytes(const struct wcx_readahead *ahead, const struct wcx_reader *reader)
{
	uint64_t bytes = PIECE_BYTES;

	while (bytes < ahead->piece_bytes && window_bytes(ahead, reader) >= 2 * bytes * PIECES_PER_WINDOW)
		bytes *= 2;
	return bytes;
}

/* Several forward readers share a file: what follows the start of another one is left to that. */
static uint64_t next_start(const struct wcx_readahead *ahead, const struct wcx_reader *reader, uint64_t limit)
{
	for (size_t i = 0; i < READERS_MAX; i++) {
		const struct wcx_reader *other = &ahead->readers[i];

		if (is_followed(other) && other->is_direct == reader->is_direct && !other->is_backward &&
		    other->low > reader->pos && other->low < limit)
			limit = other->low;
	}
	return limit;
}

/* Whole pieces only, unless the window cannot grow: a few pages are not worth waking a thread. */
static bool has_work(const struct wcx_readahead *ahead, const struct wcx_reader *reader)
{
	uint64_t limit;

	if (!is_followed(reader))
		return false;
	limit = window_end(ahead, reader, reader->pos);
	if (!reader->is_backward)
		limit = next_start(ahead, reader, limit);
	return reader->front < limit && (limit == reader->stop || limit - reader->front >= piece_bytes(ahead, reader));
}

/* Packed bytes are fetched a window ahead of the decoding. */
static struct wcx_readahead_range next_fetch(const struct wcx_readahead *ahead, struct wcx_reader *reader)
{
	const uint64_t start = WCX_MAX(reader->fetched, reader->front), end = window_end(ahead, reader, reader->front);

	reader->fetched = start;
	if (end < start + FETCH_BYTES && !(end == ahead->file_bytes && end > start))
		return (struct wcx_readahead_range){ 0, 0 };
	reader->fetched = end;
	return (struct wcx_readahead_range){ start, end };
}

/* Pieces end at multiples of PIECE_BYTES in the file, for backward readers too. */
static uint64_t piece_end(const struct wcx_readahead *ahead, const struct wcx_reader *reader)
{
	const uint64_t bytes = piece_bytes(ahead, reader),
		       phase = reader->is_backward ? bytes - ahead->file_bytes % bytes : 0;
	const uint64_t end = reader->front + bytes - (reader->front + phase) % bytes;

	return WCX_MIN(end, ahead->file_bytes);
}

static struct wcx_readahead_piece take_piece(const struct wcx_readahead *ahead, struct wcx_reader *reader)
{
	const struct wcx_readahead_range own = { reader->front, piece_end(ahead, reader) };
	struct wcx_readahead_piece piece = {
		.pages = mirrored(ahead, reader, own),
		.marker = wcx_no_marker,
		.is_direct = reader->is_direct,
		.is_guess = reader->state < WCX_READER_CONFIRMED,
		.is_backward = reader->is_backward,
		.reader = (size_t)(reader - ahead->readers),
	};
	const bool is_marked = own.end - reader->marked >= window_bytes(ahead, reader) / MARKERS_PER_WINDOW;

	/* A page that a backward reader has read a part of is left to it. */
	piece.pages.start = WCX_ALIGN_DOWN(piece.pages.start, PAGE_BYTES);
	if (piece.pages.end < ahead->file_bytes)
		piece.pages.end = WCX_ALIGN_DOWN(piece.pages.end, PAGE_BYTES);
	reader->front = own.end;
	if (is_marked && piece.pages.start < piece.pages.end) { /* the page that the reader gets to first */
		piece.marker = piece.is_backward ? WCX_ALIGN_DOWN(piece.pages.end - 1, PAGE_BYTES) : piece.pages.start;
		reader->marked = mirrored(ahead, reader, (struct wcx_readahead_range){ piece.marker, piece.marker }).start;
	}
	if (!reader->is_backward)
		piece.fetch = next_fetch(ahead, reader);
	return piece;
}

/* --- readers --- */

/* How far a request is from what the reader has read or, if it is followed, from what it will find; 0 if they touch. */
static uint64_t distance(const struct wcx_readahead *ahead, const struct wcx_reader *reader,
			 struct wcx_readahead_range request)
{
	const struct wcx_readahead_range own = mirrored(ahead, reader, request);
	const uint64_t start = is_followed(reader) ? reader->pos : reader->low;
	const uint64_t end = is_followed(reader) ? reader->front : reader->high;

	if (own.end < start)
		return start - own.end;
	return own.start > end ? own.start - end : 0;
}

/*
 * How far a request of the reader may be from it.  A direct reader is often several threads that take blocks in turn, and
 * one that got no core for a millisecond is a dozen MiB late.  Followed, it would be a reader of tiles that are cached
 * already.
 */
static uint64_t near_bytes(const struct wcx_readahead *ahead, const struct wcx_reader *reader,
			   struct wcx_readahead_range request)
{
	if (!is_followed(reader))
		return NEAR_BYTES;
	if (!reader->is_direct || reader->is_backward || request.start < reader->low)
		return NEAR_FOLLOWED_BYTES;
	return request.end < reader->pos ? WCX_MAX(ahead->window_bytes, (uint64_t)NEAR_DIRECT_BYTES) : NEAR_DIRECT_BYTES;
}

/* The known reader that sent a request, or NULL: the nearest; of two equally near, a followed one. */
static struct wcx_reader *find_reader(struct wcx_readahead *ahead, struct wcx_readahead_range request, bool is_direct)
{
	struct wcx_reader *best = NULL;
	uint64_t least = UINT64_MAX;

	for (size_t i = 0; i < READERS_MAX; i++) {
		struct wcx_reader *reader = &ahead->readers[i];
		const uint64_t away = distance(ahead, reader, request);

		if (reader->state == WCX_READER_UNUSED || reader->is_direct != is_direct || away > least ||
		    away > near_bytes(ahead, reader, request) || (away == least && is_followed(reader) <= is_followed(best)))
			continue;
		best = reader;
		least = away;
	}
	return best;
}

/* The end of the large tensor that begins in a first request, or 0.  A request at offset 0 is for the header. */
static uint64_t guess_end(const struct wcx_readahead *ahead, struct wcx_readahead_range request)
{
	struct wcx_readahead_range tensor;

	if (request.start == 0 || ahead->wrong_guesses >= WRONG_GUESSES_MAX)
		return 0;
	tensor = ahead->tensor_at(ahead->user, request.end - 1);
	return tensor.start >= request.start && tensor.end - tensor.start >= GUESS_TENSOR_BYTES ? tensor.end : 0;
}

/* Follows a reader from the end of what it has read: of [low, high), which end depends on its direction. */
static void follow(struct wcx_readahead *ahead, struct wcx_reader *reader, enum wcx_reader_state state,
		   uint64_t sequential_bytes)
{
	reader->state = state;
	reader->sequential_bytes = sequential_bytes;
	reader->stop = ahead->file_bytes;
	reader->pos = mirrored(ahead, reader, (struct wcx_readahead_range){ reader->low, reader->high }).end;
	reader->front = reader->marked = reader->pos;
	ahead->counts->followed++;
}

/* Frees the slot of the reader least recently heard of. */
static struct wcx_reader *evict_reader(struct wcx_readahead *ahead)
{
	struct wcx_reader *oldest = &ahead->readers[0];

	for (size_t i = 1; i < READERS_MAX; i++)
		if (ahead->readers[i].noticed < oldest->noticed)
			oldest = &ahead->readers[i];
	ahead->counts->given_up += is_followed(oldest) && oldest->front != oldest->pos;
	ahead->wrong_guesses += oldest->state == WCX_READER_GUESSED;
	return oldest;
}

/*
 * sequential_bytes for a new reader that may be a known one which skipped a part, or 0: a quarter of what that has read.  In
 * case the new reader is another one, the known one stays, with the same quarter.
 */
static uint64_t inherit_sequential(struct wcx_readahead *ahead, uint64_t offset, bool is_direct)
{
	struct wcx_reader *nearest = NULL;

	for (size_t i = 0; i < READERS_MAX; i++) {
		struct wcx_reader *reader = &ahead->readers[i];

		if (reader->state >= WCX_READER_CONFIRMED && !reader->is_backward && reader->is_direct == is_direct &&
		    offset > reader->front && offset - reader->front <= SKIP_BYTES &&
		    (!nearest || reader->front > nearest->front))
			nearest = reader;
	}
	return nearest ? nearest->sequential_bytes /= 4 : 0;
}

static struct wcx_reader *add_reader(struct wcx_readahead *ahead, struct wcx_readahead_range request, bool is_direct)
{
	const uint64_t bytes = request.end - request.start, inherited = inherit_sequential(ahead, request.start, is_direct);
	struct wcx_reader *reader = evict_reader(ahead);
	const uint64_t guess = guess_end(ahead, request);

	*reader = (struct wcx_reader){
		.state = WCX_READER_WATCHED,
		.is_direct = is_direct,
		.low = request.start,
		.high = request.end,
		.up_bytes = bytes,
	};
	if (guess) {
		follow(ahead, reader, bytes < PROOF_BYTES ? WCX_READER_GUESSED : WCX_READER_CONFIRMED,
		       WCX_MAX(inherited, GUESS_SEQUENTIAL_BYTES));
		reader->stop = guess;
	} else if (inherited >= PROOF_BYTES) {
		follow(ahead, reader, WCX_READER_SEQUENTIAL, inherited);
	}
	return reader;
}

/* A request before the start of the tensor: the guess was wrong.  The reader has read [low, pos). */
static void take_back_guess(struct wcx_readahead *ahead, struct wcx_reader *reader)
{
	ahead->wrong_guesses++;
	reader->state = WCX_READER_WATCHED;
	reader->high = reader->pos;
	reader->up_bytes = 0;
}

static void advance_watched(struct wcx_readahead *ahead, struct wcx_reader *reader, struct wcx_readahead_range request)
{
	/* A gap before the request was not read. */
	if (request.end > reader->high)
		reader->up_bytes += request.end - WCX_MAX(request.start, reader->high);
	if (request.start < reader->low)
		reader->down_bytes += WCX_MIN(request.end, reader->low) - request.start;
	reader->high = WCX_MAX(reader->high, request.end);
	reader->low = WCX_MIN(reader->low, request.start);
	if (WCX_MAX(reader->up_bytes, reader->down_bytes) < PROOF_BYTES)
		return;
	reader->is_backward = reader->down_bytes > reader->up_bytes;
	follow(ahead, reader, WCX_READER_SEQUENTIAL, PROOF_BYTES);
	ahead->wrong_guesses = 0;
}

static void advance_followed(struct wcx_readahead *ahead, struct wcx_reader *reader, uint64_t end)
{
	if (end <= reader->pos)
		return;
	reader->sequential_bytes += end - reader->pos;
	reader->pos = end;
	reader->front = WCX_MAX(reader->front, end);
	if (reader->state == WCX_READER_GUESSED && reader->pos - reader->low >= PROOF_BYTES)
		reader->state = WCX_READER_CONFIRMED;
	if (reader->state != WCX_READER_CONFIRMED)
		return;
	ahead->wrong_guesses = 0;
	if (end >= reader->stop) {
		reader->state = WCX_READER_SEQUENTIAL;
		reader->stop = ahead->file_bytes;
	}
}

/* --- requests and pieces --- */

bool wcx_readahead_note(struct wcx_readahead *ahead, struct wcx_readahead_range request, bool is_direct)
{
	struct wcx_reader *reader = find_reader(ahead, request, is_direct);

	if (!reader) {
		reader = add_reader(ahead, request, is_direct);
	} else {
		if (reader->state == WCX_READER_GUESSED && request.start < reader->low)
			take_back_guess(ahead, reader);
		if (is_followed(reader))
			advance_followed(ahead, reader, mirrored(ahead, reader, request).end);
		else
			advance_watched(ahead, reader, request);
	}
	reader->noticed = ++ahead->notes;
	return has_work(ahead, reader);
}

/* Which reader's piece is next; READERS_MAX: none's. */
static size_t next_reader(const struct wcx_readahead *ahead, enum wcx_reader_kinds kinds)
{
	for (size_t i = 0; i < READERS_MAX; i++) {
		const size_t number = (ahead->notes + i) % READERS_MAX;
		const struct wcx_reader *reader = &ahead->readers[number];

		if (kinds & (reader->is_direct ? WCX_READERS_DIRECT : WCX_READERS_PUSHED) && has_work(ahead, reader))
			return number;
	}
	return READERS_MAX;
}

bool wcx_readahead_next(struct wcx_readahead *ahead, enum wcx_reader_kinds kinds, struct wcx_readahead_piece *piece_ret)
{
	const size_t number = next_reader(ahead, kinds);

	if (number < READERS_MAX)
		*piece_ret = take_piece(ahead, &ahead->readers[number]);
	return number < READERS_MAX;
}

bool wcx_readahead_has_next(const struct wcx_readahead *ahead, enum wcx_reader_kinds kinds)
{
	return next_reader(ahead, kinds) < READERS_MAX;
}

bool wcx_readahead_is_ahead(const struct wcx_readahead *ahead, const struct wcx_readahead_piece *piece)
{
	const struct wcx_reader *reader = &ahead->readers[piece->reader];
	const struct wcx_readahead_range own = mirrored(ahead, reader, piece->pages);

	return is_followed(reader) && reader->is_backward == piece->is_backward && reader->pos <= own.start &&
	       own.end <= reader->front;
}

uint64_t wcx_readahead_drop_behind(const struct wcx_readahead *ahead, const struct wcx_readahead_piece *piece,
				   uint64_t start, uint64_t end)
{
	const struct wcx_reader *reader = &ahead->readers[piece->reader];

	if (is_followed(reader) && !reader->is_backward && !piece->is_backward && reader->pos > start &&
	    reader->front >= piece->pages.end)
		start = WCX_ALIGN_UP(reader->pos, PAGE_BYTES);
	return WCX_MIN(start, end);
}
