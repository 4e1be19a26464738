/* SPDX-License-Identifier: MIT */
/* The functions of libwcx: files, loaders, and the call that loads. */
#include "fs/base/host_limits.h"
#include "fs/lib/wcx.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/lib/hold.h"
#include "fs/lib/load_execute.h"
#include "fs/lib/load_host.h"
#include "fs/lib/pin.h"
#include "fs/read/base_search.h"
#include "fs/read/tile_cache.h"

enum {
	THREADS_MAX = 256,
	DEFAULT_THREADS_MAX = 16, /* more than it takes to keep PCIe busy */
};

_Static_assert(WCX_ERROR_TEXT_BYTES == 640, "wcx.h names the size of an error's text");

struct wcx_file {
	struct wcx_tile_cache *cache;
	struct wcx_decoder *decoder;
	struct wcx_base_search *bases;
	struct wcx_image *image;
	struct wcx_safetensors *st;
	struct wcx_pin pin;
};

/* --- files --- */

/* Copies the text of an error to the caller's buffer.  Returns r. */
static int report(int r, const struct wcx_error *err, char *error, size_t error_bytes)
{
	if (r < 0 && error && error_bytes)
		snprintf(error, error_bytes, "%s", err->text);
	return r;
}

/* Names are C strings here: those that go on behind a zero byte would be cut, and then be alike. */
static int check_names(const char *path, const struct wcx_safetensors *st, struct wcx_error *err)
{
	for (size_t i = 0; i < st->tensor_count; i++) {
		if (strlen(st->tensors[i].name) != st->tensors[i].name_bytes)
			return wcx_fail(err, ENOTSUP, "%s: tensor %s: U+0000 in its name", path, st->tensors[i].name);
	}
	return 0;
}

static int open_file(const char *path, struct wcx_file *file, struct wcx_error *err)
{
	int fd, r;

	file->cache = wcx_tile_cache_create(0);
	if (!file->cache)
		return wcx_fail(err, ENOMEM, "%s: no memory", path);
	r = wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &file->decoder, err);
	if (r < 0)
		return r;
	file->bases = wcx_base_search_create(NULL, file->cache, file->decoder, NULL);
	if (!file->bases)
		return wcx_fail(err, ENOMEM, "%s: no memory", path);
	/* O_NONBLOCK: opening a FIFO would wait for a writer.  The container refuses all but regular files. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return wcx_fail(err, errno, "%s: %s", path, strerror(errno));
	r = wcx_image_open(fd, path, file->cache, file->decoder, &file->image, err);
	if (r < 0) {
		close(fd);
		return r;
	}
	wcx_base_search_use(file->bases, file->image);
	r = wcx_image_header(file->image, &file->st, err);
	return r < 0 ? r : check_names(path, file->st, err);
}

int wcx_file_open(const char *path, struct wcx_file **ret, char *error, size_t error_bytes)
{
	struct wcx_file *file = calloc(1, sizeof *file);
	struct wcx_error err = { "" };
	int r = file ? open_file(path, file, &err) : wcx_fail(&err, ENOMEM, "%s: no memory", path);

	if (r == 0)
		*ret = file;
	else
		wcx_file_close(file);
	return report(r, &err, error, error_bytes);
}

void wcx_file_close(struct wcx_file *file)
{
	if (!file)
		return;
	wcx_pin_free(&file->pin);
	wcx_safetensors_free(file->st);
	wcx_image_put(file->image);
	wcx_base_search_free(file->bases);
	wcx_decoder_free(file->decoder);
	wcx_tile_cache_free(file->cache);
	free(file);
}

uint64_t wcx_file_bytes(const struct wcx_file *file)
{
	return wcx_image_bytes(file->image);
}

void wcx_file_sha256(const struct wcx_file *file, uint8_t ret[WCX_SHA256_BYTES])
{
	memcpy(ret, wcx_container_superblock(wcx_image_container(file->image))->sha256, WCX_SHA256_BYTES);
}

uint64_t wcx_file_header_bytes(const struct wcx_file *file)
{
	return file->st->header_bytes;
}

size_t wcx_file_tensor_count(const struct wcx_file *file)
{
	return file->st->tensor_count;
}

int wcx_file_tensor(const struct wcx_file *file, size_t index, struct wcx_tensor_info *ret)
{
	const struct wcx_tensor *tensor;

	if (index >= file->st->tensor_count)
		return -EINVAL;
	tensor = &file->st->tensors[index];
	*ret = (struct wcx_tensor_info){
		.name = tensor->name,
		.dtype = tensor->dtype,
		.shape = tensor->shape,
		.dim_count = tensor->dim_count,
		.offset = tensor->offset,
		.bytes = tensor->bytes,
	};
	return 0;
}

ssize_t wcx_file_read(struct wcx_file *file, void *dst, size_t bytes, uint64_t offset, char *error, size_t error_bytes)
{
	struct wcx_error err = { "" };
	ssize_t n = wcx_image_read(file->image, dst, bytes, offset, &err);

	report(n < 0 ? -1 : 0, &err, error, error_bytes);
	return n;
}

static int check_threads(unsigned threads, struct wcx_error *err)
{
	return threads > THREADS_MAX ? wcx_fail(err, EINVAL, "%u threads: at most %d are allowed", threads, THREADS_MAX) : 0;
}

int wcx_load_host(struct wcx_file *file, const struct wcx_target *targets, size_t target_count, unsigned threads,
		  char *error, size_t error_bytes)
{
	struct wcx_load_plan plan = { .spans = NULL };
	struct wcx_host_limits limits;
	struct wcx_error err = { "" };
	int r = check_threads(threads, &err);

	if (r == 0)
		r = wcx_load_plan_make(wcx_image_container(file->image), 0, targets, target_count, &plan, &err);
	if (r == 0 && plan.task_count) {
		wcx_host_limits_get(&limits);
		threads = threads ? threads : WCX_MIN(limits.cores, (unsigned)THREADS_MAX);
		r = wcx_load_host_execute(file->image, &plan, (unsigned)WCX_MIN(threads, plan.task_count), &err);
	}
	wcx_load_plan_free(&plan);
	return report(r, &err, error, error_bytes);
}

/* --- loaders --- */

static int open_loader(int device, struct wcx_loader *loader, struct wcx_error *err)
{
	const unsigned buffer_count = WCX_LOADER_BUFFERS * loader->thread_count;
	const unsigned queue_count = WCX_LOADER_QUEUES * loader->thread_count;
	char reason[WCX_GPU_NAME_BYTES];
	enum wcx_result result;

	loader->batches = calloc(queue_count, sizeof *loader->batches);
	loader->workers = calloc(loader->thread_count, sizeof *loader->workers);
	if (!loader->batches || !loader->workers)
		return wcx_fail(err, ENOMEM, "no memory for a loader");
	loader->device = device;
	result = wcx_gpu_loader_open(device, buffer_count, queue_count, &loader->gpu, reason);
	if (result != WCX_OK)
		return wcx_fail(err, -wcx_result_errno(result), "cannot use GPU %d: %s", device, reason);
	return 0;
}

int wcx_loader_open(int device, unsigned threads, struct wcx_loader **ret, char *error, size_t error_bytes)
{
	struct wcx_loader *loader = NULL;
	struct wcx_host_limits limits;
	struct wcx_error err = { "" };
	int r;

	r = check_threads(threads, &err);
	if (r < 0)
		goto out;
	loader = calloc(1, sizeof *loader);
	if (!loader) {
		r = wcx_fail(&err, ENOMEM, "no memory for a loader");
		goto out;
	}
	wcx_host_limits_get(&limits);
	loader->thread_count = threads ? threads : WCX_MIN(limits.cores, (unsigned)DEFAULT_THREADS_MAX);
	r = open_loader(device, loader, &err);
out:
	if (r == 0)
		*ret = loader;
	else
		wcx_loader_close(loader);
	return report(r, &err, error, error_bytes);
}

void wcx_loader_close(struct wcx_loader *loader)
{
	if (!loader)
		return;
	wcx_gpu_loader_free(loader->gpu);
	free(loader->batches);
	free(loader->workers);
	free(loader);
}

int wcx_file_pin(struct wcx_file *file, struct wcx_loader *loader, char *error, size_t error_bytes)
{
	struct wcx_error err = { "" };
	int r = 0;

	if (!file->pin.bytes)
		r = wcx_pin_make(file->image, loader->device, loader->thread_count, &file->pin, &err);
	return report(r, &err, error, error_bytes);
}

int wcx_load(struct wcx_loader *loader, struct wcx_file *file, const struct wcx_target *targets, size_t target_count,
	     void *stream, char *error, size_t error_bytes)
{
	const uint8_t *pinned = file->pin.bytes;
	const struct wcx_container *container = wcx_image_container(file->image);
	struct wcx_load_plan plan;
	struct wcx_error err = { "" };
	int r = wcx_load_plan_make(container, pinned ? wcx_loader_pinned_bytes(loader, container) : 0, targets, target_count,
				   &plan, &err);

	if (r == 0)
		r = wcx_load_plan_use_bases(&plan, file->image, loader->gpu, &err);
	if (r == 0)
		r = wcx_load_execute(loader, file->image, &plan, pinned, stream, &err);
	wcx_load_plan_free(&plan);
	return report(r, &err, error, error_bytes);
}

/* --- held parts --- */

int wcx_held_open(struct wcx_loader *loader, struct wcx_file *file, const struct wcx_target *targets, size_t target_count,
		  int on_device, struct wcx_held **ret, char *error, size_t error_bytes)
{
	struct wcx_held *held = calloc(1, sizeof *held);
	struct wcx_load_plan plan = { .spans = NULL };
	struct wcx_error err = { "" };
	int r = held ? 0 : wcx_fail(&err, ENOMEM, "no memory for a held part");

	if (r == 0) {
		held->image = file->image;
		r = wcx_load_plan_make(wcx_image_container(file->image), 0, targets, target_count, &plan, &err);
	}
	if (r == 0)
		r = wcx_hold_build(held, loader->device, on_device, &plan, loader->thread_count, &err);
	wcx_load_plan_free(&plan);
	if (r == 0)
		*ret = held;
	else
		wcx_hold_free(held);
	return report(r, &err, error, error_bytes);
}

void wcx_held_close(struct wcx_held *held)
{
	wcx_hold_free(held);
}

uint64_t wcx_held_bytes(const struct wcx_held *held)
{
	return wcx_gpu_hold_bytes(held->gpu);
}

/* Reports what the GPU said; failed is the number of the tile that could not be decoded. */
static int report_gpu(const struct wcx_held *held, enum wcx_result result, uint32_t failed, char *error, size_t error_bytes)
{
	struct wcx_error err = { "" };
	int r = 0;

	if (result == WCX_BAD_DATA)
		r = wcx_image_fail_tile(held->image, held->coded[failed].segment, &held->coded[failed].info, 0, -EBADMSG,
					&err);
	else if (result != WCX_OK)
		r = wcx_fail(&err, EIO, "%s: the GPU failed", wcx_container_path(wcx_image_container(held->image)));
	return report(r, &err, error, error_bytes);
}

int wcx_held_fetch(struct wcx_held *held, void *place, void *stream, char *error, size_t error_bytes)
{
	const enum wcx_result result = wcx_gpu_hold_fetch(held->gpu, (uint64_t)(uintptr_t)place, stream);

	return report_gpu(held, result == WCX_OK ? WCX_OK : WCX_DEVICE_FAILED, 0, error, error_bytes);
}

int wcx_held_decode(struct wcx_held *held, void *place, void *base, void *stream, char *error, size_t error_bytes)
{
	const enum wcx_result result =
		wcx_gpu_hold_decode(held->gpu, (uint64_t)(uintptr_t)place, (uint64_t)(uintptr_t)base, stream);

	return report_gpu(held, result == WCX_OK ? WCX_OK : WCX_DEVICE_FAILED, 0, error, error_bytes);
}

int wcx_held_check(struct wcx_held *held, void *stream, char *error, size_t error_bytes)
{
	uint32_t failed = 0;
	const enum wcx_result result = wcx_gpu_hold_status(held->gpu, stream, &failed);

	return report_gpu(held, result, failed, error, error_bytes);
}
