/* SPDX-License-Identifier: MIT */
/* How functions are declared that the loops inline at each call, which makes a copy for its constant arguments. */
#ifndef WCX_INLINE_H
#define WCX_INLINE_H

#ifdef WCX_NO_COPIES /* for sanitizers: their checks in all those copies take clang minutes */
#define WCX_INLINE static inline
#else
#define WCX_INLINE static inline __attribute__((always_inline))
#endif

#endif
