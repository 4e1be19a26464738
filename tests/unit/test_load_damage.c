/* SPDX-License-Identifier: MIT */
/* Loading damaged files, and files that change while they are read: the tile is named, and other tiles are loaded. */
#include "tests/unit/load_samples.h"

/* --- damage --- */

/* The tensor that an offset belongs to; NULL for the header. */
static const char *tensor_at(const struct sample *sample, uint64_t offset)
{
	const char *name = NULL;

	for (size_t i = 0; i < sample->st->tensor_count; i++)
		if (offset >= sample->st->tensors[i].offset)
			name = sample->st->tensors[i].name;
	return name;
}

/* Loads a file with a damaged tile: loading all of it must fail, loading the rest must not. */
static void check_damaged_tile(struct wcx_loader *loader, const struct sample *sample, const struct wcx_segment *seg,
			       const struct wcx_tile_info *info, struct sample_random *random)
{
	const uint64_t row_bytes = (uint64_t)info->dims.cols * info->dims.elem_bytes;
	const uint64_t from = wcx_tile_row_offset(seg, info, 0);
	const uint64_t to = wcx_tile_row_offset(seg, info, info->dims.rows - 1) + row_bytes;
	const struct range touching[] = { { from + row_bytes - 1, 1, 1 } };
	const struct range others[] = { { 0, from, 0 }, { to, sample->original.bytes - to, 1 } };
	char text[ERROR_BYTES], error[ERROR_BYTES];
	struct range range = whole(sample, (size_t)sample_below(random, 8));
	uint8_t byte;

	tile_text(sample, tensor_at(sample, from), seg, info, "damaged", text);
	CHECK(failure_of(loader, sample, &range, 1, random, error) == -EBADMSG);
	CHECK_TEXT(error, text);
	CHECK(failure_of(loader, sample, touching, 1, random, error) == -EBADMSG);
	CHECK(strstr(error, strstr(text, ", tile ")) != NULL);
	CHECK(wcx_file_read(sample->file, &byte, 1, from, error, sizeof error) == -EBADMSG);
	CHECK_TEXT(error, text);
	CHECK(loads_right(loader, sample, others, 2, random));
}

static void a_damaged_tile_is_named_and_affects_no_other(void)
{
	const struct sample *sample = &samples[MIXED];
	struct sample_random random = { seed };
	struct wcx_loader *loaders[] = { open_loader(1), open_loader(3) };

	for (size_t s = 1; s < wcx_container_superblock(sample->container)->segment_count; s++) {
		const struct wcx_segment *seg = wcx_container_segment(sample->container, s);
		uint64_t step = seg->tile_count > 6 ? seg->tile_count / 4 : 1;

		for (uint64_t t = 0; t < seg->tile_count && !seg->same_as; t += step) {
			struct wcx_tile_info info;
			uint64_t at;

			wcx_container_tile(sample->container, seg, seg->first_tile + t, &info);
			if (info.mode == WCX_TILE_CONSTANT || s == 1) /* segment 1 has a twin */
				continue;
			at = info.packed_offset + sample_below(&random, info.packed_bytes);
			change_byte(sample, at, 0x10);
			check_damaged_tile(loaders[t % 2], sample, seg, &info, &random);
			change_byte(sample, at, 0x10);
		}
	}
	for (int i = 0; i < 2; i++) {
		CHECK(loads_right(loaders[i], sample, (struct range[]){ whole(sample, 0) }, 1, &random));
		wcx_loader_close(loaders[i]);
	}
}

/* If two tensors share a tile, the error names the one that was asked for. */
static void damage_names_the_tensor_that_was_asked_for(void)
{
	static const char *const wanted[] = { "pool.a", "pool.b", "squares", "again" };
	const struct sample *sample = &samples[MIXED];
	struct wcx_loader *loader = open_loader(2);
	struct sample_random random = { seed };

	for (size_t i = 0; i < WCX_ARRAY_COUNT(wanted); i++) {
		const struct wcx_tensor *tensor = tensor_named(sample, wanted[i]);
		const struct wcx_segment *seg = segment_of(sample, wanted[i]);
		struct range range = { tensor->offset, tensor->bytes, 0 };
		char text[ERROR_BYTES], error[ERROR_BYTES];
		struct wcx_tile_info info;

		wcx_container_tile(sample->container, seg, seg->first_tile + 1, &info); /* 277 of pool.a, 223 of pool.b */
		tile_text(sample, wanted[i], seg, &info, "damaged", text);
		change_byte(sample, info.packed_offset + 7, 1);
		CHECK(failure_of(loader, sample, &range, 1, &random, error) == -EBADMSG);
		CHECK_TEXT(error, text);
		change_byte(sample, info.packed_offset + 7, 1);
	}
	wcx_loader_close(loader);
}

/* Changes a byte of a tile, counted from its end if negative, and makes the checksums fit. */
static void forge_tile(struct sample_bytes packed, const struct wcx_container *c, const struct wcx_tile_info *info, int at)
{
	const struct wcx_superblock *sb = wcx_container_superblock(c);
	uint8_t *tile = packed.data + info->packed_offset;
	uint8_t *entry = packed.data + sb->index_offset + sb->segment_count * WCX_SEGMENT_BYTES +
			 sb->field_count * WCX_FIELD_BYTES + info->tile_index * WCX_TILE_ENTRY_BYTES;
	struct wcx_tile_info forged = *info;

	tile[at < 0 ? (int)info->packed_bytes + at : at] ^= 0x3F;
	forged.checksum = wcx_checksum32(tile, info->packed_bytes);
	wcx_tile_entry_write(&forged, entry);
	seal(packed);
}

/* Makes a copy of a file, in which tiles of a tensor are forged.  The caller closes it. */
static struct sample forge(const struct sample *sample, const char *tensor, const uint64_t *tiles, size_t count, int at)
{
	const struct wcx_segment *seg = segment_of(sample, tensor);
	struct sample forged = { .path = sample_path(dir, "forged.wcx") };

	forged.original = (struct sample_bytes){ malloc(sample->original.bytes), sample->original.bytes };
	memcpy(forged.original.data, sample->original.data, sample->original.bytes);
	forged.packed = (struct sample_bytes){ malloc(sample->packed.bytes), sample->packed.bytes };
	memcpy(forged.packed.data, sample->packed.data, sample->packed.bytes);
	for (size_t i = 0; i < count; i++) {
		struct wcx_tile_info info;

		wcx_container_tile(sample->container, seg, seg->first_tile + tiles[i], &info);
		forge_tile(forged.packed, sample->container, &info, at);
	}
	sample_write(forged.path, forged.packed);
	open_sample(&forged);
	return forged;
}

/* Damage that only the decoder sees: in the head of a tile, in its payload, or in a Zstandard frame. */
static void tiles_that_do_not_decode_are_named(void)
{
	static const struct {
		const char *tensor;
		uint64_t tiles[2];
		int at;
	} cases[] = {
		{ "squares", { 5, 6 }, -1 },    { "squares", { 0, 3 }, 0 }, { "left", { 9, 12 }, -1 },
		{ "wide", { 1, 3 }, -2 },       { "both", { 4, 5 }, -1 },   { "folded", { 1, 4 }, -1 },
		{ "odd", { 2, 8 }, 0 },         { "sparse", { 0, 2 }, -1 }, { "zipped", { 0, 1 }, 0 },
		{ "zipped.rows", { 2, 3 }, 1 }, { "above", { 3, 4 }, -1 },
	};
	struct sample_random random = { seed };

	for (size_t i = 0; i < 4 * WCX_ARRAY_COUNT(cases); i++) {
		const char *tensor = cases[i / 4].tensor;
		struct sample forged = forge(&samples[MIXED], tensor, cases[i / 4].tiles, 2, cases[i / 4].at);
		const struct wcx_segment *seg = segment_of(&forged, tensor);
		const struct range ranges[] = { { 0, seg->offset, 0 },
						{ seg->offset, seg->bytes, i % 2 },
						{ seg->offset + seg->bytes, 30000, 0 } };
		struct wcx_loader *loader = open_loader(i % 4 < 2 ? 1 : 2);
		char text[ERROR_BYTES], error[ERROR_BYTES];
		struct wcx_tile_info info;
		uint8_t byte;

		wcx_container_tile(forged.container, seg, seg->first_tile + cases[i / 4].tiles[0], &info);
		tile_text(&forged, tensor, seg, &info, "damaged", text);
		CHECK(wcx_file_read(forged.file, &byte, 1, wcx_tile_row_offset(seg, &info, 0), NULL, 0) == -EBADMSG);
		CHECK(failure_of(loader, &forged, ranges + 1, 1, &random, error) == -EBADMSG);
		CHECK_TEXT(error, text);
		if (i % 4 == 0) { /* the checksums are right, so it can be pinned */
			struct sample pinned = open_pinned(&forged, loader);

			CHECK(failure_of(loader, &pinned, ranges + 1, 1, &random, error) == -EBADMSG);
			CHECK_TEXT(error, text);
			CHECK(strcmp(tensor, "squares") == 0 || loads_right(loader, &pinned, ranges, 1, &random));
			wcx_file_close(pinned.file);
		}
		if (strcmp(tensor, "squares") != 0) { /* which has a twin */
			CHECK(failure_of(loader, &forged, ranges, 3, &random, error) == -EBADMSG);
			CHECK_TEXT(error, text);
			CHECK(loads_right(loader, &forged, ranges, 1, &random));
		}
		wcx_loader_close(loader);
		close_sample(&forged);
	}
}

/* The first in the order of adding.  Tiles that are not coded come before it. */
static void the_first_of_two_tiles_in_a_batch_that_do_not_decode_is_named(void)
{
	static const struct sample_part parts[] = {
		{ { "a", "I8", "[40,1000]", 40000, SAMPLE_GAUSSIAN, 9 }, 1000, 1, 1000, &sample_1_byte, 0, 0 },
	};
	static const uint64_t tiles[] = { 17, 15, 30 };
	struct sample sample = { .path = sample_path(dir, "batch.wcx"), .original = sample_original(parts, 1) };
	struct sample_random random = { seed };
	struct wcx_loader *loader = open_loader(1);
	char text[ERROR_BYTES], error[ERROR_BYTES];
	struct wcx_tile_info info;
	struct sample forged;

	for (size_t i = 0; i < 20; i++) { /* constant and stored tiles; tiles 10 to 19 and 30 to 39 stay coded */
		uint8_t *row = sample.original.data + 8 + wcx_le64_read(sample.original.data) + 1000 * (i + i / 10 * 10);

		sample_fill(&random, i % 2 ? SAMPLE_CONSTANT : SAMPLE_UNIFORM, 0, row, 1000);
	}
	sample.packed = sample_image(sample.original, parts, 1);
	sample_write(sample.path, sample.packed);
	open_sample(&sample);
	forged = forge(&sample, "a", tiles, WCX_ARRAY_COUNT(tiles), -1);
	const struct wcx_segment *seg = segment_of(&forged, "a");
	const struct range range = { seg->offset, seg->bytes, 0 };

	wcx_container_tile(forged.container, seg, seg->first_tile + 15, &info);
	tile_text(&forged, "a", seg, &info, "damaged", text);
	CHECK(info.mode == WCX_TILE_CODED);
	CHECK(failure_of(loader, &forged, &range, 1, &random, error) == -EBADMSG);
	CHECK_TEXT(error, text);
	wcx_loader_close(loader);
	close_sample(&forged);
	close_sample(&sample);
}

/* Pinning checks all tiles, and names the one that is damaged; the others can be loaded as before. */
static void a_damaged_file_is_not_pinned(void)
{
	static const char *const damaged[] = { "squares", "zipped", "noise", "pool.b" };
	const struct sample *sample = &samples[MIXED];
	struct wcx_loader *loader = open_loader(2);
	struct sample_random random = { seed };

	for (size_t i = 0; i < WCX_ARRAY_COUNT(damaged); i++) {
		const struct wcx_segment *seg = segment_of(sample, damaged[i]);
		const struct range before = { 0, seg->offset, 0 };
		char text[ERROR_BYTES], error[ERROR_BYTES] = "";
		struct wcx_tile_info info;

		wcx_container_tile(sample->container, seg, seg->first_tile + (i == 3), &info);
		tile_text(sample, i == 3 ? "pool.a" : damaged[i], seg, &info, "damaged", text);
		change_byte(sample, info.packed_offset + 7, 1);
		CHECK(wcx_file_pin(sample->file, loader, error, sizeof error) == -EBADMSG);
		CHECK_TEXT(error, text);
		CHECK(pinned_memories() == 0);
		CHECK(loads_right(loader, sample, &before, 1, &random));
		change_byte(sample, info.packed_offset + 7, 1);
	}
	wcx_loader_close(loader);
}

/* --- bases --- */

/* Loads all of a file, which must fail for want of a tile's base, and all but that tile, which must not. */
static void check_base_is_missed(const struct sample *sample, const struct wcx_segment *seg,
				 const struct wcx_tile_info *info, const char *why)
{
	const uint64_t from = wcx_tile_row_offset(seg, info, 0), to = from + wcx_tile_dims_bytes(&info->dims);
	const struct range others[] = { { 0, from, 0 }, { to, sample->original.bytes - to, 1 } };
	struct sample_random random = { seed };
	char text[ERROR_BYTES], error[ERROR_BYTES];

	tile_text(sample, tensor_at(sample, from), seg, info, "", text);
	for (unsigned i = 0; i < 4; i++) {
		struct wcx_loader *loader = open_loader(1 + i / 2);
		const struct range range = i % 2 ? whole(sample, i) : (struct range){ to - 1, 1, 0 };

		CHECK(failure_of(loader, sample, &range, 1, &random, error) == -EIO);
		CHECK(strncmp(error, text, strlen(text)) == 0 && strstr(error, why));
		CHECK(loads_right(loader, sample, others, 2, &random));
		wcx_loader_close(loader);
	}
}

/* In its packed bytes, or so that only the decoder sees it: in tiles for coded ones, and for those that are the base's. */
static void damage_in_a_base_fails_what_needs_it(void)
{
	static const char *const tensors[] = { "halves", "kept" };
	struct sample base = { .path = sample_path(dir, "base.wcx") };
	struct sample_bytes bytes = sample_read(base.path), forged = { malloc(bytes.bytes), bytes.bytes };

	for (size_t i = 0; i < 2 * WCX_ARRAY_COUNT(tensors); i++) {
		const bool decodes = i % 2;
		struct sample tuned = { .path = sample_path(dir, "tuned.wcx"), .original = samples[TUNED].original };
		const struct wcx_segment *seg = segment_of(&samples[TUNED], tensors[i / 2]);
		struct wcx_base_tile of;
		struct wcx_tile_info info;

		wcx_container_tile(samples[TUNED].container, seg, seg->first_tile + 3, &info);
		CHECK(wcx_tile_find_base(family_base, seg, &info, &of));
		memcpy(forged.data, bytes.data, bytes.bytes);
		if (decodes)
			forged.data[of.info.packed_offset + 9] ^= 1;
		else
			forge_tile(forged, family_base, &of.info, -1);
		sample_write(base.path, forged);
		open_sample(&tuned);
		check_base_is_missed(&tuned, seg, &info, "damaged");
		close_opened(&tuned);
		free(tuned.path);
	}
	sample_write(base.path, bytes);
	free(forged.data);
	free(bytes.data);
	free(base.path);
}

static void a_missing_base_fails_what_needs_it(void)
{
	struct sample tuned = { .path = sample_path(dir, "tuned.wcx"), .original = samples[TUNED].original };
	const struct wcx_segment *seg = segment_of(&samples[TUNED], "alone");
	char *path = sample_path(dir, "base.wcx"), *away = sample_path(dir, "away"), error[ERROR_BYTES];
	const struct range alone = { seg->offset, seg->bytes, 0 };
	struct wcx_loader *loader = open_loader(2);
	struct sample_random random = { seed };
	const struct range range = whole(&samples[TUNED], 0);

	sample_require(rename(path, away) == 0, path);
	open_sample(&tuned);
	CHECK(failure_of(loader, &tuned, &range, 1, &random, error) == -EIO);
	CHECK(strstr(error, "tuned.wcx: tensor `") && strstr(error, "(offset ") && strstr(error, "ba5e01"));
	CHECK(loads_right(loader, &tuned, &alone, 1, &random));
	close_opened(&tuned);
	free(tuned.path);
	sample_require(rename(away, path) == 0, path);
	wcx_loader_close(loader);
	free(path);
	free(away);
}

/* --- files that change during a load --- */

static const struct sample *victim;

static void cut_victim(void)
{
	sample_require(truncate(victim->path, (off_t)victim->packed.bytes / 3) == 0, victim->path);
}

static void mend_victim(void)
{
	sample_write(victim->path, victim->packed);
}

static void overwrite_victim(void)
{
	struct sample_random random = { seed };
	int fd = open(victim->path, O_RDWR | O_CLOEXEC);
	uint8_t *bytes = malloc(victim->packed.bytes);

	scribble(&random, bytes, victim->packed.bytes);
	sample_require(pwrite(fd, bytes, victim->packed.bytes, 0) == (ssize_t)victim->packed.bytes, victim->path);
	close(fd);
	free(bytes);
}

static void a_file_that_shrinks_or_changes_during_a_load_is_damaged(void)
{
	static void (*const meddle[])(void) = { cut_victim, overwrite_victim };
	struct sample_random random = { seed };

	victim = &samples[MIXED];
	for (unsigned i = 0; i < 24; i++) {
		const unsigned threads = 1 + i / 2 % 2 * 2;
		struct wcx_loader *loader = open_loader(threads);
		struct range range = whole(victim, i % 8);
		char error[ERROR_BYTES];
		int r;

		rearm(i / 4 % 2 ? CALL_SEND : CALL_READ, i / 8 * 3, WCX_OK, meddle[i % 2]);
		r = failure_of(loader, victim, &range, 1, &random, error);
		if (r == 0 && threads > 1)
			fprintf(stderr, "\tthe other threads had read all before the file changed\n");
		else if (CHECK(r == -EBADMSG))
			CHECK(strstr(error, ": damaged") && strstr(error, ", tile ") && strstr(error, "(offset "));
		disarm();
		mend_victim();
		CHECK(loads_right(loader, victim, &range, 1, &random));
		wcx_loader_close(loader);
	}
}

/* What was pinned is a copy: whatever happens to the file, loads give the bytes that were checked. */
static void a_pinned_file_may_change_or_vanish(void)
{
	static void (*const meddle[])(void) = { cut_victim, overwrite_victim };
	struct sample_random random = { seed };

	victim = &samples[MIXED];
	for (unsigned i = 0; i < 6; i++) {
		struct wcx_loader *loader = open_loader(1 + i % 3);
		struct sample pinned = open_pinned(victim, loader);
		const struct range range = whole(victim, i);

		if (i < 4)
			meddle[i % 2]();
		else
			rearm(CALL_SEND_PINNED, 2, WCX_OK, meddle[i % 2]);
		CHECK(loads_right(loader, &pinned, &range, 1, &random));
		disarm();
		CHECK(i % 2 || wcx_file_pin(victim->file, loader, NULL, 0) == -EBADMSG);
		mend_victim();
		wcx_file_close(pinned.file);
		wcx_loader_close(loader);
	}
}

static void a_file_that_changes_while_it_is_pinned_is_damaged(void)
{
	static void (*const meddle[])(void) = { cut_victim, overwrite_victim };

	victim = &samples[MIXED];
	for (unsigned i = 0; i < 4; i++) {
		struct wcx_loader *loader = open_loader(1 + i / 2);
		char error[ERROR_BYTES] = "";

		rearm(CALL_READ, 4, WCX_OK, meddle[i % 2]);
		CHECK(wcx_file_pin(victim->file, loader, error, sizeof error) == -EBADMSG);
		CHECK(strstr(error, ": damaged") && strstr(error, ", tile ") && strstr(error, "(offset "));
		disarm();
		mend_victim();
		wcx_loader_close(loader);
	}
}

/* The missing tile is not wanted: it is read because it lies between tiles that are. */
static void an_error_after_a_file_shrank_names_a_tensor_of_the_tile(void)
{
	const struct sample *sample = &samples[MIXED];
	const struct wcx_segment *seg = segment_of(sample, "left"); /* 301 wide, tiles of 32 by 70 */
	const struct range ranges[] = { { seg->offset, 32 * 301 + 75, 0 }, { sample->original.bytes - 9, 9, 0 } };
	struct wcx_loader *loader = open_loader(1);
	struct sample_random random = { seed };
	char text[ERROR_BYTES], error[ERROR_BYTES];
	struct wcx_tile_info info;

	wcx_container_tile(sample->container, seg, seg->first_tile + 5 + 3, &info);
	tile_text(sample, "left", seg, &info, "damaged", text);
	sample_require(truncate(sample->path, (off_t)info.packed_offset) == 0, sample->path);
	CHECK(failure_of(loader, sample, ranges, 2, &random, error) == -EBADMSG);
	CHECK_TEXT(error, text);
	sample_write(sample->path, sample->packed);
	wcx_loader_close(loader);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(a_damaged_tile_is_named_and_affects_no_other),
		CHECK_TEST(damage_names_the_tensor_that_was_asked_for),
		CHECK_TEST(tiles_that_do_not_decode_are_named),
		CHECK_TEST(the_first_of_two_tiles_in_a_batch_that_do_not_decode_is_named),
		CHECK_TEST(a_damaged_file_is_not_pinned),
		CHECK_TEST(damage_in_a_base_fails_what_needs_it),
		CHECK_TEST(a_missing_base_fails_what_needs_it),
		CHECK_TEST(a_file_that_shrinks_or_changes_during_a_load_is_damaged),
		CHECK_TEST(a_pinned_file_may_change_or_vanish),
		CHECK_TEST(a_file_that_changes_while_it_is_pinned_is_damaged),
		CHECK_TEST(an_error_after_a_file_shrank_names_a_tensor_of_the_tile),
	};

	return load_tests_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
