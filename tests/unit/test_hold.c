/* SPDX-License-Identifier: MIT */
/* Held parts: packed tiles in memory, decoded by a fake GPU that has the bytes that it was given, and nothing else. */
#include "fs/lib/hold.h"

#include "tests/unit/load_samples.h"

/* --- the fake: device memory is host memory --- */

struct fake_item {
	struct wcx_tile_job job;
	size_t src;
	uint64_t dst;
};

struct wcx_gpu_hold {
	bool on_device, is_sealed;
	size_t bytes;
	uint8_t *buffer; /* until sealed */
	uint8_t *kept;   /* after that */
	struct fake_item *items;
	struct wcx_hold_copy *copies;
	size_t item_count, copy_count;
	uint32_t failed;
	enum wcx_result result;
};

static unsigned open_holds;
static enum wcx_result open_result = WCX_OK;

enum wcx_result __wrap_wcx_gpu_hold_open(int device, size_t bytes, bool on_device, struct wcx_gpu_hold **ret);
void __wrap_wcx_gpu_hold_free(struct wcx_gpu_hold *hold);
uint8_t *__wrap_wcx_gpu_hold_buffer(struct wcx_gpu_hold *hold);
enum wcx_result __wrap_wcx_gpu_hold_add(struct wcx_gpu_hold *hold, const struct wcx_tile_job *job, uint64_t dst);
enum wcx_result __wrap_wcx_gpu_hold_copy(struct wcx_gpu_hold *hold, const struct wcx_hold_copy *copy);
enum wcx_result __wrap_wcx_gpu_hold_seal(struct wcx_gpu_hold *hold);
size_t __wrap_wcx_gpu_hold_bytes(const struct wcx_gpu_hold *hold);
enum wcx_result __wrap_wcx_gpu_hold_fetch(struct wcx_gpu_hold *hold, uint64_t place, void *stream);
enum wcx_result __wrap_wcx_gpu_hold_decode(struct wcx_gpu_hold *hold, uint64_t place, uint64_t base, void *stream);
enum wcx_result __wrap_wcx_gpu_hold_status(struct wcx_gpu_hold *hold, void *stream, uint32_t *failed_ret);

enum wcx_result __wrap_wcx_gpu_hold_open(int device, size_t bytes, bool on_device, struct wcx_gpu_hold **ret)
{
	(void)device;
	if (open_result != WCX_OK)
		return open_result;
	*ret = calloc(1, sizeof **ret);
	**ret = (struct wcx_gpu_hold){ .on_device = on_device, .bytes = bytes, .buffer = malloc(bytes + 1) };
	open_holds++;
	return WCX_OK;
}

void __wrap_wcx_gpu_hold_free(struct wcx_gpu_hold *hold)
{
	if (!hold)
		return;
	free(hold->buffer);
	free(hold->kept);
	free(hold->items);
	free(hold->copies);
	free(hold);
	open_holds--;
}

uint8_t *__wrap_wcx_gpu_hold_buffer(struct wcx_gpu_hold *hold)
{
	return hold->buffer;
}

enum wcx_result __wrap_wcx_gpu_hold_add(struct wcx_gpu_hold *hold, const struct wcx_tile_job *job, uint64_t dst)
{
	const size_t src = (size_t)(job->src - hold->buffer);

	CHECK(job->mode == WCX_TILE_CODED && src % 4 == 0 && src + job->src_bytes <= hold->bytes);
	CHECK(dst % wcx_word_bytes(job->dims.elem_bytes) == 0);
	hold->items = realloc(hold->items, (hold->item_count + 1) * sizeof *hold->items);
	hold->items[hold->item_count++] = (struct fake_item){ *job, src, dst };
	return WCX_OK;
}

enum wcx_result __wrap_wcx_gpu_hold_copy(struct wcx_gpu_hold *hold, const struct wcx_hold_copy *copy)
{
	CHECK(copy->is_fill || copy->src + (copy->rows - 1) * copy->src_pitch + copy->row_bytes <= hold->bytes);
	hold->copies = realloc(hold->copies, (hold->copy_count + 1) * sizeof *hold->copies);
	hold->copies[hold->copy_count++] = *copy;
	return WCX_OK;
}

enum wcx_result __wrap_wcx_gpu_hold_seal(struct wcx_gpu_hold *hold)
{
	hold->kept = malloc(hold->bytes + 1);
	memcpy(hold->kept, hold->buffer, hold->bytes);
	memset(hold->buffer, 0xEE, hold->bytes);
	free(hold->buffer);
	hold->buffer = NULL;
	hold->is_sealed = true;
	return WCX_OK;
}

size_t __wrap_wcx_gpu_hold_bytes(const struct wcx_gpu_hold *hold)
{
	return hold->bytes;
}

enum wcx_result __wrap_wcx_gpu_hold_fetch(struct wcx_gpu_hold *hold, uint64_t place, void *stream)
{
	(void)stream;
	if (!hold->on_device)
		memcpy((void *)(uintptr_t)place, hold->kept, hold->bytes);
	return WCX_OK;
}

enum wcx_result __wrap_wcx_gpu_hold_decode(struct wcx_gpu_hold *hold, uint64_t place, uint64_t base, void *stream)
{
	const uint8_t *region = hold->on_device ? hold->kept : (const uint8_t *)(uintptr_t)place;
	struct wcx_decode_scratch *scratch = wcx_decode_scratch_create(wcx_decode_variant_choose());

	(void)stream;
	CHECK(hold->is_sealed);
	hold->result = WCX_OK;
	for (size_t i = 0; i < hold->item_count; i++) {
		struct wcx_tile_job job = hold->items[i].job;

		job.src = region + hold->items[i].src;
		job.dst = (uint8_t *)(uintptr_t)(base + hold->items[i].dst);
		if (wcx_tile_decode(&job, scratch) != WCX_OK && hold->result == WCX_OK) {
			hold->result = WCX_BAD_DATA;
			hold->failed = (uint32_t)i;
		}
	}
	for (size_t i = 0; i < hold->copy_count; i++) {
		const struct wcx_hold_copy *copy = &hold->copies[i];

		for (size_t row = 0; row < copy->rows; row++)
			memcpy((uint8_t *)(uintptr_t)(base + copy->dst) + row * copy->dst_pitch,
			       region + copy->src + row * copy->src_pitch, copy->row_bytes);
	}
	wcx_decode_scratch_free(scratch);
	return WCX_OK;
}

enum wcx_result __wrap_wcx_gpu_hold_status(struct wcx_gpu_hold *hold, void *stream, uint32_t *failed_ret)
{
	(void)stream;
	*failed_ret = hold->failed;
	return hold->result;
}

/* --- tests --- */

/* Destinations for ranges, as make_memory lays them out, counted from the start of the memory. */
static void make_held_memory(struct memory *memory, const struct sample *sample, const struct range *ranges, size_t count,
			     struct sample_random *random)
{
	make_memory(memory, sample, ranges, count, random);
	for (size_t i = 0; i < count; i++)
		memory->targets[i].dst = (void *)(uintptr_t)((uint8_t *)memory->targets[i].dst - memory->bytes);
}

/* Whether a held part of a file writes the bytes of the original to the targets, twice, and nothing else. */
static bool holds_right(struct wcx_loader *loader, const struct sample *sample, const struct range *ranges, size_t count,
			bool on_device, struct sample_random *random)
{
	struct wcx_held *held = NULL;
	char error[ERROR_BYTES] = "";
	struct memory memory;
	bool is_right;

	make_held_memory(&memory, sample, ranges, count, random);
	is_right = wcx_held_open(loader, sample->file, memory.targets, count, on_device, &held, error, sizeof error) == 0;
	for (int i = 0; i < 2 && is_right; i++) {
		uint8_t *place = on_device ? NULL : malloc(wcx_held_bytes(held) + 1);

		memcpy(memory.bytes, memory.before, memory.size);
		is_right = wcx_held_fetch(held, place, NULL, error, sizeof error) == 0 &&
			   wcx_held_decode(held, place, memory.bytes, NULL, error, sizeof error) == 0 &&
			   wcx_held_check(held, NULL, error, sizeof error) == 0 &&
			   memcmp(memory.bytes, memory.expected, memory.size) == 0;
		free(place);
	}
	if (error[0])
		fprintf(stderr, "\t%s\n", error);
	wcx_held_close(held);
	free_memory(&memory);
	return is_right;
}

static void tensors_of_every_kind_are_held(void)
{
	struct sample_random random = { seed };
	struct wcx_loader *loader = open_loader(3);
	struct range ranges[200];

	for (int f = 0; f < FILES; f++)
		for (int on_device = 0; on_device < 2; on_device++) {
			const size_t aligned = ranges_of_tensors(&samples[f], ranges, NULL);

			CHECK(holds_right(loader, &samples[f], ranges, aligned, on_device, &random));
			ranges_of_tensors(&samples[f], ranges, &random);
			CHECK(holds_right(loader, &samples[f], ranges, aligned, on_device, &random));
			for (size_t i = 0; i < aligned; i += 3)
				CHECK(holds_right(loader, &samples[f], &ranges[i], 1, on_device, &random));
		}
	wcx_loader_close(loader);
}

static void parts_of_tensors_are_held(void)
{
	struct sample_random random = { seed };
	struct wcx_loader *loader = open_loader(2);

	for (int f = 0; f < FILES; f++)
		for (int i = 0; i < 20; i++) {
			const uint64_t total = samples[f].original.bytes, a = sample_below(&random, total);
			const uint64_t b = a + sample_below(&random, total - a + 1);
			const struct range range = { a, b - a, (size_t)sample_below(&random, 8) };

			CHECK(holds_right(loader, &samples[f], &range, 1, i & 1, &random));
		}
	wcx_loader_close(loader);
}

/* Tensors of the packer, at multiples of 8, take about as much memory as in the file: their coded tiles are held packed. */
static void what_the_packer_makes_stays_packed(void)
{
	const struct sample *sample = &samples[PACKED];
	struct sample_random random = { seed };
	struct wcx_loader *loader = open_loader(2);
	struct range ranges[200];
	const size_t count = ranges_of_tensors(sample, ranges, NULL);
	struct wcx_held *held = NULL;
	struct memory memory;

	make_held_memory(&memory, sample, ranges, count, &random);
	CHECK(wcx_held_open(loader, sample->file, memory.targets, count, 1, &held, NULL, 0) == 0);
	CHECK(held->coded_count > 0);
	CHECK(wcx_held_bytes(held) < sample->packed.bytes * 5 / 4);
	wcx_held_close(held);
	free_memory(&memory);
	wcx_loader_close(loader);
}

static void damage_is_found_when_a_part_is_opened(void)
{
	const struct sample *sample = &samples[PACKED];
	struct wcx_loader *loader = open_loader(2);
	struct sample_random random = { seed };
	unsigned damaged = 0;

	for (size_t i = 0; i < sample->st->tensor_count; i++) {
		const struct wcx_tensor *tensor = &sample->st->tensors[i];
		const struct wcx_segment *seg = segment_of(sample, tensor->name);
		const struct wcx_target target = { tensor->offset, tensor->bytes, NULL };
		char error[ERROR_BYTES] = "", expected[ERROR_BYTES];
		const struct range range = { tensor->offset, tensor->bytes, 0 };
		struct wcx_held *held = NULL;
		struct wcx_tile_info info;

		if (!tensor->bytes)
			continue;
		wcx_container_tile(sample->container, seg, wcx_segment_tile_at(seg, tensor->offset), &info);
		if (info.mode == WCX_TILE_CONSTANT)
			continue;
		change_byte(sample, info.packed_offset + info.packed_bytes / 2, 0x10);
		CHECK(wcx_held_open(loader, sample->file, &target, 1, 1, &held, error, sizeof error) == -EBADMSG && !held);
		tile_text(sample, tensor->name, seg, &info, "damaged", expected);
		CHECK_TEXT(error, expected);
		change_byte(sample, info.packed_offset + info.packed_bytes / 2, 0x10);
		CHECK(holds_right(loader, sample, &range, 1, false, &random));
		damaged++;
	}
	CHECK(damaged > 3);
	wcx_loader_close(loader);
}

static void errors_of_the_gpu_are_reported(void)
{
	const struct sample *sample = &samples[PACKED];
	const struct wcx_target target = { sample->st->tensors[0].offset, 64, NULL };
	struct wcx_loader *loader = open_loader(1);
	struct wcx_held *held = NULL;
	char error[ERROR_BYTES] = "";

	open_result = WCX_NO_MEMORY;
	CHECK(wcx_held_open(loader, sample->file, &target, 1, 1, &held, error, sizeof error) == -ENOMEM && !held);
	CHECK(strstr(error, "no memory"));
	open_result = WCX_DEVICE_FAILED;
	CHECK(wcx_held_open(loader, sample->file, &target, 1, 1, &held, error, sizeof error) == -EIO && !held);
	CHECK(strstr(error, "the GPU failed"));
	open_result = WCX_OK;
	CHECK(wcx_held_open(loader, sample->file, &target, 1, 1, &held, NULL, 0) == 0);
	held->gpu->result = WCX_DEVICE_FAILED;
	CHECK(wcx_held_check(held, NULL, error, sizeof error) == -EIO);
	wcx_held_close(held);
	wcx_held_close(NULL);
	wcx_loader_close(loader);
	CHECK(open_holds == 0);
}

/* A tile with a valid checksum whose coding is not: only decoding can tell, and the check names the tile. */
static void the_check_names_a_tile_that_cannot_be_decoded(void)
{
	const struct sample *sample = &samples[PACKED];
	struct sample_random random = { seed };
	struct wcx_loader *loader = open_loader(1);
	struct range ranges[200];
	const size_t count = ranges_of_tensors(sample, ranges, NULL);
	struct wcx_held *held = NULL;
	char error[ERROR_BYTES] = "";
	struct memory memory;

	make_held_memory(&memory, sample, ranges, count, &random);
	CHECK(wcx_held_open(loader, sample->file, memory.targets, count, 1, &held, NULL, 0) == 0);
	CHECK(held->coded_count > 1);
	memset(held->gpu->kept + held->gpu->items[1].src + 8, 0xFF, held->gpu->items[1].job.src_bytes - 8);
	CHECK(wcx_held_decode(held, NULL, memory.bytes, NULL, NULL, 0) == 0);
	CHECK(wcx_held_check(held, NULL, error, sizeof error) == -EBADMSG);
	CHECK(strncmp(error, sample->path, strlen(sample->path)) == 0 && strstr(error, "tile") && strstr(error, "damaged"));
	wcx_held_close(held);
	free_memory(&memory);
	wcx_loader_close(loader);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(tensors_of_every_kind_are_held),     CHECK_TEST(parts_of_tensors_are_held),
		CHECK_TEST(what_the_packer_makes_stays_packed), CHECK_TEST(damage_is_found_when_a_part_is_opened),
		CHECK_TEST(errors_of_the_gpu_are_reported),     CHECK_TEST(the_check_names_a_tile_that_cannot_be_decoded),
	};

	return load_tests_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
