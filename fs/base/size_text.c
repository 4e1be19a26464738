/* SPDX-License-Identifier: MIT */
/* Writes numbers of bytes with a unit. */
#include "fs/base/size_text.h"

#include <stddef.h>
#include <stdio.h>

static const char prefixes[] = "kMGTPE";

/* infix: what binary units have between prefix and "B". */
static const char *write_text(double bytes, unsigned step, const char *infix, char text[WCX_SIZE_TEXT_BYTES])
{
	size_t units = 0;

	while (bytes >= 999.5 && units + 1 < sizeof prefixes) {
		bytes /= step;
		units++;
	}
	if (!units)
		snprintf(text, WCX_SIZE_TEXT_BYTES, "%.0f B", bytes);
	else
		snprintf(text, WCX_SIZE_TEXT_BYTES, "%.*f %c%sB", bytes < 99.95 ? 1 : 0, bytes,
			 *infix && units == 1 ? 'K' : prefixes[units - 1], infix);
	return text;
}

const char *wcx_size_text(double bytes, char text[WCX_SIZE_TEXT_BYTES])
{
	return write_text(bytes, 1000, "", text);
}

const char *wcx_memory_text(double bytes, char text[WCX_SIZE_TEXT_BYTES])
{
	return write_text(bytes, 1024, "i", text);
}
