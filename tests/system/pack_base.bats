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
	! mountpoint -q "$BATS_TEST_TMPDIR/work/small" || umount "$BATS_TEST_TMPDIR/work/small"
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
	[[ $stderr == *"wcx pack: 1 packed in "*"; 1 packed against bases, which wcx rm keeps" ]]
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
	run -0 --separate-stderr "$WCX" pack --json --base="$STORE" others/tuned-1/model.safetensors against.wcx
	# The norms are ones in both.
	[[ $stderr == *"warning: others/tuned-1/model.safetensors: saves next to nothing against its base, which it needs now; "* ]]
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
	[[ $output == *"base/model.safetensors: not a .wcx file; a base is packed first"* ]]
	run -2 "$WCX" pack --base= "$FAMILY/tuned-2/model.safetensors" out.wcx
	[[ $output == *"--base: empty path"* ]]
	run -1 "$WCX" pack --base=missing.wcx "$FAMILY/tuned-2/model.safetensors" out.wcx
	[[ $output == *"missing.wcx: No such file"* ]]
	mkdir empty
	run -1 "$WCX" pack --base=empty "$FAMILY/tuned-2/model.safetensors" out.wcx
	[[ $output == *"empty: has no packed file" ]]
	run -1 "$WCX" pack --base="$FAMILY" "$FAMILY/tuned-2/model.safetensors" out.wcx
	[[ $output == *"family: has no packed file; a base is packed first, without a base" ]]
	mkdir relatives damaged
	mv store/tuned.wcx relatives
	run -1 "$WCX" pack --base=relatives "$FAMILY/tuned-2/model.safetensors" out.wcx
	[[ $output == *"relatives: all its packed files are packed against bases themselves; name these" ]]
	head -c 100 relatives/tuned.wcx >damaged/base.wcx
	run -1 "$WCX" pack --base=damaged "$FAMILY/tuned-2/model.safetensors" out.wcx
	[[ $output == *"damaged: has no packed file that can be read as a base: damaged/base.wcx: "* ]]
	run -1 "$WCX" pack -f --base=store "$FAMILY/tuned-1/model.safetensors" store/base/model.safetensors.wcx
	[[ $output == *"cannot be packed against what it would replace"* ]]
	run -2 "$WCX" pack --base=none --base=store "$FAMILY/tuned-1/model.safetensors" out.wcx
	[ ! -e out.wcx ]
	[ "$(find . -type f | wc -l)" -eq 3 ]
	# Beside one that can be read, it is a warning.
	cp damaged/base.wcx store/cut.wcx
	run -0 "$WCX" pack --base=store "$FAMILY/tuned-2/model.safetensors" out.wcx
	[[ $output == *"warning: --base: left out: store/cut.wcx: "* ]]
}

@test "a base that is in no store with the output is warned of, once" {
	local text="warning: $STORE/base/model.safetensors.wcx is in no store with "

	mkdir -p 1/2/3/4/5/6
	cp -r "$STORE" near
	run -0 "$WCX" pack --base=near/base "$FAMILY/tuned-1/model.safetensors" 1/out.wcx
	[[ $output != *warning* ]]
	cd 1/2/3/4/5/6
	run -0 "$WCX" pack --base="$STORE" "$FAMILY" out
	[ "$(grep -c "$text" <<<"$output")" -eq 1 ]
	run -0 "$WCX" pack --store="$STORE" --base="$STORE" "$FAMILY/tuned-1/model.safetensors" other.wcx
	[[ $output != *warning* ]]
}

@test "a base that is being removed is refused" {
	cp -r "$STORE" store
	(flock -x 9 && exec sleep 20) 9<store/base/model.safetensors.wcx 3>&- &
	until ! flock -xn store/base/model.safetensors.wcx true; do sleep 0.02; done
	run -1 "$WCX" pack --base=store "$FAMILY/tuned-1/model.safetensors" out.wcx
	kill $!
	[[ $output == *"model.safetensors.wcx: is being removed or replaced"* ]]
}

@test "the examples of README and the quick start that read a model are for BF16 too" {
	local document code

	"$PYTHON" -c 'import safetensors' 2>/dev/null || skip "$PYTHON has no package safetensors"
	for document in README.md docs/quick_start.md; do
		code="$(sed -n "s/^ *python3 -c '\(from safetensors.*\)'$/\1/p" "$BATS_TEST_DIRNAME/../../$document")"
		code="$(sed -E "s|\"/[a-z]+/models/llama/|\"$FAMILY/base/|" <<<"$code")"
		run -0 "$PYTHON" -c "$code"
		[[ $output == *embed.weight* ]]
	done
}

# --- bases that are found ---

# sizes STORE - the sizes of the packed files of a store, by path
sizes() {
	(cd "$1" && find . -name "*.wcx" -printf '%P %s\n' | sort)
}

# size_of STORE PATH
size_of() {
	stat -c %s "$1/$2/model.safetensors.wcx"
}

@test "a tree is packed against what is in it, and comes back" {
	"$WCX" pack -q --base=none "$FAMILY" alone
	run -0 "$WCX" pack "$FAMILY" store
	[[ $output == *"wcx pack: 3 packed in "*"; 2 packed against bases, which wcx rm keeps" ]]
	cmp {alone,store}/base/model.safetensors.wcx
	[ $(($(size_of store tuned-1) * 6)) -lt "$(size_of alone tuned-1)" ]
	[ $(($(size_of store tuned-2) * 2)) -lt "$(size_of alone tuned-2)" ]
	"$WCX" verify -q store
	"$WCX" unpack -q store back
	diff -r "$FAMILY" back
	# Nothing is left to do, and nothing depends on the number of threads.
	run -0 "$WCX" pack "$FAMILY" store
	[[ $output == *"wcx pack: 3 done already in "* ]]
	"$WCX" pack -q -j 1 "$FAMILY" again
	diff <(sizes store) <(sizes again)
}

@test "what is done is not compared again to find its place" {
	strace -o /dev/null true || skip "strace is not installed, or may not trace"
	"$WCX" pack -q "$FAMILY" store
	strace -f -qq -o calls -e trace=pread64 "$WCX" pack -q "$FAMILY" store
	[ "$(wc -l <calls)" -lt 30 ]
}

@test "a base is found in the store that an earlier run filled, wherever it is" {
	mkdir tuned store
	cp -r "$FAMILY/tuned-1" tuned/x
	cp -r "$STORE/base" store/elsewhere
	run -0 "$WCX" pack -v tuned store
	[[ $output == *"tuned/x/model.safetensors: packed, 100.0 % of it against ../elsewhere/model.safetensors.wcx"* ]]
	"$WCX" unpack -q store/x/model.safetensors.wcx --store=store back
	cmp back "$FAMILY/tuned-1/model.safetensors"
	# A named file is packed alone, unless --base says auto.
	run -0 "$WCX" pack --json --base=auto "$FAMILY/tuned-2/model.safetensors" store/auto.wcx
	[[ $output == *'"base":"elsewhere/model.safetensors.wcx"'* ]]
	run -0 "$WCX" pack --json "$FAMILY/tuned-2/model.safetensors" store/alone.wcx
	[[ $output != *'"base"'* ]]
}

@test "models of the same shapes that are not related do not get into each other's way" {
	local seed

	for seed in 1 2 3; do
		"$PYTHON" "$FIXTURES/weight_family.py" "many/$seed" 1e-3 --seed "$seed"
	done
	run -0 "$WCX" pack many store
	[[ $output == *"; 3 packed against bases, which wcx rm keeps" ]]
	for seed in 1 2 3; do
		[ $(($(size_of store "$seed/tuned-1") * 6)) -lt "$(size_of store "$seed/base")" ]
	done
	# A checkpoint that comes later finds the one that it is from.
	mkdir late
	"$PYTHON" "$FIXTURES/weight_family.py" more 1e-3 1e-4 --seed 2
	mv more/tuned-2 late
	run -0 "$WCX" pack -v late store
	[[ $output == *" against ../2/base/model.safetensors.wcx"* ]]
}

@test "what a model card calls the base is packed first" {
	mkdir tree
	cp -r "$FAMILY/tuned-1" tree/a-tuned
	cp -r "$FAMILY/tuned-2" tree/b-tuned
	cp -r "$FAMILY/base" tree/Origin-1B
	printf -- '---\nlicense: mit\nbase_model:\n- some-owner/origin-1b\n---\n# Tuned\n' >tree/a-tuned/README.md
	printf -- "---\nbase_model: 'some-owner/Origin-1B'\n---\n" >tree/b-tuned/README.md
	run -0 "$WCX" pack -v tree store
	[ "$(grep -c 'tuned/model.safetensors: packed, .* against ../Origin-1B/model.safetensors.wcx' <<<"$output")" -eq 2 ]
}

@test "a store of shards finds the shards that have a file's tensors" {
	"$PYTHON" "$FIXTURES/weight_family.py" shards 1e-3 --shards 3
	run -0 "$WCX" pack shards store
	[[ $output == *"wcx pack: 6 packed in "*"; 3 packed against bases, which wcx rm keeps" ]]
	[ $(($(cat store/tuned-1/*.wcx | wc -c) * 6)) -lt "$(cat store/base/*.wcx | wc -c)" ]
	run -0 "$WCX" unpack store back
	[[ $output == *"wcx unpack: 6 unpacked"* && $output != *"against bases"* ]]
	diff -r shards back
}

@test "a base that was found but is damaged is done without, with a warning" {
	mkdir tuned
	cp -r "$FAMILY/tuned-1" tuned/x
	cp -r "$STORE" store
	"$PYTHON" - store/base/model.safetensors.wcx <<-'END'
		import sys

		with open(sys.argv[1], "r+b") as file:  # early in the embedding: no sketch looks there
		    file.seek(60_000)
		    file.write(bytes(64))
	END
	run -0 "$WCX" pack tuned store
	[[ $output == *"warning: tuned/x/model.safetensors: packed without a base, since "*"base/model.safetensors.wcx: tensor "*damaged* ]]
	"$WCX" unpack -q store/x/model.safetensors.wcx back
	cmp back "$FAMILY/tuned-1/model.safetensors"
}

@test "a base that others need is not replaced" {
	cp -a "$FAMILY" tree
	"$WCX" pack -q tree store
	printf x | dd of=tree/base/model.safetensors bs=1 seek=200000 conv=notrunc status=none
	run -1 "$WCX" pack tree store
	[[ $output == *"store/base/model.safetensors.wcx: not replaced, since store/tuned-"*" is packed against it; --force keeps it under another name"* ]]
	"$WCX" verify -q store
	# One that nobody needs is.
	touch tree/tuned-1/model.safetensors
	rm -r tree/base
	run -0 "$WCX" pack tree store
	[[ $output == *"wcx pack: 1 packed, 1 done already"*"; 2 packed against bases, which wcx rm keeps" ]]
}

@test "a base that may not be read is told of as that" {
	[ "$(id -u)" -eq 0 ] || skip "acts as another user"
	cp -r "$STORE" store
	chmod 600 store/base/model.safetensors.wcx
	chmod 777 .
	chmod a+rx "$BATS_RUN_TMPDIR" "$BATS_FILE_TMPDIR" "$BATS_TEST_TMPDIR"
	run -1 setpriv --reuid=65534 --clear-groups "$WCX" pack --base=store "$FAMILY/tuned-1" new/tuned
	[[ $output == *"store: has no packed file that can be read as a base: store/base/model.safetensors.wcx: Permission denied"* ]]
	[ ! -e new ]
}

@test "little space is enough for what is packed against a base" {
	[ "$(id -u)" -eq 0 ] || skip "only root can mount a small file system"
	mkdir small
	mount -t tmpfs -o size=1m wcx-test small || skip "a tmpfs cannot be mounted here"
	# A fine-tune of 3.9 MB takes 0.3 MB; alone it takes 2.5 MB.
	run -0 "$WCX" pack --base="$STORE" "$FAMILY/tuned-1/model.safetensors" small/tuned.wcx
	run -0 "$WCX" pack --base="$STORE" "$FAMILY/tuned-1" small/tuned
	[[ $output == *"warning: small/tuned: may need up to "* ]]
	rm -r small/tuned small/tuned.wcx
	# A tree with its base, of which nothing is there yet: 4.1 MB where half of all would be 5.8 MB.
	mount -o remount,size=5m small
	run -0 "$WCX" pack "$FAMILY" small/store
	[[ $output == *"; 2 packed against bases, which wcx rm keeps" ]]
}

@test "bases that fewer may read than the file are left alone, or warned of" {
	[ "$(id -u)" -eq 0 ] || skip "changes owners"
	mkdir tuned
	cp -r "$FAMILY/tuned-1" tuned/x
	chmod 644 tuned/x/model.safetensors
	cp -r "$STORE" store
	chmod 640 store/base/model.safetensors.wcx
	chown 1234 store/base/model.safetensors.wcx
	run -0 "$WCX" pack tuned store
	[[ $output != *"against bases"* ]]
	run -0 "$WCX" pack --base=store/base tuned/x/model.safetensors store/x.wcx
	[[ $output == *"warning: tuned/x/model.safetensors: a mount will not use "*"/store/base/model.safetensors.wcx as its base, "* ]]
}
