#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The programs are built with the hardening that compiler and linker offer.

bats_require_minimum_version 1.5.0
load ../fixtures/suite

setup_file() {
	suite_find || return 0
	export LIBWCX="${WCX%/*}/libwcx.so"
}

setup() {
	suite_start
}

needs_tool() {
	[ -n "$(command -v "$1")" ] || skip "$1 is not installed"
}

# The build tree's record of what the compiler could do.
compiler_has() {
	grep -q "^$1:INTERNAL=1\$" "${WCX%/*}/CMakeCache.txt"
}

is_sanitized() {
	grep -q '^CMAKE_C_FLAGS:.*-fsanitize=' "${WCX%/*}/CMakeCache.txt"
}

@test "programs and library are position-independent, and their relocations are read-only from the start" {
	needs_tool readelf
	for program in "$WCX" "$WCXFS" "$LIBWCX"; do
		readelf -hW "$program" | grep -qE 'Type: +DYN'
		readelf -lW "$program" | grep -q GNU_RELRO
		readelf -dW "$program" | grep -qE 'BIND_NOW|FLAGS_1.*NOW'
		readelf -dW "$program" | (! grep -q TEXTREL)
	done
	for program in "$WCX" "$WCXFS"; do
		readelf -dW "$program" | grep -qE 'FLAGS_1.*PIE'
	done
}

@test "no program has a stack or a segment that is both writable and executable" {
	needs_tool readelf
	for program in "$WCX" "$WCXFS" "$LIBWCX"; do
		readelf -lW "$program" | grep -qE 'GNU_STACK.* RW '
		readelf -lW "$program" | (! grep -qE 'LOAD.* RWE ')
	done
}

@test "functions with arrays check their stack, and calls of the C library the size of what they write to" {
	needs_tool readelf
	compiler_has WCX_HAS_fstack_protector_strong || skip "the compiler has no stack protector"
	for program in "$WCX" "$WCXFS" "$LIBWCX"; do
		readelf -sW "$program" | grep -q __stack_chk_fail
		is_sanitized || readelf -sW "$program" | grep -qE '__(memcpy|snprintf|read)_chk'
	done
}

@test "where the compiler does it, functions that may be called through a pointer begin with ENDBR64" {
	needs_tool objdump
	compiler_has WCX_HAS_fcf_protection_full || skip "the compiler has no -fcf-protection"
	for program in "$WCX" "$WCXFS"; do
		objdump -d "$program" | grep -A 1 '<main>:' | grep -q endbr64
	done
}
