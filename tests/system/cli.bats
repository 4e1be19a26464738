#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
#
# The program wcx on the command line: output, exit codes, and the files that it leaves.

bats_require_minimum_version 1.5.0

load ../fixtures/suite

setup_file() {
	suite_find numpy xxhash zstandard || return 0
	export MODEL="$BATS_FILE_TMPDIR/model.safetensors" PACKED="$BATS_FILE_TMPDIR/model.safetensors.wcx"

	"$PYTHON" "$FIXTURES/make_int8.py" "$MODEL" --mib 8
	"$WCX" pack -q "$MODEL" "$PACKED"
}

# Each test runs in a directory of its own that is empty.
setup() {
	suite_start
	mkdir "$BATS_TEST_TMPDIR/work"
	cd "$BATS_TEST_TMPDIR/work" || return
}

teardown() {
	cd "$BATS_TEST_DIRNAME" || return
	[ ! -d "$BATS_TEST_TMPDIR/work/small" ] || umount "$BATS_TEST_TMPDIR/work/small"
}

# Write a safetensors file: its name, its JSON, and how many bytes of data follow.
write_safetensors() {
	"$PYTHON" - "$@" <<-'END'
		import random, struct, sys

		name, json, data_bytes = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3])
		with open(name, "wb") as out:
		    out.write(struct.pack("<Q", len(json)) + json + random.Random(1).randbytes(data_bytes))
	END
}

# A source that takes long to pack but no disk space.
write_endless() {
	write_safetensors endless.safetensors '{"w":{"dtype":"I8","shape":[65536,65536],"data_offsets":[0,4294967296]}}' 0
	truncate -s +4294967296 endless.safetensors
}

# Whether the directory contains exactly the named files.
holds_only() {
	[ "$(ls -A "$1")" = "$(printf "%s\n" "${@:2}" | sort)" ] || {
		ls -lA "$1"
		return 1
	}
}

# Pack, verify and unpack a file of this directory, and compare.
check_round_trip() {
	"$WCX" pack -q "$1" odd.wcx
	"$WCX" verify -q odd.wcx
	"$WCX" info odd.wcx >odd.txt
	"$WCX" info --json odd.wcx | "$PYTHON" -m json.tool >odd.json
	"$WCX" unpack -q odd.wcx odd.back
	cmp "$1" odd.back
	rm odd.wcx odd.back
}

# pack must refuse a file with this exit code and message, which details in parentheses may follow, and leave no output.
check_refused() {
	run --separate-stderr "$WCX" pack "$1" refused.wcx
	[[ "$status" -eq "$2" && ("$stderr" == "wcx pack: $1: $3" || "$stderr" == "wcx pack: $1: $3 ("*")") ]] || {
		echo "is:       $status $stderr"
		echo "expected: $2 wcx pack: $1: $3"
		return 1
	}
	[ ! -e refused.wcx ]
}

# --- pack, verify, unpack ---

@test "a packed model unpacks to the same bytes" {
	"$WCX" pack "$MODEL" model.safetensors.wcx
	"$WCX" verify model.safetensors.wcx
	"$WCX" unpack model.safetensors.wcx model.safetensors
	cmp "$MODEL" model.safetensors
	cmp "$PACKED" model.safetensors.wcx
	[ "$(stat -c %s model.safetensors.wcx)" -lt "$(stat -c %s "$MODEL")" ]
	holds_only . model.safetensors model.safetensors.wcx
}

@test "pack prints a summary but no progress when standard error is not a terminal" {
	run --separate-stderr -0 "$WCX" pack "$MODEL" out.wcx
	[ -z "$output" ]
	# shellcheck disable=SC2154 # set by run
	[[ "${stderr_lines[0]}" =~ ^"out.wcx: $(stat -c %s "$MODEL") bytes packed into $(stat -c %s out.wcx), ratio 1."[0-9]+$ ]]
	[[ "${stderr_lines[1]}" =~ ^"dtype "+"tensors "+"bytes "+"packed "+"ratio "+saved$ ]]
	[[ "${stderr_lines[2]}" =~ ^I8\ +[0-9]+\ +[0-9]+\ +[0-9]+\ +1\.[0-9]+\ +[0-9.]+\ %$ ]]
	[[ "${stderr_lines[-1]}" =~ ^"wcx pack: 1 packed in "[0-9.]+" s ("[0-9.]+" "[kM]?"B/s)"$ ]]
	[ "$(awk '/^(I8|BF16|F|I|U|BOOL|C)/ { bytes += $3; packed += $4 } /^headers/ { bytes += $3; packed += $4 }
		/^total/ { print bytes == $3 && packed == $4 }' <<<"$stderr")" = 1 ]
}

@test "pack -q prints nothing" {
	run -0 "$WCX" pack -q "$MODEL" out.wcx
	[ -z "$output" ]
}

@test "verify lists sound files on standard output, and nothing with -q" {
	run --separate-stderr -0 "$WCX" verify "$PACKED" "$PACKED"
	[ "$output" = "$PACKED: sound"$'\n'"$PACKED: sound" ]
	[ -z "$stderr" ]
	run -0 "$WCX" verify -q "$PACKED"
	[ -z "$output" ]
}

@test "progress is drawn on a terminal, but not with -q" {
	script -qec true /dev/null || skip "script(1) cannot create a terminal"
	run -0 script -qec "'$WCX' pack '$MODEL' a.wcx && '$WCX' verify a.wcx && '$WCX' unpack a.wcx a" /dev/null
	[[ "$output" == *"packing "*" %"* ]]
	[[ "$output" == *"verifying 100 %"* ]]
	[[ "$output" == *"unpacking 100 %"* ]]
	run -0 script -qec "'$WCX' pack -q '$MODEL' b.wcx" /dev/null
	[ -z "$output" ]
}

@test "the number of threads and the decoder do not change the output" {
	for threads in 1 3 17; do
		"$WCX" pack -q -j "$threads" "$MODEL" "$threads.wcx"
		cmp "$PACKED" "$threads.wcx"
		"$WCX" unpack -q "--threads=$threads" --decoder=cpu "$PACKED" "$threads"
		cmp "$MODEL" "$threads"
	done
}

@test "commands that decode take --decoder, list it in their help, and name the decoder with -v" {
	for command in verify info unpack; do
		arguments=("$PACKED")
		[ "$command" != unpack ] || arguments+=(unpacked)
		WCX_CPU=portable run --separate-stderr -0 "$WCX" "$command" -v --decoder=cpu "${arguments[@]}"
		[ "$stderr" = "wcx $command: decoder: cpu (portable)" ]
		run -0 "$WCX" "$command" --help
		[[ "$output" == *"--decoder=NAME"* ]]
	done
	for command in pack warm; do
		run -0 "$WCX" "$command" --help
		[[ "$output" != *"--decoder"* ]]
	done
}

@test "WCX_CPU chooses the variant of the decoding loops, and all give the same output" {
	WCX_CPU=portable "$WCX" unpack -q --decoder=cpu "$PACKED" portable
	cmp "$MODEL" portable
	for variant in avx2 avx2-gather avx512; do
		run env WCX_CPU="$variant" "$WCX" unpack -q --decoder=cpu "$PACKED" "$variant"
		if [ "$status" -eq 0 ]; then
			cmp "$MODEL" "$variant"
		else
			[[ "$output" == *"WCX_CPU=$variant: this CPU has no such variant"* ]]
		fi
	done
	run ! env WCX_CPU=other "$WCX" unpack -q --decoder=cpu "$PACKED" other
	[[ "$output" == *"WCX_CPU=other: this CPU has no such variant"* ]]
	[ ! -e other ]
}

@test "the output has the permissions and modification time of the source" {
	cp "$MODEL" source
	chmod 640 source
	touch -d "2020-02-02 02:02:02.222222222" source
	"$WCX" pack -q source out.wcx
	"$WCX" unpack -q out.wcx out
	[ "$(stat -c "%a %y" source)" = "$(stat -c "%a %y" out.wcx)" ]
	[ "$(stat -c "%a %y" source)" = "$(stat -c "%a %y" out)" ]
}

# --- info ---

@test "info --json agrees with the safetensors header and describes the coding" {
	"$WCX" info --json "$PACKED" >info.json
	"$PYTHON" -m json.tool info.json >/dev/null
	"$PYTHON" - info.json "$MODEL" "$PACKED" "$(sha256sum <"$MODEL" | cut -d " " -f 1)" <<-'END'
		import json, os, re, sys
		from safetensors_io import read_header

		with open(sys.argv[1]) as file:
		    info = json.load(file)
		with open(sys.argv[2], "rb") as file:
		    tensors, _, data_at = read_header(file)
		    file.seek(0)
		    original = file.read()
		assert info["bytes"] == os.path.getsize(sys.argv[2])
		assert info["packed_bytes"] == os.path.getsize(sys.argv[3])
		assert abs(info["ratio"] - info["bytes"] / info["packed_bytes"]) < 1e-5
		assert info["sha256"] == sys.argv[4]
		assert len(info["tensors"]) == len(tensors)
		by_name = {t["name"]: t for t in info["tensors"]}
		for tensor in tensors:
		    told = by_name[tensor.name]
		    assert told["dtype"] == tensor.dtype and told["shape"] == tensor.shape, told
		    assert told["bytes"] == tensor.end - tensor.begin and told["packed_bytes"] <= told["bytes"], told
		    assert not told["bytes"] or told["offset"] == data_at + tensor.begin, told
		    twin = by_name.get(told["mode"].removeprefix("same as "))
		    assert (told["tiles"] == 0) == (told["bytes"] == 0 or twin is not None), told
		    if twin:
		        assert told["packed_bytes"] == 0 and twin["packed_bytes"] > 0, told
		        at, twin_at, size = told["offset"], twin["offset"], told["bytes"]
		        assert original[at : at + size] == original[twin_at : twin_at + twin["bytes"]], told
		assert sum(t["packed_bytes"] for t in info["tensors"]) < info["packed_bytes"]
		assert sum(t["tiles"] for t in info["tensors"]) < info["tiles"]
		modes = {name: t["mode"] for name, t in by_name.items()}
		layer = "model.layers.0."
		for name, bits in (layer + "mlp.up_proj.weight", 8), (layer + "mlp.gate.weight", 16), ("pooler.dense.weight", 32):
		    assert re.fullmatch(r"rans\d+(x[24])?(,rans\d+(x[24])?|,raw\d+)*(\+fold)?", modes[name]), modes
		    assert sum(map(int, re.findall(r"(?:rans|raw)(\d+)", modes[name]))) == bits, modes
		    assert not modes[name].endswith("+fold") or bits == 8, modes
		assert "raw" in modes["pooler.dense.weight"], modes
		assert re.fullmatch(r"pairs4(x[24])?,raw4\+fold", modes[layer + "self_attn.q_proj.weight"]), modes
		assert modes["lm_head.flat"] == "pairs4,raw4+fold", modes
		assert modes["constant.weight"] == "constant" and modes["empty.weight"] == "empty", modes
		assert modes["embed.flat"] == "same as lm_head.flat", modes
		assert modes["mask.causal"] == "zstd", modes
	END
}

@test "pack --for=speed codes BF16 in pairs, which unpack to the same bytes and take up to 2 % more" {
	PYTHONPATH="$FIXTURES" "$PYTHON" - bf16.safetensors <<-'END'
		import sys
		import numpy
		from safetensors_io import Tensor, build_header, to_bf16

		weights = to_bf16(numpy.random.default_rng(1).normal(0, 0.02, 512 * 1000)).astype("<u2")
		with open(sys.argv[1], "wb") as file:
		    file.write(build_header([Tensor("weight", "BF16", [512, 1000], 0, weights.nbytes)]) + weights.tobytes())
	END
	"$WCX" pack -q bf16.safetensors size.wcx
	"$WCX" pack -q --for=size bf16.safetensors again.wcx
	"$WCX" pack -q --for=speed bf16.safetensors speed.wcx
	cmp size.wcx again.wcx
	"$WCX" info --json speed.wcx | grep -q '"mode": *"pairs8\(x[24]\)\?,raw8"'
	"$WCX" unpack -q speed.wcx unpacked
	cmp bf16.safetensors unpacked
	[ "$(stat -c %s speed.wcx)" -le $(($(stat -c %s size.wcx) * 102 / 100)) ]
	run -2 "$WCX" pack --for=fun bf16.safetensors fun.wcx
	[[ "$output" == *"--for must be size or speed"* ]]
}

@test "info --compare shows what zstd and the reference mode make of each tensor" {
	"$WCX" info --json --compare "$PACKED" >info.json
	"$WCX" info --compare "$PACKED" >info.txt
	grep -q "limit  tiles zstd -19 reference mode" info.txt
	"$WCX" pack -q --mode=reference "$MODEL" reference.wcx
	"$WCX" info --json reference.wcx >reference.json
	"$PYTHON" - info.json reference.json "$MODEL" <<-'END'
		import json, sys
		import zstandard

		info, reference = (json.load(open(path)) for path in sys.argv[1:3])
		with open(sys.argv[3], "rb") as file:
		    original = file.read()
		compared = 0
		for tensor, other in zip(info["tensors"], reference["tensors"], strict=True):
		    if not tensor["bytes"]:
		        continue
		    data = original[tensor["offset"] : tensor["offset"] + tensor["bytes"]]
		    zstd = len(zstandard.ZstdCompressor(level=19).compress(data))
		    # Another release of zstd may find other matches.
		    assert abs(tensor["zstd_bytes"] - zstd) <= 32 + zstd / 50, (tensor, zstd)
		    if not other["mode"].startswith("same as"):
		        assert tensor["reference_bytes"] == other["packed_bytes"], (tensor, other)
		        compared += 1
		assert compared > 10
	END
}

@test "info shows a line for each tensor and the whole file's SHA-256" {
	run --separate-stderr -0 "$WCX" info "$PACKED"
	[ -z "$stderr" ]
	[[ "$output" =~ " "pairs4(x[24])?,raw4[+]fold" "+"model.layers.0.self_attn.q_proj.weight [512,512]" ]]
	[[ "$output" =~ " "rans[1-7](x[24])?,raw[1-7]([+]fold)?" "+"model.layers.0.mlp.up_proj.weight [512,512]" ]]
	[[ "$output" == *" same as lm_head.flat "*"embed.flat [131073]"* ]]
	[[ "$output" == *" empty "*" empty.mask [7,0,3]"* ]]
	[[ "$output" == *"sha256 $(sha256sum <"$MODEL" | cut -d " " -f 1)"* ]]
}

@test "info fails when its output cannot be written" {
	[ -c /dev/full ] || skip "there is no /dev/full"
	# shellcheck disable=SC2016 # the inner shell expands it
	run -1 bash -c '"$WCX" info "$PACKED" >/dev/full'
	[[ "$output" == *"No space left on device"* ]]
}

# --- help and exit codes ---

@test "every command has help with examples and exit codes" {
	for command in pack unpack convert verify warm info; do
		run --separate-stderr -0 "$WCX" "$command" --help
		[[ "$output" == "usage: wcx $command "* ]]
		[[ "$output" == *"Example"*"  wcx $command "* ]] || [[ "$output" == *"Example"*"; do wcx $command "* ]]
		[[ "$output" == *"Exit codes: 0 "*", 1 "*", 2 "* ]]
		[ -z "$stderr" ]
	done
	run --separate-stderr -0 "$WCX" --help
	for text in pack unpack convert verify warm info "Exit codes:"; do
		[[ "$output" == *"$text"* ]]
	done
}

@test "wcx help describes the program and each command" {
	[ "$("$WCX" help)" = "$("$WCX" --help)" ]
	[ "$("$WCX" help help)" = "$("$WCX" --help)" ]
	for command in pack unpack convert verify warm info; do
		[ "$("$WCX" help "$command")" = "$("$WCX" "$command" --help)" ]
	done
	run -2 "$WCX" help pack unpack
	run -2 "$WCX" help packk
	[[ "$output" == *"did you mean \`pack'?" ]]
}

@test "a mistyped command or option suggests the right one, with exit code 2" {
	run -2 "$WCX" packk a b
	[ "$output" = "wcx: unknown command \`packk'; did you mean \`pack'?" ]
	run -2 "$WCX" verfiy a
	[[ "$output" == *"did you mean \`verify'?" ]]
	run -2 "$WCX" frobnicate
	[ "$output" = "wcx: unknown command \`frobnicate'; see wcx help" ]
	run -2 "$WCX" pack --froce a b
	[[ "$output" == *"did you mean \`--force'?" ]]
	run -2 "$WCX" unpack --decodr=cpu a b
	[[ "$output" == *"did you mean \`--decoder'?" ]]
	run -2 "$WCX" hub --dry-ran a b
	[[ "$output" == *"did you mean \`--dry-run'?" ]]
	run -2 "$WCX" pack --mode
	[[ "$output" != *"did you mean"* ]]
}

@test "--version gives the version" {
	run -0 "$WCX" --version
	[ "$output" = "wcx $(sed -n 's/.*WCX_VERSION_TEXT "\(.*\)"/\1/p' "$BATS_TEST_DIRNAME/../../fs/base/version.h")" ]
	run -0 "$WCX" -V
}

@test "an invalid command line exits with 2 and a message on standard error" {
	while read -r line; do
		# shellcheck disable=SC2086 # the words of a command line
		run --separate-stderr "$WCX" $line
		echo "wcx $line: $status: $stderr"
		[ "$status" -eq 2 ]
		[ -n "$stderr" ]
		[ -z "$output" ]
	done <<-END

		frobnicate
		--frobnicate
		pack
		pack one two three
		pack --rm
		pack --frobnicate one two
		pack -j 0 one two
		pack -j 1025 one two
		pack -j -1 one two
		pack -j 2x one two
		unpack
		unpack one two three
		unpack --decoder=abacus one two
		pack --decoder=cpu one two
		warm --decoder=cpu one
		verify
		info
		info one two
		info --force one
	END
	holds_only .
}

@test "a missing file exits with 1 and is named" {
	for command in "pack missing out" "unpack missing out" "verify missing" "info missing"; do
		# shellcheck disable=SC2086
		run --separate-stderr -1 "$WCX" $command
		[ "$stderr" = "wcx ${command%% *}: missing: No such file or directory" ]
	done
	holds_only .
}

@test "a file that is not regular is refused at once" {
	mkfifo fifo
	run -1 timeout 10 "$WCX" pack fifo out.wcx
	[[ "$output" == *"fifo: not a regular file" ]]
	run -1 timeout 10 "$WCX" verify fifo
	[[ "$output" == *"fifo: not a regular file" ]]
	holds_only . fifo
}

@test "the original is refused as a packed file" {
	for command in verify info; do
		run -1 "$WCX" "$command" "$MODEL"
		[[ "$output" == *"$MODEL: not a .wcx file" ]]
	done
}

# --- outputs ---

@test "an existing output is kept without --force and replaced with it" {
	echo precious >out.wcx
	echo precious >out
	run -1 "$WCX" pack "$MODEL" out.wcx
	[[ "$output" == *"out.wcx: exists already; --force replaces it" ]]
	run -1 "$WCX" unpack "$PACKED" out
	[[ "$output" == *"out: exists already; --force replaces it" ]]
	run -1 "$WCX" pack "$MODEL" none/
	[[ "$output" == *"none/: there is no such directory" ]]
	[ "$(cat out out.wcx)" = "precious"$'\n'"precious" ]
	"$WCX" pack -q --force "$MODEL" out.wcx
	"$WCX" unpack -qf "$PACKED" out
	cmp "$PACKED" out.wcx
	cmp "$MODEL" out
	holds_only . out out.wcx
}

@test "a dangling link as output is not followed" {
	ln -s elsewhere out.wcx
	run -1 "$WCX" pack "$MODEL" out.wcx
	[[ "$output" == *"exists already"* ]]
	"$WCX" pack -q --force "$MODEL" out.wcx
	[ ! -L out.wcx ]
	holds_only . out.wcx
}

@test "the source is refused as output, under any name" {
	cp "$MODEL" source
	ln source hard
	ln -s source soft
	for out in source ./source hard soft; do
		run -1 "$WCX" pack --force source "$out"
		[[ "$output" == *"$out: is the source" ]]
	done
	cp "$PACKED" packed
	run -1 "$WCX" unpack --force packed packed
	[[ "$output" == *"packed: is the source" ]]
	cmp source "$MODEL"
	cmp packed "$PACKED"
	holds_only . hard packed soft source
}

@test "an output in a missing or unwritable directory is named" {
	run -1 "$WCX" pack "$MODEL" nowhere/out.wcx
	[[ "$output" == *"nowhere/out.wcx: output directory nowhere does not exist" ]]
	[ -d /proc/self ] || skip "there is no /proc"
	run -1 "$WCX" pack "$MODEL" /proc/out.wcx
	[[ "$output" == *"/proc/out.wcx: "* ]]
}

@test "a sparse file packs into the same bytes as its copy without holes" {
	write_safetensors sparse '{"a":{"dtype":"BF16","shape":[10000001],"data_offsets":[0,20000002]}}' 3000000
	truncate -s 12000001 sparse
	tail -c 1000000 "$MODEL" >>sparse
	truncate -s $((8 + 69 + 20000002)) sparse
	cp --sparse=never sparse full
	"$WCX" pack -q sparse sparse.wcx
	"$WCX" pack -q full full.wcx
	cmp sparse.wcx full.wcx
}

@test "what a file system says of holes is not taken for the contents of a source" {
	strace -o /dev/null true || skip "strace is not installed, or may not trace"
	write_safetensors sparse '{"a":{"dtype":"BF16","shape":[10000000],"data_offsets":[0,20000000]}}' 3000000
	truncate -s $((8 + 69 + 20000000)) sparse
	"$WCX" pack -q sparse
	strace -f -qq -o /dev/null -e trace=lseek -e inject=lseek:error=ENXIO "$WCX" pack -q sparse lied.wcx # no data behind that
	cmp sparse.wcx lied.wcx
}

@test "unpack of a small file that claims terabytes says at once that there is no space, and info shows the size" {
	(cd "$BATS_TEST_DIRNAME/../reference" && "$PYTHON" -) >claim.wcx <<-'END'
		import struct, sys
		import wcx_encode as w

		COUNT, BYTES = 4000, 1 << 30  # tensors of zeros, with the same content
		names = (f'"{i}":{{"dtype":"U64","shape":[{BYTES // 8}],"data_offsets":[{i * BYTES},{(i + 1) * BYTES}]}}'
		         for i in range(COUNT))
		json = ("{" + ",".join(names) + "}").encode()
		file = w.File()
		file.add_segment(struct.pack("<Q", len(json)) + json, tile=(1, 16384), recipe=w.ZSTD)
		file.segments.append(w.Segment(BYTES, BYTES // 8, 1, 65536, elem_bytes=8, field_count=2))
		file.segments += [w.Segment(BYTES, same_as=1)] * (COUNT - 1)
		file.fields += [w.Field(32)] * 2
		file.entries += [w.Entry(w.CONSTANT, checksum=0)] * (BYTES >> 19)
		sys.stdout.buffer.write(file.build())
	END
	[ "$(stat -c %s claim.wcx)" -lt 1000000 ]
	run -1 timeout 10 "$WCX" unpack claim.wcx out
	[[ "$output" =~ ^"wcx unpack: out: needs 42949"[0-9]+" bytes, "[0-9]+" are free"$ ]]
	holds_only . claim.wcx
	run -0 "$WCX" info claim.wcx
	[[ "$output" == *42949* ]]
}

@test "a full disk leaves no output and no temporary file, and the source unchanged" {
	[ "$(id -u)" -eq 0 ] || skip "only root can mount a small file system"
	mkdir small
	mount -t tmpfs -o size=1m wcx-test small || {
		rmdir small
		skip "a tmpfs cannot be mounted here"
	}
	sha256sum "$MODEL" "$PACKED" >before
	run -1 "$WCX" pack "$MODEL" small/out.wcx
	[ "$output" = "wcx pack: warning: small/out.wcx: may need up to $(stat -c %s "$MODEL") bytes, 1048576 are free
wcx pack: small/out.wcx: No space left on device" ]
	holds_only small
	run -1 "$WCX" unpack "$PACKED" small/out
	[ "$output" = "wcx unpack: small/out: needs $(stat -c %s "$MODEL") bytes, 1048576 are free" ]
	holds_only small
	echo precious >small/out
	run -1 "$WCX" unpack --force "$PACKED" small/out
	[ "$(cat small/out)" = precious ]
	sha256sum -c before
}

@test "a file size limit leaves no output and no temporary file" {
	mkdir out
	# shellcheck disable=SC2016 # the inner shell expands it
	run -1 bash -c 'ulimit -f 100; exec "$WCX" pack "$MODEL" out/out.wcx'
	[ "$output" = "wcx pack: out/out.wcx: File too large" ]
	holds_only out
}

@test "--force replaces nothing but regular files" {
	mkfifo pipe
	run -1 "$WCX" unpack --force "$PACKED" pipe
	[ "$output" = "wcx unpack: pipe: not a regular file" ]
	[ -p pipe ]
	ln -s /proc/self/fd/1 stdout # as /dev/stdout
	! "$WCX" unpack --force "$PACKED" stdout >file 2>message || false
	[ "$(cat message)" = "wcx unpack: stdout: not a regular file" ]
	[ -L stdout ]
}

# Start packing SOURCE into OUTPUT, and return once it writes there what has no name yet.
start_endless_pack() {
	env --default-signal=HUP "$WCX" pack --force "${1:-endless.safetensors}" "${2:-out/out.wcx}" 2>messages 3>&- &
	until readlink /proc/"$!"/fd/* 2>/dev/null | grep -q "/out/#.* (deleted)$"; do
		kill -0 "$!"
	done
}

# Interrupt packing with a signal as soon as it writes: that signal ends it, so that a shell ends its loop.
interrupt_pack() {
	local status=0

	start_endless_pack "${@:2}"
	kill "-$1" "$!"
	wait "$!" || status=$?
	[ "$status" -eq $((128 + $(kill -l "$1"))) ]
	[ "$(cat messages)" = "wcx pack: interrupted" ]
}

@test "packing that is killed leaves nothing" {
	write_endless
	mkdir out
	start_endless_pack
	kill -KILL "$!"
	wait "$!" || true
	holds_only out
}

@test "interrupted packing leaves no output and no temporary file, and the source unchanged" {
	write_endless
	mkdir out
	before="$(stat -c "%i %s %y %z" endless.safetensors)"
	for signal in INT TERM HUP; do
		interrupt_pack "$signal"
		holds_only out
	done
	echo precious >out/out.wcx
	interrupt_pack INT
	holds_only out out.wcx
	[ "$(cat out/out.wcx)" = precious ]
	[ "$before" = "$(stat -c "%i %s %y %z" endless.safetensors)" ]
	rm -r out
	mkdir tree
	mv endless.safetensors tree
	interrupt_pack TERM tree out # nothing is done that another run could go on from
	[ ! -e out ]
}

# --- odd sources ---

@test "a file of 20,000 tensors, whose header is larger than its tensors, is restored byte for byte" {
	"$PYTHON" - many <<-'END'
		import json, struct, sys
		tensors = {f"layers.{i}.scale": {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i in range(20000)}
		header = json.dumps(tensors).encode()
		open(sys.argv[1], "wb").write(struct.pack("<Q", len(header)) + header + bytes(i % 251 for i in range(20000)))
	END
	"$WCX" pack -q many many.wcx
	"$WCX" unpack -q many.wcx restored
	cmp many restored
	[ "$(stat -c %s many.wcx)" -lt $(($(stat -c %s many) / 8)) ]
}

@test "odd but legal files are restored byte for byte" {
	local t='"a":{"dtype":"I8","shape":[3],"data_offsets":[0,3]}'

	while read -r name bytes json; do
		json="${json//@at/\"data_offsets\":}"
		json="${json//@t/$t}"
		echo "$name: $json"
		write_safetensors "$name" "$(printf "%b" "$json")" "$bytes"
		check_round_trip "$name"
	done <<-'END'
		not_padded 3 {@t}
		padded 3 {@t}\x20\x20\x20
		empty_json 0 {}
		padded_empty_json 0 {}\x20\x20\x20\x20\x20\x20
		only_metadata 0 {"__metadata__":{"format":"pt"}}
		white_space_in_front 3 \x20\n\t\r{@t}
		white_space_within 3 {\n\t"a" : {"dtype"\n:"I8","shape":[\x203\x20] ,"data_offsets":[0,\t3]}\n}
		no_dimension 8 {"s":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}
		no_elements 0 {"e":{"dtype":"F32","shape":[0,5],@at[0,0]},"f":{"dtype":"I8","shape":[0],@at[0,0]}}
		no_elements_between 6 {@t,"e":{"dtype":"F32","shape":[0],@at[3,3]},"c":{"dtype":"U8","shape":[3],@at[3,6]}}
		unknown_dtype 5 {"x":{"dtype":"Q9_Z","shape":[7,7],"data_offsets":[0,5]}}
		half_bytes 3 {"x":{"dtype":"F4","shape":[6],"data_offsets":[0,3]}}
		order_of_data 7 {"b":{"dtype":"I32","shape":[1],"data_offsets":[3,7]},@t}
		odd_offset 11 {@t,"b":{"dtype":"I64","shape":[1],"data_offsets":[3,11]}}
		names 4 {"\\\\ \\" \\u00e9 \\n":{"dtype":"I8","shape":[1],@at[0,1]},"é/名":{"dtype":"U8","shape":[3],@at[1,4]}}
		many_dimensions 4 {"d":{"dtype":"I8","shape":[1,2,1,1,2,1,1,1,1],"data_offsets":[0,4]}}
	END
}

@test "dimensions that no signed number holds are not shown as negative" {
	local shape='[18446744073709551615,0,9223372036854775807]'

	write_safetensors huge '{"e":{"dtype":"F32","shape":'"$shape"',"data_offsets":[0,0]}}' 0
	"$WCX" pack -q huge
	"$WCX" info huge.wcx >table
	grep -qF " e $shape" table
	"$WCX" info --json huge.wcx >json
	"$PYTHON" -c 'import json; s = json.load(open("json"))["tensors"][0]["shape"]; assert s == [1.844674407e19, 0, 2**63 - 1], s'
}

@test "files that the safetensors library refuses are refused with its messages" {
	local t='"a":{"dtype":"I8","shape":[3],"data_offsets":[0,3]}'

	: >empty
	check_refused empty 3 "not a safetensors file: header too small"
	printf '\2\0\0\0\0\0\0' >seven
	check_refused seven 3 "not a safetensors file: header too small"
	printf '\0\0\0\0\1\0\0\0{}' >large
	check_refused large 3 "not a safetensors file: header too large"
	printf '\100\0\0\0\0\0\0\0{}' >short
	check_refused short 1 "truncated: 10 of at least 72 bytes (invalid header length)"
	write_safetensors cut "{$t}" 2
	check_refused cut 1 \
		"truncated: $(stat -c %s cut) of $(($(stat -c %s cut) + 1)) bytes (incomplete metadata, file not fully covered)"
	write_safetensors hole "{$t}" 4
	check_refused hole 1 "incomplete metadata, file not fully covered"
	write_safetensors overlap "{$t,\"b\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[2,4]}}" 4
	# shellcheck disable=SC2016 # no expansion is meant
	check_refused overlap 1 'invalid offset for tensor `b`'
	write_safetensors size '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,7]}}' 7
	check_refused size 1 "invalid shape, data type, or offset for tensor"
	write_safetensors json '{"a":' 4
	run -1 "$WCX" pack json refused.wcx
	[[ "$output" == "wcx pack: json: invalid JSON in header: "* ]]
}

@test "another kind of file is named, with exit code 3" {
	local text kind

	while IFS="|" read -r text kind; do
		printf "%b" "$text" >other
		check_refused other 3 "not a safetensors file: $kind"
	done <<-'END'
		GGUF\x03\0\0\0\x23\x01\0\0\0\0\0\0|looks like GGUF
		version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n|looks like a Git LFS pointer; `git lfs pull' fetches the file
		{"architectures": ["LlamaForCausalLM"]}|looks like JSON
		# A model\n|looks like text
		<!DOCTYPE html><html>|looks like HTML, such as an error page
		\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0|looks like HDF5
		\x08\x07\x12\x07pytorch\x1a\x051.9.0|looks like ONNX
		\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P|looks like a Python pickle, such as an old PyTorch file
	END
	check_refused "$PACKED" 3 "not a safetensors file: packed already"
	"$PYTHON" - <<-'END'
		import gzip, zipfile, numpy, zstandard
		numpy.save("npy", numpy.arange(9))
		numpy.savez("npz", a=numpy.arange(9))
		open("gz", "wb").write(gzip.compress(bytes(999)))
		open("zst", "wb").write(zstandard.compress(bytes(999)))
		with zipfile.ZipFile("pt", "w") as pt:
		    pt.writestr("archive/data.pkl", bytes(99))
		with zipfile.ZipFile("zip", "w") as other:
		    other.writestr("README", bytes(99))
	END
	check_refused npy.npy 3 "not a safetensors file: looks like NumPy"
	check_refused npz.npz 3 "not a safetensors file: looks like a NumPy zip"
	check_refused gz 3 "not a safetensors file: looks like gzip"
	check_refused zst 3 "not a safetensors file: looks like zstd"
	check_refused pt 3 "not a safetensors file: looks like a PyTorch zip"
	check_refused zip 3 "not a safetensors file: looks like a zip archive"
}

@test "control characters in names and dtypes do not reach the terminal" {
	write_safetensors esc '{"a\u001b[2J\u009b31m":{"dtype":"I8\u0007","shape":[3],"data_offsets":[0,3]}}' 3
	"$WCX" pack -q esc esc.wcx
	"$WCX" info esc.wcx >text
	"$WCX" info --json esc.wcx >json
	LC_ALL=C run -1 grep -aP '[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]' text
	LC_ALL=C run -1 grep -aP '[\x00-\x08\x0b-\x1f\x7f]' json
	"$PYTHON" -m json.tool json >/dev/null
}

# --- damage ---

# Change a byte in the middle of a tile of a tensor's segment.  Prints the number of the tile and its offset in the original.
damage_tile() {
	"$PYTHON" - "$@" <<-'END'
		import bisect, itertools, sys
		from safetensors_io import read_header
		from wcx_decode import Wcx

		path, original, name, number = *sys.argv[1:4], int(sys.argv[4])
		wcx = Wcx(path)
		with open(original, "rb") as file:
		    tensors, _, data_at = read_header(file)
		begin = data_at + next(t for t in tensors if t.name == name).begin
		starts = list(itertools.accumulate((s.bytes for s in wcx.segments), initial=0))
		index = bisect.bisect_right(starts, begin) - 1
		segment = wcx.segments[index]
		tile = segment.first_tile + number
		assert number < segment.tile_count and wcx.sizes[tile], "no bytes to change"
		at = int(wcx.places[tile]) + int(wcx.sizes[tile]) // 2
		with open(path, "r+b") as file:
		    file.seek(at)
		    byte = file.read(1)[0]
		    file.seek(at)
		    file.write(bytes([byte ^ 0x20]))
		y, x, _, _ = segment.tile_place(tile)
		print(number, starts[index] + (y * segment.cols + x) * segment.elem_bytes)
	END
}

@test "verify names the tensor, tile and offset of damage, and continues" {
	cp "$PACKED" damaged.wcx
	read -r first first_at < <(damage_tile damaged.wcx "$MODEL" model.layers.0.self_attn.q_proj.weight 2)
	read -r second second_at < <(damage_tile damaged.wcx "$MODEL" lm_head.flat 1)
	run --separate-stderr "$WCX" verify -j 1 damaged.wcx missing.wcx "$PACKED"
	[ "$status" -eq 1 ]
	[ "$output" = "$PACKED: sound" ]
	echo "$stderr"
	# shellcheck disable=SC2154 # set by run
	[ "${#stderr_lines[@]}" -eq 4 ]
	text="wcx verify: damaged.wcx: tensor \`model.layers.0.self_attn.q_proj.weight\`, tile $first "
	text+="(offset $first_at of the original, packed at "
	[[ "${stderr_lines[0]}" == "$text"*"): damaged" ]]
	text="wcx verify: damaged.wcx: tensor \`lm_head.flat\`, tile $second (offset $second_at of the original, packed at "
	[[ "${stderr_lines[1]}" == "$text"*"): damaged" ]]
	[[ "${stderr_lines[2]}" == "wcx verify: damaged.wcx: 2 of "*" tiles damaged" ]]
	[ "${stderr_lines[3]}" = "wcx verify: missing.wcx: No such file or directory" ]
}

@test "unpack of a damaged file names the damage and leaves no output" {
	cp "$PACKED" damaged.wcx
	damage_tile damaged.wcx "$MODEL" odd.weight 3
	run -1 "$WCX" unpack damaged.wcx out
	[[ "$output" == "wcx unpack: damaged.wcx: tensor \`odd.weight\`, tile 3 (offset "* ]]
	holds_only . damaged.wcx
}

@test "a truncated packed file or a damaged index is refused by name" {
	head -c 1000000 "$PACKED" >cut.wcx
	cp "$PACKED" index.wcx
	printf '\377' | dd of=index.wcx bs=1 seek=$(($(stat -c %s index.wcx) - 5)) conv=notrunc status=none
	for command in verify info "unpack --force"; do
		for file in cut.wcx index.wcx; do
			# shellcheck disable=SC2046,SC2086 # several words, or none
			run -1 "$WCX" $command "$file" $([[ $command != unpack* ]] || echo out)
			[[ "$output" == "wcx ${command%% *}: $file: "* ]]
			[[ "$output" == *"truncated: 1000000 bytes, should have $(stat -c %s "$PACKED")" ]] ||
				[[ "$output" == *"damaged index, offset "*": checksum differs" ]]
		done
	done
	holds_only . cut.wcx index.wcx
}
