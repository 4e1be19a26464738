/* SPDX-License-Identifier: MIT */
/* Tells what a file is that is not a safetensors file, by its first bytes. */
#ifndef WCX_FILE_KIND_H
#define WCX_FILE_KIND_H

#include <stddef.h>
#include <stdint.h>

enum { WCX_FILE_KIND_BYTES = 512 }; /* are enough to tell */

/*
 * wcx_file_kind - for messages: "looks like GGUF", "packed already"; NULL if it looks like nothing known
 *
 * src holds the first min(WCX_FILE_KIND_BYTES, size of the file) bytes.
 */
const char *wcx_file_kind(const uint8_t *src, size_t src_bytes);

#endif
