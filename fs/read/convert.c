/* SPDX-License-Identifier: MIT */
/* Copies the tiles of a file of format version 3 into one of version 1, and verifies that. */
#include "fs/read/convert.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/base/file_copy.h"
#include "fs/base/output_file.h"
#include "fs/format/index_writer.h"
#include "fs/format/version3.h"
#include "fs/read/export.h"

enum { PART_BYTES = 1 << 20 };

struct converter {
	const struct wcx_job_options *options;
	int fd; /* the source */
	struct stat before;
	struct wcx_superblock sb;
	uint8_t *index;
	struct wcx_output_file output;
};

static bool is_stopped(const struct converter *converter)
{
	return converter->options->stop && *converter->options->stop;
}

static int copy_tiles(struct converter *converter, struct wcx_error *err)
{
	const char *path = converter->options->shown_dst;
	uint8_t *part = malloc(PART_BYTES);
	int r = part ? 0 : wcx_fail(err, ENOMEM, "%s: %s", path, strerror(ENOMEM));

	for (uint64_t at = WCX_SUPERBLOCK_BYTES; r == 0 && at < converter->sb.index_offset; at += PART_BYTES) {
		const uint64_t from = at - WCX_SUPERBLOCK_BYTES + WCX_VERSION3_SUPERBLOCK_BYTES;
		const size_t bytes = (size_t)WCX_MIN((uint64_t)PART_BYTES, converter->sb.index_offset - at);

		r = is_stopped(converter) ? wcx_fail(err, EINTR, "interrupted")
					  : wcx_packed_read(converter->fd, path, part, bytes, from, err);
		if (r == 0)
			r = wcx_output_write(&converter->output, part, bytes, at, err);
		if (r == 0)
			wcx_output_start_sync(&converter->output, bytes, at);
	}
	free(part);
	return r;
}

static int write_index(struct converter *converter, struct wcx_error *err)
{
	uint8_t block[WCX_SUPERBLOCK_BYTES];
	int r = wcx_output_write(&converter->output, converter->index, (size_t)converter->sb.index_bytes,
				 converter->sb.index_offset, err);

	wcx_superblock_write(&converter->sb, block);
	return r < 0 ? r : wcx_output_write(&converter->output, block, sizeof block, 0, err);
}

static void report_progress(void *user, uint64_t done, uint64_t total)
{
	const struct wcx_job_options *options = ((struct converter *)user)->options;

	if (options->progress)
		options->progress(options->user, "converting", done, total);
}

/* Decodes the output.  What is wrong with it was wrong with the source. */
static int verify(struct converter *converter, struct wcx_tile_cache *cache, struct wcx_decoder *decoder,
		  struct wcx_error *err)
{
	const struct wcx_job_options *options = converter->options;
	const struct wcx_export_ops ops = { .share = options->share, .progress = report_progress };
	const int copy = fcntl(converter->output.fd, F_DUPFD_CLOEXEC, 0);
	struct wcx_image *image = NULL;
	struct wcx_error why;
	int r = copy < 0 ? wcx_fail(&why, errno, "%s: %s", options->shown_dst, strerror(errno)) : 0;

	if (r == 0)
		r = wcx_image_open(copy, options->shown_dst, cache, decoder, &image, &why);
	if (r < 0 && copy >= 0)
		close(copy);
	if (r == 0)
		r = wcx_verify(image, options->thread_count, &ops, converter, options->stop, &why);
	wcx_image_put(image);
	if (r == -EBADMSG)
		return wcx_fail(err, EBADMSG, "%s; not converted (offsets are those in version %d)", why.text, WCX_VERSION);
	if (r < 0)
		*err = why;
	return r;
}

/* The source must still be what the name leads to, and as it was. */
static int check_source(const struct converter *converter, const char *path, struct wcx_error *err)
{
	struct stat by_fd, by_name;

	if (fstat(converter->fd, &by_fd) < 0 || lstat(path, &by_name) < 0)
		return wcx_fail(err, errno, "%s: %s", converter->options->shown_dst, strerror(errno));
	if (!wcx_same_version(&converter->before, &by_fd) || !wcx_same_version(&converter->before, &by_name))
		return wcx_fail(err, EBUSY, "%s: changed while it was converted", converter->options->shown_dst);
	return 0;
}

static int make_output(struct converter *converter, const char *path, struct wcx_tile_cache *cache,
		       struct wcx_decoder *decoder, struct wcx_error *err)
{
	int r = wcx_output_check_space(&converter->output, converter->sb.packed_bytes, err);

	if (r == 0)
		r = copy_tiles(converter, err);
	if (r == 0)
		r = write_index(converter, err);
	if (r == 0)
		r = verify(converter, cache, decoder, err);
	if (r == 0)
		r = check_source(converter, path, err);
	return r == 0 ? wcx_output_commit(&converter->output, err) : r;
}

int wcx_convert(int fd, const char *path, const struct wcx_job_options *options, struct wcx_tile_cache *cache,
		struct wcx_decoder *decoder, struct wcx_superblock *sb_ret, struct wcx_error *err)
{
	const struct wcx_output_options output = {
		.path = path,
		.shown_path = options->shown_dst,
		.source_fd = fd,
		.replace = true,
		.replaces_source = true,
		.is_tidy = options->is_tidy,
		.warn = options->warn,
		.user = options->user,
	};
	struct converter converter = { .options = options, .fd = fd };
	int r;

	if (fstat(fd, &converter.before) < 0)
		return wcx_fail(err, errno, "%s: %s", options->shown_dst, strerror(errno));
	r = wcx_version3_read(fd, options->shown_dst, &converter.sb, &converter.index, err);

	if (r < 0)
		return r;
	r = wcx_output_create(&converter.output, &output, err);
	if (r == 0) {
		r = make_output(&converter, path, cache, decoder, err);
		if (r < 0)
			wcx_output_discard(&converter.output);
	}
	free(converter.index);
	*sb_ret = converter.sb;
	return r;
}
