#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
#
# wcx pack against bases: those that are named.

# run sets it.
# shellcheck disable=SC2154
bats_require_minimum_version 1.5.0

load ../fixtures/suite

setup_file() {
	suite_find numpy || return 0
	export FAMILY="$BATS_FILE_TMPDIR/family" STORE="$BATS_FILE_TMPDIR/store"

	"$PYTHON" "$FIXTURES/weight_family.py" "$FAMILY" 1e-3 1e-2
	mkdir -p "$STORE/base"
	"$WCX" pack -q "$FAMILY/base/model.safetensors" "$STORE/base/model.safetensors.wcx"
}

setup() {
	suite_start
	mkdir "$BATS_TEST_TMPDIR/work"
	cd "$BATS_TEST_TMPDIR/work" || return
}

teardown() {
	cd "$BATS_TEST_DIRNAME" || return
}

# packed_bytes FILE.wcx
packed_bytes() {
	stat -c %s "$1"
}

@test "a fine-tune is packed against the base that is named, and says so" {
	run -0 --separate-stderr "$WCX" pack "$FAMILY/tuned-1/model.safetensors" alone.wcx
	[[ $stderr != *" against "* ]]
	cp -r "$STORE" store
	mkdir store/tuned
	run -0 --separate-stderr "$WCX" pack --base=store/base/model.safetensors.wcx "$FAMILY/tuned-1/model.safetensors" \
		store/tuned/model.safetensors.wcx
	[[ ${stderr%%$'\n'*} == *", 100.0 % of it against ../base/model.safetensors.wcx" ]]
	[[ $stderr == *"1 packed, 1 of them packed against bases in "* ]]
	# Of 16 bits about 1.5 are left of what has moved, and none of the embedding.
	[ $(($(packed_bytes store/tuned/model.safetensors.wcx) * 6)) -lt "$(packed_bytes alone.wcx)" ]
	run -0 --separate-stderr "$WCX" pack --json -f --base=store "$FAMILY/tuned-2/model.safetensors" store/tuned.wcx
	[[ $output == *'"base":"base/model.safetensors.wcx","base_count":1,"based_bytes":'* ]]
}

@test "a directory of bases may be cut into shards in another way" {
	"$PYTHON" "$FIXTURES/weight_family.py" shards 1e-3 --shards 3
	mkdir -p store/base
	"$WCX" pack -q shards/base/*.safetensors store/base
	for file in shards/tuned-1/*; do
		"$WCX" pack -q --base=store/base "$file" "store/${file##*/}.wcx"
	done
	run -0 "$WCX" pack --json -f --base=store/base shards/tuned-1/model-00002-of-00003.safetensors \
		store/model-00002-of-00003.safetensors.wcx
	grep -q '"base_count":2' <<<"$output"
	alone=$(cat store/base/*.wcx | wc -c)
	[ $(($(cat store/*.wcx | wc -c) * 6)) -lt "$alone" ]
}

@test "a base that saves nothing is not named, and the file is what it is alone" {
	"$PYTHON" "$FIXTURES/weight_family.py" others 1e-3 --seed 2
	"$WCX" pack -q others/tuned-1/model.safetensors alone.wcx
	run -0 "$WCX" pack --json --base="$STORE" others/tuned-1/model.safetensors against.wcx
	# The norms are ones in both.
	"$WCX" pack -q "--base=none" others/tuned-1/model.safetensors none.wcx
	cmp alone.wcx none.wcx
	[ "$(packed_bytes against.wcx)" -le "$(($(packed_bytes alone.wcx) + 200))" ]
}

@test "what cannot be a base is refused, and nothing is left" {
	cp -r "$STORE" store
	"$WCX" pack -q --base=store "$FAMILY/tuned-1/model.safetensors" store/tuned.wcx
	run -1 "$WCX" pack --base=store/tuned.wcx "$FAMILY/tuned-2/model.safetensors" out.wcx
	[[ $output == *"store/tuned.wcx: is packed against a base itself (base/model.safetensors.wcx); name that one"* ]]
	run -1 "$WCX" pack --base="$FAMILY/base/model.safetensors" "$FAMILY/tuned-2/model.safetensors" out.wcx
	[[ $output == *"not a .wcx file"* ]]
	run -1 "$WCX" pack --base=missing.wcx "$FAMILY/tuned-2/model.safetensors" out.wcx
	[[ $output == *"missing.wcx: No such file"* ]]
	mkdir empty
	run -1 "$WCX" pack --base=empty "$FAMILY/tuned-2/model.safetensors" out.wcx
	[[ $output == *"empty: has no packed file that refers to no base itself"* ]]
	run -1 "$WCX" pack -f --base=store "$FAMILY/tuned-1/model.safetensors" store/base/model.safetensors.wcx
	[[ $output == *"cannot be packed against what it would replace"* ]]
	run -2 "$WCX" pack --base=none --base=store "$FAMILY/tuned-1/model.safetensors" out.wcx
	[ ! -e out.wcx ]
	[ "$(find . -type f | wc -l)" -eq 2 ]
}

@test "a base that is being removed is refused" {
	cp -r "$STORE" store
	(flock -x 9 && exec sleep 20) 9<store/base/model.safetensors.wcx 3>&- &
	until ! flock -xn store/base/model.safetensors.wcx true; do sleep 0.02; done
	run -1 "$WCX" pack --base=store "$FAMILY/tuned-1/model.safetensors" out.wcx
	kill $!
	[[ $output == *"model.safetensors.wcx: is being removed or replaced"* ]]
}
