/* SPDX-License-Identifier: MIT */
/* Names and shapes of weights. */
#include "fs/quantize/tensor_role.h"

#include <string.h>
#include <strings.h>

#include "codec/arith.h"

static const char weight_suffix[] = ".weight";

static bool ends_with(const char *text, size_t bytes, const char *suffix)
{
	const size_t suffix_bytes = strlen(suffix);

	return bytes >= suffix_bytes && memcmp(text + bytes - suffix_bytes, suffix, suffix_bytes) == 0;
}

static bool is_one_of(const char *text, size_t bytes, const char *const *words, size_t word_count)
{
	for (size_t i = 0; i < word_count; i++)
		if (strlen(words[i]) == bytes && memcmp(words[i], text, bytes) == 0)
			return true;
	return false;
}

bool wcx_tensor_is_matrix(const struct wcx_tensor *tensor)
{
	static const char *const floats[] = { "F16", "BF16", "F32", "F64" };

	return tensor->dim_count == 2 && tensor->bytes > 0 && ends_with(tensor->name, tensor->name_bytes, weight_suffix) &&
	       is_one_of(tensor->dtype, strlen(tensor->dtype), floats, WCX_ARRAY_COUNT(floats));
}

/* Whether a name, such as layers.0.mlp.experts.3.up_proj, has a component of which `word` is a part. */
static bool mentions(const struct wcx_tensor *tensor, const char *word)
{
	return strcasestr(tensor->name, word) != NULL;
}

enum wcx_tensor_role wcx_tensor_role(const struct wcx_tensor *tensor, uint64_t vocab_size)
{
	static const char *const tables[] = { "wte", "wpe", "shared", "relative_attention_bias", "codebook" };
	static const char *const heads[] = { "lm_head", "embed_out" };
	static const char *const routers[] = { "gate", "router" };
	const size_t module_bytes = tensor->name_bytes - WCX_MIN(tensor->name_bytes, sizeof weight_suffix - 1);
	const char *dot = memrchr(tensor->name, '.', module_bytes), *layer = dot ? dot + 1 : tensor->name;
	const size_t layer_bytes = module_bytes - (size_t)(layer - tensor->name);

	if (mentions(tensor, "experts") || mentions(tensor, "block_sparse_moe.expert"))
		return WCX_ROLE_EXPERT;
	if (!wcx_tensor_is_matrix(tensor))
		return WCX_ROLE_OTHER;
	if (is_one_of(layer, layer_bytes, heads, WCX_ARRAY_COUNT(heads)) || (vocab_size && tensor->shape[0] == vocab_size))
		return mentions(tensor, "embed") ? WCX_ROLE_EMBEDDING : WCX_ROLE_HEAD;
	if (mentions(tensor, "embed") || ends_with(layer, layer_bytes, "_emb") ||
	    is_one_of(layer, layer_bytes, tables, WCX_ARRAY_COUNT(tables)))
		return WCX_ROLE_EMBEDDING;
	if (is_one_of(layer, layer_bytes, routers, WCX_ARRAY_COUNT(routers)))
		return WCX_ROLE_ROUTER;
	return mentions(tensor, "norm") ? WCX_ROLE_NORM : WCX_ROLE_LINEAR;
}

const char *wcx_tensor_role_name(enum wcx_tensor_role role)
{
	switch (role) {
	case WCX_ROLE_LINEAR:
		return "linear";
	case WCX_ROLE_HEAD:
		return "output layer";
	case WCX_ROLE_EMBEDDING:
		return "embedding";
	case WCX_ROLE_NORM:
		return "norm";
	case WCX_ROLE_ROUTER:
		return "router";
	case WCX_ROLE_EXPERT:
		return "expert";
	case WCX_ROLE_IGNORED:
		return "ignored";
	case WCX_ROLE_OTHER:
		break;
	}
	return "no matrix";
}

bool wcx_tensor_is_quantized(const struct wcx_tensor *tensor)
{
	static const char *const suffixes[] = { ".weight_scale", ".weight_packed", ".weight_scale_inv",
						".weight_shape", ".qweight",       ".qzeros",
						".g_idx",        ".SCB",           ".weight.absmax" };
	static const char *const dtypes[] = { "I8", "U8", "I32", "U32", "I16", "U16", "F4", "F6_E2M3", "F6_E3M2" };

	for (size_t i = 0; i < WCX_ARRAY_COUNT(suffixes); i++)
		if (ends_with(tensor->name, tensor->name_bytes, suffixes[i]))
			return true;
	if (strncmp(tensor->dtype, "F8", 2) == 0)
		return true;
	return ends_with(tensor->name, tensor->name_bytes, weight_suffix) &&
	       is_one_of(tensor->dtype, strlen(tensor->dtype), dtypes, WCX_ARRAY_COUNT(dtypes));
}

/*
 * Types whose modules were compared with wcx_tensor_role in transformers 5.24: with the type's default configuration, each
 * matrix that is called linear is a torch.nn.Linear, for the bare model and its heads; and small models with random weights
 * were quantised, loaded and run.  ModernBERT, T5, Falcon and GPT-BigCode are not among them, as their code asks layers for
 * .weight, which pack-quantized ones do not have.
 */
static const struct {
	const char *model_type, *head;
} linear_models[] = {
	{ "albert", "predictions.decoder" },
	{ "arcee", "lm_head" },
	{ "bart", "lm_head" },
	{ "bert", "cls.predictions.decoder" },
	{ "bert-generation", "lm_head.decoder" },
	{ "big_bird", "cls.predictions.decoder" },
	{ "biogpt", "output_projection" },
	{ "blenderbot", "lm_head" },
	{ "bloom", "lm_head" },
	{ "camembert", "lm_head.decoder" },
	{ "codegen", "lm_head" },
	{ "cohere", "lm_head" },
	{ "cohere2", "lm_head" },
	{ "ctrl", "lm_head" },
	{ "data2vec-text", "lm_head.decoder" },
	{ "deberta", "cls.predictions.decoder" },
	{ "deberta-v2", "cls.predictions.decoder" },
	{ "diffllama", "lm_head" },
	{ "distilbert", "vocab_projector" },
	{ "electra", "generator_lm_head" },
	{ "ernie", "cls.predictions.decoder" },
	{ "ernie4_5", "lm_head" },
	{ "exaone4", "lm_head" },
	{ "gemma", "lm_head" },
	{ "gemma2", "lm_head" },
	{ "gemma3_text", "lm_head" },
	{ "glm", "lm_head" },
	{ "glm4", "lm_head" },
	{ "gpt_neo", "lm_head" },
	{ "gpt_neox", "embed_out" },
	{ "gptj", "lm_head" },
	{ "granite", "lm_head" },
	{ "helium", "lm_head" },
	{ "llama", "lm_head" },
	{ "m2m_100", "lm_head" },
	{ "marian", "lm_head" },
	{ "mbart", "lm_head" },
	{ "megatron-bert", "cls.predictions.decoder" },
	{ "ministral3", "lm_head" },
	{ "mistral", "lm_head" },
	{ "mobilebert", "cls.predictions.decoder" },
	{ "mpnet", "lm_head.decoder" },
	{ "mpt", "lm_head" },
	{ "olmo", "lm_head" },
	{ "olmo2", "lm_head" },
	{ "olmo3", "lm_head" },
	{ "opt", "lm_head" },
	{ "pegasus", "lm_head" },
	{ "persimmon", "lm_head" },
	{ "phi", "lm_head" },
	{ "phi3", "lm_head" },
	{ "qwen2", "lm_head" },
	{ "qwen3", "lm_head" },
	{ "rembert", "cls.predictions.decoder" },
	{ "roberta", "lm_head.decoder" },
	{ "roformer", "cls.predictions.decoder" },
	{ "seed_oss", "lm_head" },
	{ "smollm3", "lm_head" },
	{ "stablelm", "lm_head" },
	{ "starcoder2", "lm_head" },
	{ "vit", NULL },
	{ "whisper", "proj_out" },
	{ "xglm", "lm_head" },
	{ "xlm-roberta", "lm_head.decoder" },
};

enum wcx_model_layout wcx_model_layout(const char *model_type, const char **head_ret)
{
	static const char *const transposed[] = { "gpt2", "gpt-sw3", "openai-gpt",          "imagegpt",
						  "clvp", "ibert",   "decision_transformer" };

	*head_ret = NULL;
	for (size_t i = 0; i < WCX_ARRAY_COUNT(linear_models); i++) {
		if (strcmp(linear_models[i].model_type, model_type) == 0) {
			*head_ret = linear_models[i].head;
			return WCX_LAYOUT_LINEAR;
		}
	}
	return is_one_of(model_type, strlen(model_type), transposed, WCX_ARRAY_COUNT(transposed)) ? WCX_LAYOUT_CONV1D
												  : WCX_LAYOUT_UNKNOWN;
}
