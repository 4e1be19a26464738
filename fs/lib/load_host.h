/* SPDX-License-Identifier: MIT */
/* Executing a load into host memory: threads read, check and decode what the plan says, on the CPU. */
#ifndef WCX_LOAD_HOST_H
#define WCX_LOAD_HOST_H

#include "fs/lib/load_plan.h"
#include "fs/read/image.h"

/*
 * wcx_load_host_execute - load what a plan says; the dst of its spans are host addresses
 *
 * Tiles that are wanted whole and contiguous are decoded in place.  Each of thread_count threads has a scratch buffer of
 * WCX_CPU_BATCH_BYTES for other tiles, allocated when it is needed.  Returns when all threads have ended: 0, -EBADMSG (a
 * tile is damaged; err names it), -ENOMEM or the errno of a failed read.  After an error the bytes of the targets are
 * undefined.
 */
int wcx_load_host_execute(struct wcx_image *image, const struct wcx_load_plan *plan, unsigned thread_count,
			  struct wcx_error *err);

#endif
