/* SPDX-License-Identifier: MIT */
/* What a packed file contains, as a table or as JSON, on standard output. */
#ifndef WCX_INFO_REPORT_H
#define WCX_INFO_REPORT_H

#include "fs/format/container.h"
#include "fs/format/safetensors.h"
#include "fs/pack/compare.h"
#include "fs/read/image.h"

struct wcx_info {
	struct wcx_image *image; /* its bases are looked for */
	const struct wcx_container *container;
	const struct wcx_safetensors *st;
	const struct wcx_comparison *comparisons; /* one per tensor, or NULL: leave these columns out */
};

/* Both leave errors of writing to stdout, which main checks. */
void wcx_info_print_table(const struct wcx_info *info);
void wcx_info_print_json(const struct wcx_info *info);

#endif
