/* SPDX-License-Identifier: MIT */
/* What wcx unpack does with a file. */
#ifndef WCX_UNPACK_FILE_H
#define WCX_UNPACK_FILE_H

#include "tools/tree_run.h"

extern const struct wcx_tree_ops wcx_unpack_ops;

#endif
