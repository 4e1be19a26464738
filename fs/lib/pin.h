/* SPDX-License-Identifier: MIT */
/*
 * A copy of a packed file in pinned memory, from which GPUs copy at their link's speed.
 *
 * It is a copy and not the file's mapping: that would cost no memory beside the page cache, but whoever writes to the file
 * would change bytes that have been checked already.
 */
#ifndef WCX_PIN_H
#define WCX_PIN_H

#include "fs/base/error.h"
#include "fs/read/image.h"

struct wcx_pin {
	uint8_t *bytes; /* the file, up to the end of its tiles; NULL if there is none */
	size_t mapped_bytes;
	int device; /* on which it was pinned */
};

/*
 * wcx_pin_make - read the tiles of an image into memory, check them, and pin the memory
 *
 * Returns 0, -EBADMSG (a tile is damaged; err names it), -ENOMEM, -ENODEV (the GPU refuses), or the errno of a failed read;
 * *pin is then left alone.  Otherwise the caller frees it.
 */
int wcx_pin_make(struct wcx_image *image, int device, unsigned thread_count, struct wcx_pin *pin, struct wcx_error *err);
void wcx_pin_free(struct wcx_pin *pin); /* a zero pin is fine */

#endif
