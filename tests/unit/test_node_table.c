/* SPDX-License-Identifier: MIT */
/* What an open of a node gets when another file has taken its path, while it is open, closed or pinned. */
#include <errno.h>
#include <sys/stat.h>

#include "codec/arith.h"
#include "fs/mount/node_table.h"
#include "tests/unit/check.h"

/* A packed file of some size, told from others by its inode number. */
static struct wcx_store_entry entry_of(ino_t ino, off_t bytes)
{
	struct wcx_store_entry entry = { .packed = true };

	entry.attr.st_mode = S_IFREG | 0444;
	entry.attr.st_ino = ino;
	entry.attr.st_size = bytes;
	entry.id = (struct wcx_file_id){ .dev = 1, .ino = ino };
	return entry;
}

/* The table only hands files out again, so any address will do for one. */
static struct wcx_store_file *file_of(ino_t ino)
{
	static char files[8];

	return (struct wcx_store_file *)(void *)&files[ino];
}

struct opened {
	struct wcx_store_file *file, *unused;
	bool keep_cache, keep_size;
	int r;
};

/* Opens a node whose path holds file number ino. */
static struct opened open_at(struct wcx_node_table *table, struct wcx_node *node, ino_t ino)
{
	const struct wcx_store_entry now = entry_of(ino, 1000 * (off_t)ino);
	struct opened opened = { .file = file_of(ino) };

	opened.r = wcx_node_open(table, node, &now, &opened.file, &opened.unused, &opened.keep_cache, &opened.keep_size);
	return opened;
}

static struct wcx_node *take(struct wcx_node_table *table, ino_t ino)
{
	const struct wcx_store_entry entry = entry_of(ino, 1000 * (off_t)ino);

	return wcx_node_take(table, "/model", &entry);
}

static void a_closed_node_becomes_what_is_at_its_path(void)
{
	struct wcx_node_table *table = wcx_node_table_create();
	struct wcx_node *node = take(table, 1);
	struct opened opened = open_at(table, node, 1);

	CHECK(opened.r == 0 && opened.file == file_of(1) && opened.keep_size);
	CHECK(wcx_node_close(table, node) == file_of(1));
	opened = open_at(table, node, 2);
	CHECK(opened.r == 0 && opened.file == file_of(2) && !opened.keep_cache && !opened.keep_size);
	CHECK(wcx_node_close(table, node) == file_of(2));
	wcx_node_table_free(table);
}

/* The kernel would decide by those of before. */
static void what_has_other_permissions_is_not_opened_before_they_are_told(void)
{
	for (ino_t ino = 1; ino <= 2; ino++) { /* the same file, or one that has replaced it */
		struct wcx_node_table *table = wcx_node_table_create();
		struct wcx_store_entry now = entry_of(ino, 1000), shown;
		struct wcx_node *node = take(table, 1);
		struct wcx_store_file *file, *unused;
		bool keep_cache, keep_size;

		now.attr.st_mode = S_IFREG | 0400;
		for (int i = 0; i < 3; i++) {
			file = file_of(ino);
			CHECK(wcx_node_open(table, node, &now, &file, &unused, &keep_cache, &keep_size) == -ESTALE);
		}
		CHECK(wcx_node_update(table, node, &now, &shown) == 0 && shown.attr.st_mode == now.attr.st_mode);
		CHECK(wcx_node_open(table, node, &now, &file, &unused, &keep_cache, &keep_size) == 0);
		CHECK(file == file_of(ino) && wcx_node_close(table, node) == file);
		wcx_node_table_free(table);
	}
}

static void an_open_node_keeps_its_file_for_those_who_come_again(void)
{
	struct wcx_node_table *table = wcx_node_table_create();
	struct wcx_node *node = take(table, 1);
	struct opened opened = open_at(table, node, 1);

	CHECK(opened.r == 0);
	CHECK(open_at(table, node, 2).r == -ESTALE);
	opened = open_at(table, node, 2);
	CHECK(opened.r == 0 && opened.file == file_of(1) && opened.unused == file_of(2));
	CHECK(wcx_node_close(table, node) == NULL);
	CHECK(wcx_node_close(table, node) == file_of(1));
	wcx_node_table_free(table);
}

/* The kernel may not have dropped the old pages yet, when it has the reply to the second. */
static void who_shares_a_file_that_was_just_replaced_does_not_keep_old_pages(void)
{
	struct wcx_node_table *table = wcx_node_table_create();
	struct wcx_node *node = take(table, 1);
	struct opened opened = open_at(table, node, 1);

	CHECK(opened.r == 0 && wcx_node_close(table, node) == file_of(1));
	opened = open_at(table, node, 2);
	CHECK(opened.r == 0 && !opened.keep_cache);
	CHECK(open_at(table, node, 3).r == -ESTALE);
	opened = open_at(table, node, 3);
	CHECK(opened.r == 0 && opened.file == file_of(2) && !opened.keep_cache);
	CHECK(wcx_node_close(table, node) == NULL);
	CHECK(wcx_node_close(table, node) == file_of(2));
	wcx_node_table_free(table);
}

/* Pages of the old file may still be pushed to it: it waits for the end of that, and is not given up. */
static void a_pinned_node_becomes_another_file_once_it_is_unpinned(void)
{
	struct wcx_node_table *table = wcx_node_table_create();
	struct wcx_node *node = take(table, 1);
	struct opened opened = open_at(table, node, 1);

	CHECK(opened.r == 0);
	wcx_node_pin(table, node);
	CHECK(wcx_node_close(table, node) == file_of(1));
	CHECK(open_at(table, node, 2).r == -ESTALE);
	CHECK(open_at(table, node, 2).r == -EAGAIN);
	CHECK(open_at(table, node, 2).r == -EAGAIN);
	wcx_node_unpin(table, node);
	opened = open_at(table, node, 2);
	CHECK(opened.r == 0 && opened.file == file_of(2) && !opened.keep_cache && !opened.keep_size);
	CHECK(wcx_node_close(table, node) == file_of(2));
	wcx_node_table_free(table);
}

/* Who looks the path up gets the new file at once, by a new node. */
static void a_lookup_does_not_wait_for_a_pinned_node(void)
{
	struct wcx_node_table *table = wcx_node_table_create();
	struct wcx_node *node = take(table, 1), *next;

	wcx_node_pin(table, node);
	next = take(table, 2);
	CHECK(next && next != node);
	CHECK(open_at(table, next, 2).r == 0);
	CHECK(wcx_node_close(table, next) == file_of(2));
	wcx_node_unpin(table, node);
	wcx_node_table_free(table);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(a_closed_node_becomes_what_is_at_its_path),
		CHECK_TEST(what_has_other_permissions_is_not_opened_before_they_are_told),
		CHECK_TEST(an_open_node_keeps_its_file_for_those_who_come_again),
		CHECK_TEST(who_shares_a_file_that_was_just_replaced_does_not_keep_old_pages),
		CHECK_TEST(a_pinned_node_becomes_another_file_once_it_is_unpinned),
		CHECK_TEST(a_lookup_does_not_wait_for_a_pinned_node),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
