/* SPDX-License-Identifier: MIT */
/* Makes the directories above an output, and removes them again if that came to nothing. */
#ifndef WCX_PARENTS_H
#define WCX_PARENTS_H

#include <stddef.h>

/*
 * wcx_parents_make - make the directories above a path that are missing, as mkdir -p does
 *
 * *made_ret becomes the bytes of the path up to and with the first that was made; 0: all were there.  Returns 0 or -errno;
 * what was made is to be kept or removed in either case.
 */
int wcx_parents_make(const char *path, size_t *made_ret);

/* wcx_parents_remove - remove what wcx_parents_make has made above the path, as far as it is empty */
void wcx_parents_remove(const char *path, size_t made);

/* wcx_parents_nearest - open the nearest directory above a path that is there (O_PATH): a descriptor or -errno */
int wcx_parents_nearest(const char *path);

#endif
