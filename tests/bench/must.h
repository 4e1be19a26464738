/* SPDX-License-Identifier: MIT */
/* Errors end a benchmark: without a result it has nothing to report. */
#ifndef WCX_MUST_H
#define WCX_MUST_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* must_not - print what failed and why, and exit with status 1 */
static inline _Noreturn void must_not(const char *name, const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, name, what);
	exit(1);
}

/* must_alloc - memory that is not NULL; the caller frees it */
static inline void *must_alloc(size_t bytes)
{
	void *memory = malloc(bytes ? bytes : 1);

	if (!memory)
		must_not("memory", strerror(errno));
	return memory;
}

#endif
