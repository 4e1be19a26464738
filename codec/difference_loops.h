/* SPDX-License-Identifier: MIT */
/*
 * Instantiates difference_template.h for the four element sizes.  Included once by each source that has a set of the loops;
 * those that it does not use leave no trace.
 */
#ifndef WCX_DIFFERENCE_LOOPS_H
#define WCX_DIFFERENCE_LOOPS_H

#include <stdbool.h>

#include "codec/difference.h"
#include "codec/inline.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "elements are read in the byte order of the file, which is little-endian"
#endif

#define LOOP WCX_INLINE

#define ELEM_BITS 8
#include "codec/difference_template.h"
#define ELEM_BITS 16
#include "codec/difference_template.h"
#define ELEM_BITS 32
#include "codec/difference_template.h"
#define ELEM_BITS 64
#include "codec/difference_template.h"

#undef LOOP

#endif
