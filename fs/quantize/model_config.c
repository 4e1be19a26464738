/* SPDX-License-Identifier: MIT */
/* Reads config.json and adds a quantization_config to it. */
#include "fs/quantize/model_config.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"
#include "fs/quantize/small_file.h"

enum { CONFIG_MAX_BYTES = 64 << 20 };

static const char indentation[] = "  ";

/* Whether a key of a configuration, or of the text part of one with several, says that the model has experts. */
static bool counts_experts(const json_t *config)
{
	static const char *const keys[] = { "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts" };

	for (size_t i = 0; i < WCX_ARRAY_COUNT(keys); i++)
		if (json_integer_value(json_object_get(config, keys[i])) > 1)
			return true;
	return false;
}

static void take_facts(const json_t *root, struct wcx_model_config *config)
{
	const json_t *text = json_object_get(root, "text_config"), *vocab = json_object_get(root, "vocab_size");
	const char *model_type = json_string_value(json_object_get(root, "model_type"));

	if (!vocab)
		vocab = json_object_get(text, "vocab_size");
	if (json_integer_value(vocab) > 0)
		config->vocab_size = (uint64_t)json_integer_value(vocab);
	if (model_type && strlen(model_type) < sizeof config->model_type)
		strcpy(config->model_type, model_type);
	config->has_experts = counts_experts(root) || counts_experts(text);
	config->is_quantized = json_is_object(json_object_get(root, "quantization_config")) ||
			       json_is_object(json_object_get(root, "compression_config")) ||
			       json_is_object(json_object_get(text, "quantization_config"));
}

int wcx_model_config_read(const char *directory, struct wcx_model_config *ret, struct wcx_error *err)
{
	struct wcx_model_config config = { 0 };
	json_error_t fault;
	json_t *root;
	int r = wcx_small_file_read(directory, "config.json", CONFIG_MAX_BYTES, &config.text, &config.bytes, err);

	if (r < 0)
		return r;
	root = json_loadb(config.text, config.bytes, JSON_REJECT_DUPLICATES, &fault);
	if (!json_is_object(root)) {
		r = wcx_fail(err, EINVAL, "%s/config.json: %s, line %d", directory, root ? "no JSON object" : fault.text,
			     root ? 1 : fault.line);
	} else if (json_is_null(json_object_get(root, "quantization_config"))) {
		/* A second key of that name would be added, which some readers refuse. */
		r = wcx_fail(err, EINVAL, "%s/config.json: quantization_config is null; remove it", directory);
	} else {
		take_facts(root, &config);
		*ret = config;
		config.text = NULL;
	}
	json_decref(root);
	free(config.text);
	return r;
}

void wcx_model_config_free(struct wcx_model_config *config)
{
	free(config->text);
	config->text = NULL;
}

static json_t *ignored(const struct wcx_quantization *quantization)
{
	json_t *ignore = json_array();

	for (size_t i = 0; i < quantization->ignore_count; i++)
		json_array_append_new(ignore, json_string(quantization->ignore[i]));
	return ignore;
}

static json_t *describe(const struct wcx_quantization *quantization)
{
	json_t *activations = NULL;

	if (!quantization->is_packed)
		activations = json_pack("{s:i, s:s, s:b, s:n, s:s, s:b}", "num_bits", 8, "type", "int", "symmetric", 1,
					"group_size", "strategy", "token", "dynamic", 1);
	return json_pack("{s:s, s:s, s:s, s:{s:{s:[s], s:{s:i, s:s, s:b, s:n, s:s, s:b}, s:o?, s:n}}, s:o}", "quant_method",
			 "compressed-tensors", "format", quantization->is_packed ? "pack-quantized" : "int-quantized",
			 "quantization_status", "compressed", "config_groups", "group_0", "targets", "Linear", "weights",
			 "num_bits", 8, "type", "int", "symmetric", 1, "group_size", "strategy",
			 quantization->is_per_tensor ? "tensor" : "channel", "dynamic", 0, "input_activations", activations,
			 "output_activations", "ignore", ignored(quantization));
}

/* Copies JSON with its lines moved to the right, as it stands in an object. */
static void write_indented(FILE *out, const char *json)
{
	for (; *json; json++) {
		fputc(*json, out);
		if (*json == '\n')
			fputs(indentation, out);
	}
}

/* The text of an object, with another key; object_bytes is where its last brace stands. */
static char *insert(const struct wcx_model_config *config, size_t object_bytes, const char *value)
{
	size_t end = object_bytes, written;
	char *text = NULL;
	FILE *out = open_memstream(&text, &written);

	if (!out)
		return NULL;
	while (end && strchr(" \t\r\n", config->text[end - 1]))
		end--;
	fwrite(config->text, 1, end, out);
	fputs(config->text[end - 1] == '{' ? "\n" : ",\n", out);
	fputs(indentation, out);
	fputs("\"quantization_config\": ", out);
	write_indented(out, value);
	fputc('\n', out);
	fputs(config->text + object_bytes, out);
	if (fclose(out) == EOF) {
		free(text);
		return NULL;
	}
	return text;
}

char *wcx_model_config_quantized(const struct wcx_model_config *config, const struct wcx_quantization *quantization)
{
	json_t *description = describe(quantization);
	char *value = description ? json_dumps(description, JSON_INDENT(sizeof indentation - 1)) : NULL;
	const char *brace = memrchr(config->text, '}', config->bytes);
	char *text = value && brace ? insert(config, (size_t)(brace - config->text), value) : NULL;

	free(value);
	json_decref(description);
	return text;
}
