/* SPDX-License-Identifier: MIT */
/* Packed files for the tests of loading, and loads of them that are compared with the original. */
#ifndef WCX_LOAD_SAMPLES_H
#define WCX_LOAD_SAMPLES_H

#include "fs/format/safetensors.h"
#include "fs/lib/wcx.h"
#include "fs/pack/pack.h"
#include "tests/fixtures/sample_family.h"
#include "tests/unit/load_fake_gpu.h"

enum { ERROR_BYTES = 700 };

/* --- files --- */

/* Tiles of all modes and recipes, with parts of rows, whole rows, and matrices of one row. */
static const struct sample_part mixed_parts[] = {
	{ { "squares", "I8", "[130,170]", 22100, SAMPLE_GAUSSIAN, 20 }, 170, 40, 50, &sample_1_byte, 0, 0 },
	{ { "left", "I8", "[90,301]", 27090, SAMPLE_STUDENT, 9 }, 301, 32, 70, &sample_1_byte_left, 0, 0 },
	{ { "wide", "F64", "[5,1100]", 44000, SAMPLE_GAUSSIAN, 2 }, 5500, 1, 1500, &sample_8_bytes, 0, 0 },
	{ { "again", "I8", "[22100]", 22100, SAMPLE_UNIFORM, 0 }, 0, 0, 0, NULL, 0, 1 },
	{ { "above", "I16", "[70,201]", 28140, SAMPLE_GAUSSIAN, 4 }, 201, 13, 201, &sample_2_bytes_split, 0, 0 },
	{ { "both", "I32", "[57,129]", 29412, SAMPLE_STUDENT, 3 }, 129, 30, 50, &sample_4_bytes_left2, 0, 0 },
	{ { "folded", "I8", "[80,251]", 20080, SAMPLE_GAUSSIAN, 9 }, 251, 15, 251, &sample_1_byte_pairs, 0, 0 },
	{ { "odd", "I8", "[59,133]", 7847, SAMPLE_STUDENT, 5 }, 133, 23, 61, &sample_1_byte_pairs, 0, 0 },
	{ { "sparse", "F16", "[100,150]", 30000, SAMPLE_GAUSSIAN, 0.4 }, 150, 33, 150, &sample_2_bytes_zero, 0, 0 },
	{ { "zipped", "I8", "[4,3001]", 12004, SAMPLE_GAUSSIAN, 3 }, 3001, 2, 3001, &sample_1_byte_plain, 1, 0 },
	{ { "zipped.rows", "I8", "[9001]", 9001, SAMPLE_GAUSSIAN, 3 }, 9001, 1, 2001, &sample_1_byte_plain, 1, 0 },
	{ { "noise", "U8", "[50,90]", 4500, SAMPLE_UNIFORM, 0 }, 90, 20, 40, &sample_1_byte, 0, 0 },
	{ { "noise.rows", "U32", "[999]", 3996, SAMPLE_UNIFORM, 0 }, 999, 1, 300, &sample_4_bytes, 0, 0 },
	{ { "constant", "U8", "[50,60]", 3000, SAMPLE_CONSTANT, 0 }, 60, 20, 60, &sample_1_byte, 0, 0 },
	{ { "constant.f32", "F32", "[30,60]", 7200, SAMPLE_CONSTANT, 0 }, 60, 20, 60, &sample_4_bytes, 0, 0 },
	{ { "constant.grid", "U8", "[50,60]", 3000, SAMPLE_CONSTANT, 0 }, 60, 20, 17, &sample_1_byte, 0, 0 },
	{ { "alike.i16", "I16", "[30,60]", 3600, SAMPLE_UNIFORM, 0 }, 60, 7, 60, &sample_2_bytes, 0, 0 },
	{ { "alike.i32", "I32", "[30,60]", 7200, SAMPLE_UNIFORM, 0 }, 60, 7, 25, &sample_4_bytes, 0, 0 },
	{ { "alike.i64", "I64", "[300]", 2400, SAMPLE_UNIFORM, 0 }, 300, 1, 80, &sample_8_bytes, 0, 0 },
	{ { "zero.i64", "I64", "[300]", 2400, SAMPLE_UNIFORM, 0 }, 300, 1, 90, &sample_8_bytes, 0, 0 },
	{ { "pool.a", "I8", "[777]", 777, SAMPLE_GAUSSIAN, 5 }, 3000, 1, 500, &sample_1_byte_left, 0, 0 },
	{ { "pool.b", "I8", "[900]", 900, SAMPLE_GAUSSIAN, 5 }, 0, 0, 0, NULL, 0, 0 },
	{ { "pool.c", "I8", "[1323]", 1323, SAMPLE_GAUSSIAN, 5 }, 0, 0, 0, NULL, 0, 0 },
};

/* More than a batch can take: too many tiles; Zstandard tiles and their decoded bytes. */
static const struct sample_part long_parts[] = {
	{ { "many", "I8", "[70,60]", 4200, SAMPLE_GAUSSIAN, 30 }, 60, 1, 3, &sample_1_byte, 0, 0 },
	{ { "zipped", "I8", "[43,65000]", 2795000, SAMPLE_GAUSSIAN, 40 }, 65000, 1, 65000, &sample_1_byte_plain, 1, 0 },
	{ { "coded", "I8", "[500,4000]", 2000000, SAMPLE_GAUSSIAN, 12 }, 4000, 16, 4000, &sample_1_byte, 0, 0 },
};

/* For the packer: all dtypes, with sizes for each kind of segment. */
static const struct sample_tensor packed_tensors[] = {
	{ "q.weight", "I8", "[1100,2000]", 2200000, SAMPLE_GAUSSIAN, 20 },
	{ "q.scale", "F32", "[1100,1]", 4400, SAMPLE_GAUSSIAN, 1 },
	{ "bf16", "BF16", "[700,901]", 1261400, SAMPLE_GAUSSIAN, 1 },
	{ "f16", "F16", "[301,500]", 301000, SAMPLE_GAUSSIAN, 1 },
	{ "f32", "F32", "[200,501]", 400800, SAMPLE_GAUSSIAN, 1 },
	{ "f64", "F64", "[50,333]", 133200, SAMPLE_GAUSSIAN, 1 },
	{ "c64", "C64", "[50,99]", 39600, SAMPLE_STUDENT, 9 },
	{ "e4m3", "F8_E4M3", "[300,400]", 120000, SAMPLE_GAUSSIAN, 12 },
	{ "e5m2", "F8_E5M2", "[300,401]", 120300, SAMPLE_STUDENT, 9 },
	{ "e8m0", "F8_E8M0", "[3000]", 3000, SAMPLE_GAUSSIAN, 2 },
	{ "f4", "F4", "[1000,31]", 15500, SAMPLE_STUDENT, 40 },
	{ "f6", "F6_E2M3", "[400,50]", 15000, SAMPLE_STUDENT, 40 },
	{ "bool", "BOOL", "[1000,70]", 70000, SAMPLE_UNIFORM, 0 },
	{ "u8", "U8", "[70001]", 70001, SAMPLE_UNIFORM, 0 },
	{ "i16", "I16", "[170,131]", 44540, SAMPLE_GAUSSIAN, 3 },
	{ "u16", "U16", "[22270]", 44540, SAMPLE_STUDENT, 3 },
	{ "i32", "I32", "[170,131]", 89080, SAMPLE_GAUSSIAN, 1 },
	{ "u32", "U32", "[22270]", 89080, SAMPLE_STUDENT, 1 },
	{ "i64", "I64", "[9001]", 72008, SAMPLE_UNIFORM, 0 },
	{ "u64", "U64", "[9001]", 72008, SAMPLE_STUDENT, 1 },
	{ "constant", "F32", "[40001]", 160004, SAMPLE_CONSTANT, 0 },
	{ "one", "BF16", "[1]", 2, SAMPLE_GAUSSIAN, 1 },
	{ "empty", "F32", "[0,5]", 0, SAMPLE_GAUSSIAN, 1 },
	{ "scalar", "I64", "[]", 8, SAMPLE_UNIFORM, 0 },
	{ "norm.0", "BF16", "[500]", 1000, SAMPLE_GAUSSIAN, 1 },
	{ "norm.1", "BF16", "[30,100]", 6000, SAMPLE_GAUSSIAN, 1 },
	{ "e4m3.twin", "F8_E4M3", "[120000]", 120000, SAMPLE_CONSTANT, 0 },
};

enum { SMALL, MIXED, LONG, PACKED, REFERENCE, TUNED, FILES };

/* An open packed file.  container and st are parsed by the test itself. */
static struct sample {
	char *path;
	struct sample_bytes original, packed;
	struct wcx_file *file;
	struct wcx_container *container;
	struct wcx_safetensors *st;
} samples[FILES];

static char *dir;

/* Normally distributed numbers with a standard deviation of 0.02, in the dtype's format. */
static inline void fill_floats(const char *dtype, struct sample_random *random, uint8_t *dst, size_t bytes)
{
	const size_t elem_bytes = strcmp(dtype, "F64") == 0 ? 8 : strcmp(dtype, "F32") == 0 ? 4 : 2;

	for (size_t at = 0; at < bytes; at += elem_bytes) {
		const double value = 0.02 * sample_normal(random);
		const float narrow = (float)value;
		uint32_t bits;

		memcpy(&bits, &narrow, 4);
		if (elem_bytes == 8)
			memcpy(dst + at, &value, 8);
		else if (elem_bytes == 4)
			memcpy(dst + at, &bits, 4);
		else if (strcmp(dtype, "BF16") == 0)
			wcx_le16_write(dst + at, bits >> 16);
		else /* right for all but subnormal numbers */
			wcx_le16_write(dst + at, (bits >> 16 & 0x8000) | (((bits >> 13) - (112u << 10)) & 0x7FFF));
	}
}

/* Truth values, one in ten of them true; token numbers of a vocabulary of 50,000. */
static inline void fill_integers(const char *dtype, struct sample_random *random, uint8_t *dst, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += strcmp(dtype, "BOOL") == 0 ? 1 : 8) {
		if (strcmp(dtype, "BOOL") == 0)
			dst[at] = sample_below(random, 10) == 0;
		else
			wcx_le64_write(dst + at, sample_below(random, 50000));
	}
}

/* Fills tensors of some dtypes with values as models have them. */
static inline void fill_as_models_do(struct sample_bytes original)
{
	struct sample_random random = { 12 };
	uint8_t *dst = original.data + 8 + wcx_le64_read(original.data), *e4m3 = NULL;

	for (size_t i = 0; i < WCX_ARRAY_COUNT(packed_tensors); dst += packed_tensors[i++].bytes) {
		const struct sample_tensor *tensor = &packed_tensors[i];

		if (strcmp(tensor->name, "e4m3") == 0)
			e4m3 = dst;
		if (strcmp(tensor->name, "e4m3.twin") == 0)
			memcpy(dst, e4m3, tensor->bytes);
		else if (tensor->kind == SAMPLE_GAUSSIAN && strstr("F64 F32 F16 BF16", tensor->dtype))
			fill_floats(tensor->dtype, &random, dst, tensor->bytes);
		else if (strstr("BOOL I64", tensor->dtype))
			fill_integers(tensor->dtype, &random, dst, tensor->bytes);
	}
}

/* Sets all elements of certain tensors to one value, whose bytes differ. */
static inline void fill_alike(struct sample_bytes original, const struct sample_part *parts, size_t count)
{
	static const struct {
		const char *name;
		uint64_t value;
		size_t elem_bytes;
	} alike[] = { { "alike.i16", 0x2517, 2 },
		      { "alike.i32", 0x5A5A5B5A, 4 },
		      { "alike.i64", 0x5A5A5A5A, 8 },
		      { "zero.i64", 0, 8 } };
	uint8_t *dst = original.data + 8 + wcx_le64_read(original.data), value[8];

	for (size_t i = 0; i < count; dst += parts[i++].tensor.bytes) {
		for (size_t a = 0; a < WCX_ARRAY_COUNT(alike); a++) {
			if (strcmp(parts[i].tensor.name, alike[a].name) != 0)
				continue;
			wcx_le64_write(value, alike[a].value);
			for (size_t at = 0; at < parts[i].tensor.bytes; at += alike[a].elem_bytes)
				memcpy(dst + at, value, alike[a].elem_bytes);
		}
	}
}

/* Opens a file whose original and path are set: file, container and st. */
static inline void open_sample(struct sample *sample)
{
	char error[ERROR_BYTES] = "";
	struct wcx_error err = { "" };
	int fd = open(sample->path, O_RDONLY | O_CLOEXEC);

	sample_require(wcx_file_open(sample->path, &sample->file, error, sizeof error) == 0, error);
	sample_require(wcx_container_open(fd, sample->path, &sample->container, &err) == 0, err.text);
	sample_require(wcx_safetensors_parse(sample->path, (const char *)sample->original.data + 8,
					     wcx_le64_read(sample->original.data), sample->original.bytes, &sample->st,
					     &err) == 0,
		       err.text);
}

static inline void close_opened(struct sample *sample)
{
	wcx_safetensors_free(sample->st);
	wcx_container_free(sample->container);
	wcx_file_close(sample->file);
}

static inline void close_sample(struct sample *sample)
{
	close_opened(sample);
	free(sample->path);
	free(sample->original.data);
	free(sample->packed.data);
}

static inline void make_by_hand(struct sample *sample, const char *name, const struct sample_part *parts, size_t count)
{
	sample->path = sample_path(dir, name);
	sample->original = sample_original(parts, count);
	fill_alike(sample->original, parts, count);
	sample->packed = sample_image(sample->original, parts, count);
	sample_write(sample->path, sample->packed);
	open_sample(sample);
}

static inline void make_with_packer(struct sample *sample, const char *name, const char *src_path, bool is_reference)
{
	struct wcx_pack_options options = { .job.thread_count = 2, .is_reference = is_reference };
	struct wcx_pack_result result;
	struct wcx_error err = { "" };

	sample->path = sample_path(dir, name);
	sample->original = sample_read(src_path);
	sample_require(wcx_pack(src_path, sample->path, &options, &result, &err) == 0, err.text);
	sample->packed = sample_read(sample->path);
	open_sample(sample);
}

/* What the packer makes of one model in both modes. */
static inline void make_packed(void)
{
	struct sample_bytes model = sample_safetensors(packed_tensors, WCX_ARRAY_COUNT(packed_tensors));
	char *src_path = sample_path(dir, "model.safetensors");

	fill_as_models_do(model);
	sample_write(src_path, model);
	make_with_packer(&samples[PACKED], "packed.wcx", src_path, false);
	make_with_packer(&samples[REFERENCE], "reference.wcx", src_path, true);
	unlink(src_path);
	free(src_path);
	free(model.data);
}

static struct wcx_container *family_base; /* of the file that is packed against it */

/* A file that is packed against a base, which is beside it. */
static inline void make_family(struct sample *sample, const char *name)
{
	struct sample_family family = sample_family_make("base.wcx");
	char *base_path = sample_path(dir, "base.wcx");

	sample_write(base_path, family.base);
	sample_require(wcx_container_open(open(base_path, O_RDONLY | O_CLOEXEC), base_path, &family_base, NULL) == 0,
		       base_path);
	free(base_path);
	sample->path = sample_path(dir, name);
	sample->original = family.tuned_original;
	sample->packed = family.tuned;
	sample_write(sample->path, sample->packed);
	free(family.base.data);
	free(family.base_original.data);
	open_sample(sample);
}

static inline void make_samples(void)
{
	dir = sample_dir_create();
	make_by_hand(&samples[SMALL], "small.wcx", sample_small_parts, SAMPLE_SMALL_PARTS);
	make_by_hand(&samples[MIXED], "mixed.wcx", mixed_parts, WCX_ARRAY_COUNT(mixed_parts));
	make_by_hand(&samples[LONG], "long.wcx", long_parts, WCX_ARRAY_COUNT(long_parts));
	make_packed();
	make_family(&samples[TUNED], "tuned.wcx");
}

/* Recomputes the checksums of index and superblock. */
static inline void seal(struct sample_bytes packed)
{
	uint64_t index = wcx_le64_read(packed.data + 40);

	wcx_le64_write(packed.data + 80, wcx_checksum64(packed.data + index, packed.bytes - index));
	wcx_le64_write(packed.data + WCX_SUPERBLOCK_BYTES - 8, wcx_checksum64(packed.data, WCX_SUPERBLOCK_BYTES - 8));
}

/* --- loads --- */

struct range {
	uint64_t offset, bytes;
	size_t shift; /* of its destination, from a multiple of 8 */
};

/* Device memory with destinations for ranges, in random order and distance.  expected is its content after the load. */
struct memory {
	uint8_t *bytes, *expected, *before;
	size_t size;
	struct wcx_target *targets;
	size_t count;
	struct stream stream;
	int slot;
};

static inline int take_slot(const uint8_t *bytes, size_t size)
{
	for (int i = 0; i < MEMORIES; i++) {
		uintptr_t none = 0;

		if (!atomic_compare_exchange_strong(&gpu.memories[i].start, &none, (uintptr_t)bytes))
			continue;
		atomic_store(&gpu.memories[i].end, (uintptr_t)bytes + size);
		return i;
	}
	sample_require(0, "a slot for memory");
	return 0;
}

/* The last destination ends where the memory ends, so that an address sanitizer sees writes beyond it. */
static inline void make_memory(struct memory *memory, const struct sample *sample, const struct range *ranges, size_t count,
			       struct sample_random *random)
{
	size_t at = 0, *order = malloc((count + 1) * sizeof *order);

	*memory = (struct memory){ .targets = calloc(count + 1, sizeof *memory->targets), .count = count };
	for (size_t i = 0; i < count; i++) {
		size_t other = (size_t)sample_below(random, i + 1);

		order[i] = order[other];
		order[other] = i;
		memory->size += (size_t)ranges[i].bytes + 48;
	}
	memory->size += 8;
	memory->bytes = malloc(memory->size);
	memory->expected = malloc(memory->size);
	memory->before = malloc(memory->size);
	sample_require(memory->bytes && memory->expected && memory->before, "malloc");
	scribble(random, memory->bytes, memory->size);
	scribble(random, memory->before, memory->size);
	memcpy(memory->expected, memory->before, memory->size);
	for (size_t i = 0; i < count; i++) {
		const struct range *range = &ranges[order[i]];

		at += 8 + (size_t)sample_below(random, 32);
		at = (at + 7) / 8 * 8 + range->shift - ((uintptr_t)memory->bytes & 7);
		memory->targets[order[i]] = (struct wcx_target){ range->offset, range->bytes, memory->bytes + at };
		if (range->offset <= sample->original.bytes && range->bytes <= sample->original.bytes - range->offset)
			memcpy(memory->expected + at, sample->original.data + range->offset, (size_t)range->bytes);
		at += (size_t)range->bytes;
	}
	memory->stream = (struct stream){ memory->bytes, memory->before, memory->size, 0 };
	memory->slot = take_slot(memory->bytes, memory->size);
	free(order);
}

static inline void free_memory(struct memory *memory)
{
	atomic_store(&gpu.memories[memory->slot].end, 0);
	atomic_store(&gpu.memories[memory->slot].start, 0);
	free(memory->bytes);
	free(memory->expected);
	free(memory->before);
	free(memory->targets);
}

static inline int load_into(struct wcx_loader *loader, const struct sample *sample, struct memory *memory, char *error,
			    size_t error_bytes)
{
	int r;

	last_loader = NULL;
	r = wcx_load(loader, sample->file, memory->targets, memory->count, &memory->stream, error, error_bytes);
	finish_stream(&memory->stream);
	CHECK(!last_loader || is_idle(last_loader));
	return r;
}

/* Whether everything but the targets, whose contents are undefined after an error, is unchanged. */
static inline bool rest_is_untouched(struct memory *memory)
{
	for (size_t i = 0; i < memory->count; i++) {
		const uint8_t *dst = memory->targets[i].dst;

		memcpy(memory->expected + (dst - memory->bytes), dst, (size_t)memory->targets[i].bytes);
	}
	return memcmp(memory->bytes, memory->expected, memory->size) == 0;
}

/* Whether loading ranges writes the bytes of the original to the targets, and nothing else. */
static inline bool loads_right(struct wcx_loader *loader, const struct sample *sample, const struct range *ranges,
			       size_t count, struct sample_random *random)
{
	char error[ERROR_BYTES] = "";
	struct memory memory;
	bool is_right;

	make_memory(&memory, sample, ranges, count, random);
	is_right = load_into(loader, sample, &memory, error, sizeof error) == 0 &&
		   memcmp(memory.bytes, memory.expected, memory.size) == 0;
	if (error[0])
		fprintf(stderr, "\t%s\n", error);
	free_memory(&memory);
	return is_right;
}

/* Loads what must fail, checks that only targets were written, and returns the result. */
static inline int failure_of(struct wcx_loader *loader, const struct sample *sample, const struct range *ranges,
			     size_t count, struct sample_random *random, char error[ERROR_BYTES])
{
	struct memory memory;
	int r;

	error[0] = '\0';
	make_memory(&memory, sample, ranges, count, random);
	r = load_into(loader, sample, &memory, error, ERROR_BYTES);
	CHECK(rest_is_untouched(&memory));
	if (r < 0 && !CHECK(strncmp(error, sample->path, strlen(sample->path)) == 0 && !strchr(error, '\n')))
		fprintf(stderr, "\t\"%s\"\n", error);
	free_memory(&memory);
	return r;
}

static inline struct wcx_loader *open_loader(unsigned threads)
{
	struct wcx_loader *loader = NULL;
	char error[ERROR_BYTES] = "";

	sample_require(wcx_loader_open(0, threads, &loader, error, sizeof error) == 0, error);
	return loader;
}

/* Opens the file of a sample once more and pins it.  The caller closes only that file. */
static inline struct sample open_pinned(const struct sample *sample, struct wcx_loader *loader)
{
	struct sample pinned = *sample;
	char error[ERROR_BYTES] = "";

	sample_require(wcx_file_open(sample->path, &pinned.file, error, sizeof error) == 0, error);
	sample_require(wcx_file_pin(pinned.file, loader, error, sizeof error) == 0, error);
	return pinned;
}

static inline struct range whole(const struct sample *sample, size_t shift)
{
	return (struct range){ 0, sample->original.bytes, shift };
}

static inline size_t ranges_of_tensors(const struct sample *sample, struct range *ranges, struct sample_random *random)
{
	for (size_t i = 0; i < sample->st->tensor_count; i++)
		ranges[i] = (struct range){ sample->st->tensors[i].offset, sample->st->tensors[i].bytes,
					    random ? (size_t)sample_below(random, 8) : 0 };
	return sample->st->tensor_count;
}

static inline bool is_touched(const struct wcx_segment *seg, const struct wcx_tile_info *info, const struct range *ranges,
			      size_t count)
{
	const uint64_t row_bytes = (uint64_t)info->dims.cols * info->dims.elem_bytes;

	for (size_t i = 0; i < count; i++)
		for (uint32_t y = 0; y < info->dims.rows; y++) {
			const uint64_t from = wcx_tile_row_offset(seg, info, y);

			if (ranges[i].bytes && from < ranges[i].offset + ranges[i].bytes &&
			    from + row_bytes > ranges[i].offset)
				return true;
		}
	return false;
}

/* Counts the tiles that a GPU decodes for a tile of a segment: its base's, and itself. */
static inline unsigned decoded_for(const struct wcx_segment *seg, const struct wcx_tile_info *info)
{
	struct wcx_base_tile base;

	if (!wcx_tile_needs_base(seg, info))
		return info->mode == WCX_TILE_CODED;
	if ((info->mode == WCX_TILE_CONSTANT && info->constant) || !wcx_tile_find_base(family_base, seg, info, &base))
		return 0;
	return 1 + (info->mode == WCX_TILE_CODED);
}

/* Counts what a GPU decodes for the ranges; tiles that segments share count once for each segment. */
static inline unsigned coded_tiles(const struct sample *sample, const struct range *ranges, size_t count)
{
	unsigned tiles = 0;

	for (size_t s = 0; s < wcx_container_superblock(sample->container)->segment_count; s++) {
		const struct wcx_segment *seg = wcx_container_segment(sample->container, s);

		for (uint64_t t = 0; t < seg->tile_count; t++) {
			struct wcx_tile_info info;

			wcx_container_tile(sample->container, seg, seg->first_tile + t, &info);
			if (is_touched(seg, &info, ranges, count))
				tiles += decoded_for(seg, &info);
		}
	}
	return tiles;
}

/* Inverts bits of a byte of a packed file; a second call with the same arguments undoes that. */
static inline void change_byte(const struct sample *sample, uint64_t at, uint8_t mask)
{
	int fd = open(sample->path, O_RDWR | O_CLOEXEC);
	uint8_t byte;

	sample_require(fd >= 0 && pread(fd, &byte, 1, (off_t)at) == 1, sample->path);
	byte ^= mask;
	sample_require(pwrite(fd, &byte, 1, (off_t)at) == 1, sample->path);
	close(fd);
}

/* The expected error for a tile, named after a tensor, or after the header if tensor is NULL. */
static inline void tile_text(const struct sample *sample, const char *tensor, const struct wcx_segment *seg,
			     const struct wcx_tile_info *info, const char *why, char text[ERROR_BYTES])
{
	char name[80] = "the header";

	if (tensor)
		snprintf(name, sizeof name, "tensor `%s`", tensor);
	snprintf(text, ERROR_BYTES, "%s: %s, tile %llu (offset %llu of the original, packed at %llu): %s", sample->path,
		 name, (unsigned long long)(info->tile_index - seg->first_tile),
		 (unsigned long long)wcx_tile_row_offset(seg, info, 0), (unsigned long long)info->packed_offset, why);
}

static inline const struct wcx_tensor *tensor_named(const struct sample *sample, const char *name)
{
	for (size_t i = 0; i < sample->st->tensor_count; i++)
		if (strcmp(sample->st->tensors[i].name, name) == 0)
			return &sample->st->tensors[i];
	sample_require(0, name);
	return NULL;
}

static inline const struct wcx_segment *segment_of(const struct sample *sample, const char *tensor)
{
	return wcx_container_segment(sample->container,
				     wcx_container_segment_at(sample->container, tensor_named(sample, tensor)->offset));
}

/* Runs a program of load tests: makes the files, runs the tests that the arguments choose, and checks that nothing leaks. */
static inline int load_tests_main(int argc, char **argv, const struct check_test *tests, size_t count)
{
	const unsigned files = sample_dir_count("/proc/self/fd");
	const char *seed_text = getenv("WCX_SEED");
	int r;

	if (seed_text)
		seed = strtoull(seed_text, NULL, 0);
	make_samples();
	r = check_main(argc, argv, tests, count);
	for (int i = 0; i < FILES; i++)
		close_sample(&samples[i]);
	wcx_container_free(family_base);
	sample_dir_remove(dir);
	CHECK(atomic_load(&gpu.loaders) == 0);
	CHECK(pinned_memories() == 0);
	CHECK(sample_dir_count("/proc/self/fd") == files);
	if (check_failures)
		fprintf(stderr, "the seed is %llu\n", (unsigned long long)seed);
	return r ? r : check_failures != 0;
}

#endif
