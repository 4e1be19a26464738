/* SPDX-License-Identifier: MIT */
/* Writes error messages that are safe to print, and translates results of codec and cuda. */
#include "fs/base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/utf8.h"

/* Removes what a terminal would interpret: names come from untrusted files. */
static void clean_text(char *text)
{
	size_t left = strlen(text);

	while (left > 0) {
		int length = wcx_utf8_sequence(text, left);

		if (length <= 0 || wcx_utf8_is_control(text)) {
			*text = '?';
			length = 1;
		}
		text += length;
		left -= (size_t)length;
	}
}

/* Ends a truncated text in "...", after a whole character. */
static void mark_cut(char text[WCX_ERROR_TEXT_BYTES])
{
	static const char dots[] = "...";
	size_t end = WCX_ERROR_TEXT_BYTES - sizeof(dots);

	while (end > 0 && ((unsigned char)text[end] & 0xC0) == 0x80)
		end--;
	memcpy(text + end, dots, sizeof(dots));
}

int wcx_fail(struct wcx_error *err, int errnum, const char *format, ...)
{
	va_list args;
	int length;

	if (!err)
		return -errnum;
	err->text[0] = '\0';
	va_start(args, format);
	length = vsnprintf(err->text, sizeof(err->text), format, args);
	va_end(args);
	clean_text(err->text);
	if (length >= (int)sizeof(err->text))
		mark_cut(err->text);
	return -errnum;
}

int wcx_result_errno(enum wcx_result result)
{
	switch (result) {
	case WCX_OK:
		return 0;
	case WCX_BAD_DATA:
		return -EBADMSG;
	case WCX_WRONG_SIZE:
		return -EINVAL;
	case WCX_NO_MEMORY:
		return -ENOMEM;
	case WCX_NO_DEVICE:
		return -ENODEV;
	case WCX_DEVICE_FAILED:
		return -EIO;
	}
	return -EINVAL;
}
