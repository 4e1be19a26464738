/* SPDX-License-Identifier: MIT */
/* A tile to time decoders with: 64 KiB of INT8 weights with the distribution of a bell. */
#ifndef WCX_DECODE_TRIAL_H
#define WCX_DECODE_TRIAL_H

#include "codec/tile.h"

struct wcx_decode_trial;

struct wcx_decode_trial *wcx_decode_trial_create(void);     /* NULL when there is no memory */
void wcx_decode_trial_free(struct wcx_decode_trial *trial); /* NULL is fine */

/* wcx_decode_trial_job - a job for the tile; its bytes live as long as the trial, and dst is the caller's to set */
struct wcx_tile_job wcx_decode_trial_job(const struct wcx_decode_trial *trial);

#endif
