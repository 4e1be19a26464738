/* SPDX-License-Identifier: MIT */
/*
 * The nodes (inodes) that the kernel knows: one per path and state of the file there.  A node lives as long as the kernel,
 * or the daemon, counts lookups of it.  If a path's file is replaced, the path gets a new node; the old node keeps standing
 * for the old file.
 *
 * A node holds no descriptor, only its path and what the lookup found.  All functions are safe from any number of threads.
 */
#ifndef WCX_NODE_TABLE_H
#define WCX_NODE_TABLE_H

#include <stdint.h>

#include "fs/mount/store.h"

struct wcx_node_table;
struct wcx_node;

struct wcx_node_table *wcx_node_table_create(void);     /* NULL when out of memory */
void wcx_node_table_free(struct wcx_node_table *table); /* frees all nodes, whatever their counts; NULL is fine */

/*
 * wcx_node_take - get the node of a path, and count a lookup of it
 *
 * entry is what the lookup found.  A node for the same file state gets the new attributes; for another state, the path gets
 * a new node.  Returns NULL when out of memory.
 */
struct wcx_node *wcx_node_take(struct wcx_node_table *table, const char *path, const struct wcx_store_entry *entry);

/* wcx_node_keep - count one more lookup of a node that the caller knows to be alive */
void wcx_node_keep(struct wcx_node_table *table, struct wcx_node *node);

/* wcx_node_drop - take back count lookups; the last one frees the node */
void wcx_node_drop(struct wcx_node_table *table, struct wcx_node *node, uint64_t count);

const char *wcx_node_path(const struct wcx_node *node); /* valid as long as the node */
void wcx_node_entry(struct wcx_node_table *table, struct wcx_node *node, struct wcx_store_entry *ret);

#endif
