/* SPDX-License-Identifier: MIT */
/* What a model card says about where a model comes from. */
#ifndef WCX_MODEL_CARD_H
#define WCX_MODEL_CARD_H

#include <stdbool.h>

enum { WCX_CARD_NAME_BYTES = 128 };

/*
 * wcx_model_card_base - the name of the model that a directory's README.md gives as base_model, without its owner
 *
 * Of several, the first.  Returns false if the directory has no card, or this has no front matter that says so.
 */
bool wcx_model_card_base(int directory_fd, char ret[WCX_CARD_NAME_BYTES]);

/* wcx_model_card_names - whether a directory on a path has that name, or is the one of a Hugging Face cache for it */
bool wcx_model_card_names(const char *name, const char *path);

#endif
