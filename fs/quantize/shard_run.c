/* SPDX-License-Identifier: MIT */
/* Writes the quantised file of a shard, in units of about a MiB on all threads. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"
#include "fs/base/array.h"
#include "fs/base/file_io.h"
#include "fs/base/parallel.h"
#include "fs/quantize/float_bits.h"
#include "fs/quantize/shard.h"

enum { UNIT_BYTES = 1 << 20, WORD_BYTES = 4, SHAPE_BYTES = 16, PACKED_ZERO = 128 };

/* Some rows of a tensor to quantise, or a range of one to copy. */
struct unit {
	struct wcx_shard_tensor *tensor;
	const struct wcx_shard_output *copy, *values, *scales; /* copy, or the others */
	uint64_t first, count;                                 /* rows, or bytes */
	struct wcx_int8_error error;
};

/* A thread's memory. */
struct worker {
	uint8_t *src, *dst, *scales;
	float *row;
};

struct run {
	struct wcx_shard *shard;
	int src_fd, dst_fd;
	const struct wcx_job_options *job;
	const struct wcx_int8_loops *loops;
	struct worker *workers;
	struct unit *units;
	size_t unit_count, unit_capacity;
	size_t src_max_bytes, dst_max_bytes, scales_max_bytes, row_max; /* of a unit; the last in elements */
	pthread_mutex_t done_lock;                                      /* protects *done_bytes and a tensor's max_bits */
	uint64_t *done_bytes, total_bytes;
};

static int no_memory(const struct run *run, struct wcx_error *err)
{
	return wcx_fail(err, ENOMEM, "%s: no memory", run->shard->path);
}

/* --- units --- */

static uint64_t row_bytes(const struct wcx_tensor *tensor)
{
	return tensor->shape[1] * tensor->elem_bytes;
}

static uint64_t value_row_bytes(const struct wcx_shard_output *values)
{
	return values->shape[1] * values->elem_bytes;
}

static int add_units(struct run *run, const struct unit *whole, uint64_t count, uint64_t step, struct wcx_error *err)
{
	for (uint64_t first = 0; first < count; first += step) {
		struct unit *grown = wcx_array_reserve(run->units, &run->unit_capacity, run->unit_count + 1, sizeof *grown);

		if (!grown)
			return no_memory(run, err);
		run->units = grown;
		grown[run->unit_count] = *whole;
		grown[run->unit_count].first = first;
		grown[run->unit_count++].count = WCX_MIN(step, count - first);
	}
	return 0;
}

static int add_row_units(struct run *run, struct unit *whole, struct wcx_error *err)
{
	const struct wcx_tensor *source = whole->tensor->source;
	const uint64_t rows = WCX_MAX(1, UNIT_BYTES / row_bytes(source));

	run->src_max_bytes = WCX_MAX(run->src_max_bytes, rows * row_bytes(source));
	run->dst_max_bytes = WCX_MAX(run->dst_max_bytes, rows * value_row_bytes(whole->values));
	run->scales_max_bytes = WCX_MAX(run->scales_max_bytes, rows * whole->scales->elem_bytes);
	run->row_max = WCX_MAX(run->row_max, source->shape[1]);
	return add_units(run, whole, source->shape[0], rows, err);
}

/* Cuts the outputs into units; those of a quantised tensor follow each other. */
static int make_units(struct run *run, struct wcx_error *err)
{
	struct wcx_shard *shard = run->shard;
	const struct wcx_shard_output **scales = calloc(shard->st->tensor_count + 1, sizeof *scales);
	int r = scales ? 0 : no_memory(run, err);

	run->src_max_bytes = UNIT_BYTES;
	for (size_t i = 0; i < shard->output_count && r == 0; i++)
		if (shard->outputs[i].part == WCX_PART_SCALES)
			scales[shard->outputs[i].tensor - shard->tensors] = &shard->outputs[i];
	for (size_t i = 0; i < shard->output_count && r == 0; i++) {
		const struct wcx_shard_output *output = &shard->outputs[i];
		struct unit whole = { .tensor = output->tensor };

		if (output->part == WCX_PART_COPY) {
			whole.copy = output;
			r = add_units(run, &whole, output->bytes, UNIT_BYTES, err);
		} else if (output->part == WCX_PART_VALUES) {
			whole.values = output;
			whole.scales = scales[output->tensor - shard->tensors];
			r = add_row_units(run, &whole, err);
		}
	}
	free(scales);
	return r;
}

/* --- the work --- */

static int fail_at(const struct run *run, const struct unit *unit, int errnum, struct wcx_error *err)
{
	return wcx_fail(err, errnum, "%s: tensor %s: %s", run->shard->path, unit->tensor->source->name,
			errnum == ENODATA ? "the file became shorter while it was read" : strerror(errnum));
}

static int write_at(const struct run *run, const struct unit *unit, const void *src, size_t bytes, uint64_t offset,
		    struct wcx_error *err)
{
	const int r = wcx_write_at(run->dst_fd, src, bytes, offset);

	return r < 0 ? wcx_fail(err, -r, "writing tensor %s of %s: %s", unit->tensor->source->name, run->shard->name,
				strerror(-r))
		     : 0;
}

static void report(struct run *run, uint64_t bytes)
{
	pthread_mutex_lock(&run->done_lock);
	*run->done_bytes += bytes;
	if (run->job->progress)
		run->job->progress(run->job->user, "quantising", *run->done_bytes, run->total_bytes);
	pthread_mutex_unlock(&run->done_lock);
}

/* Reads the rows of a unit. */
static int read_rows(const struct run *run, const struct unit *unit, struct worker *worker, struct wcx_error *err)
{
	const struct wcx_tensor *source = unit->tensor->source;
	const uint64_t bytes = row_bytes(source);
	const int r = wcx_read_exact(run->src_fd, worker->src, unit->count * bytes, source->offset + unit->first * bytes);

	return r < 0 ? fail_at(run, unit, -r, err) : 0;
}

/* Widens row y of a unit into worker->row; *max_bits_ret is its largest magnitude.  All weights must be finite. */
static int widen_row(const struct run *run, const struct unit *unit, struct worker *worker, uint64_t y,
		     uint32_t *max_bits_ret, struct wcx_error *err)
{
	const struct wcx_tensor *source = unit->tensor->source;
	const size_t cols = source->shape[1];
	size_t x = 0;

	run->loops->widen(unit->tensor->recipe.weights, worker->src + y * row_bytes(source), worker->row, cols);
	*max_bits_ret = run->loops->max_bits(worker->row, cols);
	if (*max_bits_ret < WCX_FLOAT_INFINITE_BITS)
		return 0;
	while ((wcx_float_bits(worker->row[x]) & INT32_MAX) < WCX_FLOAT_INFINITE_BITS)
		x++;
	return wcx_fail(err, EINVAL, "%s: tensor %s, row %llu, column %zu: the weight is %s, which has no INT8 form",
			run->shard->path, source->name, (unsigned long long)(unit->first + y), x,
			worker->row[x] != worker->row[x] ? "not a number" : "infinite");
}

/* For one scale a tensor: the largest magnitude of a unit. */
static int find_max(void *user, struct wcx_parallel *loop, unsigned worker_index, uint64_t item, struct wcx_error *err)
{
	struct run *run = user;
	const struct unit *unit = &run->units[item];
	struct worker *worker = &run->workers[worker_index];
	uint32_t largest = 0, bits;
	int r = 0;

	(void)loop;
	if (unit->copy)
		return 0;
	r = read_rows(run, unit, worker, err);
	for (uint64_t y = 0; y < unit->count && r == 0; y++) {
		r = widen_row(run, unit, worker, y, &bits, err);
		largest = WCX_MAX(largest, bits);
	}
	if (r < 0)
		return r;
	pthread_mutex_lock(&run->done_lock);
	unit->tensor->max_bits = WCX_MAX(unit->tensor->max_bits, largest);
	pthread_mutex_unlock(&run->done_lock);
	return 0;
}

/* Values of a row as the bytes of little-endian words: 0 to 255, the first one lowest, and zeros behind the last. */
static void pack_row(uint8_t *values, size_t cols)
{
	for (size_t x = 0; x < cols; x++)
		values[x] ^= PACKED_ZERO;
	for (size_t x = cols; x % WORD_BYTES; x++)
		values[x] = 0;
}

static int quantise_unit(const struct run *run, struct unit *unit, struct worker *worker, struct wcx_error *err)
{
	const struct wcx_shard_tensor *tensor = unit->tensor;
	const uint64_t out_bytes = value_row_bytes(unit->values), scale_bytes = unit->scales->elem_bytes;
	const bool has_one_scale = run->shard->is_per_tensor;
	const size_t cols = tensor->source->shape[1];
	uint32_t max_bits;
	int r = read_rows(run, unit, worker, err);

	for (uint64_t y = 0; y < unit->count && r == 0; y++) {
		uint8_t *values = worker->dst + y * out_bytes;
		float scale;

		r = widen_row(run, unit, worker, y, &max_bits, err);
		if (r < 0)
			return r;
		scale = wcx_int8_scale(tensor->recipe, wcx_float_from_bits(has_one_scale ? tensor->max_bits : max_bits));
		wcx_int8_scale_write(tensor->recipe, scale, worker->scales + (has_one_scale ? 0 : y * scale_bytes));
		run->loops->quantize(tensor->recipe, worker->row, scale, (int8_t *)values, cols, &unit->error);
		if (run->shard->is_packed)
			pack_row(values, cols);
	}
	if (r == 0)
		r = write_at(run, unit, worker->dst, unit->count * out_bytes, unit->values->offset + unit->first * out_bytes,
			     err);
	if (r == 0 && has_one_scale && unit->first == 0)
		r = write_at(run, unit, worker->scales, scale_bytes, unit->scales->offset, err);
	else if (r == 0 && !has_one_scale)
		r = write_at(run, unit, worker->scales, unit->count * scale_bytes,
			     unit->scales->offset + unit->first * scale_bytes, err);
	return r;
}

static int copy_unit(const struct run *run, const struct unit *unit, struct worker *worker, struct wcx_error *err)
{
	const int r = wcx_read_exact(run->src_fd, worker->src, unit->count, unit->tensor->source->offset + unit->first);

	if (r < 0)
		return fail_at(run, unit, -r, err);
	return write_at(run, unit, worker->src, unit->count, unit->copy->offset + unit->first, err);
}

static int write_unit(void *user, struct wcx_parallel *loop, unsigned worker_index, uint64_t item, struct wcx_error *err)
{
	struct run *run = user;
	struct unit *unit = &run->units[item];
	struct worker *worker = &run->workers[worker_index];
	const int r = unit->copy ? copy_unit(run, unit, worker, err) : quantise_unit(run, unit, worker, err);

	(void)loop;
	if (r == 0)
		report(run, unit->copy ? unit->count : unit->count * row_bytes(unit->tensor->source));
	return r;
}

/* The header, and shapes, which are numbers of a few bytes. */
static int write_small_parts(struct run *run, struct wcx_error *err)
{
	const struct wcx_shard *shard = run->shard;
	int r = wcx_write_at(run->dst_fd, shard->header, shard->header_bytes, 0);

	for (size_t i = 0; i < shard->output_count && r == 0; i++) {
		const struct wcx_shard_output *output = &shard->outputs[i];
		uint8_t shape[SHAPE_BYTES];

		if (output->part != WCX_PART_SHAPE)
			continue;
		for (size_t b = 0; b < SHAPE_BYTES; b++)
			shape[b] = (uint8_t)(output->tensor->source->shape[b / 8] >> b % 8 * 8);
		r = wcx_write_at(run->dst_fd, shape, sizeof shape, output->offset);
	}
	return r < 0 ? wcx_fail(err, -r, "writing %s: %s", shard->name, strerror(-r)) : 0;
}

/* --- around it --- */

static int allocate(struct run *run, struct wcx_error *err)
{
	run->workers = calloc(run->job->thread_count, sizeof *run->workers);
	if (!run->workers)
		return no_memory(run, err);
	for (unsigned i = 0; i < run->job->thread_count; i++) {
		struct worker *worker = &run->workers[i];

		worker->src = malloc(run->src_max_bytes);
		worker->dst = malloc(run->dst_max_bytes + 1);
		worker->scales = malloc(run->scales_max_bytes + 1);
		worker->row = malloc((run->row_max + 1) * sizeof *worker->row);
		if (!worker->src || !worker->dst || !worker->scales || !worker->row)
			return no_memory(run, err);
	}
	return 0;
}

static void release(struct run *run)
{
	for (unsigned i = 0; run->workers && i < run->job->thread_count; i++) {
		free(run->workers[i].src);
		free(run->workers[i].dst);
		free(run->workers[i].scales);
		free(run->workers[i].row);
	}
	free(run->workers);
	free(run->units);
	pthread_mutex_destroy(&run->done_lock);
}

int wcx_shard_run(struct wcx_shard *shard, int src_fd, int dst_fd, const struct wcx_job_options *job, uint64_t *done_bytes,
		  uint64_t total_bytes, struct wcx_error *err)
{
	struct run run = {
		.shard = shard,
		.src_fd = src_fd,
		.dst_fd = dst_fd,
		.job = job,
		.loops = wcx_int8_loops_choose(),
		.done_bytes = done_bytes,
		.total_bytes = total_bytes,
	};
	int r;

	pthread_mutex_init(&run.done_lock, NULL);
	r = make_units(&run, err);
	if (r == 0)
		r = allocate(&run, err);
	if (r == 0)
		r = write_small_parts(&run, err);
	if (r == 0 && shard->is_per_tensor)
		r = wcx_parallel_for(job->thread_count, run.unit_count, find_max, &run, job->stop, err);
	if (r == 0)
		r = wcx_parallel_for(job->thread_count, run.unit_count, write_unit, &run, job->stop, err);
	for (size_t i = 0; i < run.unit_count && r == 0; i++) { /* in order: the sums do not depend on the threads */
		run.units[i].tensor->error.signal += run.units[i].error.signal;
		run.units[i].tensor->error.noise += run.units[i].error.noise;
	}
	release(&run);
	return r;
}
