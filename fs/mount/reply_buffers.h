/* SPDX-License-Identifier: MIT */
/*
 * Buffers for replies that one view of the tile cache does not cover.  Each serving thread has one at most; a few are kept
 * for the next.
 */
#ifndef WCX_REPLY_BUFFERS_H
#define WCX_REPLY_BUFFERS_H

#include <pthread.h>
#include <stddef.h>

enum { WCX_REPLY_BUFFERS_IDLE_MAX = 8 };

/* Safe from any number of threads. */
struct wcx_reply_buffers {
	size_t buffer_bytes;
	pthread_mutex_t lock; /* protects the rest */
	void *idle[WCX_REPLY_BUFFERS_IDLE_MAX];
	unsigned idle_count;
};

void wcx_reply_buffers_init(struct wcx_reply_buffers *buffers, size_t buffer_bytes);
void wcx_reply_buffers_destroy(struct wcx_reply_buffers *buffers); /* none may be taken */

/* wcx_reply_buffer_take - get a buffer of buffer_bytes, or NULL when out of memory; give back either */
void *wcx_reply_buffer_take(struct wcx_reply_buffers *buffers);
void wcx_reply_buffer_give_back(struct wcx_reply_buffers *buffers, void *buffer);

#endif
