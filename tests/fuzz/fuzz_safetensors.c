/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: a safetensors header.  Two bytes give the size of the data after it; the rest of the input is the JSON.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes);

static void require(int condition)
{
	if (!condition)
		abort();
}

/* What users of an accepted header rely on. */
static void check_header(const struct wcx_safetensors *st)
{
	uint64_t at = st->header_bytes, dims = 0;

	for (size_t i = 0; i < st->tensor_count; i++) {
		const struct wcx_tensor *tensor = &st->tensors[i];

		require(tensor->offset == at);
		require(strlen(tensor->name) < st->header_bytes);
		require(strlen(tensor->dtype) < st->header_bytes);
		require(strchr("\1\2\4\10", (int)tensor->elem_bytes) && tensor->elem_bytes != 0);
		require(tensor->bytes % tensor->elem_bytes == 0);
		for (size_t d = 0; d < tensor->dim_count; d++)
			dims += tensor->shape[d] != 0;
		at += tensor->bytes;
	}
	require(at == st->file_bytes);
	require(dims <= st->header_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes)
{
	struct wcx_safetensors *st = NULL;
	struct wcx_error err = { "" };
	uint64_t json_bytes, data_bytes;
	int result;

	wcx_safetensors_json_bytes("fuzz", input, input_bytes, &json_bytes, NULL);
	if (input_bytes < 2)
		return 0;
	data_bytes = (uint64_t)input[0] | (uint64_t)input[1] << 8;
	json_bytes = input_bytes - 2;
	result = wcx_safetensors_parse("fuzz", (const char *)input + 2, json_bytes,
				       WCX_SAFETENSORS_LENGTH_BYTES + json_bytes + data_bytes, &st, &err);
	require(result == 0 || result == -EINVAL);
	require((result == 0) == (st != NULL) && (result == 0) == (err.text[0] == '\0'));
	if (st)
		check_header(st);
	wcx_safetensors_free(st);
	return 0;
}
