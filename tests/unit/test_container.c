/* SPDX-License-Identifier: MIT */
/*
 * Superblock and index: every field is checked, and a file with any byte changed or missing is either refused by name or
 * still gives the original's bytes.
 */
#include "fs/format/container.h"

#include <errno.h>
#include <string.h>

#include "codec/tile_layout.h"
#include "fs/read/export.h"
#include "fs/read/image.h"
#include "tests/fixtures/sample_image.h"
#include "tests/unit/check.h"

enum { CHECKSUM_AT = WCX_SUPERBLOCK_BYTES - 8 };

static const char path[] = "store/small.wcx"; /* in messages; the files have no name */

/* The indices of the segments after the header. */
enum { CODED = 1, SCALE, WIDE, CONSTANT, TINY, ZIPPED, AGAIN, POOL, ONCE_MORE, FOLDED, SPARSE, SEGMENT_COUNT };
/* The index of the first field of each. */
enum {
	CODED_FIELD = 1,
	SCALE_FIELD = 2,
	WIDE_FIELD = 5,
	CONSTANT_FIELD = 13,
	POOL_FIELD = 17,
	FOLDED_FIELD = 20,
	SPARSE_FIELD = 22,
	FIELD_COUNT = 24
};

static const struct wcx_field scale_fields[3] = {
	{ .width = 3 },
	{ .width = 9, .table_count = 1, .has_zero = 1, .base = 100, .tables = sample_tables },
	{ .width = 4, .table_count = 1, .tables = sample_tables + 8 },
};
static const struct wcx_recipe scale_recipe = {
	.elem_bytes = 2, .transform = WCX_TRANSFORM_ROTATE, .field_count = 3, .fields = scale_fields
};
static const struct wcx_field half_fields[2] = {
	{ .width = 4, .table_count = 1, .tables = sample_tables + 10 },
	{ .width = 4, .table_count = 1, .tables = sample_tables + 11 },
};
static const struct wcx_recipe half_recipe = {
	.elem_bytes = 1, .transform = WCX_TRANSFORM_ROTATE, .field_count = 2, .fields = half_fields
};

/* A few KiB with everything that the format has. */
static const struct sample_part parts[] = {
	{ { "coded", "I8", "[40,50]", 2000, SAMPLE_GAUSSIAN, 3 }, 2000, 1, 65536, &sample_1_byte, 0, 0 },
	{ { "scale", "F16", "[]", 2, SAMPLE_UNIFORM, 0 }, 1, 1, 1, &scale_recipe, 0, 0 },
	{ { "empty", "F32", "[0,5]", 0, SAMPLE_CONSTANT, 0 }, 0, 0, 0, NULL, 0, 0 },
	{ { "wide", "F64", "[3,50]", 1200, SAMPLE_STUDENT, 2 }, 50, 2, 30, &sample_8_bytes, 0, 0 },
	{ { "constant", "U8", "[300]", 300, SAMPLE_CONSTANT, 0 }, 300, 1, 300, &half_recipe, 0, 0 },
	{ { "tiny", "I8", "[5]", 5, SAMPLE_UNIFORM, 0 }, 5, 2, 40, &sample_1_byte_left, 0, 0 },
	{ { "zipped", "I8", "[250]", 250, SAMPLE_GAUSSIAN, 0.4 }, 250, 1, 200, &sample_1_byte_plain, 1, 0 },
	{ { "again", "I8", "[2000]", 2000, SAMPLE_UNIFORM, 0 }, 0, 0, 0, NULL, 0, CODED },
	{ { "pool.a", "I16", "[70]", 140, SAMPLE_GAUSSIAN, 2 }, 10, 15, 10, &sample_2_bytes_split, 0, 0 },
	{ { "pool.b", "I16", "[100]", 200, SAMPLE_GAUSSIAN, 2 }, 0, 0, 0, NULL, 0, 0 },
	{ { "once more", "I8", "[2000]", 2000, SAMPLE_UNIFORM, 0 }, 0, 0, 0, NULL, 0, CODED },
	{ { "folded", "I8", "[30,50]", 1500, SAMPLE_GAUSSIAN, 5 }, 50, 15, 50, &sample_1_byte_pairs, 0, 0 },
	{ { "sparse", "BF16", "[300]", 600, SAMPLE_GAUSSIAN, 0.4 }, 300, 1, 300, &sample_2_bytes_zero, 0, 0 },
};
enum { PARTS = sizeof parts / sizeof parts[0] };

static struct sample_bytes original, packed;
static uint64_t index_offset, fields_offset, entries_offset, tables_offset;
static struct wcx_container *sound;
static struct wcx_tile_cache *cache;
static struct wcx_decoder *decoder;

static struct sample_bytes copy_of(struct sample_bytes file)
{
	struct sample_bytes copy = { malloc(file.bytes), file.bytes };

	sample_require(copy.data != NULL, "malloc");
	memcpy(copy.data, file.data, file.bytes);
	return copy;
}

static struct sample_bytes copy_of_packed(void)
{
	return copy_of(packed);
}

/* Corrects the checksums of superblock and index. */
static void seal(struct sample_bytes file)
{
	uint64_t offset = wcx_le64_read(file.data + 40);

	if (offset <= file.bytes)
		wcx_le64_write(file.data + 80, wcx_checksum64(file.data + offset, file.bytes - offset));
	wcx_le64_write(file.data + CHECKSUM_AT, wcx_checksum64(file.data, CHECKSUM_AT));
}

static int open_bytes(const uint8_t *data, size_t bytes, struct wcx_container **ret, struct wcx_error *err)
{
	int fd = sample_open(data, bytes);
	int r = wcx_container_open(fd, path, ret, err);

	if (r < 0)
		close(fd);
	return r;
}

/* Opens bytes that must be refused; returns the -errno. */
static int refusal_of(const uint8_t *data, size_t bytes, struct wcx_error *err)
{
	struct wcx_container *container = NULL;
	int r = open_bytes(data, bytes, &container, err);

	if (CHECK(r < 0)) {
		CHECK(container == NULL);
		CHECK(strncmp(err->text, path, strlen(path)) == 0);
	} else {
		wcx_container_free(container);
	}
	return r;
}

/* Makes the packed file, with the SHA-256 of what it decodes to, which sample_image leaves out. */
static void make_packed(void)
{
	static const struct wcx_export_ops ops = { 0 };
	struct wcx_export_result result;
	struct wcx_error err = { "" };
	struct wcx_image *image;

	original = sample_original(parts, PARTS);
	packed = sample_image(original, parts, PARTS);
	index_offset = wcx_le64_read(packed.data + 40);
	fields_offset = index_offset + SEGMENT_COUNT * WCX_SEGMENT_BYTES;
	entries_offset = fields_offset + FIELD_COUNT * WCX_FIELD_BYTES;
	tables_offset = entries_offset + wcx_le64_read(packed.data + 64) * WCX_TILE_ENTRY_BYTES;
	sample_require(wcx_image_open(sample_open(packed.data, packed.bytes), path, cache, decoder, &image, &err) == 0,
		       err.text);
	sample_require(wcx_export(image, 1, &ops, NULL, NULL, &result, &err) == 0, err.text);
	wcx_image_put(image);
	memcpy(packed.data + 88, result.sha256, sizeof result.sha256);
	seal(packed);
	sample_require(open_bytes(packed.data, packed.bytes, &sound, &err) == 0, err.text);
}

static uint64_t segment_offset(size_t segment)
{
	return index_offset + segment * WCX_SEGMENT_BYTES;
}

static uint64_t field_offset(size_t field)
{
	return fields_offset + field * WCX_FIELD_BYTES;
}

/* The offset of the entry of a segment's first tile. */
static uint64_t entry_offset(size_t segment)
{
	return entries_offset + wcx_container_segment(sound, segment)->first_tile * WCX_TILE_ENTRY_BYTES;
}

static void sound_file_opens_and_tells_what_it_holds(void)
{
	const struct wcx_superblock *sb = wcx_container_superblock(sound);
	uint64_t offset = 0, tile = 0;

	CHECK(sb->original_bytes == original.bytes && sb->packed_bytes == packed.bytes);
	CHECK(sb->segment_count == SEGMENT_COUNT && sb->field_count == FIELD_COUNT && sb->table_count == SAMPLE_TABLES);
	CHECK_TEXT(wcx_container_path(sound), path);
	for (size_t i = 0; i < sb->segment_count; i++) {
		const struct wcx_segment *seg = wcx_container_segment(sound, i);

		CHECK(seg->offset == offset);
		CHECK(seg->rows * seg->cols * seg->recipe.elem_bytes == seg->bytes);
		CHECK(wcx_container_segment_at(sound, offset) == i);
		CHECK(wcx_container_segment_at(sound, offset + seg->bytes - 1) == i);
		offset += seg->bytes;
		if (seg->same_as)
			continue;
		CHECK(seg->first_tile == tile);
		CHECK(wcx_container_segment_of_tile(sound, tile) == i);
		CHECK(wcx_container_segment_of_tile(sound, tile + seg->tile_count - 1) == i);
		tile += seg->tile_count;
	}
	CHECK(offset == original.bytes && tile == sb->tile_count);
	CHECK(wcx_container_segment(sound, POOL)->bytes == 140 + 200);
	wcx_container_free(NULL);
}

static void segment_with_the_same_content_has_the_tiles_of_the_first(void)
{
	const struct wcx_segment *coded = wcx_container_segment(sound, CODED);
	const size_t copies[] = { AGAIN, ONCE_MORE };

	for (int i = 0; i < 2; i++) {
		const struct wcx_segment *copy = wcx_container_segment(sound, copies[i]);
		struct wcx_segment expected = *coded;

		CHECK(copy->offset > coded->offset && copy->same_as == CODED);
		expected.offset = copy->offset;
		expected.same_as = CODED;
		CHECK(memcmp(copy, &expected, sizeof expected) == 0);
	}
	CHECK(coded->same_as == 0 && wcx_container_segment_of_tile(sound, coded->first_tile) == CODED);
}

static void recipes_are_those_of_the_packer(void)
{
	const struct wcx_recipe *expected[SEGMENT_COUNT] = { &sample_1_byte_plain };
	size_t segment = 0;

	for (size_t i = 0; i < PARTS; i++)
		if (parts[i].recipe || parts[i].same_as)
			expected[++segment] = parts[i].same_as ? &sample_1_byte : parts[i].recipe;
	CHECK(segment == SEGMENT_COUNT - 1);
	for (size_t i = 0; i < SEGMENT_COUNT; i++) {
		const struct wcx_recipe *recipe = &wcx_container_segment(sound, i)->recipe;

		CHECK(recipe->elem_bytes == expected[i]->elem_bytes && recipe->transform == expected[i]->transform);
		CHECK(recipe->predictor == expected[i]->predictor && recipe->run_elems == expected[i]->run_elems);
		if (!CHECK(recipe->field_count == expected[i]->field_count))
			continue;
		for (int f = 0; f < recipe->field_count; f++) {
			const struct wcx_field *field = &recipe->fields[f], *meant = &expected[i]->fields[f];

			CHECK(field->width == meant->width && field->table_count == meant->table_count);
			CHECK(field->is_pair == meant->is_pair && field->has_zero == meant->has_zero);
			CHECK(field->base == meant->base && !field->tables == !meant->tables);
			if (field->tables)
				CHECK(memcmp(field->tables, meant->tables, meant->table_count * sizeof *meant->tables) == 0);
		}
	}
}

static void fields_share_tables(void)
{
	const struct wcx_field *coded = wcx_container_segment(sound, CODED)->recipe.fields;
	const struct wcx_field *wide = wcx_container_segment(sound, WIDE)->recipe.fields;
	const struct wcx_field *pool = wcx_container_segment(sound, POOL)->recipe.fields;
	const struct wcx_field *folded = wcx_container_segment(sound, FOLDED)->recipe.fields;

	CHECK(coded->tables == wide[0].tables && coded->tables == wide[7].tables);
	CHECK(pool[1].tables == coded->tables + 4 && folded[1].tables == coded->tables + 8);
}

static void tiles_lie_one_behind_the_other(void)
{
	const uint8_t *entry = packed.data + entries_offset;
	uint64_t end = WCX_SUPERBLOCK_BYTES;
	unsigned modes[WCX_TILE_MODE_COUNT] = { 0 };

	for (uint64_t t = 0; t < wcx_container_superblock(sound)->tile_count; t++, entry += WCX_TILE_ENTRY_BYTES) {
		const struct wcx_segment *seg = wcx_container_segment(sound, wcx_container_segment_of_tile(sound, t));
		struct wcx_tile_info tile;

		wcx_container_tile(sound, seg, t, &tile);
		CHECK(tile.packed_offset == (end + 3) / 4 * 4);
		CHECK(tile.packed_bytes == (wcx_le32_read(entry) & 0xFFFFFF) && tile.mode == (int)entry[3]);
		if (tile.mode == WCX_TILE_CONSTANT)
			CHECK(tile.constant == wcx_le32_read(entry + 4) && tile.checksum == 0 && tile.packed_bytes == 0);
		else
			CHECK(tile.checksum == wcx_checksum32(packed.data + tile.packed_offset, tile.packed_bytes));
		end = tile.packed_offset + tile.packed_bytes;
		modes[tile.mode]++;
	}
	CHECK((end + 3) / 4 * 4 == index_offset);
	for (int mode = 0; mode < WCX_TILE_MODE_COUNT; mode++)
		CHECK(modes[mode] > 0);
}

/* The first four bytes of a segment's first tile, which is coded. */
static uint32_t coded_head(size_t segment)
{
	const struct wcx_segment *seg = wcx_container_segment(sound, segment);
	struct wcx_tile_info tile;

	wcx_container_tile(sound, seg, seg->first_tile, &tile);
	CHECK(tile.mode == WCX_TILE_CODED);
	return wcx_le32_read(packed.data + tile.packed_offset);
}

/* Then the tests of changed bytes cover them. */
static void pairs_and_zeros_with_exceptions_are_coded(void)
{
	CHECK(wcx_tile_coding(coded_head(FOLDED), 1) == WCX_FIELD_RANS);
	CHECK(wcx_tile_coding(coded_head(SPARSE), 1) == WCX_FIELD_RANS);
	CHECK(coded_head(SPARSE) >> 2 * WCX_FIELDS_MAX > 0);
}

static void superblock_survives_writing(void)
{
	uint8_t written[WCX_SUPERBLOCK_BYTES];
	struct wcx_superblock sb;
	struct wcx_error err;

	CHECK(wcx_superblock_parse(path, packed.data, packed.bytes, &sb, &err) == 0);
	wcx_superblock_write(&sb, written);
	CHECK(memcmp(written, packed.data, sizeof written) == 0);
}

static void number_of_tables_is_limited(void)
{
	struct wcx_superblock sb = *wcx_container_superblock(sound), parsed;
	uint8_t written[WCX_SUPERBLOCK_BYTES];
	struct wcx_error err;

	sb.table_bytes = UINT64_C(5) * (WCX_MAX_TABLES + 1);
	sb.index_bytes = tables_offset - index_offset + sb.table_bytes;
	sb.packed_bytes = index_offset + sb.index_bytes;
	for (uint32_t more = 0; more < 2; more++) {
		sb.table_count = WCX_MAX_TABLES + more;
		wcx_superblock_write(&sb, written);
		CHECK(wcx_superblock_parse(path, written, sb.packed_bytes, &parsed, &err) == (more ? -EBADMSG : 0));
	}
	CHECK(strstr(err.text, "offset 60: too many frequency tables") != NULL);
}

static void file_cut_at_any_length_is_refused(void)
{
	for (size_t bytes = 0; bytes < packed.bytes; bytes++) {
		struct wcx_error err;

		CHECK(refusal_of(packed.data, bytes, &err) == -EBADMSG);
		CHECK(strstr(err.text, bytes < 8 ? "not a .wcx file" : "truncated") != NULL);
	}
}

static void file_with_a_byte_more_is_refused(void)
{
	struct sample_bytes longer = { malloc(packed.bytes + 1), packed.bytes + 1 };
	struct wcx_error err;

	memcpy(longer.data, packed.data, packed.bytes);
	longer.data[packed.bytes] = 0;
	CHECK(refusal_of(longer.data, longer.bytes, &err) == -EBADMSG);
	free(longer.data);
}

static void changed_byte_of_superblock_or_index_is_refused(void)
{
	struct sample_bytes copy = copy_of_packed();

	for (size_t at = 0; at < packed.bytes; at = at + 1 == WCX_SUPERBLOCK_BYTES ? index_offset : at + 1) {
		for (unsigned bit = 0; bit < 8; bit++) {
			const char *told = at < 8                      ? "not a .wcx file"
					   : at < WCX_SUPERBLOCK_BYTES ? "offset 184: checksum"
								       : "offset";
			struct wcx_error err;

			copy.data[at] ^= (uint8_t)(1u << bit);
			refusal_of(copy.data, copy.bytes, &err);
			CHECK(strstr(err.text, told) != NULL);
			copy.data[at] ^= (uint8_t)(1u << bit);
		}
	}
	free(copy.data);
}

/* A change to the file, whose checksums are then corrected, and the error that it must cause. */
struct change {
	size_t at;      /* from the start of the superblock, or of the part of the index below */
	unsigned bytes; /* of the value: 1, 2, 4 or 8 */
	uint64_t value;
	int errnum;
	const char *text; /* part of the message */
};

static void check_change_of(struct sample_bytes file, const struct change *change, size_t base, uint64_t named_offset)
{
	struct sample_bytes copy = copy_of(file);
	char offset_text[32];
	struct wcx_error err;
	uint8_t value[8];

	wcx_le64_write(value, change->value);
	memcpy(copy.data + base + change->at, value, change->bytes);
	seal(copy);
	CHECK(refusal_of(copy.data, copy.bytes, &err) == -change->errnum);
	snprintf(offset_text, sizeof offset_text, "offset %llu: ", (unsigned long long)named_offset);
	if (!CHECK(strstr(err.text, change->text) && (!named_offset || strstr(err.text, offset_text))))
		fprintf(stderr, "\tchange at %zu: \"%s\"\n\tshould say \"%s%s\"\n", base + change->at, err.text,
			named_offset ? offset_text : "", change->text);
	free(copy.data);
}

static void check_change(const struct change *change, size_t base, uint64_t named_offset)
{
	check_change_of(packed, change, base, named_offset);
}

static void each_field_of_the_superblock_is_checked(void)
{
	static const struct change about_the_file[] = {
		{ 8, 4, 0, ENOTSUP, "format version 0, this program reads version 1" },
		{ 8, 4, 2, ENOTSUP, "format version 2, this program reads version 1" },
		{ 16, 8, 16, ENOTSUP, "features that this program does not have: flag 4 of the superblock" },
		{ 16, 8, UINT64_C(1) << 20 | 16, ENOTSUP, "have: flags 4, 20 of the superblock" },
		{ 16, 8, UINT64_C(1) << 63 | 17, ENOTSUP, "have: flags 4, 63 of the superblock" },
		{ 24, 8, 1 << 20, EBADMSG, "truncated" },
		{ 24, 8, 200, EBADMSG, "damaged" },
	};
	static const struct change about_a_field[] = {
		{ 12, 4, FIELD_COUNT + 1, EBADMSG, "counts contradict" },
		{ 12, 4, UINT32_MAX, EBADMSG, "counts contradict" },
		{ 32, 8, 0, EBADMSG, "size of the original" },
		{ 32, 8, (UINT64_C(1) << 60) + 1, EBADMSG, "size of the original" },
		{ 40, 8, 112, EBADMSG, "index is not where" },
		{ 40, 8, UINT64_MAX - 15, EBADMSG, "index is not where" },
		{ 48, 8, (UINT64_C(1) << 28) + 1, EBADMSG, "size limit" },
		{ 48, 8, 0, EBADMSG, "index is not where" },
		{ 56, 4, 0, EBADMSG, "counts contradict" },
		{ 56, 4, UINT32_MAX, EBADMSG, "counts contradict" },
		{ 60, 4, UINT32_MAX, EBADMSG, "more frequency tables" },
		{ 64, 8, 0, EBADMSG, "counts contradict" },
		{ 64, 8, (UINT64_C(1) << 60) + 6, EBADMSG, "counts contradict" },
		{ 72, 8, UINT64_MAX, EBADMSG, "counts contradict" },
		{ 72, 8, 0, EBADMSG, "counts contradict" },
		{ 16, 8, 1, EBADMSG, "flag BASES without bases" },
		{ 128, 4, 1, EBADMSG, "bases without the flag BASES" },
		{ 132, 4, 1, EBADMSG, "counts contradict" },
		{ 136, 8, 1, EBADMSG, "bytes of optional features" },
		{ 144, 1, 1, EBADMSG, "reserved bytes" },
		{ 183, 1, 0x80, EBADMSG, "reserved bytes" },
	};
	struct change offset_unaligned = { 40, 8, index_offset - 8, EBADMSG, "index is not where" };

	for (size_t i = 0; i < sizeof about_the_file / sizeof about_the_file[0]; i++)
		check_change(&about_the_file[i], 0, 0);
	for (size_t i = 0; i < sizeof about_a_field / sizeof about_a_field[0]; i++) {
		size_t at = about_a_field[i].at;
		/* Contradictions between fields are reported at the first of them. */
		int of_index = strstr(about_a_field[i].text, "not where") != NULL;
		int of_counts = strstr(about_a_field[i].text, "counts") != NULL;
		int of_bases = strstr(about_a_field[i].text, "BASES") != NULL;
		int reserved = strstr(about_a_field[i].text, "reserved") != NULL;

		check_change(&about_a_field[i], 0, of_index ? 40 : of_counts ? 56 : of_bases ? 128 : reserved ? 144 : at);
	}
	check_change(&offset_unaligned, 0, 40);
}

static void check_changes(const struct change *changes, size_t count, uint64_t base)
{
	for (size_t i = 0; i < count; i++)
		check_change(&changes[i], base, base);
}
#define CHECK_CHANGES(changes, base) check_changes(changes, sizeof(changes) / sizeof(changes)[0], base)

static void each_part_of_a_segment_is_checked(void)
{
	static const struct change changes[] = {
		/* to a row of 2000 elements of one byte: one field, four tables */
		{ 0, 8, 0, EBADMSG, "bad segment size" },
		{ 0, 8, UINT64_MAX, EBADMSG, "bad segment size" },
		{ 0, 8, 20000, EBADMSG, "larger than the file" },
		{ 8, 8, 0, EBADMSG, "bad number of columns" },
		{ 8, 8, 3, EBADMSG, "bad number of columns" },
		{ 8, 8, 4000, EBADMSG, "bad number of columns" },
		{ 16, 4, 0, EBADMSG, "bad tile size" },
		{ 20, 4, 0, EBADMSG, "bad tile size" },
		{ 16, 8, UINT64_C(0x1000000010000), EBADMSG, "bad tile size" }, /* 65536 x 65536 is 0 in 32 bits */
		{ 16, 8, 257 | UINT64_C(10) << 32, EBADMSG, "narrow tiles that are too tall" },
		{ 20, 4, 1, EBADMSG, "larger than the file" }, /* that many tiles */
		{ 24, 4, 0, EBADMSG, "bad run" },
		{ 24, 4, 64, EBADMSG, "bad run" },
		{ 24, 4, 65536 + 128, EBADMSG, "bad run" },
		{ 36, 1, 0, EBADMSG, "bad element size" },
		{ 36, 1, 3, EBADMSG, "bad element size" },
		{ 36, 1, 16, EBADMSG, "bad element size" },
		{ 36, 1, 2, EBADMSG, "fields do not make up an element" },
		{ 37, 1, WCX_TRANSFORM_COUNT, EBADMSG, "unknown transform" },
		{ 37, 1, 255, EBADMSG, "unknown transform" },
		{ 37, 1, WCX_TRANSFORM_FOLD, EBADMSG, "cannot be folded" },
		{ 37, 2, WCX_TRANSFORM_ROTATE | WCX_PREDICT_LEFT << 8, EBADMSG, "transform and predictor at once" },
		{ 38, 1, WCX_PREDICTOR_COUNT, EBADMSG, "unknown predictor" },
		{ 39, 1, 0, EBADMSG, "bad number of fields" },
		{ 39, 1, 2, EBADMSG, "fields do not make up an element" },
		{ 39, 1, 10, EBADMSG, "fields do not make up an element" },
		{ 39, 1, 11, EBADMSG, "bad number of fields" },
		{ 39, 1, FIELD_COUNT, EBADMSG, "fields that are not there" },
		{ 40, 4, 1, EBADMSG, "base that is not there" },
		{ 44, 1, 1, EBADMSG, "difference without a base" },
		{ 45, 1, 1, EBADMSG, "threshold" }, /* see the tests of bases for the rest */
		{ 46, 1, 1, EBADMSG, "unknown kind of segment" },
		{ 47, 1, 1, EBADMSG, "reserved bytes of a segment" },
		{ 48, 8, 1, EBADMSG, "without a base" },
		{ 56, 1, 1, EBADMSG, "threshold beyond the last" },
		{ 62, 1, 1, EBADMSG, "threshold beyond the last" },
		{ 63, 1, 1, EBADMSG, "reserved bytes of a segment" },
	};
	static const struct change to_the_header[] = {
		{ 28, 4, 1, EBADMSG, "not an earlier one" },
		{ 0, 8, 7, EBADMSG, "bad number of columns" },
		{ 24, 4, 128, EBADMSG, "bad run" }, /* with one table */
	};
	static const struct change to_folded[] = {
		{ 38, 1, WCX_PREDICT_UP, EBADMSG, "transform and predictor at once" },
		{ 39, 1, 1, EBADMSG, "cannot be folded" },
	};
	/* Of two bytes, the lowest of whose bits are never coded; and with a predictor. */
	static const struct change fold_of_two = { 37, 1, WCX_TRANSFORM_FOLD, EBADMSG, "cannot be folded" };
	static const struct change rotated_up = { 37, 1, WCX_TRANSFORM_ROTATE, EBADMSG, "transform and predictor at once" };
	static const struct change odd_size = { 0, 8, 1201, EBADMSG, "bad segment size" }; /* elements of eight bytes */
	static const struct change slender = { 20, 4, 1, EBADMSG, "narrow tiles that are too tall" }; /* of 15 rows */
	static const struct change row_less = { 0, 8, 320, EBADMSG, "do not make up the file" };      /* but as many tiles */

	CHECK_CHANGES(changes, segment_offset(CODED));
	CHECK_CHANGES(to_the_header, segment_offset(0));
	CHECK_CHANGES(to_folded, segment_offset(FOLDED));
	check_change(&fold_of_two, segment_offset(SPARSE), segment_offset(SPARSE));
	check_change(&rotated_up, segment_offset(POOL), segment_offset(POOL));
	check_change(&odd_size, segment_offset(WIDE), segment_offset(WIDE));
	check_change(&slender, segment_offset(POOL), segment_offset(POOL));
	check_change(&row_less, segment_offset(POOL), entries_offset);
}

static void small_first_segment_is_refused(void)
{
	struct sample_bytes copy = copy_of_packed();
	struct wcx_error err;

	wcx_le64_write(copy.data + segment_offset(0), 7);
	wcx_le64_write(copy.data + segment_offset(0) + 8, 7);
	seal(copy);
	CHECK(refusal_of(copy.data, copy.bytes, &err) == -EBADMSG);
	CHECK(strstr(err.text, "first segment is too small for a header") != NULL);
	free(copy.data);
}

static void segments_with_the_same_content_are_checked(void)
{
	static const struct change changes[] = {
		{ 28, 4, AGAIN, EBADMSG, "not an earlier one" },
		{ 28, 4, POOL, EBADMSG, "not an earlier one" },
		{ 28, 4, UINT32_MAX, EBADMSG, "not an earlier one" },
		{ 28, 4, SCALE, EBADMSG, "of another size" },
		{ 28, 4, 0, EBADMSG, "bad element size" },
		{ 0, 8, 1999, EBADMSG, "of another size" },
		{ 0, 8, 0, EBADMSG, "of another size" },
		{ 8, 8, 2000, EBADMSG, "tiles of its own" },
		{ 16, 4, 1, EBADMSG, "tiles of its own" },
		{ 23, 1, 1, EBADMSG, "tiles of its own" },
		{ 24, 4, 128, EBADMSG, "tiles of its own" },
		{ 32, 4, 1, EBADMSG, "tiles of its own" },
		{ 36, 1, 1, EBADMSG, "tiles of its own" },
		{ 37, 1, 1, EBADMSG, "tiles of its own" },
		{ 38, 1, 1, EBADMSG, "tiles of its own" },
		{ 39, 1, 1, EBADMSG, "tiles of its own" },
		{ 40, 4, 1, EBADMSG, "tiles of its own" },
		{ 46, 1, 1, EBADMSG, "tiles of its own" },
		{ 48, 8, 1, EBADMSG, "tiles of its own" },
		{ 63, 1, 1, EBADMSG, "tiles of its own" },
	};
	static const struct change of_a_copy = { 28, 4, AGAIN, EBADMSG, "a segment without tiles" };

	CHECK_CHANGES(changes, segment_offset(AGAIN));
	check_change(&of_a_copy, segment_offset(ONCE_MORE), segment_offset(ONCE_MORE));
}

/* Errors in a field are reported at its segment. */
static void each_part_of_a_field_is_checked(void)
{
	enum { PAIRS = 1 << 3, ZERO = 1 << 4 };
	static const struct {
		size_t field, segment;
		struct change change;
	} cases[] = {
		{ CODED_FIELD, CODED, { 0, 1, 0, EBADMSG, "bad width" } },
		{ CODED_FIELD, CODED, { 0, 1, 33, EBADMSG, "bad width" } },
		{ CODED_FIELD, CODED, { 0, 1, 7, EBADMSG, "fields do not make up an element" } },
		{ CODED_FIELD, CODED, { 0, 1, 17, EBADMSG, "too wide" } },
		{ CODED_FIELD, CODED, { 0, 1, 9, EBADMSG, "fields do not make up an element" } },
		{ CODED_FIELD, CODED, { 1, 1, 0, EBADMSG, "bad run" } },
		{ CODED_FIELD, CODED, { 1, 1, 1, EBADMSG, "bad run" } },
		{ CODED_FIELD, CODED, { 1, 1, 3, EBADMSG, "bad number of frequency tables" } },
		{ CODED_FIELD, CODED, { 1, 1, 7, EBADMSG, "tables by context in a segment without contexts" } },
		{ CODED_FIELD, CODED, { 1, 1, PAIRS, EBADMSG, "symbols of a field without" } },
		{ CODED_FIELD, CODED, { 1, 1, ZERO, EBADMSG, "symbols of a field without" } },
		{ CODED_FIELD, CODED, { 1, 1, ZERO | 4, EBADMSG, "base of a narrow field" } },
		{ CODED_FIELD, CODED, { 1, 1, 1 << 5 | 4, EBADMSG, "unknown flag" } },
		{ CODED_FIELD, CODED, { 1, 1, 1 << 6 | 4, EBADMSG, "unknown flag" } },
		{ CODED_FIELD, CODED, { 1, 1, 1 << 7 | 4, EBADMSG, "unknown flag" } },
		{ CODED_FIELD, CODED, { 2, 1, 1, EBADMSG, "base of a narrow field" } },
		{ CODED_FIELD, CODED, { 4, 4, 9, EBADMSG, "table that is not there" } },
		{ CODED_FIELD, CODED, { 4, 4, UINT32_MAX, EBADMSG, "table that is not there" } },
		{ SCALE_FIELD, SCALE, { 0, 1, 5, EBADMSG, "fields do not make up an element" } },
		{ SCALE_FIELD, SCALE, { 3, 1, 1, EBADMSG, "symbols of a field without" } },
		{ SCALE_FIELD, SCALE, { 4, 1, 1, EBADMSG, "for a field without any" } },
		{ SCALE_FIELD + 1, SCALE, { 2, 2, 512 - 255, EBADMSG, "base of a field too large" } },
		{ POOL_FIELD + 1, POOL, { 4, 1, 3, EBADMSG, "symbol that a field cannot have" } },
		{ POOL_FIELD + 1, POOL, { 4, 1, 11, EBADMSG, "table that is not there" } },
		{ FOLDED_FIELD, FOLDED, { 1, 1, 1, EBADMSG, "cannot be folded" } },
		{ FOLDED_FIELD + 1, FOLDED, { 4, 1, 7, EBADMSG, "symbol that a field cannot have" } },
		{ SPARSE_FIELD + 1, SPARSE, { 2, 2, 4096 - 255, EBADMSG, "base of a field too large" } },
		{ SPARSE_FIELD + 1, SPARSE, { 1, 1, PAIRS | ZERO | 1, EBADMSG, "ZERO in a field of pairs" } },
		{ SPARSE_FIELD + 1, SPARSE, { 1, 1, PAIRS | 1, EBADMSG, "symbol that a field cannot have" } },
		/* Pairs of more than four bits, in elements of eight bytes, and in fields that are not the highest. */
		{ FOLDED_FIELD + 1, FOLDED, { 0, 1, 5, EBADMSG, "pairs in a field that cannot have them" } },
		{ CODED_FIELD, CODED, { 1, 1, PAIRS | 4, EBADMSG, "pairs in a field that cannot have them" } },
		{ WIDE_FIELD + 7, WIDE, { 1, 1, PAIRS | 1, EBADMSG, "pairs in a field that cannot have them" } },
		{ SCALE_FIELD + 1, SCALE, { 1, 1, PAIRS | 1, EBADMSG, "pairs in a field that cannot have them" } },
		{ CONSTANT_FIELD, CONSTANT, { 1, 1, PAIRS | 1, EBADMSG, "pairs in a field that cannot have them" } },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		check_change(&cases[i].change, field_offset(cases[i].field), segment_offset(cases[i].segment));
}

/* The offset of the end of a frequency table. */
static uint64_t table_end(uint32_t table)
{
	uint64_t end = tables_offset;

	for (uint32_t i = 0; i <= table; i++) {
		size_t used = 0;

		CHECK(wcx_freq_table_parse(packed.data + end, packed.bytes - end, NULL, &used) == WCX_OK);
		end += used;
	}
	return end;
}

/* Symbol 255 gets the frequency of symbol 63, in tables of 64 symbols of which a field of 6 bits uses two. */
static void every_table_of_a_field_is_held_against_its_width(void)
{
	for (uint32_t table = 4; table < 6; table++) {
		uint64_t end = table_end(table);
		uint32_t last = wcx_le32_read(packed.data + end - 4); /* two bytes of a frequency, and 192 absent symbols */
		struct change change = { 0, 4, last >> 16 | (uint64_t)(uint16_t)last << 16, EBADMSG,
					 "symbol that a field cannot have" };

		CHECK((last & 0x80) != 0 && last >> 16 == 191 << 8);
		check_change(&change, end - 4, segment_offset(POOL));
	}
}

static void fields_of_too_many_raw_planes_are_refused(void)
{
	struct sample_bytes copy = copy_of_packed();
	struct wcx_error err;

	/* Four pairs of 7 and 9 bits: three and two planes each. */
	for (size_t i = 0; i < 8; i++) {
		struct wcx_field field = { .width = i % 2 ? 9 : 7 };

		wcx_field_write(&field, 0, copy.data + field_offset(WIDE_FIELD + i));
	}
	wcx_le32_write(copy.data + segment_offset(WIDE) + 24, 0);
	seal(copy);
	CHECK(refusal_of(copy.data, copy.bytes, &err) == -EBADMSG);
	CHECK(strstr(err.text, "too many raw planes") != NULL);
	free(copy.data);
}

/* Opens the file with zeros inserted at an offset, and 1 added to the superblock's count at count_at. */
static void check_insertion(uint64_t at, size_t bytes, size_t count_at, const char *text)
{
	struct sample_bytes longer = { calloc(1, packed.bytes + bytes), packed.bytes + bytes };
	struct wcx_error err;

	memcpy(longer.data, packed.data, at);
	memcpy(longer.data + at + bytes, packed.data + at, packed.bytes - at);
	wcx_le64_write(longer.data + 24, longer.bytes);
	if (at < index_offset)
		wcx_le64_write(longer.data + 40, index_offset + bytes);
	else
		wcx_le64_write(longer.data + 48, packed.bytes - index_offset + bytes);
	if (count_at)
		longer.data[count_at]++;
	seal(longer);
	CHECK(refusal_of(longer.data, longer.bytes, &err) == -EBADMSG);
	if (!CHECK(strstr(err.text, text) != NULL))
		fprintf(stderr, "\t\"%s\"\n\tshould have \"%s\"\n", err.text, text);
	free(longer.data);
}

static void what_no_segment_accounts_for_is_refused(void)
{
	check_insertion(entries_offset, WCX_FIELD_BYTES, 12, "segments do not make up the file");
	check_insertion(tables_offset, WCX_TILE_ENTRY_BYTES, 64, "segments do not make up the file");
	check_insertion(index_offset, WCX_TILE_ALIGN, 0, "counts contradict the size of the index");
	/* After the last tile, and before the first. */
	check_insertion(index_offset - 1, WCX_TILE_ALIGN, 0, "offset 40: index is not where the packed tiles end");
	check_insertion(WCX_SUPERBLOCK_BYTES, WCX_TILE_ALIGN, 0, "offset 40: index is not where the packed tiles end");
}

static void each_part_of_a_tile_entry_is_checked(void)
{
	static const struct change to_coded[] = {
		{ 3, 1, WCX_TILE_MODE_COUNT, EBADMSG, "unknown tile mode" },
		{ 3, 1, 255, EBADMSG, "unknown tile mode" },
		{ 3, 1, WCX_TILE_STORED, EBADMSG, "contradicts the tile mode" },
		{ 3, 1, WCX_TILE_CONSTANT, EBADMSG, "with a size" },
		{ 0, 2, 2000, EBADMSG, "contradicts the tile mode" },
		{ 2, 1, 1, EBADMSG, "contradicts the tile mode" },
	};
	static const struct change to_constant[] = {
		{ 0, 1, 1, EBADMSG, "with a size" },
		{ 5, 1, 1, EBADMSG, "too large" },
		{ 7, 1, 0x80, EBADMSG, "too large" },
		{ 3, 1, WCX_TILE_STORED, EBADMSG, "contradicts the tile mode" },
	};
	static const struct change to_stored[] = {
		{ 0, 1, 4, EBADMSG, "contradicts the tile mode" },
		{ 0, 1, 6, EBADMSG, "contradicts the tile mode" },
		{ 3, 1, WCX_TILE_CODED, EBADMSG, "contradicts the tile mode" },
		{ 3, 1, WCX_TILE_ZSTD, EBADMSG, "contradicts the tile mode" },
	};
	static const struct change to_narrow = { 3, 1, WCX_TILE_ZSTD, EBADMSG, "narrow tile in Zstandard" };
	static const struct change to_zipped = { 0, 1, 200, EBADMSG, "contradicts the tile mode" };
	struct change smaller = { 0, 2, 0, EBADMSG, "index is not where the packed tiles end" };

	CHECK(packed.data[entry_offset(CODED) + 3] == WCX_TILE_CODED);
	CHECK(packed.data[entry_offset(CONSTANT) + 3] == WCX_TILE_CONSTANT);
	CHECK(packed.data[entry_offset(TINY) + 3] == WCX_TILE_STORED);
	CHECK(packed.data[entry_offset(ZIPPED) + 3] == WCX_TILE_ZSTD);
	CHECK_CHANGES(to_coded, entry_offset(CODED));
	CHECK_CHANGES(to_constant, entry_offset(CONSTANT));
	CHECK_CHANGES(to_stored, entry_offset(TINY));
	check_change(&to_narrow, entry_offset(WIDE), entry_offset(WIDE));
	check_change(&to_zipped, entry_offset(ZIPPED), entry_offset(ZIPPED));
	smaller.value = wcx_le16_read(packed.data + entry_offset(CODED)) - 16;
	check_change(&smaller, entry_offset(CODED), 40);
}

static void frequency_tables_are_checked(void)
{
	struct change bad = { 0, 1, 0xFF, EBADMSG, "bad frequency table" };
	struct change fewer = { 60, 4, SAMPLE_TABLES - 1, EBADMSG, "bytes behind the last frequency table" };
	struct change more = { 60, 4, SAMPLE_TABLES + 1, EBADMSG, "bad frequency table" };

	check_change(&bad, tables_offset, tables_offset);
	check_change(&fewer, 0, 0);
	check_change(&more, 0, packed.bytes);
}

/* Whether image and wcx_verify give the original's bytes, or an error names the file. */
static bool is_refused_or_right(struct sample_bytes file)
{
	static const struct wcx_export_ops ops = { 0 };
	int fd = sample_open(file.data, file.bytes), r;
	bool right;
	struct wcx_error err = { "" };
	struct wcx_image *image;
	uint8_t *read;
	ssize_t n;

	r = wcx_image_open(fd, path, cache, decoder, &image, &err);
	if (r < 0) {
		close(fd);
		return strstr(err.text, path) != NULL;
	}
	read = malloc(original.bytes);
	r = wcx_verify(image, 1, &ops, NULL, NULL, &err);
	n = wcx_image_read(image, read, original.bytes, 0, NULL);
	if (r < 0)
		right = strstr(err.text, path) != NULL;
	else
		right = n == (ssize_t)original.bytes && memcmp(read, original.data, original.bytes) == 0;
	free(read);
	wcx_image_put(image);
	return right;
}

static void changed_bytes_behind_right_checksums_are_refused_or_change_nothing(void)
{
	struct sample_bytes copy = copy_of_packed();

	for (size_t at = 8; at < packed.bytes; at = at + 1 == CHECKSUM_AT ? index_offset : at + 1) {
		if (at == 80)
			at = 88; /* skip the index's checksum, which seal corrects */
		for (unsigned change = 1; change < 256; change += change < 128 ? change : 127) {
			copy.data[at] ^= (uint8_t)change;
			seal(copy);
			CHECK(is_refused_or_right(copy));
			memcpy(copy.data, packed.data, packed.bytes);
		}
	}
	free(copy.data);
}

static void changed_bytes_of_tiles_are_refused_or_lie_in_gaps(void)
{
	struct sample_bytes copy = copy_of_packed();

	for (size_t at = WCX_SUPERBLOCK_BYTES; at < index_offset; at++) {
		copy.data[at] ^= 0x10;
		CHECK(is_refused_or_right(copy));
		copy.data[at] ^= 0x10;
	}
	free(copy.data);
}

/* --- files with bases: what only the container checks, without the bases --- */

enum { TUNED = 1, COUNTERS, TUNED_AGAIN, ALONE, DEPENDENT_SEGMENTS };
enum { TUNED_FIELD = 1, COUNTERS_FIELD = 3, DEPENDENT_FIELDS = 8, BASES = 2 };

static const struct wcx_base bases[BASES] = {
	{ { 1, 2, 3, 255 }, 5000, "../org/model/model-00001-of-00002.safetensors.wcx" },
	{ { 7 }, UINT64_C(1) << 60, "" },
};
static const struct wcx_field tuned_fields[2] = {
	{ .width = 4 },
	{ .width = 12, .table_count = 3, .by_context = true, .tables = sample_tables + 1 },
};
static const struct wcx_recipe tuned_recipe = {
	.elem_bytes = 2,
	.field_count = 2,
	.fields = tuned_fields,
	.difference = WCX_DIFFERENCE_FLOAT,
	.context_count = 3,
	.thresholds = { 100, 130 },
};
static const struct wcx_recipe counters_recipe = {
	.elem_bytes = 4, .field_count = 4, .fields = sample_bytes_fields + 3, .difference = WCX_DIFFERENCE_INTEGER
};
static const struct sample_part dependent_parts[] = {
	{ { "tuned", "BF16", "[40,50]", 4000, SAMPLE_GAUSSIAN, 0.4 }, 2000, 1, 700, &tuned_recipe, 0, 0 },
	{ { "counters", "I32", "[60,10]", 2400, SAMPLE_UNIFORM, 0 }, 10, 4, 10, &counters_recipe, 0, 0 },
	{ { "again", "BF16", "[40,50]", 4000, SAMPLE_UNIFORM, 0 }, 0, 0, 0, NULL, 0, TUNED },
	{ { "alone", "I8", "[250]", 250, SAMPLE_UNIFORM, 0 }, 250, 1, 200, &sample_1_byte_plain, 0, 0 },
};
static const struct sample_reference references[WCX_ARRAY_COUNT(dependent_parts)] = { { 1, 1000, NULL }, { 2, 77, NULL } };

static struct sample_bytes make_dependent(void)
{
	struct sample_bytes its_original = sample_original(dependent_parts, WCX_ARRAY_COUNT(dependent_parts));
	struct sample_bytes file =
		sample_dependent(its_original, dependent_parts, WCX_ARRAY_COUNT(dependent_parts), references, bases, BASES);

	free(its_original.data);
	return file;
}

/* Where the entries of the bases begin. */
static uint64_t bases_offset(struct sample_bytes file)
{
	return file.bytes - wcx_le32_read(file.data + 132) - BASES * WCX_BASE_BYTES;
}

static void bases_are_those_that_were_written(void)
{
	struct sample_bytes file = make_dependent();
	struct wcx_container *c = NULL;
	struct wcx_error err = { "" };
	const struct wcx_segment *seg;

	sample_require(open_bytes(file.data, file.bytes, &c, &err) == 0, err.text);
	CHECK(wcx_container_superblock(c)->features == WCX_FEATURE_BASES && wcx_container_base_count(c) == BASES);
	CHECK(wcx_container_superblock(c)->segment_count == DEPENDENT_SEGMENTS);
	CHECK(wcx_container_superblock(c)->field_count == DEPENDENT_FIELDS);
	for (uint32_t i = 0; i < BASES; i++) {
		const struct wcx_base *base = wcx_container_base(c, i + 1);

		CHECK(memcmp(base->sha256, bases[i].sha256, sizeof base->sha256) == 0);
		CHECK(base->original_bytes == bases[i].original_bytes);
		CHECK_TEXT(base->name, bases[i].name);
	}
	seg = wcx_container_segment(c, TUNED);
	CHECK(seg->base == 1 && seg->base_offset == 1000 && seg->recipe.difference == WCX_DIFFERENCE_FLOAT);
	CHECK(seg->recipe.context_count == 3 && memcmp(seg->recipe.thresholds, tuned_recipe.thresholds, 7) == 0);
	CHECK(!seg->recipe.fields[0].by_context && seg->recipe.fields[0].table_count == 0);
	CHECK(seg->recipe.fields[1].by_context && seg->recipe.fields[1].table_count == 3);
	seg = wcx_container_segment(c, TUNED_AGAIN);
	CHECK(seg->same_as == TUNED && seg->base == 1 && seg->base_offset == 1000);
	seg = wcx_container_segment(c, COUNTERS);
	CHECK(seg->base == 2 && seg->base_offset == 77 && seg->recipe.difference == WCX_DIFFERENCE_INTEGER);
	CHECK(seg->recipe.context_count == 0 && !seg->recipe.fields[0].by_context);
	seg = wcx_container_segment(c, ALONE);
	CHECK(seg->base == 0 && seg->base_offset == 0 && seg->recipe.difference == WCX_DIFFERENCE_NONE);
	wcx_container_free(c);
	free(file.data);
}

static void each_part_of_a_base_is_checked(void)
{
	struct sample_bytes file = make_dependent();
	const size_t name_bytes = strlen(bases[0].name);
	static const struct change of_the_superblock[] = {
		{ 16, 8, 0, EBADMSG, "bases without the flag BASES" },
		{ 128, 4, 0, EBADMSG, "flag BASES without bases" },
		{ 128, 4, 257, EBADMSG, "too many bases" },
		{ 128, 4, UINT32_MAX, EBADMSG, "too many bases" },
		{ 144, 8, 1, EBADMSG, "reserved bytes" },
	};
	static const struct change of_the_counts[] = {
		{ 128, 4, 1, EBADMSG, "counts contradict" },
		{ 128, 4, 256, EBADMSG, "counts contradict" },
		{ 132, 4, 0, EBADMSG, "counts contradict" },
		{ 132, 4, UINT32_MAX, EBADMSG, "counts contradict" },
	};
	static const struct change of_an_entry[] = {
		{ 32, 8, 0, EBADMSG, "size of a base" },
		{ 32, 8, (UINT64_C(1) << 60) + 1, EBADMSG, "size of a base" },
		{ 40, 4, 4096, EBADMSG, "name of a base that is too long" },
		{ 40, 4, UINT32_MAX, EBADMSG, "name of a base that is too long" },
		{ 44, 4, 1, EBADMSG, "reserved bytes of a base" },
		{ 47, 1, 0x80, EBADMSG, "reserved bytes of a base" },
	};
	const struct change longer = { 40, 4, name_bytes + 1, EBADMSG, "name of a base that is too long" };
	const struct change shorter = { 40, 4, name_bytes - 1, EBADMSG, "bytes behind the name of the last base" };
	const struct change with_nul = { BASES * WCX_BASE_BYTES + 3, 1, 0, EBADMSG, "name of a base with a zero byte" };
	const uint64_t at = bases_offset(file);

	for (size_t i = 0; i < WCX_ARRAY_COUNT(of_the_superblock); i++)
		check_change_of(file, &of_the_superblock[i], 0, of_the_superblock[i].at == 144 ? 144 : 128);
	for (size_t i = 0; i < WCX_ARRAY_COUNT(of_the_counts); i++)
		check_change_of(file, &of_the_counts[i], 0, 56);
	for (size_t i = 0; i < WCX_ARRAY_COUNT(of_an_entry); i++)
		check_change_of(file, &of_an_entry[i], at, at);
	check_change_of(file, &longer, at, at);
	check_change_of(file, &shorter, at, file.bytes - 1);
	check_change_of(file, &with_nul, at, at);
	free(file.data);
}

static void each_part_of_a_difference_is_checked(void)
{
	struct sample_bytes file = make_dependent();
	const uint64_t at = wcx_le64_read(file.data + 40);
	static const struct change of_a_segment[] = {
		{ 40, 4, 0, EBADMSG, "difference without a base" },
		{ 40, 4, 3, EBADMSG, "base that is not there" },
		{ 40, 4, UINT32_MAX, EBADMSG, "base that is not there" },
		{ 44, 1, 0, EBADMSG, "base without a difference" },
		{ 45, 1, 0, EBADMSG, "threshold beyond the last" },
		{ 45, 1, 1, EBADMSG, "threshold beyond the last" },
		{ 45, 1, 8, EBADMSG, "too many thresholds" },
		{ 45, 1, 255, EBADMSG, "too many thresholds" },
		{ 46, 1, 1, EBADMSG, "unknown kind of segment" },
		{ 48, 8, 1001, EBADMSG, "range beyond the end of the base" },
		{ 48, 8, 5001, EBADMSG, "range beyond the end of the base" },
		{ 48, 8, UINT64_MAX, EBADMSG, "range beyond the end of the base" },
		{ 58, 1, 200, EBADMSG, "threshold beyond the last" },
	};
	static const struct change without_a_base[] = {
		{ 40, 4, 1, EBADMSG, "base without a difference" },
		{ 44, 1, 1, EBADMSG, "difference without a base" },
		{ 45, 1, 1, EBADMSG, "offset or thresholds without a base" },
		{ 48, 8, 1, EBADMSG, "offset or thresholds without a base" },
	};
	static const struct change to_the_header = { 40, 5, 1 | UINT64_C(1) << 32, EBADMSG, "base of the header" };
	static const struct change narrow = { 20, 4, 9, EBADMSG, "narrow tiles of differences" };
	static const struct change sets = { 1, 1, 7 | 1 << 5, EBADMSG, "unknown flag of a field" };
	static const struct change without_sets = { 16, 8, 3, EBADMSG, "flag SETS without sets of frequency tables" };
	static const struct change without_escapes = { 16, 8, 5, EBADMSG, "flag ESCAPES without a field that has them" };
	static const struct change escapes = { 1, 1, 7 | 1 << 7, EBADMSG, "unknown flag of a field" };
	static const struct change by_context = { 1, 1, 7, EBADMSG, "tables by context in a segment without contexts" };
	const struct change beyond = { 4, 4, SAMPLE_TABLES - 2, EBADMSG, "table that is not there" };
	const uint64_t fields_at = at + DEPENDENT_SEGMENTS * WCX_SEGMENT_BYTES;
	uint64_t segment_at = at + TUNED * WCX_SEGMENT_BYTES;

	for (size_t i = 0; i < WCX_ARRAY_COUNT(of_a_segment); i++)
		check_change_of(file, &of_a_segment[i], segment_at, segment_at);
	check_change_of(file, &beyond, fields_at + (TUNED_FIELD + 1) * WCX_FIELD_BYTES, segment_at);
	check_change_of(file, &sets, fields_at + (TUNED_FIELD + 1) * WCX_FIELD_BYTES, segment_at);
	check_change_of(file, &escapes, fields_at + (TUNED_FIELD + 1) * WCX_FIELD_BYTES, segment_at);
	check_change_of(file, &without_sets, 0, at);
	check_change_of(file, &without_escapes, 0, at);
	segment_at = at + COUNTERS * WCX_SEGMENT_BYTES;
	check_change_of(file, &narrow, segment_at, segment_at);
	check_change_of(file, &by_context, fields_at + COUNTERS_FIELD * WCX_FIELD_BYTES, segment_at);
	segment_at = at + ALONE * WCX_SEGMENT_BYTES;
	for (size_t i = 0; i < WCX_ARRAY_COUNT(without_a_base); i++)
		check_change_of(file, &without_a_base[i], segment_at, segment_at);
	check_change_of(file, &to_the_header, at, at);
	free(file.data);
}

/* Gives the tuned tensor sets of tables, of which it lacks nothing. */
static struct sample_bytes make_with_sets(unsigned set_bits)
{
	struct sample_bytes file = make_dependent();
	uint8_t *index = file.data + wcx_le64_read(file.data + 40);
	uint8_t *field = index + DEPENDENT_SEGMENTS * WCX_SEGMENT_BYTES + (TUNED_FIELD + 1) * WCX_FIELD_BYTES;

	wcx_le64_write(file.data + 16, WCX_FEATURE_BASES | WCX_FEATURE_SETS);
	wcx_le32_write(index + TUNED * WCX_SEGMENT_BYTES + 24, 256);
	field[1] = (uint8_t)(WCX_FIELD_BY_CONTEXT | set_bits << 5);
	wcx_le32_write(field + 4, 0);
	seal(file);
	return file;
}

static void sets_of_tables_are_those_that_were_written(void)
{
	for (unsigned set_bits = 1; set_bits <= 2; set_bits++) {
		struct sample_bytes file = make_with_sets(set_bits);
		struct wcx_container *c = NULL;
		struct wcx_error err = { "" };
		const struct wcx_segment *seg;
		uint8_t written[WCX_FIELD_BYTES];

		sample_require(open_bytes(file.data, file.bytes, &c, &err) == 0, err.text);
		CHECK(wcx_container_superblock(c)->features == (WCX_FEATURE_BASES | WCX_FEATURE_SETS));
		seg = wcx_container_segment(c, TUNED);
		CHECK(seg->recipe.run_elems == 256 && seg->recipe.fields[1].set_bits == set_bits);
		CHECK(seg->recipe.fields[1].by_context && seg->recipe.fields[1].table_count == 3 << set_bits);
		wcx_field_write(&seg->recipe.fields[1], 0, written);
		CHECK(written[1] == (WCX_FIELD_BY_CONTEXT | set_bits << 5));
		CHECK(wcx_container_segment(c, COUNTERS)->recipe.run_elems == 0);
		wcx_container_free(c);
		free(file.data);
	}
}

/* From a file with sets of tables. */
static void each_part_of_a_set_is_checked(void)
{
	static const struct change of_the_segment[] = {
		{ 24, 4, 0, EBADMSG, "bad run" },
		{ 24, 4, 192, EBADMSG, "bad run" },
		{ 24, 4, 65536 + 128, EBADMSG, "bad run" },
	};
	static const struct change of_the_field[] = {
		{ 1, 1, 7 | 3 << 5, EBADMSG, "frequency table that is not there" },
		{ 1, 1, 7 | 1 << 7, EBADMSG, "unknown flag of a field" },
		{ 1, 1, 1 | 1 << 5, EBADMSG, "sets of frequency tables without contexts" },
		{ 1, 1, 1 << 5, EBADMSG, "symbols of a field without frequency tables" },
		{ 4, 4, 1, EBADMSG, "frequency table that is not there" },
	};
	static const struct change no_flag = { 16, 8, WCX_FEATURE_BASES, EBADMSG, "unknown flag of a field" };
	struct sample_bytes file = make_with_sets(2);
	const uint64_t at = wcx_le64_read(file.data + 40), segment_at = at + TUNED * WCX_SEGMENT_BYTES;
	const uint64_t field_at = at + DEPENDENT_SEGMENTS * WCX_SEGMENT_BYTES + (TUNED_FIELD + 1) * WCX_FIELD_BYTES;

	for (size_t i = 0; i < WCX_ARRAY_COUNT(of_the_segment); i++)
		check_change_of(file, &of_the_segment[i], segment_at, segment_at);
	for (size_t i = 0; i < WCX_ARRAY_COUNT(of_the_field); i++)
		check_change_of(file, &of_the_field[i], field_at, segment_at);
	check_change_of(file, &no_flag, 0, segment_at);
	free(file.data);
}

static void what_is_no_regular_file_is_refused(void)
{
	struct wcx_container *container = NULL;
	int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct wcx_error err;

	CHECK(wcx_container_open(fd, path, &container, &err) == -EBADMSG);
	CHECK_TEXT(err.text, "store/small.wcx: not a regular file");
	CHECK(fcntl(fd, F_GETFD) >= 0); /* still ours */
	close(fd);
}

/* Space for the index is taken by it, and a file may be written to in between. */
static void a_superblock_that_was_read_is_not_read_again(void)
{
	struct sample_bytes copy = copy_of_packed();
	struct wcx_container *container = NULL;
	struct wcx_superblock sb;
	struct wcx_error err = { "" };
	int fd;

	CHECK(wcx_superblock_parse(path, packed.data, packed.bytes, &sb, &err) == 0);
	memset(copy.data, 0, WCX_SUPERBLOCK_BYTES);
	fd = sample_open(copy.data, copy.bytes);
	if (CHECK(wcx_container_open_as(fd, path, &sb, &container, &err) == 0))
		CHECK(wcx_container_superblock(container)->index_bytes == sb.index_bytes);
	wcx_container_free(container);
	free(copy.data);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(sound_file_opens_and_tells_what_it_holds),
		CHECK_TEST(segment_with_the_same_content_has_the_tiles_of_the_first),
		CHECK_TEST(recipes_are_those_of_the_packer),
		CHECK_TEST(fields_share_tables),
		CHECK_TEST(tiles_lie_one_behind_the_other),
		CHECK_TEST(pairs_and_zeros_with_exceptions_are_coded),
		CHECK_TEST(number_of_tables_is_limited),
		CHECK_TEST(superblock_survives_writing),
		CHECK_TEST(file_cut_at_any_length_is_refused),
		CHECK_TEST(file_with_a_byte_more_is_refused),
		CHECK_TEST(changed_byte_of_superblock_or_index_is_refused),
		CHECK_TEST(a_superblock_that_was_read_is_not_read_again),
		CHECK_TEST(each_field_of_the_superblock_is_checked),
		CHECK_TEST(each_part_of_a_segment_is_checked),
		CHECK_TEST(small_first_segment_is_refused),
		CHECK_TEST(segments_with_the_same_content_are_checked),
		CHECK_TEST(each_part_of_a_field_is_checked),
		CHECK_TEST(every_table_of_a_field_is_held_against_its_width),
		CHECK_TEST(fields_of_too_many_raw_planes_are_refused),
		CHECK_TEST(what_no_segment_accounts_for_is_refused),
		CHECK_TEST(each_part_of_a_tile_entry_is_checked),
		CHECK_TEST(frequency_tables_are_checked),
		CHECK_TEST(changed_bytes_behind_right_checksums_are_refused_or_change_nothing),
		CHECK_TEST(changed_bytes_of_tiles_are_refused_or_lie_in_gaps),
		CHECK_TEST(bases_are_those_that_were_written),
		CHECK_TEST(each_part_of_a_base_is_checked),
		CHECK_TEST(each_part_of_a_difference_is_checked),
		CHECK_TEST(sets_of_tables_are_those_that_were_written),
		CHECK_TEST(each_part_of_a_set_is_checked),
		CHECK_TEST(what_is_no_regular_file_is_refused),
	};
	int status;

	cache = wcx_tile_cache_create(0);
	CHECK(wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &decoder, NULL) == 0);
	make_packed();
	status = check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
	wcx_container_free(sound);
	wcx_decoder_free(decoder);
	wcx_tile_cache_free(cache);
	free(original.data);
	free(packed.data);
	return status;
}
