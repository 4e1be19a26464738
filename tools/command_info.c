/* SPDX-License-Identifier: MIT */
/* wcx info */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codec/le.h"
#include "codec/tile_layout.h"
#include "fs/base/parallel.h"
#include "fs/base/utf8.h"
#include "fs/pack/compare.h"
#include "tools/command.h"

static const char help[] =
	"usage: wcx info [--json] [--compare] FILE.wcx\n"
	"\n"
	"Shows what a packed file holds: for each tensor its type, shape, size, packed size,\n"
	"tiles and how they are coded, then the same for the whole file.  Bits are per\n"
	"element; the limit is the order-0 entropy of the byte planes.\n"
	"\n"
	"      --compare  also what zstd -19 and the reference's scheme make of each tensor,\n"
	"                 which decodes the file and takes a second for each 3 MB and core\n"
	"      --json     one JSON object on standard output\n"
	"  -j, --threads=N  use N threads to compare (default: one a core)\n"
	"  -q, -v         accepted, as by the other commands\n"
	"  -h, --help     this text\n"
	"\n"
	"A tensor's mode is stored, zstd, constant, \"same as\" another tensor, or what its\n"
	"first coded tile holds, from the highest bits of an element to the lowest: ransN or\n"
	"ransNxT (N bits coded, with a choice of T tables), pairsNxT (of two elements at a\n"
	"time), rawN (N bits as they are) or const; then +fold where signs invert what is\n"
	"above them, or the predictor, if there is one: +left, +up or +left2.  Small tensors\n"
	"may share their tiles: each shows those of all, and its share of the packed bytes.\n"
	"\n"
	"Examples:\n"
	"  wcx info store/model.safetensors.wcx\n"
	"  wcx info --json store/model.safetensors.wcx | jq -r '.tensors[] | [.name, .packed_bytes] | @tsv'\n"
	"\n"
	"Exit codes: 0 done, 1 failed (the message says why), 2 wrong command line.\n";

enum { MODE_TEXT_BYTES = WCX_FIELDS_MAX * 16 };

/* What the tiles of a segment add up to; nothing when they are those of another, where they are counted. */
struct summary {
	const struct wcx_segment *segment;
	uint64_t packed_bytes;
	uint64_t mode_count[WCX_TILE_MODE_COUNT]; /* tiles by mode */
	char mode[MODE_TEXT_BYTES];
};

/* A line of the output. */
struct row {
	const struct wcx_tensor *tensor;
	const struct summary *summary; /* NULL: no data */
	const struct wcx_tensor *twin; /* the tensor that has the same content and the tiles, or NULL */
	uint64_t packed_bytes;
	const struct wcx_comparison *comparison; /* NULL: none was asked for */
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

/* Reads the head of a coded tile; the rest of the tile is not needed and not checked. */
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
		append(ret->mode, "same as "); /* the name is another one for each of the segment's tensors */
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

/* Prints what stands between the quotes of a JSON string. */
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

/* Bits of an element, as coding sees it, when the tensor takes so many bytes. */
static double bits_per_element_in(const struct row *row, uint64_t bytes)
{
	return row->summary ? 8.0 * (double)bytes * row->summary->segment->recipe.elem_bytes / (double)row->tensor->bytes
			    : 0;
}

static double bits_per_element(const struct row *row)
{
	return bits_per_element_in(row, row->packed_bytes);
}

/* Tiles of the tensor's segment, unless these are another one's. */
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

/* Prints a name from a parsed header, so well-formed UTF-8, with '?' for each control, which a terminal might obey. */
static void print_name(const char *text, int width)
{
	for (; *text; width--) {
		int is_control = wcx_utf8_is_control(text), length = wcx_utf8_sequence(text, 4);

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

/* The tensor of the segment's twin that lies there as this one does in the segment. */
static const struct wcx_tensor *find_twin(const struct wcx_container *c, const struct wcx_safetensors *st,
					  const struct wcx_segment *seg, const struct wcx_tensor *tensor)
{
	const struct wcx_segment *same = wcx_container_segment(c, seg->same_as);

	return seg->same_as ? wcx_image_tensor_at(st, same->offset + (tensor->offset - seg->offset)) : NULL;
}

static void print_tensors(const struct wcx_container *c, const struct wcx_safetensors *st,
			  const struct wcx_comparison *comparisons, int json)
{
	struct summary sum = { 0 };

	for (size_t i = 0; i < st->tensor_count; i++) {
		struct row row = { .tensor = &st->tensors[i], .comparison = comparisons ? &comparisons[i] : NULL };

		if (row.tensor->bytes) {
			const struct wcx_segment *seg =
				wcx_container_segment(c, wcx_container_segment_at(c, row.tensor->offset));

			if (sum.segment != seg)
				summarise(c, seg, &sum);
			row.summary = &sum;
			row.twin = find_twin(c, st, seg, row.tensor);
			/* In this order, so that the share of a tensor alone in its segment is all of it. */
			row.packed_bytes =
				(uint64_t)((double)sum.packed_bytes * ((double)row.tensor->bytes / (double)seg->bytes));
		}
		if (!json) {
			print_table_row(&row);
			continue;
		}
		if (i)
			putchar(',');
		print_json_row(&row);
	}
}

static void print_info(const struct wcx_container *c, const struct wcx_safetensors *st,
		       const struct wcx_comparison *comparisons, int json)
{
	const struct wcx_superblock *sb = wcx_container_superblock(c);
	double ratio = (double)sb->original_bytes / (double)sb->packed_bytes;

	if (json) {
		printf("{\n  \"file\": ");
		print_json_string(wcx_container_path(c));
		printf(",\n  \"version\": %d,\n  \"bytes\": %llu,\n  \"packed_bytes\": %llu,\n  \"ratio\": %.6f,\n",
		       WCX_VERSION, (unsigned long long)sb->original_bytes, (unsigned long long)sb->packed_bytes, ratio);
		printf("  \"index_bytes\": %llu,\n  \"table_bytes\": %llu,\n  \"tiles\": %llu,\n  \"sha256\": \"",
		       (unsigned long long)sb->index_bytes, (unsigned long long)sb->table_bytes,
		       (unsigned long long)sb->tile_count);
		for (int i = 0; i < WCX_SHA256_BYTES; i++)
			printf("%02x", sb->sha256[i]);
		printf("\",\n  \"tensors\": [");
		print_tensors(c, st, comparisons, json);
		printf("\n  ]\n}\n");
		return;
	}
	printf("%-8s %14s %14s %7s %8s %7s %6s %s%-20s %s\n", "dtype", "bytes", "packed", "ratio", "bits", "limit", "tiles",
	       comparisons ? "zstd -19 reference " : "", "mode", "tensor");
	print_tensors(c, st, comparisons, json);
	printf("\n%s: %llu bytes packed into %llu (index %llu), ratio %.4f\nsha256 ", wcx_container_path(c),
	       (unsigned long long)sb->original_bytes, (unsigned long long)sb->packed_bytes,
	       (unsigned long long)sb->index_bytes, ratio);
	for (int i = 0; i < WCX_SHA256_BYTES; i++)
		printf("%02x", sb->sha256[i]);
	printf("\n");
}

/* What all threads of a comparison share: each tensor's result is its own. */
struct compare_loop {
	struct command *command;
	struct wcx_image *image;
	const struct wcx_safetensors *st;
	struct wcx_comparison *comparisons;
	uint64_t done_bytes; /* belongs to the tensor whose turn it is */
};

static int compare_one(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	struct compare_loop *compare = user;
	const struct wcx_tensor *tensor = &compare->st->tensors[item];
	int r = wcx_compare_tensor(compare->image, tensor, &wcx_command_stop, &compare->comparisons[item], err);

	(void)worker;
	if (r == 0)
		r = wcx_parallel_enter(loop, item);
	if (r < 0)
		return r;
	compare->done_bytes += tensor->bytes;
	wcx_progress(compare->command, "comparing", compare->done_bytes,
		     compare->st->file_bytes - compare->st->header_bytes);
	wcx_parallel_leave(loop);
	return 0;
}

/* Compares all tensors; the caller frees *ret. */
static int compare_all(struct command *command, struct wcx_image *image, const struct wcx_safetensors *st,
		       struct wcx_comparison **ret, struct wcx_error *err)
{
	struct compare_loop compare = { .command = command, .image = image, .st = st };
	int r;

	compare.comparisons = calloc(st->tensor_count ? st->tensor_count : 1, sizeof *compare.comparisons);
	if (!compare.comparisons)
		return wcx_fail(err, ENOMEM, "%s: no memory", wcx_container_path(wcx_image_container(image)));
	*ret = compare.comparisons;
	wcx_command_catch_signals();
	r = wcx_parallel_for(command->thread_count, st->tensor_count, compare_one, &compare, &wcx_command_stop, err);
	wcx_progress_clear(command);
	return r;
}

int wcx_command_info(struct command *command, int argc, char **argv)
{
	static const struct option options[] = {
		WCX_COMMAND_LONG_OPTIONS, { "json", no_argument, NULL, 'J' }, { "compare", no_argument, NULL, 'C' }, { 0 }
	};
	struct wcx_comparison *comparisons = NULL;
	struct wcx_safetensors *st = NULL;
	struct wcx_image *image = NULL;
	struct wcx_error err;
	int option, status, json = 0, compare = 0, r;

	command->decoder_kind = WCX_DECODER_CPU; /* only the header is decoded, or decoding is the least of it */
	while ((option = getopt_long(argc, argv, WCX_COMMAND_SHORT_OPTIONS, options, NULL)) != -1) {
		if (option == 'J')
			json = 1;
		else if (option == 'C')
			compare = 1;
		else if ((status = wcx_command_option(command, option, help)) >= 0)
			return status;
	}
	if (argc - optind != 1)
		return wcx_command_usage(command, "needs one packed file");
	r = wcx_command_open(command, argv[optind], &image, &err);
	if (r == 0)
		r = wcx_image_header(image, &st, &err);
	if (r == 0 && compare)
		r = compare_all(command, image, st, &comparisons, &err);
	if (r == 0)
		print_info(wcx_image_container(image), st, comparisons, json);
	free(comparisons);
	wcx_safetensors_free(st);
	wcx_image_put(image);
	return r < 0 ? wcx_command_failed(command, &err) : WCX_EXIT_OK;
}
