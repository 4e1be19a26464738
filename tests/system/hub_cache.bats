#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2030,SC2031 # each test is a process, and sets variables for itself
#
# A Hugging Face cache stays a cache when `wcx hub` has packed it (docs/hub_cache.md): huggingface_hub and hf download
# into it, list it and remove from it, and safetensors loads from it.

bats_require_minimum_version 1.5.0
load ../fixtures/suite
load mount_helper

setup_file() {
	local name

	mount_setup_file || return 0
	suite_find huggingface_hub ml_dtypes safetensors || return 0
	export HUB="$BATS_FILE_TMPDIR/hub" HF_HOME="$BATS_FILE_TMPDIR/home" HF_HUB_DISABLE_UPDATE_CHECK=1 \
		HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_PROGRESS_BARS=1 HF_HUB_ETAG_TIMEOUT=120 \
		HF_HUB_DOWNLOAD_TIMEOUT=120 NO_COLOR=1
	mkdir -p "$HUB/org/tiny/main"
	for name in 1 2; do
		"$PYTHON" "$FIXTURES/make_int8.py" "$HUB/org/tiny/main/model-0000$name-of-00002.safetensors" --mib 1 \
			--seed "$name"
	done
	echo '{"model_type": "test"}' >"$HUB/org/tiny/main/config.json"
	cp -r "$HUB/org/tiny/main" "$HUB/org/tiny/v2"
	"$PYTHON" "$FIXTURES/make_int8.py" "$HUB/org/tiny/v2/model-00002-of-00002.safetensors" --mib 1 --seed 3
	"$PYTHON" "$FIXTURES/fake_hub.py" "$HUB" "$BATS_FILE_TMPDIR/address" 3>&- &
	echo $! >"$BATS_FILE_TMPDIR/hub.pid"
	until [ -s "$BATS_FILE_TMPDIR/address" ]; do
		kill -0 "$(cat "$BATS_FILE_TMPDIR/hub.pid")" || return 1
	done
	HF_ENDPOINT=$(cat "$BATS_FILE_TMPDIR/address")
	export HF_ENDPOINT
	HF_HUB_CACHE="$BATS_FILE_TMPDIR/downloaded" hub download main >"$BATS_FILE_TMPDIR/snapshot"
	MAIN=$(basename "$(cat "$BATS_FILE_TMPDIR/snapshot")")
	export MAIN
}

teardown_file() {
	[ ! -s "$BATS_FILE_TMPDIR/hub.pid" ] || kill "$(cat "$BATS_FILE_TMPDIR/hub.pid")"
}

setup() {
	suite_start
	mount_setup
	export HF_HUB_CACHE="$BATS_TEST_TMPDIR/cache"
	MODEL="$HF_HUB_CACHE/models--org--tiny"
	BLOBS="$MODEL/blobs"
	cp -a "$BATS_FILE_TMPDIR/downloaded" "$HF_HUB_CACHE"
	: >"$HUB/log"
	start_mount "$HF_HUB_CACHE"
}

teardown() {
	[ -z "$SUITE_LACKS" ] || return 0
	rm -f "$HUB/stall"
	mount_teardown
}

hub() {
	"$PYTHON" "$BATS_TEST_DIRNAME/hub_client.py" "$@"
}

hf() {
	"$(dirname "$PYTHON")/hf" "$@"
}

pack() {
	"$WCX" hub -j 2 "$@" "$HF_HUB_CACHE" "$MNT"
}

# Print how many blobs are links, and how many are packed files.
links_and_packed() {
	echo "$(find "$BLOBS" -type l | wc -l) $(find "$BLOBS" -name '*.wcx' | wc -l)"
}

# The blobs of a revision's shards.
blob() {
	sha256sum <"$HUB/org/tiny/$1/model-0000$2-of-00002.safetensors" | cut -d " " -f 1
}

@test "a packed cache takes less space, stays so, and is the same cache for huggingface_hub, hf and safetensors" {
	local before

	before=$(hub scan)
	[ "$before" = "org/tiny 1 3 $(cat "$HUB"/org/tiny/main/* | wc -c)" ]
	pack --for=speed
	[ "$(links_and_packed)" = "2 2" ]
	"$WCX" pack -q --for=speed "$HUB/org/tiny/main/model-00001-of-00002.safetensors" "$BATS_TEST_TMPDIR/speed.wcx"
	cmp "$BATS_TEST_TMPDIR/speed.wcx" "$BLOBS/$(blob main 1).wcx"
	[ "$(cat "$BLOBS"/*.wcx | wc -c)" -lt "$(($(cat "$HUB"/org/tiny/main/*.safetensors | wc -c) * 9 / 10))" ]
	[ -z "$(find "$HF_HUB_CACHE" -size +1000k -type f ! -name '*.wcx')" ]
	[ "$(hub scan)" = "$before" ]
	hub load "$MODEL/snapshots/$MAIN" "$HUB/org/tiny/main"
	hub load "$MNT/models--org--tiny/snapshots/$MAIN" "$HUB/org/tiny/main"
	before=$(ls -lRi --time-style=full-iso "$BLOBS")
	run -0 pack
	[[ $output == *"0 packed, 0 restored, 0 no longer in use removed, 0 failed"* ]]
	[ "$(ls -lRi --time-style=full-iso "$BLOBS")" = "$before" ]
	[ "$(hub download main)" = "$MODEL/snapshots/$MAIN" ]
	[ ! -s "$HUB/log" ]
	run hf cache ls --revisions --format json
	[ "$status" -eq 0 ]
	[[ $output == *"$MAIN"* ]]
	hf cache verify org/tiny
}

@test "hf downloads what is new of a revision; the next run packs it; hf cache rm removes it, and the next run its files" {
	pack
	hf download org/tiny --revision v2
	[ "$(cat "$HUB/log")" = model-00002-of-00002.safetensors ]
	[ "$(links_and_packed)" = "2 2" ]
	[ ! -L "$BLOBS/$(blob v2 2)" ]
	run -0 pack
	[[ $output == *": 1 packed"* ]]
	[ "$(links_and_packed)" = "3 3" ]
	hub load "$(dirname "$(find "$MODEL/snapshots" -lname "*$(blob v2 2)")")" "$HUB/org/tiny/v2"
	hf cache rm --yes "$MAIN"
	[ "$(links_and_packed)" = "2 3" ]
	run -0 pack
	[[ $output == *"1 no longer in use removed"* ]]
	[ "$(links_and_packed)" = "2 2" ]
	[ "$(hub scan)" = "org/tiny 1 3 $(cat "$HUB"/org/tiny/v2/* | wc -c)" ]
	hf cache rm --yes model/org/tiny
	[ ! -e "$MODEL" ]
	[ -z "$(find "$HF_HUB_CACHE" -name '*.wcx')" ]
}

@test "hf cache prune removes a detached revision and an interrupted download, which packing leaves alone" {
	local download

	pack
	rm "$MODEL/refs/main"
	touch "$HUB/stall"
	"$PYTHON" "$BATS_TEST_DIRNAME/hub_client.py" download v2 3>&- &
	download=$!
	until find "$BLOBS" -name '*.incomplete' | grep -q .; do
		kill -0 "$download"
	done
	run -0 pack
	[[ $output == *": 0 packed"* ]]
	kill -KILL "$download"
	wait "$download" || true
	rm "$HUB/stall"
	pack
	find "$BLOBS" -name '*.incomplete' | grep -q .
	hub download v2
	hf cache prune --yes
	pack
	[ -z "$(find "$BLOBS" -name '*.incomplete')" ]
	[ ! -e "$MODEL/snapshots/$MAIN" ]
	[ "$(links_and_packed)" = "2 2" ]
	[ "$(hub scan)" = "org/tiny 1 3 $(cat "$HUB"/org/tiny/v2/* | wc -c)" ]
}

@test "a model loads while it is packed and restored" {
	local loader

	"$PYTHON" "$BATS_TEST_DIRNAME/hub_client.py" keep_loading "$MODEL/snapshots/$MAIN" "$BATS_TEST_TMPDIR/ready" 3>&- &
	loader=$!
	until [ -e "$BATS_TEST_TMPDIR/ready" ]; do
		kill -0 "$loader"
	done
	for _ in 1 2; do
		pack
		"$WCX" hub --undo "$HF_HUB_CACHE"
	done
	kill "$loader"
	wait "$loader"
}

@test "--undo gives back the cache as it was" {
	pack
	"$WCX" hub --undo "$HF_HUB_CACHE"
	stop_mount
	diff -r --no-dereference "$BATS_FILE_TMPDIR/downloaded" "$HF_HUB_CACHE"
	[ "$(cd "$BLOBS" && stat -c '%n %y %a %U' -- *)" = \
		"$(cd "$BATS_FILE_TMPDIR/downloaded/models--org--tiny/blobs" && stat -c '%n %y %a %U' -- *)" ]
}

@test "without its mount a cache downloads again, and the next run links again without packing" {
	local packed

	pack
	packed=$(ls -i "$BLOBS"/*.wcx)
	stop_mount
	hub download main
	[ "$(sort "$HUB/log")" = $'model-00001-of-00002.safetensors\nmodel-00002-of-00002.safetensors' ]
	hub load "$MODEL/snapshots/$MAIN" "$HUB/org/tiny/main"
	run ! pack
	[[ $output == *"not a mount of wcxfs"* ]]
	start_mount "$HF_HUB_CACHE"
	pack
	[ "$(links_and_packed)" = "2 2" ]
	[ "$(ls -i "$BLOBS"/*.wcx)" = "$packed" ]
	hub load "$MODEL/snapshots/$MAIN" "$HUB/org/tiny/main"
}

@test "the mount of another directory is refused, and nothing changes" {
	cp -a "$HF_HUB_CACHE" "$BATS_TEST_TMPDIR/other"
	run ! "$WCX" hub "$BATS_TEST_TMPDIR/other" "$MNT"
	[[ $output == *"does not show $BATS_TEST_TMPDIR/other"* ]]
	[ -z "$(find "$BATS_TEST_TMPDIR/other/models--org--tiny/blobs" -type l -o -name '*.wcx')" ]
	run ! "$WCX" hub "$MNT" "$MNT"
	[[ $output == *"read-only"* ]]
	run -2 "$WCX" hub "$HF_HUB_CACHE"
}

@test "blobs whose snapshots are gone are removed; those packed in place, or of unreadable snapshots, are kept" {
	"$WCX" pack -q --rm "$HF_HUB_CACHE"
	[ "$(links_and_packed)" = "0 2" ]
	run -0 pack
	[ "$(links_and_packed)" = "2 2" ]
	hub load "$MODEL/snapshots/$MAIN" "$HUB/org/tiny/main"
	rm -r "$MODEL/snapshots/$MAIN"
	mv "$MODEL/snapshots" "$MODEL/moved"
	pack
	[ "$(links_and_packed)" = "2 2" ]
	mv "$MODEL/moved" "$MODEL/snapshots"
	pack --dry-run
	[ "$(links_and_packed)" = "2 2" ]
	pack
	[ "$(links_and_packed)" = "0 0" ]
}

@test "blobs that repositories share are packed too, and their shared files go" {
	hub share "$HF_HUB_CACHE" "$BLOBS/$(blob main 1)"
	[ -L "$BLOBS/$(blob main 1)" ]
	pack
	[ "$(links_and_packed)" = "2 2" ]
	[ -z "$(find "$HF_HUB_CACHE/blobs" -type f -size +100k)" ]
	[ -z "$(find "$HF_HUB_CACHE/blobs" -name '*.refs')" ]
	hub load "$MODEL/snapshots/$MAIN" "$HUB/org/tiny/main"
	hub scan
}

@test "a shared file that another repository uses stays" {
	# One that wcx hub leaves alone, because its name is no hash.
	mkdir -p "$HF_HUB_CACHE/models--org--other/blobs"
	cp "$BLOBS/$(blob main 1)" "$HF_HUB_CACHE/models--org--other/blobs/blob"
	hub share "$HF_HUB_CACHE" "$BLOBS/$(blob main 1)"
	hub share "$HF_HUB_CACHE" "$HF_HUB_CACHE/models--org--other/blobs/blob"
	pack
	[ "$(links_and_packed)" = "2 2" ]
	cmp "$HF_HUB_CACHE/models--org--other/blobs/blob" "$HUB/org/tiny/main/model-00001-of-00002.safetensors"
	[ -n "$(find "$HF_HUB_CACHE/blobs" -type f -size +100k)" ]
}

@test "relative links keep their meaning when cache and mount move together" {
	mkdir "$BATS_TEST_TMPDIR/moved"
	pack --relative
	[[ $(readlink "$BLOBS/$(blob main 1)") == ../../../mnt/models--org--tiny/blobs/* ]]
	hub load "$MODEL/snapshots/$MAIN" "$HUB/org/tiny/main"
	stop_mount
	mv "$HF_HUB_CACHE" "$BATS_TEST_TMPDIR/moved/cache"
	mkdir "$BATS_TEST_TMPDIR/moved/mnt"
	MNT="$BATS_TEST_TMPDIR/moved/mnt"
	start_mount "$BATS_TEST_TMPDIR/moved/cache"
	hub load "$BATS_TEST_TMPDIR/moved/cache/models--org--tiny/snapshots/$MAIN" "$HUB/org/tiny/main"
}

@test "a link out of the store is shown as it is, unless it ends in its own path beside a packed file" {
	pack
	ln -s /elsewhere/models--org--tiny/blobs/lone "$BLOBS/lone"
	ln -s /elsewhere/other "$BLOBS/other"
	cp "$BLOBS/$(blob main 1).wcx" "$BLOBS/other.wcx"
	[ "$(readlink "$MNT/models--org--tiny/blobs/lone")" = /elsewhere/models--org--tiny/blobs/lone ]
	[ "$(readlink "$MNT/models--org--tiny/blobs/other")" = /elsewhere/other ]
	run ! readlink "$MNT/models--org--tiny/blobs/$(blob main 1)"
	find "$MNT/models--org--tiny/blobs" -name "$(blob main 1)*" -printf '%y %f\n' >"$BATS_TEST_TMPDIR/listed"
	[ "$(cat "$BATS_TEST_TMPDIR/listed")" = "f $(blob main 1)" ]
}
