#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The programs are built with the hardening that compiler and linker offer, and a mounted daemon has few privileges left.

bats_require_minimum_version 1.5.0
load ../fixtures/suite
load mount_helper

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

# --- a mounted daemon ---

# The kernel's mask of the capabilities that these tests' own process has among those with the given numbers.
mask_of() {
	local mask=0 number

	for number in "$@"; do
		mask=$((mask | 1 << number))
	done
	printf '%016x' $((mask & 16#$(sed -n 's/^CapPrm:\t//p' /proc/self/status)))
}

# Whether /proc says so of the privileges of all threads of a process.
has_only() { # PID NO_NEW_PRIVS MASK
	local status

	for status in /proc/"$1"/task/*/status; do
		[ "$(sed -n 's/^NoNewPrivs:\t//p' "$status")" = "$2" ] &&
			[ "$(sed -n 's/^Cap\(Prm\|Eff\):\t//p' "$status" | sort -u)" = "$3" ] &&
			[ "$(sed -n 's/^Cap\(Inh\|Amb\):\t//p' "$status" | sort -u)" = 0000000000000000 ] || return
	done
}

CAP_DAC_READ_SEARCH=2
CAP_SYS_ADMIN=21

# A store with a packed file, and a plain one that is another user's alone.
private_store() {
	mount_can_start || skip "$SUITE_LACKS"
	mount_setup
	STORE="$BATS_TEST_TMPDIR/store"
	ORIG="$BATS_TEST_TMPDIR/model.safetensors"
	mkdir -p "$STORE/private"
	printf '\x48\0\0\0\0\0\0\0%-72s' '{"a":{"dtype":"U8","shape":[4096],"data_offsets":[0,4096]}}' >"$ORIG"
	head -c 4096 /dev/zero >>"$ORIG"
	"$WCX" pack -q "$ORIG" "$STORE/private/model.safetensors.wcx"
	echo secret >"$STORE/private/config.json"
	chmod 600 "$STORE"/private/*
	chmod 700 "$STORE/private"
}

mount_can_start() {
	(exec 3<>/dev/fuse) 2>/dev/null || SUITE_LACKS="/dev/fuse cannot be opened"
	[ -z "$SUITE_LACKS" ]
}

teardown() {
	mount_teardown
}

@test "root's daemon keeps no capability but to read the store and to unmount, and so does its guard" {
	[ "$(id -u)" -eq 0 ] || skip "needs root"
	private_store
	chown -R 12345:12345 "$STORE/private"
	start_mount "$STORE" -o allow_other
	grep -F " $MNT " /proc/mounts | grep -q ' ro,nosuid,nodev,.*default_permissions'
	daemon="$(daemons)"
	guard="$(pgrep -P "$daemon")"
	has_only "$daemon" 1 "$(mask_of $CAP_DAC_READ_SEARCH $CAP_SYS_ADMIN)"
	within 60 has_only "$guard" 1 "$(mask_of $CAP_DAC_READ_SEARCH $CAP_SYS_ADMIN)" # it may still be starting
	for pid in "$daemon" "$guard"; do
		[ "$(sed -n 's/^CapBnd:\t//p' "/proc/$pid/status")" = "$(mask_of $CAP_DAC_READ_SEARCH $CAP_SYS_ADMIN)" ]
	done
	cmp "$ORIG" "$MNT/private/model.safetensors"
	[ "$(cat "$MNT/private/config.json")" = secret ]
	kill "$daemon"
	check_gone
}

@test "wcx warm, run by a mount, has no capability but to read the store" {
	[ "$(id -u)" -eq 0 ] || skip "needs root"
	private_store
	mkdir "$BATS_TEST_TMPDIR/bin"
	cp "$WCXFS" "$BATS_TEST_TMPDIR/bin" # which runs the program beside it
	printf '#!/bin/sh\nexec cp /proc/self/status "%s"\n' "$BATS_TEST_TMPDIR/status" >"$BATS_TEST_TMPDIR/bin/wcx"
	chmod +x "$BATS_TEST_TMPDIR/bin/wcx"
	WCXFS="$BATS_TEST_TMPDIR/bin/wcxfs" start_logged_mount "$STORE" -o warm=private
	log_until "in the page cache"
	grep -qx $'NoNewPrivs:\t1' "$BATS_TEST_TMPDIR/status"
	for set in Prm Eff Bnd; do
		grep -qx "Cap$set:"$'\t'"$(mask_of $CAP_DAC_READ_SEARCH)" "$BATS_TEST_TMPDIR/status"
	done
}

# Mount, look and unmount as a user to whom /dev/fuse is open; in a mount namespace, in which that can be seen to.
unprivileged_mount() {
	local daemon user=(setpriv --reuid "$(id -u nobody)" --regid "$(id -g nobody)" --clear-groups)

	mknod -m 666 "$BATS_TEST_TMPDIR/fuse" c 10 229 && mount --bind "$BATS_TEST_TMPDIR/fuse" /dev/fuse || return 77
	"${user[@]}" "$WCXFS" "$STORE" "$MNT"
	is_mounted
	daemon="$(daemons)"
	has_only "$daemon" 0 0000000000000000
	"${user[@]}" cmp "$ORIG" "$MNT/private/model.safetensors"
	kill "$daemon"
	while kill -0 "$daemon" 2>/dev/null; do
		sleep 0.1
	done
	! is_mounted
}

@test "another user's daemon has no capability, and unmounts through fusermount3" {
	[ "$(id -u)" -eq 0 ] || skip "needs root, to become another user"
	needs_tool setpriv
	[ -e /etc/mtab ] || skip "there is no /etc/mtab, which fusermount3 reads before it unmounts for a user"
	unshare -m true || skip "no mount namespace can be made here"
	private_store
	chown -R nobody: "$BATS_TEST_TMPDIR"
	chmod a+x "$BATS_RUN_TMPDIR" "${BATS_TEST_TMPDIR%/*}"
	export MNT ORIG STORE
	export -f is_mounted daemons has_only unprivileged_mount
	status=0
	unshare -m bash -ec unprivileged_mount || status=$?
	[ "$status" -ne 77 ] || skip "/dev/fuse cannot be replaced"
	[ "$status" -eq 0 ]
}
