/* SPDX-License-Identifier: MIT */
/* Result codes of codec and cuda. */
#ifndef WCX_RESULT_H
#define WCX_RESULT_H

enum wcx_result {
	WCX_OK,
	WCX_BAD_DATA,      /* the input breaks a rule of docs/format.md */
	WCX_WRONG_SIZE,    /* the caller's sizes contradict each other */
	WCX_NO_MEMORY,     /* out of host memory */
	WCX_NO_DEVICE,     /* no usable GPU, or built without CUDA */
	WCX_DEVICE_FAILED, /* the GPU failed; the CPU can still do the work */
};

#endif
