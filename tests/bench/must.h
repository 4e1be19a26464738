/* SPDX-License-Identifier: MIT */
/* What ends a benchmark: one that cannot go on has nothing to report. */
#ifndef WCX_MUST_H
#define WCX_MUST_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* must_not - print whose fault it is and what the fault is, and exit with status 1 */
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
