/* SPDX-License-Identifier: MIT */
/* In which order the files of a tree are packed, so that bases are there before what may be packed against them. */
#ifndef WCX_PACK_ORDER_H
#define WCX_PACK_ORDER_H

#include "tools/tree_run.h"

/*
 * wcx_pack_order - put files that others may be packed against in front of the items, and set run->first_count
 *
 * A file follows others if half of its bytes are in tensors that these have too, by name, dtype and shape, and samples show
 * that it is smaller against them.  Of such files the first in the tree goes ahead, but before it those that a model card
 * calls the base of another.  Reads the headers of all safetensors files of the tree.  Returns 0, -EINTR or -ENOMEM.
 */
int wcx_pack_order(struct wcx_tree_run *run);

#endif
