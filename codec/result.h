/* SPDX-License-Identifier: MIT */
/* What the functions of codec and cuda return. */
#ifndef WCX_RESULT_H
#define WCX_RESULT_H

enum wcx_result {
	WCX_OK,
	WCX_BAD_DATA,      /* the input breaks a rule of docs/format.md */
	WCX_WRONG_SIZE,    /* sizes given by the caller contradict each other */
	WCX_NO_MEMORY,     /* host memory could not be had */
	WCX_NO_DEVICE,     /* no usable GPU, or built without CUDA */
	WCX_DEVICE_FAILED, /* the GPU failed; what it was doing can be done on the CPU */
};

#endif
