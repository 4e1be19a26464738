/* SPDX-License-Identifier: MIT */
/*
 * Under which names a store's entries are shown, and where its links lead.
 *
 *   a regular file NAME.wcx        is shown as NAME
 *   a link NAME.wcx to such a file is shown as NAME; so is one that leads nowhere, if its text is relative and ends in .wcx
 *   everything else                is shown under its own name
 *
 * A link leads to the same entry in the mount as in the store: where that is shown without .wcx, the link's text is, too; an
 * absolute text that names the store becomes relative.  Texts that lead out of the store are shown unchanged.  A link NAME
 * to NAME.wcx would lead to itself; the file is shown instead.  So it is for a link NAME beside NAME.wcx that leads out of
 * the store, to a path that ends in the link's own path in the store: `wcx hub` leaves such links to the mount in place of
 * what it packed.
 */
#ifndef WCX_SHOWN_NAMES_H
#define WCX_SHOWN_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "fs/mount/beneath.h"

/* wcx_stem_bytes - the bytes of a name in front of .wcx; 0 if it has no such suffix, or nothing usable in front of it */
size_t wcx_stem_bytes(const char *name);

/* wcx_last_component - what follows the last slash of a path */
const char *wcx_last_component(const char *path);

/* wcx_is_shown_stripped - whether the entry at a stored path, with this st_mode, is shown without its suffix */
bool wcx_is_shown_stripped(const struct wcx_beneath *beneath, const char *path, mode_t mode);

/* wcx_shown_target - the text that a link is shown with, as a string; 0, -ENAMETOOLONG or another -errno */
int wcx_shown_target(const struct wcx_beneath *beneath, const char *path, char *dst, size_t dst_bytes);

/*
 * wcx_leads_to_itself - whether the link at a path would name itself in the mount
 *
 * Because its target is shown under its name, or because it leads to its own path in the mount and has a packed namesake.
 */
bool wcx_leads_to_itself(const struct wcx_beneath *beneath, const char *path);

#endif
