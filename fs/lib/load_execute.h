/* SPDX-License-Identifier: MIT */
/* Executing a load: threads read packed bytes, and two GPU queues each take turns at copying and decoding them. */
#ifndef WCX_LOAD_EXECUTE_H
#define WCX_LOAD_EXECUTE_H

#include "fs/lib/load_plan.h"
#include "fs/read/decoder.h"
#include "fs/read/image.h"

enum { WCX_LOADER_QUEUES = 2 }; /* for each thread: it fills one while the GPU tasks on the other */

struct wcx_loader {
	struct wcx_gpu_loader *gpu;
	int device; /* CUDA's number of the GPU */
	unsigned thread_count;
	struct wcx_load_batch *batches; /* one for each queue: what is being filled, or in flight */
	unsigned *turns;                /* one for each thread: batches that it has begun */
};

/*
 * wcx_load_execute - do what a plan says
 *
 * plan is for image's container; decoder restores the literals.  Work that is in stream, a cudaStream_t, when this is called
 * comes first on the GPU.  Returns 0 when all bytes are in place; otherwise -EBADMSG, -EIO, -ENOMEM or the errno of a failed
 * read, as wcx_load does.  In either case nothing is in flight afterwards.  A loader is for one thread at a time.
 */
int wcx_load_execute(struct wcx_loader *loader, struct wcx_image *image, struct wcx_decoder *decoder,
		     const struct wcx_load_plan *plan, void *stream, struct wcx_error *err);

#endif
