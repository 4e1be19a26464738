/* SPDX-License-Identifier: MIT */
/* Planning of a load: which tiles are loaded, in which way, with which copies; and where they lie in buffer and stage. */
#include "fs/lib/load_plan.h"

#include <stdarg.h>

#include "tests/fixtures/sample_image.h"
#include "tests/unit/check.h"

/* Tiles are numbered row by row. */
static const struct sample_part parts[] = {
	{ { "grid", "I8", "[40,100]", 4000, SAMPLE_GAUSSIAN, 9 }, 100, 20, 50, &sample_1_byte, 0, 0 },
	{ { "rows", "I8", "[60,200]", 12000, SAMPLE_GAUSSIAN, 9 }, 200, 20, 200, &sample_1_byte, 0, 0 },
	{ { "wide", "F64", "[2200]", 17600, SAMPLE_GAUSSIAN, 2 }, 2200, 1, 1100, &sample_8_bytes, 0, 0 },
	{ { "noise", "U8", "[3000]", 3000, SAMPLE_UNIFORM, 0 }, 3000, 1, 1000, &sample_1_byte, 0, 0 },
	{ { "constant", "U8", "[2000]", 2000, SAMPLE_CONSTANT, 0 }, 2000, 1, 1000, &sample_1_byte, 0, 0 },
	{ { "alike", "I16", "[30,40]", 2400, SAMPLE_UNIFORM, 0 }, 40, 20, 40, &sample_2_bytes, 0, 0 },
	{ { "zipped", "I8", "[9001]", 9001, SAMPLE_GAUSSIAN, 3 }, 9001, 1, 5000, &sample_1_byte_plain, 1, 0 },
	{ { "many", "U8", "[3,1500]", 4500, SAMPLE_UNIFORM, 0 }, 1500, 1, 3, &sample_1_byte, 0, 0 },
	{ { "large", "U8", "[5242880]", 5242880, SAMPLE_CONSTANT, 0 }, 5242880, 1, 65536, &sample_1_byte, 0, 0 },
};

enum { TARGETS_MAX = 3, ALL = 1 << 30, TEXT_BYTES = 300, DEVICE_ADDRESS = 1 << 20, PINNED_QUEUE_BYTES = 9 << 20 };

static struct wcx_container *container;

static const struct wcx_segment *segment_named(const char *name)
{
	for (size_t i = 0; i < WCX_ARRAY_COUNT(parts); i++)
		if (strcmp(parts[i].tensor.name, name) == 0)
			return wcx_container_segment(container, 1 + i);
	sample_require(0, name);
	return NULL;
}

/* Finds the target that holds an offset and returns the device address that it gives it; 0 if there is none. */
static uint64_t address_of(const struct wcx_target *targets, size_t count, uint64_t offset)
{
	for (size_t i = 0; i < count; i++)
		if (offset >= targets[i].offset && offset - targets[i].offset < targets[i].bytes)
			return (uint64_t)(uintptr_t)targets[i].dst + (offset - targets[i].offset);
	return 0;
}

/* Every byte of a copy must go where a target wants it. */
static void check_copy(const struct wcx_load_walk *walk, const struct wcx_load_copy *copy, const struct wcx_target *targets,
		       size_t count)
{
	const size_t tile_pitch = (size_t)walk->tile->dims.cols * walk->tile->dims.elem_bytes;

	for (size_t y = 0; y < copy->rows; y++)
		for (size_t x = 0; x < copy->row_bytes; x++) {
			const size_t src = copy->src + y * copy->src_pitch + x;
			const uint64_t offset =
				wcx_tile_row_offset(walk->segment, walk->tile, (uint32_t)(src / tile_pitch)) +
				src % tile_pitch;

			CHECK(copy->dst + y * copy->dst_pitch + x == address_of(targets, count, offset));
		}
}

__attribute__((format(printf, 2, 3))) static void append(char text[TEXT_BYTES], const char *format, ...)
{
	const size_t used = strlen(text);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text + used, TEXT_BYTES - used, format, arguments);
	va_end(arguments);
}

/* Appends number and way of a tile, and its copies as rows x bytes: "5S:3x50,1x20".  Returns the bytes that it brings. */
static uint64_t describe_tile(const struct wcx_load_plan *plan, const struct wcx_segment *segment,
			      const struct wcx_load_tile *tile, const struct wcx_target *targets, size_t count,
			      char text[TEXT_BYTES])
{
	const bool is_copied = tile->way == WCX_LOAD_STAGED || tile->way == WCX_LOAD_STORED || tile->way == WCX_LOAD_LITERAL;
	uint64_t bytes = 0;
	struct wcx_load_walk walk;
	struct wcx_load_copy copy;

	append(text, "%s%llu%c", *text ? " " : "", (unsigned long long)(tile->info.tile_index - segment->first_tile),
	       "-DSPLF"[tile->way]);
	if (tile->way == WCX_LOAD_DIRECT || tile->way == WCX_LOAD_FILL) {
		const uint64_t offset = wcx_tile_row_offset(segment, &tile->info, 0);

		CHECK(tile->whole == address_of(targets, count, offset));
		return wcx_tile_dims_bytes(&tile->info.dims);
	}
	wcx_load_walk_start(&walk, plan, segment, &tile->info);
	while (wcx_load_walk_next(&walk, &copy)) {
		check_copy(&walk, &copy, targets, count);
		append(text, "%c%zux%zu", bytes ? ',' : ':', copy.rows, copy.row_bytes);
		bytes += copy.rows * copy.row_bytes;
	}
	CHECK(is_copied == (bytes > 0));
	return bytes;
}

/* What tiles of a batch use of queue, buffers and stage must not overlap, and must fit. */
static void check_places(const struct wcx_load_plan *plan, const struct wcx_load_batch *batch)
{
	size_t end = 0, stage_end = 0;

	for (uint32_t p = 0; p < batch->piece_count; p++) {
		const struct wcx_load_piece *piece = &batch->pieces[p];
		size_t literal_end = piece->literals_at;

		CHECK(piece->at >= end && piece->at % 16 == 0);
		CHECK(piece->at + piece->packed_bytes <= piece->literals_at && piece->literals_at % 16 == 0);
		CHECK(piece->packed_offset == batch->tiles[piece->first].info.packed_offset);
		for (uint32_t i = 0; i < piece->count; i++) {
			const struct wcx_load_tile *tile = &batch->tiles[piece->first + i];
			const size_t tile_bytes = wcx_tile_dims_bytes(&tile->info.dims);
			const size_t start = (size_t)(tile->info.packed_offset - piece->packed_offset);

			CHECK(start + tile->info.packed_bytes <= piece->packed_bytes);
			if (tile->way == WCX_LOAD_LITERAL) {
				CHECK(tile->at >= literal_end && tile->at % 16 == 0);
				literal_end = tile->at + tile_bytes;
			} else if (tile->way == WCX_LOAD_STAGED) {
				CHECK(tile->at >= stage_end && tile->at % 8 == 0);
				stage_end = tile->at + tile_bytes;
			} else {
				CHECK(tile->at == piece->at + start);
			}
		}
		end = piece->end_at;
		CHECK(literal_end <= end);
		CHECK(end - (plan->is_pinned ? piece->literals_at : piece->at) <= WCX_LOAD_BUFFER_BYTES);
	}
	CHECK(end == batch->sent_bytes && end <= plan->queue_bytes);
	CHECK(stage_end <= batch->stage_bytes && batch->stage_bytes <= WCX_LOAD_STAGE_BYTES);
}

/* Plans a load, and describes all its tiles in the order of tasks. */
static void describe_plan(const struct wcx_target *targets, size_t count, bool is_pinned, char text[TEXT_BYTES])
{
	struct wcx_load_batch *batch = malloc(sizeof *batch);
	struct wcx_error err = { "" };
	struct wcx_load_plan plan;
	uint64_t bytes = 0;

	*text = '\0';
	CHECK(wcx_load_plan_make(container, is_pinned ? PINNED_QUEUE_BYTES : 0, targets, count, &plan, &err) == 0);
	for (size_t i = 0; i < count; i++)
		bytes += targets[i].bytes;
	wcx_load_batch_clear(batch);
	for (size_t w = 0; w < plan.task_count; w++)
		for (uint64_t done = 0; done < plan.tasks[w].tile_count;) {
			const struct wcx_load_piece *piece = wcx_load_batch_extend(&plan, &plan.tasks[w], done, batch);

			if (!piece) {
				sample_require(CHECK(batch->piece_count > 0), "a piece in a batch");
				wcx_load_batch_clear(batch);
				continue;
			}
			sample_require(CHECK(piece->count > 0), "a tile in a piece");
			check_places(&plan, batch);
			for (uint32_t i = 0; i < piece->count; i++)
				bytes -= describe_tile(&plan, piece->segment, &batch->tiles[piece->first + i], targets,
						       count, text);
			done += piece->count;
		}
	CHECK(bytes == 0); /* none is left out, none is brought twice */
	wcx_load_plan_free(&plan);
	free(batch);
}

/* Ranges within a tensor, whose destinations are `shift` bytes behind a multiple of 256; and what is planned for them. */
struct plan_case {
	const char *tensor;
	size_t shift;
	uint64_t ranges[TARGETS_MAX][2]; /* start, bytes */
	const char *expected;
};

static void check_cases(const struct plan_case *cases, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct wcx_segment *segment = segment_named(cases[i].tensor);
		struct wcx_target targets[TARGETS_MAX];
		char text[TEXT_BYTES];
		size_t target_count = 0;

		for (; target_count < TARGETS_MAX && cases[i].ranges[target_count][1]; target_count++) {
			const uint64_t *range = cases[i].ranges[target_count];
			const uintptr_t address = DEVICE_ADDRESS * (target_count + 1) + cases[i].shift;

			targets[target_count] =
				(struct wcx_target){ segment->offset + range[0], range[1] == ALL ? segment->bytes : range[1],
						     (void *)address };
		}
		for (int is_pinned = 0; is_pinned < 2; is_pinned++) {
			describe_plan(targets, target_count, is_pinned, text);
			if (!CHECK_TEXT(text, cases[i].expected))
				fprintf(stderr, "\tcase %zu: %s\n", i, cases[i].tensor);
		}
	}
}

static void tiles_are_decoded_in_place_where_possible(void)
{
	static const struct plan_case cases[] = {
		{ "rows", 0, { { 0, ALL } }, "0D 1D 2D" },
		{ "rows", 4, { { 0, ALL } }, "0D 1D 2D" },
		{ "rows", 1, { { 0, ALL } }, "0S:1x4000 1S:1x4000 2S:1x4000" },
		{ "rows", 0, { { 0, 10000 } }, "0D 1D 2S:1x2000" },
		{ "rows", 0, { { 0, 4000 }, { 4000, 4000 } }, "0D 1D" },
		{ "rows", 0, { { 0, 3999 }, { 3999, 1 } }, "0S:1x3999,1x1" },
		{ "rows", 0, { { 200, 200 } }, "0S:1x200" },
		{ "wide", 0, { { 0, ALL } }, "0D 1D" },
		{ "wide", 4, { { 0, ALL } }, "0S:1x8800 1S:1x8800" }, /* elements of 8 bytes need a multiple of 8 */
		{ "noise", 3, { { 0, ALL } }, "0P:1x1000 1P:1x1000 2P:1x1000" },
		{ "constant", 3, { { 0, ALL } }, "0F 1F" },
		{ "constant", 0, { { 1, 1999 } }, "0L:1x999 1F" },
		{ "alike", 0, { { 0, ALL } }, "0L:1x1600 1L:1x800" }, /* the two bytes of the value differ */
		{ "zipped", 0, { { 0, ALL } }, "0L:1x5000 1L:1x4001" },
	};

	check_cases(cases, WCX_ARRAY_COUNT(cases));
}

static void whole_rows_of_a_tile_are_one_copy(void)
{
	static const struct plan_case cases[] = {
		{ "grid", 0, { { 0, ALL } }, "0S:20x50 1S:20x50 2S:20x50 3S:20x50" },
		{ "grid", 0, { { 300, 300 } }, "0S:3x50 1S:3x50" },
		{ "grid", 0, { { 250, 1700 } }, "0S:17x50 1S:17x50" },
		{ "grid", 0, { { 255, 1690 } }, "0S:16x50,1x45 1S:1x45,16x50" },
		{ "grid", 0, { { 0, 50 }, { 100, 50 } }, "0S:1x50,1x50 1-" },
		{ "grid", 0, { { 1900, 200 } }, "0S:1x50 1S:1x50 2S:1x50 3S:1x50" },
	};

	check_cases(cases, WCX_ARRAY_COUNT(cases));
}

/* The second range may need tiles to the left of those of the first. */
static void ranges_in_one_row_of_tiles_take_each_tile_once(void)
{
	static const struct plan_case cases[] = {
		{ "grid", 0, { { 60, 5 }, { 103, 5 } }, "0S:1x5 1S:1x5" },
		{ "grid", 0, { { 60, 5 }, { 70, 5 }, { 1999, 2 } }, "0- 1S:1x5,1x5,1x1 2S:1x1 3-" },
		{ "grid", 0, { { 103, 5 }, { 3, 5 }, { 203, 5 } }, "0S:1x5,1x5,1x5 1-" },
		{ "noise", 0, { { 900, 50 }, { 950, 100 }, { 1900, 50 } }, "0P:1x50,1x50 1P:1x50,1x50" },
		{ "noise", 0, { { 0, 1 }, { 2999, 1 } }, "0P:1x1 2P:1x1" },
	};

	check_cases(cases, WCX_ARRAY_COUNT(cases));
}

/* Plans loads of the tensors "many" and "large". */
static void plan_many_and_large(bool is_pinned, struct wcx_load_plan *plan)
{
	const struct wcx_segment *segment = segment_named("large"), *many = segment_named("many");
	const struct wcx_target targets[] = {
		{ segment->offset, segment->bytes, (void *)(uintptr_t)DEVICE_ADDRESS },
		{ many->offset, many->bytes, (void *)(uintptr_t)(64 * DEVICE_ADDRESS) },
	};

	CHECK(wcx_load_plan_make(container, is_pinned ? PINNED_QUEUE_BYTES : 0, targets, 2, plan, NULL) == 0);
	sample_require(CHECK(plan->task_count > 1 && plan->tasks[0].segment == many && plan->tasks[0].tile_count == 1500),
		       "a first task of the tensor `many`");
}

/* Constant tiles have no packed bytes. */
static void tasks_of_small_loads_have_at_most_2_mib_and_48_of_pinned_files(void)
{
	static const uint64_t large[] = { 32, 32, 16 };
	struct wcx_load_plan plan;

	plan_many_and_large(false, &plan);
	if (CHECK(plan.task_count == 4))
		for (size_t i = 0; i < WCX_ARRAY_COUNT(large); i++)
			CHECK(plan.tasks[1 + i].tile_count == large[i]);
	wcx_load_plan_free(&plan);
	plan_many_and_large(true, &plan);
	CHECK(plan.task_count == 2 && plan.tasks[1].tile_count == 80);
	wcx_load_plan_free(&plan);
}

/* Of a tensor of 16 MiB that packs to about 0.84 of that. */
static void pieces_fill_a_buffer_or_the_memory_of_a_queue(void)
{
	static const struct sample_part big[] = {
		{ { "big", "I8", "[256,65536]", 16777216, SAMPLE_GAUSSIAN, 20 },
		  65536,
		  1,
		  65536,
		  &sample_1_byte_pairs,
		  0,
		  0 },
	};
	struct sample_bytes original = sample_original(big, 1), packed = sample_image(original, big, 1);
	struct wcx_container *whole;
	struct wcx_error err = { "" };

	sample_require(wcx_container_open(sample_open(packed.data, packed.bytes), "big.wcx", &whole, &err) == 0, err.text);
	for (int is_pinned = 0; is_pinned < 2; is_pinned++) {
		const size_t space = is_pinned ? PINNED_QUEUE_BYTES : WCX_LOAD_BUFFER_BYTES;
		const struct wcx_segment *segment = wcx_container_segment(whole, 1);
		const struct wcx_target target = { segment->offset, segment->bytes, (void *)(uintptr_t)DEVICE_ADDRESS };
		struct wcx_load_batch *batch = malloc(sizeof *batch);
		const struct wcx_load_piece *piece;
		struct wcx_load_plan plan;

		CHECK(wcx_load_plan_make(whole, is_pinned ? PINNED_QUEUE_BYTES : 0, &target, 1, &plan, &err) == 0);
		wcx_load_batch_clear(batch);
		plan.tasks[0].tile_count = segment->tile_count;
		piece = wcx_load_batch_extend(&plan, &plan.tasks[0], 0, batch);
		CHECK(plan.task_count > 1 && piece && piece->count < segment->tile_count);
		CHECK(piece->packed_bytes > space / 10 * 8 && piece->packed_bytes <= space);
		wcx_load_plan_free(&plan);
		free(batch);
	}
	wcx_container_free(whole);
	free(original.data);
	free(packed.data);
}

static void batches_take_pieces_of_several_tensors_until_they_are_full(void)
{
	struct wcx_load_batch *batch = malloc(sizeof *batch);
	const struct wcx_load_piece *piece;
	struct wcx_load_plan plan;

	plan_many_and_large(false, &plan);
	wcx_load_batch_clear(batch);
	piece = wcx_load_batch_extend(&plan, &plan.tasks[0], 0, batch);
	CHECK(piece && piece->count == WCX_LOAD_BATCH_TILES && piece->segment == plan.tasks[0].segment);
	CHECK(!wcx_load_batch_extend(&plan, &plan.tasks[0], WCX_LOAD_BATCH_TILES, batch));
	CHECK(batch->piece_count == 1 && batch->tile_count == WCX_LOAD_BATCH_TILES);
	wcx_load_batch_clear(batch);
	piece = wcx_load_batch_extend(&plan, &plan.tasks[0], WCX_LOAD_BATCH_TILES, batch);
	CHECK(piece && piece->count == 476);
	piece = wcx_load_batch_extend(&plan, &plan.tasks[1], 0, batch);
	CHECK(piece == &batch->pieces[1] && piece->first == 476 && piece->count == 32);
	CHECK(piece->segment == plan.tasks[1].segment && batch->tile_count == 508);
	check_places(&plan, batch);
	wcx_load_batch_cut(batch, 5);
	CHECK(batch->piece_count == 2 && piece->count == 5 && batch->tile_count == 481);
	wcx_load_batch_cut(batch, 0);
	CHECK(batch->piece_count == 1 && batch->tile_count == 476);
	wcx_load_batch_clear(batch);
	for (uint32_t i = 0; i < WCX_LOAD_BATCH_PIECES; i++)
		CHECK(wcx_load_batch_extend(&plan, &plan.tasks[0], 1499, batch));
	CHECK(!wcx_load_batch_extend(&plan, &plan.tasks[0], 1499, batch));
	wcx_load_plan_free(&plan);
	free(batch);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(tiles_are_decoded_in_place_where_possible),
		CHECK_TEST(whole_rows_of_a_tile_are_one_copy),
		CHECK_TEST(ranges_in_one_row_of_tiles_take_each_tile_once),
		CHECK_TEST(tasks_of_small_loads_have_at_most_2_mib_and_48_of_pinned_files),
		CHECK_TEST(pieces_fill_a_buffer_or_the_memory_of_a_queue),
		CHECK_TEST(batches_take_pieces_of_several_tensors_until_they_are_full),
	};
	struct sample_bytes original = sample_original(parts, WCX_ARRAY_COUNT(parts)), packed;
	uint8_t *alike = original.data + 8 + wcx_le64_read(original.data);
	struct wcx_error err = { "" };
	int r;

	for (size_t i = 0; strcmp(parts[i].tensor.name, "alike") != 0; i++)
		alike += parts[i].tensor.bytes;
	for (size_t i = 0; i < 2400; i += 2)
		wcx_le16_write(alike + i, 0x2517);
	packed = sample_image(original, parts, WCX_ARRAY_COUNT(parts));
	sample_require(wcx_container_open(sample_open(packed.data, packed.bytes), "plan.wcx", &container, &err) == 0,
		       err.text);
	r = check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
	wcx_container_free(container);
	free(original.data);
	free(packed.data);
	return r;
}
