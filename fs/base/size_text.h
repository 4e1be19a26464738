/* SPDX-License-Identifier: MIT */
/*
 * Numbers of bytes for people, rounded to two or three digits: what files and disks hold, and rates, in the decimal units of
 * disks (kB, MB, GB); memory, and what options say of it, in binary ones (KiB, MiB, GiB).
 */
#ifndef WCX_SIZE_TEXT_H
#define WCX_SIZE_TEXT_H

enum { WCX_SIZE_TEXT_BYTES = 32 };

/* wcx_size_text, wcx_memory_text - write "27.1 GB", or "25.2 GiB"; return text */
const char *wcx_size_text(double bytes, char text[WCX_SIZE_TEXT_BYTES]);
const char *wcx_memory_text(double bytes, char text[WCX_SIZE_TEXT_BYTES]);

#endif
