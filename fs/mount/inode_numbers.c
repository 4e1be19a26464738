/* SPDX-License-Identifier: MIT */
/* Makes inode numbers of devices and inode numbers. */
#include "fs/mount/inode_numbers.h"

#include <pthread.h>
#include <search.h>
#include <stddef.h>
#include <stdlib.h>

#include "fs/base/array.h"

/*
 *	63      62     49 48       1   0
 *	0  |  device  |   inode   | packed      device: its place in the list of those seen
 *	1  |           count                    what does not fit
 */
enum { INODE_BITS = 48, DEVICE_BITS = 14, DEVICE_SHIFT = INODE_BITS + 1 };

static const uint64_t remembered_bit = UINT64_C(1) << 63;

struct remembered {
	dev_t dev;
	ino_t ino;
	bool packed;
	uint64_t number;
};

struct wcx_inode_numbers {
	pthread_mutex_t lock; /* protects the rest */
	dev_t *devices;
	size_t device_count, device_capacity;
	void *remembered; /* tsearch(3) tree */
	uint64_t remembered_count;
};

static int compare(const void *left, const void *right)
{
	const struct remembered *a = left, *b = right;

	if (a->dev != b->dev)
		return a->dev < b->dev ? -1 : 1;
	if (a->ino != b->ino)
		return a->ino < b->ino ? -1 : 1;
	return a->packed - b->packed;
}

/* The place of a device in the list, to which it is added; SIZE_MAX when out of memory. */
static size_t device_index_locked(struct wcx_inode_numbers *numbers, dev_t dev)
{
	dev_t *grown;

	for (size_t i = 0; i < numbers->device_count; i++)
		if (numbers->devices[i] == dev)
			return i;
	grown = wcx_array_reserve(numbers->devices, &numbers->device_capacity, numbers->device_count + 1, sizeof *grown);
	if (!grown)
		return SIZE_MAX;
	numbers->devices = grown;
	grown[numbers->device_count] = dev;
	return numbers->device_count++;
}

static uint64_t remember_locked(struct wcx_inode_numbers *numbers, const struct remembered *key)
{
	void *found = tfind(key, &numbers->remembered, compare);
	struct remembered *fresh;

	if (found)
		return (*(struct remembered **)found)->number;
	fresh = malloc(sizeof *fresh);
	if (fresh) {
		*fresh = *key;
		fresh->number = remembered_bit | numbers->remembered_count;
	}
	if (!fresh || !tsearch(fresh, &numbers->remembered, compare)) {
		free(fresh);
		return UINT64_MAX;
	}
	numbers->remembered_count++;
	return fresh->number;
}

uint64_t wcx_inode_number(struct wcx_inode_numbers *numbers, dev_t dev, ino_t ino, bool packed)
{
	const struct remembered key = { .dev = dev, .ino = ino, .packed = packed };
	uint64_t number;
	size_t device;

	pthread_mutex_lock(&numbers->lock);
	device = device_index_locked(numbers, dev);
	if (device >> DEVICE_BITS || ino >> INODE_BITS || ino == 0)
		number = remember_locked(numbers, &key);
	else
		number = (uint64_t)device << DEVICE_SHIFT | (uint64_t)ino << 1 | packed;
	pthread_mutex_unlock(&numbers->lock);
	return number;
}

struct wcx_inode_numbers *wcx_inode_numbers_create(void)
{
	struct wcx_inode_numbers *numbers = calloc(1, sizeof *numbers);

	if (numbers)
		pthread_mutex_init(&numbers->lock, NULL);
	return numbers;
}

void wcx_inode_numbers_free(struct wcx_inode_numbers *numbers)
{
	if (!numbers)
		return;
	tdestroy(numbers->remembered, free);
	free(numbers->devices);
	pthread_mutex_destroy(&numbers->lock);
	free(numbers);
}
