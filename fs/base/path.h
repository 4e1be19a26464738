/* SPDX-License-Identifier: MIT */
/* Takes paths apart, and shortens them. */
#ifndef WCX_PATH_H
#define WCX_PATH_H

#include <stdbool.h>

/* wcx_directory_of - the directory that a path is in, or "."; the caller frees it.  NULL: no memory */
char *wcx_directory_of(const char *path);

/* wcx_path_is_in - whether a path is a directory or leads into it; both are canonical */
bool wcx_path_is_in(const char *path, const char *directory);

/* wcx_last_name - the last name of a path, within it */
const char *wcx_last_name(const char *path);

/*
 * wcx_plain_path - a path without "NAME/..", for what is printed; the caller frees it.  NULL: no memory
 *
 * The base of a file is opened by its hint, from the file's directory.  A NAME that is a link stays: ".." leads elsewhere
 * there.
 */
char *wcx_plain_path(const char *path);

#endif
