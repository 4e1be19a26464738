/* SPDX-License-Identifier: MIT */
/* What wcx pack does with a file. */
#ifndef WCX_PACK_FILE_H
#define WCX_PACK_FILE_H

#include "tools/tree_run.h"

extern const struct wcx_tree_ops wcx_pack_ops;

#endif
