/* SPDX-License-Identifier: MIT */
/* Errors: functions return 0 or -errno, and put a message into a struct that the caller owns. */
#ifndef WCX_ERROR_H
#define WCX_ERROR_H

#include "codec/result.h"

enum { WCX_ERROR_TEXT_BYTES = 640 };

/* One line without a newline, naming the file and, where they apply, tensor, tile and offset. */
struct wcx_error {
	char text[WCX_ERROR_TEXT_BYTES];
};

/*
 * wcx_fail - write a message (err may be NULL) and return -errnum
 *
 * Control characters and malformed UTF-8 become '?'.  Of a message that is too long the middle is left out.
 */
int wcx_fail(struct wcx_error *err, int errnum, const char *format, ...) __attribute__((format(printf, 3, 4)));

/*
 * wcx_clean_text - replace what a terminal would interpret, since names come from untrusted files
 *
 * Control characters and malformed UTF-8 become '?', as in messages.
 */
void wcx_clean_text(char *text);

/* wcx_result_errno - the -errno that stands for a result of codec or cuda; 0 for WCX_OK */
int wcx_result_errno(enum wcx_result result);

#endif
