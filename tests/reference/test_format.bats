#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
#
# The C programs and an independent codec in Python (wcx_decode.py, wcx_encode.py) both implement docs/format.md: each reads
# the files of the other, and both refuse the same files.
#
# WCX_MODELS  a directory with safetensors files of real models (optional)

bats_require_minimum_version 1.5.0

load ../fixtures/suite

setup_file() {
	suite_find numpy xxhash zstandard || return 0
	export FILES="$BATS_FILE_TMPDIR"
	python wcx_encode.py good "$FILES/good"
	python wcx_encode.py bad "$FILES/bad"
	python wcx_encode.py family "$FILES/family"
	"$PYTHON" "$FIXTURES/make_int8.py" "$FILES/mixed.safetensors" --mib 8
	"$WCX" pack "$FILES/mixed.safetensors" "$FILES/mixed.wcx"
}

setup() {
	suite_start
}

# Run one of the programs beside this file.
python() {
	"$PYTHON" "$BATS_TEST_DIRNAME/$1" "${@:2}"
}

# Run a program from standard input that uses those beside this file.
python_text() {
	"$PYTHON" - "$@"
}

# check_packed FILE OPTION... - pack a file, decode it independently and compare
check_packed() {
	local packed="$BATS_TEST_TMPDIR/packed.wcx" decoded="$BATS_TEST_TMPDIR/decoded"

	"$WCX" pack "${@:2}" "$1" "$packed"
	python wcx_decode.py "$packed" "$decoded"
	cmp "$1" "$decoded"
	rm "$packed" "$decoded"
}

# The command ends by itself, without success, and names the file.
check_refused() {
	local file="$1"

	run timeout 60 "${@:2}"
	if [ "$status" -eq 0 ] || [ "$status" -ge 124 ] || [[ "$output" != *"$file"* ]]; then
		echo "${*:2}: status $status: $output"
		return 1
	fi
}

# check_all_refused FILE... -- ARGUMENT... - one command refuses each of these files by name, and ends by itself
check_all_refused() {
	local files=() errors="$BATS_TEST_TMPDIR/errors" status=0

	while [ "$1" != -- ]; do
		files+=("$1")
		shift
	done
	timeout 120 "$WCX" "${@:2}" > "$BATS_TEST_TMPDIR/output" 2> "$errors" || status=$?
	echo "status $status: $(cat "$errors")"
	[ "$status" -gt 0 ] && [ "$status" -lt 124 ]
	[ "${#files[@]}" -gt 20 ]
	diff <(printf '%s\n' "${files[@]}" | sort) <(sed -n 's/^wcx [a-z]*: \(.*\.wcx\): .*/\1/p' "$errors" | sort -u)
}

@test "the independent decoder gives back what the independent encoder was given" {
	python_text "$FILES"/good/*.wcx <<-'END'
		import sys
		from wcx_decode import Wcx

		for path in sys.argv[1:]:
		    print(path)
		    with open(path.removesuffix(".wcx") + ".safetensors", "rb") as file:
		        original = file.read()
		    if b"".join(segment.tobytes() for segment in Wcx(path).decode_all()) != original:
		        sys.exit(f"{path} decodes to something else")
	END
}

@test "the independent decoder refuses every bad file" {
	python_text "$FILES"/bad/*.wcx <<-'END'
		import sys
		from wcx_decode import Wcx, WcxError

		for path in sys.argv[1:]:
		    try:
		        for _ in Wcx(path).decode_all():
		            pass
		    except WcxError:
		        continue
		    sys.exit(f"{path} was accepted")
	END
}

@test "the independent decoder as a program refuses a bad file and writes nothing" {
	check_refused "$FILES/bad/bad_data_sha256.wcx" \
		"$PYTHON" "$BATS_TEST_DIRNAME/wcx_decode.py" "$FILES/bad/bad_data_sha256.wcx" "$BATS_TEST_TMPDIR/decoded"
	[ ! -e "$BATS_TEST_TMPDIR/decoded" ]
}

@test "the independent decoder gives back a mixed checkpoint that wcx packed" {
	run -0 python wcx_decode.py "$FILES/mixed.wcx" "$BATS_TEST_TMPDIR/decoded"
	cmp "$FILES/mixed.safetensors" "$BATS_TEST_TMPDIR/decoded"
	[[ "$output" == *"modes "*"CODED="* ]]
	[[ "$output" == *"codings "*"RANS="* ]]
	[[ "$output" == *"transforms "*"ROTATE="*" FOLD="* ]]
	[[ "$output" == *"; pairs "[1-9]*"; carriers of planes="[1-9]*"; exceptions "[1-9]* ]]
	[[ "$output" == *"same_as "[1-9]* ]]
}

@test "the independent decoder gives back a mixed checkpoint that wcx packed in reference mode" {
	check_packed "$FILES/mixed.safetensors" --mode=reference
}

@test "the independent decoder gives back tuned weights that wcx packed against their base" {
	local base="$BATS_TEST_TMPDIR/base" tuned="$BATS_TEST_TMPDIR/tuned"

	python_text "$base.safetensors" "$tuned.safetensors" <<-'END'
		import sys
		import numpy as np
		from safetensors_io import build_header, lay_out

		rng = np.random.default_rng(1)
		weights = rng.normal(0, 0.02, (256, 1001)), rng.normal(0, 0.02, (256, 1001))
		for path, drift in zip(sys.argv[1:], (0, 1e-5)):
		    drifted = [values + rng.normal(0, 1, values.shape) * drift for values in weights]
		    tensors = [("bf16", "BF16", (drifted[0].astype("<f4").view("<u4") >> 16).astype("<u2")),
		               ("f16", "F16", drifted[0].astype("<f2")), ("f32", "F32", drifted[1].astype("<f4")),
		               ("f64", "F64", drifted[0][:50].astype("<f8")), ("same", "F32", weights[0].astype("<f4")),
		               ("i8", "I8", (drifted[1] * 1500).clip(-127, 127).astype("i1"))]
		    with open(path, "wb") as out:
		        out.write(build_header(lay_out([(name, dtype, values.shape) for name, dtype, values in tensors])))
		        out.write(b"".join(values.tobytes() for _, _, values in tensors))
	END
	"$WCX" pack "$base.safetensors" "$base.wcx"
	"$WCX" pack --base="$base.wcx" "$tuned.safetensors" "$tuned.wcx"
	for with in "$base.safetensors" "$base.wcx"; do
		run -0 python wcx_decode.py "$tuned.wcx" "$BATS_TEST_TMPDIR/decoded" "$with"
		cmp "$tuned.safetensors" "$BATS_TEST_TMPDIR/decoded"
	done
	[[ "$output" == *"CONSTANT="*"; differences "*"FLOAT="*"; contexts "*[2-8]=* ]]
	check_refused "$tuned.wcx" "$PYTHON" "$BATS_TEST_DIRNAME/wcx_decode.py" "$tuned.wcx" "$BATS_TEST_TMPDIR/decoded"
}

@test "the independent decoder gives back INT8 of five distributions that wcx packed" {
	"$PYTHON" "$FIXTURES/gaussian_set.py" "$BATS_TEST_TMPDIR/set"
	for file in "$BATS_TEST_TMPDIR"/set/*.safetensors; do
		check_packed "$file"
	done
}

@test "the independent decoder gives back tensors of random and constant bits alone that wcx packed" {
	python_text "$BATS_TEST_TMPDIR/random.safetensors" <<-'END'
		import sys
		import numpy as np
		from safetensors_io import build_header, lay_out

		rng = np.random.default_rng(1)
		tensors = [("nibbles", "U8", rng.integers(0x30, 0x40, 50000).astype("u1")),
		           ("low_bytes", "I32", rng.integers(0, 1 << 16, 50000).astype("<i4")),
		           ("mantissas", "F64", rng.integers(0x3FF << 52, 0x400 << 52, 9000))]
		for n in range(1000, 8000, 500):
		    tensors += [(f"random.{n}", "I8", rng.integers(-128, 128, n).astype("i1")),
		                (f"high_bytes.{n}", "U16", rng.integers(0, 256, n).astype("<u2") << 8)]
		with open(sys.argv[1], "wb") as out:
		    out.write(build_header(lay_out([(name, dtype, values.shape) for name, dtype, values in tensors])))
		    out.write(b"".join(values.tobytes() for _, _, values in tensors))
	END
	check_packed "$BATS_TEST_TMPDIR/random.safetensors"
}

@test "the independent decoder gives back real models that wcx packed" {
	[ -d "${WCX_MODELS:-}" ] || skip "WCX_MODELS is not a directory"
	for file in "$WCX_MODELS"/*.safetensors; do
		check_packed "$file"
	done
}

@test "wcx unpack gives back what the independent encoder was given" {
	for wcx in "$FILES"/good/*.wcx; do
		echo "$wcx"
		"$WCX" unpack "$wcx" "$BATS_TEST_TMPDIR/unpacked"
		cmp "${wcx%.wcx}.safetensors" "$BATS_TEST_TMPDIR/unpacked"
		rm "$BATS_TEST_TMPDIR/unpacked"
	done
}

@test "wcx verify accepts every good file" {
	"$WCX" verify "$FILES"/good/*.wcx
}

@test "wcx info accepts every good file and gives its size and SHA-256" {
	for wcx in "$FILES"/good/*.wcx; do
		"$WCX" info --json "$wcx" > "$BATS_TEST_TMPDIR/${wcx##*/}.json"
	done
	python_text "$FILES/good" "$BATS_TEST_TMPDIR" <<-'END'
		import hashlib
		import json
		import sys
		from pathlib import Path

		good, infos = map(Path, sys.argv[1:])
		for wcx in good.glob("*.wcx"):
		    original = wcx.with_suffix(".safetensors").read_bytes()
		    text = (infos / f"{wcx.name}.json").read_text()
		    json.loads(text)
		    if hashlib.sha256(original).hexdigest() not in text or f" {len(original)}," not in text:
		        sys.exit(f"{wcx}: {text}")
	END
}

@test "wcx and the independent decoder give back each file that refers to bases" {
	bases=("$FILES"/family/family_*base.wcx)
	for wcx in "$FILES"/family/family_*.wcx; do
		echo "$wcx"
		"$WCX" verify "$wcx"
		"$WCX" unpack "$wcx" "$BATS_TEST_TMPDIR/unpacked"
		python wcx_decode.py "$wcx" "$BATS_TEST_TMPDIR/decoded" "${bases[@]}"
		cmp "${wcx%.wcx}.safetensors" "$BATS_TEST_TMPDIR/unpacked"
		cmp "${wcx%.wcx}.safetensors" "$BATS_TEST_TMPDIR/decoded"
		rm "$BATS_TEST_TMPDIR/unpacked" "$BATS_TEST_TMPDIR/decoded"
	done
	run -0 "$WCX" info "$FILES/family/family_sets_of_tables.wcx"
	[[ "$output" == *" rans16x4x8+base "*" raw4,rans16x2x2,rans8,raw4+base "* ]]
}

@test "a file whose base is missing, or another file of its name, is refused by both" {
	wcx="$BATS_TEST_TMPDIR/family_every_element_size.wcx"
	cp "$FILES/family/family_every_element_size.wcx" "$wcx"
	check_refused "$wcx" "$WCX" verify "$wcx"
	cp "$FILES/family/family_other_base.wcx" "$BATS_TEST_TMPDIR/family_base.wcx"
	check_refused "$wcx" "$WCX" unpack "$wcx" "$BATS_TEST_TMPDIR/unpacked"
	check_refused "$wcx" "$PYTHON" "$BATS_TEST_DIRNAME/wcx_decode.py" "$wcx" "$BATS_TEST_TMPDIR/decoded" \
		"$BATS_TEST_TMPDIR/family_base.wcx"
	[ ! -e "$BATS_TEST_TMPDIR/unpacked" ] && [ ! -e "$BATS_TEST_TMPDIR/decoded" ]
}

@test "wcx verify refuses every bad file and names it" {
	check_all_refused "$FILES"/bad/*.wcx -- verify "$FILES"/bad/*.wcx
}

@test "wcx unpack refuses every bad file, names it and leaves no output" {
	mkdir "$BATS_TEST_TMPDIR/out"
	check_all_refused "$FILES"/bad/*.wcx -- unpack "$FILES"/bad/*.wcx "$BATS_TEST_TMPDIR/out"
	ls -A "$BATS_TEST_TMPDIR/out"
	rmdir "$BATS_TEST_TMPDIR/out"
}

@test "wcx info of a directory refuses every file with a bad index and names it" {
	mkdir "$BATS_TEST_TMPDIR/bad"
	find "$FILES/bad" -name '*.wcx' ! -name 'bad_data_*' -exec ln -t "$BATS_TEST_TMPDIR/bad" {} +
	check_all_refused "$BATS_TEST_TMPDIR"/bad/*.wcx -- info "$BATS_TEST_TMPDIR/bad"
}

@test "wcx info of a directory survives files whose data alone are bad" {
	mkdir "$BATS_TEST_TMPDIR/bad"
	ln -t "$BATS_TEST_TMPDIR/bad" "$FILES"/bad/bad_data_*.wcx
	run timeout 60 "$WCX" info "$BATS_TEST_TMPDIR/bad"
	echo "$status: $output"
	[ "$status" -lt 124 ]
	[[ "$output" == *bad_data_* ]]
}

@test "wcx and the independent decoder agree on tiles with a changed byte" {
	local files=()

	for name in carried_bytes choices_of_tables codings_mixed_by_tile every_element_size exceptions_and_all_else \
		exceptions_beside_planes exceptions_in_pairs exceptions_of_most_elements extreme_tables folded \
		folded_codings_mixed_by_tile lanes_without_symbols pairs same_content start_states_of_any_size wide_symbols; do
		files+=("$FILES/good/$name.wcx")
	done
	for name in every_element_size every_mode exceptions_and_carried_bytes sets_of_tables escapes pairs; do
		files+=("$FILES/family/family_$name.wcx")
	done
	python wcx_encode.py flips "$BATS_TEST_TMPDIR/flips" 14 1 "${files[@]}"
	cp "$FILES"/family/family_*base.wcx "$BATS_TEST_TMPDIR/flips"
	python wcx_encode.py flips "$BATS_TEST_TMPDIR/flips" 10 1 "$FILES/mixed.wcx"
	local accepted=() refused=() wcx

	mkdir "$BATS_TEST_TMPDIR/unpacked"
	for wcx in "$BATS_TEST_TMPDIR"/flips/*.flip*.wcx; do
		if [ -e "${wcx%.wcx}.safetensors" ]; then
			accepted+=("$wcx")
		else
			refused+=("$wcx")
		fi
	done
	echo "${#accepted[@]} accepted, ${#refused[@]} refused"
	[ "${#accepted[@]}" -gt 0 ]
	check_all_refused "${refused[@]}" -- unpack "${accepted[@]}" "${refused[@]}" "$BATS_TEST_TMPDIR/unpacked"
	[ "$(find "$BATS_TEST_TMPDIR/unpacked" -type f | wc -l)" -eq "${#accepted[@]}" ]
	for wcx in "${accepted[@]}"; do
		cmp "${wcx%.wcx}.safetensors" "$BATS_TEST_TMPDIR/unpacked/$(basename "$wcx" .wcx)"
	done
}
