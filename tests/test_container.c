/* SPDX-License-Identifier: MIT */
/*
 * Superblock and index: every field is checked, and a file with any byte changed or cut off is either refused by name or
 * still gives the original's bytes.
 */
#include "fs/container.h"

#include <errno.h>
#include <string.h>

#include "fs/export.h"
#include "fs/image.h"
#include "fs/pack.h"
#include "tests/check.h"
#include "tests/sample_files.h"

static const char path[] = "store/small.wcx"; /* as messages have it; the files have no name */

static struct sample_bytes original, packed;
static uint64_t index_offset;

/* Packs the small sample. */
static void make_packed(void)
{
	struct wcx_pack_options options = { .thread_count = 1 };
	char *dir = sample_dir_create(), *src = sample_path(dir, "small.safetensors"), *dst = sample_path(dir, "small.wcx");
	struct wcx_pack_result result;
	struct wcx_error err = { "" };

	original = sample_safetensors(sample_small, SAMPLE_SMALL_COUNT);
	sample_write(src, original);
	sample_require(wcx_pack(src, dst, &options, &result, &err) == 0, err.text);
	packed = sample_read(dst);
	index_offset = wcx_le64_read(packed.data + 40);
	CHECK(result.packed_bytes == packed.bytes && result.original_bytes == original.bytes);
	sample_dir_remove(dir);
	free(src);
	free(dst);
}

static struct sample_bytes copy_of_packed(void)
{
	struct sample_bytes copy = { malloc(packed.bytes), packed.bytes };

	sample_require(copy.data != NULL, "malloc");
	memcpy(copy.data, packed.data, packed.bytes);
	return copy;
}

/* Makes the checksums of superblock and index right. */
static void seal(struct sample_bytes file)
{
	uint64_t offset = wcx_le64_read(file.data + 40);

	if (offset <= file.bytes)
		wcx_le64_write(file.data + 80, wcx_checksum64(file.data + offset, file.bytes - offset));
	wcx_le64_write(file.data + 120, wcx_checksum64(file.data, 120));
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

static void sound_file_opens_and_tells_what_it_holds(void)
{
	const struct wcx_superblock *sb;
	struct wcx_container *c = NULL;
	uint64_t offset = 0, tile = 0;
	struct wcx_error err;

	if (!CHECK(open_bytes(packed.data, packed.bytes, &c, &err) == 0))
		return;
	sb = wcx_container_superblock(c);
	CHECK(sb->original_bytes == original.bytes && sb->packed_bytes == packed.bytes);
	CHECK(sb->segment_count == 6); /* the header and five tensors with data */
	CHECK_TEXT(wcx_container_path(c), path);
	for (size_t i = 0; i < sb->segment_count; i++) {
		const struct wcx_segment *seg = wcx_container_segment(c, i);

		CHECK(seg->offset == offset && seg->first_tile == tile);
		CHECK(seg->rows * seg->cols * seg->elem_bytes == seg->bytes);
		CHECK(wcx_container_segment_at(c, offset) == i && wcx_container_segment_at(c, offset + seg->bytes - 1) == i);
		CHECK(wcx_container_segment_of_tile(c, tile) == i);
		CHECK(wcx_container_segment_of_tile(c, tile + seg->tile_count - 1) == i);
		offset += seg->bytes;
		tile += seg->tile_count;
	}
	CHECK(offset == original.bytes && tile == sb->tile_count);
	wcx_container_free(c);
	wcx_container_free(NULL);
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
					   : at < WCX_SUPERBLOCK_BYTES ? "offset 120: checksum"
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

/* What the tests below change, with the checksums made right, and what they are told. */
struct change {
	size_t at;      /* from the start of the superblock, or of the part of the index below */
	unsigned bytes; /* of the value: 1, 4 or 8 */
	uint64_t value;
	int errnum;
	const char *text; /* part of the message */
};

static void check_change(const struct change *change, size_t base, uint64_t named_offset)
{
	struct sample_bytes copy = copy_of_packed();
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

static void each_field_of_the_superblock_is_checked(void)
{
	static const struct change about_the_file[] = {
		{ 8, 4, 0, ENOTSUP, "version 0" },        { 8, 4, 2, ENOTSUP, "version 2" },
		{ 16, 8, 1, ENOTSUP, "features" },        { 16, 8, UINT64_C(1) << 63, ENOTSUP, "0x8000000000000000" },
		{ 24, 8, 1 << 20, EBADMSG, "truncated" }, { 24, 8, 200, EBADMSG, "damaged" },
	};
	static const struct change about_a_field[] = {
		{ 12, 4, 1, EBADMSG, "reserved" },
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
	};
	struct change offset_unaligned = { 40, 8, index_offset - 8, EBADMSG, "index is not where" };

	for (size_t i = 0; i < sizeof about_the_file / sizeof about_the_file[0]; i++)
		check_change(&about_the_file[i], 0, 0);
	for (size_t i = 0; i < sizeof about_a_field / sizeof about_a_field[0]; i++) {
		size_t at = about_a_field[i].at;
		/* What contradicts other fields is told at the first of them. */
		int of_index = strstr(about_a_field[i].text, "not where") != NULL;
		int of_counts = strstr(about_a_field[i].text, "counts") != NULL;

		check_change(&about_a_field[i], 0, of_index ? 40 : of_counts ? 56 : at);
	}
	check_change(&offset_unaligned, 0, 40);
}

static void each_field_of_a_segment_is_checked(void)
{
	static const struct change changes[] = {
		/* to the second segment: 40 x 50 I8, coded, flat */
		{ 0, 8, 0, EBADMSG, "bad segment size" },
		{ 0, 8, UINT64_MAX, EBADMSG, "bad segment size" },
		{ 8, 8, 0, EBADMSG, "bad number of columns" },
		{ 8, 8, 3, EBADMSG, "bad number of columns" },
		{ 8, 8, 4000, EBADMSG, "bad number of columns" },
		{ 16, 4, 0, EBADMSG, "bad tile size" },
		{ 20, 4, 0, EBADMSG, "bad tile size" },
		{ 16, 8, UINT64_C(0x1000000010000), EBADMSG, "bad tile size" }, /* 65536 x 65536 is 0 in 32 bits */
		{ 24, 4, 1000, EBADMSG, "table that is not there" },
		{ 24, 4, UINT32_MAX, EBADMSG, "table that is not there" },
		{ 32, 1, 0, EBADMSG, "bad element size" },
		{ 32, 1, 3, EBADMSG, "bad element size" },
		{ 33, 1, 3, EBADMSG, "byte plane that is not there" },
		{ 34, 1, 1, EBADMSG, "reserved" },
		{ 39, 1, 1, EBADMSG, "reserved" },
	};
	uint64_t segment = index_offset + WCX_SEGMENT_BYTES, entries = index_offset + 6 * WCX_SEGMENT_BYTES;
	struct change smaller = { 0, 8, 1000, EBADMSG, "do not make up the file" };
	struct change larger = { 0, 8, 2000000, EBADMSG, "larger than the file" };
	struct change more_tiles = { 20, 4, 1, EBADMSG, "larger than the file" };

	for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++)
		check_change(&changes[i], segment, segment);
	check_change(&larger, segment, segment);
	check_change(&more_tiles, segment, segment);
	/* The columns have to fit to get so far. */
	wcx_le64_write(packed.data + segment + 8, 1000);
	check_change(&smaller, segment, entries);
	wcx_le64_write(packed.data + segment + 8, 2000);
}

static void each_field_of_a_tile_entry_is_checked(void)
{
	uint64_t entries = index_offset + 6 * WCX_SEGMENT_BYTES, coded = entries + WCX_TILE_ENTRY_BYTES;
	uint64_t constant = entries + 4 * WCX_TILE_ENTRY_BYTES, stored = entries + 5 * WCX_TILE_ENTRY_BYTES;
	const struct {
		uint64_t entry;
		struct change change;
	} cases[] = {
		{ coded, { 11, 1, 3, EBADMSG, "unknown tile mode" } },
		{ coded, { 11, 1, 255, EBADMSG, "unknown tile mode" } },
		{ coded, { 11, 1, WCX_TILE_STORED, EBADMSG, "contradicts the tile mode" } },
		{ coded, { 0, 8, 136, EBADMSG, "outside its area" } },
		{ coded, { 0, 8, 112, EBADMSG, "outside its area" } },
		{ coded, { 0, 8, index_offset, EBADMSG, "outside its area" } },
		{ coded, { 0, 8, UINT64_MAX - 15, EBADMSG, "outside its area" } },
		{ coded, { 9, 1, 0x77, EBADMSG, "contradicts the tile mode" } },
		{ constant, { 8, 1, 1, EBADMSG, "with a size" } },
		{ constant, { 12, 1, 1, EBADMSG, "or checksum" } },
		{ constant, { 1, 1, 1, EBADMSG, "too large" } },
		{ constant, { 7, 1, 0x80, EBADMSG, "too large" } },
		{ stored, { 8, 1, 4, EBADMSG, "contradicts the tile mode" } },
		{ stored, { 8, 1, 6, EBADMSG, "contradicts the tile mode" } },
	};

	CHECK(packed.data[coded + 11] == WCX_TILE_CODED && packed.data[constant + 11] == WCX_TILE_CONSTANT);
	CHECK(packed.data[stored + 11] == WCX_TILE_STORED);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		check_change(&cases[i].change, cases[i].entry, cases[i].entry);
}

static void frequency_tables_are_checked(void)
{
	uint64_t tables = packed.bytes - wcx_le64_read(packed.data + 72);
	uint32_t table_count = wcx_le32_read(packed.data + 60);
	struct change bad = { 0, 1, 0xFF, EBADMSG, "bad frequency table" };
	struct change fewer = { 60, 4, table_count - 1, EBADMSG, "bytes behind the last frequency table" };
	struct change more = { 60, 4, table_count + 1, EBADMSG, "bad frequency table" };

	CHECK(table_count >= 2);
	check_change(&bad, tables, tables);
	check_change(&fewer, 0, 0);
	check_change(&more, 0, packed.bytes);
}

static struct wcx_tile_cache *cache;
static struct wcx_decoder *decoder;

/* Every byte as it was, read through the image and again by wcx_verify; else a message that names the file. */
static int is_refused_or_right(struct sample_bytes file)
{
	static const struct wcx_export_ops ops = { 0 };
	int fd = sample_open(file.data, file.bytes), r, right = 0;
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

	for (size_t at = 8; at < packed.bytes; at = at + 1 == 120 ? index_offset : at + 1) {
		if (at == 80)
			at = 88; /* the index's checksum, which is made right */
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

int main(void)
{
	make_packed();
	cache = wcx_tile_cache_create(0);
	CHECK(wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &decoder, NULL) == 0);

	sound_file_opens_and_tells_what_it_holds();
	superblock_survives_writing();
	file_cut_at_any_length_is_refused();
	file_with_a_byte_more_is_refused();
	changed_byte_of_superblock_or_index_is_refused();
	each_field_of_the_superblock_is_checked();
	each_field_of_a_segment_is_checked();
	each_field_of_a_tile_entry_is_checked();
	frequency_tables_are_checked();
	changed_bytes_behind_right_checksums_are_refused_or_change_nothing();
	changed_bytes_of_tiles_are_refused_or_lie_in_gaps();
	what_is_no_regular_file_is_refused();

	wcx_decoder_free(decoder);
	wcx_tile_cache_free(cache);
	free(original.data);
	free(packed.data);
	return check_report();
}
