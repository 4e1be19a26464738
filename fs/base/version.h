/* SPDX-License-Identifier: MIT */
/* The version of the programs, in one place: CMakeLists.txt reads it from here. */
#ifndef WCX_VERSION_H
#define WCX_VERSION_H

#define WCX_VERSION_TEXT "0.1.0"

#endif
