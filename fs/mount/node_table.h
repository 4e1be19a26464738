/* SPDX-License-Identifier: MIT */
/*
 * Nodes: what a kernel knows by number, one for each path and state of the file there, alive for as long as the kernel
 * counts look-ups of it.  A path whose file was replaced gets a new node; the old one goes on standing for the old file.
 *
 * A node holds no descriptor, only its path and what was found there.  All functions are safe from any number of threads.
 */
#ifndef WCX_NODE_TABLE_H
#define WCX_NODE_TABLE_H

#include <stdint.h>

#include "fs/mount/store.h"

struct wcx_node_table;
struct wcx_node;

struct wcx_node_table *wcx_node_table_create(void);     /* NULL when there is no memory */
void wcx_node_table_free(struct wcx_node_table *table); /* frees all nodes, counted or not; NULL is fine */

/*
 * wcx_node_take - the node of a path, counted once more
 *
 * entry is what is there now: a node in another state is left behind for those who still know it, a node in the same state
 * gets its attributes.  Returns NULL when there is no memory.
 */
struct wcx_node *wcx_node_take(struct wcx_node_table *table, const char *path, const struct wcx_store_entry *entry);

/* wcx_node_keep - count a node once more that the caller knows to be alive */
void wcx_node_keep(struct wcx_node_table *table, struct wcx_node *node);

/* wcx_node_drop - take back count look-ups; the node is gone after the last one */
void wcx_node_drop(struct wcx_node_table *table, struct wcx_node *node, uint64_t count);

const char *wcx_node_path(const struct wcx_node *node); /* lives as long as the node */
void wcx_node_entry(struct wcx_node_table *table, struct wcx_node *node, struct wcx_store_entry *ret);

#endif
