/* SPDX-License-Identifier: MIT */
/* Executing a load: threads fill pinned buffers with packed tiles, which GPU queues copy and decode. */
#ifndef WCX_LOAD_EXECUTE_H
#define WCX_LOAD_EXECUTE_H

#include "fs/lib/load_plan.h"
#include "fs/read/image.h"

/* For each thread: it fills one while the GPU copies from the others, or decodes. */
enum {
	WCX_LOADER_BUFFERS = 2,
	WCX_LOADER_QUEUES = 2,
};

/* What a thread of a loader is at. */
struct wcx_load_worker {
	unsigned buffer_turns, queue_turns; /* buffers and queues that it has begun to use */
	bool has_batch;                     /* the batch of its latest queue is not submitted yet */
};

struct wcx_loader {
	struct wcx_gpu_loader *gpu;
	int device; /* CUDA's number of the GPU */
	unsigned thread_count;
	struct wcx_load_batch *batches; /* one for each queue: what is being filled, or in flight */
	struct wcx_load_worker *workers;
};

/* wcx_loader_pinned_bytes - memory of a queue when this file is loaded, pinned, for wcx_load_plan_make */
size_t wcx_loader_pinned_bytes(const struct wcx_loader *loader, const struct wcx_container *container);

/*
 * wcx_load_execute - do what a plan says
 *
 * plan is for image's container; image restores the literals.  pinned is the packed file in pinned memory, whose tiles
 * were checked, if the plan is for that; otherwise NULL, and the file is read.  Work that is in stream, a cudaStream_t, when
 * this is called comes first on the GPU.  Returns 0 when all bytes are in place; otherwise -EBADMSG, -EIO, -ENOMEM or the
 * errno of a failed read, as wcx_load does.  In either case nothing is in flight afterwards.  A loader is for one thread at
 * a time.
 */
int wcx_load_execute(struct wcx_loader *loader, struct wcx_image *image, const struct wcx_load_plan *plan,
		     const uint8_t *pinned, void *stream, struct wcx_error *err);

#endif
