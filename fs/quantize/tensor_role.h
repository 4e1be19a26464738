/* SPDX-License-Identifier: MIT */
/*
 * Which tensors of a model are the weights of linear layers, told by shape, name and the model's type.
 *
 * Pure functions on what they are given.
 */
#ifndef WCX_TENSOR_ROLE_H
#define WCX_TENSOR_ROLE_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/format/safetensors.h"

enum wcx_tensor_role {
	WCX_ROLE_LINEAR,    /* the weight of a linear layer: the only one that is quantised */
	WCX_ROLE_HEAD,      /* the output layer, or an embedding: as many rows as the vocabulary */
	WCX_ROLE_EMBEDDING, /* by its name */
	WCX_ROLE_NORM,
	WCX_ROLE_ROUTER,  /* chooses experts */
	WCX_ROLE_EXPERT,  /* part of a mixture of experts */
	WCX_ROLE_IGNORED, /* the user said so */
	WCX_ROLE_OTHER,   /* no float matrix called .weight: biases, convolutions, buffers */
};

/* wcx_tensor_role - all but WCX_ROLE_IGNORED; vocab_size is 0 where the model has none */
enum wcx_tensor_role wcx_tensor_role(const struct wcx_tensor *tensor, uint64_t vocab_size);

/* wcx_tensor_role_name - for tables: "linear", "output layer" and so on */
const char *wcx_tensor_role_name(enum wcx_tensor_role role);

/* wcx_tensor_is_matrix - whether it may be the weight of a linear layer, whatever its name says */
bool wcx_tensor_is_matrix(const struct wcx_tensor *tensor);

/* wcx_tensor_is_quantized - whether name or dtype say that a model has been quantised already, in any way */
bool wcx_tensor_is_quantized(const struct wcx_tensor *tensor);

enum wcx_model_layout {
	WCX_LAYOUT_UNKNOWN,
	WCX_LAYOUT_LINEAR, /* matrices that wcx_tensor_role calls linear are torch.nn.Linear, [outputs, inputs] */
	WCX_LAYOUT_CONV1D, /* they are transposed */
};

/*
 * wcx_model_layout - what is known of a model_type of config.json
 *
 * *head_ret is the name of the output layer, which may be tied to an embedding and then has no tensor; NULL: none.
 */
enum wcx_model_layout wcx_model_layout(const char *model_type, const char **head_ret);

#endif
