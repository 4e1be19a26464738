/* SPDX-License-Identifier: MIT */
/* A packed tile for timing decoders: 32 KiB of normally distributed INT8 weights, coded as the packer does it. */
#ifndef WCX_TRIAL_TILE_H
#define WCX_TRIAL_TILE_H

#include "codec/tile.h"

struct wcx_trial_tile;

struct wcx_trial_tile *wcx_trial_tile_create(void);    /* NULL: no memory */
void wcx_trial_tile_free(struct wcx_trial_tile *tile); /* accepts NULL */

/* wcx_trial_tile_job - a job that decodes the tile, valid as long as the tile; the caller sets dst */
struct wcx_tile_job wcx_trial_tile_job(const struct wcx_trial_tile *tile);

#endif
