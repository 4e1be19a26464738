/* SPDX-License-Identifier: MIT */
/* Loading packed files into GPU memory: files and their tensors, any ranges to any places, and ranges that are refused. */
#include "fs/lib/wcx.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "tests/unit/load_samples.h"

/* --- files --- */

static void files_are_opened_read_and_described(void)
{
	for (int f = 0; f < FILES; f++) {
		const struct sample *sample = &samples[f];
		const struct wcx_safetensors *st = sample->st;
		struct wcx_tensor_info info, untouched;

		CHECK(wcx_file_bytes(sample->file) == sample->original.bytes);
		CHECK(wcx_file_header_bytes(sample->file) == 8 + wcx_le64_read(sample->original.data));
		if (!CHECK(wcx_file_tensor_count(sample->file) == st->tensor_count))
			continue;
		for (size_t i = 0; i < st->tensor_count; i++) {
			const struct wcx_tensor *tensor = &st->tensors[i];

			CHECK(wcx_file_tensor(sample->file, i, &info) == 0);
			CHECK_TEXT(info.name, tensor->name);
			CHECK_TEXT(info.dtype, tensor->dtype);
			CHECK(info.dim_count == tensor->dim_count && info.offset == tensor->offset &&
			      info.bytes == tensor->bytes);
			CHECK(!info.dim_count ||
			      memcmp(info.shape, tensor->shape, info.dim_count * sizeof *info.shape) == 0);
		}
		untouched = info;
		CHECK(wcx_file_tensor(sample->file, st->tensor_count, &info) == -EINVAL);
		CHECK(wcx_file_tensor(sample->file, SIZE_MAX, &info) == -EINVAL);
		CHECK(memcmp(&info, &untouched, sizeof info) == 0);
	}
}

static void file_read_returns_the_bytes_of_the_original(void)
{
	struct sample_random random = { seed };

	for (int f = 0; f < FILES; f++) {
		const struct sample *sample = &samples[f];
		const uint64_t total = sample->original.bytes;
		uint8_t *dst = malloc(total);

		CHECK(wcx_file_read(sample->file, dst, total, 0, NULL, 0) == (ssize_t)total);
		CHECK(memcmp(dst, sample->original.data, total) == 0);
		for (int i = 0; i < 30; i++) {
			const uint64_t offset = sample_below(&random, total + 1), bytes = sample_below(&random, 5000);
			const uint64_t expected = bytes < total - offset ? bytes : total - offset;

			CHECK(wcx_file_read(sample->file, dst, bytes < total ? bytes : total, offset, NULL, 0) ==
			      (ssize_t)(expected < total ? expected : total));
			CHECK(memcmp(dst, sample->original.data + offset, expected) == 0);
		}
		CHECK(wcx_file_read(sample->file, dst, 1, total, NULL, 0) == 0);
		CHECK(wcx_file_read(sample->file, dst, 1, UINT64_MAX, NULL, 0) == 0);
		free(dst);
	}
}

/* Opens a file that must be refused.  Returns the error. */
static int refusal_of(const char *path)
{
	struct wcx_file *file = NULL;
	char error[ERROR_BYTES] = "";
	int r = wcx_file_open(path, &file, error, sizeof error);

	CHECK(r < 0 && file == NULL);
	CHECK(strncmp(error, path, strlen(path)) == 0 && strlen(error) > strlen(path));
	CHECK(wcx_file_open(path, &file, NULL, 0) == r && file == NULL);
	return r;
}

static void missing_damaged_and_too_new_files_are_refused(void)
{
	const struct sample_bytes *packed = &samples[SMALL].packed;
	struct sample_bytes copy = { malloc(packed->bytes), packed->bytes };
	char *path = sample_path(dir, "refused.wcx");

	CHECK(refusal_of(path) == -ENOENT);
	CHECK(refusal_of(dir) < 0);
	CHECK(mkfifo(path, 0600) == 0 && refusal_of(path) == -EBADMSG); /* at once, although nobody writes */
	unlink(path);
	memcpy(copy.data, packed->data, packed->bytes);
	sample_write(path, (struct sample_bytes){ copy.data, copy.bytes - 1 });
	CHECK(refusal_of(path) == -EBADMSG);
	sample_write(path, (struct sample_bytes){ copy.data, 0 });
	CHECK(refusal_of(path) == -EBADMSG);
	copy.data[copy.bytes - 3] ^= 4;
	sample_write(path, copy);
	CHECK(refusal_of(path) == -EBADMSG);
	copy.data[copy.bytes - 3] ^= 4;
	copy.data[8]++; /* the version */
	seal(copy);
	sample_write(path, copy);
	CHECK(refusal_of(path) == -ENOTSUP);
	copy.data[8]--;
	seal(copy);
	copy.data[WCX_SUPERBLOCK_BYTES + 10] ^= 4; /* the header's first tile */
	sample_write(path, copy);
	CHECK(refusal_of(path) == -EBADMSG);
	unlink(path);
	free(path);
	free(copy.data);
	wcx_file_close(NULL);
}

/* The other tests rely on this. */
static void sample_files_have_tiles_of_every_kind(void)
{
	unsigned modes[WCX_TILE_MODE_COUNT] = { 0 }, predictors[WCX_PREDICTOR_COUNT] = { 0 },
		 transforms[WCX_TRANSFORM_COUNT] = { 0 };
	unsigned exceptions = 0, planes = 0, pairs = 0, zeros = 0, tables[5] = { 0 }, elems[9] = { 0 }, narrow = 0;

	for (size_t s = 0; s < wcx_container_superblock(samples[MIXED].container)->segment_count; s++) {
		const struct wcx_segment *seg = wcx_container_segment(samples[MIXED].container, s);
		const struct wcx_recipe *recipe = &seg->recipe;

		for (uint64_t t = seg->first_tile; t < seg->first_tile + seg->tile_count; t++) {
			struct wcx_tile_layout layout;
			struct wcx_tile_info info;

			wcx_container_tile(samples[MIXED].container, seg, t, &info);
			modes[info.mode]++;
			if (info.mode != WCX_TILE_CODED)
				continue;
			CHECK(wcx_tile_parse(&info.dims, recipe, samples[MIXED].packed.data + info.packed_offset,
					     info.packed_bytes, &layout) == WCX_OK);
			predictors[recipe->predictor]++;
			transforms[recipe->transform]++;
			elems[recipe->elem_bytes]++;
			exceptions += layout.exception_count > 0;
			planes += layout.plane_count > 0;
			narrow += info.dims.rows > 1 && info.dims.cols < seg->cols;
			for (uint32_t f = 0; f < recipe->field_count; f++) {
				tables[recipe->fields[f].table_count]++;
				pairs += recipe->fields[f].is_pair;
				zeros += recipe->fields[f].has_zero;
			}
		}
	}
	for (int i = 0; i < WCX_TILE_MODE_COUNT; i++)
		CHECK(modes[i] > 4);
	for (int i = 0; i < WCX_PREDICTOR_COUNT; i++)
		CHECK(predictors[i] > 4);
	for (int i = 0; i < WCX_TRANSFORM_COUNT; i++)
		CHECK(transforms[i] > 2);
	CHECK(exceptions > 2 && planes > 4 && pairs > 4 && zeros > 2 && narrow > 4);
	CHECK(tables[1] > 0 && tables[2] > 0 && tables[4] > 0);
	CHECK(elems[1] > 0 && elems[2] > 0 && elems[4] > 0 && elems[8] > 0);
}

/* --- sound loads --- */

static const unsigned thread_counts[] = { 1, 2, 5 };

static void the_whole_file_is_loaded_to_any_address_by_any_number_of_threads(void)
{
	struct sample_random random = { seed };

	for (size_t t = 0; t < WCX_ARRAY_COUNT(thread_counts); t++) {
		struct wcx_loader *loader = open_loader(thread_counts[t]);

		for (int f = 0; f < FILES; f++) {
			for (size_t shift = 0; shift < 8; shift += f == MIXED || f == SMALL ? 1 : 5) {
				struct range range = whole(&samples[f], shift);

				atomic_store(&gpu.added, 0);
				CHECK(loads_right(loader, &samples[f], &range, 1, &random));
				CHECK(atomic_load(&gpu.added) == coded_tiles(&samples[f], &range, 1));
			}
		}
		wcx_loader_close(loader);
	}
}

static void each_tensor_can_be_loaded_alone(void)
{
	struct sample_random random = { seed };
	struct wcx_loader *loader = open_loader(3);

	for (int f = 0; f < FILES; f++) {
		for (size_t i = 0; i < samples[f].st->tensor_count; i++) {
			const struct wcx_tensor *tensor = &samples[f].st->tensors[i];

			for (size_t shift = 0; shift < 8; shift += f == MIXED ? 1 : 5) {
				struct range range = { tensor->offset, tensor->bytes, shift };

				if (!CHECK(loads_right(loader, &samples[f], &range, 1, &random)))
					fprintf(stderr, "\t%s of %s\n", tensor->name, samples[f].path);
			}
		}
	}
	wcx_loader_close(loader);
}

static void all_tensors_are_scattered_and_each_tile_is_decoded_once(void)
{
	struct sample_random random = { seed };
	struct range ranges[SAMPLE_PARTS_MAX];

	for (size_t t = 0; t < WCX_ARRAY_COUNT(thread_counts); t++) {
		struct wcx_loader *loader = open_loader(thread_counts[t]);

		for (int f = 0; f < FILES; f++) {
			size_t count = ranges_of_tensors(&samples[f], ranges, t == 1 ? NULL : &random);

			atomic_store(&gpu.added, 0);
			CHECK(loads_right(loader, &samples[f], ranges, count, &random));
			CHECK(atomic_load(&gpu.added) == coded_tiles(&samples[f], ranges, count));
		}
		wcx_loader_close(loader);
	}
}

/* wcx.h promises that multiples of 8 are fastest: such tensors are not copied after decoding. */
static void tensors_of_the_packer_at_multiples_of_8_are_decoded_in_place(void)
{
	struct wcx_loader *loader = open_loader(2);
	struct sample_random random = { seed };

	for (size_t i = 0; i < samples[PACKED].st->tensor_count; i++) {
		struct range range = { samples[PACKED].st->tensors[i].offset, samples[PACKED].st->tensors[i].bytes, 0 };

		if (strncmp(samples[PACKED].st->tensors[i].name, "norm.", 5) == 0)
			continue; /* these share tiles */
		disarm();
		CHECK(loads_right(loader, &samples[PACKED], &range, 1, &random));
		CHECK(calls_of(CALL_STAGE) == 0);
	}
	wcx_loader_close(loader);
}

/* A constant tile of one byte value that is wanted whole needs no copy. */
static void constants_are_filled_in_place(void)
{
	struct wcx_loader *loader = open_loader(1);
	struct sample_random random = { seed };

	for (size_t i = 0; i < samples[MIXED].st->tensor_count; i++) {
		const struct wcx_tensor *tensor = &samples[MIXED].st->tensors[i];
		struct range range = { tensor->offset, tensor->bytes, 3 };

		if (strcmp(tensor->name, "constant") != 0 && strcmp(tensor->name, "constant.f32") != 0 &&
		    strcmp(tensor->name, "zero.i64") != 0)
			continue;
		disarm();
		CHECK(loads_right(loader, &samples[MIXED], &range, 1, &random));
		CHECK(calls_of(CALL_FILL) > 1 && calls_of(CALL_COPY) == 0);
	}
	wcx_loader_close(loader);
}

static void every_range_of_a_small_file_is_loaded(void)
{
	struct wcx_loader *loader = open_loader(1);
	const size_t total = samples[SMALL].original.bytes;
	struct sample_random random = { seed };
	size_t wrong = 0;

	for (size_t offset = 0; offset <= total; offset++) {
		for (size_t bytes = offset % 29; offset + bytes <= total; bytes += 29) {
			struct range range = { offset, bytes, (offset + bytes) % 8 };

			wrong += !loads_right(loader, &samples[SMALL], &range, 1, &random);
		}
	}
	CHECK(wrong == 0);
	wcx_loader_close(loader);
}

static uint64_t clip(uint64_t offset, int64_t delta, uint64_t least, uint64_t most)
{
	if (delta < 0 && offset < least + (uint64_t)-delta)
		return least;
	offset += (uint64_t)delta;
	return offset < least ? least : offset > most ? most : offset;
}

/* An offset in a segment: anywhere, or near the start or end of a row of a tile. */
static uint64_t draw_offset(const struct sample *sample, const struct wcx_segment *seg, struct sample_random *random)
{
	struct wcx_tile_info info;
	uint64_t offset;

	if (sample_below(random, 4) == 0)
		return seg->offset + sample_below(random, seg->bytes + 1);
	wcx_container_tile(sample->container, seg, seg->first_tile + sample_below(random, seg->tile_count), &info);
	offset = wcx_tile_row_offset(seg, &info, (uint32_t)sample_below(random, info.dims.rows));
	offset += sample_below(random, 2) * info.dims.cols * info.dims.elem_bytes;
	return clip(offset, (int64_t)sample_below(random, 7) - 3, seg->offset, seg->offset + seg->bytes);
}

static int compare_offsets(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

enum { RANGES_MAX = 12 };

/* Some ranges in one segment or in all, in random order.  They may touch or be empty. */
static size_t draw_ranges(const struct sample *sample, struct range ranges[RANGES_MAX], struct sample_random *random)
{
	const size_t segments = wcx_container_superblock(sample->container)->segment_count;
	const size_t count = 1 + (size_t)sample_below(random, RANGES_MAX), cuts = 2 * count;
	const bool in_one = sample_below(random, 3) > 0, are_aligned = sample_below(random, 3) == 0;
	size_t segment = (size_t)sample_below(random, segments);
	uint64_t offsets[2 * RANGES_MAX];

	for (size_t i = 0; i < cuts; i++) {
		if (!in_one)
			segment = (size_t)sample_below(random, segments);
		offsets[i] = draw_offset(sample, wcx_container_segment(sample->container, segment), random);
		if (i % 2 && sample_below(random, 3) == 0)
			offsets[i] = clip(offsets[i - 1], (int64_t)sample_below(random, 60), 0, sample->original.bytes);
	}
	qsort(offsets, cuts, sizeof *offsets, compare_offsets);
	for (size_t i = 0; i < count; i++) {
		const size_t other = (size_t)sample_below(random, i + 1);

		ranges[i] = ranges[other];
		ranges[other] = (struct range){ offsets[2 * i], offsets[2 * i + 1] - offsets[2 * i],
						are_aligned ? 0 : (size_t)sample_below(random, 8) };
	}
	return count;
}

/* A tile that holds bytes of several ranges is decoded once. */
static void load_random_ranges(const struct sample *sample, unsigned threads, unsigned times)
{
	struct wcx_loader *loader = open_loader(threads);
	struct sample_random random = { seed + threads };
	struct range ranges[RANGES_MAX];
	unsigned wrong = 0, repeated = 0;

	for (unsigned i = 0; i < times; i++) {
		const size_t count = draw_ranges(sample, ranges, &random);
		const bool is_right = (atomic_store(&gpu.added, 0), loads_right(loader, sample, ranges, count, &random));

		repeated += atomic_load(&gpu.added) != coded_tiles(sample, ranges, count);
		if (is_right || wrong++)
			continue;
		for (size_t k = 0; k < count; k++)
			fprintf(stderr, "\t%s: number %u, wrong among offset %llu, %llu bytes\n", sample->path, i,
				(unsigned long long)ranges[k].offset, (unsigned long long)ranges[k].bytes);
	}
	CHECK(wrong == 0);
	CHECK(repeated == 0);
	wcx_loader_close(loader);
}

static void ranges_that_cut_elements_rows_and_tiles_are_loaded(void)
{
	load_random_ranges(&samples[SMALL], 1, 3000);
	load_random_ranges(&samples[SMALL], 3, 200);
	load_random_ranges(&samples[MIXED], 1, 400);
	load_random_ranges(&samples[MIXED], 3, 200);
	load_random_ranges(&samples[REFERENCE], 2, 40);
	load_random_ranges(&samples[PACKED], 2, 40);
}

/*
 * Ranges in one row of tiles, where the second begins lower in the matrix and further left: the tiles of the first are not
 * a prefix of the row of tiles.
 */
static void ranges_in_one_row_of_tiles_are_loaded(void)
{
	const struct wcx_segment *seg = wcx_container_segment(samples[MIXED].container, 1); /* 170 wide, tiles of 40 by 50 */
	const uint64_t start = seg->offset;
	struct wcx_loader *loader = open_loader(1);
	struct sample_random random = { seed };
	const struct range cases[][3] = {
		{ { start + 160, 5, 0 }, { start + 170 + 3, 20, 0 }, { 0, 0, 0 } },
		{ { start + 160, 5, 0 }, { start + 3 * 170 + 3, 20, 0 }, { start + 5 * 170 + 110, 20, 0 } },
		{ { start + 160, 5, 0 }, { start + 170 + 3, 60 * 170, 0 }, { 0, 0, 0 } },
		{ { start + 3, 5, 0 }, { start + 110, 5, 0 }, { start + 2 * 170 + 60, 5, 0 } },
		{ { start + 3, 170, 0 }, { start + 3 * 170 + 60, 5, 0 }, { start + 41 * 170 + 60, 5, 0 } },
	};

	for (size_t i = 0; i < WCX_ARRAY_COUNT(cases); i++) {
		atomic_store(&gpu.added, 0);
		CHECK(loads_right(loader, &samples[MIXED], cases[i], 3, &random));
		CHECK(atomic_load(&gpu.added) == coded_tiles(&samples[MIXED], cases[i], 3));
	}
	wcx_loader_close(loader);
}

static void the_header_is_loaded_like_the_rest(void)
{
	struct wcx_loader *loader = open_loader(1);
	struct sample_random random = { seed };

	for (int f = 0; f < FILES; f++) {
		const uint64_t bytes = wcx_file_header_bytes(samples[f].file);
		const struct range ranges[] = { { 0, 8, 1 }, { 8, bytes - 10, 2 }, { bytes - 2, 5, 3 } };

		CHECK(loads_right(loader, &samples[f], ranges, WCX_ARRAY_COUNT(ranges), &random));
	}
	wcx_loader_close(loader);
}

/* With a GPU that takes few tiles at a time. */
static void batches_that_are_cut_short_are_continued(void)
{
	static const uint32_t limits[] = { 1, 2, 3, 7, 100 };
	struct sample_random random = { seed };
	struct range ranges[SAMPLE_PARTS_MAX];

	for (size_t i = 0; i < WCX_ARRAY_COUNT(limits); i++) {
		struct wcx_loader *loader = open_loader(1 + (unsigned)i % 3);
		size_t count = ranges_of_tensors(&samples[MIXED], ranges, &random);

		gpu.items_max = limits[i];
		CHECK(loads_right(loader, &samples[MIXED], ranges, count, &random));
		CHECK(loads_right(loader, &samples[LONG], (struct range[]){ whole(&samples[LONG], i) }, 1, &random));
		CHECK(loads_right(loader, &samples[PACKED], (struct range[]){ whole(&samples[PACKED], 4 * i) }, 1, &random));
		wcx_loader_close(loader);
	}
	gpu.items_max = ITEMS_MAX;
}

static void a_batch_is_submitted_while_the_one_before_is_in_flight(void)
{
	struct wcx_loader *loader = open_loader(1);
	struct sample_random random = { seed };
	const struct range range = whole(&samples[MIXED], 0);

	disarm();
	atomic_store(&gpu.overlapped, 0);
	gpu.items_max = 8;
	CHECK(loads_right(loader, &samples[MIXED], &range, 1, &random));
	CHECK(calls_of(CALL_SUBMIT) > 10 && atomic_load(&gpu.overlapped) == calls_of(CALL_SUBMIT) - 1);
	gpu.items_max = ITEMS_MAX;
	wcx_loader_close(loader);
}

/* The tiles of many tensors are decoded together. */
static void a_batch_takes_tiles_of_several_tensors(void)
{
	struct wcx_loader *loader = open_loader(1);
	struct sample_random random = { seed };
	const struct range range = whole(&samples[MIXED], 0);

	disarm();
	CHECK(loads_right(loader, &samples[MIXED], &range, 1, &random));
	CHECK(calls_of(CALL_SEND) > WCX_ARRAY_COUNT(mixed_parts) / 2 && calls_of(CALL_SUBMIT) == 1);
	wcx_loader_close(loader);
}

static void a_loader_loads_one_file_after_another(void)
{
	struct wcx_loader *loader = open_loader(3);
	struct sample_random random = { seed };

	for (int i = 0; i < 20; i++) {
		const struct sample *sample = &samples[i % 2 ? MIXED : SMALL];
		struct wcx_file *file = NULL;
		struct sample again = *sample;
		struct range range = whole(sample, (size_t)i % 8);

		CHECK(wcx_file_open(sample->path, &file, NULL, 0) == 0);
		again.file = file;
		CHECK(loads_right(loader, &again, &range, 1, &random));
		wcx_file_close(file);
	}
	wcx_loader_close(loader);
}

static void empty_targets_and_no_targets_are_allowed(void)
{
	struct wcx_loader *loader = open_loader(2);
	const uint64_t total = samples[MIXED].original.bytes;
	const struct range ranges[] = { { 0, 0, 0 }, { 5000, 0, 3 }, { 5000, 0, 1 }, { total, 0, 1 }, { 4000, 2000, 0 } };
	struct sample_random random = { seed };
	struct memory memory;

	disarm();
	CHECK(wcx_load(loader, samples[MIXED].file, NULL, 0, NULL, NULL, 0) == 0);
	CHECK(loads_right(loader, &samples[MIXED], ranges, 4, &random));
	CHECK(calls_of(CALL_SUBMIT) == 0);
	CHECK(loads_right(loader, &samples[MIXED], ranges, 5, &random));
	make_memory(&memory, &samples[MIXED], ranges, 4, &random);
	for (size_t i = 0; i < 4; i++)
		memory.targets[i].dst = NULL;
	CHECK(load_into(loader, &samples[MIXED], &memory, NULL, 0) == 0);
	free_memory(&memory);
	wcx_loader_close(loader);
}

static void the_default_stream_is_allowed(void)
{
	struct wcx_loader *loader = open_loader(2);
	struct sample_random random = { seed };
	const struct range range = whole(&samples[MIXED], 0);
	struct memory memory;

	make_memory(&memory, &samples[MIXED], &range, 1, &random);
	finish_stream(&memory.stream);
	CHECK(wcx_load(loader, samples[MIXED].file, memory.targets, 1, NULL, NULL, 0) == 0);
	CHECK(memcmp(memory.bytes, memory.expected, memory.size) == 0);
	free_memory(&memory);
	wcx_loader_close(loader);
}

static void *load_and_read(void *arg)
{
	struct sample_random random = { seed + *(unsigned *)arg };
	struct wcx_loader *loader = open_loader(2);
	struct range ranges[RANGES_MAX];
	unsigned wrong = 0;

	for (int i = 0; i < 16; i++) {
		const struct sample *sample = &samples[i % 8 ? MIXED : REFERENCE];
		const size_t count = i % 2 ? draw_ranges(sample, ranges, &random) : 1;
		uint8_t bytes[600];

		if (i % 2 == 0)
			ranges[0] = whole(sample, (size_t)i % 8);
		wrong += !loads_right(loader, sample, ranges, count, &random);
		wrong += wcx_file_read(sample->file, bytes, sizeof bytes, ranges[0].offset / 2, NULL, 0) != sizeof bytes ||
			 memcmp(bytes, sample->original.data + ranges[0].offset / 2, sizeof bytes) != 0;
	}
	CHECK(wrong == 0);
	wcx_loader_close(loader);
	return NULL;
}

static void several_loaders_load_the_same_file_at_once(void)
{
	unsigned numbers[3] = { 0, 1, 2 };
	pthread_t threads[3];

	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&threads[i], NULL, load_and_read, &numbers[i]) == 0);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

/* --- pinned files --- */

/* Overwrites the second half of a packed file with these bytes of its own, inverted or as they were. */
static void overwrite(const struct sample *sample, uint8_t inverts)
{
	const size_t from = sample->packed.bytes / 2, bytes = sample->packed.bytes - from;
	uint8_t *half = malloc(bytes);
	const int fd = open(sample->path, O_WRONLY | O_CLOEXEC);

	for (size_t i = 0; i < bytes; i++)
		half[i] = sample->packed.data[from + i] ^ inverts;
	CHECK(pwrite(fd, half, bytes, (off_t)from) == (ssize_t)bytes);
	close(fd);
	free(half);
}

/* Of a file that is packed against a base only the base is read. */
static void pinned_files_are_loaded_like_others_and_not_read(void)
{
	struct sample_random random = { seed };
	struct range ranges[RANGES_MAX];

	for (int f = 0; f < FILES; f++) {
		struct wcx_loader *loader = open_loader(1 + (unsigned)f % 3);
		struct sample pinned = open_pinned(&samples[f], loader);
		struct range range = whole(&pinned, f % 2 ? 0 : 3);

		CHECK(pinned_memories() == 1);
		CHECK(wcx_file_pin(pinned.file, loader, NULL, 0) == 0); /* again */
		disarm();
		atomic_store(&gpu.added, 0);
		overwrite(&pinned, 0xFF);
		CHECK(loads_right(loader, &pinned, &range, 1, &random));
		overwrite(&pinned, 0);
		CHECK(atomic_load(&gpu.added) == coded_tiles(&pinned, &range, 1));
		CHECK(calls_of(CALL_SEND_PINNED) > 0 && (f == TUNED || calls_of(CALL_READ) == 0));
		for (unsigned i = 0; i < 20; i++)
			CHECK(loads_right(loader, &pinned, ranges, draw_ranges(&pinned, ranges, &random), &random));
		wcx_file_close(pinned.file);
		CHECK(pinned_memories() == 0);
		wcx_loader_close(loader);
	}
}

/* A batch may end between a tile and its base tile.  A GPU that takes no differences leaves them to the host. */
static void differences_are_decoded_by_the_gpu_if_it_takes_them(void)
{
	static const uint32_t limits[] = { 2, 7, 100, ITEMS_MAX };
	const struct range range = whole(&samples[TUNED], 3);
	struct sample_random random = { seed };

	for (size_t i = 0; i < 2 * WCX_ARRAY_COUNT(limits); i++) {
		struct wcx_loader *loader = open_loader(1 + (unsigned)i % 2);

		gpu.items_max = limits[i / 2];
		gpu.takes_no_differences = i / 2 == 2;
		atomic_store(&gpu.differences, 0);
		CHECK(loads_right(loader, &samples[TUNED], &range, 1, &random));
		CHECK((atomic_load(&gpu.differences) > 20) == !gpu.takes_no_differences);
		wcx_loader_close(loader);
	}
	gpu.items_max = ITEMS_MAX;
	gpu.takes_no_differences = false;
}

static void a_pinned_file_outlives_the_loader_that_pinned_it(void)
{
	struct wcx_loader *loader = open_loader(2), *other = open_loader(1);
	struct sample pinned = open_pinned(&samples[MIXED], loader);
	const struct range range = whole(&pinned, 0);
	struct sample_random random = { seed };
	uint8_t bytes[600];

	wcx_loader_close(loader);
	CHECK(loads_right(other, &pinned, &range, 1, &random));
	CHECK(wcx_file_read(pinned.file, bytes, sizeof bytes, 5000, NULL, 0) == sizeof bytes);
	CHECK(memcmp(bytes, pinned.original.data + 5000, sizeof bytes) == 0);
	CHECK(wcx_load_host(pinned.file, &(struct wcx_target){ 9000, sizeof bytes, bytes }, 1, 1, NULL, 0) == 0);
	CHECK(memcmp(bytes, pinned.original.data + 9000, sizeof bytes) == 0);
	wcx_loader_close(other);
	wcx_file_close(pinned.file);
}

static void pinned_batches_that_are_cut_short_are_continued(void)
{
	static const uint32_t limits[] = { 1, 7, 100 };
	struct sample_random random = { seed };

	for (size_t i = 0; i < WCX_ARRAY_COUNT(limits); i++) {
		struct wcx_loader *loader = open_loader(1 + (unsigned)i);
		struct sample pinned = open_pinned(&samples[i ? MIXED : LONG], loader);
		const struct range range = whole(&pinned, i);

		gpu.items_max = limits[i];
		CHECK(loads_right(loader, &pinned, &range, 1, &random));
		wcx_file_close(pinned.file);
		wcx_loader_close(loader);
	}
	gpu.items_max = ITEMS_MAX;
}

/* --- what is refused --- */

static void check_refused(const struct range *ranges, size_t count)
{
	struct wcx_loader *loader = open_loader(2);
	struct sample_random random = { seed };
	struct range placed[3]; /* the same, with sizes that can be allocated */
	char error[ERROR_BYTES] = "";
	struct memory memory;

	disarm();
	for (size_t i = 0; i < count; i++)
		placed[i] = (struct range){ ranges[i].offset, ranges[i].bytes < 1 << 20 ? ranges[i].bytes : 0, 0 };
	make_memory(&memory, &samples[MIXED], placed, count, &random);
	for (size_t i = 0; i < count; i++)
		memory.targets[i].bytes = ranges[i].bytes;
	CHECK(load_into(loader, &samples[MIXED], &memory, error, sizeof error) == -EINVAL);
	CHECK(memcmp(memory.bytes, memory.before, memory.size) == 0);
	CHECK(calls_of(CALL_SUBMIT) == 0);
	CHECK(strncmp(error, samples[MIXED].path, strlen(samples[MIXED].path)) == 0 && strstr(error, "offset"));
	free_memory(&memory);
	wcx_loader_close(loader);
}

static void overlapping_ranges_are_refused(void)
{
	check_refused((struct range[]){ { 100, 50, 0 }, { 149, 50, 0 } }, 2);
	check_refused((struct range[]){ { 100, 50, 0 }, { 51, 50, 0 } }, 2);
	check_refused((struct range[]){ { 100, 50, 0 }, { 100, 50, 0 } }, 2);
	check_refused((struct range[]){ { 900, 50, 0 }, { 120, 1, 0 }, { 100, 50, 0 } }, 3);
	check_refused((struct range[]){ { 0, 5000, 0 }, { 9000, 1, 0 }, { 4999, 2, 0 } }, 3);
}

static void ranges_beyond_the_end_of_the_file_are_refused(void)
{
	const uint64_t total = samples[MIXED].original.bytes;

	check_refused((struct range[]){ { 0, total + 1, 0 } }, 1);
	check_refused((struct range[]){ { total, 1, 0 } }, 1);
	check_refused((struct range[]){ { total + 1, 0, 0 } }, 1);
	check_refused((struct range[]){ { 5, total - 4, 0 } }, 1);
	check_refused((struct range[]){ { 0, 4, 0 }, { 5, UINT64_MAX - 3, 0 } }, 2);
	check_refused((struct range[]){ { UINT64_MAX, 1, 0 } }, 1);
	check_refused((struct range[]){ { UINT64_MAX - 3, 4, 0 } }, 1);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(files_are_opened_read_and_described),
		CHECK_TEST(file_read_returns_the_bytes_of_the_original),
		CHECK_TEST(missing_damaged_and_too_new_files_are_refused),
		CHECK_TEST(sample_files_have_tiles_of_every_kind),
		CHECK_TEST(the_whole_file_is_loaded_to_any_address_by_any_number_of_threads),
		CHECK_TEST(each_tensor_can_be_loaded_alone),
		CHECK_TEST(all_tensors_are_scattered_and_each_tile_is_decoded_once),
		CHECK_TEST(tensors_of_the_packer_at_multiples_of_8_are_decoded_in_place),
		CHECK_TEST(constants_are_filled_in_place),
		CHECK_TEST(every_range_of_a_small_file_is_loaded),
		CHECK_TEST(ranges_that_cut_elements_rows_and_tiles_are_loaded),
		CHECK_TEST(ranges_in_one_row_of_tiles_are_loaded),
		CHECK_TEST(the_header_is_loaded_like_the_rest),
		CHECK_TEST(batches_that_are_cut_short_are_continued),
		CHECK_TEST(a_batch_is_submitted_while_the_one_before_is_in_flight),
		CHECK_TEST(a_batch_takes_tiles_of_several_tensors),
		CHECK_TEST(a_loader_loads_one_file_after_another),
		CHECK_TEST(empty_targets_and_no_targets_are_allowed),
		CHECK_TEST(the_default_stream_is_allowed),
		CHECK_TEST(several_loaders_load_the_same_file_at_once),
		CHECK_TEST(pinned_files_are_loaded_like_others_and_not_read),
		CHECK_TEST(differences_are_decoded_by_the_gpu_if_it_takes_them),
		CHECK_TEST(a_pinned_file_outlives_the_loader_that_pinned_it),
		CHECK_TEST(pinned_batches_that_are_cut_short_are_continued),
		CHECK_TEST(overlapping_ranges_are_refused),
		CHECK_TEST(ranges_beyond_the_end_of_the_file_are_refused),
	};

	return load_tests_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
