/* SPDX-License-Identifier: MIT */
/* Keeps the nodes that the kernel knows, and finds them by path. */
#include "fs/mount/node_table.h"

#include <pthread.h>
#include <search.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/*
 * A tsearch(3) tree rather than a hash table: it is balanced, supports deletion, and needs no hash function or resizing.  In
 * a store of 100,000 files, a lookup's 17 string comparisons cost nothing compared with its system calls.
 */
struct wcx_node_table {
	pthread_mutex_t lock; /* protects the tree, the list, and every node's entry, lookup count and links */
	void *current;        /* by path: the node for what the last lookup found there */
	struct wcx_node *all; /* list of all nodes, superseded ones included */
};

struct wcx_node {
	struct wcx_node *next, *prev;
	struct wcx_store_entry entry;
	uint64_t lookup_count;
	bool is_current;
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
	node->is_current = true;
	node->prev = NULL;
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
		if (node->entry.packed != entry->packed || wcx_file_id_compare(&node->entry.id, &entry->id)) {
			supersede(table, node);
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
