/* SPDX-License-Identifier: MIT */
/*
 * Inode numbers of the mount: one number for one file as it is shown, across the file systems below a store.
 *
 * A file's own number is not enough: two file systems may use the same, and a packed file that has a hard link under a name
 * without .wcx is shown with two contents.  Most numbers are computed from device, inode and how the file is shown, so they
 * take no memory; the rest, of file systems with huge inode numbers, are remembered.  Numbers stay the same until the map is
 * freed.  Safe from any number of threads.
 */
#ifndef WCX_INODE_NUMBERS_H
#define WCX_INODE_NUMBERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct wcx_inode_numbers;

struct wcx_inode_numbers *wcx_inode_numbers_create(void); /* NULL when out of memory */
void wcx_inode_numbers_free(struct wcx_inode_numbers *numbers);

/*
 * wcx_inode_number - the number of a file
 *
 * packed: the file's original is shown.  Never 0.  Returns UINT64_MAX if there is no memory to remember a number, which is
 * then not unique.
 */
uint64_t wcx_inode_number(struct wcx_inode_numbers *numbers, dev_t dev, ino_t ino, bool packed);

#endif
