/* SPDX-License-Identifier: MIT */
/* wcx info */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "codec/tile.h"
#include "fs/utf8.h"
#include "tools/command.h"

static const char help[] =
	"usage: wcx info [--json] FILE.wcx\n"
	"\n"
	"Shows what a packed file holds: for each tensor its type, shape, size, packed size,\n"
	"tiles and how they are coded, then the same for the whole file.  Bits are per\n"
	"element; the limit is the order-0 entropy of the byte planes.\n"
	"\n"
	"      --json     one JSON object on standard output\n"
	"  -q, -v         accepted, as by the other commands\n"
	"  -h, --help     this text\n"
	"\n"
	"A tensor's mode is stored, constant, or what its first coded tile holds, from the\n"
	"highest byte of an element to the lowest: rans (with -left, -up or -avg behind it\n"
	"when a predictor is used), stored or constant.\n"
	"\n"
	"Examples:\n"
	"  wcx info store/model.safetensors.wcx\n"
	"  wcx info --json store/model.safetensors.wcx | jq -r '.tensors[] | [.name, .packed_bytes] | @tsv'\n"
	"\n"
	"Exit codes: 0 done, 1 failed (the message says why), 2 wrong command line.\n";

enum { MODE_TEXT_BYTES = WCX_PLANES_MAX * 16 };

/* What the tiles of a tensor add up to. */
struct summary {
	uint64_t packed_bytes;
	uint64_t tile_count[WCX_TILE_CONSTANT + 1]; /* by mode */
	char mode[MODE_TEXT_BYTES];
};

static void append(char *text, const char *more)
{
	strncat(text, more, MODE_TEXT_BYTES - 1 - strlen(text));
}

/* Reads the plane headers of a coded tile; the rest of the tile is not needed and not checked. */
static void describe_planes(const struct wcx_container *c, const struct wcx_tile_info *tile, char *text)
{
	static const char *const predictors[] = { "", "-left", "-up", "-avg" };
	static const char *const codings[] = { "stored", "rans", "constant", "damaged" };
	uint8_t headers[4 * WCX_PLANES_MAX];
	ssize_t bytes = 4 * (ssize_t)tile->shape.elem_bytes;

	if (pread(wcx_container_fd(c), headers, (size_t)bytes, (off_t)tile->packed_offset) != bytes) {
		append(text, "damaged");
		return;
	}
	for (uint32_t p = tile->shape.elem_bytes; p-- > 0;) {
		append(text, codings[headers[4 * p] & 3]);
		append(text, predictors[headers[4 * p] >> 2 & 3]);
		if (p)
			append(text, ",");
	}
}

static void summarise(const struct wcx_container *c, const struct wcx_segment *seg, struct summary *ret)
{
	memset(ret, 0, sizeof *ret);
	for (uint64_t t = seg->first_tile; t < seg->first_tile + seg->tile_count; t++) {
		struct wcx_tile_info tile;

		wcx_container_tile(c, seg, t, &tile);
		ret->packed_bytes += tile.packed_bytes;
		if (ret->tile_count[tile.mode]++ == 0 && tile.mode == WCX_TILE_CODED)
			describe_planes(c, &tile, ret->mode);
	}
	if (!ret->tile_count[WCX_TILE_CODED])
		append(ret->mode, ret->tile_count[WCX_TILE_STORED] ? "stored" : "constant");
}

static void print_json_string(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c == 0x7F)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static void print_shape(const struct wcx_tensor *tensor)
{
	putchar('[');
	for (size_t i = 0; i < tensor->dim_count; i++)
		printf("%s%llu", i ? "," : "", (unsigned long long)tensor->shape[i]);
	putchar(']');
}

static void print_json_tensor(const struct wcx_tensor *tensor, const struct wcx_segment *seg, const struct summary *sum,
			      int first)
{
	printf("%s\n    {\"name\": ", first ? "" : ",");
	print_json_string(tensor->name);
	printf(", \"dtype\": ");
	print_json_string(tensor->dtype);
	printf(", \"shape\": ");
	print_shape(tensor);
	printf(", \"offset\": %llu, \"bytes\": %llu, \"packed_bytes\": %llu", (unsigned long long)tensor->offset,
	       (unsigned long long)tensor->bytes, (unsigned long long)sum->packed_bytes);
	if (seg)
		printf(", \"tiles\": %llu, \"tile_rows\": %lu, \"tile_cols\": %lu, "
		       "\"tiles_coded\": %llu, \"tiles_stored\": %llu, \"tiles_constant\": %llu, "
		       "\"bits_per_element\": %.4f, \"entropy_bits_per_element\": %.3f, \"mode\": \"%s\"}",
		       (unsigned long long)seg->tile_count, (unsigned long)seg->tile_rows, (unsigned long)seg->tile_cols,
		       (unsigned long long)sum->tile_count[WCX_TILE_CODED],
		       (unsigned long long)sum->tile_count[WCX_TILE_STORED],
		       (unsigned long long)sum->tile_count[WCX_TILE_CONSTANT],
		       8.0 * (double)sum->packed_bytes * seg->elem_bytes / (double)seg->bytes,
		       seg->entropy_millibits / 1000.0, sum->mode);
	else
		printf(", \"tiles\": 0, \"mode\": \"empty\"}");
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

static void print_table_tensor(const struct wcx_tensor *tensor, const struct wcx_segment *seg, const struct summary *sum)
{
	print_name(tensor->dtype, 8);
	printf(" %14llu %14llu %7.4f ", (unsigned long long)tensor->bytes, (unsigned long long)sum->packed_bytes,
	       sum->packed_bytes ? (double)tensor->bytes / (double)sum->packed_bytes : 0.0);
	if (seg)
		printf("%8.4f %7.3f %6llu %-20s ", 8.0 * (double)sum->packed_bytes * seg->elem_bytes / (double)seg->bytes,
		       seg->entropy_millibits / 1000.0, (unsigned long long)seg->tile_count, sum->mode);
	else
		printf("%8s %7s %6d %-20s ", "-", "-", 0, "empty");
	print_name(tensor->name, 0);
	putchar(' ');
	print_shape(tensor);
	putchar('\n');
}

static void print_tensors(const struct wcx_container *c, const struct wcx_safetensors *st, int json)
{
	size_t segment = 1;

	for (size_t i = 0; i < st->tensor_count; i++) {
		const struct wcx_tensor *tensor = &st->tensors[i];
		const struct wcx_segment *seg = tensor->bytes ? wcx_container_segment(c, segment++) : NULL;
		struct summary sum = { 0 };

		if (seg)
			summarise(c, seg, &sum);
		if (json)
			print_json_tensor(tensor, seg, &sum, i == 0);
		else
			print_table_tensor(tensor, seg, &sum);
	}
}

static void print_info(const struct wcx_container *c, const struct wcx_safetensors *st, int json)
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
		print_tensors(c, st, json);
		printf("\n  ]\n}\n");
		return;
	}
	printf("%-8s %14s %14s %7s %8s %7s %6s %-20s %s\n", "dtype", "bytes", "packed", "ratio", "bits", "limit", "tiles",
	       "mode", "tensor");
	print_tensors(c, st, json);
	printf("\n%s: %llu bytes packed into %llu (index %llu), ratio %.4f\nsha256 ", wcx_container_path(c),
	       (unsigned long long)sb->original_bytes, (unsigned long long)sb->packed_bytes,
	       (unsigned long long)sb->index_bytes, ratio);
	for (int i = 0; i < WCX_SHA256_BYTES; i++)
		printf("%02x", sb->sha256[i]);
	printf("\n");
}

int wcx_command_info(struct command *command, int argc, char **argv)
{
	static const struct option options[] = { WCX_COMMAND_LONG_OPTIONS, { "json", no_argument, NULL, 'J' }, { 0 } };
	struct wcx_safetensors *st = NULL;
	struct wcx_image *image = NULL;
	struct wcx_error err;
	int option, status, json = 0, r;

	command->decoder_kind = WCX_DECODER_CPU; /* only the header is decoded */
	while ((option = getopt_long(argc, argv, WCX_COMMAND_SHORT_OPTIONS, options, NULL)) != -1) {
		if (option == 'J')
			json = 1;
		else if ((status = wcx_command_option(command, option, help)) >= 0)
			return status;
	}
	if (argc - optind != 1)
		return wcx_command_usage(command, "needs one packed file");
	r = wcx_command_open(command, argv[optind], &image, &err);
	if (r == 0)
		r = wcx_image_header(image, &st, &err);
	if (r == 0)
		print_info(wcx_image_container(image), st, json);
	wcx_safetensors_free(st);
	wcx_image_put(image);
	return r < 0 ? wcx_command_failed(command, &err) : WCX_EXIT_OK;
}
