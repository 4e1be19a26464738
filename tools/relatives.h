/* SPDX-License-Identifier: MIT */
/*
 * Finds bases for files among the packed files of a store, without being told.
 *
 * A candidate has tensors of the same names, dtypes and shapes as the file.  Samples of a few of them then tell which
 * candidate saves most, and whether any saves enough.  All functions but create and free are thread-safe.
 */
#ifndef WCX_RELATIVES_H
#define WCX_RELATIVES_H

#include "fs/pack/base_sketch.h"
#include "tools/base_set.h"

struct wcx_relatives;

/*
 * wcx_relatives_create - the store is a directory; nothing is read before the first search
 *
 * Returns NULL when there is no memory.  store need not exist.
 */
struct wcx_relatives *wcx_relatives_create(const struct command *command, const char *store);
void wcx_relatives_free(struct wcx_relatives *relatives); /* NULL is fine */

/* wcx_relatives_add - note a file that has been packed since; only searches that begin later may see it.  0 or -ENOMEM */
int wcx_relatives_add(struct wcx_relatives *relatives, const char *path, const struct wcx_safetensors *st);

/* The file that a base is looked for. */
struct wcx_based_file {
	struct wcx_sketched_file file;
	struct stat stat;            /* of it: the output will have its owner and mode */
	const struct stat *replaced; /* what its output will replace, or NULL: not a candidate */
	const char *card_base;       /* name of the base that a model card gives, without its owner; or NULL */
};

/*
 * wcx_relatives_find - add the bases of a file to a set, or none
 *
 * Returns 0, -EINTR, -ENOMEM, or what reading the file returned.  Candidates that cannot be read are left out.
 */
int wcx_relatives_find(struct wcx_relatives *relatives, const struct wcx_based_file *file, struct wcx_base_set *set,
		       struct wcx_error *err);

/* A base must save this share of the bits of the tensors that it has. */
#define WCX_BASE_MIN_GAIN 0.05

/* Which tensors a file has: hashes of name, dtype and shape, ascending, with the bytes of each. */
struct wcx_tensor_list {
	struct wcx_tensor_key {
		uint64_t hash, bytes;
	} * keys;
	size_t count;
	uint64_t bytes; /* of all */
};

/* wcx_tensor_list_make - returns 0 or -ENOMEM; the caller frees ret->keys */
int wcx_tensor_list_make(const struct wcx_safetensors *st, struct wcx_tensor_list *ret);

/* wcx_tensor_list_common - the bytes of the tensors of one list that another has too */
uint64_t wcx_tensor_list_common(const struct wcx_tensor_list *a, const struct wcx_tensor_list *b);

#endif
