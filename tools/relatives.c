/* SPDX-License-Identifier: MIT */
/* Finds bases among the packed files of a store: by the tensors that they have, then by samples. */
#include "tools/relatives.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/array.h"
#include "fs/base/same_file.h"
#include "fs/base/tree.h"
#include "tools/file_task.h"
#include "tools/model_card.h"

enum {
	ROUGH_MAX = 64, /* candidates that one tensor is sketched of */
	FINE_MAX = 4,   /* the best of these, and how many tensors of them */
	FINE_TENSORS = 8,
	EXTRA_MAX = 15,       /* further bases beside the best one, for tensors that it lacks: other shards of its model */
	COMMON_MIN_SHARE = 8, /* of the file's bytes, a candidate must have one of this many in tensors of the same names */
};

struct candidate {
	char *path;
	struct wcx_tensor_list tensors;
};

struct wcx_relatives {
	const struct command *command;
	char *store;
	/* Protects what follows; not held while anything is read. */
	pthread_mutex_t lock;
	pthread_cond_t scanned;
	enum { NOT_SCANNED, SCANNING, SCANNED } state;
	struct candidate *items; /* never removed; may move */
	size_t count, capacity;
};

/* --- tensors --- */

static int compare_keys(const void *a, const void *b)
{
	const struct wcx_tensor_key *x = a, *y = b;

	return (x->hash > y->hash) - (x->hash < y->hash);
}

int wcx_tensor_list_make(const struct wcx_safetensors *st, struct wcx_tensor_list *ret)
{
	*ret = (struct wcx_tensor_list){ .keys = calloc(st->tensor_count + 1, sizeof *ret->keys) };
	if (!ret->keys)
		return -ENOMEM;
	for (size_t i = 0; i < st->tensor_count; i++) {
		const struct wcx_tensor *tensor = &st->tensors[i];
		const uint64_t parts[] = {
			wcx_checksum64(tensor->name, tensor->name_bytes),
			wcx_checksum64(tensor->dtype, strlen(tensor->dtype)),
			wcx_checksum64(tensor->shape, tensor->dim_count * sizeof *tensor->shape),
		};

		ret->keys[ret->count++] = (struct wcx_tensor_key){ wcx_checksum64(parts, sizeof parts), tensor->bytes };
		ret->bytes += tensor->bytes;
	}
	qsort(ret->keys, ret->count, sizeof *ret->keys, compare_keys);
	return 0;
}

uint64_t wcx_tensor_list_common(const struct wcx_tensor_list *a, const struct wcx_tensor_list *b)
{
	uint64_t common = 0;

	for (size_t i = 0, j = 0; i < a->count && j < b->count;) {
		if (a->keys[i].hash == b->keys[j].hash)
			common += a->keys[i].bytes;
		if (a->keys[i].hash <= b->keys[j].hash)
			i++;
		else
			j++;
	}
	return common;
}

/* Removes from a list the tensors that another has. */
static void remove_common(struct wcx_tensor_list *list, const struct wcx_tensor_list *other)
{
	size_t kept = 0;

	for (size_t i = 0, j = 0; i < list->count; i++) {
		while (j < other->count && other->keys[j].hash < list->keys[i].hash)
			j++;
		if (j < other->count && other->keys[j].hash == list->keys[i].hash)
			list->bytes -= list->keys[i].bytes;
		else
			list->keys[kept++] = list->keys[i];
	}
	list->count = kept;
}

/* --- the store --- */

struct wcx_relatives *wcx_relatives_create(const struct command *command, const char *store)
{
	struct wcx_relatives *relatives = calloc(1, sizeof *relatives);

	if (!relatives)
		return NULL;
	relatives->command = command;
	relatives->store = strdup(store);
	if (!relatives->store) {
		free(relatives);
		return NULL;
	}
	pthread_mutex_init(&relatives->lock, NULL);
	pthread_cond_init(&relatives->scanned, NULL);
	return relatives;
}

void wcx_relatives_free(struct wcx_relatives *relatives)
{
	if (!relatives)
		return;
	for (size_t i = 0; i < relatives->count; i++) {
		free(relatives->items[i].path);
		free(relatives->items[i].tensors.keys);
	}
	free(relatives->items);
	free(relatives->store);
	pthread_cond_destroy(&relatives->scanned);
	pthread_mutex_destroy(&relatives->lock);
	free(relatives);
}

int wcx_relatives_add(struct wcx_relatives *relatives, const char *path, const struct wcx_safetensors *st)
{
	struct candidate fresh = { .path = strdup(path) }, *grown = NULL;

	if (fresh.path && wcx_tensor_list_make(st, &fresh.tensors) == 0) {
		pthread_mutex_lock(&relatives->lock);
		grown = wcx_array_reserve(relatives->items, &relatives->capacity, relatives->count + 1,
					  sizeof *relatives->items);
		if (grown) {
			relatives->items = grown;
			relatives->items[relatives->count++] = fresh;
		}
		pthread_mutex_unlock(&relatives->lock);
	}
	if (grown)
		return 0;
	free(fresh.path);
	free(fresh.tensors.keys);
	return -ENOMEM;
}

/* Adds a file of the store, if it can be read and refers to no base. */
static int scan_file(struct wcx_relatives *relatives, const char *path)
{
	const int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	struct wcx_safetensors *st = NULL;
	struct wcx_image *image = NULL;
	struct wcx_superblock sb;
	struct wcx_error ignored;
	int r = 0;

	if (fd < 0)
		return 0;
	if (wcx_superblock_read(fd, path, &sb, &ignored) < 0 || sb.base_count ||
	    wcx_image_open(fd, path, relatives->command->cache, relatives->command->decoder, &image, &ignored) < 0) {
		close(fd);
		return 0;
	}
	if (wcx_image_header(image, &st, &ignored) == 0)
		r = wcx_relatives_add(relatives, path, st);
	wcx_safetensors_free(st);
	wcx_image_put(image);
	return r;
}

/* What cannot be listed has no base to offer. */
static void ignore_problem(void *user, const struct wcx_error *why)
{
	(void)user;
	(void)why;
}

static int scan(struct wcx_relatives *relatives)
{
	struct wcx_tree tree = { .root_fd = -1 };
	struct wcx_error ignored;
	int r = wcx_tree_list(&tree, relatives->store, ignore_problem, NULL, &wcx_command_stop, &ignored);

	if (r < 0 && r != -EINTR && r != -ENOMEM)
		r = 0; /* no store yet */
	for (size_t i = 0; i < tree.count && r == 0; i++) {
		char *path;

		if (!S_ISREG(tree.entries[i].st.st_mode) || !wcx_is_packed_name(tree.entries[i].name))
			continue;
		path = wcx_tree_path(&tree, i, relatives->store, "");
		r = !path ? -ENOMEM : wcx_command_stop ? -EINTR : scan_file(relatives, path);
		free(path);
	}
	wcx_tree_free(&tree);
	return r;
}

/* Has the store scanned once; other threads wait for the one that does it. */
static int scan_once(struct wcx_relatives *relatives)
{
	int r = 0;

	pthread_mutex_lock(&relatives->lock);
	while (relatives->state == SCANNING)
		pthread_cond_wait(&relatives->scanned, &relatives->lock);
	if (relatives->state == NOT_SCANNED) {
		relatives->state = SCANNING;
		pthread_mutex_unlock(&relatives->lock);
		r = scan(relatives);
		pthread_mutex_lock(&relatives->lock);
		relatives->state = SCANNED;
		pthread_cond_broadcast(&relatives->scanned);
	}
	pthread_mutex_unlock(&relatives->lock);
	return r;
}

/* --- the search --- */

/* A candidate for a file. */
struct choice {
	struct candidate candidate; /* a copy: what it points to stays */
	bool is_on_card;
	uint64_t common; /* bytes of the file, in tensors that both have */
	double saved;    /* bytes, by a sketch */
};

struct search {
	struct wcx_relatives *relatives;
	const struct wcx_based_file *file;
	struct wcx_sketched_file sketched; /* the same, with its looks */
	struct wcx_looks looks;
	struct wcx_tensor_list missing; /* tensors of the file that no base has so far */
	struct choice *choices;
	size_t count;
};

static int compare_common(const void *a, const void *b)
{
	const struct choice *x = a, *y = b;

	if (x->is_on_card != y->is_on_card)
		return x->is_on_card ? -1 : 1;
	if (x->common != y->common)
		return x->common > y->common ? -1 : 1;
	return strcmp(x->candidate.path, y->candidate.path);
}

static int compare_saved(const void *a, const void *b)
{
	const struct choice *x = a, *y = b;

	return x->saved != y->saved ? (x->saved > y->saved ? -1 : 1) : compare_common(a, b);
}

/* Lists the candidates with enough tensors of the file, those first that are most likely. */
static int list_choices(struct search *search)
{
	struct wcx_relatives *relatives = search->relatives;
	const char *card = search->file->card_base;
	size_t kept = 0;

	pthread_mutex_lock(&relatives->lock);
	search->choices = calloc(relatives->count + 1, sizeof *search->choices);
	for (; search->choices && search->count < relatives->count; search->count++)
		search->choices[search->count].candidate = relatives->items[search->count];
	pthread_mutex_unlock(&relatives->lock);
	if (!search->choices)
		return -ENOMEM;
	for (size_t i = 0; i < search->count; i++) {
		struct choice *choice = &search->choices[i];

		choice->common = wcx_tensor_list_common(&search->missing, &choice->candidate.tensors);
		choice->is_on_card = card && wcx_model_card_names(card, choice->candidate.path);
		if (choice->common && choice->common >= search->missing.bytes / COMMON_MIN_SHARE)
			search->choices[kept++] = *choice;
	}
	search->count = kept;
	qsort(search->choices, search->count, sizeof *search->choices, compare_common);
	return 0;
}

/* Adds a candidate to a set; false if it has gone, if not all may read it, or if the file will replace it. */
static bool open_base(const struct search *search, const struct candidate *candidate, struct wcx_base_set *set)
{
	const struct stat *replaced = search->file->replaced;
	struct wcx_error ignored;
	struct stat st;

	if (replaced && stat(candidate->path, &st) == 0 && wcx_is_same_file(&st, replaced))
		return false;
	if (wcx_base_set_add(set, search->relatives->command, candidate->path, &ignored) < 0)
		return false;
	if (wcx_base_file_suits(&set->files[set->count - 1], &search->file->stat))
		return true;
	wcx_base_set_drop_last(set);
	return false;
}

/* Sketches the first choices, puts them into order, and leaves only them. */
static int sketch_choices(struct search *search, size_t most, unsigned tensor_count, struct wcx_error *err)
{
	int r = 0;

	search->count = WCX_MIN(search->count, most);
	for (size_t i = 0; i < search->count && r == 0; i++) {
		struct choice *choice = &search->choices[i];
		struct wcx_base_set set = { 0 };
		struct wcx_base_sketch sketch = { 0 };
		struct wcx_error ignored;

		choice->saved = 0;
		if (wcx_command_stop)
			r = wcx_fail(err, EINTR, "interrupted");
		else if (open_base(search, &choice->candidate, &set)) {
			const struct wcx_sketched_file base = wcx_sketched_image(set.files->image, set.files->st);

			/* What cannot be read of the file itself will be told of when it is packed. */
			if (wcx_base_sketch_make(&base, &search->sketched, tensor_count, &sketch, &ignored) == -ENOMEM)
				r = -ENOMEM;
		}
		if (sketch.gain >= WCX_BASE_MIN_GAIN)
			choice->saved = sketch.gain * (double)sketch.matched_bytes;
		wcx_base_set_free(&set);
	}
	qsort(search->choices, search->count, sizeof *search->choices, compare_saved);
	while (search->count && search->choices[search->count - 1].saved <= 0)
		search->count--;
	return r;
}

static bool is_in_same_directory(const char *a, const char *b)
{
	const size_t bytes = (size_t)(strrchr(a, '/') - a);

	return strncmp(a, b, bytes + 1) == 0 && !strchr(b + bytes + 1, '/');
}

/* Adds files beside the best one that have tensors which it lacks. */
static int add_others(struct search *search, const char *best, struct wcx_base_set *set)
{
	int r = 0;

	for (int i = 0; i < EXTRA_MAX && search->missing.bytes && r == 0; i++) {
		size_t at = 0;

		free(search->choices);
		search->count = 0;
		search->choices = NULL;
		r = list_choices(search);
		while (at < search->count && !is_in_same_directory(best, search->choices[at].candidate.path))
			at++;
		if (r < 0 || at == search->count || !open_base(search, &search->choices[at].candidate, set))
			break;
		remove_common(&search->missing, &search->choices[at].candidate.tensors);
	}
	return r;
}

int wcx_relatives_find(struct wcx_relatives *relatives, const struct wcx_based_file *file, struct wcx_base_set *set,
		       struct wcx_error *err)
{
	struct search search = { .relatives = relatives, .file = file, .sketched = file->file };
	int r = scan_once(relatives);

	search.sketched.looks = &search.looks;
	if (r == 0)
		r = wcx_tensor_list_make(file->file.st, &search.missing);
	if (r == 0)
		r = list_choices(&search);
	if (r == 0 && search.count > FINE_MAX)
		r = sketch_choices(&search, ROUGH_MAX, 1, err);
	if (r == 0)
		r = sketch_choices(&search, FINE_MAX, FINE_TENSORS, err);
	if (r == 0 && search.count) {
		const char *best = search.choices[0].candidate.path;

		if (open_base(&search, &search.choices[0].candidate, set)) {
			remove_common(&search.missing, &search.choices[0].candidate.tensors);
			r = add_others(&search, best, set);
		}
	}
	free(search.choices);
	free(search.missing.keys);
	wcx_looks_free(&search.looks);
	if (r == -EINTR)
		wcx_fail(err, EINTR, "interrupted");
	return r;
}
