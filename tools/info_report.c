/* SPDX-License-Identifier: MIT */
/* What a packed file contains, as a table or as JSON. */
#include "tools/info_report.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "codec/le.h"
#include "codec/tile_layout.h"
#include "fs/base/utf8.h"
#include "fs/read/image.h"

enum { MODE_TEXT_BYTES = WCX_FIELDS_MAX * 16 };

/* The sum of a segment's tiles.  All counts are 0 for a segment that shares the tiles of an earlier one. */
struct summary {
	const struct wcx_segment *segment;
	uint64_t packed_bytes;
	uint64_t mode_count[WCX_TILE_MODE_COUNT]; /* tiles by mode */
	char mode[MODE_TEXT_BYTES];
};

/* One tensor. */
struct row {
	const struct wcx_tensor *tensor;
	const struct summary *summary; /* of its segment; NULL if the tensor has no data */
	const struct wcx_tensor *twin; /* the earlier tensor whose tiles it shares, or NULL */
	uint64_t packed_bytes;
	const struct wcx_comparison *comparison; /* or NULL */
};

static void append(char text[MODE_TEXT_BYTES], const char *more)
{
	strncat(text, more, MODE_TEXT_BYTES - 1 - strlen(text));
}

static void append_field(char text[MODE_TEXT_BYTES], const struct wcx_field *field, uint32_t coding)
{
	char more[16] = "damaged";

	if (coding == WCX_FIELD_RAW)
		snprintf(more, sizeof more, "raw%d", field->width);
	else if (coding == WCX_FIELD_RANS && field->table_count > 1)
		snprintf(more, sizeof more, "%s%dx%d", field->is_pair ? "pairs" : "rans", field->width, field->table_count);
	else if (coding == WCX_FIELD_RANS)
		snprintf(more, sizeof more, "%s%d", field->is_pair ? "pairs" : "rans", field->width);
	else if (coding == WCX_FIELD_CONSTANT)
		snprintf(more, sizeof more, "const");
	append(text, more);
}

/* Reads only the head of a coded tile, and checks no more than that. */
static void describe_fields(const struct wcx_container *c, const struct wcx_recipe *recipe, const struct wcx_tile_info *tile,
			    char text[MODE_TEXT_BYTES])
{
	static const char *const predictors[WCX_PREDICTOR_COUNT] = { "", "+left", "+up", "+left2" };
	uint8_t head[4];

	if (pread(wcx_container_fd(c), head, sizeof head, (off_t)tile->packed_offset) != (ssize_t)sizeof head) {
		append(text, "damaged");
		return;
	}
	for (uint32_t f = recipe->field_count; f-- > 0;) {
		append_field(text, &recipe->fields[f], wcx_tile_coding(wcx_le32_read(head), f));
		append(text, f ? "," : recipe->transform == WCX_TRANSFORM_FOLD ? "+fold" : predictors[recipe->predictor]);
	}
}

static void summarise(const struct wcx_container *c, const struct wcx_segment *seg, struct summary *ret)
{
	*ret = (struct summary){ .segment = seg };
	if (seg->same_as) {
		append(ret->mode, "same as "); /* the name differs for each tensor of the segment; see find_twin */
		return;
	}
	for (uint64_t t = seg->first_tile; t < seg->first_tile + seg->tile_count; t++) {
		struct wcx_tile_info tile;

		wcx_container_tile(c, seg, t, &tile);
		ret->packed_bytes += tile.packed_bytes;
		if (ret->mode_count[tile.mode]++ == 0 && tile.mode == WCX_TILE_CODED)
			describe_fields(c, &seg->recipe, &tile, ret->mode);
	}
	if (!ret->mode_count[WCX_TILE_CODED])
		append(ret->mode, ret->mode_count[WCX_TILE_ZSTD]     ? "zstd"
				  : ret->mode_count[WCX_TILE_STORED] ? "stored"
								     : "constant");
}

/* Prints the inside of a JSON string, without the quotes. */
static void print_json_text(const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c == 0x7F)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
}

static void print_json_string(const char *text)
{
	putchar('"');
	print_json_text(text);
	putchar('"');
}

static void print_shape(const struct wcx_tensor *tensor)
{
	putchar('[');
	for (size_t i = 0; i < tensor->dim_count; i++)
		printf("%s%llu", i ? "," : "", (unsigned long long)tensor->shape[i]);
	putchar(']');
}

/* Bits per element, as the coder sees elements, if the tensor takes `bytes` bytes. */
static double bits_per_element_in(const struct row *row, uint64_t bytes)
{
	return row->summary ? 8.0 * (double)bytes * row->summary->segment->recipe.elem_bytes / (double)row->tensor->bytes
			    : 0;
}

static double bits_per_element(const struct row *row)
{
	return bits_per_element_in(row, row->packed_bytes);
}

/* Tiles of the tensor's segment; 0 if they belong to an earlier one. */
static uint64_t own_tiles(const struct row *row)
{
	return row->twin ? 0 : row->summary->segment->tile_count;
}

static void print_json_row(const struct row *row)
{
	const struct wcx_tensor *tensor = row->tensor;
	const struct summary *sum = row->summary;

	printf("\n    {\"name\": ");
	print_json_string(tensor->name);
	printf(", \"dtype\": ");
	print_json_string(tensor->dtype);
	printf(", \"shape\": ");
	print_shape(tensor);
	printf(", \"offset\": %llu, \"bytes\": %llu, \"packed_bytes\": %llu", (unsigned long long)tensor->offset,
	       (unsigned long long)tensor->bytes, (unsigned long long)row->packed_bytes);
	if (!sum) {
		printf(", \"tiles\": 0, \"mode\": \"empty\"}");
		return;
	}
	printf(", \"tiles\": %llu, \"tile_rows\": %lu, \"tile_cols\": %lu, "
	       "\"tiles_coded\": %llu, \"tiles_stored\": %llu, \"tiles_constant\": %llu, \"tiles_zstd\": %llu, "
	       "\"bits_per_element\": %.4f, \"entropy_bits_per_element\": %.3f, \"mode\": \"%s",
	       (unsigned long long)own_tiles(row), (unsigned long)sum->segment->tile_rows,
	       (unsigned long)sum->segment->tile_cols, (unsigned long long)sum->mode_count[WCX_TILE_CODED],
	       (unsigned long long)sum->mode_count[WCX_TILE_STORED], (unsigned long long)sum->mode_count[WCX_TILE_CONSTANT],
	       (unsigned long long)sum->mode_count[WCX_TILE_ZSTD], bits_per_element(row),
	       sum->segment->entropy_millibits / 1000.0, sum->mode);
	if (row->twin)
		print_json_text(row->twin->name);
	putchar('"');
	if (row->comparison)
		printf(", \"zstd_bytes\": %llu, \"reference_bytes\": %llu", (unsigned long long)row->comparison->zstd_bytes,
		       (unsigned long long)row->comparison->reference_bytes);
	putchar('}');
}

/* Prints a name from a parsed header (well-formed UTF-8), with '?' for controls, which a terminal might obey. */
static void print_name(const char *text, int width)
{
	for (; *text; width--) {
		const bool is_control = wcx_utf8_is_control(text);
		const int length = wcx_utf8_sequence(text, 4);

		printf("%.*s", is_control ? 1 : length, is_control ? "?" : text);
		text += length;
	}
	printf("%*s", width > 0 ? width : 0, "");
}

static void print_table_row(const struct row *row)
{
	const struct wcx_tensor *tensor = row->tensor;
	const struct summary *sum = row->summary;
	const int mode_width = 20;

	print_name(tensor->dtype, 8);
	printf(" %14llu %14llu %7.4f ", (unsigned long long)tensor->bytes, (unsigned long long)row->packed_bytes,
	       row->packed_bytes ? (double)tensor->bytes / (double)row->packed_bytes : 0.0);
	if (sum)
		printf("%8.4f %7.3f %6llu ", bits_per_element(row), sum->segment->entropy_millibits / 1000.0,
		       (unsigned long long)own_tiles(row));
	else
		printf("%8s %7s %6d ", "-", "-", 0);
	if (row->comparison)
		printf("%8.4f %9.4f ", bits_per_element_in(row, row->comparison->zstd_bytes),
		       bits_per_element_in(row, row->comparison->reference_bytes));
	if (row->twin) {
		printf("%s", sum->mode);
		print_name(row->twin->name, mode_width - (int)strlen(sum->mode));
	} else {
		printf("%-*s", mode_width, sum ? sum->mode : "empty");
	}
	putchar(' ');
	print_name(tensor->name, 0);
	putchar(' ');
	print_shape(tensor);
	putchar('\n');
}

/* The tensor that lies in the segment's twin where this one lies in the segment. */
static const struct wcx_tensor *find_twin(const struct wcx_container *c, const struct wcx_safetensors *st,
					  const struct wcx_segment *seg, const struct wcx_tensor *tensor)
{
	const struct wcx_segment *same = wcx_container_segment(c, seg->same_as);

	return seg->same_as ? wcx_image_tensor_at(st, same->offset + (tensor->offset - seg->offset)) : NULL;
}

/* Describes tensor i; *sum holds the summary of the segment of the tensor before, which is often the same. */
static struct row describe(const struct wcx_info *info, size_t i, struct summary *sum)
{
	const struct wcx_tensor *tensor = &info->st->tensors[i];
	struct row row = { .tensor = tensor, .comparison = info->comparisons ? &info->comparisons[i] : NULL };
	const struct wcx_segment *seg;

	if (!tensor->bytes)
		return row;
	seg = wcx_container_segment(info->container, wcx_container_segment_at(info->container, tensor->offset));
	if (sum->segment != seg)
		summarise(info->container, seg, sum);
	row.summary = sum;
	row.twin = find_twin(info->container, info->st, seg, tensor);
	/* This order of operations is exact for a tensor that is alone in its segment. */
	row.packed_bytes = (uint64_t)((double)sum->packed_bytes * ((double)tensor->bytes / (double)seg->bytes));
	return row;
}

static double ratio(const struct wcx_superblock *sb)
{
	return (double)sb->original_bytes / (double)sb->packed_bytes;
}

static void print_sha256(const struct wcx_superblock *sb)
{
	for (int i = 0; i < WCX_SHA256_BYTES; i++)
		printf("%02x", sb->sha256[i]);
}

void wcx_info_print_json(const struct wcx_info *info)
{
	const struct wcx_superblock *sb = wcx_container_superblock(info->container);
	struct summary sum = { 0 };

	printf("{\n  \"file\": ");
	print_json_string(wcx_container_path(info->container));
	printf(",\n  \"version\": %d,\n  \"bytes\": %llu,\n  \"packed_bytes\": %llu,\n  \"ratio\": %.6f,\n", WCX_VERSION,
	       (unsigned long long)sb->original_bytes, (unsigned long long)sb->packed_bytes, ratio(sb));
	printf("  \"index_bytes\": %llu,\n  \"table_bytes\": %llu,\n  \"tiles\": %llu,\n  \"sha256\": \"",
	       (unsigned long long)sb->index_bytes, (unsigned long long)sb->table_bytes, (unsigned long long)sb->tile_count);
	print_sha256(sb);
	printf("\",\n  \"tensors\": [");
	for (size_t i = 0; i < info->st->tensor_count; i++) {
		const struct row row = describe(info, i, &sum);

		fputs(i ? "," : "", stdout);
		print_json_row(&row);
	}
	printf("\n  ]\n}\n");
}

void wcx_info_print_table(const struct wcx_info *info)
{
	const struct wcx_superblock *sb = wcx_container_superblock(info->container);
	struct summary sum = { 0 };

	printf("%-8s %14s %14s %7s %8s %7s %6s %s%-20s %s\n", "dtype", "bytes", "packed", "ratio", "bits", "limit", "tiles",
	       info->comparisons ? "zstd -19 reference " : "", "mode", "tensor");
	for (size_t i = 0; i < info->st->tensor_count; i++) {
		const struct row row = describe(info, i, &sum);

		print_table_row(&row);
	}
	printf("\n%s: %llu bytes packed into %llu (index %llu), ratio %.4f\nsha256 ", wcx_container_path(info->container),
	       (unsigned long long)sb->original_bytes, (unsigned long long)sb->packed_bytes,
	       (unsigned long long)sb->index_bytes, ratio(sb));
	print_sha256(sb);
	printf("\n");
}
