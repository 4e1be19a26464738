/* SPDX-License-Identifier: MIT */
/* Generates weights or maps files, and plans them as the packer does. */
#include "tests/bench/weight_set.h"

#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/array.h"
#include "tests/bench/must.h"

enum {
	GENERATED_COLS = 4096,
	SET_MIN_BYTES = 1 << 20, /* less is too fast to be measured */
	PLACE_ALIGN = 16,        /* of each tile in packed and decoded */
	DECODED_TOGETHER = 64,   /* tiles, as in a batch of a mount */
};

bool weight_sets_are_for_speed;
size_t weight_sets_generated_bytes = 64 << 20; /* larger than most CPU caches, together with packed and decoded bytes */

/* xorshift64*; the normal distribution by the method of Box and Muller. */
static double uniform_next(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return ((double)(*state * UINT64_C(0x2545F4914F6CDD1D) >> 11) + 0.5) / (double)(UINT64_C(1) << 53);
}

static double normal_next(uint64_t *state)
{
	double radius = sqrt(-2 * log(uniform_next(state)));

	return radius * cos(2 * acos(-1) * uniform_next(state));
}

/* INT8 with a width for each row; row_spread is the standard deviation of ln(width). */
static uint8_t *generate_int8(double sigma, double row_spread)
{
	uint8_t *dst = must_alloc(weight_sets_generated_bytes);
	uint64_t state = 0x1F83D9ABFB41BD6B;

	for (size_t row = 0; row < weight_sets_generated_bytes / GENERATED_COLS; row++) {
		double width = sigma * exp(row_spread * normal_next(&state));

		for (size_t col = 0; col < GENERATED_COLS; col++)
			dst[row * GENERATED_COLS + col] =
				(uint8_t)(int8_t)lrint(fmax(-127, fmin(127, width * normal_next(&state))));
	}
	return dst;
}

static uint8_t *generate_bf16(double sigma)
{
	uint8_t *dst = must_alloc(weight_sets_generated_bytes);
	uint64_t state = 0x9B05688C2B3E6C1F;

	for (size_t i = 0; i < weight_sets_generated_bytes / 2; i++) {
		float value = (float)(sigma * normal_next(&state));
		uint32_t bits;

		memcpy(&bits, &value, sizeof bits);
		bits += 0x7FFF + (bits >> 16 & 1); /* to the nearest, ties to even */
		dst[2 * i] = (uint8_t)(bits >> 16);
		dst[2 * i + 1] = (uint8_t)(bits >> 24);
	}
	return dst;
}

void weight_set_draft(struct wcx_tensor_plan *plan, const struct wcx_tensor *tensor, const uint8_t *base)
{
	struct wcx_sample samples[WCX_SAMPLES_MAX];
	unsigned sample_count;

	wcx_tensor_plan_init(plan, tensor->offset, tensor->bytes, tensor, false, false);
	plan->for_speed = weight_sets_are_for_speed;
	sample_count = wcx_tensor_plan_samples(plan, samples);
	for (unsigned i = 0; i < sample_count; i++)
		samples[i].src = base + samples[i].offset;
	if (wcx_tensor_plan_choose(plan, samples, sample_count) != WCX_OK)
		must_not(tensor->name, "no memory");
}

/* Plans a tensor in all steps. */
static void plan_tensor(struct wcx_tensor_plan *plan, const struct wcx_tensor *tensor, const uint8_t *base,
			struct wcx_encode_scratch *scratch)
{
	static const struct wcx_table_library no_library;
	static struct wcx_plan_counts counts;
	uint32_t first_table[WCX_FIELDS_MAX];

	weight_set_draft(plan, tensor, base);
	memset(&counts, 0, sizeof counts);
	for (uint64_t t = 0; t < plan->segment.tile_count; t++) {
		struct wcx_tile_dims dims;
		uint64_t offset;

		wcx_tensor_plan_tile(plan, t, &dims, &offset);
		if (wcx_tensor_plan_count(plan, &dims, base + offset, NULL, scratch, &counts) != WCX_OK)
			must_not(tensor->name, "a tile was not counted");
	}
	wcx_plan_counts_add(plan, &counts);
	wcx_tensor_plan_finish(plan, &no_library, first_table);
}

/* Sets the tiles of a plan, starting at tile `first` of the set, except src and dst. */
static void list_tiles(struct weight_set *set, const struct wcx_tensor_plan *plan, size_t first)
{
	for (uint64_t t = 0; t < plan->segment.tile_count; t++) {
		struct weight_tile *tile = &set->tiles[first + t];
		uint64_t offset;

		*tile = (struct weight_tile){ .plan = plan };
		wcx_tensor_plan_tile(plan, t, &tile->job.dims, &offset);
		tile->original = set->base + offset;
		tile->job.dst_bytes = wcx_tile_dims_bytes(&tile->job.dims);
		tile->job.recipe = &plan->segment.recipe;
	}
}

/* Allocates packed and decoded, and sets src and dst of every tile. */
static void place_tiles(struct weight_set *set)
{
	size_t used = 0, capacity = set->bytes + PLACE_ALIGN * set->tile_count;

	set->packed = must_alloc(capacity);
	set->decoded = must_alloc(capacity);
	memset(set->packed, 0, capacity);
	for (size_t i = 0; i < set->tile_count; i++) {
		struct wcx_tile_job *job = &set->tiles[i].job;

		job->src = set->packed + used;
		job->dst = set->decoded + used;
		used += WCX_ALIGN_UP(job->dst_bytes, PLACE_ALIGN);
	}
}

/* Sets everything of a set except its name. */
static void plan_set(struct weight_set *set, const struct wcx_tensor *tensors, size_t tensor_count, const uint8_t *base)
{
	struct wcx_encode_scratch *scratch = wcx_encode_scratch_create();
	size_t first = 0;

	if (!scratch)
		must_not("memory", strerror(ENOMEM));
	set->tensors = must_alloc(tensor_count * sizeof *set->tensors);
	memcpy(set->tensors, tensors, tensor_count * sizeof *set->tensors);
	set->tensor_count = tensor_count;
	set->base = base;
	set->plans = must_alloc(tensor_count * sizeof *set->plans);
	for (size_t i = 0; i < tensor_count; i++) {
		const struct wcx_segment *seg = &set->plans[i].segment;

		plan_tensor(&set->plans[i], &tensors[i], base, scratch);
		set->bytes += seg->bytes;
		set->tile_count += seg->tile_count;
		set->limit_bits += (double)seg->entropy_millibits / 1000 * (double)(seg->bytes / seg->recipe.elem_bytes);
	}
	wcx_encode_scratch_free(scratch);
	set->tiles = must_alloc(set->tile_count * sizeof *set->tiles);
	for (size_t i = 0; i < tensor_count; i++) {
		list_tiles(set, &set->plans[i], first);
		first += set->plans[i].segment.tile_count;
	}
	place_tiles(set);
}

void weight_set_encode(struct weight_set *set, struct weight_tile *tile, struct wcx_encode_scratch *scratch)
{
	struct wcx_tile_job *job = &tile->job;
	uint8_t *packed = set->packed + (job->src - set->packed);
	struct wcx_encoded_tile encoded;

	if (wcx_tile_encode(&job->dims, tile->original, job->recipe, scratch, packed, &encoded) != WCX_OK)
		must_not(set->name, "a tile was not encoded");
	job->mode = encoded.mode;
	job->constant = encoded.constant;
	job->src_bytes = encoded.bytes;
}

void weight_set_decode(const struct weight_set *set, size_t first, size_t end, struct wcx_decode_scratch *scratch)
{
	struct wcx_tile_job jobs[DECODED_TOGETHER];

	for (size_t count; first < end; first += count) {
		count = WCX_MIN(end - first, DECODED_TOGETHER);
		for (size_t i = 0; i < count; i++)
			jobs[i] = set->tiles[first + i].job;
		wcx_tiles_decode(jobs, count, scratch);
		for (size_t i = 0; i < count; i++)
			if (jobs[i].result != WCX_OK)
				must_not(set->name, "a tile was not decoded");
	}
}

void weight_set_check(struct weight_set *set, const char *decoder)
{
	for (size_t i = 0; i < set->tile_count; i++) {
		const struct wcx_tile_job *job = &set->tiles[i].job;

		if (memcmp(job->dst, set->tiles[i].original, job->dst_bytes) != 0) {
			fprintf(stderr, "%s: ", decoder);
			must_not(set->name, "a tile was decoded to other bytes");
		}
		memset(job->dst, 0, job->dst_bytes);
	}
}

static struct weight_set *add_set(struct weight_sets *sets)
{
	struct weight_set *grown = wcx_array_reserve(sets->sets, &sets->capacity, sets->count + 1, sizeof *grown);

	if (!grown)
		must_not("memory", strerror(errno));
	sets->sets = grown;
	sets->sets[sets->count] = (struct weight_set){ 0 };
	return &sets->sets[sets->count++];
}

static void add_generated(struct weight_sets *sets, const char *name, const char *dtype, uint32_t elem_bytes,
			  const uint8_t *src)
{
	uint64_t *shape = must_alloc(2 * sizeof *shape); /* kept until the program ends */
	const struct wcx_tensor tensor = {
		.name = name,
		.dtype = dtype,
		.elem_bytes = elem_bytes,
		.shape = shape,
		.dim_count = 2,
		.bytes = weight_sets_generated_bytes,
	};
	struct weight_set *set = add_set(sets);

	shape[0] = weight_sets_generated_bytes / elem_bytes / GENERATED_COLS;
	shape[1] = GENERATED_COLS;
	snprintf(set->name, sizeof set->name, "%s", name);
	plan_set(set, &tensor, 1, src);
}

void weight_sets_generate(struct weight_sets *sets)
{
	add_generated(sets, "INT8, Gaussian σ 33.6", "I8", 1, generate_int8(33.6, 0));
	add_generated(sets, "INT8, Gaussian σ 20·e^(0.3 N) by row", "I8", 1, generate_int8(20, 0.3));
	add_generated(sets, "BF16, Gaussian σ 0.02", "BF16", 2, generate_bf16(0.02));
}

static const uint8_t *map_file(const char *path, size_t *bytes_ret)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *bytes;

	if (fd < 0 || fstat(fd, &st) < 0)
		must_not(path, strerror(errno));
	bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (bytes == MAP_FAILED)
		must_not(path, strerror(errno));
	close(fd);
	*bytes_ret = (size_t)st.st_size;
	return bytes;
}

static struct wcx_safetensors *parse_header(const char *path, const uint8_t *file, size_t file_bytes)
{
	struct wcx_safetensors *st = NULL;
	struct wcx_error err;
	uint64_t json_bytes;

	if (wcx_safetensors_json_bytes(path, file, file_bytes, &json_bytes, &err) < 0 ||
	    wcx_safetensors_parse(path, (const char *)file + WCX_SAFETENSORS_LENGTH_BYTES, json_bytes, file_bytes, &st,
				  &err) < 0)
		must_not("header", err.text);
	return st;
}

/* Copies the non-empty tensors of a dtype to dst; returns their number, and in *bytes_ret their size. */
static size_t select_tensors(const struct wcx_safetensors *st, const char *dtype, struct wcx_tensor *dst,
			     uint64_t *bytes_ret)
{
	size_t count = 0;

	*bytes_ret = 0;
	for (size_t i = 0; i < st->tensor_count; i++)
		if (st->tensors[i].bytes && strcmp(st->tensors[i].dtype, dtype) == 0) {
			*bytes_ret += st->tensors[i].bytes;
			dst[count++] = st->tensors[i];
		}
	return count;
}

static bool is_first_of_dtype(const struct wcx_safetensors *st, size_t tensor_index)
{
	for (size_t i = 0; i < tensor_index; i++)
		if (strcmp(st->tensors[i].dtype, st->tensors[tensor_index].dtype) == 0)
			return false;
	return true;
}

/* Mapping and header stay until the program ends, because the sets point into them. */
void weight_sets_add_file(struct weight_sets *sets, const char *path)
{
	size_t file_bytes;
	const uint8_t *file = map_file(path, &file_bytes);
	const struct wcx_safetensors *st = parse_header(path, file, file_bytes);
	struct wcx_tensor *tensors = must_alloc(st->tensor_count * sizeof *tensors);

	for (size_t i = 0; i < st->tensor_count; i++) {
		const char *dtype = st->tensors[i].dtype, *slash = strrchr(path, '/');
		struct weight_set *set;
		uint64_t bytes;
		size_t count;

		if (!is_first_of_dtype(st, i))
			continue;
		count = select_tensors(st, dtype, tensors, &bytes);
		if (bytes < SET_MIN_BYTES)
			continue;
		set = add_set(sets);
		snprintf(set->name, sizeof set->name, "%s, %s", slash ? slash + 1 : path, dtype);
		plan_set(set, tensors, count, file);
	}
	free(tensors);
}

void weight_sets_free(struct weight_sets *sets)
{
	for (size_t s = 0; s < sets->count; s++) {
		struct weight_set *set = &sets->sets[s];

		for (size_t i = 0; i < set->tensor_count; i++)
			wcx_tensor_plan_free(&set->plans[i]);
		free(set->tensors);
		free(set->plans);
		free(set->tiles);
		free(set->packed);
		free(set->decoded);
	}
	free(sets->sets);
}
