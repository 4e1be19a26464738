/* SPDX-License-Identifier: MIT */
/*
 * Decides what to decode ahead of the readers of one file: requests go in, pieces of work come out.
 *
 * Pure policy: no function here blocks, allocates, reads the file or takes a lock.  The caller serialises all calls for
 * one struct, and for all structs that share counts.  All offsets and sizes are bytes of the original file.
 *
 * Readers are told apart by position, whatever process or descriptor their requests come from.  Their states:
 *
 *	UNUSED     -> WATCHED     first request,
 *	           -> GUESSED     in which a large tensor begins,
 *	           -> SEQUENTIAL  or ahead of a sequential reader, which is taken to have skipped a part
 *	WATCHED    -> SEQUENTIAL  2 MiB read in order, in either direction
 *	GUESSED    -> CONFIRMED   2 MiB read of the tensor
 *	           -> WATCHED     request before its start
 *	CONFIRMED  -> SEQUENTIAL  tensor read to its end
 *
 * Readers from GUESSED on are followed: ahead of each is a window of half of what it has read in order, from 4 MiB on of
 * all of it, handed out in pieces of 1 MiB or, of large windows, up to piece_bytes.  A new reader takes the slot of the one
 * least recently heard of.
 */
#ifndef WCX_READAHEAD_H
#define WCX_READAHEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	WCX_READAHEAD_PAGE_BYTES = 4096,
	WCX_READAHEAD_READERS_MAX = 16, /* told apart in one file: the most threads of any loader */
};

static const uint64_t wcx_no_marker = UINT64_MAX;

struct wcx_readahead_range {
	uint64_t start, end; /* end is exclusive */
};

/* In this order: every state from GUESSED on is followed. */
enum wcx_reader_state {
	WCX_READER_UNUSED,
	WCX_READER_WATCHED,    /* nothing is done for it yet */
	WCX_READER_GUESSED,    /* began with a large tensor: its window ends where the tensor does */
	WCX_READER_CONFIRMED,  /* has read 2 MiB of that tensor */
	WCX_READER_SEQUENTIAL, /* its window ends with the file */
};

/*
 * A reader.  The offsets of one that is followed backwards are mirrored: they count from the end of the file, so that pos,
 * front and stop grow for every reader.  low and high are never mirrored.
 */
struct wcx_reader {
	enum wcx_reader_state state;
	bool is_direct, is_backward;
	uint64_t noticed; /* number of its last request in the file, counted from 1 */

	/* WATCHED: it has read within [low, high), that much of it upwards and downwards.  Later, low is where it began. */
	uint64_t low, high, up_bytes, down_bytes;

	/* Followed. */
	uint64_t pos;              /* where its next request is expected */
	uint64_t front;            /* end of what was handed out */
	uint64_t stop;             /* the window ends here: end of the tensor or of the file */
	uint64_t sequential_bytes; /* read in order, which the window follows from */
	uint64_t marked;           /* its last marker */
	uint64_t fetched;          /* end of what was asked of the disk; forward readers only */
};

/* Counts of readers that were followed, and of those that went elsewhere with part of their window unread. */
struct wcx_readahead_counts {
	uint64_t followed, given_up;
};

/* The tensor, or another part that is read as a whole, that holds the byte at offset; offset is inside the file. */
typedef struct wcx_readahead_range wcx_tensor_at_fn(const void *user, uint64_t offset);

/* The caller sets the first six members and zeroes the rest, which is private. */
struct wcx_readahead {
	uint64_t file_bytes, window_bytes; /* window_bytes: the largest window of one reader */
	uint64_t piece_bytes;              /* the largest piece: a power of two from 1 MiB on */
	wcx_tensor_at_fn *tensor_at;
	const void *user;
	struct wcx_readahead_counts *counts;

	uint64_t notes;
	unsigned wrong_guesses; /* in a row */
	struct wcx_reader readers[WCX_READAHEAD_READERS_MAX];
};

/* Work for one thread, with the reader it is for. */
struct wcx_readahead_piece {
	struct wcx_readahead_range pages; /* to decode: whole pages, but at the end of the file; may be empty */
	uint64_t marker;                  /* offset of the one page of these that must not be pushed, or wcx_no_marker */
	struct wcx_readahead_range fetch; /* the packed bytes of this range are to be read from disk; may be empty */
	bool is_direct, is_backward;
	bool is_guess; /* the reader is not known to read in order yet */
	size_t reader;
};

/*
 * wcx_readahead_note - tell of a request, which is not empty and lies in the file
 *
 * is_direct: the reader bypasses the page cache.  Returns whether there is a piece now for the reader that sent it.
 */
bool wcx_readahead_note(struct wcx_readahead *ahead, struct wcx_readahead_range request, bool is_direct);

/* Readers whose pieces are wanted. */
enum wcx_reader_kinds { WCX_READERS_PUSHED = 1, WCX_READERS_DIRECT = 2, WCX_READERS_ALL = 3 };

/* wcx_readahead_next - take the next piece of any reader of the kinds; false if there is none */
bool wcx_readahead_next(struct wcx_readahead *ahead, enum wcx_reader_kinds kinds, struct wcx_readahead_piece *piece_ret);

/* wcx_readahead_has_next - whether there is one */
bool wcx_readahead_has_next(const struct wcx_readahead *ahead, enum wcx_reader_kinds kinds);

/* wcx_readahead_is_ahead - whether the reader of a piece has not reached any of it */
bool wcx_readahead_is_ahead(const struct wcx_readahead *ahead, const struct wcx_readahead_piece *piece);

/* wcx_readahead_drop_behind - where the part of a piece's [start, end) begins that its reader has not passed; end if none */
uint64_t wcx_readahead_drop_behind(const struct wcx_readahead *ahead, const struct wcx_readahead_piece *piece,
				   uint64_t start, uint64_t end);

#endif
