/* SPDX-License-Identifier: MIT */
/* Prints names, which may come from anybody, as what a terminal only shows. */
#ifndef WCX_PRINT_H
#define WCX_PRINT_H

#include <stdarg.h>
#include <stdio.h>

/*
 * wcx_print - as fprintf, with control characters and malformed UTF-8 as '?', as in messages
 *
 * A newline at the end of format stays one; there are none elsewhere in it.
 */
void wcx_print(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
void wcx_print_list(FILE *out, const char *format, va_list args) __attribute__((format(printf, 2, 0)));

#endif
