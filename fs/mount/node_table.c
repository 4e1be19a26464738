/* SPDX-License-Identifier: MIT */
/* Keeps the nodes that a kernel knows, found by path. */
#include "fs/mount/node_table.h"

#include <pthread.h>
#include <search.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/*
 * A tree of tsearch(3) rather than a hash table: it is balanced, takes back nodes, needs neither a hash function nor
 * resizing, and 17 string comparisons in a store of 100,000 files are nothing beside the system calls of a look-up.
 */
struct wcx_node_table {
	pthread_mutex_t lock; /* protects the tree, the list, and every node's entry, look-ups and links */
	void *current;        /* by path: nodes that stand for what was last found there */
	struct wcx_node *all; /* list of all nodes, those left behind included */
};

struct wcx_node {
	struct wcx_node *next, *prev;
	struct wcx_store_entry entry;
	uint64_t lookup_count;
	int is_current;
	char path[];
};

/* The tree holds pointers to the nodes' paths, so a plain string will do as a key. */
static int compare_paths(const void *a, const void *b)
{
	return strcmp(a, b);
}

static struct wcx_node *node_of_path(char *path)
{
	return (struct wcx_node *)(void *)(path - offsetof(struct wcx_node, path));
}

static struct wcx_node *node_create(struct wcx_node_table *table, const char *path, const struct wcx_store_entry *entry)
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
	node->entry = *entry;
	node->lookup_count = 0;
	node->is_current = 1;
	node->prev = NULL;
	node->next = table->all;
	if (node->next)
		node->next->prev = node;
	table->all = node;
	return node;
}

static void leave_behind(struct wcx_node_table *table, struct wcx_node *node)
{
	tdelete(node->path, &table->current, compare_paths);
	node->is_current = 0;
}

static void node_free(struct wcx_node_table *table, struct wcx_node *node)
{
	if (node->is_current)
		leave_behind(table, node);
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
		if (node->entry.packed != entry->packed || wcx_file_id_compare(&node->entry.id, &entry->id)) {
			leave_behind(table, node);
			node = NULL;
		} else {
			node->entry = *entry;
		}
	}
	if (!node)
		node = node_create(table, path, entry);
	if (node)
		node->lookup_count++;
	pthread_mutex_unlock(&table->lock);
	return node;
}

void wcx_node_keep(struct wcx_node_table *table, struct wcx_node *node)
{
	pthread_mutex_lock(&table->lock);
	node->lookup_count++;
	pthread_mutex_unlock(&table->lock);
}

void wcx_node_drop(struct wcx_node_table *table, struct wcx_node *node, uint64_t count)
{
	pthread_mutex_lock(&table->lock);
	node->lookup_count -= count;
	if (node->lookup_count == 0)
		node_free(table, node);
	pthread_mutex_unlock(&table->lock);
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
