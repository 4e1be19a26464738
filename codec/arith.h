/* SPDX-License-Identifier: MIT */
/* Arithmetic that every part needs.  The macros evaluate their arguments more than once. */
#ifndef WCX_ARITH_H
#define WCX_ARITH_H

#define WCX_MIN(a, b) ((a) < (b) ? (a) : (b))
#define WCX_MAX(a, b) ((a) > (b) ? (a) : (b))
#define WCX_CLAMP(n, low, high) ((n) < (low) ? (low) : (n) > (high) ? (high) : (n))

/* How many units cover n, and the multiples of a unit below and above n. */
#define WCX_DIV_UP(n, unit) (((n) + (unit)-1) / (unit))
#define WCX_ALIGN_DOWN(n, unit) ((n) / (unit) * (unit))
#define WCX_ALIGN_UP(n, unit) (WCX_DIV_UP(n, unit) * (unit))

#define WCX_ARRAY_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
