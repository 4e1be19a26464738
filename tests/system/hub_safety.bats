#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2030,SC2031 # each test is a process, and sets variables for itself
#
# `wcx hub` loses no blob: with damaged packed files, packed relatives, lists that cannot be read, a mount that goes away, and
# after it was killed anywhere.  tests/system/hub_cache.bats shows what it is for.

bats_require_minimum_version 1.5.0
load ../fixtures/suite
load mount_helper

setup_file() {
	local name

	mount_setup_file || return 0
	export ORIG="$BATS_FILE_TMPDIR/orig" PLAIN="$BATS_FILE_TMPDIR/cache"
	"$PYTHON" "$FIXTURES/weight_family.py" "$ORIG" 0.001
	for name in base tuned-1; do
		add_blob "$name" "$ORIG/$name/model.safetensors"
	done
}

# Add a model with one file to the cache that each test begins with.
add_blob() {
	local repository="$PLAIN/models--org--$1" sha

	sha="$(sha256sum <"$2" | cut -d " " -f 1)"
	mkdir -p "$repository/blobs" "$repository/snapshots/1" "$PLAIN/.locks/models--org--$1"
	cp "$2" "$repository/blobs/$sha"
	ln -s "../../blobs/$sha" "$repository/snapshots/1/model.safetensors"
}

setup() {
	suite_start
	mount_setup
	CACHE="$BATS_TEST_TMPDIR/cache"
	cp -a "$PLAIN" "$CACHE"
	BASE="$(echo "$CACHE"/models--org--base/blobs/*)"
	TUNED="$(echo "$CACHE"/models--org--tuned-1/blobs/*)"
	LINK="${BASE%/*}/.wcx-link-${BASE##*/}" # the temporary name
	start_mount "$CACHE"
	cd "$BATS_TEST_TMPDIR" || return
}

teardown() {
	mount_teardown
}

hub() {
	"$WCX" hub -j 2 "$@" "$CACHE" "$MNT"
}

# Run a command for which one directory cannot be read to its end.
unreadable() {
	run strace -f -qq -o /dev/null -P "$1" -e trace=getdents64 -e inject=getdents64:error=EIO "${@:2}"
}

# Every file of the cache reads as its original, and packed files are sound.
check_cache() {
	cmp "$CACHE/models--org--base/snapshots/1/model.safetensors" "$ORIG/base/model.safetensors"
	cmp "$CACHE/models--org--tuned-1/snapshots/1/model.safetensors" "$ORIG/tuned-1/model.safetensors"
	"$WCX" verify -q "$CACHE"
	[ -z "$(find "$CACHE" -name '.wcx-*')" ]
}

# A file's bytes, which no checksum but those of tiles covers.
damage_tile() {
	printf '\xff\xff\xff\xff' | dd of="$1" bs=1 seek=$(($(stat -c %s "$1") / 2)) conv=notrunc status=none
	run ! "$WCX" verify -q "$1"
}

@test "a source that is beside a damaged packed file is packed again" {
	"$WCX" pack -q "$BASE" "$BASE.wcx"
	damage_tile "$BASE.wcx"
	hub -q
	[ -L "$BASE" ]
	check_cache
}

@test "a source is packed again if its packed file holds something else, whatever its name says, or needs a base" {
	local bytes

	"$WCX" pack -q "$BASE" "$BASE.wcx"
	bytes="$(stat -c %s "$BASE")"
	printf 'changed' | dd of="$BASE" bs=1 seek=$((bytes - 7)) conv=notrunc status=none
	cp "$BASE" changed
	"$WCX" pack -q --base="$BASE.wcx" "$TUNED" "$TUNED.wcx"
	rm "$BASE.wcx"
	"$WCX" pack -q "$ORIG/base/model.safetensors" "$BASE.wcx"
	run -1 hub -q # the base is needed as it is
	cmp "$BASE" changed
	[ -L "$TUNED" ]
	run -0 "$WCX" info "$TUNED.wcx"
	[[ $output != *"base"* ]]
	hub -q
	[ -L "$BASE" ]
	cmp "$BASE" changed
}

@test "what was there of a packed file is synced before the source goes" {
	needs_strace
	"$WCX" pack -q "$BASE" "$BASE.wcx"
	strace -f -y -o trace -e trace=fsync,unlinkat,renameat2 "$WCX" hub -q "$CACHE" "$MNT"
	grep -nE "fsync\([0-9]+<$BASE.wcx>" trace | cut -d : -f 1 | head -n 1 >synced
	grep -nE "unlinkat.*\"${LINK##*/}\"" trace | cut -d : -f 1 >unlinked
	[ "$(wc -l <unlinked)" -eq 1 ]
	[ "$(cat synced)" -lt "$(cat unlinked)" ]
}

@test "a source that a killed run has left takes its name back, also if its packed file is damaged, or all else is gone" {
	hub -q
	cp "$ORIG/base/model.safetensors" "$LINK"
	hub -q
	[ -L "$BASE" ]
	check_cache
	cp "$ORIG/base/model.safetensors" "$LINK"
	damage_tile "$BASE.wcx"
	hub -q --dry-run
	[ -e "$LINK" ]
	hub -q
	check_cache
	cp "$ORIG/base/model.safetensors" "$LINK"
	rm "$BASE.wcx" "$BASE"
	hub -q
	hub -q
	check_cache
	# Not if it is a part, in a copy of the cache that did not end.
	head -c 1000000 "$ORIG/base/model.safetensors" >"$LINK"
	hub -q
	[ -L "$BASE" ]
	rm "$LINK"
	check_cache
	# Of a shared blob, whose file has gone since.
	ln -s "../../blobs/aa/${BASE##*/}" "$LINK"
	hub -q
	check_cache
	# What is not of this command stays.
	echo mine >"${BASE%/*}/.wcx-link-mine"
	hub -q
	[ "$(cat "${BASE%/*}/.wcx-link-mine")" = mine ]
}

@test "relatives that were packed in place are restored before their bases" {
	"$WCX" pack -q --rm "$CACHE"
	[ "$(stat -c %s "$TUNED.wcx")" -lt $(($(stat -c %s "$BASE.wcx") / 2)) ]
	run -0 hub
	[[ $output == *"warning: $TUNED.wcx: packed against another file, which \`hf cache rm\` may remove"* ]]
	check_cache
	"$WCX" hub -q --undo "$CACHE"
	diff -r --no-dereference "$PLAIN" "$CACHE"
}

@test "--undo keeps a base that a relative needs which cannot be restored" {
	"$WCX" pack -q --rm "$CACHE"
	cp "$TUNED.wcx" good
	damage_tile "$TUNED.wcx"
	run -1 "$WCX" hub --undo "$CACHE"
	[[ $output == *"$BASE.wcx: restored, but kept, since "* ]]
	cp good "$TUNED.wcx"
	"$WCX" hub -q --undo "$CACHE"
	diff -r --no-dereference "$PLAIN" "$CACHE"
}

@test "a mount that goes away in the middle leaves the blob as it was" {
	needs_strace
	cp "$BASE" original
	stop_in symlinkat "$WCX" hub -q "$CACHE" "$MNT"
	stop_mount
	! go_on || false
	[ ! -L "$BASE" ]
	[ ! -L "$TUNED" ]
	grep -q "does not show the packed file; left as it was" stopped.out
	cmp "$BASE" original
	[ -z "$(find "$CACHE" -name '.wcx-*')" ]
	start_mount "$CACHE"
	hub -q
	check_cache
}

@test "a blob that is downloaded again while it is packed or restored stays" {
	needs_strace
	echo "the new one" >new
	stop_in symlinkat "$WCX" hub -q "$CACHE" "$MNT"
	cp new "$BASE.new" && mv "$BASE.new" "$BASE"
	go_on
	cmp new "$BASE"
	cp "$ORIG/base/model.safetensors" "$BASE.new" && mv "$BASE.new" "$BASE"
	hub -q
	stop_in fsync "$WCX" hub -q --undo "$CACHE"
	cp new "$BASE.new" && mv "$BASE.new" "$BASE"
	go_on
	cmp new "$BASE"
}

@test "a blob that is written to while it is packed stays" {
	needs_strace
	stop_in symlinkat "$WCX" hub -q "$CACHE" "$MNT"
	printf 'changed' | dd of="$BASE" bs=1 seek=$(($(stat -c %s "$BASE") - 7)) conv=notrunc status=none
	cp "$BASE" changed
	go_on
	[ ! -L "$BASE" ]
	cmp "$BASE" changed
}

@test "killed anywhere, it leaves every blob, and the next run goes on" {
	local call count mode

	needs_strace
	stop_mount
	cp -a "$CACHE" plain
	start_mount "$CACHE"
	hub -q
	cp -a "$CACHE" packed
	for mode in plain packed; do
		for call in symlinkat renameat2 unlinkat linkat fsync renameat; do
			for count in 1 2 3 4; do
				rm -r "$CACHE"/models--*
				cp -a "$mode"/models--* "$CACHE"
				if [ "$mode" = plain ]; then
					set -- "$MNT"
				else
					set -- --undo
				fi
				strace -f -qq -o /dev/null -e trace="$call" -e inject="$call":signal=KILL:when="$count" \
					"$WCX" hub -q "$CACHE" "$@" || true
				echo "$mode, $call number $count"
				cmp "$CACHE/models--org--base/snapshots/1/model.safetensors" "$ORIG/base/model.safetensors"
				cmp "$CACHE/models--org--tuned-1/snapshots/1/model.safetensors" "$ORIG/tuned-1/model.safetensors"
				"$WCX" hub -q "$CACHE" "$@"
				if [ "$mode" = plain ]; then
					check_cache
				else
					diff -r --no-dereference "$PLAIN" "$CACHE"
				fi
			done
		done
	done
}

@test "a killed run leaves no file behind that it looked for in the mount" {
	needs_strace
	strace -f -qq -o /dev/null -e trace=unlink -e inject=unlink:signal=KILL "$WCX" hub -q "$CACHE" "$MNT" || true
	[ "$(find "$CACHE" -name ".wcx-hub-*" | wc -l)" -eq 1 ]
	touch "$CACHE/.wcx-hub-zzzzzz" "$CACHE/.wcx-hub-another"
	echo mine >"$CACHE/.wcx-hub-filled"
	hub -q --dry-run
	[ "$(find "$CACHE" -name ".wcx-hub-*" | wc -l)" -eq 4 ]
	hub -q
	[ "$(cd "$CACHE" && find . -name ".wcx-hub-*" | sort | tr "\n" " ")" = "./.wcx-hub-another ./.wcx-hub-filled " ]
}

@test "a file system that cannot sync directories is no failure" {
	needs_strace
	strace -f -qq -o trace -P "${BASE%/*}" -e trace=fsync -e inject=fsync:error=EINVAL "$WCX" hub -q "$CACHE" "$MNT"
	grep -q INJECTED trace
	check_cache
	strace -f -qq -o trace -P "${BASE%/*}" -e trace=fsync -e inject=fsync:error=EINVAL "$WCX" hub -q --undo "$CACHE"
	grep -q INJECTED trace
	diff -r --no-dereference "$PLAIN" "$CACHE"
}

@test "--undo does not remove a packed file whose blob another command has removed" {
	hub -q
	cd "$CACHE" || return
	run -1 remove_once_locked "${TUNED#"$CACHE"/}" "$WCX" hub --undo .
	[[ "$output" == *"${TUNED##*/}.wcx: kept, since another process has removed what was restored"* ]]
	cmp "$TUNED" "$ORIG/tuned-1/model.safetensors" # BLOB.wcx came behind BLOB, and was restored again
}

@test "--undo removes packed files whose originals are there" {
	hub -q
	cp "$ORIG/base/model.safetensors" "$BASE.new"
	mv "$BASE.new" "$BASE"
	"$WCX" hub -q --undo "$CACHE"
	diff -r --no-dereference "$PLAIN" "$CACHE"
}

@test "where a directory cannot be read to its end nothing is removed, and that is told of" {
	needs_strace
	hub -q
	unreadable "$CACHE/models--org--base/snapshots/1" "$WCX" hub "$CACHE" "$MNT"
	[ "$status" -eq 1 ]
	[[ $output == *"$CACHE/models--org--base/snapshots: Input/output error"* ]]
	check_cache
	rm "$BASE" # as if packed in place
	unreadable "$CACHE/models--org--base/snapshots/1" "$WCX" hub "$CACHE" "$MNT"
	[ "$status" -eq 1 ]
	[ -e "$BASE.wcx" ]
	touch "$CACHE/models--org--base.tar" # is no repository that cannot be read
	hub -q
	check_cache
	unreadable "${BASE%/*}" "$WCX" hub "$CACHE" "$MNT"
	[ "$status" -eq 1 ]
	[[ $output == *"$CACHE/models--org--base/blobs: Input/output error"* ]]
	# Nor where a snapshot is elsewhere.
	mv "$CACHE/models--org--base/snapshots/1" elsewhere
	ln -s "$PWD/elsewhere" "$CACHE/models--org--base/snapshots/1"
	run -1 hub
	[ -e "$BASE.wcx" ]
}

@test "wcx warm and wcx status tell of directories that cannot be read to their end" {
	needs_strace
	unreadable "$CACHE/models--org--base/snapshots/1" "$WCX" warm "$CACHE"
	[ "$status" -eq 1 ]
	[[ $output == *"$CACHE/models--org--base/snapshots/1: Input/output error"* ]]
	unreadable "$MNT/models--org--base/snapshots/1" "$WCX" status "$MNT"
	[ "$status" -eq 1 ]
	[[ $output == *"$MNT/models--org--base/snapshots/1: Input/output error"* ]]
}

@test "a lock that root makes belongs to the owner of the cache" {
	local lock="$CACHE/.locks/models--org--base/${BASE##*/}.lock"

	[ "$(id -u)" -eq 0 ] || skip "only root can act as other users"
	chown -hR 65534:65534 "$CACHE"
	hub -q
	rm "$CACHE"/models--org--base/snapshots/1/model.safetensors
	hub -q
	[ ! -e "$BASE" ]
	[ "$(stat -c %u:%g "$lock")" = 65534:65534 ]
}

@test "what is root's in place of a lock stays root's, if it has other names or contents" {
	local linked="$CACHE/.locks/models--org--base/${BASE##*/}.lock"
	local full="$CACHE/.locks/models--org--tuned-1/${TUNED##*/}.lock"

	[ "$(id -u)" -eq 0 ] || skip "only root can act as other users"
	chown -hR 65534:65534 "$CACHE"
	: >private
	ln private "$linked"
	echo text >"$full"
	hub -q
	rm "$CACHE"/models--org--*/snapshots/1/model.safetensors
	hub -q
	[ ! -e "$BASE" ] && [ ! -e "$TUNED" ]
	[ "$(stat -c %u:%g "$linked" "$full" | uniq)" = 0:0 ]
}

@test "what another command packs meanwhile is not replaced" {
	local inode

	needs_strace
	stop_in fsync "$WCX" hub -q "$CACHE" "$MNT"
	"$WCX" pack -q "$BASE" "$BASE.wcx"
	inode="$(stat -c %i "$BASE.wcx")"
	! go_on || false
	grep -Fx "wcx hub: $BASE.wcx: File exists" stopped.out
	hub -q
	[ "$(stat -c %i "$BASE.wcx")" = "$inode" ]
	check_cache
}

@test "a second run at once is refused" {
	needs_strace
	stop_in symlinkat "$WCX" hub -q "$CACHE" "$MNT"
	run -1 hub
	[[ $output == *"another wcx hub is at work there"* ]]
	run -1 "$WCX" hub --undo "$CACHE"
	go_on
	check_cache
}
