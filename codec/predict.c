/* SPDX-License-Identifier: MIT */
/* Predicts a byte of a plane from its neighbours to the left and above. */
#include "codec/predict.h"

#include <string.h>

/* The mean of two signed bytes, rounded down; the detour keeps the division among numbers that are not negative. */
static uint8_t average(uint8_t a, uint8_t b)
{
	return (uint8_t)(((int8_t)a + (int8_t)b + 256) / 2 - 128);
}

void wcx_residuals_make(enum wcx_predictor predictor, uint32_t rows, uint32_t cols, const uint8_t *plane, uint8_t *residual)
{
	for (uint32_t y = 0; y < rows; y++, plane += cols, residual += cols) {
		switch (predictor) {
		case WCX_PREDICT_LEFT:
			residual[0] = plane[0];
			for (uint32_t x = 1; x < cols; x++)
				residual[x] = (uint8_t)(plane[x] - plane[x - 1]);
			break;
		case WCX_PREDICT_UP:
			for (uint32_t x = 0; x < cols; x++)
				residual[x] = (uint8_t)(plane[x] - (y ? plane[(int64_t)x - cols] : 0));
			break;
		case WCX_PREDICT_AVG:
			for (uint32_t x = 0; x < cols; x++)
				residual[x] = (uint8_t)(plane[x] -
							average(x ? plane[x - 1] : 0, y ? plane[(int64_t)x - cols] : 0));
			break;
		case WCX_PREDICT_NONE:
		case WCX_PREDICTOR_COUNT:
			memcpy(residual, plane, cols);
			break;
		}
	}
}

void wcx_residuals_undo(enum wcx_predictor predictor, uint32_t rows, uint32_t cols, uint8_t *plane)
{
	if (predictor == WCX_PREDICT_NONE)
		return;
	for (uint32_t y = 0; y < rows; y++, plane += cols) {
		switch (predictor) {
		case WCX_PREDICT_LEFT:
			for (uint32_t x = 1; x < cols; x++)
				plane[x] = (uint8_t)(plane[x] + plane[x - 1]);
			break;
		case WCX_PREDICT_UP:
			for (uint32_t x = 0; y && x < cols; x++)
				plane[x] = (uint8_t)(plane[x] + plane[(int64_t)x - cols]);
			break;
		case WCX_PREDICT_AVG:
			for (uint32_t x = 0; x < cols; x++)
				plane[x] = (uint8_t)(plane[x] +
						     average(x ? plane[x - 1] : 0, y ? plane[(int64_t)x - cols] : 0));
			break;
		case WCX_PREDICT_NONE:
		case WCX_PREDICTOR_COUNT:
			break;
		}
	}
}
