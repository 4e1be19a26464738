/* SPDX-License-Identifier: MIT */
/* Orders the files of a tree so that bases come first. */
#include "tools/pack_order.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/base/array.h"
#include "fs/base/file_io.h"
#include "fs/format/safetensors_file.h"
#include "fs/pack/pack_done.h"
#include "tools/model_card.h"
#include "tools/relatives.h"

enum {
	FOLLOWER_MIN_SHARE = 2, /* of its bytes, a follower has one of this many in tensors of others */
	COMMON_MIN_SHARE = 8,   /* and of those of one file at least one of this many */
	SKETCHES_MAX = 32,      /* of a file */
	SKETCH_TENSORS = 3,
	LOOKS_MAX_BYTES = 64 << 20, /* that are kept: of the first files, against which the others are sketched */
};

struct order_item {
	size_t item;  /* number among those of the run */
	bool is_base; /* a model card calls it the base of others */
	bool follows;
	struct wcx_safetensors *st; /* NULL: no safetensors file, or done */
	struct wcx_tensor_list tensors;
	struct wcx_looks looks;
	bool keeps_looks;
};

struct card {
	char base[WCX_CARD_NAME_BYTES];
};

struct ordering {
	struct wcx_tree_run *run;
	struct order_item *items;
	struct card *cards;
	size_t card_count, card_capacity;
	size_t looks_bytes;
};

/* An item that is read in a sketch. */
struct sketched_item {
	const struct ordering *ordering;
	const struct order_item *item;
	int fd; /* -1: not opened yet */
};

/* Opens the file of an item: a descriptor, or -1. */
static int open_item(const struct ordering *ordering, const struct order_item *item)
{
	const struct wcx_tree *tree = &ordering->run->tree;
	const struct wcx_tree_entry *entry = &tree->entries[ordering->run->items[item->item]];
	const int directory = wcx_tree_open_directory(tree, entry->directory, tree->root_fd);
	int fd;

	if (directory < 0)
		return -1;
	fd = openat(directory, entry->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	close(directory);
	return fd;
}

/* Whether an earlier run has packed an item, so that nothing waits for it: its packed file is in the store. */
static bool is_done(const struct ordering *ordering, const struct order_item *item)
{
	const struct wcx_tree_run *run = ordering->run;
	const struct wcx_tree_entry *entry = &run->tree.entries[run->items[item->item]];
	const int directory = wcx_tree_open_directory(&run->tree, entry->directory, run->output_root_fd);
	char name[NAME_MAX + sizeof ".wcx"];
	struct wcx_superblock sb;
	struct stat st;
	bool ret;
	int fd;

	if (directory < 0)
		return false;
	snprintf(name, sizeof name, "%s.wcx", entry->name);
	fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	ret = fd >= 0 && fstat(fd, &st) == 0 && wcx_superblock_read(fd, name, &sb, NULL) == 0 &&
	      wcx_pack_is_current(entry->name, &entry->st, &st, &sb);
	if (fd >= 0)
		close(fd);
	close(directory);
	return ret;
}

/* Reads the header of an item; what cannot be read has no tensors. */
static int read_item(const struct ordering *ordering, struct order_item *item)
{
	const int fd = open_item(ordering, item);
	struct wcx_error ignored;
	struct stat st;
	int r = 0;

	if (fd < 0)
		return 0;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && !is_done(ordering, item) &&
	    wcx_safetensors_read(fd, "", (uint64_t)st.st_size, &item->st, &ignored) == 0)
		r = wcx_tensor_list_make(item->st, &item->tensors);
	close(fd);
	return r;
}

/* Notes what the model cards of the tree call a base. */
static int read_cards(struct ordering *ordering)
{
	const struct wcx_tree *tree = &ordering->run->tree;

	for (size_t i = 0; i < tree->count; i++) {
		struct card *grown, card;
		int directory;
		bool found;

		if (strcmp(tree->entries[i].name, "README.md") != 0)
			continue;
		directory = wcx_tree_open_directory(tree, tree->entries[i].directory, tree->root_fd);
		found = directory >= 0 && wcx_model_card_base(directory, card.base);
		if (directory >= 0)
			close(directory);
		if (!found)
			continue;
		grown = wcx_array_reserve(ordering->cards, &ordering->card_capacity, ordering->card_count + 1, sizeof card);
		if (!grown)
			return -ENOMEM;
		ordering->cards = grown;
		ordering->cards[ordering->card_count++] = card;
	}
	return 0;
}

static int mark_base(struct ordering *ordering, struct order_item *item)
{
	char *path = wcx_tree_path(&ordering->run->tree, ordering->run->items[item->item], "", "");

	for (size_t i = 0; path && i < ordering->card_count && !item->is_base; i++)
		item->is_base = wcx_model_card_names(ordering->cards[i].base, path);
	free(path);
	return path ? 0 : -ENOMEM;
}

static int read_sketched(const void *user, uint8_t *dst, size_t bytes, uint64_t offset, struct wcx_error *err)
{
	struct sketched_item *sketched = (struct sketched_item *)(uintptr_t)user;
	int r;

	if (sketched->fd < 0)
		sketched->fd = open_item(sketched->ordering, sketched->item);
	r = sketched->fd < 0 ? -EIO : wcx_read_exact(sketched->fd, dst, bytes, offset);
	return r < 0 ? wcx_fail(err, -r, "%s", strerror(-r)) : 0;
}

/* Whether samples show that an item is smaller against another; false if one cannot be read. */
static bool is_smaller(struct ordering *ordering, struct order_item *item, struct order_item *base)
{
	struct sketched_item items[2] = { { ordering, item, -1 }, { ordering, base, -1 } };
	const struct wcx_sketched_file files[2] = {
		{ item->st, { .read = read_sketched, .user = &items[0] }, &item->looks },
		{ base->st, { .read = read_sketched, .user = &items[1] }, base->keeps_looks ? &base->looks : NULL },
	};
	const size_t looks_bytes = base->looks.bytes;
	struct wcx_base_sketch sketch = { 0 };
	struct wcx_error ignored;
	const bool ret = wcx_base_sketch_make(&files[1], &files[0], SKETCH_TENSORS, &sketch, &ignored) == 0 &&
			 sketch.gain >= WCX_BASE_MIN_GAIN;

	ordering->looks_bytes += base->looks.bytes - looks_bytes;
	for (int i = 0; i < 2; i++)
		if (items[i].fd >= 0)
			close(items[i].fd);
	return ret;
}

/* Whether an item follows those before it that go ahead. */
static bool follows(struct ordering *ordering, struct order_item *const *sorted, size_t number)
{
	struct order_item *item = sorted[number];
	uint64_t covered = 0;
	int sketches = 0;

	for (size_t i = 0; i < number && sketches < SKETCHES_MAX; i++) {
		uint64_t common;

		if (sorted[i]->follows || !sorted[i]->st)
			continue;
		common = wcx_tensor_list_common(&item->tensors, &sorted[i]->tensors);
		if (common * COMMON_MIN_SHARE < item->tensors.bytes)
			continue;
		sketches++;
		if (is_smaller(ordering, item, sorted[i]))
			covered += common;
		if (covered * FOLLOWER_MIN_SHARE >= item->tensors.bytes)
			return true;
	}
	return false;
}

/* Finds out whether an item follows those before it; if not, those behind it will be compared with it. */
static void place(struct ordering *ordering, struct order_item *const *sorted, size_t number)
{
	struct order_item *item = sorted[number];

	item->follows = item->tensors.bytes && follows(ordering, sorted, number);
	item->keeps_looks = !item->follows && ordering->looks_bytes < LOOKS_MAX_BYTES;
	if (item->keeps_looks)
		ordering->looks_bytes += item->looks.bytes;
	else
		wcx_looks_free(&item->looks);
}

/* The entries of the run's items, for the comparison. */
static int compare_items(const void *a, const void *b, void *entries)
{
	const struct order_item *x = *(struct order_item *const *)a, *y = *(struct order_item *const *)b;
	const size_t *entry = entries;

	if (x->is_base != y->is_base)
		return x->is_base ? -1 : 1;
	return entry[x->item] < entry[y->item] ? -1 : entry[x->item] > entry[y->item];
}

/* Puts the followers behind the others; both stay in their order. */
static int reorder(struct ordering *ordering)
{
	struct wcx_tree_run *run = ordering->run;
	size_t *items = calloc(run->item_count, sizeof *items), count = 0;

	if (!items)
		return -ENOMEM;
	for (int follows = 0; follows < 2; follows++) {
		for (size_t i = 0; i < run->item_count; i++)
			if (ordering->items[i].follows == (follows != 0))
				items[count++] = run->items[i];
		if (!follows)
			run->first_count = count < run->item_count ? count : 0;
	}
	memcpy(run->items, items, run->item_count * sizeof *items);
	free(items);
	return 0;
}

int wcx_pack_order(struct wcx_tree_run *run)
{
	struct ordering ordering = { .run = run, .items = calloc(run->item_count + 1, sizeof *ordering.items) };
	struct order_item **sorted = calloc(run->item_count + 1, sizeof *sorted);
	int r = ordering.items && sorted ? read_cards(&ordering) : -ENOMEM;

	for (size_t i = 0; i < run->item_count && r == 0; i++) {
		ordering.items[i].item = i;
		sorted[i] = &ordering.items[i];
		r = wcx_command_stop ? -EINTR : read_item(&ordering, sorted[i]);
		if (r == 0)
			r = mark_base(&ordering, sorted[i]);
	}
	if (r == 0) {
		qsort_r(sorted, run->item_count, sizeof *sorted, compare_items, run->items);
		for (size_t i = 0; i < run->item_count && r == 0; i++) {
			place(&ordering, sorted, i);
			r = wcx_command_stop ? -EINTR : 0;
		}
	}
	if (r == 0)
		r = reorder(&ordering);
	for (size_t i = 0; ordering.items && i < run->item_count; i++) {
		free(ordering.items[i].tensors.keys);
		wcx_looks_free(&ordering.items[i].looks);
		wcx_safetensors_free(ordering.items[i].st);
	}
	free(ordering.items);
	free(ordering.cards);
	free(sorted);
	return r;
}
