/* SPDX-License-Identifier: MIT */
/*
 * The SHA-256 of a file, computed by a thread of its own from the blocks that are packed.
 *
 * A block is read once: packing takes an empty buffer, fills it, and puts it in the queue when all blocks before it are
 * there.  The thread hashes blocks in that order and gives the buffers back.  The queue is deep enough to keep the thread
 * busy while the packer has no block for it, and bounds the memory: a packer that is ahead by all buffers waits.
 */
#ifndef WCX_DIGEST_QUEUE_H
#define WCX_DIGEST_QUEUE_H

#include <stddef.h>
#include <stdint.h>

#include "fs/format/container.h"

enum { WCX_DIGEST_BLOCK_BYTES = 1 << 20 };

struct wcx_digest_queue;

/*
 * wcx_digest_queue_create - create the queue for a file of total_bytes that thread_count threads pack
 *
 * With one thread, or when none can be started, blocks are hashed by who puts them.  Returns NULL if there is no memory.
 */
struct wcx_digest_queue *wcx_digest_queue_create(unsigned thread_count, uint64_t total_bytes);
void wcx_digest_queue_free(struct wcx_digest_queue *queue); /* NULL is fine; all buffers must have been put or returned */

/*
 * wcx_digest_queue_take - an empty buffer of WCX_DIGEST_BLOCK_BYTES; waits for one
 *
 * A thread may hold two at a time if no more than thread_count + 1 are held in all.
 */
uint8_t *wcx_digest_queue_take(struct wcx_digest_queue *queue);
void wcx_digest_queue_return(struct wcx_digest_queue *queue, uint8_t *buffer); /* unused */

/* wcx_digest_queue_put - add the next bytes of the file; one call at a time.  The buffer is the queue's again. */
void wcx_digest_queue_put(struct wcx_digest_queue *queue, uint8_t *buffer, size_t bytes);

/* wcx_digest_queue_finish - the SHA-256 of all that was put, which it waits for; 0, or -ENOMEM.  Nothing may be put after.
 */
int wcx_digest_queue_finish(struct wcx_digest_queue *queue, uint8_t sha256[WCX_SHA256_BYTES]);

#endif
