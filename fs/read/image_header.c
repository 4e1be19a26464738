/* SPDX-License-Identifier: MIT */
/* Reads the safetensors header of an image, and finds the tensor that a byte belongs to. */
#include <errno.h>
#include <stdlib.h>

#include "fs/base/search.h"
#include "fs/read/image.h"

struct tensor_search {
	const struct wcx_tensor *tensors;
	uint64_t offset;
};

static bool starts_upto(const void *user, size_t i)
{
	const struct tensor_search *search = user;

	return search->tensors[i].offset <= search->offset;
}

const struct wcx_tensor *wcx_image_tensor_at(const struct wcx_safetensors *st, uint64_t offset)
{
	const struct tensor_search search = { st->tensors, offset };

	return &st->tensors[wcx_count_before(st->tensor_count, starts_upto, &search) - 1];
}

/* Every tensor must lie within one segment, not the first: that ends where the data begin. */
static int check_tensors(const struct wcx_image *image, const struct wcx_safetensors *st, struct wcx_error *err)
{
	const struct wcx_container *c = wcx_image_container(image);

	for (size_t i = 0; i < st->tensor_count; i++) {
		const struct wcx_tensor *tensor = &st->tensors[i];
		const struct wcx_segment *seg = wcx_container_segment(c, wcx_container_segment_at(c, tensor->offset));

		if (tensor->bytes > seg->offset + seg->bytes - tensor->offset)
			return wcx_fail(err, EBADMSG,
					"%s: damaged: tensor `%s`, offset %llu, does not lie within one segment",
					wcx_container_path(c), tensor->name, (unsigned long long)tensor->offset);
	}
	return 0;
}

int wcx_image_header(struct wcx_image *image, struct wcx_safetensors **ret, struct wcx_error *err)
{
	const char *path = wcx_container_path(wcx_image_container(image));
	uint64_t header_bytes = wcx_container_segment(wcx_image_container(image), 0)->bytes, json_bytes;
	struct wcx_safetensors *st = NULL;
	uint8_t *header;
	ssize_t n;
	int r;

	if (header_bytes > WCX_SAFETENSORS_LENGTH_BYTES + (uint64_t)WCX_SAFETENSORS_MAX_JSON_BYTES)
		return wcx_fail(err, EBADMSG, "%s: damaged: header too large", path);
	header = malloc((size_t)header_bytes);
	if (!header)
		return wcx_fail(err, ENOMEM, "%s: no memory for the header", path);
	n = wcx_image_read(image, header, (size_t)header_bytes, 0, err);
	r = n < 0 ? (int)n : wcx_safetensors_json_bytes(path, header, wcx_image_bytes(image), &json_bytes, err);
	if (r == 0 && json_bytes != header_bytes - WCX_SAFETENSORS_LENGTH_BYTES)
		r = wcx_fail(err, EBADMSG, "%s: damaged: the header does not fill its segment", path);
	if (r == 0)
		r = wcx_safetensors_parse(path, (const char *)header + WCX_SAFETENSORS_LENGTH_BYTES, (size_t)json_bytes,
					  wcx_image_bytes(image), &st, err);
	if (r == 0)
		r = check_tensors(image, st, err);
	if (r == 0)
		*ret = st;
	else
		wcx_safetensors_free(st);
	free(header);
	return r;
}
