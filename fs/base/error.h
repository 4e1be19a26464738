/* SPDX-License-Identifier: MIT */
/* Errors of the file-system core: functions return 0 or -errno and explain themselves in a struct that the caller owns. */
#ifndef WCX_ERROR_H
#define WCX_ERROR_H

#include "codec/result.h"

enum { WCX_ERROR_TEXT_BYTES = 640 };

/* text is one line without a newline, naming the file and, where there is one, the tensor, the tile and the offset. */
struct wcx_error {
	char text[WCX_ERROR_TEXT_BYTES];
};

/* wcx_fail - write a message (err may be NULL) and return -errnum; bytes that are not printable become '?' */
int wcx_fail(struct wcx_error *err, int errnum, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* wcx_result_errno - the -errno that stands for a result of codec or cuda; 0 for WCX_OK */
int wcx_result_errno(enum wcx_result result);

#endif
