/* SPDX-License-Identifier: MIT */
/* Prints names, which may come from anybody, as what a terminal only shows. */
#include "tools/print.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "fs/base/error.h"

void wcx_print_list(FILE *out, const char *format, va_list args)
{
	char *text;
	int bytes = vasprintf(&text, format, args);
	bool ends_line;

	if (bytes < 0)
		return;
	ends_line = bytes > 0 && format[strlen(format) - 1] == '\n';
	if (ends_line)
		text[bytes - 1] = '\0';
	wcx_clean_text(text);
	fprintf(out, ends_line ? "%s\n" : "%s", text); /* one call: lines of several threads do not mix */
	free(text);
}

void wcx_print(FILE *out, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	wcx_print_list(out, format, args);
	va_end(args);
}
