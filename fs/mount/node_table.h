/* SPDX-License-Identifier: MIT */
/*
 * Nodes: what the kernel knows by number, alive while the kernel counts lookups of it.
 *
 * A node stands for the file at its path.  If another file appears there while the node is open, the path gets a new node.
 * The old node keeps standing for the old file until it is closed, and then for whatever is at its path: those who never
 * look up the path again, such as a bind mount of one file, still use it.  Callers tell of another file only if all who have
 * the node may be led there.
 *
 * A node holds one open file for all who have it open, and no descriptor otherwise.  The pages that the kernel keeps for a
 * node belong to the file that it stood for when it was opened last; the table knows whether they are still right.
 *
 * All functions are safe from any number of threads; none does I/O.
 */
#ifndef WCX_NODE_TABLE_H
#define WCX_NODE_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/mount/store.h"

struct wcx_node_table;
struct wcx_node;

struct wcx_node_table *wcx_node_table_create(void);     /* NULL when out of memory */
void wcx_node_table_free(struct wcx_node_table *table); /* frees all nodes, counted or not; NULL is fine */

/*
 * wcx_node_take - get the node of a path and count a lookup of it
 *
 * entry is what is there now.  Returns NULL when out of memory.
 */
struct wcx_node *wcx_node_take(struct wcx_node_table *table, const char *path, const struct wcx_store_entry *entry);

/* wcx_node_drop - uncount lookups; frees the node after the last one */
void wcx_node_drop(struct wcx_node_table *table, struct wcx_node *node, uint64_t count);

/* wcx_node_pin, wcx_node_unpin - count a lookup, and have the node stand for the same file meanwhile */
void wcx_node_pin(struct wcx_node_table *table, struct wcx_node *node);
void wcx_node_unpin(struct wcx_node_table *table, struct wcx_node *node);

const char *wcx_node_path(const struct wcx_node *node);    /* lives as long as the node */
uint64_t wcx_node_generation(const struct wcx_node *node); /* no two nodes have the same, ever */
void wcx_node_entry(struct wcx_node_table *table, struct wcx_node *node, struct wcx_store_entry *ret);

/*
 * wcx_node_update - tell what is at a node's path now
 *
 * now is NULL if nothing is there.  *ret becomes what the node stands for, without links if that is not there but open or
 * pinned.  Returns 0; -EAGAIN if it will stand for what is there as soon as it is unpinned; or -ESTALE if what it stands for
 * is gone, and neither open nor pinned.
 */
int wcx_node_update(struct wcx_node_table *table, struct wcx_node *node, const struct wcx_store_entry *now,
		    struct wcx_store_entry *ret);

/*
 * wcx_node_open - count an open of a node
 *
 * *file was opened at the node's path just now and found to be now; NULL if there is nothing to open.  If others have the
 * node open, *file becomes theirs, and what the caller brought is put into *unused_ret for the caller to close; otherwise
 * the node takes *file.  *keep_cache_ret: the pages that the kernel has are right.  *keep_size_ret: the size that it has is,
 * too; otherwise it has to ask for the attributes before it reads.
 *
 * Returns 0; -ESTALE if the kernel has to look the path up, or ask for the attributes, first: the path holds another file
 * and the node's is open, or what is there has other permissions than were told; or -EAGAIN as wcx_node_update does.
 */
int wcx_node_open(struct wcx_node_table *table, struct wcx_node *node, const struct wcx_store_entry *now,
		  struct wcx_store_file **file, struct wcx_store_file **unused_ret, bool *keep_cache_ret,
		  bool *keep_size_ret);

/* wcx_node_reopen - count another open of a node that is open; returns its file, or NULL if it is not open */
struct wcx_store_file *wcx_node_reopen(struct wcx_node_table *table, struct wcx_node *node);

/* wcx_node_close - uncount an open; returns the file for the caller to close after the last one, else NULL */
struct wcx_store_file *wcx_node_close(struct wcx_node_table *table, struct wcx_node *node);

#endif
