/* SPDX-License-Identifier: MIT */
/* Buffers that go from the packer's threads to the one that hashes, and back. */
#include "fs/pack/digest_queue.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "codec/arith.h"

enum { DEPTH_PER_THREAD = 2, DEPTH_MORE = 16 }; /* some 30 ms of hashing: longer than drafting and counting a group take */

struct block {
	uint8_t *buffer;
	size_t bytes;
};

struct wcx_digest_queue {
	EVP_MD_CTX *digest; /* belongs to the thread, or to who puts a block */
	uint8_t *memory;    /* of all buffers */
	size_t depth;
	bool has_thread;
	pthread_t thread;
	pthread_mutex_t lock;   /* protects everything below */
	pthread_cond_t emptied; /* signals a new empty buffer */
	pthread_cond_t filled;  /* signals a new full one, or ended */
	uint8_t **empty;        /* empty_count of them */
	struct block *full;     /* a ring: full_count from first_full on */
	size_t empty_count, full_count, first_full;
	bool ended;  /* nothing will be put any more */
	bool failed; /* hashing did */
};

static void add_empty(struct wcx_digest_queue *queue, uint8_t *buffer)
{
	queue->empty[queue->empty_count++] = buffer;
	pthread_cond_signal(&queue->emptied);
}

static void *hash_blocks(void *user)
{
	struct wcx_digest_queue *queue = user;

	pthread_mutex_lock(&queue->lock);
	for (;;) {
		struct block block;
		bool hashed;

		while (!queue->full_count && !queue->ended)
			pthread_cond_wait(&queue->filled, &queue->lock);
		if (!queue->full_count)
			break;
		block = queue->full[queue->first_full];
		queue->first_full = (queue->first_full + 1) % queue->depth;
		queue->full_count--;
		pthread_mutex_unlock(&queue->lock);
		hashed = EVP_DigestUpdate(queue->digest, block.buffer, block.bytes) == 1;
		pthread_mutex_lock(&queue->lock);
		queue->failed |= !hashed;
		add_empty(queue, block.buffer);
	}
	pthread_mutex_unlock(&queue->lock);
	return NULL;
}

static bool allocate(struct wcx_digest_queue *queue)
{
	queue->digest = EVP_MD_CTX_new();
	queue->memory = malloc(queue->depth * WCX_DIGEST_BLOCK_BYTES);
	queue->empty = calloc(queue->depth, sizeof *queue->empty);
	queue->full = calloc(queue->depth, sizeof *queue->full);
	return queue->digest && queue->memory && queue->empty && queue->full &&
	       EVP_DigestInit_ex(queue->digest, EVP_sha256(), NULL) == 1;
}

struct wcx_digest_queue *wcx_digest_queue_create(unsigned thread_count, uint64_t total_bytes)
{
	const size_t deep = (size_t)DEPTH_PER_THREAD * thread_count + DEPTH_MORE;
	struct wcx_digest_queue *queue = calloc(1, sizeof *queue);

	if (!queue)
		return NULL;
	queue->depth = (size_t)WCX_MIN(deep, WCX_DIV_UP(total_bytes, WCX_DIGEST_BLOCK_BYTES) + thread_count + 1);
	pthread_mutex_init(&queue->lock, NULL);
	pthread_cond_init(&queue->emptied, NULL);
	pthread_cond_init(&queue->filled, NULL);
	if (!allocate(queue)) {
		wcx_digest_queue_free(queue);
		return NULL;
	}
	for (size_t i = 0; i < queue->depth; i++)
		queue->empty[queue->empty_count++] = queue->memory + i * WCX_DIGEST_BLOCK_BYTES;
	queue->has_thread = thread_count > 1 && pthread_create(&queue->thread, NULL, hash_blocks, queue) == 0;
	return queue;
}

/* Lets the thread finish what is in the queue. */
static void end_thread(struct wcx_digest_queue *queue)
{
	if (!queue->has_thread)
		return;
	pthread_mutex_lock(&queue->lock);
	queue->ended = true;
	pthread_cond_signal(&queue->filled);
	pthread_mutex_unlock(&queue->lock);
	pthread_join(queue->thread, NULL);
	queue->has_thread = false;
}

void wcx_digest_queue_free(struct wcx_digest_queue *queue)
{
	if (!queue)
		return;
	end_thread(queue);
	pthread_cond_destroy(&queue->filled);
	pthread_cond_destroy(&queue->emptied);
	pthread_mutex_destroy(&queue->lock);
	EVP_MD_CTX_free(queue->digest);
	free(queue->memory);
	free(queue->empty);
	free(queue->full);
	free(queue);
}

uint8_t *wcx_digest_queue_take(struct wcx_digest_queue *queue)
{
	uint8_t *buffer;

	pthread_mutex_lock(&queue->lock);
	while (!queue->empty_count)
		pthread_cond_wait(&queue->emptied, &queue->lock);
	buffer = queue->empty[--queue->empty_count];
	pthread_mutex_unlock(&queue->lock);
	return buffer;
}

void wcx_digest_queue_return(struct wcx_digest_queue *queue, uint8_t *buffer)
{
	pthread_mutex_lock(&queue->lock);
	add_empty(queue, buffer);
	pthread_mutex_unlock(&queue->lock);
}

void wcx_digest_queue_put(struct wcx_digest_queue *queue, uint8_t *buffer, size_t bytes)
{
	const bool hashed = queue->has_thread || EVP_DigestUpdate(queue->digest, buffer, bytes) == 1;

	pthread_mutex_lock(&queue->lock);
	queue->failed |= !hashed;
	if (queue->has_thread) {
		queue->full[(queue->first_full + queue->full_count++) % queue->depth] = (struct block){ buffer, bytes };
		pthread_cond_signal(&queue->filled);
	} else {
		add_empty(queue, buffer);
	}
	pthread_mutex_unlock(&queue->lock);
}

int wcx_digest_queue_finish(struct wcx_digest_queue *queue, uint8_t sha256[WCX_SHA256_BYTES])
{
	end_thread(queue);
	return !queue->failed && EVP_DigestFinal_ex(queue->digest, sha256, NULL) == 1 ? 0 : -ENOMEM;
}
