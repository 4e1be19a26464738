/* SPDX-License-Identifier: MIT */
/* What a packed file contains, as a table or as JSON. */
#include "tools/info_report.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/le.h"
#include "codec/tile_layout.h"
#include "fs/base/path.h"
#include "fs/base/utf8.h"
#include "fs/format/dtype.h"
#include "fs/read/image.h"
#include "tools/json_output.h"
#include "tools/print.h"

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
	char more[24] = "damaged";

	if (coding == WCX_FIELD_RAW)
		snprintf(more, sizeof more, "raw%d", field->width);
	else if (coding == WCX_FIELD_RANS && field->set_bits)
		snprintf(more, sizeof more, "rans%dx%ux%u", field->width, 1u << field->set_bits, wcx_set_tables(field));
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
		append(text, f                                         ? ","
			     : recipe->difference                      ? "+base"
			     : recipe->transform == WCX_TRANSFORM_FOLD ? "+fold"
								       : predictors[recipe->predictor]);
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
				  : seg->recipe.difference           ? "as base"
								     : "constant");
}

static void print_shape(const struct wcx_tensor *tensor)
{
	putchar('[');
	for (size_t i = 0; i < tensor->dim_count; i++)
		printf("%s%llu", i ? "," : "", (unsigned long long)tensor->shape[i]);
	putchar(']');
}

/* The coder's elements in one of the tensor's: several where it codes integers, or in the reference mode all, byte by byte.
 */
static double elements_in_one(const struct row *row)
{
	const struct wcx_dtype *dtype = wcx_dtype_find(row->tensor->dtype);
	const double elem_bytes = row->summary->segment->recipe.elem_bytes;

	return dtype ? dtype->elem_bytes / elem_bytes : 1;
}

/* Bits per element of the dtype (C64: of either part; less than a byte: of a byte) if the tensor takes `bytes` bytes. */
static double bits_per_element_in(const struct row *row, uint64_t bytes)
{
	const double elem_bytes = row->summary ? elements_in_one(row) * row->summary->segment->recipe.elem_bytes : 0;

	return 8.0 * (double)bytes * elem_bytes / (double)row->tensor->bytes;
}

static double limit_bits_per_element(const struct row *row)
{
	return elements_in_one(row) * row->summary->segment->entropy_millibits / 1000.0;
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

/* Prints an object on one line, and frees it. */
static void print_json(json_t *object)
{
	json_dumpf(object, stdout, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(10));
	json_decref(object);
}

static void add_mode(json_t *object, const struct row *row)
{
	const struct wcx_tensor *twin = row->twin;
	json_t *mode = json_sprintf("%s", row->summary->mode);

	if (twin) { /* the name may contain U+0000 */
		const size_t mode_bytes = strlen(row->summary->mode), bytes = mode_bytes + twin->name_bytes;
		char *text = malloc(bytes + 1);

		json_decref(mode);
		mode = text ? json_stringn(memcpy(text, row->summary->mode, mode_bytes), mode_bytes) : NULL;
		if (text) {
			memcpy(text + mode_bytes, twin->name, twin->name_bytes);
			json_string_setn(mode, text, bytes);
		}
		free(text);
	}
	json_object_set_new(object, "mode", mode);
}

static void print_json_row(const struct row *row)
{
	const struct wcx_tensor *tensor = row->tensor;
	const struct summary *sum = row->summary;
	json_t *object = json_object();

	json_object_set_new(object, "name", json_stringn(tensor->name, tensor->name_bytes));
	json_object_set_new(object, "dtype", json_string(tensor->dtype));
	json_object_set_new(object, "shape", wcx_json_shape(tensor->shape, tensor->dim_count));
	wcx_json_set_count(object, "offset", tensor->offset);
	wcx_json_set_count(object, "bytes", tensor->bytes);
	wcx_json_set_count(object, "packed_bytes", row->packed_bytes);
	wcx_json_set_count(object, "tiles", sum ? own_tiles(row) : 0);
	if (sum) {
		wcx_json_set_count(object, "tile_rows", sum->segment->tile_rows);
		wcx_json_set_count(object, "tile_cols", sum->segment->tile_cols);
		wcx_json_set_count(object, "tiles_coded", sum->mode_count[WCX_TILE_CODED]);
		wcx_json_set_count(object, "tiles_stored", sum->mode_count[WCX_TILE_STORED]);
		wcx_json_set_count(object, "tiles_constant", sum->mode_count[WCX_TILE_CONSTANT]);
		wcx_json_set_count(object, "tiles_zstd", sum->mode_count[WCX_TILE_ZSTD]);
		json_object_set_new(object, "bits_per_element", json_real(bits_per_element(row)));
		json_object_set_new(object, "entropy_bits_per_element", json_real(limit_bits_per_element(row)));
		add_mode(object, row);
		if (row->comparison) {
			wcx_json_set_count(object, "zstd_bytes", row->comparison->zstd_bytes);
			wcx_json_set_count(object, "reference_bytes", row->comparison->reference_bytes);
		}
	} else {
		json_object_set_new(object, "mode", json_string("empty"));
	}
	printf("\n    ");
	print_json(object);
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
	printf(" %14llu %14llu ", (unsigned long long)tensor->bytes, (unsigned long long)row->packed_bytes);
	if (row->packed_bytes)
		printf("%7.4f ", (double)tensor->bytes / (double)row->packed_bytes);
	else
		printf("%7s ", "-");
	if (sum)
		printf("%8.4f %7.3f %6llu ", bits_per_element(row), limit_bits_per_element(row),
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
	row.summary = sum;
	if (sum->segment != seg) {
		summarise(info->container, seg, sum);
		if (sum->mode_count[WCX_TILE_CODED] && elements_in_one(&row) > 1)
			append(sum->mode, " by byte");
	}
	row.twin = find_twin(info->container, info->st, seg, tensor);
	/* This order of operations is exact for a tensor that is alone in its segment. */
	row.packed_bytes = (uint64_t)((double)sum->packed_bytes * ((double)tensor->bytes / (double)seg->bytes));
	return row;
}

static double ratio(const struct wcx_superblock *sb)
{
	return (double)sb->original_bytes / (double)sb->packed_bytes;
}

static void format_sha256(const uint8_t sha256[WCX_SHA256_BYTES], char text[2 * WCX_SHA256_BYTES + 1])
{
	for (int i = 0; i < WCX_SHA256_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", sha256[i]);
}

static void print_json_base(const struct wcx_info *info, uint32_t number)
{
	const struct wcx_base *base = wcx_container_base(info->container, number);
	char sha256[2 * WCX_SHA256_BYTES + 1];
	struct wcx_image *image = NULL;
	struct wcx_error why = { "" };
	char *path = NULL;
	json_t *object = json_object();
	const int r = wcx_image_bases_get(wcx_image_bases(info->image), number, &image, &why);

	format_sha256(base->sha256, sha256);
	json_object_set_new(object, "sha256", json_string(sha256));
	wcx_json_set_count(object, "bytes", base->original_bytes);
	wcx_json_set_path(object, "name", base->name);
	if (r == 0)
		path = wcx_plain_path(wcx_container_path(wcx_image_container(image)));
	if (path)
		wcx_json_set_path(object, "path", path);
	else if (r < 0)
		json_object_set_new(object, "error", json_string(why.text));
	free(path);
	wcx_image_put(image);
	printf("%s\n    ", number > 1 ? "," : "");
	print_json(object);
}

static void print_json_bases(const struct wcx_info *info)
{
	const uint32_t count = wcx_container_base_count(info->container);

	printf("  \"bases\": [");
	for (uint32_t number = 1; number <= count; number++)
		print_json_base(info, number);
	printf("%s],\n", count ? "\n  " : "");
}

/* A line for each base: where it is, or why it cannot be found. */
static void print_bases(const struct wcx_info *info)
{
	for (uint32_t number = 1; number <= wcx_container_base_count(info->container); number++) {
		const struct wcx_base *base = wcx_container_base(info->container, number);
		char sha256[2 * WCX_SHA256_BYTES + 1];
		struct wcx_image *image = NULL;
		struct wcx_error why = { "" };
		char *path = NULL;

		format_sha256(base->sha256, sha256);
		printf("base %u: sha256 %s, %llu bytes\n", number, sha256, (unsigned long long)base->original_bytes);
		if (wcx_image_bases_get(wcx_image_bases(info->image), number, &image, &why) == 0)
			path = wcx_plain_path(wcx_container_path(wcx_image_container(image)));
		wcx_print(stdout, "  %s\n", path ? path : why.text);
		free(path);
		wcx_image_put(image);
	}
}

/* A tensor at a time, so that memory does not grow with their number. */
void wcx_info_print_json(const struct wcx_info *info)
{
	const struct wcx_superblock *sb = wcx_container_superblock(info->container);
	char sha256[2 * WCX_SHA256_BYTES + 1];
	struct summary sum = { 0 };
	json_t *file = json_object();
	const char *key;
	json_t *value;

	format_sha256(sb->sha256, sha256);
	wcx_json_set_path(file, "file", wcx_container_path(info->container));
	wcx_json_set_count(file, "version", WCX_VERSION);
	wcx_json_set_count(file, "bytes", sb->original_bytes);
	wcx_json_set_count(file, "packed_bytes", sb->packed_bytes);
	json_object_set_new(file, "ratio", json_real(ratio(sb)));
	wcx_json_set_count(file, "index_bytes", sb->index_bytes);
	wcx_json_set_count(file, "table_bytes", sb->table_bytes);
	wcx_json_set_count(file, "tiles", sb->tile_count);
	json_object_set_new(file, "sha256", json_string(sha256));
	printf("{\n");
	json_object_foreach(file, key, value) {
		printf("  \"%s\": ", key);
		json_dumpf(value, stdout, JSON_ENCODE_ANY | JSON_REAL_PRECISION(10));
		printf(",\n");
	}
	json_decref(file);
	print_json_bases(info);
	printf("  \"tensors\": [");
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
	char sha256[2 * WCX_SHA256_BYTES + 1];
	struct summary sum = { 0 };

	printf("%-8s %14s %14s %7s %8s %7s %6s %s%-20s %s\n", "dtype", "bytes", "packed", "ratio", "bits", "limit", "tiles",
	       info->comparisons ? "zstd -19 reference " : "", "mode", "tensor");
	for (size_t i = 0; i < info->st->tensor_count; i++) {
		const struct row row = describe(info, i, &sum);

		print_table_row(&row);
	}
	format_sha256(sb->sha256, sha256);
	putchar('\n');
	wcx_print(stdout, "%s: %llu bytes packed into %llu (index %llu), ratio %.4f\n", wcx_container_path(info->container),
		  (unsigned long long)sb->original_bytes, (unsigned long long)sb->packed_bytes,
		  (unsigned long long)sb->index_bytes, ratio(sb));
	printf("sha256 %s\n", sha256);
	print_bases(info);
}
