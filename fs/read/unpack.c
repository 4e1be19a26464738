/* SPDX-License-Identifier: MIT */
/* Exports an image to an output file. */
#include "fs/read/unpack.h"

#include <errno.h>
#include <string.h>

#include "fs/read/export.h"

struct unpacker {
	const struct wcx_job_options *options;
	const struct wcx_output_file *output;
	uint64_t offset;
};

static int write_chunk(void *user, const void *src, size_t src_bytes, struct wcx_error *err)
{
	struct unpacker *unpacker = user;
	int r = wcx_output_write(unpacker->output, src, src_bytes, unpacker->offset, err);

	unpacker->offset += src_bytes;
	return r;
}

static void report_progress(void *user, uint64_t done, uint64_t total)
{
	struct unpacker *unpacker = user;

	if (unpacker->options->progress)
		unpacker->options->progress(unpacker->options->user, "unpacking", done, total);
}

int wcx_unpack_into(const struct wcx_output_file *output, struct wcx_image *image, const struct wcx_job_options *options,
		    struct wcx_error *err)
{
	const struct wcx_export_ops ops = { .share = options->share, .write = write_chunk, .progress = report_progress };
	const struct wcx_container *c = wcx_image_container(image);
	struct unpacker unpacker = { .options = options, .output = output };
	struct wcx_export_result result;
	int r = wcx_output_check_space(output, wcx_image_bytes(image), err);

	if (r == 0)
		r = wcx_export(image, options->thread_count, &ops, &unpacker, options->stop, &result, err);
	if (r == 0 && memcmp(result.sha256, wcx_container_superblock(c)->sha256, WCX_SHA256_BYTES) != 0)
		r = wcx_fail(err, EBADMSG, "%s: damaged: the SHA-256 of the original differs", wcx_container_path(c));
	return r;
}

int wcx_unpack(struct wcx_image *image, const char *dst_path, const struct wcx_job_options *options, struct wcx_error *err)
{
	const struct wcx_output_options output_options = {
		.path = dst_path,
		.shown_path = options->shown_dst,
		.source_fd = wcx_container_fd(wcx_image_container(image)),
		.replace = options->replace,
		.is_tidy = options->is_tidy,
		.warn = options->warn,
		.user = options->user,
	};
	struct wcx_output_file output;
	int r = wcx_output_create(&output, &output_options, err);

	if (r < 0)
		return r;
	r = wcx_unpack_into(&output, image, options, err);
	if (r == 0)
		r = wcx_output_commit(&output, err);
	if (r < 0)
		wcx_output_discard(&output);
	return r;
}
