/* SPDX-License-Identifier: MIT */
/*
 * Closes what belongs to the store on a thread of its own.
 *
 * For a descriptor that is closed, some file systems ask their server (FUSE, 9P), which may not answer.  A thread that
 * receives requests must not wait for that: nobody waits for the closing, so no timeout would end it.
 *
 * All functions are safe from any thread.
 */
#ifndef WCX_CLOSER_H
#define WCX_CLOSER_H

#include <sys/queue.h>

struct wcx_closer;

/* Embedded in what is closed. */
struct wcx_closing {
	void (*close)(struct wcx_closing *closing); /* frees it, too */
	STAILQ_ENTRY(wcx_closing) link;
};

struct wcx_closer *wcx_closer_create(void);      /* NULL when out of memory */
void wcx_closer_free(struct wcx_closer *closer); /* when all has been closed, for which it waits; NULL is fine */

/* wcx_closer_give - have something closed soon; at once, if no thread can be created */
void wcx_closer_give(struct wcx_closer *closer, struct wcx_closing *closing);

#endif
