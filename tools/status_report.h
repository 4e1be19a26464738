/* SPDX-License-Identifier: MIT */
/* Prints what `wcx status' found: an array of objects, one for each mount, as docs/operations.md describes them. */
#ifndef WCX_STATUS_REPORT_H
#define WCX_STATUS_REPORT_H

#include <jansson.h>
#include <stddef.h>

/*
 * wcx_status_object - make the object of a mount from what its daemon told, which it takes over; NULL: it did not answer
 *
 * Adds where it is mounted, whether it is up, and rates.
 */
json_t *wcx_status_object(json_t *told, const char *mountpoint, const char *store);

void wcx_status_print_json(const json_t *mounts);  /* a line each */
void wcx_status_print_table(const json_t *mounts); /* for people */

/* wcx_status_print_prometheus - in the text format of Prometheus, version 0.0.4; what a daemon did not tell is left out */
void wcx_status_print_prometheus(const json_t *mounts);

/*
 * wcx_label_escape - write a label's value: backslash, quote and line feed escaped
 *
 * Returns the bytes without the null byte, of which dst gets at most dst_bytes - 1, cut between characters of value.
 */
size_t wcx_label_escape(const char *value, char *dst, size_t dst_bytes);

#endif
