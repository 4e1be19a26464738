#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
#
# Whatever replaces or removes packed files: a base that another file of the store is packed against stays.
#
# The store is that of README: store/llama, and store/tuned, which is packed against it.  The base is Gaussian weights (sigma
# 0.02), BF16; the fine-tune is those after Gaussian drift of 0.001 sigma (weight_family.py).

# run sets it.
# shellcheck disable=SC2154
bats_require_minimum_version 1.5.0
load ../fixtures/suite

setup_file() {
	suite_find numpy || return 0
	export MADE="$BATS_FILE_TMPDIR/made"

	"$PYTHON" "$FIXTURES/weight_family.py" "$BATS_FILE_TMPDIR/family" 1e-3
	mkdir -p "$MADE/models" "$MADE/store"
	mv "$BATS_FILE_TMPDIR/family/base" "$MADE/models/llama"
	mv "$BATS_FILE_TMPDIR/family/tuned-1" "$MADE/models/tuned"
	cp -r "$MADE/models/llama" "$MADE/models/changed"
	printf x | dd of="$MADE/models/changed/model.safetensors" bs=1 seek=200000 conv=notrunc status=none
	"$WCX" pack -q "$MADE/models/llama" "$MADE/store/llama"
}

setup() {
	suite_start
	mkdir "$BATS_TEST_TMPDIR/work"
	cd "$BATS_TEST_TMPDIR/work" || return
	cp -a "$MADE/models" "$MADE/store" .
	"$WCX" pack -q --base store/llama models/tuned store/tuned
	BASE=store/llama/model.safetensors.wcx
	BEFORE="$(stat -c %i "$BASE")"
}

teardown() {
	cd "$BATS_TEST_DIRNAME" || return
}

is_safe() {
	[ "$(stat -c %i "$BASE")" = "$BEFORE" ]
	"$WCX" verify -q store
}

needs_attributes() {
	"$PYTHON" -c 'import os, sys; sys.exit(not os.listxattr(sys.argv[1]))' "$BASE" ||
		skip "the file system has no extended attributes"
}

@test "a base is not replaced while a file beside its directory needs it" {
	local needed="$BASE: not replaced, since store/tuned/model.safetensors.wcx is packed against it"

	run -1 "$WCX" pack models/changed store/llama
	[[ $output == *"$needed"* ]]
	is_safe
	cp models/changed/model.safetensors store/llama
	run -1 "$WCX" pack --rm store/llama
	is_safe
	# A packed file that is copied, and a further name of another file.
	mkdir -p copied linked
	"$WCX" pack -q models/changed/model.safetensors copied/model.safetensors.wcx
	run -1 "$WCX" pack copied store/llama
	[[ $output == *"$needed"* ]]
	is_safe
	cp models/changed/model.safetensors linked/a.safetensors
	ln linked/a.safetensors linked/model.safetensors
	rm store/llama/model.safetensors
	run -1 "$WCX" pack --base=none linked store/llama
	[[ $output == *"$needed"* ]]
	is_safe
	# One that nothing needs is replaced.
	"$WCX" pack -q models/changed store/changed
	touch models/changed/model.safetensors
	run -0 "$WCX" pack models/changed store/changed
	[[ $output == *"1 packed in "* ]]
	[ "$(ls store/changed)" = model.safetensors.wcx ]
}

@test "of the files that a run replaces or removes together, that which is needed stays" {
	local i

	mkdir many
	for i in {1..9}; do
		cp models/changed/model.safetensors "many/$i.safetensors"
		printf %s "$i" | dd of="many/$i.safetensors" bs=1 seek=200000 conv=notrunc status=none
		ln models/changed/model.safetensors "store/llama/$i.safetensors"
	done
	"$WCX" pack -q --rm --base=none store/llama
	cp models/changed/model.safetensors many
	run -1 "$WCX" pack --base=none many store/llama
	[[ $output == *"$BASE: not replaced, since store/tuned/model.safetensors.wcx is packed against it"* ]]
	[[ $output == *"9 packed, 1 failed"* ]]
	is_safe
	run -1 "$WCX" unpack --rm --store=store store/llama
	[[ $output == *"$BASE: unpacked, but kept, since store/tuned/model.safetensors.wcx is packed against it"* ]]
	[ "$(find store/llama -name "*.wcx")" = "$BASE" ]
	is_safe
	for i in {1..9}; do
		cmp "many/$i.safetensors" "store/llama/$i.safetensors"
	done
	# A fine-tune goes before its base.
	run -0 "$WCX" unpack --rm store
	[ -z "$(find store -name "*.wcx")" ]
}

@test "a base is not removed while a file beside its directory needs it" {
	run -1 "$WCX" unpack --rm store/llama
	[[ $output == *"$BASE: unpacked, but kept, since store/tuned/model.safetensors.wcx is packed against it"* ]]
	is_safe
	run -1 "$WCX" unpack --rm -f "$BASE"
	is_safe
	cd store/llama
	run -1 "$WCX" rm model.safetensors.wcx
	[[ $output == *"model.safetensors.wcx: needed by ../tuned/model.safetensors.wcx"* ]]
	cd ../..
	is_safe
	run -1 "$WCX" rm "$PWD/$BASE"
	is_safe
	# What a base is hidden in is replaced as a whole.
	echo '{}' >store/llama/config.json
	run -1 "$WCX" quantize -f models/llama store/llama
	[[ $output == *"store/llama/model.safetensors.wcx: not replaced, since store/tuned/model.safetensors.wcx is packed against it"* ]]
	is_safe
	run -1 "$WCX" quantize -f --store=store models/llama store/llama
	[[ $output == *"store/llama/model.safetensors.wcx: not replaced, since store/tuned/model.safetensors.wcx is packed against it"* ]]
	is_safe
	# With the fine-tune gone, none of this is in the way.
	"$WCX" rm store/tuned
	cd store/llama
	"$WCX" rm model.safetensors.wcx
	[ ! -e model.safetensors.wcx ]
}

@test "with --force a base that is needed is kept under another name, by which it is found" {
	local kept

	kept="store/llama/model.safetensors.base-$(sha256sum models/llama/model.safetensors | cut -c 1-12).wcx"
	run -0 "$WCX" pack -f models/changed/model.safetensors "$BASE"
	[[ $output == *"warning: $BASE: what it was is kept as ${kept##*/}, since store/tuned/model.safetensors.wcx is packed against it"* ]]
	[ "$(stat -c %i "$kept")" = "$BEFORE" ]
	"$WCX" verify -q store
	"$WCX" unpack -q --store=store "$BASE" out
	cmp out models/changed/model.safetensors
	# Its name follows from the hint.
	"$WCX" unpack -q -f store/tuned/model.safetensors.wcx out
	cmp out models/tuned/model.safetensors
	mv "$kept" store/renamed.wcx
	kept=store/renamed.wcx
	"$WCX" unpack -q -f --store=store store/tuned/model.safetensors.wcx out
	cmp out models/tuned/model.safetensors
	run -1 "$WCX" rm "$kept"
	# The same with an original that is unpacked in its place.
	mv "$kept" "$BASE"
	"$WCX" unpack -q -f store/tuned/model.safetensors.wcx "$BASE"
	cmp "$BASE" models/tuned/model.safetensors
	rm "$BASE"
	"$WCX" verify -q store
}

@test "with --force a base that holds the same original again needs no other name" {
	"$WCX" pack -q -f --for=speed models/llama/model.safetensors "$BASE"
	[ "$(stat -c %i "$BASE")" != "$BEFORE" ]
	[ "$(ls store/llama)" = model.safetensors.wcx ]
	"$WCX" verify -q store
	# Nor is one left where packing fails.
	head -c 100000 models/changed/model.safetensors >cut.safetensors
	run "$WCX" pack -f cut.safetensors "$BASE"
	[ "$status" -ne 0 ]
	[ "$(ls store/llama)" = model.safetensors.wcx ]
	"$WCX" verify -q store
}

@test "a base that is touched, or packed again of the same original, is replaced without --force, with its marks" {
	touch models/llama/model.safetensors
	run -0 "$WCX" pack models/llama store/llama
	[[ $output == *"1 packed in "* ]]
	[ "$(stat -c %i "$BASE")" != "$BEFORE" ]
	[ "$(ls store/llama)" = model.safetensors.wcx ]
	"$WCX" verify -q store
	needs_attributes # it has the marks of the one that it replaced
	# A copy of a tree of packed files, of which one holds the same.
	"$WCX" pack -q --for=speed models/llama copied
	touch copied/model.safetensors.wcx
	"$WCX" pack -q copied store/llama
	[ "$(ls store/llama)" = model.safetensors.wcx ]
	cmp copied/model.safetensors.wcx "$BASE"
	"$WCX" verify -q store
	needs_attributes
}

@test "a base and another file may take each other's place again and again" {
	for _ in 1 2; do
		"$WCX" pack -q -f models/changed/model.safetensors "$BASE"
		"$WCX" verify -q store
		[ "$(find store/llama -name "*.base-*" | wc -l)" -eq 1 ]
		"$WCX" pack -q -f models/llama/model.safetensors "$BASE"
		"$WCX" verify -q store
	done
	# What has the name of the old base's, but holds another file, is not taken for it.
	cp store/tuned/model.safetensors.wcx store/llama/*.base-*
	BEFORE="$(stat -c %i "$BASE")"
	run -1 "$WCX" pack -f models/changed/model.safetensors "$BASE"
	[[ $output == *"not replaced, since store/tuned/model.safetensors.wcx is packed against it, and it cannot be kept as model.safetensors.base-"*": File exists"* ]]
	is_safe
}

@test "of several names of a base, that by which it is found stays" {
	ln "$BASE" store/llama/a.safetensors.wcx
	ln "$BASE" store/llama/z.safetensors.wcx
	run -1 "$WCX" unpack --rm store/llama
	[[ $output == *"$BASE: unpacked, but kept, since store/tuned/model.safetensors.wcx is packed against it"* ]]
	[ "$(find store/llama -name "*.wcx")" = "$BASE" ]
	is_safe
	ln "$BASE" store/llama/a.safetensors.wcx
	"$WCX" rm store/llama/a.safetensors.wcx
	is_safe
	# Both at once.
	ln "$BASE" store/llama/a.safetensors.wcx
	run -1 "$WCX" rm store/llama
	[ "$(find store/llama -name "*.wcx")" = "$BASE" ]
	is_safe
	# Without the fine-tune they go, too.
	ln "$BASE" store/llama/a.safetensors.wcx
	echo '{}' >store/llama/config.json
	run -1 "$WCX" quantize -f models/llama store/llama
	[[ $output == *"$BASE: not replaced, since store/tuned/model.safetensors.wcx is packed against it"* ]]
	"$WCX" rm store
	[ -z "$(find store -name "*.wcx")" ]
}

@test "names of one packed file that are replaced at the same time are not in each other's way" {
	local name

	mkdir several
	for name in a b c d; do
		cp models/llama/model.safetensors "several/$name.safetensors"
		printf %s "$name" | dd of="several/$name.safetensors" bs=1 seek=200000 conv=notrunc status=none
		ln "$BASE" "store/$name.safetensors.wcx"
	done
	mv "$BASE" .
	"$WCX" rm store/tuned
	run -0 "$WCX" pack -j 4 --base=none several store
	[[ $output == *"4 packed in "* ]]
	"$WCX" verify -q store
}

@test "more files can be removed at once than the soft limit of descriptors has, one for each" {
	for i in {1..40}; do
		cp "$MADE/$BASE" "store/$i.wcx"
	done
	(ulimit -Sn 60 && ulimit -Hn 80 && "$WCX" rm store)
	[ -z "$(find store -name "*.wcx")" ]
}

@test "what a hint leads to is not opened if it is a FIFO" {
	local writer status=0

	cp "$BASE" store/moved.wcx
	rm "$BASE"
	mkfifo "$BASE"
	echo >"$BASE" 3>&- &
	writer=$!
	run -1 "$WCX" rm store/moved.wcx
	[[ $output == *"store/moved.wcx: needed by "*"store/tuned/model.safetensors.wcx"* ]]
	kill "$writer" # waits for a reader
	wait "$writer" || status=$?
	[ "$status" -eq 143 ]
}

@test "a base knows that files were packed against it, even where these are not found" {
	needs_attributes
	mkdir -p apart/1/2/3/4/5
	mv store/llama apart/1/2/3/4/5
	cd apart/1/2/3/4/5/llama
	run -1 "$WCX" rm model.safetensors.wcx
	[[ $output == *"not removed, since files were packed against it, none of which is found in ../../../..; --store=DIR says where else to look"* ]]
	run -1 "$WCX" unpack --rm model.safetensors.wcx
	rm model.safetensors
	run -1 "$WCX" pack "$OLDPWD/models/changed" .
	[[ $output == *"not replaced, since files were packed against it"* ]]
	run -1 "$WCX" rm --store="$OLDPWD" model.safetensors.wcx
	[[ $output == *"needed by $OLDPWD/store/tuned/model.safetensors.wcx"* ]]
	"$WCX" rm -q --store="$OLDPWD" "$OLDPWD/store/tuned"
	"$WCX" rm --store="$OLDPWD" model.safetensors.wcx
	[ ! -e model.safetensors.wcx ]
}

@test "a directory that cannot be listed keeps only those bases that it may have dependents of" {
	needs_attributes
	command -v setpriv >/dev/null || skip "setpriv is not installed"
	[ "$(id -u)" -eq 0 ] || skip "only root can act as another user"
	rm -r store/tuned
	mkdir lone private
	cp "$MADE/$BASE" lone/other.wcx
	chmod 0700 private
	chmod a+rx "$BATS_RUN_TMPDIR" "${BATS_FILE_TMPDIR%/*}" "${BATS_TEST_TMPDIR%/*}" "$BATS_TEST_TMPDIR" .
	chown -R 65534 store
	mkdir store/private
	chmod 0700 store/private
	cd store/llama
	run -1 setpriv --reuid=65534 --clear-groups "$WCX" rm model.safetensors.wcx
	[[ $output == *"not removed, since what is packed against it is not known: ../private: cannot be listed: Permission denied; --store=DIR"* ]]
	rmdir ../private
	# What is private outside of the directory that all dependents were packed in is nobody's business.
	setpriv --reuid=65534 --clear-groups "$WCX" rm model.safetensors.wcx
	[ ! -e model.safetensors.wcx ]
}

@test "wcx rm and wcx quantize -f tell of a directory in a tree that cannot be listed" {
	strace -o /dev/null true || skip "strace is not installed, or may not trace"
	local hidden="$PWD/store/tuned/sub" eio=(-e trace=getdents64 -e inject=getdents64:error=EIO)

	mkdir "$hidden"
	mv "$BASE" "$hidden"
	run -1 strace -f -qq -o /dev/null -P "$hidden" "${eio[@]}" "$WCX" rm --store=models store/tuned
	[[ $output == *"store/tuned/sub: cannot be listed: Input/output error"* ]]
	echo {} >store/tuned/config.json
	run -1 strace -f -qq -o /dev/null -P "$hidden" "${eio[@]}" "$WCX" quantize -f --unknown-type models/llama store/tuned
	[[ $output == *"store/tuned/sub: not replaced, since it cannot be listed: Input/output error"* ]]
	[ -e "$hidden/${BASE##*/}" ]
}

@test "a file around the named directory that needs features which are not known keeps a base" {
	rm -r store
	cp -r "$MADE/store" . # without a mark
	"$WCX" pack -q --base=none models/tuned store/tuned
	demand_unknown_feature store/tuned/model.safetensors.wcx
	cd store/llama
	run -1 "$WCX" rm model.safetensors.wcx
	[[ $output == *"not removed, since what is packed against it is not known: "*"needs features"* ]]
	[ -e model.safetensors.wcx ]
}

@test "a mark of a base stays with the file: neither originals nor new packed files have it" {
	needs_attributes
	cp -r store/llama alone
	"$WCX" unpack -q "$BASE" out.safetensors
	"$WCX" pack -q out.safetensors again.wcx
	"$PYTHON" - "$BASE" out.safetensors again.wcx <<-'END'
		import os, sys

		assert [len(os.listxattr(path)) for path in sys.argv[1:]] == [1, 0, 0]
		# The directory with both below it.
		assert os.listxattr(sys.argv[1]) == [f"user.wcx.base.{os.stat('store').st_ino}"]
	END
	# A second one that is packed against it elsewhere: now only a look from there on is enough.
	mkdir elsewhere
	"$WCX" pack -q --base "$BASE" models/tuned/model.safetensors elsewhere/tuned.wcx
	"$WCX" rm store/tuned
	run -1 "$WCX" rm --store=elsewhere "$BASE"
	[[ $output == *"needed by elsewhere/tuned.wcx"* ]]
	rm elsewhere/tuned.wcx
	"$WCX" rm "$BASE"
}

@test "a base is not removed for a --store that is missing or that it is not in" {
	needs_attributes
	run -1 "$WCX" rm --store=missing "$BASE"
	run -1 "$WCX" unpack --rm --store=missing store/llama
	[[ $output == *"$BASE: unpacked, but kept, since missing: No such file or directory"* ]]
	rm "${BASE%.wcx}"
	mkdir mistyped
	run -1 "$WCX" rm --store=mistyped "$BASE"
	[[ $output == *"not removed, since files were packed against it, and it is not in the store mistyped" ]]
	"$WCX" verify -q store
	"$WCX" rm store/tuned
	"$WCX" rm --store=. "$BASE"
}

@test "a --store that does not have the base is not all that wcx pack, unpack --rm and quantize -f look through" {
	local needed="since store/tuned/model.safetensors.wcx is packed against it" kept

	mkdir mistyped
	run -1 "$WCX" pack --store=mistyped models/changed store/llama
	[[ $output == *"$BASE: not replaced, $needed"* ]]
	is_safe
	run -1 "$WCX" unpack --rm -f --store=mistyped store/llama
	[[ $output == *"$BASE: unpacked, but kept, $needed"* ]]
	is_safe
	echo '{}' | tee models/llama/config.json >store/llama/config.json
	run -1 "$WCX" quantize -f --unknown-type --store=mistyped models/llama store/llama
	[[ $output == *"$BASE: not replaced, $needed"* ]]
	is_safe
	run -0 "$WCX" pack -f --store=mistyped models/changed/model.safetensors "$BASE"
	[[ $output == *"what it was is kept as "*", $needed"* ]]
	"$WCX" verify -q store
	# With the fine-tune gone, none of this is in the way.
	kept="$(echo store/llama/*.base-*)"
	"$WCX" rm store/tuned
	"$WCX" unpack -q --rm --store=mistyped "$kept"
	[ ! -e "$kept" ]
}

@test "a --store that does not have the base counts where what the base's marks tell of may be in it" {
	needs_attributes
	mkdir -p mistyped apart/1/2/3/4/5
	mv store/llama apart/1/2/3/4/5
	cd apart/1/2/3/4/5/llama
	run -1 "$WCX" unpack --rm -f --store="$OLDPWD/mistyped" model.safetensors.wcx
	[[ $output == *"unpacked, but kept, since files were packed against it, none of which is found in ../../../.. or $OLDPWD/mistyped; --store=DIR says where else to look"* ]]
	run -1 "$WCX" unpack --rm -f --store="$OLDPWD/store/tuned" model.safetensors.wcx
	[[ $output == *"unpacked, but kept, since $OLDPWD/store/tuned/model.safetensors.wcx is packed against it"* ]]
	rm "$OLDPWD/store/tuned/model.safetensors.wcx"
	"$WCX" unpack -q --rm -f --store="$OLDPWD/store/tuned" model.safetensors.wcx
	[ ! -e model.safetensors.wcx ]
}

@test "a --store that has the base but not its dependents is not all that counts" {
	local needed="since store/tuned/model.safetensors.wcx is packed against it"

	needs_attributes
	run -1 "$WCX" rm --store=store/llama "$BASE"
	[[ $output == *"$BASE: not removed, since files outside of store/llama were packed against it; --store=DIR says where else to look" ]]
	run -1 "$WCX" pack --store=store/llama models/changed store/llama
	[[ $output == *"$BASE: not replaced, $needed"* ]]
	run -1 "$WCX" unpack --rm -f --store=store/llama store/llama
	[[ $output == *"$BASE: unpacked, but kept, $needed"* ]]
	is_safe
	rm store/llama/model.safetensors
	# Nothing was moved: a mark tells of a directory that is out of reach without --store.
	mkdir -p store/1/2/3/4/5
	mv store/llama store/1/2/3/4/5
	cd store/1/2/3/4/5
	run -1 "$WCX" unpack --rm -f --store=llama llama/model.safetensors.wcx
	[[ $output == *"kept, since files were packed against it, none of which is found in "*"; --store=DIR says where else to look"* ]]
	cd "$OLDPWD"
	"$WCX" verify -q --store=store store/tuned
	mv store/1/2/3/4/5/llama store
	# With the fine-tune gone, the mark stays, and a store that reaches as far is enough.
	"$WCX" rm -q store/tuned
	rm store/llama/model.safetensors
	run -1 "$WCX" rm -n --store=store/llama "$BASE"
	"$WCX" rm -n --store=store "$BASE"
	"$WCX" pack -q --store=store/llama models/changed store/llama
	run -1 cmp "$MADE/$BASE" "$BASE"
}

@test "neither a copy of the store nor what is above its end is in the way" {
	cp -r store copy
	# The copy's fine-tune has a base of its own.
	"$WCX" rm store/tuned
	(cd store/llama && "$WCX" rm model.safetensors.wcx)
	[ ! -e "$BASE" ]
	"$WCX" verify -q copy
	# Without it, its fine-tune needs the other one, as far as a store reaches.
	rm -r copy/llama
	cp -r "$MADE/store/llama" store
	(cd store/llama && run -1 "$WCX" rm model.safetensors.wcx)
	(cd store/llama && HOME="$PWD/.." "$WCX" rm model.safetensors.wcx)
	[ ! -e "$BASE" ]
	cp "$MADE/$BASE" store/llama
	chmod 1777 store
	(cd store/llama && "$WCX" rm model.safetensors.wcx)
	[ ! -e "$BASE" ]
}

@test "a base that a link leads to is looked for where it is" {
	local elsewhere="$BATS_TEST_TMPDIR/elsewhere"

	mkdir "$elsewhere"
	cp -r store "$elsewhere" # without marks
	ln -s "$elsewhere/store" linked
	run -1 "$WCX" rm linked/llama/model.safetensors.wcx
	[[ $output == *"needed by linked/tuned/model.safetensors.wcx"* ]]
	[ -e "$elsewhere/$BASE" ]
	"$WCX" rm linked/tuned
	"$WCX" rm linked/llama/model.safetensors.wcx
	[ ! -e "$elsewhere/$BASE" ]
}
