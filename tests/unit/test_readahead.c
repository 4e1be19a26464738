/* SPDX-License-Identifier: MIT */
/* The read-ahead policy: tables of requests with the pieces they lead to, then models of readers and the pages they find. */
#include "fs/mount/readahead.h"

#include <stdlib.h>

#include "codec/arith.h"
#include "tests/fixtures/sample_data.h"
#include "tests/unit/check.h"

enum { PAGE = WCX_READAHEAD_PAGE_BYTES, KIB = 1 << 10, MIB = 1 << 20, PIECE = MIB, NEAR = 2 * MIB, WINDOW = 8 * MIB };

/*
 * A file and what was done for it.  Tensors of tensor_bytes each follow a header; 0 stands for one tensor from offset 0 to
 * the end.  ask has all pieces done before the next request.
 */
struct model {
	struct wcx_readahead ahead;
	struct wcx_readahead_counts counts;
	uint64_t header_bytes, tensor_bytes;
	uint8_t *pages;                                                 /* how often each was pushed or asked for */
	uint64_t asked, pushed, again;                                  /* bytes; again: pushed though cached already */
	struct wcx_readahead_range requests[WCX_READAHEAD_READERS_MAX]; /* the last one of each reader */
	char done[1000];                                                /* see describe */
};

/* --- what every test here has --- */

static struct wcx_readahead_range tensor_at(const void *user, uint64_t offset)
{
	const struct model *model = user;
	uint64_t start = model->header_bytes;

	CHECK(offset < model->ahead.file_bytes);
	if (!model->tensor_bytes)
		return (struct wcx_readahead_range){ 0, model->ahead.file_bytes };
	if (offset < start)
		return (struct wcx_readahead_range){ 0, start };
	start += (offset - start) / model->tensor_bytes * model->tensor_bytes;
	return (struct wcx_readahead_range){ start, WCX_MIN(start + model->tensor_bytes, model->ahead.file_bytes) };
}

static struct model *open_model(uint64_t file_bytes, uint64_t window_bytes, uint64_t tensor_bytes)
{
	struct model *model = calloc(1, sizeof *model);

	model->header_bytes = 128 * KIB + 136;
	model->tensor_bytes = tensor_bytes;
	model->pages = calloc(file_bytes / PAGE + 1, 1);
	model->ahead = (struct wcx_readahead){
		.file_bytes = file_bytes,
		.window_bytes = window_bytes,
		.tensor_at = tensor_at,
		.user = model,
		.counts = &model->counts,
	};
	return model;
}

static void close_model(struct model *model)
{
	free(model->pages);
	free(model);
}

static uint64_t tensor_start(const struct model *model, uint64_t number)
{
	return model->header_bytes + number * model->tensor_bytes;
}

/* The reader that sent the last request. */
static const struct wcx_reader *last_reader(const struct model *model)
{
	const struct wcx_reader *last = &model->ahead.readers[0];

	for (size_t i = 1; i < WCX_READAHEAD_READERS_MAX; i++)
		if (model->ahead.readers[i].noticed > last->noticed)
			last = &model->ahead.readers[i];
	return last;
}

static void add_text(struct model *model, const char *text)
{
	snprintf(model->done + strlen(model->done), sizeof model->done - strlen(model->done), "%s", text);
}

static void add_range(struct model *model, const char *before, struct wcx_readahead_range range)
{
	const uint64_t ends[2] = { range.start, range.end };
	char text[32];

	for (int i = 0; i < 2; i++) {
		const uint64_t unit = ends[i] % MIB == 0 ? MIB : ends[i] % KIB == 0 ? KIB : 1;

		snprintf(text, sizeof text, "%s%llu%s", i ? "-" : before, (unsigned long long)(ends[i] / unit),
			 unit == MIB   ? "M"
			 : unit == KIB ? "K"
				       : "");
		add_text(model, text);
	}
}

/*
 * As text: pages, which follow '!' when their first page is the marker and precede it when their last is, then '+' and the
 * range to fetch; and 'd' for a direct reader.
 */
static void describe(struct model *model, const struct wcx_readahead_piece *piece)
{
	const bool has_marker = piece->marker != wcx_no_marker, is_first = piece->marker == piece->pages.start;

	CHECK(!has_marker || is_first == !piece->is_backward);
	CHECK(!has_marker || is_first ||
	      (piece->marker % PAGE == 0 && piece->marker == (piece->pages.end - 1) / PAGE * PAGE));
	add_range(model, has_marker && is_first ? " !" : " ", piece->pages);
	add_text(model, has_marker && !is_first ? "!" : "");
	if (piece->fetch.start < piece->fetch.end)
		add_range(model, "+", piece->fetch);
	add_text(model, piece->is_direct ? "d" : "");
}

/* Whole pages within the window of the reader, which is somewhere near its last request. */
static void check_piece(const struct model *model, const struct wcx_readahead_piece *piece)
{
	const struct wcx_readahead_range pages = piece->pages, request = model->requests[piece->reader];

	CHECK(pages.start % PAGE == 0 && (pages.end % PAGE == 0 || pages.end == model->ahead.file_bytes));
	CHECK(pages.start <= pages.end && pages.end <= model->ahead.file_bytes &&
	      pages.end - pages.start <= WCX_MAX(model->ahead.piece_bytes, PIECE));
	CHECK(piece->fetch.start <= piece->fetch.end && piece->fetch.end <= model->ahead.file_bytes);
	if (piece->is_backward)
		CHECK(pages.end <= request.end + NEAR && pages.start + model->ahead.window_bytes + NEAR >= request.start);
	else
		CHECK(pages.start + NEAR >= request.start && pages.end <= request.end + model->ahead.window_bytes + NEAR);
	CHECK(wcx_readahead_drop_behind(&model->ahead, piece, pages.start, pages.end) >= pages.start);
}

static void do_piece(struct model *model, const struct wcx_readahead_piece *piece)
{
	check_piece(model, piece);
	describe(model, piece);
	for (uint64_t at = piece->pages.start; at < piece->pages.end && !piece->is_direct; at += PAGE) {
		const uint64_t bytes = WCX_MIN(PAGE, piece->pages.end - at);

		if (at == piece->marker)
			continue;
		model->again += model->pages[at / PAGE]++ ? PAGE : 0;
		model->pushed += bytes;
	}
}

/* A request and all pieces that it leads to, done at once; their pages are cached from now on. */
static void ask(struct model *model, uint64_t offset, uint64_t bytes, bool is_direct)
{
	const struct wcx_readahead_range request = { offset, WCX_MIN(offset + bytes, model->ahead.file_bytes) };
	struct wcx_readahead_piece piece;
	bool has_work;

	for (uint64_t page = offset / PAGE; page * PAGE < request.end && !is_direct; page++)
		model->pages[page]++;
	model->asked += request.end - request.start;
	has_work = wcx_readahead_note(&model->ahead, request, is_direct);
	model->requests[last_reader(model) - model->ahead.readers] = request;
	for (; wcx_readahead_next(&model->ahead, WCX_READERS_ALL, &piece); has_work = false)
		do_piece(model, &piece);
	CHECK(!has_work); /* what was announced came */
}

static void ask_in_order(struct model *model, uint64_t start, uint64_t bytes)
{
	for (uint64_t at = start; at < start + bytes; at += 128 * KIB)
		ask(model, at, 128 * KIB, false);
}

static uint64_t holes(const struct model *model, uint64_t start, uint64_t end)
{
	uint64_t count = 0;

	for (uint64_t page = start / PAGE; page * PAGE < end; page++)
		count += !model->pages[page];
	return count;
}

/* --- tables --- */

/*
 * So many requests of so many bytes (backwards if negative), one after the other from an offset on, and what comes of them:
 * "direct" if they bypass the page cache, the state of their reader, and all pieces.
 */
struct step {
	uint64_t offset;
	int64_t bytes;
	unsigned times;
	const char *expected;
};

struct script {
	const char *name;
	struct {
		uint64_t file_bytes, window_bytes, tensor_bytes;
		uint64_t followed, given_up; /* what is counted in the end */
	} setup;
	struct step steps[24];
};

static const struct script scripts[] = {
	/* Forwards. */
	{ "a reader is followed after 2 MiB; its window is half of what it has read, from 4 MiB on all of it, in whole "
	  "pieces",
	  { 64 * MIB, WINDOW, 0, 1, 0 },
	  { { 0, 128 * KIB, 15, "watched" },
	    { 15 * 128 * KIB, 128 * KIB, 1, "sequential !2M-3M" },
	    { 2 * MIB, 128 * KIB, 15, "sequential !3M-4M !4M-5M" },
	    { 3968 * KIB, 128 * KIB, 1, "sequential !5M-6M+6M-10M !6M-7M !7M-8M" },
	    { 4 * MIB, MIB, 4,
	      "sequential 8M-9M+10M-14M !9M-10M 10M-11M !11M-12M+14M-18M 12M-13M 13M-14M !14M-15M+18M-23M 15M-16M" } } },
	{ "one large request moves the window as far as many small ones",
	  { 64 * MIB, WINDOW, 0, 1, 0 },
	  { { 0, MIB, 2, "sequential !2M-3M" },
	    { 2 * MIB, 6 * MIB, 1,
	      "sequential !8M-9M+9M-17M 9M-10M 10M-11M !11M-12M 12M-13M+17M-21M 13M-14M !14M-15M 15M-16M" } } },
	{ "a window has a limit and a marker in each half",
	  { 64 * MIB, 4 * MIB, 0, 1, 0 },
	  { { 0, MIB, 8,
	      "sequential !2M-3M !3M-4M !4M-5M+5M-9M !5M-6M !6M-7M !7M-8M !8M-9M+9M-13M !9M-10M !10M-11M !11M-12M" },
	    { 8 * MIB, MIB, 1, "sequential !12M-13M+13M-17M" },
	    { 9 * MIB, MIB, 4, "sequential !13M-14M !14M-15M !15M-16M !16M-17M+17M-21M" } } },
	{ "markers are further apart in larger windows",
	  { 128 * MIB, 16 * MIB, 0, 1, 0 },
	  { { 0, MIB, 2, "sequential !2M-3M" },
	    { 2 * MIB, 38 * MIB, 1,
	      "sequential !40M-41M+41M-57M 41M-42M 42M-43M 43M-44M 44M-45M+57M-61M 45M-46M 46M-47M !47M-48M 48M-49M+61M-65M "
	      "49M-50M 50M-51M 51M-52M 52M-53M+65M-69M 53M-54M !54M-55M 55M-56M" },
	    { 40 * MIB, MIB, 16,
	      "sequential 56M-57M+69M-73M 57M-58M 58M-59M 59M-60M 60M-61M+73M-77M !61M-62M 62M-63M 63M-64M 64M-65M+77M-81M "
	      "65M-66M 66M-67M 67M-68M !68M-69M+81M-85M 69M-70M 70M-71M 71M-72M" } } },
	{ "the request for a marker moves the window on",
	  { 64 * MIB, 4 * MIB, 0, 1, 0 },
	  { { 0, MIB, 8,
	      "sequential !2M-3M !3M-4M !4M-5M+5M-9M !5M-6M !6M-7M !7M-8M !8M-9M+9M-13M !9M-10M !10M-11M !11M-12M" },
	    { 10 * MIB, PAGE, 1, "sequential !12M-13M+13M-17M !13M-14M" },
	    { 12 * MIB, PAGE, 1, "sequential !14M-15M !15M-16M" } } },
	{ "with a window smaller than a piece, only the last piece is done",
	  { 4 * MIB, MIB - 1, 0, 1, 0 },
	  { { 0, MIB, 3, "sequential" }, { 3 * MIB, 128 * KIB, 1, "sequential !3200K-4M" } } },
	{ "nothing is done without a window",
	  { 64 * MIB, 0, 0, 3, 0 },
	  { { 0, MIB, 20, "sequential" }, { 40 * MIB, -MIB, 20, "sequential" } } },
	{ "the last piece ends with the file, however short",
	  { 5 * MIB + 5000, WINDOW, 0, 1, 0 },
	  { { 0, 128 * KIB, 31, "sequential !2M-3M !3M-4M+4M-5247880 !4M-5M !5M-5247880" },
	    { 31 * 128 * KIB, 128 * KIB, 1, "sequential" },
	    { 4 * MIB, 128 * KIB, 1, "sequential" } } },
	{ "the first piece begins with the page that its reader has read a part of",
	  { 64 * MIB, WINDOW, 0, 1, 0 },
	  { { 5000, 1001, 2095, "watched" },
	    { 5000 + 2095 * 1001, 1001, 1, "sequential !2052K-3M" },
	    { 5000 + 2096 * 1001, 1001, 1060, "sequential !3M-4M" } } },
	{ "a file of less than 2 MiB is left alone", { 2 * MIB - 1, WINDOW, 0, 0, 0 }, { { 0, 128 * KIB, 16, "watched" } } },

	/* Backwards: the first request counts as forwards. */
	{ "a backward reader is followed; nothing is fetched for it",
	  { 64 * MIB, WINDOW, 0, 1, 0 },
	  { { 64 * MIB, -128 * KIB, 16, "watched" },
	    { 62 * MIB, -128 * KIB, 1, "sequential 61M-63360K!" },
	    { 62 * MIB - 128 * KIB, -MIB, 6,
	      "sequential 60M-62336K! 59M-61312K 58M-59M! 57M-58M 56M-57M! 55M-56M 54M-55M! 53M-54M 52M-53M 51M-52M! "
	      "50M-51M 49M-50M 48M-49M" } } },
	{ "pieces of a backward reader begin at whole MiB wherever the file ends",
	  { 64 * MIB + 12345, WINDOW, 0, 1, 0 },
	  { { 64 * MIB + 12345, -MIB, 2, "watched" },
	    { 62 * MIB + 12345, -MIB, 2, "sequential 61M-62476K 60M-61452K! 59M-60M!" } } },
	{ "a page that a backward reader has read a part of is left to it",
	  { 64 * MIB, WINDOW, 0, 1, 0 },
	  { { 32 * MIB + 1001, -1001, 2095, "watched" },
	    { 32 * MIB - 2094 * 1001, -1001, 2, "sequential 29M-30716K!" },
	    { 32 * MIB - 2096 * 1001, -1001, 1060, "sequential 28M-29M!" } } },
	{ "a piece that consists of such a page is empty",
	  { 64 * MIB, 2 * MIB, 0, 1, 0 },
	  { { 33 * MIB + 3000, -MIB, 2, "watched" }, { 31 * MIB + 3000, -MIB, 1, "sequential 30M-30M" } } },
	{ "so is the last one of a reader in the first page, and it has no marker",
	  { 5 * MIB, 5000, 0, 1, 0 },
	  { { 3 * MIB + 3000, -MIB, 3, "sequential 0M-0M" } } },
	{ "a backward window ends at the start of the file",
	  { 5 * MIB + 5000, WINDOW, 0, 1, 0 },
	  { { 5 * MIB, -64 * KIB, 32, "watched" },
	    { 3 * MIB, -64 * KIB, 16, "sequential 2M-3008K! 1M-2M!" },
	    { 2 * MIB, -64 * KIB, 16, "sequential 0M-1M!" } } },
	{ "a backward window has a limit and a marker in each half",
	  { 64 * MIB, 4 * MIB, 0, 1, 0 },
	  { { 40 * MIB, -MIB, 8, "sequential 36M-37M! 35M-36M! 34M-35M 33M-34M! 32M-33M 31M-32M! 30M-31M 29M-30M! 28M-29M" },
	    { 32 * MIB, -MIB, 1, "sequential 27M-28M!" },
	    { 31 * MIB, -MIB, 4, "sequential 26M-27M 25M-26M! 24M-25M 23M-24M!" },
	    { 24 * MIB, -PAGE, 1, "sequential 22M-23M 21M-22M! 20M-21M" } } },

	/* What belongs to a reader. */
	{ "requests out of order are those of one reader",
	  { 64 * MIB, WINDOW, 0, 1, 0 },
	  { { 128 * KIB, 128 * KIB, 1, "watched" },
	    { 0, 128 * KIB, 1, "watched" },
	    { 512 * KIB, 512 * KIB, 1, "watched" },
	    { 256 * KIB, 256 * KIB, 1, "watched" },
	    { MIB, MIB, 1, "watched" },
	    { 2 * MIB + 512 * KIB, 512 * KIB, 1, "sequential !3M-4M" },
	    { 2 * MIB, 512 * KIB, 1, "sequential" },
	    { 4 * MIB, MIB, 1, "sequential !5M-6M+6M-10M !6M-7M !7M-8M !8M-9M" },
	    { 3 * MIB, MIB, 1, "sequential" } } },
	{ "a gap between requests was not read",
	  { 64 * MIB, WINDOW, 0, 1, 0 },
	  { { 0, 512 * KIB, 1, "watched" },
	    { MIB, 512 * KIB, 1, "watched" },
	    { 2 * MIB, 512 * KIB, 1, "watched" },
	    { 3 * MIB, 512 * KIB - 1, 1, "watched" },
	    { 3 * MIB + 512 * KIB - 1, 1, 1, "sequential !3584K-4M" } } },
	{ "a request 1 MiB away from a watched reader is its own",
	  { 64 * MIB, WINDOW, 0, 1, 0 },
	  { { 0, MIB, 1, "watched" }, { 2 * MIB, MIB, 1, "sequential !3M-4M" } } },
	{ "one further away is another reader's",
	  { 64 * MIB, WINDOW, 0, 0, 0 },
	  { { 0, MIB, 1, "watched" }, { 2 * MIB + 1, 2 * MIB - 2, 1, "watched" } } },
	{ "a request 2 MiB beyond the window of a followed reader is its own",
	  { 64 * MIB, WINDOW, 0, 1, 0 },
	  { { 0, MIB, 2, "sequential !2M-3M" },
	    { 5 * MIB, PAGE, 1, "sequential !5124K-6M+6M-11268K 6M-7M !7M-8M 8M-9M !9M-10M+11268K-15364K" } } },
	{ "one further away is another reader's",
	  { 64 * MIB, WINDOW, 0, 1, 0 },
	  { { 0, MIB, 2, "sequential !2M-3M" }, { 5 * MIB + PAGE, PAGE, 1, "watched" } } },
	{ "one as near to a followed reader as to a watched one is the followed reader's",
	  { 64 * MIB, WINDOW, 0, 1, 0 },
	  { { 5 * MIB + PAGE, PAGE, 1, "watched" },
	    { 0, MIB, 2, "sequential !2M-3M" },
	    { 4 * MIB, PAGE, 1, "sequential !4100K-5M+5M-9220K 5M-6M !6M-7M 7M-8M" } } },
	{ "one as near to two followed readers is that of the first slot",
	  { 64 * MIB, WINDOW, 0, 2, 0 },
	  { { 0, MIB, 2, "sequential !2M-3M" },
	    { 5 * MIB + PAGE, MIB, 2, "sequential !7172K-8M" },
	    { 5 * MIB, PAGE, 1, "sequential !5124K-6M" } } },
	{ "a request at both ends of what was read: the larger part decides",
	  { 64 * MIB, WINDOW, 0, 1, 0 },
	  { { 8 * MIB, MIB, 1, "watched" }, { 6 * MIB, 6 * MIB, 1, "sequential !12M-13M" } } },
	{ "a request up to 2 MiB behind a followed reader is its own and changes nothing",
	  { 64 * MIB, WINDOW, 0, 1, 0 },
	  { { 8 * MIB, MIB, 4, "sequential !10M-11M !11M-12M !12M-13M+13M-17M !13M-14M !14M-15M !15M-16M" },
	    { 10 * MIB, PAGE, 1, "sequential" },
	    { 10 * MIB - PAGE - 1, PAGE, 1, "watched" } } },
	{ "random reads of 1 MiB in several requests set nothing off, until one continues another",
	  { 600 * MIB, WINDOW, 0, 1, 0 },
	  { { 50 * MIB, 128 * KIB, 8, "watched" },
	    { 300 * MIB, 128 * KIB, 8, "watched" },
	    { 100 * MIB, 128 * KIB, 8, "watched" },
	    { 51 * MIB, 128 * KIB, 8, "sequential !52M-53M" } } },
	{ "reading the same place again is no progress",
	  { 64 * MIB, WINDOW, 0, 0, 0 },
	  { { 8 * MIB, MIB, 1, "watched" },
	    { 8 * MIB, MIB, 1, "watched" },
	    { 8 * MIB, MIB, 1, "watched" },
	    { 8 * MIB, 128 * KIB, 8, "watched" } } },

	/* Several readers. */
	{ "two forward readers: the window of the first ends where the second began",
	  { 64 * MIB, WINDOW, 0, 2, 0 },
	  { { 0, 128 * KIB, 16, "sequential !2M-3M" },
	    { 8 * MIB, 128 * KIB, 16, "sequential !10M-11M" },
	    { 2 * MIB, MIB, 4, "sequential !4M-5M !5M-6M 6M-7M+7M-11776K !7M-8M" },
	    { 10 * MIB, MIB, 2, "sequential !11M-12M !12M-13M+13M-17M !13M-14M !14M-15M !15M-16M" },
	    { 6 * MIB, MIB, 2, "sequential 8M-9M+11776K-15872K 9M-10M !10M-11M 11M-12M 12M-13M+15872K-19968K !13M-14M" } } },
	{ "a forward and a backward reader that meet keep their windows",
	  { 16 * MIB, WINDOW, 0, 2, 0 },
	  { { 0, MIB, 6,
	      "sequential !2M-3M !3M-4M !4M-5M+5M-9M !5M-6M !6M-7M !7M-8M 8M-9M+9M-14M !9M-10M 10M-11M+14M-16M !11M-12M" },
	    { 16 * MIB, -MIB, 6,
	      "sequential 12M-13M! 13M-14M !14M-15M 15M-16M 10M-11M! 9M-10M 8M-9M! 7M-8M 6M-7M! 5M-6M" } } },
	{ "the window of a forward reader does not end where a backward one began",
	  { 64 * MIB, WINDOW, 0, 2, 0 },
	  { { 12 * MIB, -MIB, 3, "sequential 8M-9M!" },
	    { 9 * MIB, -8 * MIB, 1, "sequential 0M-1M!" },
	    { 4 * MIB, MIB, 4, "sequential !6M-7M !7M-8M !8M-9M+9M-13M !9M-10M !10M-11M !11M-12M" } } },
	{ "nor that of a backward reader at the same distance from the end of the file",
	  { 64 * MIB, WINDOW, 0, 2, 0 },
	  { { 30 * MIB, MIB, 2, "sequential !32M-33M" },
	    { 44 * MIB, -MIB, 8,
	      "sequential 40M-41M! 39M-40M! 38M-39M 37M-38M! 36M-37M 35M-36M! 34M-35M 33M-34M! 32M-33M 31M-32M 30M-31M! "
	      "29M-30M" } } },
	{ "the window of a backward reader does not end where another one began",
	  { 64 * MIB, WINDOW, 0, 2, 0 },
	  { { 40 * MIB, -MIB, 3, "sequential 36M-37M!" },
	    { 46 * MIB, -MIB, 5, "sequential 42M-43M! 41M-42M! 40M-41M 39M-40M! 38M-39M 37M-38M!" },
	    { 41 * MIB, -MIB, 1, "sequential 36M-37M 35M-36M!" } } },
	{ "direct readers are told apart from others",
	  { 64 * MIB, WINDOW, 0, 2, 0 },
	  { { 0, 512 * KIB, 2, "watched" },
	    { MIB, 512 * KIB, 2, "direct watched" },
	    { 2 * MIB, 512 * KIB, 1, "watched" },
	    { 2 * MIB, 512 * KIB, 2, "direct sequential !3M-4Md" },
	    { 3 * MIB, MIB, 4,
	      "direct sequential !4M-5Md !5M-6M+6M-10Md !6M-7Md !7M-8Md !8M-9Md 9M-10M+10M-15Md !10M-11Md 11M-12Md "
	      "!12M-13M+15M-19Md" },
	    { 64 * MIB, -MIB, 4, "direct sequential 60M-61M!d 59M-60M!d" } } },
	{ "the window of a direct reader does not end where a reader of the other kind began",
	  { 64 * MIB, WINDOW, 0, 2, 0 },
	  { { 8 * MIB, MIB, 2, "sequential !10M-11M" },
	    { 0, MIB, 6,
	      "direct sequential !2M-3Md !3M-4Md !4M-5M+5M-9Md !5M-6Md !6M-7Md !7M-8Md 8M-9M+9M-14Md !9M-10Md 10M-11Md "
	      "!11M-12M+14M-18Md" } } },
	{ "a seventeenth reader takes the slot of the one not heard of for longest",
	  { 4000 * (uint64_t)MIB, MIB, 0, 2, 1 },
	  { { 0, MIB, 2, "sequential !2M-3M" },       { 300 * MIB, MIB, 2, "sequential !302M-303M" },
	    { 600 * MIB, PAGE, 1, "watched" },        { 700 * MIB, PAGE, 1, "watched" },
	    { 800 * MIB, PAGE, 1, "watched" },        { 900 * MIB, PAGE, 1, "watched" },
	    { 1000 * MIB, PAGE, 1, "watched" },       { 1100 * MIB, PAGE, 1, "watched" },
	    { 1200 * MIB, PAGE, 1, "watched" },       { 1300 * MIB, PAGE, 1, "watched" },
	    { 1400 * MIB, PAGE, 1, "watched" },       { 1500 * MIB, PAGE, 1, "watched" },
	    { 1600 * MIB, PAGE, 1, "watched" },       { 1700 * MIB, PAGE, 1, "watched" },
	    { 1800 * MIB, PAGE, 1, "watched" },       { 1900 * MIB, PAGE, 1, "watched" },
	    { 2 * MIB, MIB, 1, "sequential !3M-4M" }, { 2000 * MIB, PAGE, 1, "watched" },
	    { 3 * MIB, MIB, 1, "sequential !4M-5M" }, { 302 * MIB, MIB, 1, "watched" } } },

	/* Skips. */
	{ "a reader that skips a part goes on with a quarter of what it has read",
	  { 600 * MIB, WINDOW, 0, 3, 0 },
	  { { 0, MIB, 2, "sequential !2M-3M" },
	    { 2 * MIB, 14 * MIB, 1,
	      "sequential !16M-17M+17M-25M 17M-18M 18M-19M !19M-20M 20M-21M+25M-29M 21M-22M !22M-23M 23M-24M" },
	    { 60 * MIB, 128 * KIB, 1, "sequential 61568K-61M+61M-65M 61M-62M !62M-63M !63M-64M" },
	    { 16 * MIB, 128 * KIB, 8, "sequential" },
	    { 40 * MIB, 128 * KIB, 16, "sequential !42M-43M" } } },
	{ "of two readers that may have skipped, it was the nearer one",
	  { 600 * MIB, MIB, 0, 2, 0 },
	  { { 30 * MIB, MIB, 2, "sequential !32M-33M" },
	    { 0, MIB, 2, "sequential !2M-3M" },
	    { 2 * MIB, 14 * MIB, 1, "sequential !16M-17M" },
	    { 60 * MIB, 128 * KIB, 1, "watched" } } },
	{ "a skip of 256 MiB",
	  { 600 * MIB, MIB, 0, 2, 0 },
	  { { 0, MIB, 2, "sequential !2M-3M" },
	    { 2 * MIB, 14 * MIB, 1, "sequential !16M-17M" },
	    { 273 * MIB, 128 * KIB, 1, "sequential !279680K-274M" } } },
	{ "a skip of more is a new reader",
	  { 600 * MIB, MIB, 0, 1, 0 },
	  { { 0, MIB, 2, "sequential !2M-3M" },
	    { 2 * MIB, 14 * MIB, 1, "sequential !16M-17M" },
	    { 273 * MIB + 1, 128 * KIB, 1, "watched" } } },
	{ "so is one whose quarter is less than 2 MiB",
	  { 64 * MIB, MIB, 0, 1, 0 },
	  { { 0, MIB, 2, "sequential !2M-3M" },
	    { 2 * MIB, 6 * MIB - 1, 1, "sequential !8188K-8M" },
	    { 16 * MIB, 128 * KIB, 1, "watched" } } },
	{ "so is a skip back",
	  { 64 * MIB, MIB, 0, 1, 0 },
	  { { 20 * MIB, MIB, 2, "sequential !22M-23M" },
	    { 22 * MIB, 14 * MIB, 1, "sequential !36M-37M" },
	    { 10 * MIB, 128 * KIB, 1, "watched" } } },
	{ "so is the skip of a backward reader",
	  { 64 * MIB, MIB, 0, 1, 0 },
	  { { 64 * MIB, -MIB, 3, "sequential 60M-61M!" },
	    { 61 * MIB, -16 * MIB, 1, "sequential 44M-45M!" },
	    { 30 * MIB, -128 * KIB, 1, "watched" } } },

	/* Guesses.  With tensors of 15 MiB and 5000 bytes, they begin just behind 128 KiB, 15 MiB + 128 KiB, ... */
	{ "a reader of a large tensor from its start is followed at once, and to its end",
	  { 160 * MIB, 64 * MIB, 15 * MIB + 5000, 1, 0 },
	  { { 45 * MIB + 128 * KIB, 128 * KIB, 1, "guessed 46336K-46M+46M-50M 46M-47M !47M-48M !48M-49M" },
	    { 45 * MIB + 256 * KIB, 128 * KIB, 14, "guessed 49M-50M+50M-55680K !50M-51M 51M-52M" },
	    { 47 * MIB, 128 * KIB, 1, "confirmed !52M-53M+55680K-60288K" },
	    { 47 * MIB + 128 * KIB, MIB, 10, "confirmed 53M-54M 54M-55M !55M-56M 56M-57M 57M-58M 58M-59M !59M-60M 60M-61M" },
	    { 57 * MIB + 128 * KIB, MIB, 3, "confirmed" },
	    { 60 * MIB + 128 * KIB, 128 * KIB, 1,
	      "sequential 61M-62M+62M-81M 62M-63M 63M-64M 64M-65M 65M-66M+81M-85M 66M-67M 67M-68M !68M-69M 69M-70M+85M-89M "
	      "70M-71M 71M-72M 72M-73M 73M-74M+89M-93M 74M-75M 75M-76M 76M-77M !77M-78M+93M-97M 78M-79M" } } },
	{ "a request before the tensor's start: the guess was wrong, and the reader may be a backward one",
	  { 160 * MIB, WINDOW, 15 * MIB + 5000, 2, 0 },
	  { { 45 * MIB + 128 * KIB, 128 * KIB, 1, "guessed 46336K-46M+46M-50M 46M-47M !47M-48M !48M-49M" },
	    { 45 * MIB + 128 * KIB, -128 * KIB, 8, "watched" },
	    { 44 * MIB + 128 * KIB, -128 * KIB, 8, "sequential 43M-44160K" },
	    { 43 * MIB + 128 * KIB, -128 * KIB, 8, "sequential 42M-43M! 41M-42M!" } } },
	{ "such a reader is still known where it was, but has yet to read 2 MiB in order",
	  { 160 * MIB, MIB, 15 * MIB + 5000, 2, 0 },
	  { { 45 * MIB + 128 * KIB, 128 * KIB, 8, "guessed !46336K-46M !46M-47M" },
	    { 45 * MIB, 128 * KIB, 1, "watched" },
	    { 45 * MIB + 256 * KIB, 128 * KIB, 7, "watched" },
	    { 46 * MIB + 128 * KIB, 128 * KIB, 15, "watched" },
	    { 48 * MIB, 128 * KIB, 1, "sequential !49280K-49M" } } },
	{ "a second request for the tensor's start is no request before it",
	  { 160 * MIB, MIB, 15 * MIB + 5000, 1, 0 },
	  { { 45 * MIB + 128 * KIB, 128 * KIB, 1, "guessed !46336K-46M" },
	    { 45 * MIB + 128 * KIB, 128 * KIB, 1, "guessed" } } },
	{ "the window goes on beyond the tensor once it was read to its last byte",
	  { 160 * MIB, MIB, 15 * MIB + 5000, 1, 0 },
	  { { 45 * MIB + 128 * KIB, 128 * KIB, 1, "guessed !46336K-46M" },
	    { 45 * MIB + 256 * KIB, 15 * MIB - 128 * KIB + 20135, 1, "confirmed !61584K-61M" },
	    { 60 * MIB + 128 * KIB + 20135, 1, 1, "sequential" } } },
	{ "it does not matter once 2 MiB of the tensor were read",
	  { 160 * MIB, WINDOW, 15 * MIB + 5000, 1, 0 },
	  { { 45 * MIB + 128 * KIB, MIB, 2,
	      "confirmed 47232K-47M+47M-51M 47M-48M !48M-49M !49M-50M 50M-51M+51M-56M !51M-52M" },
	    { 45 * MIB, 128 * KIB, 1, "confirmed" },
	    { 47 * MIB + 128 * KIB, MIB, 1, "confirmed 52M-53M !53M-54M+56M-60M" } } },
	{ "a request sets a guess off if a tensor begins in it",
	  { 160 * MIB, WINDOW, 15 * MIB + 5000, 1, 0 },
	  { { 0, 512 * KIB, 1, "watched" },
	    { 30 * MIB + 144 * KIB, 128 * KIB, 1, "watched" },
	    { 60 * MIB, 128 * KIB, 1, "watched" },
	    { 90 * MIB + 256 * KIB, MIB, 1, "watched" },
	    { 75 * MIB, 160 * KIB, 1, "guessed 76960K-76M+76M-80M 76M-77M !77M-78M !78M-79M" } } },
	{ "a tensor of less than 4 MiB is not guessed about",
	  { 160 * MIB, WINDOW, 4 * MIB - 1, 0, 0 },
	  { { 8 * MIB, 256 * KIB, 1, "watched" } } },
	{ "one of 4 MiB is",
	  { 160 * MIB, WINDOW, 4 * MIB, 1, 0 },
	  { { 8 * MIB, 256 * KIB, 1, "guessed 8448K-9M 9M-10M !10M-11M !11M-12M !12M-13M" },
	    { 8 * MIB + 256 * KIB, 128 * KIB, 15, "confirmed" },
	    { 10 * MIB + 128 * KIB, 2 * MIB, 1, "confirmed" },
	    { 12 * MIB + 128 * KIB, 128 * KIB, 1,
	      "sequential 13M-14M+14M-22M 14M-15M !15M-16M 16M-17M 17M-18M+22M-26M !18M-19M 19M-20M" } } },
	{ "a direct reader is guessed about, too",
	  { 160 * MIB, WINDOW, 15 * MIB + 5000, 1, 0 },
	  { { 45 * MIB + 128 * KIB, 128 * KIB, 1, "direct guessed 46336K-46M+46M-50Md 46M-47Md !47M-48Md !48M-49Md" } } },
	{ "a skip to the start of a tensor: the larger of both windows",
	  { 160 * MIB, WINDOW, 15 * MIB + 5000, 3, 0 },
	  { { MIB, MIB, 2, "sequential !3M-4M" },
	    { 3 * MIB, 38 * MIB, 1,
	      "sequential !41M-42M+42M-50M 42M-43M 43M-44M !44M-45M 45M-46M+50M-54M 46M-47M !47M-48M 48M-49M" },
	    { 60 * MIB + 128 * KIB, 128 * KIB, 1,
	      "guessed 61696K-61M+61M-69M 61M-62M 62M-63M 63M-64M !64M-65M+69M-73M 65M-66M 66M-67M !67M-68M" },
	    { 90 * MIB + 128 * KIB, 128 * KIB, 1, "guessed 92416K-91M+91M-95M 91M-92M !92M-93M !93M-94M" } } },
	{ "a first request of more than 2 MiB confirms its guess",
	  { 160 * MIB, WINDOW, 15 * MIB + 5000, 1, 0 },
	  { { 45 * MIB + 128 * KIB, 3 * MIB, 1, "confirmed 49280K-49M+49M-53M 49M-50M !50M-51M !51M-52M" },
	    { 48 * MIB + 128 * KIB, 13 * MIB, 1,
	      "sequential !62592K-62M+62M-70M 62M-63M 63M-64M 64M-65M !65M-66M+70M-74M 66M-67M 67M-68M !68M-69M" } } },
	{ "after four wrong guesses in a row there are no more, until a reader is followed",
	  { 160 * MIB, MIB, 15 * MIB + 5000, 6, 0 },
	  { { 15 * MIB + 128 * KIB, 64 * KIB, 1, "guessed !15552K-16M" },
	    { 15 * MIB, PAGE, 1, "watched" },
	    { 30 * MIB + 128 * KIB, 64 * KIB, 1, "guessed !30912K-31M" },
	    { 30 * MIB, PAGE, 1, "watched" },
	    { 45 * MIB + 128 * KIB, 64 * KIB, 1, "guessed !46272K-46M" },
	    { 45 * MIB, PAGE, 1, "watched" },
	    { 60 * MIB + 128 * KIB, 64 * KIB, 1, "guessed !61632K-61M" },
	    { 60 * MIB, PAGE, 1, "watched" },
	    { 75 * MIB + 128 * KIB, 64 * KIB, 1, "watched" },
	    { 5 * MIB, MIB, 2, "sequential !7M-8M" },
	    { 90 * MIB + 128 * KIB, 64 * KIB, 1, "guessed !92352K-91M" } } },
	{ "a confirmed guess makes up for wrong ones",
	  { 160 * MIB, MIB, 15 * MIB + 5000, 6, 0 },
	  { { 15 * MIB + 128 * KIB, 64 * KIB, 1, "guessed !15552K-16M" },
	    { 15 * MIB, PAGE, 1, "watched" },
	    { 30 * MIB + 128 * KIB, 64 * KIB, 1, "guessed !30912K-31M" },
	    { 30 * MIB, PAGE, 1, "watched" },
	    { 45 * MIB + 128 * KIB, 64 * KIB, 1, "guessed !46272K-46M" },
	    { 45 * MIB, PAGE, 1, "watched" },
	    { 60 * MIB + 128 * KIB, MIB, 2, "confirmed !62592K-62M !63616K-63M" },
	    { 75 * MIB + 128 * KIB, 64 * KIB, 1, "guessed !76992K-76M" },
	    { 75 * MIB, PAGE, 1, "watched" },
	    { 90 * MIB + 128 * KIB, 64 * KIB, 1, "guessed !92352K-91M" } } },
};

static const char *const state_names[] = {
	[WCX_READER_UNUSED] = "unused",       [WCX_READER_WATCHED] = "watched",       [WCX_READER_GUESSED] = "guessed",
	[WCX_READER_CONFIRMED] = "confirmed", [WCX_READER_SEQUENTIAL] = "sequential",
};

static void requests_lead_to_the_pieces_of_the_tables(void)
{
	for (size_t i = 0; i < WCX_ARRAY_COUNT(scripts); i++) {
		const struct script *script = &scripts[i];
		struct model *model =
			open_model(script->setup.file_bytes, script->setup.window_bytes, script->setup.tensor_bytes);

		for (const struct step *step = script->steps; step->times; step++) {
			const uint64_t bytes = (uint64_t)(step->bytes < 0 ? -step->bytes : step->bytes);
			const bool is_direct = strncmp(step->expected, "direct ", 7) == 0;
			char actual[sizeof model->done + 32];

			model->done[0] = '\0';
			for (uint64_t t = 0; t < step->times; t++)
				ask(model, step->bytes < 0 ? step->offset - (t + 1) * bytes : step->offset + t * bytes,
				    bytes, is_direct);
			snprintf(actual, sizeof actual, "%s%s%s", is_direct ? "direct " : "",
				 state_names[last_reader(model)->state], model->done);
			if (!CHECK_TEXT(actual, step->expected))
				fprintf(stderr, "\tin \"%s\", step %d\n", script->name, (int)(step - script->steps));
		}
		if (!CHECK(model->counts.followed == script->setup.followed) ||
		    !CHECK(model->counts.given_up == script->setup.given_up))
			fprintf(stderr, "\tin \"%s\"\n", script->name);
		close_model(model);
	}
}

/* --- what a reader has passed --- */

/* A request whose pieces are not done at once. */
static bool note(struct model *model, uint64_t start, uint64_t end)
{
	return wcx_readahead_note(&model->ahead, (struct wcx_readahead_range){ start, end }, false);
}

/* Two requests in order: their reader is followed from now on. */
static void note_2_mib(struct model *model, uint64_t start)
{
	note(model, start, start + MIB);
	note(model, start + MIB, start + 2 * MIB);
}

static bool is_dropped_to(const struct model *model, const struct wcx_readahead_piece *piece, uint64_t start, uint64_t end,
			  uint64_t expected)
{
	return wcx_readahead_drop_behind(&model->ahead, piece, start, end) == expected;
}

static void what_a_reader_has_passed_is_dropped(void)
{
	struct model *model = open_model(64 * MIB, WINDOW, 0);
	struct wcx_readahead_piece first, second;

	note(model, 0, 2 * MIB);
	CHECK(!wcx_readahead_next(&model->ahead, WCX_READERS_ALL, &first));
	CHECK(note(model, 2 * MIB, 4 * MIB));
	CHECK(wcx_readahead_next(&model->ahead, WCX_READERS_ALL, &first) && first.pages.start == 4 * MIB &&
	      first.pages.end == 5 * MIB);
	CHECK(is_dropped_to(model, &first, 4 * MIB, 5 * MIB, 4 * MIB));
	/* Whole pages: it will not ask again for the one that the request ends in. */
	note(model, 4 * MIB, 4 * MIB + 700 * KIB + 10);
	CHECK(is_dropped_to(model, &first, 4 * MIB, 5 * MIB, 4 * MIB + 704 * KIB));
	CHECK(is_dropped_to(model, &first, 4 * MIB + 704 * KIB, 5 * MIB, 4 * MIB + 704 * KIB));
	CHECK(is_dropped_to(model, &first, 4 * MIB, 4 * MIB + 64 * KIB, 4 * MIB + 64 * KIB));
	CHECK(wcx_readahead_next(&model->ahead, WCX_READERS_ALL, &second) && second.pages.start == 5 * MIB);
	CHECK(is_dropped_to(model, &second, 5 * MIB, 6 * MIB, 5 * MIB));
	note(model, 6 * MIB, 7 * MIB);
	CHECK(is_dropped_to(model, &first, 4 * MIB, 5 * MIB, 5 * MIB));
	CHECK(is_dropped_to(model, &second, 5 * MIB, 6 * MIB, 6 * MIB));
	close_model(model);
}

static void what_a_backward_reader_has_passed_is_not_dropped(void)
{
	struct model *model = open_model(64 * MIB, WINDOW, 0);
	struct wcx_readahead_piece piece;

	note(model, 40 * MIB, 41 * MIB);
	note(model, 38 * MIB, 40 * MIB);
	CHECK(wcx_readahead_next(&model->ahead, WCX_READERS_ALL, &piece) && piece.is_backward &&
	      piece.pages.start == 37 * MIB);
	note(model, 36 * MIB, 38 * MIB);
	CHECK(is_dropped_to(model, &piece, 37 * MIB, 38 * MIB, 37 * MIB));
	close_model(model);
}

/* Each request is that of another reader; the last of them takes the slot of the reader before all these. */
static void replace_reader(struct model *model, uint64_t start, uint64_t end)
{
	for (uint64_t i = 1; i < WCX_READAHEAD_READERS_MAX; i++)
		note(model, (1000 + 10 * i) * MIB, (1000 + 10 * i) * MIB + PAGE);
	note(model, start, end);
}

static void nothing_is_dropped_because_of_the_next_reader_in_a_slot(void)
{
	struct model *model = open_model(2000 * MIB, WINDOW, 0);
	struct wcx_readahead_piece piece;

	note_2_mib(model, 8 * MIB);
	CHECK(wcx_readahead_next(&model->ahead, WCX_READERS_ALL, &piece) && piece.pages.start == 10 * MIB);
	replace_reader(model, 6 * MIB, 7 * MIB);
	note(model, 7 * MIB, 10 * MIB + 512 * KIB);
	CHECK(last_reader(model) == &model->ahead.readers[0]);
	CHECK(is_dropped_to(model, &piece, 10 * MIB, 11 * MIB, 10 * MIB));
	/* From forwards to backwards, and back again. */
	replace_reader(model, 602 * MIB, 603 * MIB);
	note(model, 600 * MIB, 602 * MIB);
	CHECK(last_reader(model) == &model->ahead.readers[0] && last_reader(model)->is_backward);
	CHECK(is_dropped_to(model, &piece, 10 * MIB, 11 * MIB, 10 * MIB));
	CHECK(wcx_readahead_next(&model->ahead, WCX_READERS_ALL, &piece) && piece.is_backward &&
	      piece.pages.start == 599 * MIB);
	replace_reader(model, 700 * MIB, 701 * MIB);
	note(model, 701 * MIB, 702 * MIB);
	CHECK(last_reader(model) == &model->ahead.readers[0] && !last_reader(model)->is_backward);
	CHECK(is_dropped_to(model, &piece, 599 * MIB, 600 * MIB, 599 * MIB));
	close_model(model);
}

static void reader_that_leaves_nothing_unread_has_not_given_up(void)
{
	struct model *model = open_model(2000 * MIB, 0, 0);

	note_2_mib(model, 0);
	replace_reader(model, 600 * MIB, 601 * MIB);
	CHECK(last_reader(model) == &model->ahead.readers[0]);
	CHECK(model->counts.followed == 1 && model->counts.given_up == 0);
	close_model(model);
}

/* Which of several readers comes first depends on how many requests there were. */
static void readers_take_turns(void)
{
	struct model *model = open_model(64 * MIB, WINDOW, 0);
	struct wcx_readahead_piece piece;

	note_2_mib(model, 20 * MIB);
	note_2_mib(model, 0);
	for (int i = 0; i < 13; i++)
		note(model, 0, PAGE);
	CHECK(model->ahead.notes == 17 && wcx_readahead_next(&model->ahead, WCX_READERS_ALL, &piece) && piece.reader == 1);
	CHECK(wcx_readahead_next(&model->ahead, WCX_READERS_ALL, &piece) && piece.reader == 0);
	CHECK(!wcx_readahead_next(&model->ahead, WCX_READERS_ALL, &piece));
	close_model(model);
}

/* --- readers in order --- */

static void window_grows_with_what_was_read_up_to_its_limit(void)
{
	struct model *model = open_model(136 * MIB, 3 * MIB, 0);
	uint64_t start, front, window;

	ask_in_order(model, 0, 2 * MIB - 128 * KIB);
	CHECK(model->pushed == 0);
	for (uint64_t at = 2 * MIB - 128 * KIB; at < 16 * MIB; at += 128 * KIB) {
		ask(model, at, 128 * KIB, false);
		start = at + 128 * KIB;
		for (front = start; model->pages[front / PAGE] || model->pages[front / PAGE + 1]; front += PAGE)
			;
		/* Half of what was read or, from 4 MiB on, all of it, in whole pieces of 1 MiB. */
		window = WCX_MIN(start < 4 * MIB ? start / 2 : start, 3 * (uint64_t)MIB);
		CHECK(front - start <= window && front - start + MIB >= window);
	}
	CHECK(model->counts.followed == 1 && model->counts.given_up == 0);
	close_model(model);
}

/* At least 16 pieces a window, from 1 MiB on; all end at multiples of their size. */
static void a_large_window_is_cut_into_large_pieces(void)
{
	for (unsigned is_backward = 0; is_backward < 2; is_backward++) {
		struct model *model = open_model(512 * MIB, 64 * MIB, 0);
		struct wcx_readahead_piece piece;
		unsigned pieces[3] = { 0, 0, 0 }; /* of 1, 2 and 4 MiB */

		model->ahead.piece_bytes = 4 * MIB;
		for (uint64_t i = 1; i <= 256; i++) {
			const uint64_t at = is_backward ? (512 - i) * MIB : (i - 1) * MIB;
			/* Of a backward reader, the first request tells no direction. */
			const uint64_t read_bytes = (i - is_backward) * MIB;
			const uint64_t window = read_bytes < 4 * MIB ? read_bytes / 2 : WCX_MIN(read_bytes, 64 * MIB);

			note(model, at, at + MIB);
			while (wcx_readahead_next(&model->ahead, WCX_READERS_ALL, &piece)) {
				const uint64_t bytes = window >= 64 * MIB ? 4 * MIB : window >= 32 * MIB ? 2 * MIB : MIB;
				const uint64_t edge = is_backward ? piece.pages.start : piece.pages.end;

				CHECK(edge % bytes == 0 && piece.pages.end - piece.pages.start <= bytes);
				pieces[bytes / (2 * MIB)] += piece.pages.end - piece.pages.start == bytes;
			}
		}
		CHECK(pieces[0] > 30 && pieces[1] > 15 && pieces[2] > 30);
		close_model(model);
	}
}

/* One page in half a window is left out, give or take a piece. */
static void markers_are_half_a_window_apart(void)
{
	for (int is_backward = 0; is_backward < 2; is_backward++) {
		struct model *model = open_model(136 * MIB, 16 * MIB, 0);
		const uint64_t start = is_backward ? 96 * MIB : 0;
		uint64_t left_out;

		for (uint64_t i = 1; i <= 48 * 8; i++)
			ask(model, is_backward ? start - i * 128 * KIB : start + (i - 1) * 128 * KIB, 128 * KIB, false);
		left_out = is_backward ? holes(model, 33 * MIB, 48 * MIB) : holes(model, 48 * MIB, 63 * MIB);
		CHECK(left_out >= 1 && left_out <= 3);
		close_model(model);
	}
}

/* The first uncached page after the first cached one. */
static uint64_t find_marker(const struct model *model, uint64_t at)
{
	while (!model->pages[at / PAGE])
		at += PAGE;
	while (model->pages[at / PAGE])
		at += PAGE;
	return at;
}

static void request_for_a_marker_moves_the_window_on(void)
{
	struct model *model = open_model(136 * MIB, WINDOW, 0);
	uint64_t told = 32 * MIB, marker, pushed;

	ask_in_order(model, 0, told);
	for (int i = 0; i < 8; i++) {
		marker = find_marker(model, told + PAGE);
		CHECK(marker - told <= WINDOW / 2 + MIB);
		CHECK(model->pages[marker / PAGE - 1] && model->pages[marker / PAGE + 1]);
		pushed = model->pushed;
		ask(model, marker, PAGE, false);
		CHECK(model->pushed >= pushed + MIB - PAGE && model->again == 0);
		told = marker + PAGE;
	}
	close_model(model);
}

static void window_of_a_backward_reader_ends_at_the_start(void)
{
	struct model *model = open_model(25 * MIB + 700001, WINDOW, 0);

	for (uint64_t at = 5 * MIB; at > 3 * MIB - 512 * KIB; at -= 64 * KIB) {
		CHECK(model->pushed == 0 || at <= 3 * MIB);
		ask(model, at - 64 * KIB, 64 * KIB, false);
	}
	CHECK(model->pushed > 0 && holes(model, 0, MIB) == MIB / PAGE);
	ask(model, 64 * KIB, MIB, false);
	CHECK(model->pages[0] && model->pages[1] && model->again <= 4 * MIB);
	close_model(model);
}

/* Requests of parts of pages.  The backward reader is followed from just above a multiple of 1 MiB. */
static void requests_of_parts_of_pages_lead_to_whole_pages(void)
{
	for (int is_backward = 0; is_backward < 2; is_backward++) {
		struct model *model = open_model(25 * MIB + 700001, WINDOW, 0);
		const uint64_t from = 6 * MIB + 100001, bytes = 5000 * 1001;

		for (uint64_t i = 0; i < 5000; i++)
			ask(model, is_backward ? from - (i + 1) * 1001 : from + i * 1001, 1001, false);
		CHECK(model->pushed >= MIB);
		CHECK(is_backward ? holes(model, from - bytes, from) == 0 : holes(model, from, from + bytes) == 0);
		close_model(model);
	}
}

/* A kernel sends the requests of one reader in parallel. */
static void requests_out_of_order_are_those_of_one_reader(void)
{
	static const unsigned orders[][4] = { { 1, 0, 3, 2 }, { 0, 2, 1, 3 }, { 2, 0, 1, 3 }, { 1, 2, 0, 3 } };

	for (size_t o = 0; o < WCX_ARRAY_COUNT(orders); o++) {
		struct model *model = open_model(136 * MIB, WINDOW, 0);

		for (uint64_t i = 0; i < 64; i++)
			ask(model, (i / 4 * 4 + orders[o][i % 4]) * 128 * KIB, 128 * KIB, false);
		CHECK(model->counts.followed == 1 && model->counts.given_up == 0);
		CHECK(holes(model, 8 * MIB, 11 * MIB) <= 4);
		CHECK(model->again <= 8 * MIB);
		close_model(model);
	}
}

/*
 * Eight threads take blocks of 1 MiB in turn, with O_DIRECT, and ask in any order.  Each fortieth block comes 24 late.  All
 * are one reader: each piece is handed out once, in order, and the window grows as if nobody had been late.
 */
static void threads_that_take_blocks_in_turn_are_one_reader(void)
{
	enum { BLOCKS = 600, AT_ONCE = 8, EVERY = 40, LATE = 24 };
	struct wcx_readahead_counts counts = { 0, 0 };
	struct model *model = open_model(BLOCKS * (uint64_t)MIB, 64 * MIB, 0);
	uint64_t next = 0, state = 1;
	struct wcx_readahead_piece piece;

	model->ahead.counts = &counts;
	for (uint64_t i = 0; i < BLOCKS + LATE; i++) {
		const uint64_t base = i / AT_ONCE * AT_ONCE, block = base + (i + state) % AT_ONCE;

		if (i % AT_ONCE == AT_ONCE - 1)
			state = state * 5 + 3; /* another order of the next eight */
		for (int late = 0; late <= 1; late++) {
			const uint64_t number = late ? block - LATE : block;
			const struct wcx_readahead_range request = { number * MIB, (number + 1) * MIB };

			if ((late && block < LATE) || number >= BLOCKS || (number % EVERY == EVERY / 2) != late)
				continue;
			wcx_readahead_note(&model->ahead, request, true);
			CHECK(counts.followed <= 1);
			while (wcx_readahead_next(&model->ahead, WCX_READERS_ALL, &piece)) {
				CHECK(piece.pages.start >= next && piece.is_direct);
				CHECK(wcx_readahead_is_ahead(&model->ahead, &piece));
				next = piece.pages.end;
			}
			if (number > 256)
				CHECK(next >= WCX_MIN((number + 16) * MIB, model->ahead.file_bytes));
		}
	}
	CHECK(counts.followed == 1 && counts.given_up == 0 && next == model->ahead.file_bytes);
	close_model(model);
}

static void a_piece_is_ahead_until_its_reader_gets_there(void)
{
	struct model *model = open_model(16 * MIB, WINDOW, 0);
	struct wcx_readahead_piece piece;

	CHECK(!wcx_readahead_note(&model->ahead, (struct wcx_readahead_range){ 0, MIB }, true));
	CHECK(wcx_readahead_note(&model->ahead, (struct wcx_readahead_range){ MIB, 2 * MIB }, true));
	CHECK(wcx_readahead_next(&model->ahead, WCX_READERS_ALL, &piece) && piece.pages.start == 2 * MIB);
	CHECK(wcx_readahead_is_ahead(&model->ahead, &piece));
	wcx_readahead_note(&model->ahead, (struct wcx_readahead_range){ 2 * MIB, 2 * MIB + 4 * KIB }, true);
	CHECK(!wcx_readahead_is_ahead(&model->ahead, &piece));
	close_model(model);
}

/* --- several readers --- */

enum { CHUNK_READERS = 8, CHUNK_BYTES = 16 * MIB };

/* Asks for up to 128 KiB that are not cached, or passes a cached page. */
static void read_step(struct model *model, uint64_t *at, uint64_t end)
{
	uint64_t to = *at;

	while (to < end && to < *at + 128 * KIB && !model->pages[to / PAGE])
		to += PAGE;
	if (to > *at)
		ask(model, *at, to - *at, false);
	*at = to > *at ? to : to + PAGE;
}

static void readers_of_chunks_are_told_apart(void)
{
	struct model *model = open_model(136 * MIB, 4 * MIB, 0);
	uint64_t at[CHUNK_READERS];

	for (size_t i = 0; i < CHUNK_READERS; i++)
		at[i] = i * CHUNK_BYTES;
	for (uint64_t done = 0; done < CHUNK_READERS;) {
		done = 0;
		for (size_t i = 0; i < CHUNK_READERS; i++) {
			const uint64_t end = (i + 1) * CHUNK_BYTES, until = WCX_MIN(at[i] + 128 * KIB, end);

			while (at[i] < until)
				read_step(model, &at[i], end);
			done += at[i] >= end;
		}
	}
	CHECK(model->counts.followed == CHUNK_READERS && model->counts.given_up == 0);
	CHECK(holes(model, 0, CHUNK_READERS * CHUNK_BYTES) == 0);
	CHECK(model->asked <= CHUNK_READERS * 3 * MIB);
	/* Windows that reach into the next chunk are pushed in vain. */
	CHECK(model->again <= CHUNK_READERS * 4 * MIB);
	close_model(model);
}

static void direct_and_other_readers_are_two(void)
{
	struct model *model = open_model(25 * MIB, WINDOW, 0);

	for (uint64_t at = 0; at < 3 * MIB; at += 512 * KIB)
		ask(model, at, 512 * KIB, at / (512 * KIB) % 2);
	CHECK_TEXT(model->done, ""); /* a single reader of all this would be followed */
	close_model(model);
}

static void reader_that_skips_a_part_is_still_followed(void)
{
	struct model *model = open_model(136 * MIB, WINDOW, 0);
	uint64_t pushed;

	ask_in_order(model, 0, 16 * MIB);
	pushed = model->pushed;
	/* A quarter of what it has read still counts, 4 MiB, and that is the window. */
	ask_in_order(model, 60 * MIB, 128 * KIB);
	CHECK(model->pushed >= pushed + MIB && holes(model, 60 * MIB, 61 * MIB + 128 * KIB) <= 2);
	CHECK(model->pushed <= pushed + 4 * MIB);
	CHECK(model->counts.followed == 2 && model->counts.given_up == 0);
	/* A reader that begins further back may be any. */
	pushed = model->pushed;
	ask_in_order(model, 40 * MIB, 2 * MIB - 128 * KIB);
	CHECK(model->pushed == pushed);
	ask_in_order(model, 42 * MIB - 128 * KIB, 128 * KIB);
	CHECK(model->pushed > pushed);
	close_model(model);

	/* A skip that is too far, or of a reader that has read too little. */
	for (int i = 0; i < 2; i++) {
		const uint64_t to = i ? 6 * MIB : 600 * MIB;

		model = open_model(9600 * (uint64_t)MIB, MIB, 0);
		ask_in_order(model, 0, i ? 2 * MIB : 16 * MIB);
		pushed = model->pushed;
		ask_in_order(model, to, 128 * KIB);
		CHECK(model->pushed == pushed);
		close_model(model);
	}
}

/* --- a file of large tensors --- */

enum { TENSORS = 600, TENSOR_BYTES = 16 * MIB - 1001 };

static struct model *open_tensors(uint64_t window_bytes)
{
	struct model *model = open_model(136 + TENSORS * (uint64_t)TENSOR_BYTES, window_bytes, TENSOR_BYTES);

	model->header_bytes = 136;
	return model;
}

static void random_readers_set_next_to_nothing_off(void)
{
	struct model *model = open_tensors(64 * MIB);
	struct sample_random random = { 7 };

	for (int i = 0; i < 1000; i++) {
		const uint64_t at = sample_below(&random, model->ahead.file_bytes / PAGE - 256) * PAGE;

		for (unsigned part = 0; part < 8; part++)
			ask(model, at + part * 128 * KIB, 128 * KIB, false);
		model->done[0] = '\0';
	}
	CHECK(model->asked == (uint64_t)1000 * MIB && model->pushed * 20 <= model->asked);
	close_model(model);
}

static void only_the_start_of_a_large_tensor_sets_anything_off(void)
{
	static const struct {
		uint64_t tensor_bytes, number;
		int64_t away; /* of the request from the start of the tensor */
		bool is_start;
	} cases[] = {
		{ TENSOR_BYTES, 5, -64 * KIB, true }, /* as the kernel reads around a fault */
		{ TENSOR_BYTES, 5, -127 * KIB, true },
		{ TENSOR_BYTES, 5, PAGE, false },
		{ TENSOR_BYTES, 5, -129 * KIB, false },
		{ TENSOR_BYTES, 5, 5 * MIB, false },
		{ TENSOR_BYTES, 0, -(128 * KIB + 136), false }, /* a request at 0 is for the header */
		{ 1234567, 7, 0, false },
	};

	for (size_t i = 0; i < WCX_ARRAY_COUNT(cases); i++) {
		struct model *model = open_model(136 * MIB, WINDOW, cases[i].tensor_bytes);

		ask(model, tensor_start(model, cases[i].number) + (uint64_t)cases[i].away, 128 * KIB, false);
		CHECK((model->pushed > 0) == cases[i].is_start);
		close_model(model);
	}
}

/* Reads a page of each of many tensors, which evicts all readers before. */
static void look_around(struct model *model, uint64_t first)
{
	const uint64_t pushed = model->pushed;

	for (uint64_t i = 0; i < 20; i++)
		ask(model, tensor_start(model, first + i) + 8 * MIB, PAGE, false);
	CHECK(model->pushed == pushed);
}

static void after_wrong_guesses_starts_of_tensors_set_nothing_off(void)
{
	struct model *model = open_tensors(WINDOW);
	uint64_t pushed;

	for (uint64_t i = 0; i < 8; i++) {
		pushed = model->pushed;
		ask(model, tensor_start(model, 40 * i), 64 * KIB, false);
		CHECK((model->pushed > pushed) == (i < 4));
		look_around(model, 40 * i + 2);
	}
	/* Until a reader is sequential again. */
	ask_in_order(model, tensor_start(model, 400) + MIB, 3 * MIB);
	pushed = model->pushed;
	ask(model, tensor_start(model, 450), 64 * KIB, false);
	CHECK(model->pushed > pushed);
	close_model(model);
}

/* The kernel reads the end of a tensor, and with it the start of the next, for a reader that then goes backwards. */
static void reader_that_goes_the_other_way_is_followed_there(void)
{
	struct model *model = open_tensors(WINDOW);
	const uint64_t start = tensor_start(model, 9) / PAGE * PAGE + 64 * KIB;

	for (uint64_t i = 1; i <= 40; i++)
		ask(model, start - i * 128 * KIB, 128 * KIB, false);
	CHECK(holes(model, start - 40 * 128 * KIB - MIB, start - 40 * 128 * KIB) <= 2);
	CHECK(holes(model, start + 6 * MIB, start + 8 * MIB) == 2 * MIB / PAGE);
	close_model(model);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(requests_lead_to_the_pieces_of_the_tables),
		CHECK_TEST(what_a_reader_has_passed_is_dropped),
		CHECK_TEST(what_a_backward_reader_has_passed_is_not_dropped),
		CHECK_TEST(nothing_is_dropped_because_of_the_next_reader_in_a_slot),
		CHECK_TEST(reader_that_leaves_nothing_unread_has_not_given_up),
		CHECK_TEST(readers_take_turns),
		CHECK_TEST(window_grows_with_what_was_read_up_to_its_limit),
		CHECK_TEST(a_large_window_is_cut_into_large_pieces),
		CHECK_TEST(markers_are_half_a_window_apart),
		CHECK_TEST(request_for_a_marker_moves_the_window_on),
		CHECK_TEST(window_of_a_backward_reader_ends_at_the_start),
		CHECK_TEST(requests_of_parts_of_pages_lead_to_whole_pages),
		CHECK_TEST(requests_out_of_order_are_those_of_one_reader),
		CHECK_TEST(threads_that_take_blocks_in_turn_are_one_reader),
		CHECK_TEST(a_piece_is_ahead_until_its_reader_gets_there),
		CHECK_TEST(readers_of_chunks_are_told_apart),
		CHECK_TEST(direct_and_other_readers_are_two),
		CHECK_TEST(reader_that_skips_a_part_is_still_followed),
		CHECK_TEST(random_readers_set_next_to_nothing_off),
		CHECK_TEST(only_the_start_of_a_large_tensor_sets_anything_off),
		CHECK_TEST(after_wrong_guesses_starts_of_tensors_set_nothing_off),
		CHECK_TEST(reader_that_goes_the_other_way_is_followed_there),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
