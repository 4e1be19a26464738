/* SPDX-License-Identifier: MIT */
/* Lends a few buffers for replies. */
#include "fs/mount/reply_buffers.h"

#include <stdlib.h>

enum { PAGE_BYTES = 4096 };

void wcx_reply_buffers_init(struct wcx_reply_buffers *buffers, size_t buffer_bytes)
{
	*buffers = (struct wcx_reply_buffers){ .buffer_bytes = buffer_bytes };
	pthread_mutex_init(&buffers->lock, NULL);
}

void wcx_reply_buffers_destroy(struct wcx_reply_buffers *buffers)
{
	while (buffers->idle_count)
		free(buffers->idle[--buffers->idle_count]);
	pthread_mutex_destroy(&buffers->lock);
}

void *wcx_reply_buffer_take(struct wcx_reply_buffers *buffers)
{
	void *buffer = NULL;

	pthread_mutex_lock(&buffers->lock);
	if (buffers->idle_count)
		buffer = buffers->idle[--buffers->idle_count];
	pthread_mutex_unlock(&buffers->lock);
	return buffer ? buffer : aligned_alloc(PAGE_BYTES, buffers->buffer_bytes);
}

void wcx_reply_buffer_give_back(struct wcx_reply_buffers *buffers, void *buffer)
{
	pthread_mutex_lock(&buffers->lock);
	if (buffer && buffers->idle_count < WCX_REPLY_BUFFERS_IDLE_MAX) {
		buffers->idle[buffers->idle_count++] = buffer;
		buffer = NULL;
	}
	pthread_mutex_unlock(&buffers->lock);
	free(buffer);
}
