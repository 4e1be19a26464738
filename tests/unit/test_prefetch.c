/* SPDX-License-Identifier: MIT */
/*
 * The prefetcher's threads: they push the right bytes to the right places, for readers of all kinds, and cope with damaged
 * tiles, targets that refuse or hang, files that come and go, and lack of memory.  test_readahead has the policy.
 *
 * No test waits for a time to pass: wcx_prefetcher_wait_idle tells when all work is done.  The linker must --wrap each
 * function that is WRAPPED below.
 */
#include "fs/mount/prefetch.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "fs/mount/readahead.h"
#include "tests/fixtures/fake_gpu_decode.h"
#include "tests/fixtures/sample_image.h"
#include "tests/fixtures/wrapped.h"
#include "tests/unit/check.h"

enum {
	PAGE = WCX_READAHEAD_PAGE_BYTES,
	KIB = 1 << 10,
	MIB = 1 << 20,
	NODES = 24,
	READERS = 8, /* whose positions are known, per node */
	FIRST_TARGET = 1000,
	HANG_S = 60, /* a wait of this length has failed */
	WINDOW = 8 * MIB,
	PUSHERS_MAX = 4, /* threads that may push to one file at once */
	GPU_PIECES = 8,  /* that a GPU decodes at once */
};

/* Waits for a signal of `changed`; the test ends if none comes. */
static void await(pthread_cond_t *changed, pthread_mutex_t *lock, const char *what)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += HANG_S;
	if (pthread_cond_timedwait(changed, lock, &until) == 0)
		return;
	fprintf(stderr, "waited in vain: %s\n", what);
	exit(1);
}

/* --- what fails --- */

static atomic_long calls;                  /* allocations and thread starts since the last arm */
static atomic_long failing_at, failing_to; /* the calls that fail; to is exclusive */
static atomic_long alive;                  /* allocations not freed; only differences count */

static void arm(long from, long to)
{
	atomic_store(&calls, 0);
	atomic_store(&failing_at, from);
	atomic_store(&failing_to, to);
}

static bool fails(void)
{
	long number = atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);

	return number >= atomic_load_explicit(&failing_at, memory_order_relaxed) &&
	       number < atomic_load_explicit(&failing_to, memory_order_relaxed);
}

static void *counted(void *memory)
{
	if (memory)
		atomic_fetch_add_explicit(&alive, 1, memory_order_relaxed);
	return memory;
}

WRAPPED(void *, malloc, size_t bytes)
{
	return fails() ? NULL : counted(__real_malloc(bytes));
}

WRAPPED(void *, calloc, size_t count, size_t bytes)
{
	return fails() ? NULL : counted(__real_calloc(count, bytes));
}

WRAPPED(void *, aligned_alloc, size_t align, size_t bytes)
{
	return fails() ? NULL : counted(__real_aligned_alloc(align, bytes));
}

WRAPPED(void, free, void *memory)
{
	if (memory)
		atomic_fetch_sub_explicit(&alive, 1, memory_order_relaxed);
	__real_free(memory);
}

WRAPPED(int, pthread_create, pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *user)
{
	return fails() ? EAGAIN : __real_pthread_create(thread, attributes, start, user);
}

/* posix_fadvise of the packed file, under its name for large files. */
static atomic_ulong advised_bytes, advised_calls, advised_wrong, fetched_bytes;

WRAPPED(int, posix_fadvise64, int fd, off_t offset, off_t bytes, int advice)
{
	struct stat st;

	/* A size of 0 would mean the rest of the file. */
	if (fstat(fd, &st) != 0 || offset < 0 || bytes <= 0 || offset + bytes > st.st_size ||
	    (advice != POSIX_FADV_DONTNEED && advice != POSIX_FADV_WILLNEED))
		atomic_fetch_add(&advised_wrong, 1);
	atomic_fetch_add(&fetched_bytes, advice == POSIX_FADV_WILLNEED ? (unsigned long)bytes : 0);
	if (advice != POSIX_FADV_DONTNEED)
		return 0;
	atomic_fetch_add(&advised_bytes, (unsigned long)bytes);
	atomic_fetch_add(&advised_calls, 1);
	return 0;
}

/* --- files --- */

/* A file: a header, then the same unit of bytes again and again; or, where unit is all of it, any bytes. */
struct file {
	struct sample_bytes original, packed;
	uint64_t header, unit, bytes;
};

static struct file *make_file(const struct sample_part *parts, size_t count)
{
	struct file *file = calloc(1, sizeof *file);

	file->original = sample_original(parts, count);
	file->packed = sample_image(file->original, parts, count);
	file->bytes = file->unit = file->original.bytes;
	return file;
}

/* Segments that share their tiles, so a large file takes little memory. */
static struct file *make_repeated(size_t unit, size_t times)
{
	const struct sample_part first = {
		{ "unit", "I8", "[0]", unit, SAMPLE_UNIFORM, 0 }, unit, 1, 65536, &sample_1_byte_plain, 0, 0
	};
	struct sample_part *parts = calloc(times, sizeof *parts);
	struct file *file = calloc(1, sizeof *file);

	file->original = sample_safetensors(&first.tensor, 1);
	file->header = file->original.bytes - unit;
	file->unit = unit;
	file->bytes = file->header + unit * times;
	for (size_t i = 0; i < times; i++) {
		parts[i] = (struct sample_part){ .tensor = first.tensor, .same_as = 1 };
		if (i == 0)
			parts[i] = first;
	}
	file->packed = sample_image((struct sample_bytes){ file->original.data, file->bytes }, parts, times);
	free(parts);
	return file;
}

static void free_file(struct file *file)
{
	free(file->original.data);
	free(file->packed.data);
	free(file);
}

static int file_has(const struct file *file, uint64_t offset, const uint8_t *bytes, size_t count)
{
	while (count) {
		const uint64_t at = offset < file->header ? offset : file->header + (offset - file->header) % file->unit;
		const uint64_t left = (offset < file->header ? file->header : file->header + file->unit) - at;
		const size_t part = count < left ? count : (size_t)left;

		if (offset + part > file->bytes || memcmp(bytes, file->original.data + at, part) != 0)
			return 0;
		offset += part;
		bytes += part;
		count -= part;
	}
	return 1;
}

/* Rows of whole tiles, a matrix in tiles of whole rows, Zstandard, constants; no size is a multiple of a page. */
static const struct sample_part plain_parts[] = {
	{ { "a", "I8", "[5000,1111]", 5555000, SAMPLE_UNIFORM, 0 }, 1111, 58, 1111, &sample_1_byte, 0, 0 },
	{ { "b", "I8", "[700000]", 700001, SAMPLE_GAUSSIAN, 20 }, 700001, 1, 65536, &sample_1_byte, 0, 0 },
	{ { "c", "I16", "[4000,1000]", 8000000, SAMPLE_UNIFORM, 0 }, 1000, 32, 1000, &sample_2_bytes, 0, 0 },
	{ { "d", "I8", "[1500000]", 1500000, SAMPLE_CONSTANT, 0 }, 1500000, 1, 65536, &sample_1_byte, 0, 0 },
	{ { "e", "I8", "[5555000]", 5555000, SAMPLE_UNIFORM, 0 }, 0, 0, 0, NULL, 0, 1 },
	{ { "f", "F64", "[300001]", 2400008, SAMPLE_UNIFORM, 0 }, 300001, 1, 65536, &sample_8_bytes, 0, 0 },
	{ { "g", "I8", "[777]", 777, SAMPLE_UNIFORM, 0 }, 777, 1, 65536, &sample_1_byte, 0, 0 },
};
enum { PLAIN_PARTS = sizeof plain_parts / sizeof plain_parts[0] };

/* Matrices in tiles of parts of rows, which a view cannot show, behind rows that it can. */
static const struct sample_part square_parts[] = {
	{ { "rows", "I8", "[3000000]", 3000000, SAMPLE_UNIFORM, 0 }, 3000000, 1, 65536, &sample_1_byte, 0, 0 },
	{ { "squares", "I8", "[1500,2500]", 3750000, SAMPLE_UNIFORM, 0 }, 2500, 256, 256, &sample_1_byte, 0, 0 },
	{ { "more", "I16", "[900,1100]", 1980000, SAMPLE_UNIFORM, 0 }, 1100, 128, 300, &sample_2_bytes, 0, 0 },
	{ { "last", "I8", "[999]", 999, SAMPLE_UNIFORM, 0 }, 999, 1, 333, &sample_1_byte, 0, 0 },
};
enum { SQUARE_PARTS = sizeof square_parts / sizeof square_parts[0] };

/* Tiles so small that a batch of them holds a page or less. */
static const struct sample_part tiny_parts[] = {
	{ { "long", "I8", "[2200000]", 2200000, SAMPLE_UNIFORM, 0 }, 2200000, 1, 65536, &sample_1_byte, 0, 0 },
	{ { "tiny", "I8", "[100000]", 100000, SAMPLE_UNIFORM, 0 }, 100000, 1, 50, &sample_1_byte, 0, 0 },
	{ { "small", "I8", "[500000]", 500000, SAMPLE_UNIFORM, 0 }, 500000, 1, 111, &sample_1_byte, 0, 0 },
	{ { "short", "I8", "[900000]", 900000, SAMPLE_UNIFORM, 0 }, 900000, 1, 3000, &sample_1_byte, 0, 0 },
	{ { "end", "I8", "[700000]", 700000, SAMPLE_UNIFORM, 0 }, 700000, 1, 65536, &sample_1_byte, 0, 0 },
};
enum { TINY_PARTS = sizeof tiny_parts / sizeof tiny_parts[0] };

/* What a GPU decodes: of the others most tiles are stored as they are. */
static const struct sample_part coded_parts[] = {
	{ { "a", "I8", "[4000,1111]", 4444000, SAMPLE_GAUSSIAN, 20 }, 1111, 58, 1111, &sample_1_byte, 0, 0 },
	{ { "b", "I8", "[1500000]", 1500000, SAMPLE_CONSTANT, 0 }, 1500000, 1, 65536, &sample_1_byte, 0, 0 },
	{ { "c", "I8", "[17000001]", 17000001, SAMPLE_GAUSSIAN, 12 }, 17000001, 1, 65536, &sample_1_byte, 0, 0 },
};
enum { CODED_PARTS = sizeof coded_parts / sizeof coded_parts[0] };

static struct file *plain, *square, *tiny, *chunks, *tensors, *coded;

/* --- the kernel's side: nodes with cached pages --- */

/* Position of a sequential reader: pushes to its node must lie ahead of one, within the window. */
struct spot {
	int backwards;
	uint64_t told, known; /* position after the request in flight, and after the last one that was answered */
	uint64_t from;
};

/* A file as the kernel sees it, and its cached pages. */
struct node {
	const struct file *file;
	uint8_t *pages; /* how often each was pushed or asked for */
	unsigned opens, releases, ends, pushing, most_pushing, pushes;
	uint64_t pushed, again, asked, asks; /* again: pushed though cached already */
	struct spot spots[READERS];
	size_t spot_count;
	uint64_t pushed_before; /* to all nodes, before its first push */
	int result;             /* of all pushes after the first good_pushes */
	unsigned good_pushes;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct node nodes[NODES];
	uint64_t cache_bytes, window_bytes, pushed;
	int holds; /* pushes hang */
	unsigned held;
} kernel = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

/* Positions of all readers when this thread's last push ended: its next push must not be behind them. */
static _Thread_local uint64_t known[NODES][READERS];

static struct node *node_at(uint64_t target)
{
	sample_require(target >= FIRST_TARGET && target < FIRST_TARGET + NODES, "known target");
	return &kernel.nodes[target - FIRST_TARGET];
}

static bool is_allowed(const struct node *node, uint64_t offset, uint64_t end)
{
	const uint64_t *positions = known[node - kernel.nodes];

	for (size_t i = 0; i < node->spot_count; i++) {
		const struct spot *spot = &node->spots[i];

		if (spot->backwards ? end <= spot->from && offset + kernel.window_bytes >= spot->told
				    : offset >= positions[i] && end <= spot->told + kernel.window_bytes)
			return true;
	}
	return node->spot_count == 0;
}

static void put_pages(struct node *node, uint64_t offset, uint64_t end)
{
	for (uint64_t page = offset / PAGE; page * PAGE < end; page++)
		node->again += node->pages[page]++ ? PAGE : 0;
}

static int push(void *user, uint64_t target, uint64_t offset, const struct iovec *segments, size_t count)
{
	struct node *node = node_at(target);
	uint64_t end = offset;
	int r;

	CHECK(user == &kernel && count >= 1 && count <= WCX_VIEW_SLICES_MAX);
	for (size_t i = 0; i < count; end += segments[i++].iov_len)
		CHECK(segments[i].iov_len > 0 && file_has(node->file, end, segments[i].iov_base, segments[i].iov_len));
	pthread_mutex_lock(&kernel.lock);
	node->most_pushing = ++node->pushing > node->most_pushing ? node->pushing : node->most_pushing;
	CHECK(node->pushing <= PUSHERS_MAX);
	CHECK(node->releases < node->opens);
	CHECK(offset % PAGE == 0 && offset < end && (end % PAGE == 0 || end == node->file->bytes));
	if (!CHECK(is_allowed(node, offset, end)))
		fprintf(stderr, "\tpushed [%#llx, %#llx)\n", (unsigned long long)offset, (unsigned long long)end);
	kernel.held++;
	pthread_cond_broadcast(&kernel.changed);
	while (kernel.holds)
		await(&kernel.changed, &kernel.lock, "pushes that may end");
	kernel.held--;
	node->pushed_before = node->pushes ? node->pushed_before : kernel.pushed;
	r = node->pushes++ < node->good_pushes ? 0 : node->result;
	if (r == 0) {
		put_pages(node, offset, end);
		node->pushed += end - offset;
		kernel.pushed += end - offset;
	}
	for (size_t n = 0; n < NODES; n++)
		for (size_t i = 0; i < READERS; i++)
			known[n][i] = kernel.nodes[n].spots[i].known;
	node->pushing--;
	pthread_mutex_unlock(&kernel.lock);
	return r;
}

static void release_node(void *user, uint64_t target, bool is_watched)
{
	struct node *node = node_at(target);

	CHECK(user == &kernel);
	pthread_mutex_lock(&kernel.lock);
	node->releases++;
	node->ends += !is_watched;
	CHECK(node->releases <= node->opens);
	CHECK(node->releases < node->opens || node->pushing == 0);
	pthread_cond_broadcast(&kernel.changed);
	pthread_mutex_unlock(&kernel.lock);
}

static void hold_pushes(int holds)
{
	pthread_mutex_lock(&kernel.lock);
	kernel.holds = holds;
	pthread_cond_broadcast(&kernel.changed);
	pthread_mutex_unlock(&kernel.lock);
}

static void await_held(unsigned count)
{
	pthread_mutex_lock(&kernel.lock);
	while (kernel.held < count)
		await(&kernel.changed, &kernel.lock, "pushes that hang");
	pthread_mutex_unlock(&kernel.lock);
}

/* --- what every test here has --- */

struct rig {
	struct wcx_tile_cache *cache;
	struct wcx_decoder *decoder;
	struct wcx_prefetcher *prefetcher;
	struct wcx_image *images[NODES];
	struct wcx_prefetch_file *opened[NODES];
	int fds[NODES]; /* of the packed files, which tests may change */
	size_t count;
};

static bool has_gpu;                          /* the next rig, a fake one */
static unsigned file_threads, direct_threads; /* of the next rig; 0: all its threads */
static wcx_ask_fn *asks;                      /* of the next rig; NULL: pages are pushed */
static atomic_ulong asked_bytes;

/* Takes every second range. */
static int ask_for_some(void *user, uint64_t target, uint64_t offset, uint64_t bytes)
{
	(void)user, (void)target;
	if (offset / MIB % 2)
		return -EAGAIN;
	CHECK(offset % PAGE == 0 && bytes % PAGE == 0);
	atomic_fetch_add(&asked_bytes, bytes);
	return 0;
}

static void open_rig(struct rig *rig, unsigned threads, uint64_t window_bytes)
{
	const unsigned pieces = threads + (has_gpu ? GPU_PIECES : 0);
	const struct wcx_prefetch_options options = {
		.threads = threads,
		.pieces = pieces,
		.decoded_pieces = has_gpu ? GPU_PIECES : threads,
		.file_pieces = file_threads ? file_threads : pieces,
		.direct_pieces = direct_threads ? direct_threads : pieces,
		.file_pushers = PUSHERS_MAX,
		.window_bytes = window_bytes,
		.drop_packed = 1,
		.push = push,
		.ask = asks,
		.user = &kernel,
	};

	*rig = (struct rig){ .cache = wcx_tile_cache_create(kernel.cache_bytes) };
	sample_require(wcx_decoder_create(has_gpu ? WCX_DECODER_CUDA : WCX_DECODER_CPU, NULL, NULL, &rig->decoder, NULL) ==
			       0,
		       "wcx_decoder_create");
	if (has_gpu) {
		void *memory;
		const size_t bytes = wcx_tile_cache_memory(rig->cache, &memory);

		wcx_decoder_use_memory(rig->decoder, memory, bytes, UINT64_MAX, 1);
		wcx_decoder_start_crew(rig->decoder);
	}
	memset(kernel.nodes, 0, sizeof kernel.nodes);
	kernel.window_bytes = window_bytes;
	kernel.pushed = 0;
	rig->prefetcher = wcx_prefetcher_create(&options);
	sample_require(rig->prefetcher != NULL, "wcx_prefetcher_create");
}

/* Waits until all work is done. */
static void settle(struct rig *rig)
{
	sample_require(wcx_prefetcher_wait_idle(rig->prefetcher, HANG_S * 1000) == 0, "wcx_prefetcher_wait_idle");
}

/* Opens a file under a new node. */
static struct node *add_file(struct rig *rig, const struct file *file)
{
	const size_t i = rig->count++;
	struct node *node = &kernel.nodes[i];

	rig->fds[i] = sample_open(file->packed.data, file->packed.bytes);
	sample_require(wcx_image_open(dup(rig->fds[i]), "sample", rig->cache, rig->decoder, &rig->images[i], NULL) == 0,
		       "wcx_image_open");
	pthread_mutex_lock(&kernel.lock);
	*node = (struct node){ .file = file, .pages = calloc(file->bytes / PAGE + 1, 1), .opens = 1 };
	pthread_mutex_unlock(&kernel.lock);
	rig->opened[i] = wcx_prefetch_open(rig->prefetcher, rig->images[i], FIRST_TARGET + i, release_node);
	CHECK(rig->opened[i] != NULL);
	return node;
}

static struct wcx_prefetch_file *open_again(struct rig *rig, struct node *node)
{
	const size_t i = (size_t)(node - kernel.nodes);

	pthread_mutex_lock(&kernel.lock);
	node->opens++;
	pthread_mutex_unlock(&kernel.lock);
	return wcx_prefetch_open(rig->prefetcher, rig->images[i], FIRST_TARGET + i, release_node);
}

static void close_node(struct rig *rig, struct node *node)
{
	wcx_prefetch_close(rig->prefetcher, rig->opened[node - kernel.nodes]);
	rig->opened[node - kernel.nodes] = NULL;
}

/* Closes everything.  Each open of a node must have led to one release. */
static void close_rig(struct rig *rig)
{
	for (size_t i = 0; i < rig->count; i++)
		close_node(rig, &kernel.nodes[i]);
	CHECK(wcx_prefetcher_stop(rig->prefetcher, HANG_S * 1000) == 0);
	for (size_t i = 0; i < rig->count; i++) {
		CHECK(kernel.nodes[i].releases == kernel.nodes[i].opens);
		free(kernel.nodes[i].pages);
		wcx_image_put(rig->images[i]);
		close(rig->fds[i]);
	}
	wcx_prefetcher_free(rig->prefetcher);
	wcx_decoder_free(rig->decoder);
	wcx_tile_cache_free(rig->cache);
}

/* --- readers --- */

/* Adds a reader that starts at an offset; returns its number in the node. */
static size_t add_spot(struct node *node, uint64_t from, int backwards)
{
	pthread_mutex_lock(&kernel.lock);
	node->spots[node->spot_count] =
		(struct spot){ .backwards = backwards, .from = from, .told = from, .known = backwards ? 0 : from };
	pthread_mutex_unlock(&kernel.lock);
	return node->spot_count++;
}

/* A request, answered at once: its pages are cached from now on. */
static void ask(struct rig *rig, struct node *node, size_t number, uint64_t offset, uint64_t bytes, int direct)
{
	struct spot *spot = &node->spots[number];
	const uint64_t left = offset < node->file->bytes ? node->file->bytes - offset : 0;
	const uint64_t end = offset + (bytes < left ? bytes : left);

	pthread_mutex_lock(&kernel.lock);
	for (uint64_t page = offset / PAGE; page * PAGE < end && !direct; page++)
		node->pages[page]++;
	node->asks++;
	node->asked += end - offset;
	spot->told = spot->backwards ? (offset < spot->told ? offset : spot->told) : (end > spot->told ? end : spot->told);
	pthread_mutex_unlock(&kernel.lock);
	wcx_prefetch_note(rig->prefetcher, rig->opened[node - kernel.nodes], offset, bytes, direct);
	wcx_prefetch_answered(rig->prefetcher, rig->opened[node - kernel.nodes], offset, bytes, direct);
	pthread_mutex_lock(&kernel.lock);
	spot->known = spot->backwards ? 0 : spot->told;
	pthread_mutex_unlock(&kernel.lock);
}

/* Where the uncached range that begins (backwards: ends) at an offset stops, within a limit. */
static uint64_t missing_to(struct node *node, uint64_t at, uint64_t limit, int backwards)
{
	pthread_mutex_lock(&kernel.lock);
	while (at != limit && !node->pages[backwards ? (at - 1) / PAGE : at / PAGE]) {
		at = backwards ? (at - 1) / PAGE * PAGE : (at / PAGE + 1) * PAGE;
		if (backwards ? at < limit : at > limit)
			at = limit;
	}
	pthread_mutex_unlock(&kernel.lock);
	return at;
}

/* How a reader goes through a range, in the direction of its spot.  It asks only for pages that are not cached. */
struct way {
	uint64_t start, end, request;
	int is_slow; /* waits until the prefetcher is idle after each request */
};

static void read_step(struct rig *rig, struct node *node, size_t number, uint64_t *at, const struct way *way)
{
	const int backwards = node->spots[number].backwards;
	const uint64_t left = backwards ? *at - way->start : way->end - *at;
	const uint64_t step = left < way->request ? left : way->request;
	const uint64_t limit = backwards ? (*at - step) / PAGE * PAGE : *at + step;
	const uint64_t to = missing_to(node, *at, limit > way->start ? limit : way->start, backwards);

	if (to != *at) {
		ask(rig, node, number, backwards ? to : *at, backwards ? *at - to : to - *at, 0);
		if (way->is_slow)
			settle(rig);
		*at = to;
	} else if (backwards) {
		*at = (*at - 1) / PAGE * PAGE;
	} else {
		*at = (*at / PAGE + 1) * PAGE;
	}
}

static void read_way(struct rig *rig, struct node *node, size_t number, const struct way *way)
{
	uint64_t at = node->spots[number].backwards ? way->end : way->start;

	while (node->spots[number].backwards ? at > way->start : at < way->end)
		read_step(rig, node, number, &at, way);
}

/* Requests in order; 2 MiB of them make a reader sequential. */
static void prove(struct rig *rig, struct node *node, size_t number, uint64_t start, uint64_t bytes)
{
	for (uint64_t at = start; at < start + bytes; at += 128 * KIB)
		ask(rig, node, number, at, 128 * KIB, 0);
}

static uint64_t holes(const struct node *node, uint64_t start, uint64_t end)
{
	uint64_t count = 0;

	for (uint64_t page = start / PAGE; page * PAGE < end; page++)
		count += !node->pages[page];
	return count;
}

/* --- readers in order --- */

static const uint64_t requests[] = { 4 * KIB, 20 * KIB, 128 * KIB, MIB };
enum { REQUESTS = sizeof requests / sizeof requests[0] };

/* A slow reader asks for its first 2 MiB, for markers, and for little else.  No page is pushed twice. */
static void check_slow_reader(const struct file *file, uint64_t request, unsigned threads, int backwards)
{
	const struct way way = { 0, file->bytes, request, 1 };
	const uint64_t proof = 2 * MIB / request, markers = file->bytes / MIB + 1;
	struct wcx_prefetch_stats stats;
	struct node *node;
	struct rig rig;

	open_rig(&rig, threads, WINDOW);
	node = add_file(&rig, file);
	read_way(&rig, node, add_spot(node, backwards ? file->bytes : 0, backwards), &way);
	CHECK(node->again == 0 && holes(node, 0, file->bytes) == 0);
	CHECK(node->asked + node->pushed == file->bytes);
	CHECK(node->asked <= 2 * MIB + 256 * KIB + (2 + (uint64_t)backwards) * request);
	CHECK(node->asks >= proof + file->bytes / (WINDOW / 4 + MIB) && node->asks <= proof + markers + 4);
	wcx_prefetcher_get_stats(rig.prefetcher, &stats);
	CHECK(stats.requests == node->asks && stats.requested_bytes == node->asked);
	CHECK(stats.followed == 1 && stats.given_up == 0);
	CHECK(stats.pushed_bytes >= node->pushed && stats.pushed_bytes <= node->pushed + 2 * MIB);
	CHECK(stats.decoded_bytes == 0);
	close_rig(&rig);
}

static void reader_in_order_finds_nearly_all_there(void)
{
	for (unsigned i = 0; i < REQUESTS; i++) {
		check_slow_reader(plain, requests[i], i % 2 ? 3 : 1, 0);
		check_slow_reader(plain, requests[i], i % 2 ? 1 : 3, 1);
	}
	check_slow_reader(tiny, 16 * KIB, 1, 0);
	check_slow_reader(tiny, 128 * KIB, 2, 1);
	check_slow_reader(square, 128 * KIB, 1, 0);
	check_slow_reader(square, 4 * KIB, 2, 1);
}

static void reader_that_does_not_wait_gets_right_pages_only(void)
{
	for (unsigned i = 0; i < 2 * REQUESTS; i++) {
		const struct file *file = i % 3 ? plain : square;
		const struct way way = { 0, file->bytes, requests[i / 2], 0 };
		struct node *node;
		struct rig rig;

		open_rig(&rig, 1 + i % 4, WINDOW);
		node = add_file(&rig, file);
		read_way(&rig, node, add_spot(node, i % 2 ? file->bytes : 0, i % 2), &way);
		settle(&rig);
		CHECK(holes(node, 0, file->bytes) == 0);
		close_rig(&rig);
	}
}

/* All others wait for their turn, and get it in the end. */
static void four_threads_at_most_push_to_a_file_at_a_time(void)
{
	struct node *node;
	struct rig rig;
	uint64_t front;

	open_rig(&rig, 2 * PUSHERS_MAX, 32 * MIB);
	node = add_file(&rig, chunks);
	add_spot(node, 0, 0);
	for (uint64_t at = 0; at < 24 * MIB; at += 128 * KIB) {
		ask(&rig, node, 0, at, 128 * KIB, 0);
		settle(&rig);
	}
	for (front = 24 * MIB; node->pages[front / PAGE] || node->pages[front / PAGE + 1]; front += PAGE)
		;
	hold_pushes(1);
	ask(&rig, node, 0, front - 128 * KIB, 128 * KIB, 0); /* more pieces than threads */
	await_held(PUSHERS_MAX);
	hold_pushes(0);
	settle(&rig);
	CHECK(node->most_pushing == PUSHERS_MAX);
	CHECK(holes(node, front, front + 2 * PUSHERS_MAX * MIB) <= 3 && node->again == 0);
	close_rig(&rig);
}

/* Pages that their reader passed while a thread was about to push them are dropped. */
static void pages_that_a_reader_has_passed_are_not_pushed(void)
{
	struct node *node;
	struct rig rig;
	unsigned pushes;

	open_rig(&rig, 1, WINDOW);
	node = add_file(&rig, tiny);
	add_spot(node, 0, 0);
	hold_pushes(1);
	/* The next piece consists of short tiles, so it takes many pushes. */
	prove(&rig, node, 0, 0, 2 * MIB);
	await_held(1);
	ask(&rig, node, 0, 2 * MIB, 700 * KIB + 10, 0);
	hold_pushes(0);
	settle(&rig);
	pushes = node->pushes;
	CHECK(node->again <= 64 * PAGE && pushes > 1);
	CHECK(node->pages[(2 * MIB + 700 * KIB) / PAGE] == 1); /* the page that the request ends in */
	CHECK(holes(node, 2 * MIB + 704 * KIB, 3 * MIB) == 0);
	close_rig(&rig);

	/* Of a piece that no thread has begun, nothing is pushed. */
	open_rig(&rig, 1, WINDOW);
	node = add_file(&rig, plain);
	add_spot(node, 0, 0);
	prove(&rig, node, 0, 0, 4 * MIB - 128 * KIB);
	settle(&rig);
	node->again = 0; /* of what was being pushed when the reader got there */
	hold_pushes(1);
	ask(&rig, node, 0, 4 * MIB - 128 * KIB, 3 * MIB, 0);
	await_held(1);
	ask(&rig, node, 0, 7 * MIB - 128 * KIB, 16 * MIB, 0);
	hold_pushes(0);
	settle(&rig);
	CHECK(node->again <= MIB);
	close_rig(&rig);
}

static void last_page_of_a_file_is_pushed_short(void)
{
	struct node *node;
	struct rig rig;

	open_rig(&rig, 1, WINDOW);
	node = add_file(&rig, square);
	add_spot(node, 0, 0);
	for (uint64_t at = 0; at + MIB < square->bytes; at += 128 * KIB) {
		ask(&rig, node, 0, at, 128 * KIB, 0);
		settle(&rig);
	}
	CHECK(square->bytes % PAGE != 0 && node->pages[square->bytes / PAGE] == 1 && node->again == 0);
	close_rig(&rig);
}

/* --- several readers --- */

enum { CHUNK_READERS = 8, CHUNK_BYTES = 16 * MIB };

struct reading {
	struct rig *rig;
	struct node *node;
	size_t number;
	struct way way;
};

static void *run_reading(void *user)
{
	const struct reading *reading = user;

	read_way(reading->rig, reading->node, reading->number, &reading->way);
	return NULL;
}

static void threads_that_read_chunks_get_right_pages(void)
{
	struct reading readings[CHUNK_READERS];
	pthread_t threads[CHUNK_READERS];
	struct node *node;
	struct rig rig;

	open_rig(&rig, 3, 4 * MIB);
	node = add_file(&rig, chunks);
	for (size_t i = 0; i < CHUNK_READERS; i++) {
		readings[i] = (struct reading){ &rig,
						node,
						add_spot(node, i * CHUNK_BYTES, 0),
						{ i * CHUNK_BYTES, (i + 1) * CHUNK_BYTES, 128 * KIB, 0 } };
	}
	node->spot_count = 0; /* the policy may confuse them for a while */
	for (size_t i = 0; i < CHUNK_READERS; i++)
		CHECK(pthread_create(&threads[i], NULL, run_reading, &readings[i]) == 0);
	for (size_t i = 0; i < CHUNK_READERS; i++)
		pthread_join(threads[i], NULL);
	settle(&rig);
	CHECK(holes(node, 0, CHUNK_READERS * CHUNK_BYTES) == 0);
	close_rig(&rig);
}

static void several_files_are_read_ahead_at_the_same_time(void)
{
	const struct file *const files[] = { plain, square, tiny, chunks, plain, square };
	struct reading readings[6];
	pthread_t threads[6];
	struct rig rig;

	open_rig(&rig, 2, WINDOW);
	for (size_t i = 0; i < 6; i++) {
		struct node *node = add_file(&rig, files[i]);
		const uint64_t bytes = files[i]->bytes < 20 * MIB ? files[i]->bytes : 20 * MIB;

		readings[i] =
			(struct reading){ &rig, node, add_spot(node, i % 2 ? bytes : 0, i % 2), { 0, bytes, 128 * KIB, 1 } };
	}
	for (size_t i = 0; i < 6; i++)
		CHECK(pthread_create(&threads[i], NULL, run_reading, &readings[i]) == 0);
	for (size_t i = 0; i < 6; i++)
		pthread_join(threads[i], NULL);
	settle(&rig);
	for (size_t i = 0; i < 6; i++)
		CHECK(readings[i].node->pushed > 0 && holes(readings[i].node, 0, readings[i].way.end) == 0);
	close_rig(&rig);
}

/* Much work for one file does not delay the others. */
static void files_take_turns(void)
{
	struct node *nodes[3];
	struct rig rig;

	open_rig(&rig, 1, 32 * MIB);
	hold_pushes(1);
	for (size_t i = 0; i < 3; i++) {
		nodes[i] = add_file(&rig, chunks);
		add_spot(nodes[i], 0, 0);
		prove(&rig, nodes[i], 0, 0, 2 * MIB);
		ask(&rig, nodes[i], 0, 2 * MIB, 80 * MIB, 0);
		await_held(1);
	}
	hold_pushes(0);
	settle(&rig);
	for (size_t i = 0; i < 3; i++)
		CHECK(nodes[i]->pushed >= 31 * MIB && nodes[i]->pushed_before <= 5 * MIB);
	close_rig(&rig);
}

static void one_request_sets_all_threads_to_work(void)
{
	struct node *node;
	struct rig rig;

	open_rig(&rig, 4, 32 * MIB);
	node = add_file(&rig, chunks);
	add_spot(node, 0, 0);
	prove(&rig, node, 0, 0, 2 * MIB);
	settle(&rig);
	hold_pushes(1);
	ask(&rig, node, 0, 3 * MIB, 60 * MIB, 0);
	await_held(4);
	hold_pushes(0);
	close_rig(&rig);
}

/* The third thread has nothing to do while two hold pieces; a direct reader's pieces do not count. */
static void no_more_threads_than_wanted_work_for_the_page_cache_of_a_file(void)
{
	struct wcx_prefetch_stats stats;
	struct node *node;
	struct rig rig;

	file_threads = 2;
	open_rig(&rig, 3, 32 * MIB);
	file_threads = 0;
	node = add_file(&rig, chunks);
	add_spot(node, 0, 0);
	add_spot(node, 0, 0);
	prove(&rig, node, 0, 0, 2 * MIB);
	settle(&rig);
	hold_pushes(1);
	ask(&rig, node, 0, 3 * MIB, 60 * MIB, 0);
	await_held(2);
	wcx_prefetcher_get_stats(rig.prefetcher, &stats);
	CHECK(stats.decoded_bytes == 0);
	for (uint64_t at = 8 * MIB; at < 12 * MIB; at += MIB)
		ask(&rig, node, 1, at, MIB, 1);
	do
		wcx_prefetcher_get_stats(rig.prefetcher, &stats);
	while (!stats.decoded_bytes && !sched_yield());
	CHECK(node->most_pushing == 2);
	hold_pushes(0);
	settle(&rig);
	CHECK(node->most_pushing == 2 && holes(node, 64 * MIB, 80 * MIB) <= 3);
	close_rig(&rig);
}

/* Opens share a file only if both image and target are the same. */
static void other_image_or_target_is_another_file(void)
{
	struct wcx_prefetch_file *other_target, *other_image;
	struct node *first, *second;
	struct rig rig;

	open_rig(&rig, 1, WINDOW);
	first = add_file(&rig, plain);
	second = add_file(&rig, plain);
	first->opens++;
	second->opens++;
	other_target = wcx_prefetch_open(rig.prefetcher, rig.images[0], FIRST_TARGET + 1, release_node);
	other_image = wcx_prefetch_open(rig.prefetcher, rig.images[1], FIRST_TARGET, release_node);
	CHECK(first->releases == 0 && second->releases == 0);
	CHECK(other_target != rig.opened[0] && other_target != rig.opened[1] && other_target != other_image);
	CHECK(other_image != rig.opened[0] && other_image != rig.opened[1]);
	wcx_prefetch_close(rig.prefetcher, other_target);
	wcx_prefetch_close(rig.prefetcher, other_image);
	CHECK(first->releases == 1 && second->releases == 1);
	close_rig(&rig);
}

static void file_that_is_closed_while_it_waits_is_forgotten(void)
{
	struct node *busy, *others[3];
	struct rig rig;

	for (size_t order = 0; order < 3; order++) {
		open_rig(&rig, 1, WINDOW);
		busy = add_file(&rig, plain);
		add_spot(busy, 0, 0);
		hold_pushes(1);
		prove(&rig, busy, 0, 0, 2 * MIB);
		await_held(1);
		for (size_t i = 0; i < 3; i++) {
			others[i] = add_file(&rig, square);
			add_spot(others[i], 0, 0);
			prove(&rig, others[i], 0, 0, 2 * MIB);
		}
		close_node(&rig, others[order]);
		close_node(&rig, others[(order + 1) % 3]);
		CHECK(others[order]->releases == 1 && others[(order + 1) % 3]->releases == 1);
		hold_pushes(0);
		settle(&rig);
		CHECK(others[order]->pushes == 0 && others[(order + 1) % 3]->pushes == 0);
		CHECK(others[(order + 2) % 3]->pushes > 0);
		close_rig(&rig);
	}
}

static void pages_of_requests_in_flight_are_not_pushed(void)
{
	struct wcx_prefetch_file *file;
	struct node *node;
	struct rig rig;
	unsigned wrong = 0;

	open_rig(&rig, 2, WINDOW);
	node = add_file(&rig, chunks);
	file = rig.opened[0];
	add_spot(node, 0, 0);
	/* Far ahead of the reader, in parts of pages; each twice, as two processes may ask. */
	for (int i = 0; i < 2; i++) {
		wcx_prefetch_note(rig.prefetcher, file, 3 * MIB + 5, 100, 0);
		wcx_prefetch_note(rig.prefetcher, file, 3 * MIB + PAGE, 3 * PAGE, 0);
		wcx_prefetch_note(rig.prefetcher, file, 4 * MIB - PAGE, 2 * PAGE + 1, 0);
	}
	prove(&rig, node, 0, 0, 8 * MIB);
	settle(&rig);
	CHECK(node->pushed > 0);
	for (uint64_t page = 3 * MIB / PAGE; page < 3 * MIB / PAGE + 4; page++)
		wrong += node->pages[page] > 1;
	CHECK(wrong == 0);
	for (int i = 0; i < 2; i++) {
		wcx_prefetch_answered(rig.prefetcher, file, 3 * MIB + 5, 100, 0);
		wcx_prefetch_answered(rig.prefetcher, file, 3 * MIB + PAGE, 3 * PAGE, 0);
		wcx_prefetch_answered(rig.prefetcher, file, 4 * MIB - PAGE, 2 * PAGE + 1, 0);
	}
	close_rig(&rig);
}

static void file_outlives_its_last_close_until_all_requests_are_answered(void)
{
	struct wcx_prefetch_file *file;
	struct node *node;
	struct rig rig;

	open_rig(&rig, 1, WINDOW);
	node = add_file(&rig, plain);
	file = rig.opened[0];
	wcx_prefetch_note(rig.prefetcher, file, 0, MIB, 0);
	wcx_prefetch_note(rig.prefetcher, file, MIB, MIB, 1);
	close_node(&rig, node);
	CHECK(node->releases == 0);
	wcx_prefetch_answered(rig.prefetcher, file, MIB, MIB, 1);
	CHECK(node->releases == 0);
	wcx_prefetch_answered(rig.prefetcher, file, 0, MIB, 0);
	CHECK(node->releases == 1);
	close_rig(&rig);
}

/* --- readers that begin with a tensor --- */

static uint64_t tensor_start(const struct file *file, uint64_t number)
{
	return file->header + number * file->unit;
}

static void tensor_read_from_its_start_is_decoded_ahead_at_once_to_its_end(void)
{
	const uint64_t start = tensor_start(tensors, 3), end = tensor_start(tensors, 4) / PAGE * PAGE;
	struct node *node;
	struct rig rig;
	uint64_t at = start / PAGE * PAGE;

	open_rig(&rig, 2, 64 * MIB);
	node = add_file(&rig, tensors);
	ask(&rig, node, 0, at, 128 * KIB, 0);
	settle(&rig);
	CHECK(node->pushed >= 3 * MIB && node->pushed <= 5 * MIB && holes(node, at, at + 3 * MIB) <= 1);
	for (at += 128 * KIB; at + 128 * KIB < end; at += 128 * KIB) {
		ask(&rig, node, 0, at, 128 * KIB, 0);
		settle(&rig);
	}
	/* The last piece may exceed the tensor by less than 1 MiB. */
	CHECK(holes(node, start, end) <= 16 && holes(node, end + MIB, end + 3 * MIB) == 2 * MIB / PAGE);
	ask(&rig, node, 0, at, 256 * KIB, 0);
	settle(&rig);
	CHECK(holes(node, end + MIB, end + 3 * MIB) <= 2);
	close_rig(&rig);
}

static void nothing_is_pushed_without_threads_or_windows(void)
{
	static const struct {
		unsigned threads;
		uint64_t window_bytes;
	} cases[] = { { 0, WINDOW }, { 2, 0 }, { 0, 0 } };

	for (size_t i = 0; i < 3; i++) {
		const struct way way = { 0, plain->bytes, 128 * KIB, 1 };
		struct wcx_prefetch_stats stats;
		struct node *node;
		struct rig rig;

		open_rig(&rig, cases[i].threads, cases[i].window_bytes);
		node = add_file(&rig, plain);
		read_way(&rig, node, add_spot(node, 0, 0), &way);
		CHECK(node->pushed == 0 && node->asked == plain->bytes);
		wcx_prefetcher_get_stats(rig.prefetcher, &stats);
		CHECK(stats.pushed_bytes == 0 && stats.decoded_bytes == 0);
		close_rig(&rig);
	}
}

/* Direct readers bypass the page cache: their tiles are decoded before they ask, and stay in the tile cache. */
static void direct_reader_finds_tiles_decoded(void)
{
	static const struct file *const *const files[] = { (const struct file *const *)&plain,
							   (const struct file *const *)&square };

	atomic_store(&advised_calls, 0);
	for (int backwards = 0; backwards < 2; backwards++) {
		for (size_t f = 0; f < 2; f++) {
			const struct file *file = *files[f];
			struct wcx_tile_cache_stats before, after;
			struct wcx_prefetch_stats stats;
			uint8_t *buffer = malloc(128 * KIB);
			uint64_t behind = 0, missed = 0;
			struct node *node;
			struct rig rig;

			open_rig(&rig, 2, WINDOW);
			node = add_file(&rig, file);
			add_spot(node, 0, 0);
			for (uint64_t i = 0; i * 128 * KIB + 128 * KIB <= file->bytes; i++) {
				const uint64_t last = file->bytes / (128 * KIB) - 1;
				const uint64_t at = (backwards ? last - i : i) * 128 * KIB;

				wcx_tile_cache_get_stats(rig.cache, &before);
				CHECK(wcx_image_read(rig.images[0], buffer, 128 * KIB, at, NULL) == 128 * KIB);
				CHECK(file_has(file, at, buffer, 128 * KIB));
				wcx_tile_cache_get_stats(rig.cache, &after);
				if (i >= 24) {
					behind++;
					missed += after.misses > before.misses;
				}
				ask(&rig, node, 0, at, 128 * KIB, O_DIRECT);
				settle(&rig);
			}
			CHECK(behind > 10 && missed <= behind / 4 && node->pushes == 0);
			wcx_prefetcher_get_stats(rig.prefetcher, &stats);
			CHECK(stats.pushed_bytes == 0 && stats.decoded_bytes >= 2 * MIB && stats.followed == 1);
			free(buffer);
			close_rig(&rig);
		}
	}
	CHECK(atomic_load(&advised_calls) == 0); /* their tiles may be evicted and decoded again */
}

/* A direct reader whose tiles are cached is left alone until one is not. */
static void direct_reader_of_cached_tiles_is_left_alone(void)
{
	enum { CACHED = 6 * MIB, STEP = 128 * KIB };
	uint8_t *buffer = malloc(CACHED);
	struct wcx_prefetch_stats cached, missed;
	struct node *node;
	struct rig rig;
	uint64_t at = 0;

	open_rig(&rig, 2, WINDOW);
	node = add_file(&rig, plain);
	add_spot(node, 0, 0);
	CHECK(plain->bytes >= CACHED + 4 * MIB && wcx_image_read(rig.images[0], buffer, CACHED, 0, NULL) == CACHED);
	for (; at < CACHED; at += STEP) {
		ask(&rig, node, 0, at, STEP, O_DIRECT);
		settle(&rig);
	}
	wcx_prefetcher_get_stats(rig.prefetcher, &cached);
	CHECK(cached.followed == 1 && cached.decoded_bytes > 0 && cached.decoded_bytes <= 3 * MIB);
	for (; at < CACHED + 2 * MIB; at += STEP) {
		CHECK(wcx_image_read(rig.images[0], buffer, STEP, at, NULL) == STEP);
		ask(&rig, node, 0, at, STEP, O_DIRECT);
		wcx_prefetch_missed(rig.prefetcher, rig.opened[node - kernel.nodes]);
		settle(&rig);
	}
	wcx_prefetcher_get_stats(rig.prefetcher, &missed);
	CHECK(missed.decoded_bytes >= cached.decoded_bytes + 2 * MIB && missed.followed == 1);
	wcx_prefetch_missed(rig.prefetcher, NULL);
	free(buffer);
	close_rig(&rig);
}

/* --- caches --- */

static void tiles_that_were_pushed_leave_the_cache(void)
{
	const struct file *const files[] = { plain, square, tiny };
	struct wcx_tile_cache_stats stats;
	struct node *node;
	struct rig rig;

	open_rig(&rig, 1, WINDOW);
	node = add_file(&rig, plain);
	read_way(&rig, node, add_spot(node, 0, 0), &(struct way){ 0, 4 * MIB, 128 * KIB, 1 });
	wcx_tile_cache_get_stats(rig.cache, &stats);
	CHECK(node->pushed >= MIB && stats.bytes <= node->pushed / 4);
	close_rig(&rig);

	/* Nor are any kept pinned. */
	kernel.cache_bytes = 0;
	for (unsigned i = 0; i < 6; i++) {
		const int direct = i >= 3;

		open_rig(&rig, 2, WINDOW);
		node = add_file(&rig, files[i % 3]);
		add_spot(node, 0, 0);
		for (uint64_t at = 0; at < 4 * MIB; at += 128 * KIB) {
			ask(&rig, node, 0, at, 128 * KIB, direct);
			settle(&rig);
		}
		wcx_tile_cache_get_stats(rig.cache, &stats);
		CHECK(stats.bytes == 0 && stats.misses > 0);
		close_rig(&rig);
	}
	kernel.cache_bytes = 64 * MIB;
}

static void tiles_that_are_asked_for_stay_and_others_are_pushed(void)
{
	struct wcx_tile_cache_stats stats;
	struct node *node;
	struct rig rig;

	asks = ask_for_some;
	for (unsigned is_shared = 0; is_shared < 2; is_shared++) {
		atomic_store(&asked_bytes, 0);
		open_rig(&rig, 1, WINDOW);
		node = add_file(&rig, plain);
		add_spot(node, 0, 0);
		if (is_shared)
			CHECK(open_again(&rig, node) == rig.opened[0]);
		for (uint64_t at = 0; at < 3 * MIB; at += 128 * KIB) {
			ask(&rig, node, 0, at, 128 * KIB, 0);
			settle(&rig);
		}
		wcx_tile_cache_get_stats(rig.cache, &stats);
		CHECK(is_shared ? atomic_load(&asked_bytes) == 0 : atomic_load(&asked_bytes) >= MIB / 2);
		CHECK(node->pushed > 0 && stats.bytes >= atomic_load(&asked_bytes));
		if (is_shared)
			wcx_prefetch_close(rig.prefetcher, rig.opened[0]);
		close_rig(&rig);
	}
	asks = NULL;
}

/* A reader that begins where a tensor does, and one that has read 2 MiB of it. */
static void what_is_guessed_is_pushed_until_the_reader_is_known(void)
{
	const uint64_t start = tensor_start(tensors, 2) / PAGE * PAGE;
	struct node *node;
	struct rig rig;

	asks = ask_for_some;
	atomic_store(&asked_bytes, 0);
	open_rig(&rig, 1, WINDOW);
	asks = NULL;
	node = add_file(&rig, tensors);
	add_spot(node, start, 0);
	ask(&rig, node, 0, start, 128 * KIB, 0);
	settle(&rig);
	CHECK(node->pushed >= MIB && atomic_load(&asked_bytes) == 0);
	for (uint64_t at = 128 * KIB; at < 8 * MIB; at += 128 * KIB) {
		ask(&rig, node, 0, start + at, 128 * KIB, 0);
		settle(&rig);
	}
	CHECK(atomic_load(&asked_bytes) >= MIB / 2);
	close_rig(&rig);
}

static int refuse_to_ask(void *user, uint64_t target, uint64_t offset, uint64_t bytes)
{
	(void)user, (void)target, (void)offset, (void)bytes;
	return -ESTALE;
}

/* One thread asks at a time, but what is never asked for is pushed by as many as without asking. */
static void what_cannot_be_asked_for_is_pushed_by_several_threads(void)
{
	struct node *node;
	struct rig rig;

	asks = refuse_to_ask;
	open_rig(&rig, PUSHERS_MAX, 32 * MIB);
	asks = NULL;
	node = add_file(&rig, chunks);
	add_spot(node, 0, 0);
	prove(&rig, node, 0, 0, 2 * MIB);
	settle(&rig);
	CHECK(node->pushed > 0);
	hold_pushes(1);
	ask(&rig, node, 0, 3 * MIB, 60 * MIB, 0);
	await_held(PUSHERS_MAX);
	hold_pushes(0);
	close_rig(&rig);
}

static void packed_bytes_are_fetched_ahead_and_evicted_after_the_push(void)
{
	const struct way way = { 0, plain->bytes, 128 * KIB, 1 };
	struct node *node;
	struct rig rig;

	atomic_store(&advised_bytes, 0);
	atomic_store(&advised_calls, 0);
	atomic_store(&advised_wrong, 0);
	atomic_store(&fetched_bytes, 0);
	open_rig(&rig, 1, WINDOW);
	node = add_file(&rig, plain);
	read_way(&rig, node, add_spot(node, 0, 0), &way);
	CHECK(atomic_load(&advised_calls) >= 10 && atomic_load(&advised_wrong) == 0);
	CHECK(atomic_load(&advised_bytes) >= 10 * MIB && atomic_load(&advised_bytes) <= 2 * plain->bytes);
	/* Once ahead, and again by what decodes, which cannot tell; some tiles belong to two pieces. */
	CHECK(atomic_load(&fetched_bytes) >= 5 * MIB && atomic_load(&fetched_bytes) <= plain->packed.bytes * 3);
	close_rig(&rig);
}

/* --- what goes wrong --- */

static void damage_ends_the_work_for_its_file_only(void)
{
	const struct way way = { 0, 12 * MIB, 128 * KIB, 1 };
	struct node *bad, *good;
	uint8_t byte;
	struct rig rig;
	off_t at;

	for (unsigned direct = 0; direct < 2; direct++) {
		open_rig(&rig, 1, WINDOW);
		bad = add_file(&rig, plain);
		good = add_file(&rig, plain);
		at = 128 + 5 * MIB + 1000; /* raw tiles, one after the other */
		sample_require(pread(rig.fds[0], &byte, 1, at) == 1, "pread");
		byte ^= 1;
		sample_require(pwrite(rig.fds[0], &byte, 1, at) == 1, "pwrite");
		add_spot(bad, 0, 0);
		for (uint64_t offset = 0; offset < 16 * MIB; offset += 128 * KIB) {
			ask(&rig, bad, 0, offset, 128 * KIB, (int)direct);
			settle(&rig);
		}
		CHECK(direct ||
		      (bad->pushed >= MIB && bad->pushed <= (has_gpu ? 8 : 4) * MIB)); /* coded tiles are smaller */
		CHECK(!direct || bad->pushes == 0);
		read_way(&rig, good, add_spot(good, 0, 0), &way);
		CHECK(good->pushed >= 8 * MIB);
		close_rig(&rig);
	}
}

static void target_that_takes_no_more_gets_no_more(void)
{
	struct node *gone, *other;
	struct rig rig;

	for (unsigned good = 0; good < 3; good++) {
		const struct way way = { 0, 12 * MIB, 128 * KIB, 1 };

		open_rig(&rig, 1, WINDOW);
		gone = add_file(&rig, plain);
		other = add_file(&rig, plain);
		gone->result = -ENOENT;
		gone->good_pushes = good;
		add_spot(gone, 0, 0);
		prove(&rig, gone, 0, 0, 16 * MIB);
		settle(&rig);
		CHECK(gone->pushes == good + 1);
		prove(&rig, gone, 0, 16 * MIB, 2 * MIB);
		settle(&rig);
		CHECK(gone->pushes == good + 1);
		read_way(&rig, other, add_spot(other, 0, 0), &way);
		CHECK(other->pushed >= 8 * MIB);
		close_rig(&rig);
	}
}

static void stop_gives_up_on_a_push_that_hangs(void)
{
	struct node *node;
	struct rig rig;
	unsigned pushes;

	for (unsigned threads = 1; threads < 4; threads++) {
		open_rig(&rig, threads, WINDOW);
		node = add_file(&rig, plain);
		add_spot(node, 0, 0);
		hold_pushes(1);
		prove(&rig, node, 0, 0, 12 * MIB);
		await_held(threads);
		CHECK(wcx_prefetcher_stop(rig.prefetcher, 0) == -ETIMEDOUT);
		CHECK(wcx_prefetcher_stop(rig.prefetcher, 3) == -ETIMEDOUT);
		close_node(&rig, node);
		CHECK(node->releases == 0); /* a push is in flight */
		hold_pushes(0);
		CHECK(wcx_prefetcher_stop(rig.prefetcher, HANG_S * 1000) == 0);
		CHECK(node->releases == 1);
		CHECK(wcx_prefetcher_stop(rig.prefetcher, 0) == 0);
		pushes = node->pushes;
		/* Each thread may finish its piece, but takes no other. */
		CHECK(node->pushed <= threads * MIB);
		rig.opened[0] = open_again(&rig, node);
		prove(&rig, node, 0, 12 * MIB, 8 * MIB);
		CHECK(node->pushes == pushes);
		close_rig(&rig);
	}
}

static void files_left_open_are_released_at_the_end(void)
{
	struct wcx_prefetch_file *again;
	struct node *node;
	struct rig rig;

	open_rig(&rig, 2, WINDOW);
	node = add_file(&rig, plain);
	again = open_again(&rig, node);
	CHECK(again == rig.opened[0] && node->releases == 1 && node->ends == 0);
	add_file(&rig, square);
	add_spot(node, 0, 0);
	prove(&rig, node, 0, 0, 16 * MIB);
	CHECK(wcx_prefetcher_stop(rig.prefetcher, HANG_S * 1000) == 0);
	CHECK(node->releases == 1);
	wcx_prefetcher_free(rig.prefetcher);
	CHECK(node->releases == 2 && node->ends == 1 && kernel.nodes[1].releases == 1);
	for (size_t i = 0; i < rig.count; i++) {
		free(kernel.nodes[i].pages);
		wcx_image_put(rig.images[i]);
		close(rig.fds[i]);
	}
	wcx_decoder_free(rig.decoder);
	wcx_tile_cache_free(rig.cache);
	wcx_prefetcher_free(NULL);
}

/* A closed file is released after the pieces in hand, whatever is left of its windows. */
static void closed_file_gets_nothing_more(void)
{
	struct node *node;
	struct rig rig;

	open_rig(&rig, 2, 64 * MIB);
	node = add_file(&rig, chunks);
	add_spot(node, 0, 0);
	hold_pushes(1);
	prove(&rig, node, 0, 0, 2 * MIB);
	ask(&rig, node, 0, 2 * MIB, 80 * MIB, 0);
	await_held(2);
	close_node(&rig, node);
	hold_pushes(0);
	settle(&rig);
	CHECK(node->releases == 1);
	CHECK(node->pushed <= 2 * MIB);
	close_rig(&rig);
}

struct churn {
	struct rig *rig;
	struct node *nodes[4];
	atomic_ulong seed;
};

static void *run_churn(void *user)
{
	struct churn *churn = user;
	struct sample_random random = { atomic_fetch_add(&churn->seed, 1) };

	for (int i = 0; i < 40; i++) {
		struct node *node = churn->nodes[sample_below(&random, 4)];
		struct wcx_prefetch_file *file = open_again(churn->rig, node);
		uint64_t at = sample_below(&random, 8) * MIB;

		CHECK(file != NULL);
		for (int r = 0; r < 24; r++, at += 128 * KIB) {
			wcx_prefetch_note(churn->rig->prefetcher, file, at, 128 * KIB, 0);
			wcx_prefetch_answered(churn->rig->prefetcher, file, at, 128 * KIB, 0);
		}
		wcx_prefetch_close(churn->rig->prefetcher, file);
	}
	return NULL;
}

static void files_come_and_go_while_threads_work(void)
{
	pthread_t threads[4];
	struct rig rig;
	struct churn churn = { .rig = &rig };

	open_rig(&rig, 3, WINDOW);
	for (size_t i = 0; i < 4; i++) {
		churn.nodes[i] = add_file(&rig, i % 2 ? square : plain);
		if (i < 3)
			close_node(&rig, churn.nodes[i]);
	}
	for (size_t i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, run_churn, &churn) == 0);
	for (size_t i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	settle(&rig);
	for (size_t i = 0; i < 3; i++)
		CHECK(churn.nodes[i]->opens > 1 && churn.nodes[i]->releases == churn.nodes[i]->opens);
	CHECK(churn.nodes[3]->releases == churn.nodes[3]->opens - 1);
	wcx_prefetch_close(rig.prefetcher, NULL);
	wcx_prefetch_note(rig.prefetcher, NULL, 0, MIB, 0);
	wcx_prefetch_answered(rig.prefetcher, NULL, 0, MIB, 0);
	close_rig(&rig);
}

static void stop_while_busy_leaves_nothing_behind(void)
{
	for (unsigned i = 0; i < 10; i++) {
		struct node *nodes[3];
		struct rig rig;

		open_rig(&rig, 1 + i % 3, WINDOW);
		for (size_t n = 0; n < 3; n++) {
			nodes[n] = add_file(&rig, n ? plain : square);
			add_spot(nodes[n], 0, 0);
			prove(&rig, nodes[n], 0, 0, (2 + i) * MIB / 2);
		}
		CHECK(wcx_prefetcher_stop(rig.prefetcher, HANG_S * 1000) == 0);
		close_rig(&rig);
	}
}

static void small_files_are_left_alone(void)
{
	static const size_t sizes[] = { 1, 3000, 4096, 8192, 20000, 70000, 1 << 20, (2 << 20) + 5000 };

	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		const struct sample_part part = {
			{ "t", "I8", "[0]", sizes[i], SAMPLE_UNIFORM, 0 }, sizes[i], 1, 65536, &sample_1_byte, 0, 0
		};
		struct file *file = make_file(&part, 1);
		struct node *node;
		struct rig rig;

		open_rig(&rig, 1, WINDOW);
		node = add_file(&rig, file);
		add_spot(node, 0, 0);
		wcx_prefetch_note(rig.prefetcher, rig.opened[0], file->bytes, MIB, 0);
		wcx_prefetch_answered(rig.prefetcher, rig.opened[0], file->bytes, MIB, 0);
		wcx_prefetch_note(rig.prefetcher, rig.opened[0], UINT64_MAX, MIB, 0);
		wcx_prefetch_answered(rig.prefetcher, rig.opened[0], UINT64_MAX, MIB, 0);
		wcx_prefetch_note(rig.prefetcher, rig.opened[0], 0, 0, 0);
		wcx_prefetch_answered(rig.prefetcher, rig.opened[0], 0, 0, 0);
		for (uint64_t at = 0; at < file->bytes + MIB; at += 4096)
			ask(&rig, node, 0, at, 4096, 0);
		settle(&rig);
		CHECK(node->pushed <= 2 * PAGE);
		CHECK(sizes[i] > 2 * MIB || node->pushes == 0);
		close_rig(&rig);
		free_file(file);
	}
}

/* --- no memory --- */

static void file_is_not_watched_when_there_is_no_memory(void)
{
	struct wcx_prefetch_file *file;
	struct node *node;
	struct rig rig;

	open_rig(&rig, 1, WINDOW);
	node = add_file(&rig, square);
	arm(0, 1);
	file = open_again(&rig, node); /* needs no memory */
	arm(-1, -1);
	CHECK(file == rig.opened[0] && node->releases == 1);
	wcx_prefetch_close(rig.prefetcher, file);
	close_node(&rig, node);
	CHECK(node->releases == 2);
	arm(0, 1);
	CHECK(open_again(&rig, node) == NULL);
	arm(-1, -1);
	CHECK(node->releases == 3);
	close_rig(&rig);
}

static void prefetcher_makes_do_with_the_threads_that_start(void)
{
	struct wcx_prefetch_options options = { .threads = 3,
						.pieces = 3,
						.decoded_pieces = 3,
						.file_pieces = 3,
						.file_pushers = 3,
						.direct_pieces = 3,
						.window_bytes = WINDOW,
						.push = push,
						.user = &kernel };
	struct wcx_prefetcher *prefetcher;
	long before = atomic_load(&alive);

	for (long at = 0; at < 4; at++) {
		arm(at, LONG_MAX);
		prefetcher = wcx_prefetcher_create(&options);
		arm(-1, -1);
		CHECK((at == 0) == (prefetcher == NULL));
		if (prefetcher)
			CHECK(wcx_prefetcher_stop(prefetcher, HANG_S * 1000) == 0);
		wcx_prefetcher_free(prefetcher);
	}
	CHECK(atomic_load(&alive) == before);
}

/* A reader while the allocations in [from, to) fail; returns how many allocations were not freed. */
static long read_with_failures(const struct file *file, long from, long to)
{
	const long before = atomic_load(&alive);
	struct node *node;
	struct rig rig;

	open_rig(&rig, 1, WINDOW);
	node = add_file(&rig, file);
	add_spot(node, 0, 0);
	arm(from, to);
	prove(&rig, node, 0, 0, 2 * MIB + 256 * KIB);
	settle(&rig);
	arm(-1, -1);
	close_rig(&rig);
	return atomic_load(&alive) - before;
}

static void failed_allocation_ends_the_work_at_worst(void)
{
	const long usual = read_with_failures(tiny, -1, -1); /* libraries keep some, or free older ones */

	for (long at = 0; at < 60; at += at < 24 ? 1 : 5)
		CHECK(read_with_failures(at % 2 ? square : tiny, at, at % 3 ? at + 1 : LONG_MAX) == usual);
}

/* --- a GPU, whose batches are finished by threads of the decoder --- */

static void hang_gpu(bool hangs)
{
	pthread_mutex_lock(&fake_gpu.lock);
	fake_gpu.hangs = hangs;
	pthread_cond_broadcast(&fake_gpu.changed);
	pthread_mutex_unlock(&fake_gpu.lock);
}

static void await_on_device(unsigned count)
{
	pthread_mutex_lock(&fake_gpu.lock);
	while (fake_gpu.on_device < count)
		await(&fake_gpu.changed, &fake_gpu.lock, "pieces on the GPU");
	pthread_mutex_unlock(&fake_gpu.lock);
}

/* A single thread hands over as many pieces as the GPU may have, and goes on when they are done. */
static void no_thread_waits_for_a_gpu(void)
{
	struct node *node;
	struct rig rig;

	has_gpu = true;
	open_rig(&rig, 1, 32 * MIB);
	node = add_file(&rig, coded);
	add_spot(node, 0, 0);
	hang_gpu(true);
	prove(&rig, node, 0, 0, 10 * MIB);
	await_on_device(GPU_PIECES);
	CHECK(wcx_prefetcher_wait_idle(rig.prefetcher, 10) == -ETIMEDOUT && fake_gpu.on_device == GPU_PIECES);
	CHECK(node->pushes == 0);
	hang_gpu(false);
	settle(&rig);
	CHECK(holes(node, 10 * MIB, 18 * MIB) <= 3 && fake_gpu.on_device == 0);
	hang_gpu(true);
	prove(&rig, node, 0, 10 * MIB, 3 * MIB);
	await_on_device(1);
	CHECK(wcx_prefetcher_stop(rig.prefetcher, 3) == -ETIMEDOUT);
	hang_gpu(false);
	close_rig(&rig);
	CHECK(fake_gpu.on_device == 0);
	has_gpu = false;
}

static void all_is_so_with_a_gpu_too(void)
{
	static void (*const run[])(void) = {
		reader_that_does_not_wait_gets_right_pages_only,
		four_threads_at_most_push_to_a_file_at_a_time,
		last_page_of_a_file_is_pushed_short,
		threads_that_read_chunks_get_right_pages,
		several_files_are_read_ahead_at_the_same_time,
		direct_reader_finds_tiles_decoded,
		damage_ends_the_work_for_its_file_only,
		closed_file_gets_nothing_more,
		files_come_and_go_while_threads_work,
		stop_while_busy_leaves_nothing_behind,
	};

	struct file *const usual = plain;

	has_gpu = true;
	plain = coded;
	for (int fails = 0; fails < 2; fails++) {
		fake_gpu.fails = fails;
		for (size_t i = 0; i < WCX_ARRAY_COUNT(run); i++)
			run[i]();
	}
	has_gpu = fake_gpu.fails = false;
	plain = usual;
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(reader_in_order_finds_nearly_all_there),
		CHECK_TEST(reader_that_does_not_wait_gets_right_pages_only),
		CHECK_TEST(four_threads_at_most_push_to_a_file_at_a_time),
		CHECK_TEST(pages_that_a_reader_has_passed_are_not_pushed),
		CHECK_TEST(last_page_of_a_file_is_pushed_short),
		CHECK_TEST(threads_that_read_chunks_get_right_pages),
		CHECK_TEST(several_files_are_read_ahead_at_the_same_time),
		CHECK_TEST(files_take_turns),
		CHECK_TEST(one_request_sets_all_threads_to_work),
		CHECK_TEST(no_more_threads_than_wanted_work_for_the_page_cache_of_a_file),
		CHECK_TEST(other_image_or_target_is_another_file),
		CHECK_TEST(file_that_is_closed_while_it_waits_is_forgotten),
		CHECK_TEST(pages_of_requests_in_flight_are_not_pushed),
		CHECK_TEST(file_outlives_its_last_close_until_all_requests_are_answered),
		CHECK_TEST(tensor_read_from_its_start_is_decoded_ahead_at_once_to_its_end),
		CHECK_TEST(nothing_is_pushed_without_threads_or_windows),
		CHECK_TEST(direct_reader_finds_tiles_decoded),
		CHECK_TEST(direct_reader_of_cached_tiles_is_left_alone),
		CHECK_TEST(tiles_that_were_pushed_leave_the_cache),
		CHECK_TEST(tiles_that_are_asked_for_stay_and_others_are_pushed),
		CHECK_TEST(what_is_guessed_is_pushed_until_the_reader_is_known),
		CHECK_TEST(what_cannot_be_asked_for_is_pushed_by_several_threads),
		CHECK_TEST(packed_bytes_are_fetched_ahead_and_evicted_after_the_push),
		CHECK_TEST(damage_ends_the_work_for_its_file_only),
		CHECK_TEST(target_that_takes_no_more_gets_no_more),
		CHECK_TEST(stop_gives_up_on_a_push_that_hangs),
		CHECK_TEST(files_left_open_are_released_at_the_end),
		CHECK_TEST(closed_file_gets_nothing_more),
		CHECK_TEST(files_come_and_go_while_threads_work),
		CHECK_TEST(stop_while_busy_leaves_nothing_behind),
		CHECK_TEST(small_files_are_left_alone),
		CHECK_TEST(file_is_not_watched_when_there_is_no_memory),
		CHECK_TEST(prefetcher_makes_do_with_the_threads_that_start),
		CHECK_TEST(failed_allocation_ends_the_work_at_worst),
		CHECK_TEST(no_thread_waits_for_a_gpu),
		CHECK_TEST(all_is_so_with_a_gpu_too),
	};
	int status;

	arm(-1, -1);
	kernel.cache_bytes = 64 * MIB;
	plain = make_file(plain_parts, PLAIN_PARTS);
	square = make_file(square_parts, SQUARE_PARTS);
	tiny = make_file(tiny_parts, TINY_PARTS);
	chunks = make_repeated(1234567, 110);
	tensors = make_repeated(16 * MIB - 1001, 6);
	coded = make_file(coded_parts, CODED_PARTS);
	status = check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
	free_file(plain);
	free_file(square);
	free_file(tiny);
	free_file(chunks);
	free_file(tensors);
	free_file(coded);
	return status;
}
