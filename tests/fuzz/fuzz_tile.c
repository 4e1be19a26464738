/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: decodes arbitrary bytes as a packed tile.  The first bytes stand for the index: dims, a recipe and
 * frequency tables, which all fields share: four, or in a difference, which the base's tile follows, eight, or 32 if it has
 * sets of them.  Every decoding variant must give the same result.  A tile that decodes must survive being encoded and
 * decoded again.
 */
#include <stdlib.h>
#include <string.h>

#include "codec/le.h"
#include "codec/tile.h"

enum { REQUEST_BYTES = 8, FIELD_BYTES = 4, VARIANTS_MAX = 8, BY_CONTEXT = 7 };

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes);

static void require(int condition)
{
	if (!condition)
		abort();
}

/* The unread rest of the input. */
struct input {
	const uint8_t *at;
	size_t left;
};

static const uint8_t *take(struct input *input, size_t bytes)
{
	const uint8_t *at = input->at;

	if (input->left < bytes)
		return NULL;
	input->at += bytes;
	input->left -= bytes;
	return at;
}

struct request {
	struct wcx_tile_dims dims; /* may break limits or not match the recipe */
	enum wcx_tile_mode mode;
	struct wcx_recipe recipe; /* checked */
	struct wcx_field fields[WCX_FIELDS_MAX];
	struct wcx_freq_table tables[WCX_SET_TABLES_MAX];
};

/* Reads a table from the input; if there is none, uses one that any field may have. */
static void read_table(struct input *input, struct wcx_freq_table *table)
{
	uint8_t written[WCX_FREQ_TABLE_MAX_BYTES];
	size_t used;

	if (wcx_freq_table_parse(input->at, input->left, table, &used) == WCX_OK) {
		require(wcx_freq_table_write(table, written) == used && memcmp(written, input->at, used) == 0);
		take(input, used);
		return;
	}
	*table = (struct wcx_freq_table){ .freq = { WCX_PROB_SCALE / 2, WCX_PROB_SCALE / 2 } };
}

/* Reads the thresholds, which only a difference has; false if there are none. */
static bool read_contexts(struct input *input, struct wcx_recipe *recipe)
{
	const uint8_t *src = recipe->difference ? take(input, WCX_CONTEXTS_MAX) : NULL;

	if (!src)
		return !recipe->difference;
	recipe->context_count = src[0];
	memcpy(recipe->thresholds, src + 1, sizeof recipe->thresholds);
	return true;
}

/* Fills in the request; false if the input lacks a valid recipe. */
static bool read_request(struct input *input, struct request *ret)
{
	const uint8_t *src = take(input, REQUEST_BYTES);
	uint32_t tables;

	if (!src)
		return false;
	ret->dims = (struct wcx_tile_dims){ wcx_le16_read(src), wcx_le16_read(src + 2),
					    src[4] & 0x80 ? src[4] : 1u << (src[4] & 3) };
	ret->mode = (enum wcx_tile_mode)(src[4] >> 2 & 3);
	ret->recipe = (struct wcx_recipe){
		.elem_bytes = (uint8_t)(1u << (src[4] & 3)),
		.transform = src[5] & 3,
		.predictor = src[5] >> 2 & 7,
		.field_count = src[6] % (WCX_FIELDS_MAX + 1),
		.run_elems = 128u * src[7],
		.fields = ret->fields,
		.difference = src[5] >> 5 & 3,
	};
	if (!read_contexts(input, &ret->recipe))
		return false;
	tables = ret->recipe.difference ? WCX_CONTEXTS_MAX : WCX_FIELD_TABLES_MAX;
	for (uint32_t f = 0; f < ret->recipe.field_count; f++) {
		const uint8_t *field = take(input, FIELD_BYTES);

		if (!field)
			return false;
		ret->fields[f] = (struct wcx_field){
			.width = field[0],
			.table_count =
				(uint8_t)((field[1] & 7) == BY_CONTEXT ? ret->recipe.context_count << (field[1] >> 5 & 3)
								       : field[1] & 7),
			.set_bits = (field[1] & 7) == BY_CONTEXT ? field[1] >> 5 & 3 : 0,
			.by_context = (field[1] & 7) == BY_CONTEXT,
			.is_pair = field[1] >> 3 & 1,
			.has_zero = field[1] >> 4 & 1,
			.has_escapes = field[1] >> 7,
			.base = (uint16_t)wcx_le16_read(field + 2),
			.tables = ret->tables,
		};
		if (ret->fields[f].table_count == 0)
			ret->fields[f].tables = NULL;
		if (ret->fields[f].set_bits)
			tables = WCX_SET_TABLES_MAX;
	}
	for (uint32_t t = 0; t < tables; t++)
		read_table(input, &ret->tables[t]);
	return wcx_recipe_check(&ret->recipe) == NULL;
}

struct scratches {
	struct wcx_encode_scratch *encode;
	struct wcx_decode_scratch *decode[VARIANTS_MAX];
	unsigned variant_count;
};

static void scratches_create(struct scratches *scratches)
{
	const struct wcx_decode_variant *variant;

	*scratches = (struct scratches){ .encode = wcx_encode_scratch_create() };
	require(scratches->encode != NULL);
	while ((variant = wcx_decode_variant_at(scratches->variant_count))) {
		require(scratches->variant_count < VARIANTS_MAX);
		scratches->decode[scratches->variant_count] = wcx_decode_scratch_create(variant);
		require(scratches->decode[scratches->variant_count++] != NULL);
	}
}

static void scratches_free(struct scratches *scratches)
{
	wcx_encode_scratch_free(scratches->encode);
	for (unsigned i = 0; i < scratches->variant_count; i++)
		wcx_decode_scratch_free(scratches->decode[i]);
}

/* Two copies of a tile that are decoded together must give the same result as one alone. */
static void decode_together(const struct wcx_tile_job *job, struct wcx_decode_scratch *scratch)
{
	struct wcx_tile_job jobs[2] = { *job, *job };

	for (int i = 0; i < 2; i++) {
		/* Exact size: the address sanitizer then catches writes past the end. */
		jobs[i].dst = malloc(job->dst_bytes ? job->dst_bytes : 1);
		require(jobs[i].dst != NULL);
	}
	wcx_tiles_decode(jobs, 2, scratch);
	for (int i = 0; i < 2; i++) {
		require(jobs[i].result == job->result);
		require(job->result != WCX_OK || memcmp(jobs[i].dst, job->dst, job->dst_bytes) == 0);
		free(jobs[i].dst);
	}
}

/* Decodes into job->dst with the portable variant; the other variants must give the same result, also for tiles together. */
static enum wcx_result decode(struct wcx_tile_job *job, const struct scratches *scratches)
{
	enum wcx_result result = wcx_tile_decode(job, scratches->decode[0]);

	require(result == job->result);
	require(result == WCX_OK || result == WCX_BAD_DATA || result == WCX_WRONG_SIZE);
	for (unsigned i = 1; i < scratches->variant_count; i++) {
		struct wcx_tile_job other = *job;

		other.dst = malloc(job->dst_bytes ? job->dst_bytes : 1);
		require(other.dst && wcx_tile_decode(&other, scratches->decode[i]) == result);
		require(result != WCX_OK || memcmp(other.dst, job->dst, job->dst_bytes) == 0);
		free(other.dst);
		decode_together(job, scratches->decode[i]);
	}
	return result;
}

/* A decoded tile must survive being encoded and decoded again. */
static void check_round_trip(const struct wcx_tile_job *decoded, const struct wcx_recipe *recipe,
			     const struct scratches *scratches)
{
	struct wcx_tile_job job = {
		.dims = decoded->dims, .recipe = recipe, .base = decoded->base, .dst_bytes = decoded->dst_bytes
	};
	uint8_t *packed = malloc(job.dst_bytes), *src;
	struct wcx_encoded_tile encoded;

	job.dst = malloc(job.dst_bytes);
	require(packed && job.dst);
	require(wcx_tile_encode_against(&job.dims, decoded->dst, job.base, recipe, scratches->encode, packed, &encoded) ==
		WCX_OK);
	job.mode = encoded.mode;
	job.constant = encoded.constant;
	job.src_bytes = encoded.bytes;
	src = malloc(job.src_bytes ? job.src_bytes : 1);
	require(src != NULL);
	memcpy(src, packed, job.src_bytes);
	job.src = src;
	require(decode(&job, scratches) == WCX_OK && memcmp(decoded->dst, job.dst, job.dst_bytes) == 0);
	free(src);
	free(packed);
	free(job.dst);
}

/* Round trips with the request's tables and with tables built from the tile's own counts. */
static void check_round_trips(const struct wcx_tile_job *decoded, const struct scratches *scratches)
{
	static struct wcx_freq_table tables[WCX_FIELDS_MAX][WCX_SET_TABLES_MAX];
	struct wcx_field fields[WCX_FIELDS_MAX];
	struct wcx_recipe learned = *decoded->recipe;

	check_round_trip(decoded, decoded->recipe, scratches);
	learned.fields = fields;
	for (uint32_t f = 0; f < learned.field_count; f++) {
		uint64_t count[WCX_SET_TABLES_MAX][WCX_SYMBOL_COUNT] = { { 0 } };
		struct wcx_field_counts counts[WCX_FIELDS_MAX] = { { 0 } };

		fields[f] = decoded->recipe->fields[f];
		if (!fields[f].table_count)
			continue;
		counts[f].symbols = count;
		require(wcx_tile_count(&decoded->dims, decoded->dst, decoded->base, decoded->recipe, scratches->encode,
				       counts) == WCX_OK);
		for (uint32_t t = 0; t < fields[f].table_count; t++) {
			count[t][0]++; /* a table that no run chooses has no counts */
			wcx_field_build_table(&fields[f], count[t], &tables[f][t]);
		}
		fields[f].tables = tables[f];
	}
	require(wcx_recipe_check(&learned) == NULL);
	check_round_trip(decoded, &learned, scratches);
}

int LLVMFuzzerTestOneInput(const uint8_t *input_at, size_t input_bytes)
{
	struct input input = { input_at, input_bytes };
	struct scratches scratches;
	struct request request;

	scratches_create(&scratches);
	if (read_request(&input, &request)) {
		size_t tile_bytes = wcx_tile_dims_bytes(&request.dims);
		/* Exact sizes: the address sanitizer then catches accesses past the end. */
		const size_t base_bytes = request.recipe.difference ? WCX_MIN(input.left, tile_bytes) : 0;
		const uint8_t *base_at = take(&input, base_bytes);
		uint8_t *base = request.recipe.difference ? calloc(1, tile_bytes ? tile_bytes : 1) : NULL;
		uint8_t *src = malloc(input.left ? input.left : 1), *dst = malloc(tile_bytes ? tile_bytes : 1);
		struct wcx_tile_job job = {
			.dims = request.dims,
			.mode = request.mode,
			.recipe = &request.recipe,
			.src = src,
			.src_bytes = input.left,
			.base = base,
			.dst = dst,
			.dst_bytes = tile_bytes,
		};
		enum wcx_result result;

		require(src && dst && (base || !request.recipe.difference));
		if (base)
			memcpy(base, base_at, base_bytes);
		memcpy(src, input.at, input.left);
		result = decode(&job, &scratches);
		require((result == WCX_WRONG_SIZE) == (tile_bytes == 0));
		if (result == WCX_OK)
			check_round_trips(&job, &scratches);
		free(base);
		free(src);
		free(dst);
	}
	scratches_free(&scratches);
	return 0;
}
