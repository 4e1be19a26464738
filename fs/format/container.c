/* SPDX-License-Identifier: MIT */
/* Reads the index, and checks every number in them before anything relies on it. */
#include "fs/format/container.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef WCX_XXHASH_DISPATCHES
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

#include "codec/le.h"
#include "fs/base/search.h"

struct wcx_container {
	int fd;
	char *path;
	struct wcx_superblock superblock;
	struct wcx_segment *segments;
	uint32_t *tiled;    /* the indices of the segments with tiles of their own, in order */
	size_t tiled_count; /* at most segment_count */
	struct wcx_field *fields;
	struct wcx_freq_table *tables;
	struct wcx_freq_table_facts
		*facts;           /* of the tables: a hostile index can have millions of fields to check against them */
	uint64_t *packed_offsets; /* by tile */
	uint8_t *index;           /* the bytes of the file */
	const uint8_t *entries;   /* of the tiles, within index */
	struct wcx_base *bases;
	char *base_names; /* each with a zero byte behind it */
};

uint64_t wcx_checksum64(const void *src, size_t src_bytes)
{
	return XXH3_64bits(src, src_bytes);
}

uint32_t wcx_checksum32(const void *src, size_t src_bytes)
{
	return (uint32_t)XXH3_64bits(src, src_bytes);
}

static int bad_index(const struct wcx_container *c, struct wcx_error *err, const uint8_t *at, const char *what)
{
	return wcx_fail(err, EBADMSG, "%s: damaged index, offset %llu: %s", c->path,
			(unsigned long long)(c->superblock.index_offset + (uint64_t)(at - c->index)), what);
}

static int parse_tables(struct wcx_container *c, struct wcx_error *err)
{
	const uint8_t *src = c->entries + c->superblock.tile_count * WCX_TILE_ENTRY_BYTES;
	const uint8_t *end = src + c->superblock.table_bytes;

	for (uint32_t i = 0; i < c->superblock.table_count; i++) {
		size_t used;

		if (wcx_freq_table_parse(src, (size_t)(end - src), &c->tables[i], &used) != WCX_OK)
			return bad_index(c, err, src, "bad frequency table");
		c->facts[i] = wcx_freq_table_facts(&c->tables[i]);
		src += used;
	}
	if (src != end)
		return bad_index(c, err, src, "bytes behind the last frequency table");
	return 0;
}

/* Reads a base's entry, and copies its name from *name to *dst.  Returns what is wrong, or NULL. */
static const char *parse_base(const uint8_t *src, const uint8_t **name, const uint8_t *names_end, char **dst,
			      struct wcx_base *base)
{
	const uint32_t name_bytes = wcx_le32_read(src + 40);

	memcpy(base->sha256, src, WCX_SHA256_BYTES);
	base->original_bytes = wcx_le64_read(src + 32);
	base->name = *dst;
	if (base->original_bytes == 0 || base->original_bytes > WCX_MAX_ORIGINAL_BYTES)
		return "size of a base out of limits";
	if (name_bytes > WCX_BASE_NAME_MAX_BYTES || name_bytes > (size_t)(names_end - *name))
		return "name of a base that is too long";
	if (wcx_le32_read(src + 44))
		return "reserved bytes of a base are not zero";
	if (memchr(*name, '\0', name_bytes))
		return "name of a base with a zero byte";
	memcpy(*dst, *name, name_bytes);
	*name += name_bytes;
	*dst += name_bytes + 1; /* the pool is zeroed */
	return NULL;
}

static int parse_bases(struct wcx_container *c, struct wcx_error *err)
{
	const struct wcx_superblock *sb = &c->superblock;
	const uint8_t *end = c->index + (sb->index_bytes - sb->extra_bytes), *name = end - sb->base_name_bytes;
	const uint8_t *src = name - (size_t)sb->base_count * WCX_BASE_BYTES;
	char *dst = c->base_names;

	for (uint32_t i = 0; i < sb->base_count; i++, src += WCX_BASE_BYTES) {
		const char *wrong = parse_base(src, &name, end, &dst, &c->bases[i]);

		if (wrong)
			return bad_index(c, err, src, wrong);
	}
	if (name != end)
		return bad_index(c, err, name, "bytes behind the name of the last base");
	return 0;
}

/* Reads a segment's record, unchecked. */
static void read_segment(const uint8_t *src, struct wcx_segment *seg)
{
	seg->bytes = wcx_le64_read(src);
	seg->cols = wcx_le64_read(src + 8);
	seg->tile_rows = wcx_le32_read(src + 16);
	seg->tile_cols = wcx_le32_read(src + 20);
	seg->recipe.run_elems = wcx_le32_read(src + 24);
	seg->same_as = wcx_le32_read(src + 28);
	seg->entropy_millibits = wcx_le32_read(src + 32);
	seg->recipe.elem_bytes = src[36];
	seg->recipe.transform = src[37];
	seg->recipe.predictor = src[38];
	seg->recipe.field_count = src[39];
	seg->base = wcx_le32_read(src + 40);
	seg->base_offset = wcx_le64_read(src + 48);
	seg->recipe.difference = src[44];
	seg->recipe.context_count = (uint8_t)(src[45] ? src[45] + 1 : 0);
	memcpy(seg->recipe.thresholds, src + 56, sizeof seg->recipe.thresholds);
}

/* Checks the part of a segment's record that refers to its base.  Returns what is wrong, or NULL. */
static const char *check_base(const struct wcx_container *c, const uint8_t *src, const struct wcx_segment *seg)
{
	if (src[46])
		return "unknown kind of segment";
	if (src[47] || src[63])
		return "reserved bytes of a segment are not zero";
	if (src[45] >= WCX_CONTEXTS_MAX)
		return "too many thresholds";
	for (size_t i = src[45]; i < WCX_CONTEXTS_MAX - 1; i++)
		if (src[56 + i])
			return "threshold beyond the last one";
	if (seg->base > c->superblock.base_count)
		return "base that is not there";
	if (!seg->base != !seg->recipe.difference)
		return seg->base ? "base without a difference" : "difference without a base";
	if (!seg->base)
		return seg->base_offset || src[45] ? "offset or thresholds without a base" : NULL;
	if (seg == c->segments)
		return "base of the header";
	if (seg->bytes < WCX_BASED_SEGMENT_MIN_BYTES)
		return "segment with a base that is too small";
	if (seg->base_offset > c->bases[seg->base - 1].original_bytes ||
	    seg->bytes > c->bases[seg->base - 1].original_bytes - seg->base_offset)
		return "range beyond the end of the base";
	return NULL;
}

/* Checks a segment that refers to an earlier one, and copies that one's values.  Returns what is wrong, or NULL. */
static const char *copy_segment(const struct wcx_container *c, const uint8_t *src, struct wcx_segment *seg)
{
	static const uint8_t zeros[WCX_SEGMENT_BYTES];
	uint32_t same_as = seg->same_as;

	if (same_as >= (size_t)(seg - c->segments))
		return "same content as a segment that is not an earlier one";
	if (c->segments[same_as].same_as)
		return "same content as a segment without tiles";
	if (c->segments[same_as].bytes != seg->bytes)
		return "same content as a segment of another size";
	if (memcmp(src + 8, zeros, 20) != 0 || memcmp(src + 32, zeros, WCX_SEGMENT_BYTES - 32) != 0)
		return "same content as another segment, but tiles of its own";
	*seg = c->segments[same_as];
	seg->same_as = same_as;
	return NULL;
}

static const char *parse_field(const struct wcx_container *c, const uint8_t *src, uint32_t context_count,
			       struct wcx_field *field)
{
	const uint32_t sets = c->superblock.features & WCX_FEATURE_SETS ? WCX_FIELD_SETS : 0;
	const uint32_t escapes = c->superblock.features & WCX_FEATURE_ESCAPES ? WCX_FIELD_ESCAPES : 0;
	uint32_t first_table = wcx_le32_read(src + 4);

	*field = (struct wcx_field){
		.width = src[0],
		.table_count = src[1] & WCX_FIELD_TABLES,
		.set_bits = (uint8_t)((src[1] & sets) / WCX_FIELD_SETS_UNIT),
		.is_pair = (src[1] & WCX_FIELD_PAIRS) != 0,
		.has_zero = (src[1] & WCX_FIELD_ZERO) != 0,
		.has_escapes = (src[1] & escapes) != 0,
		.base = (uint16_t)wcx_le16_read(src + 2),
	};
	if (src[1] & ~(WCX_FIELD_TABLES | WCX_FIELD_PAIRS | WCX_FIELD_ZERO | sets | escapes))
		return "unknown flag of a field";
	if (field->table_count == WCX_FIELD_BY_CONTEXT) {
		if (!context_count)
			return "tables by context in a segment without contexts";
		field->by_context = true;
		field->table_count = (uint8_t)(context_count << field->set_bits);
	}
	if (!field->table_count)
		return first_table ? "number of a frequency table for a field without any" : NULL;
	if ((uint64_t)first_table + field->table_count > c->superblock.table_count)
		return "frequency table that is not there";
	field->tables = c->tables + first_table;
	return NULL;
}

static const char *check_tables(const struct wcx_container *c, const struct wcx_field *field)
{
	const char *wrong = NULL;

	for (uint32_t t = 0; t < field->table_count && !wrong; t++)
		wrong = wcx_field_check_table(field, c->facts[field->tables - c->tables + t]);
	return wrong;
}

/* Reads and checks a segment's fields, from index first_field on, and the recipe that they make up. */
static const char *parse_recipe(const struct wcx_container *c, uint32_t first_field, struct wcx_recipe *recipe)
{
	const uint8_t *src = c->index + (size_t)c->superblock.segment_count * WCX_SEGMENT_BYTES;
	const char *wrong = NULL;

	if (recipe->field_count > c->superblock.field_count - first_field)
		return "fields that are not there";
	recipe->fields = c->fields + first_field;
	for (uint32_t f = first_field; f < first_field + recipe->field_count && !wrong; f++)
		wrong = parse_field(c, src + (size_t)f * WCX_FIELD_BYTES, recipe->context_count, &c->fields[f]);
	if (!wrong)
		wrong = wcx_recipe_check_fields(recipe);
	for (uint32_t f = 0; f < recipe->field_count && !wrong; f++)
		wrong = check_tables(c, &recipe->fields[f]);
	return wrong;
}

/* Whether reading some bytes of a row decodes too much: bytes, fields of them, or very many tiles. */
static bool is_too_tall(const struct wcx_segment *seg)
{
	const uint64_t height = WCX_MIN(seg->rows, seg->tile_rows);

	return seg->tile_rows > WCX_TILE_MAX_ROWS || height > (uint64_t)WCX_TILE_MAX_SLENDERNESS * seg->tile_cols ||
	       height * seg->recipe.field_count > WCX_TILE_MAX_FIELD_ROWS;
}

/* Checks a segment's matrix and tile size; its recipe must be valid. */
static const char *check_grid(struct wcx_segment *seg)
{
	if (seg->bytes == 0 || seg->bytes > WCX_MAX_ORIGINAL_BYTES || seg->bytes % seg->recipe.elem_bytes)
		return "bad segment size";
	uint64_t elems = seg->bytes / seg->recipe.elem_bytes;

	if (seg->cols == 0 || seg->cols > elems || elems % seg->cols)
		return "bad number of columns";
	if (seg->tile_rows == 0 || seg->tile_cols == 0 || (uint64_t)seg->tile_rows * seg->tile_cols > WCX_TILE_MAX_ELEMS)
		return "bad tile size";
	wcx_segment_grid(seg);
	if (seg->tile_cols < seg->cols && is_too_tall(seg))
		return "narrow tiles that are too tall";
	if (seg->base && seg->tile_cols < seg->cols && WCX_MIN(seg->rows, seg->tile_rows) > 1)
		return "narrow tiles of differences";
	return NULL;
}

uint64_t wcx_field_features(const struct wcx_recipe *recipe, const struct wcx_field *field)
{
	return (field->set_bits ? WCX_FEATURE_SETS : 0u) | (field->has_escapes ? WCX_FEATURE_ESCAPES : 0u) |
	       (field->is_pair && recipe->difference != WCX_DIFFERENCE_NONE ? WCX_FEATURE_DIFFERENCE_PAIRS : 0u);
}

/* Totals of the segments read so far. */
struct segments_sum {
	uint64_t bytes, tile_count;
	uint32_t field_count;
	uint64_t features; /* that their fields need */
};

static const char *parse_segment(struct wcx_container *c, uint32_t number, struct segments_sum *sum)
{
	const uint8_t *src = c->index + (size_t)number * WCX_SEGMENT_BYTES;
	struct wcx_segment *seg = &c->segments[number];
	const char *wrong;

	read_segment(src, seg);
	if (seg->same_as) {
		wrong = copy_segment(c, src, seg);
	} else {
		wrong = check_base(c, src, seg);
		if (!wrong)
			wrong = parse_recipe(c, sum->field_count, &seg->recipe);
		if (!wrong)
			wrong = check_grid(seg);
	}
	if (wrong)
		return wrong;
	if (seg->bytes > c->superblock.original_bytes - sum->bytes ||
	    (!seg->same_as && seg->tile_count > c->superblock.tile_count - sum->tile_count))
		return "segment is larger than the file";
	seg->offset = sum->bytes;
	sum->bytes += seg->bytes;
	if (seg->same_as)
		return NULL;
	seg->first_tile = sum->tile_count;
	sum->tile_count += seg->tile_count;
	sum->field_count += seg->recipe.field_count;
	for (uint32_t f = 0; f < seg->recipe.field_count; f++)
		sum->features |= wcx_field_features(&seg->recipe, &seg->recipe.fields[f]);
	c->tiled[c->tiled_count++] = number;
	return NULL;
}

static int parse_segments(struct wcx_container *c, struct wcx_error *err)
{
	const struct wcx_superblock *sb = &c->superblock;
	struct segments_sum sum = { 0 };

	for (uint32_t i = 0; i < sb->segment_count; i++) {
		const char *wrong = parse_segment(c, i, &sum);

		if (wrong)
			return bad_index(c, err, c->index + (size_t)i * WCX_SEGMENT_BYTES, wrong);
	}
	if (c->segments[0].bytes < WCX_HEADER_MIN_BYTES)
		return bad_index(c, err, c->index, "first segment is too small for a header");
	if (sum.bytes != sb->original_bytes || sum.tile_count != sb->tile_count || sum.field_count != sb->field_count)
		return bad_index(c, err, c->entries, "segments do not make up the file");
	if (sb->features & ~sum.features & WCX_FEATURE_SETS)
		return bad_index(c, err, c->index, "flag SETS without sets of frequency tables");
	if (sb->features & ~sum.features & WCX_FEATURE_ESCAPES)
		return bad_index(c, err, c->index, "flag ESCAPES without a field that has them");
	if ((sb->features ^ sum.features) & WCX_FEATURE_DIFFERENCE_PAIRS)
		return bad_index(c, err, c->index, "flag DIFFERENCE_PAIRS and pairs in differences, one without the other");
	return 0;
}

void wcx_container_tile(const struct wcx_container *c, const struct wcx_segment *seg, uint64_t tile_index,
			struct wcx_tile_info *ret)
{
	const uint8_t *entry = c->entries + tile_index * WCX_TILE_ENTRY_BYTES;
	uint32_t size_and_mode = wcx_le32_read(entry), value = wcx_le32_read(entry + 4);
	const bool is_constant = size_and_mode >> 24 == WCX_TILE_CONSTANT;

	*ret = (struct wcx_tile_info){
		.tile_index = tile_index,
		.mode = (enum wcx_tile_mode)(size_and_mode >> 24),
		.constant = is_constant ? value : 0,
		.packed_offset = c->packed_offsets[tile_index],
		.packed_bytes = size_and_mode & 0xFFFFFF,
		.checksum = is_constant ? 0 : value,
	};
	wcx_segment_place(seg, tile_index - seg->first_tile, ret);
}

static const char *check_tile(const struct wcx_segment *seg, const struct wcx_tile_info *tile)
{
	size_t tile_bytes = wcx_tile_dims_bytes(&tile->dims);

	switch (tile->mode) {
	case WCX_TILE_STORED:
		return tile->packed_bytes != tile_bytes ? "packed size contradicts the tile mode" : NULL;
	case WCX_TILE_ZSTD:
		if (!wcx_tile_is_contiguous(seg, tile))
			return "narrow tile in Zstandard";
		if (tile_bytes > WCX_ZSTD_TILE_MAX_BYTES)
			return "Zstandard tile that is too large";
		/* fall through */
	case WCX_TILE_CODED:
		return tile->packed_bytes >= tile_bytes ? "packed size contradicts the tile mode" : NULL;
	case WCX_TILE_CONSTANT:
		if (tile->packed_bytes)
			return "constant tile with a size";
		if (tile->dims.elem_bytes < 4 && tile->constant >> (8 * tile->dims.elem_bytes))
			return "constant tile whose element is too large";
		return NULL;
	case WCX_TILE_MODE_COUNT:
		break;
	}
	return "unknown tile mode";
}

/* Checks the tile entries and computes their offsets in the packed file, where tiles follow each other. */
static int place_tiles(struct wcx_container *c, struct wcx_error *err)
{
	uint64_t offset = WCX_SUPERBLOCK_BYTES;

	for (size_t i = 0; i < c->tiled_count; i++) {
		const struct wcx_segment *seg = &c->segments[c->tiled[i]];

		for (uint64_t t = seg->first_tile; t < seg->first_tile + seg->tile_count; t++) {
			struct wcx_tile_info tile;
			const char *wrong;

			c->packed_offsets[t] = offset;
			wcx_container_tile(c, seg, t, &tile);
			wrong = check_tile(seg, &tile);
			if (wrong)
				return bad_index(c, err, c->entries + t * WCX_TILE_ENTRY_BYTES, wrong);
			offset = wcx_tile_align_up(offset + tile.packed_bytes);
		}
	}
	if (offset != c->superblock.index_offset)
		return wcx_fail(err, EBADMSG, "%s: damaged superblock, offset 40: index is not where the packed tiles end",
				c->path);
	return 0;
}

/* calloc for an array that may be empty. */
static void *allocate(uint64_t count, size_t bytes)
{
	return calloc((size_t)WCX_MAX(count, 1), bytes);
}

static int read_index(struct wcx_container *c, struct wcx_error *err)
{
	const struct wcx_superblock *sb = &c->superblock;
	int r;

	c->index = malloc((size_t)sb->index_bytes);
	c->segments = allocate(sb->segment_count, sizeof *c->segments);
	c->tiled = allocate(sb->segment_count, sizeof *c->tiled);
	c->fields = allocate(sb->field_count, sizeof *c->fields);
	c->tables = allocate(sb->table_count, sizeof *c->tables);
	c->facts = allocate(sb->table_count, sizeof *c->facts);
	c->packed_offsets = allocate(sb->tile_count, sizeof *c->packed_offsets);
	c->bases = allocate(sb->base_count, sizeof *c->bases);
	c->base_names = allocate((uint64_t)sb->base_name_bytes + sb->base_count, 1);
	if (!c->index || !c->segments || !c->tiled || !c->fields || !c->tables || !c->facts || !c->packed_offsets ||
	    !c->bases || !c->base_names)
		return wcx_fail(err, ENOMEM, "%s: no memory for the index", c->path);
	c->entries = c->index + (size_t)sb->segment_count * WCX_SEGMENT_BYTES + (size_t)sb->field_count * WCX_FIELD_BYTES;
	r = wcx_packed_read(c->fd, c->path, c->index, (size_t)sb->index_bytes, sb->index_offset, err);
	if (r < 0)
		return r;
	if (wcx_checksum64(c->index, (size_t)sb->index_bytes) != sb->index_checksum)
		return bad_index(c, err, c->index, "checksum differs");
	r = parse_bases(c, err);
	if (r == 0)
		r = parse_tables(c, err);
	if (r == 0)
		r = parse_segments(c, err);
	if (r == 0)
		r = place_tiles(c, err);
	return r;
}

int wcx_container_open_as(int fd, const char *path, const struct wcx_superblock *superblock, struct wcx_container **ret,
			  struct wcx_error *err)
{
	struct wcx_container *c = calloc(1, sizeof *c);
	int r = -ENOMEM;

	if (c)
		c->path = strdup(path);
	if (!c || !c->path) {
		wcx_fail(err, ENOMEM, "%s: no memory", path);
		goto out;
	}
	c->fd = fd;
	c->superblock = *superblock;
	r = read_index(c, err);
	if (r == 0)
		*ret = c;
out:
	if (r < 0 && c) {
		c->fd = -1;
		wcx_container_free(c);
	}
	return r;
}

int wcx_container_open(int fd, const char *path, struct wcx_container **ret, struct wcx_error *err)
{
	struct wcx_superblock superblock;
	const int r = wcx_superblock_read(fd, path, &superblock, err);

	return r < 0 ? r : wcx_container_open_as(fd, path, &superblock, ret, err);
}

void wcx_container_free(struct wcx_container *c)
{
	if (!c)
		return;
	if (c->fd >= 0)
		close(c->fd);
	free(c->path);
	free(c->segments);
	free(c->tiled);
	free(c->fields);
	free(c->tables);
	free(c->facts);
	free(c->packed_offsets);
	free(c->index);
	free(c->bases);
	free(c->base_names);
	free(c);
}

int wcx_container_fd(const struct wcx_container *c)
{
	return c->fd;
}

const char *wcx_container_path(const struct wcx_container *c)
{
	return c->path;
}

uint64_t wcx_container_memory_bytes(const struct wcx_superblock *sb)
{
	const struct wcx_container *c = NULL; /* for the sizes of what it has */

	return sizeof *c + sb->index_bytes + sb->tile_count * sizeof *c->packed_offsets +
	       sb->segment_count * (sizeof *c->segments + sizeof *c->tiled) + sb->field_count * sizeof *c->fields +
	       sb->table_count * (sizeof *c->tables + sizeof *c->facts) + sb->base_count * (sizeof *c->bases + 1) +
	       sb->base_name_bytes;
}

const struct wcx_superblock *wcx_container_superblock(const struct wcx_container *c)
{
	return &c->superblock;
}

const struct wcx_segment *wcx_container_segment(const struct wcx_container *c, size_t segment_index)
{
	return &c->segments[segment_index];
}

uint32_t wcx_container_base_count(const struct wcx_container *c)
{
	return c->superblock.base_count;
}

const struct wcx_base *wcx_container_base(const struct wcx_container *c, uint32_t number)
{
	return &c->bases[number - 1];
}

size_t wcx_container_segment_at(const struct wcx_container *c, uint64_t offset)
{
	return wcx_segment_find(c->segments, c->superblock.segment_count, offset);
}

struct tile_search {
	const struct wcx_container *container;
	uint64_t tile_index;
};

static bool starts_upto(const void *user, size_t i)
{
	const struct tile_search *search = user;
	const struct wcx_container *c = search->container;

	return c->segments[c->tiled[i]].first_tile <= search->tile_index;
}

size_t wcx_container_segment_of_tile(const struct wcx_container *c, uint64_t tile_index)
{
	const struct tile_search search = { c, tile_index };

	return c->tiled[wcx_count_before(c->tiled_count, starts_upto, &search) - 1];
}
