#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
#
# The golden files (golden/golden_files.md): every decoder gives back the originals that the manifest names, and wcx packs
# them into the same bytes as on the day they were added.

bats_require_minimum_version 1.5.0

load ../fixtures/suite

setup_file() {
	suite_find numpy xxhash zstandard || return 0
	export GOLDEN="$BATS_TEST_DIRNAME/golden"
}

setup() {
	suite_start
}

# Run golden_files.py, which lies beside this file.
golden_files() {
	"$PYTHON" "$BATS_TEST_DIRNAME/golden_files.py" "$@"
}

# check_unpacked DECODER - wcx unpack gives the original's SHA-256 for each file of the manifest
check_unpacked() {
	local sha256 name

	while read -r sha256 name; do
		"$WCX" unpack -q --force --decoder="$1" "$GOLDEN/$name.wcx" "$BATS_TEST_TMPDIR/unpacked"
		echo "$sha256  $BATS_TEST_TMPDIR/unpacked" | sha256sum --check --quiet || {
			echo "$name decodes to something else"
			return 1
		}
	done <"$GOLDEN/manifest"
}

@test "the manifest lists each golden file once, and no other" {
	diff <(cut -d ' ' -f 3 "$GOLDEN/manifest" | sort) <(cd "$GOLDEN" && printf '%s\n' *.wcx | sed 's/\.wcx$//' | sort)
}

@test "wcx gives back every golden file's original with each CPU variant" {
	for variant in portable avx2 avx2-gather avx512; do
		export WCX_CPU="$variant"
		if "$WCX" verify -q --decoder=cpu "$GOLDEN/encoded_stored_only.wcx"; then
			check_unpacked cpu
		else
			[ "$variant" != portable ]
		fi
	done
}

@test "wcx gives back every golden file's original on the GPU" {
	"$WCX" verify -q --decoder=cuda "$GOLDEN/encoded_stored_only.wcx" || skip "no GPU"
	check_unpacked cuda
}

@test "the independent decoder gives back every original, and the golden files use the whole format" {
	golden_files decode
}

@test "wcx packs the originals into the golden files of either mode and goal, and fine-tunes into those with bases" {
	golden_files originals "$BATS_TEST_TMPDIR"
	while read -r sha256 name; do
		kind=original
		how=(--mode="${name%%_*}")
		case "$name" in
		# Pairs in differences came later.
		encoded_* | family_* | tuned_i8) continue ;;
		tuned_* | paired_*)
			kind=tuned
			how=(--base="$GOLDEN/best_${name#*_}.wcx")
			;;
		speed_*) how=(--for=speed) ;;
		esac
		original="$BATS_TEST_TMPDIR/${kind}_${name#*_}"
		echo "$sha256  $original" | sha256sum --check --quiet
		"$WCX" pack -q --force "${how[@]}" "$original" "$BATS_TEST_TMPDIR/packed"
		cmp -s "$GOLDEN/$name.wcx" "$BATS_TEST_TMPDIR/packed" ||
			golden_files same "$GOLDEN/$name.wcx" "$BATS_TEST_TMPDIR/packed" || {
			echo "$name is packed into something else"
			return 1
		}
	done <"$GOLDEN/manifest"
}
