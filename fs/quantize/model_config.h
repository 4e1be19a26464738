/* SPDX-License-Identifier: MIT */
/* A model's config.json: what decides on quantising, and the same text with a quantization_config. */
#ifndef WCX_MODEL_CONFIG_H
#define WCX_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"

enum { WCX_MODEL_TYPE_BYTES = 64 };

struct wcx_model_config {
	char *text; /* as in the file, with a zero byte behind it */
	size_t bytes;
	char model_type[WCX_MODEL_TYPE_BYTES]; /* empty: the file does not say */
	uint64_t vocab_size;                   /* 0: none */
	bool is_quantized;                     /* has a quantization_config */
	bool has_experts;                      /* says that there are some */
};

/* How the weights of a model are quantised. */
struct wcx_quantization {
	bool is_packed;            /* pack-quantized W8A16; otherwise int-quantized W8A8, activations by token */
	bool is_per_tensor;        /* one scale for a tensor; otherwise for each of its rows, the outputs */
	const char *const *ignore; /* names of modules and expressions, for readers of the model */
	size_t ignore_count;
};

/*
 * wcx_model_config_read - read config.json, an untrusted file of up to 64 MiB
 *
 * Returns 0 with *ret, which the caller frees; -ENOENT without such a file; -EINVAL if it is no JSON object; or -errno.
 */
int wcx_model_config_read(const char *directory, struct wcx_model_config *ret, struct wcx_error *err);
void wcx_model_config_free(struct wcx_model_config *config);

/*
 * wcx_model_config_quantized - the text of config.json for the quantised model, which the caller frees; NULL: no memory
 *
 * All that was in it stays byte for byte; quantization_config is the last key.
 */
char *wcx_model_config_quantized(const struct wcx_model_config *config, const struct wcx_quantization *quantization);

#endif
