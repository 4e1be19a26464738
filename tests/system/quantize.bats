#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
#
# wcx quantize: what it makes of models' directories, compared with plain numpy code, and what it refuses.

bats_require_minimum_version 1.5.0

load ../fixtures/suite

setup_file() {
	suite_find numpy || return 0
	export LLAMA="$BATS_FILE_TMPDIR/llama" HARD="$BATS_FILE_TMPDIR/hard"

	"$PYTHON" "$FIXTURES/small_llama.py" "$LLAMA" --dtype BF16 --shards 3
	for dtype in F32 F16 BF16; do
		"$PYTHON" "$FIXTURES/small_llama.py" "$HARD-$dtype" --dtype "$dtype" --hard --shards 2
	done
}

# Each test runs in a directory of its own that is empty.
setup() {
	suite_start
	mkdir "$BATS_TEST_TMPDIR/work"
	cd "$BATS_TEST_TMPDIR/work" || return
}

teardown() {
	cd "$BATS_TEST_DIRNAME" || return
	if mountpoint -q "$BATS_TEST_TMPDIR/work/mnt"; then fusermount3 -u "$BATS_TEST_TMPDIR/work/mnt"; fi
	if mountpoint -q "$BATS_TEST_TMPDIR/work/small"; then umount "$BATS_TEST_TMPDIR/work/small"; fi
}

check() {
	"$PYTHON" "$REFERENCE/int8_reference.py" "$@"
}

# refused MODEL TEXT [OPTION...] - quantising fails with this message and leaves nothing
refused() {
	local model="$1" text="$2"

	shift 2
	run -1 "$WCX" quantize "$@" "$model" out
	[[ "$output" == *"$text"* ]] || {
		echo "$output"
		return 1
	}
	[ -z "$(find . -maxdepth 1 -name out -o -maxdepth 1 -name ".wcx-*")" ]
}

# The files of a tree and their contents.
describe_all() {
	find "$1" -type f -print0 | sort -z | xargs -0 sha256sum
}

# A copy of the model whose config.json Python code has changed: its variable is config.
change_config() {
	cp -r "$LLAMA" "$1"
	"$PYTHON" - "$1/config.json" "$2" <<-'END'
		import json, sys
		config = json.load(open(sys.argv[1]))
		exec(sys.argv[2])
		json.dump(config, open(sys.argv[1], "w"))
	END
}

# add_tensor DIR NAME DTYPE SHAPE HEX - a model of one file with another tensor, of repeated bytes
add_tensor() {
	"$PYTHON" - "$@" <<-'END'
		import json, math, pathlib, sys
		from safetensors_io import ELEM_BYTES, Tensor, build_header, read_header
		directory, name, dtype, shape, data = sys.argv[1:]
		path = pathlib.Path(directory, "model.safetensors")
		with open(path, "rb") as file:
		    tensors, metadata, offset = read_header(file)
		    old = file.read()
		size = math.prod(json.loads(shape)) * ELEM_BYTES[dtype]
		data = (bytes.fromhex(data) * size)[:size]
		tensors.append(Tensor(name, dtype, json.loads(shape), len(old), len(old) + size))
		path.write_bytes(build_header(tensors, metadata) + old + data)
	END
}

make_single() {
	"$PYTHON" "$FIXTURES/small_llama.py" one --dtype F16
}

@test "values and scales are those of plain code, for all dtypes, strategies and formats" {
	local dtype strategy format

	for dtype in F32 F16 BF16; do
		for strategy in channel tensor; do
			for format in int-quantized pack-quantized; do
				"$WCX" quantize -q --strategy $strategy --format $format "$HARD-$dtype" "$dtype-$strategy-$format"
				check "$HARD-$dtype" "$dtype-$strategy-$format" --strategy $strategy --format $format >"$dtype.txt"
				[ "$(cat "$dtype.txt")" = "14 quantised, 7 the same" ]
			done
		done
	done
}

@test "scales can have another dtype than the weights" {
	local dtype scales

	for dtype in F32 BF16; do
		for scales in F32 F16 BF16; do
			"$WCX" quantize -q --dtype $scales "$HARD-$dtype" "$dtype-$scales"
			check "$HARD-$dtype" "$dtype-$scales" --scales $scales
		done
	done
}

@test "the number of threads does not change a byte" {
	"$WCX" quantize -q -j 1 "$HARD-F16" one
	"$WCX" quantize -q -j 7 "$HARD-F16" seven
	diff -r one seven
}

@test "tokenizer, subdirectories and other files are copied, through links too" {
	mkdir blobs linked
	cp "$LLAMA"/*.safetensors blobs
	cp -r "$LLAMA"/*.json "$LLAMA/original" linked
	for file in blobs/*; do ln -s "../$file" linked; done
	mkdir -p linked/.cache/huggingface linked/.git
	"$WCX" pack -q linked/model-0000*.safetensors linked # as a model packed in place without --rm is
	cp linked/model-00001-of-00003.safetensors.wcx linked/model-00001-of-00003.safetensors.base-0123.wcx
	touch linked/pytorch_model.bin linked/consolidated.safetensors linked/.cache/huggingface/lock linked/.gitattributes
	"$WCX" quantize linked out 2>log
	check linked out
	diff -r "$LLAMA/original" out/original
	cmp "$LLAMA/tokenizer.json" out/tokenizer.json
	[ -z "$(find out -type l)" ]
	[ ! -e out/pytorch_model.bin ] && [ ! -e out/consolidated.safetensors ] && [ ! -e out/.cache ] && [ ! -e out/.git ]
	[ -e out/.gitattributes ]
	[ -z "$(find out -name "*.wcx")" ]
	grep -q "model-00001-of-00003.safetensors.wcx: left out: weights that are not quantised" log
	"$WCX" quantize -q --pack linked packed
	[ "$(find packed -name "*.wcx" | wc -l)" -eq 3 ]
	grep -q "pytorch_model.bin: left out: weights that are not quantised" log
	[ "$(stat -c %a out)" = "$(stat -c %a linked)" ]
}

@test "a directory that cannot be read to its end fails the run, and the old model stays" {
	strace -o /dev/null true || skip "strace is not installed, or may not trace"
	cp -r "$LLAMA" model
	"$WCX" quantize -q model out
	cp -r out before
	run strace -f -qq -o /dev/null -P "$PWD/model/original" -e trace=getdents64 -e inject=getdents64:error=EIO \
		"$WCX" quantize -f "$PWD/model" out
	[ "$status" -eq 1 ]
	[[ $output == *"model/original: Input/output error"* ]]
	diff -r before out
}

@test "what --ignore names stays, and is named in config.json" {
	"$WCX" quantize -q --ignore model.layers.0.mlp.up_proj --ignore 're:.*layers\.1\.' --ignore nothing "$LLAMA" out 2>log
	[ "$(check "$LLAMA" out)" = "6 quantised, 15 the same" ]
	[ "$(cat log)" = "wcx quantize: warning: --ignore nothing: no module has such a name" ]
	"$PYTHON" - <<-'END'
		import json
		ignore = json.load(open("out/config.json"))["quantization_config"]["ignore"]
		assert {"lm_head", "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj", "re:.*layers\\.1\\."} <= set(ignore)
		assert "model.layers.0.mlp.down_proj" not in ignore
	END
	run -1 "$WCX" quantize --ignore 're:(' "$LLAMA" other
	[[ "$output" == "wcx quantize: re:(: missing closing parenthesis, at character 1 of the expression" ]]
}

@test "--dry-run shows which tensors become INT8, and writes nothing" {
	"$WCX" quantize --dry-run "$LLAMA" >table 2>summary
	[ "$(grep -c "^INT8    linear " table)" = 14 ]
	grep -qE "^same    output layer +BF16  \[101,30\] +lm_head.weight$" table
	grep -qE "^same    embedding +BF16  \[101,30\] +model.embed_tokens.weight$" table
	grep -q "^21 tensors in 3 files: 14 would become INT8, 7 the same$" summary
	"$WCX" quantize --dry-run --json "$LLAMA" ignored >lines
	"$PYTHON" - <<-'END'
		import json
		lines = [json.loads(line) for line in open("lines")]
		assert len(lines) == 22 and lines[-1]["tensors"] == {"quantised": 14, "same": 7}
		assert sum(line.get("quantised", False) for line in lines) == 14
	END
	[ ! -e ignored ]
}

@test "control characters in names and dtypes do not reach the terminal" {
	make_single
	# A row of 127.5 and values between two steps: the lowest precision of all.
	add_tensor one $'x\e[2J\xc2\x9b31m.weight' F16 "[30,30]" "f857$(printf '003e%.0s' {1..29})"
	add_tensor one $'y\a' F16 "[1]" 003c
	"$WCX" quantize --dry-run one >table
	"$WCX" quantize one out 2>summary
	grep -q "x?\[2J??31m.weight" table
	grep -q "x?\[2J??31m.weight" summary
	LC_ALL=C run -1 grep -aP '[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]' table summary
}

@test "the precision of each tensor is told, and where it is lowest" {
	"$WCX" quantize --json "$LLAMA" out >lines
	QUANTIZE_MD="$BATS_TEST_DIRNAME/../../docs/quantize.md" "$PYTHON" - <<-'END'
		import json, numpy as np
		from int8_reference import from_bf16, read_model
		import os, pathlib, re
		lines = [json.loads(line) for line in open("lines")]
		told = {line["tensor"]: line["sqnr_db"] for line in lines if line.get("quantised")}
		model, made = read_model(pathlib.Path(os.environ["LLAMA"])), read_model(pathlib.Path("out"))
		for name, db in told.items():
		    weights = from_bf16(np.frombuffer(model[name][2], "<u2")).astype(float).reshape(model[name][1])
		    values = np.frombuffer(made[name][2], np.int8).astype(float).reshape(model[name][1])
		    scales = from_bf16(np.frombuffer(made[name + "_scale"][2], "<u2")).astype(float)
		    noise = weights - values * scales[:, None]
		    assert abs(10 * np.log10((weights**2).sum() / (noise**2).sum()) - db) < 0.01, name
		assert all(line["command"] == "quantize" for line in lines)
		assert [line["type"] for line in lines] == ["tensor"] * 21 + ["total"]
		documented = set(re.findall(r"^\| `(\w+)` \|", open(os.environ["QUANTIZE_MD"]).read(), re.M))
		assert {key for line in lines for key in line} <= documented
		worst = sorted(told, key=told.get)[:5]
		assert [t["tensor"] for t in lines[-1]["lowest_sqnr"]] == worst
	END
	"$WCX" quantize -f "$LLAMA" out 2>summary
	grep -qE "^  linear layers  BF16 [0-9.]+ kB -> INT8 [0-9.]+ kB: 1\.[0-9]+ x$" summary
	[ "$(grep -cE "^ +[0-9.]+ dB  model\.layers\." summary)" = 5 ]
}

@test "--pack leaves packed shards alone, which decode to the unpacked ones" {
	"$WCX" quantize "$LLAMA" plain
	"$WCX" quantize --pack "$LLAMA" packed 2>summary
	[ "$(find packed -name "*.safetensors*" -printf "%f\n" | sort | tr "\n" " ")" = \
		"model-00001-of-00003.safetensors.wcx model-00002-of-00003.safetensors.wcx model-00003-of-00003.safetensors.wcx model.safetensors.index.json " ]
	for file in packed/*.wcx; do
		"$WCX" unpack -q "$file" file.safetensors
		cmp file.safetensors "plain/$(basename "$file" .wcx)"
		rm file.safetensors
	done
	cmp plain/config.json packed/config.json
	cmp plain/model.safetensors.index.json packed/model.safetensors.index.json
	"$WCX" quantize -q --pack --for=speed "$LLAMA" speed
	"$WCX" pack -q --for=speed plain/model-00001-of-00003.safetensors speed.wcx
	cmp speed.wcx speed/model-00001-of-00003.safetensors.wcx
	grep -qE "^  whole model .* -> packed [0-9.]+ [kM]B: [0-9.]+ x, in all [0-9.]+ x$" summary
}

@test "a trained model loses what INT8 loses by its nature" {
	model="${WCX_MODELS:-.}/../minilm"
	[ -e "$model/config.json" ] || skip "there is no trained model (WCX_MODELS)"
	"$WCX" quantize --json "$model" out >lines
	[ "$(check "$model" out)" = "37 quantised, 67 the same" ]
	"$PYTHON" - <<-'END'
		import json
		lines = [json.loads(line) for line in open("lines")]
		assert all(line["sqnr_db"] > 30 for line in lines if line.get("quantised")) and lines[-1]["sqnr_db"] > 39
		assert lines[-1]["lowest_sqnr"][0]["tensor"] == "encoder.layer.0.output.dense.weight"
	END
}

@test "an index that does not fit its files is refused" {
	cp -r "$LLAMA" bad
	sed -i 's/model-00001-of/model-00002-of/' bad/model.safetensors.index.json
	refused bad "model.safetensors.index.json: names tensors that its files do not have"
	cp "$LLAMA/model.safetensors.index.json" bad
	mv bad/model-00001-of-00003.safetensors swap
	mv bad/model-00002-of-00003.safetensors bad/model-00001-of-00003.safetensors
	mv swap bad/model-00002-of-00003.safetensors
	refused bad "is not there by model.safetensors.index.json"
	sed -i 's/model-00003-of-00003/..\/x/' bad/model.safetensors.index.json
	refused bad "is not in this directory"
	echo '{"weight_map": {}}' >bad/model.safetensors.index.json
	refused bad "names no file"
	echo '{"weight_map": ' >bad/model.safetensors.index.json
	refused bad "model.safetensors.index.json: "
	rm bad/model.safetensors.index.json
	refused bad "has neither model.safetensors nor model.safetensors.index.json"
	touch bad/model.safetensors.wcx
	refused bad "index.json, but a packed file: give the directory of a mount"
}

@test "what would become garbage is refused, with the reason" {
	change_config quantised 'config["quantization_config"] = {"quant_method": "gptq"}'
	refused quantised "is quantised already: config.json has a quantization_config"
	change_config null 'config["quantization_config"] = None'
	refused null "null/config.json: quantization_config is null; remove it"
	change_config conv 'config["model_type"] = "gpt2"'
	refused conv "other layers than torch.nn.Linear"
	change_config untold 'del config["model_type"]'
	refused untold "config.json has no model_type"
	cp -r "$LLAMA" bare
	rm bare/config.json
	refused bare "bare/config.json: No such file or directory"
	echo '[]' >bare/config.json
	refused bare "no JSON object"
	change_config newer 'config["model_type"] = "llama9"'
	refused newer "model_type llama9"
	"$WCX" quantize -q --unknown-type newer out
	[ "$(check newer out)" = "14 quantised, 7 the same" ]
}

@test "tensors that have no INT8 form are refused by name" {
	make_single
	cp -r one tried && add_tensor tried model.layers.0.self_attn.q_proj.weight_scale F16 "[30,1]" 003c
	refused tried "is quantised already, by tensor model.layers.0.self_attn.q_proj.weight_scale"
	rm -r tried && cp -r one tried && add_tensor tried x.weight F8_E4M3 "[4,4]" 38
	refused tried "tensor x.weight is F8_E4M3"
	rm -r tried && cp -r one tried && add_tensor tried x.weight F64 "[4,4]" 00
	refused tried "tensor x.weight is F64"
	rm -r tried && cp -r one tried && add_tensor tried model.layers.0.mlp.experts.gate_up_proj F16 "[2,4,4]" 003c
	refused tried "belongs to a mixture of experts"
	"$WCX" quantize -q --ignore 're:.*experts' tried out
	[ "$(check tried out)" = "14 quantised, 8 the same" ]
	rm -r tried out && cp -r one tried && add_tensor tried x.weight F16 "[3,4]" 007c
	refused tried "tensor x.weight, row 0, column 0: the weight is infinite"
	rm -r tried && cp -r one tried && add_tensor tried x.weight F16 "[3,4]" 003c003c003c003c003c007e
	refused tried "tensor x.weight, row 1, column 1: the weight is not a number" --strategy tensor
	rm -r tried && cp -r one tried && truncate -s -1 tried/model.safetensors
	refused tried "tried/model.safetensors: "
}

@test "a directory in which something is mounted is not replaced, and what is mounted stays" {
	[ "$(id -u)" -eq 0 ] || skip "only root can make mounts"
	mkdir precious
	touch precious/file
	"$WCX" quantize -q "$LLAMA" out
	mkdir -p out/sub/data
	run -1 unshare --mount sh -c "mount --bind precious out/sub/data && '$WCX' quantize -f '$LLAMA' out"
	[[ "$output" == *"out: is not replaced, as something is mounted at out/sub/data" ]]
	touch single out/single
	run -1 unshare --mount sh -c "mount --bind single out/single && '$WCX' quantize -f '$LLAMA' out"
	[[ "$output" == *"out: is not replaced, as something is mounted at out/single" ]]
	[ -e precious/file ] && check "$LLAMA" out
	"$WCX" quantize -q -f "$LLAMA" out
	[ ! -e out/sub ] && [ -e precious/file ]
}

@test "an output is never replaced by mistake" {
	mkdir out
	"$WCX" quantize -q "$LLAMA" out # empty
	run -1 "$WCX" quantize "$LLAMA" out
	[ "$output" = "wcx quantize: out: exists already; --force replaces it" ]
	touch out/stale.safetensors
	"$WCX" quantize -q -f "$LLAMA" out/
	[ ! -e out/stale.safetensors ]
	check "$LLAMA" out
	mkdir precious && touch precious/file
	run -1 "$WCX" quantize -f "$LLAMA" precious
	[[ "$output" == *"precious: is not replaced, as it has no config.json" ]]
	[ -e precious/file ]
	cp -r "$LLAMA" model
	run -1 "$WCX" quantize model model/int8
	[[ "$output" == *"model/int8: is in the model's directory" ]]
	run -1 "$WCX" quantize -f model model
	[[ "$output" == *"model: is the model's directory" ]]
	mkdir around links
	cp -r "$LLAMA" around/original
	cp "$LLAMA/config.json" around
	describe_all around >before
	run -1 "$WCX" quantize -f around/original around
	[ "$output" = "wcx quantize: around: is not replaced, as the model's directory around/original is in it" ]
	ln -s "$PWD"/around/original/* links
	run -1 "$WCX" quantize -f links around/
	[[ "$output" =~ ^"wcx quantize: around/: is not replaced, as links/model-0000"[1-3]"-of-00003.safetensors is a link into it"$ ]]
	describe_all around | cmp before -
	run -1 "$WCX" quantize "$LLAMA" model/config.json/out
	[[ "$output" == *"model/config.json/out: Not a directory" ]]
	run -1 "$WCX" quantize --ignore='re:(' "$LLAMA" made/above/out
	[ ! -e made ]
	"$WCX" quantize -q "$LLAMA" made/above/out
	[ -e made/above/out/config.json ]
	diff -r "$LLAMA" model
	[ -z "$(find . -name ".wcx-*")" ]
}

@test "of a directory that is replaced nothing else is removed, if a directory in it is exchanged for a link" {
	local replaced

	needs_strace
	"$WCX" quantize -q "$LLAMA" out
	mkdir out/aside precious
	touch {out/aside,precious}/{first,second}
	stop_in unlinkat -P first "$WCX" quantize -q -f "$LLAMA" out
	replaced="$(echo .wcx-tmp-*)"
	mv "$replaced/aside" .
	ln -s "$PWD/precious" "$replaced/aside"
	go_on
	[ "$(ls precious)" = $'first\nsecond' ]
	"$WCX" quantize -q -f "$LLAMA" out
	[ ! -e "$replaced" ]
}

@test "the directory has the permissions and ACL of the model's, or of the one that was there" {
	cp -r "$LLAMA" model
	chmod 751 model
	if command -v setfacl >/dev/null && setfacl -m u:daemon:r model 2>/dev/null; then
		"$WCX" quantize -q model acl
		cmp <(getfacl model | tail -n +2) <(getfacl acl | tail -n +2)
		setfacl -b model
	fi
	"$WCX" quantize -q model out
	[ "$(stat -c %a out)" = 751 ]
	mkdir -m 700 private
	for options in -q -qf; do
		"$WCX" quantize $options model private
		[ "$(stat -c %a private)" = 700 ]
	done
}

@test "what a killed run left is removed by the next one, and nothing else" {
	local left=.wcx-tmp-abcdefghijklmnop locked=.wcx-tmp-lockedbyanother2

	mkdir -p $left $locked .wcx-models/deep .wcx-tmp-
	touch $left/model.safetensors .wcx-models/deep/file .wcx-config
	flock $locked "$WCX" quantize -q "$LLAMA" out
	[ ! -e $left ]
	[ -e $locked ] && [ -e .wcx-tmp- ]
	[ -e .wcx-models/deep/file ] && [ -e .wcx-config ] # a user's
}

@test "a signal leaves nothing" {
	mkdir big
	cp "$LLAMA/config.json" big
	"$PYTHON" - <<-'END'
		from safetensors_io import build_header, lay_out
		tensors = lay_out([(f"layers.{i}.up_proj.weight", "F32", [4096, 65536]) for i in range(32)])
		with open("big/model.safetensors", "wb") as out:
		    header = build_header(tensors)
		    out.write(header)
		    out.truncate(len(header) + tensors[-1].end)
	END
	"$WCX" quantize -q --strategy tensor big out 2>log & # looks for the largest weights of a hole of 32 GiB first
	until [ -n "$(find . -maxdepth 1 -name ".wcx-*")" ]; do kill -0 $! || return; done
	kill -TERM $!
	status=0
	wait $! || status=$?
	[ "$status" = 143 ]
	grep -q interrupted log
	[ -z "$(find . -maxdepth 1 -name ".wcx-*" -o -maxdepth 1 -name out)" ]
}

@test "too little space is said before the work" {
	[ "$(id -u)" = 0 ] || skip "mounting a small file system needs root"
	mkdir small
	mount -t tmpfs -o size=16k none small || skip "no tmpfs can be mounted here"
	run -1 "$WCX" quantize "$LLAMA" small/out
	[[ "$output" =~ small/out:\ needs\ [0-9]+\ bytes,\ [0-9]+\ are\ free$ ]]
	[ -z "$(ls -A small)" ]
}

@test "a wrong command line is told apart" {
	run -2 "$WCX" quantize "$LLAMA"
	run -2 "$WCX" quantize --strategy row "$LLAMA" out
	[[ "$output" == *"--strategy must be channel or tensor"* ]]
	run -2 "$WCX" quantize --format int8 "$LLAMA" out
	run -2 "$WCX" quantize --dtype I8 "$LLAMA" out
	mkdir gguf && cp "$LLAMA/config.json" gguf && printf "GGUF\3\0\0\0" >gguf/model.safetensors
	run -3 "$WCX" quantize gguf out
	[[ "$output" == *"GGUF"* ]]
	"$WCX" quantize --help | grep -q -- --strategy
}

@test "a mount of packed shards loads as the model" {
	"$PYTHON" -c "import safetensors.numpy, ml_dtypes" 2>/dev/null || skip "$PYTHON has no safetensors with ml_dtypes"
	[ -c /dev/fuse ] || skip "there is no /dev/fuse"
	"$WCX" quantize -q --pack "$LLAMA" store
	mkdir mnt
	"$WCXFS" store mnt 2>log || skip "nothing can be mounted here: $(cat log)"
	check "$LLAMA" mnt
	"$PYTHON" - <<-'END'
		import json
		from safetensors import safe_open
		index = json.load(open("mnt/model.safetensors.index.json"))["weight_map"]
		for name, file in index.items():
		    with safe_open(f"mnt/{file}", "np") as shard:
		        assert name in shard.keys()
		        if name.endswith("proj.weight"):
		            assert shard.get_tensor(name).dtype == "int8"
	END
}
