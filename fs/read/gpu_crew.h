/* SPDX-License-Identifier: MIT */
/*
 * Threads that finish what a GPU was given, so that nobody else has to wait for it.
 *
 * One of them sleeps until the work that was added first is done, and finishes it.  If that takes long, another one sleeps
 * for the next meanwhile.  So a single thread sleeps, however much is under way.
 */
#ifndef WCX_GPU_CREW_H
#define WCX_GPU_CREW_H

#include <stdbool.h>
#include <sys/queue.h>

struct wcx_gpu_crew;

/* Embedded in what it stands for.  The caller sets the first two. */
struct wcx_gpu_work {
	bool (*sleep)(struct wcx_gpu_work *work);  /* until the GPU has done it; returns whether finishing takes long */
	void (*finish)(struct wcx_gpu_work *work); /* after which it is the caller's again; must wait for the GPU alone */
	STAILQ_ENTRY(wcx_gpu_work) link;
};

/* wcx_gpu_crew_create - start the threads, or as many as the system allows; NULL if that is none, or without memory */
struct wcx_gpu_crew *wcx_gpu_crew_create(unsigned threads);
void wcx_gpu_crew_free(struct wcx_gpu_crew *crew); /* NULL is fine; all work must be finished */

/* wcx_gpu_crew_add - have work finished that the GPU has begun; by any thread */
void wcx_gpu_crew_add(struct wcx_gpu_crew *crew, struct wcx_gpu_work *work);

#endif
