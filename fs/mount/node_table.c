/* SPDX-License-Identifier: MIT */
/* Keeps the nodes that the kernel knows, and finds them by path. */
#include "fs/mount/node_table.h"

#include <errno.h>
#include <pthread.h>
#include <search.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "fs/base/clock.h"

/*
 * A tsearch(3) tree rather than a hash table: it is balanced, supports deletion, and needs no hash function or resizing.  In
 * a store of 100,000 files, a lookup's 17 string comparisons cost nothing compared with its system calls.
 */
struct wcx_node_table {
	pthread_mutex_t lock; /* protects everything below, and of every node all but path and generation */
	void *current;        /* by path: the node for what the last lookup found there */
	struct wcx_node *all; /* list of all nodes, superseded ones included */
	uint64_t node_count;  /* that there ever were */
};

/*
 * The kernel tries an open that is answered with ESTALE once more, at once: after looking up the path, if it came by a path.
 * So an open that comes again has done what it could: who has no path (a descriptor of /proc, a bind mount of the file) gets
 * what others have open, or else what is at the path now.
 */
enum {
	AGAIN_MS = 2000, /* in which it comes again, however busy the machine is */
	DROP_MS = 2000,  /* in which the kernel takes our reply and drops pages */
};

struct wcx_node {
	struct wcx_node *next, *prev;
	struct wcx_store_entry entry;
	uint64_t refused_ms; /* when an open was last answered with ESTALE */
	uint64_t changed_ms; /* when an open last found other bytes than the kernel's pages; 0: never */
	uint64_t resized_ms; /* when the size was last found to be another; 0: never */
	uint64_t lookup_count, generation;
	size_t pin_count, open_count;
	struct wcx_store_file *file;   /* of all who have it open */
	struct wcx_store_entry cached; /* what the kernel's pages are of, if it has any */
	bool is_current, has_pages;
	char path[];
};

/* The tree holds pointers to the nodes' paths, so that any string can be a key. */
static int compare_paths(const void *a, const void *b)
{
	return strcmp(a, b);
}

static struct wcx_node *node_of_path(char *path)
{
	return (struct wcx_node *)(void *)(path - offsetof(struct wcx_node, path));
}

static bool is_same(const struct wcx_store_entry *a, const struct wcx_store_entry *b)
{
	return a->packed == b->packed && (a->attr.st_mode & S_IFMT) == (b->attr.st_mode & S_IFMT) &&
	       !wcx_file_id_compare(&a->id, &b->id);
}

/*
 * Whether a node may stand for another file from now on.  It does if it can: overlayfs and bind mounts cannot go on to a new
 * node.  The text of a link is cached by the kernel as long as the node lives.
 */
static bool may_become_unpinned(const struct wcx_node *node, const struct wcx_store_entry *entry)
{
	return !node->open_count && !S_ISLNK(entry->attr.st_mode) &&
	       (node->entry.attr.st_mode & S_IFMT) == (entry->attr.st_mode & S_IFMT);
}

static bool may_become(const struct wcx_node *node, const struct wcx_store_entry *entry)
{
	return !node->pin_count && may_become_unpinned(node, entry);
}

/*
 * The kernel may know an old size of a file for a second, or until it has our reply, and cuts off there what it reads.  So
 * those who open the file soon after have it ask for the size.
 */
static void set_entry(struct wcx_node *node, const struct wcx_store_entry *entry)
{
	if (S_ISREG(entry->attr.st_mode) && node->entry.attr.st_size != entry->attr.st_size)
		node->resized_ms = wcx_now_ms();
	node->entry = *entry;
}

static struct wcx_node *node_create(struct wcx_node_table *table, const char *path)
{
	size_t path_bytes = strlen(path) + 1;
	struct wcx_node *node = malloc(sizeof *node + path_bytes);

	if (!node)
		return NULL;
	memcpy(node->path, path, path_bytes);
	if (!tsearch(node->path, &table->current, compare_paths)) {
		free(node);
		return NULL;
	}
	memset(node, 0, offsetof(struct wcx_node, path));
	node->generation = ++table->node_count;
	node->is_current = true;
	node->next = table->all;
	if (node->next)
		node->next->prev = node;
	table->all = node;
	return node;
}

static void supersede(struct wcx_node_table *table, struct wcx_node *node)
{
	tdelete(node->path, &table->current, compare_paths);
	node->is_current = false;
}

static void node_free(struct wcx_node_table *table, struct wcx_node *node)
{
	if (node->is_current)
		supersede(table, node);
	if (node->next)
		node->next->prev = node->prev;
	if (node->prev)
		node->prev->next = node->next;
	else
		table->all = node->next;
	free(node);
}

struct wcx_node_table *wcx_node_table_create(void)
{
	struct wcx_node_table *table = calloc(1, sizeof *table);

	if (table)
		pthread_mutex_init(&table->lock, NULL);
	return table;
}

void wcx_node_table_free(struct wcx_node_table *table)
{
	if (!table)
		return;
	while (table->all)
		node_free(table, table->all);
	pthread_mutex_destroy(&table->lock);
	free(table);
}

struct wcx_node *wcx_node_take(struct wcx_node_table *table, const char *path, const struct wcx_store_entry *entry)
{
	struct wcx_node *node = NULL;
	void *found;

	pthread_mutex_lock(&table->lock);
	found = tfind(path, &table->current, compare_paths);
	if (found) {
		node = node_of_path(*(char **)found);
		if (!is_same(&node->entry, entry) && !may_become(node, entry)) {
			supersede(table, node);
			node = NULL;
		}
	}
	if (node) {
		set_entry(node, entry);
	} else {
		node = node_create(table, path);
		if (node)
			node->entry = *entry;
	}
	if (node)
		node->lookup_count++;
	pthread_mutex_unlock(&table->lock);
	return node;
}

void wcx_node_drop(struct wcx_node_table *table, struct wcx_node *node, uint64_t count)
{
	pthread_mutex_lock(&table->lock);
	node->lookup_count -= count;
	if (node->lookup_count == 0)
		node_free(table, node);
	pthread_mutex_unlock(&table->lock);
}

void wcx_node_pin(struct wcx_node_table *table, struct wcx_node *node)
{
	pthread_mutex_lock(&table->lock);
	node->lookup_count++;
	node->pin_count++;
	pthread_mutex_unlock(&table->lock);
}

void wcx_node_unpin(struct wcx_node_table *table, struct wcx_node *node)
{
	pthread_mutex_lock(&table->lock);
	node->pin_count--;
	pthread_mutex_unlock(&table->lock);
	wcx_node_drop(table, node, 1);
}

uint64_t wcx_node_generation(const struct wcx_node *node)
{
	return node->generation;
}

const char *wcx_node_path(const struct wcx_node *node)
{
	return node->path;
}

void wcx_node_entry(struct wcx_node_table *table, struct wcx_node *node, struct wcx_store_entry *ret)
{
	pthread_mutex_lock(&table->lock);
	*ret = node->entry;
	pthread_mutex_unlock(&table->lock);
}

int wcx_node_update(struct wcx_node_table *table, struct wcx_node *node, const struct wcx_store_entry *now,
		    struct wcx_store_entry *ret)
{
	int r = 0;

	pthread_mutex_lock(&table->lock);
	if (now && (is_same(&node->entry, now) || may_become(node, now))) {
		set_entry(node, now);
	} else if (node->open_count || node->pin_count) {
		r = now && may_become_unpinned(node, now) ? -EAGAIN : 0;
		node->entry.attr.st_nlink = 0; /* as of a file that is open and has no name any more */
	} else {
		r = -ESTALE;
	}
	*ret = node->entry;
	pthread_mutex_unlock(&table->lock);
	return r;
}

/* Whether an open that is not as it should be is refused: the first time. */
static bool refuse(struct wcx_node *node)
{
	const uint64_t now_ms = wcx_now_ms();

	if (now_ms - node->refused_ms < AGAIN_MS)
		return false;
	node->refused_ms = now_ms;
	return true;
}

/* Whether what decides on access is as it was, but for ACLs. */
static bool has_same_access(const struct wcx_store_entry *a, const struct wcx_store_entry *b)
{
	return a->attr.st_mode == b->attr.st_mode && a->attr.st_uid == b->attr.st_uid && a->attr.st_gid == b->attr.st_gid;
}

/*
 * The kernel has decided on access by what it was told of the node, which may be a second old.  So nothing is opened that
 * has other permissions: the kernel has to ask first, and the node then stands for what was found.
 */
static int open_locked(struct wcx_node *node, const struct wcx_store_entry *now, struct wcx_store_file **file,
		       struct wcx_store_file **unused_ret, bool *keep_cache_ret, bool *keep_size_ret)
{
	const bool has_access = now && has_same_access(&node->entry, now);
	bool is_there = now && is_same(&node->entry, now);

	*unused_ret = NULL;
	if (!is_there && has_access && node->is_current && may_become(node, now)) { /* replaced since it was looked up */
		set_entry(node, now);
		is_there = true;
	}
	if ((!is_there || !node->is_current) && refuse(node))
		return -ESTALE;
	if (!has_access && (is_there || !node->open_count)) {
		node->refused_ms = wcx_now_ms();
		return -ESTALE;
	}
	if (!is_there && !node->open_count) {
		if (may_become_unpinned(node, now) && node->pin_count)
			return -EAGAIN;
		if (!may_become(node, now))
			return -ESTALE;
		set_entry(node, now);
		is_there = true;
	}
	if (node->open_count) {
		*unused_ret = *file;
		*file = node->file;
	} else {
		node->file = *file;
	}
	node->open_count++;
	if (is_there && node->has_pages &&
	    (!is_same(&node->cached, now) || (!now->packed && !wcx_file_is_unchanged(&node->cached.attr, &now->attr))))
		node->changed_ms = wcx_now_ms();
	/* Who opens it first has the kernel drop the pages after our reply; who opens it next, or shares it, may be faster.
	 */
	*keep_cache_ret = !node->changed_ms || wcx_now_ms() - node->changed_ms > DROP_MS;
	if (is_there) {
		set_entry(node, now);
		node->cached = *now;
		node->has_pages = true;
	}
	*keep_size_ret = !node->resized_ms || wcx_now_ms() - node->resized_ms > DROP_MS;
	return 0;
}

int wcx_node_open(struct wcx_node_table *table, struct wcx_node *node, const struct wcx_store_entry *now,
		  struct wcx_store_file **file, struct wcx_store_file **unused_ret, bool *keep_cache_ret,
		  bool *keep_size_ret)
{
	int r;

	pthread_mutex_lock(&table->lock);
	r = open_locked(node, now, file, unused_ret, keep_cache_ret, keep_size_ret);
	pthread_mutex_unlock(&table->lock);
	return r;
}

struct wcx_store_file *wcx_node_reopen(struct wcx_node_table *table, struct wcx_node *node)
{
	struct wcx_store_file *file;

	pthread_mutex_lock(&table->lock);
	file = node->file;
	node->open_count += file != NULL;
	pthread_mutex_unlock(&table->lock);
	return file;
}

struct wcx_store_file *wcx_node_close(struct wcx_node_table *table, struct wcx_node *node)
{
	struct wcx_store_file *file = NULL;

	pthread_mutex_lock(&table->lock);
	if (--node->open_count == 0) {
		file = node->file;
		node->file = NULL;
	}
	pthread_mutex_unlock(&table->lock);
	return file;
}
