/* SPDX-License-Identifier: MIT */
/*
 * Predictors: a byte plane turned into residuals and back (docs/format.md, section 3.2).  No function allocates; all are
 * safe from any number of threads.
 */
#ifndef WCX_PREDICT_H
#define WCX_PREDICT_H

#include <stdint.h>

#include "codec/tile.h"

/* wcx_residuals_make - residual = plane - prediction, modulo 256; both are rows * cols bytes and may not overlap */
void wcx_residuals_make(enum wcx_predictor predictor, uint32_t rows, uint32_t cols, const uint8_t *plane, uint8_t *residual);

/* wcx_residuals_undo - turn rows * cols residuals into the plane, in place */
void wcx_residuals_undo(enum wcx_predictor predictor, uint32_t rows, uint32_t cols, uint8_t *plane);

#endif
