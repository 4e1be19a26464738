/* SPDX-License-Identifier: MIT */
/*
 * Searches for the file whose reads cost most: crafts .wcx files that the rules of the format allow, and times one read of
 * 128 KiB from each.
 *
 *	worst_read [LIMIT]
 *
 * Prints the CPU time of all threads, of the middle of five reads with an empty cache.  With a limit in seconds, exits with
 * status 1 if a read takes longer.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "codec/arith.h"
#include "codec/le.h"
#include "fs/format/container.h"
#include "fs/format/index_writer.h"
#include "fs/read/decoder.h"
#include "fs/read/image.h"
#include "fs/read/tile_cache.h"
#include "tests/bench/measure.h"
#include "tests/bench/must.h"

enum {
	READ_BYTES = 128 << 10,
	HEADER_BYTES = 8,
	ROUNDS = 5,
	FSE_BLOCK_BYTES = 16,
};

/* A file being made, in pieces. */
struct craft {
	FILE *tiles, *segments, *fields, *entries, *tables;
	char *text[5];
	size_t bytes[5];
	struct wcx_superblock superblock; /* its counts */
	struct wcx_encode_scratch *scratch;
	uint64_t read_offset; /* of the read to time; 0: right behind the header */
	uint64_t random;
};

static uint64_t draw(struct craft *craft)
{
	craft->random ^= craft->random << 13;
	craft->random ^= craft->random >> 7;
	craft->random ^= craft->random << 17;
	return craft->random;
}

/* Adds a segment's record and its fields, whose tables are the last that were added. */
static void add_segment(struct craft *craft, struct wcx_segment *seg)
{
	uint32_t table = 0;
	uint8_t record[WCX_SEGMENT_BYTES];

	for (uint32_t f = 0; !seg->same_as && f < seg->recipe.field_count; f++)
		table += seg->recipe.fields[f].table_count;
	table = craft->superblock.table_count - table;
	wcx_segment_write(seg, record);
	fwrite(record, 1, sizeof record, craft->segments);
	craft->superblock.segment_count++;
	craft->superblock.original_bytes += seg->bytes;
	if (seg->same_as)
		return;
	for (uint32_t f = 0; f < seg->recipe.field_count; f++) {
		const struct wcx_field *field = &seg->recipe.fields[f];

		wcx_field_write(field, field->table_count ? table : 0, record);
		fwrite(record, 1, WCX_FIELD_BYTES, craft->fields);
		table += field->table_count;
		craft->superblock.field_count++;
	}
	wcx_segment_grid(seg);
}

static void add_tile(struct craft *craft, enum wcx_tile_mode mode, const uint8_t *packed, size_t bytes)
{
	static const uint8_t gap[WCX_TILE_ALIGN];
	const struct wcx_tile_info info = {
		.mode = mode,
		.packed_bytes = (uint32_t)bytes,
		.checksum = bytes ? wcx_checksum32(packed, bytes) : 0,
	};
	uint8_t entry[WCX_TILE_ENTRY_BYTES];

	wcx_tile_entry_write(&info, entry);
	fwrite(entry, 1, sizeof entry, craft->entries);
	fwrite(packed, 1, bytes, craft->tiles);
	fwrite(gap, 1, (size_t)(wcx_tile_align_up(bytes) - bytes), craft->tiles);
	craft->superblock.tile_count++;
}

static void add_table(struct craft *craft, const struct wcx_freq_table *table)
{
	uint8_t written[WCX_FREQ_TABLE_MAX_BYTES];

	fwrite(written, 1, wcx_freq_table_write(table, written), craft->tables);
	craft->superblock.table_count++;
}

/* A table like no other: symbol 0 is likely, all others of `symbols` are not, and the last two tell it from its kind. */
static void make_table(struct wcx_freq_table *table, uint32_t symbols, uint32_t number)
{
	memset(table, 0, sizeof *table);
	for (uint32_t s = 1; s < symbols; s++)
		table->freq[s] = (uint16_t)(symbols > 16 ? 1 : 128);
	table->freq[symbols - 1] = (uint16_t)(table->freq[symbols - 1] + number % 60);
	if (symbols > 2)
		table->freq[symbols - 2] = (uint16_t)(table->freq[symbols - 2] + number / 60 % 60);
	table->freq[0] = WCX_PROB_SCALE;
	for (uint32_t s = 1; s < symbols; s++)
		table->freq[0] = (uint16_t)(table->freq[0] - table->freq[s]);
}

/* Encodes elements of which one in 24 is not 0; it must pay. */
static struct wcx_encoded_tile encode(struct craft *craft, const struct wcx_segment *seg, uint32_t rows, uint32_t cols,
				      uint8_t *dst)
{
	const struct wcx_tile_dims dims = { rows, cols, seg->recipe.elem_bytes };
	const size_t bytes = wcx_tile_dims_bytes(&dims);
	uint8_t *elements = must_alloc(bytes);
	struct wcx_encoded_tile encoded;

	for (size_t i = 0; i < bytes; i++)
		elements[i] = draw(craft) % 24 ? 0 : (uint8_t)(draw(craft) >> 32);
	if (wcx_tile_encode(&dims, elements, &seg->recipe, craft->scratch, dst, &encoded) != WCX_OK ||
	    encoded.mode != WCX_TILE_CODED)
		must_not("encoding", "does not pay");
	free(elements);
	return encoded;
}

/* A segment of bytes as they are: a row of so many, or for the caller to say. */
static struct wcx_segment raw_segment(uint64_t bytes, uint32_t tile_rows, uint32_t tile_cols)
{
	static const struct wcx_field raw = { .width = 8 };

	return (struct wcx_segment){
		.bytes = bytes,
		.cols = bytes,
		.tile_rows = tile_rows,
		.tile_cols = tile_cols,
		.recipe = { .elem_bytes = 1, .field_count = 1, .fields = &raw },
	};
}

/* --- the kinds --- */

/* Narrow tiles side by side, all with the same packed bytes: whatever is read, all rows of each tile are decoded. */
static void narrow(struct craft *craft, struct wcx_segment *seg, enum wcx_tile_mode mode)
{
	const uint32_t elem_bytes = seg->recipe.elem_bytes;
	uint8_t *packed = calloc(WCX_TILE_MAX_BYTES, 1);
	struct wcx_encoded_tile encoded = { mode, 0, 0 };

	seg->cols = WCX_MAX(WCX_ALIGN_DOWN(READ_BYTES / elem_bytes, seg->tile_cols), 2 * seg->tile_cols);
	seg->bytes = seg->cols * seg->tile_rows * elem_bytes;
	add_segment(craft, seg);
	if (mode == WCX_TILE_STORED)
		encoded.bytes = (size_t)seg->tile_rows * seg->tile_cols * elem_bytes;
	else if (mode == WCX_TILE_CODED)
		encoded = encode(craft, seg, seg->tile_rows, seg->tile_cols, packed);
	for (uint64_t t = 0; t < seg->tile_count; t++)
		add_tile(craft, mode, packed, encoded.bytes);
	free(packed);
}

static void narrow_coded(struct craft *craft, uint32_t elem_bytes, uint32_t fields, uint32_t table_count, uint32_t rows,
			 uint32_t cols, enum wcx_predictor predictor)
{
	struct wcx_freq_table tables[WCX_FIELDS_MAX][WCX_FIELD_TABLES_MAX];
	struct wcx_field field[WCX_FIELDS_MAX];
	struct wcx_segment seg = {
		.tile_rows = rows,
		.tile_cols = cols,
		.recipe = { (uint8_t)elem_bytes, WCX_TRANSFORM_NONE, (uint8_t)predictor, (uint8_t)fields,
			    table_count > 1 ? WCX_RUN_ELEMS : 0, field },
	};

	for (uint32_t f = 0; f < fields; f++) {
		const uint32_t width = 8 * elem_bytes / fields + (f < 8 * elem_bytes % fields);

		field[f] = (struct wcx_field){ .width = (uint8_t)width,
					       .table_count = (uint8_t)table_count,
					       .tables = tables[f] };
		for (uint32_t t = 0; t < table_count; t++) {
			make_table(&tables[f][t], 1u << WCX_MIN(width, 8u), f * table_count + t);
			add_table(craft, &tables[f][t]);
		}
	}
	narrow(craft, &seg, WCX_TILE_CODED);
}

static void narrow_256(struct craft *craft)
{
	narrow_coded(craft, 1, 2, 4, 256, 256, WCX_PREDICT_LEFT2);
}

static void narrow_64(struct craft *craft)
{
	narrow_coded(craft, 1, 8, 4, 64, 1024, WCX_PREDICT_LEFT2);
}

static void narrow_64_slender(struct craft *craft)
{
	narrow_coded(craft, 1, 8, 4, 64, 32, WCX_PREDICT_LEFT2);
}

static void narrow_128_slender(struct craft *craft)
{
	narrow_coded(craft, 1, 4, 4, 128, 16, WCX_PREDICT_LEFT2);
}

static void narrow_51_of_2_bytes(struct craft *craft)
{
	narrow_coded(craft, 2, 10, 4, 51, 1024, WCX_PREDICT_LEFT2);
}

static void narrow_64_of_8_bytes(struct craft *craft)
{
	narrow_coded(craft, 8, 8, 4, 64, 1024, WCX_PREDICT_LEFT2);
}

static void narrow_smallest(struct craft *craft)
{
	narrow_coded(craft, 1, 1, 4, 40, 5, WCX_PREDICT_UP);
}

static void narrow_plain(struct craft *craft, uint32_t rows, uint32_t cols, enum wcx_tile_mode mode)
{
	struct wcx_segment seg = raw_segment(0, rows, cols);

	narrow(craft, &seg, mode);
}

static void stored_columns(struct craft *craft)
{
	narrow_plain(craft, 8, 1, WCX_TILE_STORED);
}

static void stored_bytes(struct craft *craft)
{
	narrow_plain(craft, 1, 1, WCX_TILE_STORED);
}

static void constant_bytes(struct craft *craft)
{
	narrow_plain(craft, 1, 1, WCX_TILE_CONSTANT);
}

/* The least segments that coding pays for, each with tables of its own. */
static void small_segments(struct craft *craft, bool is_pair)
{
	enum { BYTES = 192, COUNT = READ_BYTES / BYTES + 1 };

	for (uint32_t i = 0; i < COUNT; i++) {
		struct wcx_freq_table tables[WCX_FIELD_TABLES_MAX];
		const struct wcx_field field[2] = {
			{ .width = 4 },
			{ .width = is_pair ? 4 : 8, .table_count = 4, .is_pair = is_pair, .tables = tables },
		};
		struct wcx_segment seg = {
			.bytes = BYTES,
			.cols = BYTES,
			.tile_rows = 1,
			.tile_cols = BYTES,
			.recipe = { 1, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, is_pair ? 2 : 1, WCX_RUN_ELEMS,
				    field + !is_pair },
		};
		uint8_t packed[BYTES], elements[BYTES];
		const struct wcx_tile_dims dims = { 1, BYTES, 1 };
		struct wcx_encoded_tile encoded;

		for (uint32_t t = 0; t < WCX_FIELD_TABLES_MAX; t++) {
			make_table(&tables[t], is_pair ? 16 : 256, WCX_FIELD_TABLES_MAX * i + t);
			add_table(craft, &tables[t]);
		}
		for (uint32_t e = 0; e < BYTES; e++)
			elements[e] = draw(craft) % 32 ? 0 : 0xF0;
		if (wcx_tile_encode(&dims, elements, &seg.recipe, craft->scratch, packed, &encoded) != WCX_OK ||
		    encoded.mode != WCX_TILE_CODED)
			must_not("a small segment", "coding does not pay");
		add_segment(craft, &seg);
		add_tile(craft, WCX_TILE_CODED, packed, encoded.bytes);
	}
}

static void segments_of_4_tables(struct craft *craft)
{
	small_segments(craft, false);
}

static void segments_of_4_tables_of_pairs(struct craft *craft)
{
	small_segments(craft, true);
}

static void segments_of_a_byte(struct craft *craft)
{
	for (uint32_t i = 0; i < READ_BYTES; i++) {
		struct wcx_segment seg = raw_segment(1, 1, 1);

		add_segment(craft, &seg);
		add_tile(craft, WCX_TILE_STORED, (const uint8_t *)"", 1);
	}
}

static void segments_of_the_same_byte(struct craft *craft)
{
	struct wcx_segment seg = raw_segment(1, 1, 1);

	add_segment(craft, &seg);
	add_tile(craft, WCX_TILE_STORED, (const uint8_t *)"", 1);
	seg.same_as = 1;
	for (uint32_t i = 1; i < READ_BYTES; i++)
		add_segment(craft, &seg);
}

/* Adds the header of a Zstandard block: 0 raw, 1 one byte repeated, 2 compressed. */
static uint8_t *put_block(uint8_t *at, uint32_t type, uint32_t bytes, bool is_last)
{
	const uint32_t header = bytes << 3 | type << 1 | is_last;

	at[0] = (uint8_t)header;
	at[1] = (uint8_t)(header >> 8);
	at[2] = (uint8_t)(header >> 16);
	return at + 3;
}

/*
 * A frame of the most blocks that fit: each has a sequence of three bytes, for which three tables of the largest size are
 * built.  Returns its size.
 */
static size_t zstd_frame(uint8_t *dst, uint32_t content_bytes)
{
	/* No literals; a sequence; all tables described: 9, 8 and 9 bits, all for code 0; three states of zeros. */
	static const uint8_t block[FSE_BLOCK_BYTES - 3] = { 0, 1, 0xA8, 0xF4, 0x3F, 0xF3, 0x1F, 0xF4, 0x3F, 0, 0, 0, 0x04 };
	uint8_t *at = dst, *end = dst + content_bytes - 32;
	uint32_t left = content_bytes - 16;

	wcx_le32_write(at, 0xFD2FB528);
	at[4] = 0xA0; /* a single segment, whose size is told in four bytes */
	wcx_le32_write(at + 5, content_bytes);
	at = put_block(at + 9, 0, 16, false);
	memset(at, 7, 16);
	for (at += 16; at + FSE_BLOCK_BYTES + 16 <= end; at += sizeof block, left -= 3) {
		at = put_block(at, 2, sizeof block, false);
		memcpy(at, block, sizeof block);
	}
	while (left) {
		const uint32_t bytes = WCX_MIN(left, 128u << 10);

		left -= bytes;
		at = put_block(at, 1, bytes, !left);
		*at++ = 7;
	}
	return (size_t)(at - dst);
}

/* The largest tiles, of which the read takes a byte of the first and of the last. */
static void zstd_flat(struct craft *craft)
{
	enum { TILE_BYTES = WCX_ZSTD_TILE_MAX_BYTES, COUNT = READ_BYTES / TILE_BYTES + 1 };
	struct wcx_segment seg = raw_segment(COUNT * TILE_BYTES, 1, TILE_BYTES);
	uint8_t *frame = must_alloc(TILE_BYTES);
	const size_t bytes = zstd_frame(frame, TILE_BYTES);

	add_segment(craft, &seg);
	for (int i = 0; i < COUNT; i++)
		add_tile(craft, WCX_TILE_ZSTD, frame, bytes);
	craft->read_offset = HEADER_BYTES + TILE_BYTES - 1;
	free(frame);
}

static const struct kind {
	const char *name;
	void (*make)(struct craft *craft);
} kinds[] = {
	{ "narrow, 256 × 256, 2 fields of 4 tables", narrow_256 },
	{ "narrow, 64 × 1024, 8 fields of 4 tables", narrow_64 },
	{ "narrow, 64 × 32, 8 fields of 4 tables", narrow_64_slender },
	{ "narrow, 128 × 16, 4 fields of 4 tables", narrow_128_slender },
	{ "narrow, 51 × 1024 of 2 bytes, 10 fields of 4 tables", narrow_51_of_2_bytes },
	{ "narrow, 64 × 1024 of 8 bytes, 8 fields of 4 tables", narrow_64_of_8_bytes },
	{ "narrow, 40 × 5, 4 tables", narrow_smallest },
	{ "narrow, 8 × 1, stored", stored_columns },
	{ "tiles of a byte, stored", stored_bytes },
	{ "tiles of a byte, constant", constant_bytes },
	{ "segments of 192 bytes with 4 tables", segments_of_4_tables },
	{ "segments of 192 bytes with 4 tables of pairs", segments_of_4_tables_of_pairs },
	{ "segments of a byte", segments_of_a_byte },
	{ "segments with the same byte", segments_of_the_same_byte },
	{ "Zstandard, 3 × 64 KiB in blocks of 3 bytes", zstd_flat },
};

/* --- files and reads --- */

static int finish(struct craft *craft)
{
	struct wcx_superblock *sb = &craft->superblock;
	FILE *pieces[] = { craft->tiles, craft->segments, craft->fields, craft->entries, craft->tables };
	const int fd = memfd_create("worst_read", MFD_CLOEXEC);
	FILE *out = fdopen(dup(fd), "wb");
	uint8_t superblock[WCX_SUPERBLOCK_BYTES], *index;
	size_t at = 0;

	for (int i = 0; i < 5; i++)
		fclose(pieces[i]);
	sb->index_offset = WCX_SUPERBLOCK_BYTES + craft->bytes[0];
	sb->index_bytes = craft->bytes[1] + craft->bytes[2] + craft->bytes[3] + craft->bytes[4];
	sb->packed_bytes = sb->index_offset + sb->index_bytes;
	sb->table_bytes = craft->bytes[4];
	index = must_alloc(sb->index_bytes);
	for (int i = 1; i < 5; at += craft->bytes[i++])
		memcpy(index + at, craft->text[i], craft->bytes[i]);
	sb->index_checksum = wcx_checksum64(index, sb->index_bytes);
	wcx_superblock_write(sb, superblock);
	if (!out || fwrite(superblock, sizeof superblock, 1, out) != 1 ||
	    fwrite(craft->text[0], 1, craft->bytes[0], out) != craft->bytes[0] ||
	    fwrite(index, 1, sb->index_bytes, out) != sb->index_bytes || fclose(out) != 0)
		must_not("the file", "was not written");
	for (int i = 0; i < 5; i++)
		free(craft->text[i]);
	free(index);
	return fd;
}

static int make_file(const struct kind *kind, uint64_t *offset_ret)
{
	static const struct wcx_field raw = { .width = 8 };
	struct wcx_segment header = { .bytes = HEADER_BYTES,
				      .cols = HEADER_BYTES,
				      .tile_rows = 1,
				      .tile_cols = HEADER_BYTES,
				      .recipe = { .elem_bytes = 1, .field_count = 1, .fields = &raw } };
	struct craft craft = { .scratch = wcx_encode_scratch_create(), .random = 0x9E3779B97F4A7C15 };
	FILE **pieces[] = { &craft.tiles, &craft.segments, &craft.fields, &craft.entries, &craft.tables };

	for (int i = 0; i < 5; i++)
		*pieces[i] = open_memstream(&craft.text[i], &craft.bytes[i]);
	add_segment(&craft, &header);
	add_tile(&craft, WCX_TILE_STORED, (const uint8_t *)"\2\0\0\0\0\0\0\0", HEADER_BYTES);
	kind->make(&craft);
	wcx_encode_scratch_free(craft.scratch);
	*offset_ret = craft.read_offset ? craft.read_offset : HEADER_BYTES;
	return finish(&craft);
}

static double cpu_now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Seconds of CPU for the read, in the middle of the rounds. */
static double time_read(const struct kind *kind, struct wcx_decoder *decoder)
{
	static uint8_t dst[READ_BYTES];
	struct wcx_tile_cache *cache = wcx_tile_cache_create(64 << 20);
	struct wcx_error err = { "" };
	double seconds[ROUNDS];
	uint64_t offset;
	const int fd = make_file(kind, &offset);

	for (int i = 0; i < ROUNDS; i++) {
		struct wcx_image *image;
		double start;

		if (wcx_image_open(dup(fd), kind->name, cache, decoder, &image, &err) < 0)
			must_not("open", err.text);
		start = cpu_now_s();
		if (wcx_image_read(image, dst, sizeof dst, offset, &err) < 0)
			must_not("read", err.text);
		seconds[i] = cpu_now_s() - start;
		wcx_image_put(image);
	}
	close(fd);
	wcx_tile_cache_free(cache);
	return measure_spread_of(seconds, ROUNDS).median;
}

int main(int argc, char **argv)
{
	const double limit = argc > 1 ? strtod(argv[1], NULL) : 1e9;
	struct wcx_decoder *decoder;
	struct wcx_error err = { "" };
	int status = 0;

	measure_print_origin(argc, argv);
	if (wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &decoder, &err) < 0)
		must_not("decoder", err.text);
	for (size_t i = 0; i < WCX_ARRAY_COUNT(kinds); i++) {
		const double seconds = time_read(&kinds[i], decoder);

		printf("%8.3f s  %s%s\n", seconds, kinds[i].name, seconds > limit ? "  <- over the limit" : "");
		status |= seconds > limit;
	}
	wcx_decoder_free(decoder);
	return status;
}
