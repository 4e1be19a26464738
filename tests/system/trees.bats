#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
#
# wcx on trees: model directories and Hugging Face caches, packed to another place or in place, unpacked, verified.

bats_require_minimum_version 1.5.0

load ../fixtures/suite

setup_file() {
	suite_find numpy || return 0
	export DIR="$BATS_FILE_TMPDIR/dir" CACHE="$BATS_FILE_TMPDIR/cache" REPO=models--org--model
	export PACKED="$BATS_FILE_TMPDIR/packed"

	"$PYTHON" "$FIXTURES/make_int8.py" "$BATS_FILE_TMPDIR/model.safetensors" --mib 3
	"$PYTHON" "$FIXTURES/hub_cache.py" shard "$BATS_FILE_TMPDIR/model.safetensors" "$DIR" --shards 4
	"$PYTHON" "$FIXTURES/hub_cache.py" cache "$CACHE" org/model "$DIR" >/dev/null
	mkdir "$DIR/empty"
	"$WCX" pack -q "$CACHE" "$PACKED"
}

setup() {
	suite_start
	mkdir "$BATS_TEST_TMPDIR/work"
	cd "$BATS_TEST_TMPDIR/work" || return
}

teardown() {
	cd "$BATS_TEST_DIRNAME" || return
	[ ! -d "$BATS_TEST_TMPDIR/work/small" ] || umount "$BATS_TEST_TMPDIR/work/small"
}

# What is where, of which kind, with which owner, permissions, times, link text, number of names and contents.
describe() {
	(
		cd "$1" || exit
		find . -printf '%p %y %m %u %g %T@ %l\0' | sort -z
		find . -type f -printf '%p %n\0' | sort -z
		find . -type f -print0 | sort -z | xargs -0r sha256sum
	)
}

# Two trees are the same in all that describe tells.
same_trees() {
	cmp <(describe "$1") <(describe "$2")
}

# The packed files of a tree.
count_packed() {
	find "$1" -type f -name "*.wcx" -printf x | wc -c
}

# --- to another place and back ---

@test "a cache is packed, verified and unpacked to the same tree" {
	[ "$(count_packed "$PACKED")" -eq 4 ]
	[ -z "$(find "$PACKED" -name "*.safetensors" -type f)" ]
	[ "$(find "$PACKED" -type l | wc -l)" -eq "$(find "$CACHE" -type l | wc -l)" ]
	[ -d "$PACKED/.locks/$REPO" ]
	run -0 "$WCX" verify "$PACKED"
	[ "$(grep -c ": sound$" <<<"$output")" -eq 4 ]
	"$WCX" unpack -q "$PACKED" back
	same_trees "$CACHE" back
}

@test "packed blobs have the contents, times and permissions of their sources" {
	local blob

	for blob in "$CACHE/$REPO/blobs"/????????????????????????????????????????????????????????????????; do
		"$WCX" info --json "$PACKED/$REPO/blobs/$(basename "$blob").wcx" | grep -q "\"sha256\": \"$(basename "$blob")\""
		[ "$(stat -c "%a %U %Y" "$blob")" = "$(stat -c "%a %U %Y" "$PACKED/$REPO/blobs/$(basename "$blob").wcx")" ]
	done
}

@test "what is done is skipped, what is new is packed, and what is outdated is replaced" {
	cp -a "$DIR" src
	"$WCX" pack -q src dst
	cp -a dst before
	run -0 "$WCX" pack src dst
	[[ "$output" == *"wcx pack: 9 done already in "* ]]
	same_trees before dst
	[ "$(stat -c %i dst/model-00001-of-00004.safetensors.wcx)" != "$(stat -c %i before/model-00001-of-00004.safetensors.wcx)" ]
	cp src/model-00002-of-00004.safetensors src/new.safetensors
	cp --preserve=timestamps src/model-00003-of-00004.safetensors src/model-00001-of-00004.safetensors
	echo '{"model_type": "other"}' >src/config.json
	run -0 "$WCX" pack src dst
	[[ "$output" == *"wcx pack: 2 packed, 1 copied, 7 done already in "* ]]
	cmp src/config.json dst/config.json
	"$WCX" unpack -q dst back
	same_trees src back
}

@test "a blob named by its SHA-256 is done whatever its time, and another file is not" {
	cp -a "$CACHE" src
	cp -a "$PACKED" dst
	find src -type f -exec touch {} +
	run -0 "$WCX" pack --json src dst
	[ "$(grep -c '"outcome":"packed"' <<<"$output" || true)" -eq 0 ]
	[ "$(grep -c '"outcome":"done".*[.]wcx"' <<<"$output")" -eq 4 ]
	# Another revision with one new shard, as hf download adds it.
	cp -a "$DIR" dir
	"$PYTHON" "$FIXTURES/hub_cache.py" shard "$BATS_FILE_TMPDIR/model.safetensors" dir --shards 3
	rm dir/*-of-00003.safetensors
	"$PYTHON" "$FIXTURES/make_int8.py" dir/model-00004-of-00004.safetensors --mib 2
	"$PYTHON" "$FIXTURES/hub_cache.py" cache src org/model "$DIR" dir >/dev/null
	run -0 "$WCX" pack --json src dst
	[ "$(grep -c '"outcome":"packed"' <<<"$output")" -eq 1 ]
	"$WCX" unpack -q dst back
	diff -r --no-dereference src back # times were changed above
	rm -r dir
	cp -a "$DIR" dir
	"$WCX" pack -q dir out
	find dir -type f -exec touch {} +
	run -0 "$WCX" pack --json dir out
	[ "$(grep -c '"outcome":"packed"' <<<"$output")" -eq 4 ]
}

@test "--check finds contents that differ though size and time are the same" {
	cp -a "$DIR" src
	"$WCX" pack -q src dst
	for file in src/model-00001-of-00004.safetensors src/tokenizer.json; do
		touch -r "$file" time
		printf 'x' | dd of="$file" bs=1 seek=$(($(stat -c %s "$file") - 5)) conv=notrunc status=none
		touch -r time "$file"
	done
	run -0 "$WCX" pack src dst
	[[ "$output" == *"wcx pack: 9 done already in "* ]]
	run -0 "$WCX" pack --check src dst
	[[ "$output" == *"wcx pack: 1 packed, 1 copied, 7 done already in "* ]]
	"$WCX" unpack -q dst back
	same_trees src back
}

@test "owners, modes, ACLs, links, hard links, empty directories and odd names come back" {
	local name

	cp -a "$DIR" src
	mkdir -p src/sticky src/a/b/c src/none
	chmod 2750 src/a
	chmod 1777 src/sticky
	chmod 600 src/model-00001-of-00004.safetensors
	[ "$(id -u)" -ne 0 ] || chown -h 1234:2345 src/a src/model-00002-of-00004.safetensors
	ln src/model-00003-of-00004.safetensors src/a/b/again.safetensors
	ln src/config.json src/a/config.again
	ln -s ../../model-00001-of-00004.safetensors src/a/b/soft.safetensors
	ln -s nowhere src/a/dangling
	ln -s .. src/a/b/c/up
	ln -s /etc src/a/etc
	if command -v setfacl >/dev/null && setfacl -m u:daemon:r src/tokenizer.json 2>/dev/null; then
		setfacl -d -m u:daemon:rx src/a
	fi
	for name in $'new\nline' "space s" $'\xff\xfe' -rf '*' "ü" '"quoted"'; do
		cp src/model-00004-of-00004.safetensors "src/a/$name"
	done
	touch -d "2001-02-03 04:05:06.789" src/a/b src
	touch -h -d "2001-02-03 04:05:06.789" src/a/dangling
	"$WCX" pack -q src dst
	[ "$(stat -c %i dst/model-00003-of-00004.safetensors.wcx)" = "$(stat -c %i dst/a/b/again.safetensors.wcx)" ]
	[ "$(count_packed dst)" -eq 12 ]
	"$WCX" verify -q dst
	"$WCX" unpack -q dst back
	same_trees src back
	command -v getfacl >/dev/null || return 0
	cmp <(cd src && getfacl -R . 2>/dev/null) <(cd back && getfacl -R . 2>/dev/null)
}

@test "special files are left out with a warning" {
	cp -a "$DIR" src
	mkfifo src/fifo
	"$PYTHON" -c 'import socket; socket.socket(socket.AF_UNIX).bind("src/socket")'
	run -0 timeout 60 "$WCX" pack src dst
	[[ "$output" == *"wcx pack: warning: src/fifo: a special file is left out"* ]]
	[[ "$output" == *"wcx pack: warning: src/socket: a special file is left out"* ]]
	[ ! -e dst/fifo ] && [ ! -e dst/socket ]
}

@test "a tree that is deeper than a path can be long is packed and unpacked" {
	"$PYTHON" - "$DIR/model-00001-of-00004.safetensors" <<-'END'
		import os, shutil, sys
		os.mkdir("src")
		os.chdir("src")
		for _ in range(30):
		    os.mkdir("d" * 200)
		    os.chdir("d" * 200)
		shutil.copyfile(sys.argv[1], "deep.safetensors")
	END
	"$WCX" pack -q src dst
	"$WCX" verify -q dst
	"$WCX" unpack -q dst back
	"$PYTHON" - "$DIR/model-00001-of-00004.safetensors" <<-'END'
		import os, sys
		os.chdir("back")
		for _ in range(30):
		    os.chdir("d" * 200)
		assert open("deep.safetensors", "rb").read() == open(sys.argv[1], "rb").read()
	END
	rm -r src dst back
}

@test "a name that is too long for .wcx behind it keeps a file from being packed, but not from being copied" {
	local longest

	longest="$(printf "%0255d" 0)"
	mkdir src
	echo text >"src/$longest"
	cp "$DIR/model-00001-of-00004.safetensors" "src/${longest:4}"
	"$WCX" pack -q src dst
	cmp {src,dst}/"$longest"
	"$WCX" unpack -q dst back
	same_trees src back
	cp "$DIR/model-00001-of-00004.safetensors" "src/${longest:3}"
	run -1 "$WCX" pack -q src dst
	[ "$output" = "wcx pack: src/${longest:3}: File name too long" ]
	run -1 "$WCX" pack -q --rm src
	[ "$output" = "wcx pack: src/${longest:3}: File name too long" ]
	[ "$(cat "src/$longest")" = text ]
}

@test "a tree that is too deep is told of, and the rest is packed" {
	"$PYTHON" - <<-'END'
		import os
		os.mkdir("src")
		open("src/file", "w").close()
		os.chdir("src")
		for _ in range(515):
		    os.mkdir("d")
		    os.chdir("d")
	END
	run -1 "$WCX" pack src dst
	[[ "$output" == *": File name too long"* ]]
	[ -e dst/file ]
}

@test "links in the destination are not followed" {
	cp -a "$DIR" src
	mkdir dst outside
	ln -s ../outside dst/1_Pooling
	ln -s ../outside/secret dst/config.json
	run -1 "$WCX" pack src dst
	[[ "$output" == *"dst/1_Pooling: Not a directory"* ]]
	[ -z "$(ls -A outside)" ]
	[[ "$output" == *"dst/config.json: exists already, and is not older than src/config.json; --force replaces it"* ]]
	run -1 "$WCX" pack -f src dst
	[ -z "$(ls -A outside)" ]
	[ -L dst/1_Pooling ]
	cmp dst/config.json src/config.json
	[ "$(count_packed dst)" -eq 4 ]
}

@test "a destination that is the source, or lies in it, is refused" {
	cp -a "$DIR" src
	describe src >before
	run -1 "$WCX" pack src src
	[ "$output" = "wcx pack: src: is the source; --rm works in place" ]
	run -1 "$WCX" pack src src/new
	[ "$output" = "wcx pack: src/new: is inside the source src" ]
	run -1 "$WCX" pack src src/1_Pooling
	[ "$output" = "wcx pack: src/1_Pooling: is inside the source src" ]
	run -1 "$WCX" pack src src/new/er
	[ "$output" = "wcx pack: src/new/er: is inside the source src" ]
	mkdir -p around/src/src
	echo older >around/src/text
	touch -d 2001-01-01 around/src/text
	echo newer >around/src/src/text
	for file in around/src around/src/src; do
		cp "$DIR/model-00004-of-00004.safetensors" $file/same.safetensors
	done
	describe around >around.before
	run -1 "$WCX" pack around/src around
	[ "$output" = "wcx pack: around: would get the outputs of around/src/src into the source" ]
	describe around | cmp around.before -
	touch file
	run -1 "$WCX" pack src file
	[ "$output" = "wcx pack: file: Not a directory" ]
	describe src | cmp before -
}

@test "what exists and is no packed file is replaced with --force alone" {
	cp -a "$DIR" src
	mkdir dst
	echo precious >dst/model-00001-of-00004.safetensors.wcx
	run -1 "$WCX" pack src dst
	[[ "$output" == *"dst/model-00001-of-00004.safetensors.wcx: exists already, and is no packed file; --force replaces it"* ]]
	[ "$(cat dst/model-00001-of-00004.safetensors.wcx)" = precious ]
	[ -e dst/model-00002-of-00004.safetensors.wcx ]
	"$WCX" pack -q --force src dst
	"$WCX" unpack -q dst back
	same_trees src back
}

@test "in another tree, what may be anybody's is replaced and removed with --force alone" {
	local shard=model-00001-of-00004.safetensors other=model-00002-of-00004.safetensors

	cp -a "$DIR" src
	ln -s config.json src/link
	ln src/$other src/second.safetensors
	mkdir dst
	cp -p src/$other dst/$shard # as old as can be, and yet another model
	"$WCX" pack -q src/$other dst/$other.wcx
	"$WCX" pack -q src/$shard dst/second.safetensors.wcx
	ln -s tokenizer.json dst/link
	echo mine | tee dst/config.json >dst/tokenizer.json
	touch dst/*.wcx
	touch -d 2001-01-01 dst/tokenizer.json
	cp -a dst before
	run -1 "$WCX" pack src dst
	[[ "$output" == *"dst/$shard: exists already, and is no copy of src/$shard; --force removes it"* ]]
	[[ "$output" == *"dst/$other.wcx: exists already, and is not older than src/"* ]]
	[[ "$output" == *"dst/second.safetensors.wcx: exists already, and is not older than src/"* ]]
	[[ "$output" == *"dst/config.json: exists already, and is not older than src/config.json; --force replaces it"* ]]
	[[ "$output" == *"dst/link: File exists"* ]]
	for file in $shard $other.wcx second.safetensors.wcx config.json; do
		cmp "before/$file" "dst/$file"
	done
	[ "$(readlink dst/link)" = tokenizer.json ]
	[ ! -e dst/$shard.wcx ]
	cmp src/tokenizer.json dst/tokenizer.json # it was older
	"$WCX" pack -qf --base=none src dst
	[ ! -e dst/$shard ]
	mkdir back
	echo mine >back/$shard
	run -1 "$WCX" unpack dst back
	[[ "$output" == *"back/$shard: exists already, and is not older than dst/$shard.wcx; --force replaces it"* ]]
	[ "$(cat back/$shard)" = mine ]
	"$WCX" unpack -qf dst back
	touch -r src back
	same_trees src back
	echo other >>back/$shard
	touch -d 2001-01-01 back/$shard
	"$WCX" unpack -q dst back # it was older
	touch -r src back
	same_trees src back
}

@test "a truncated file in a tree is warned of and copied, and packed once it is complete" {
	cp -a "$DIR" src
	truncate -s -7 src/model-00001-of-00004.safetensors
	run -0 "$WCX" pack src dst
	[[ "$output" == *"warning: src/model-00001-of-00004.safetensors: truncated: "*" bytes ("*"); not packed"* ]]
	cmp src/model-00001-of-00004.safetensors dst/model-00001-of-00004.safetensors
	cp "$DIR/model-00001-of-00004.safetensors" src
	"$WCX" pack -q src dst
	[ ! -e dst/model-00001-of-00004.safetensors ]
	"$WCX" unpack -q dst back
	same_trees src back
}

@test "a blob whose contents are not those of its name is warned of" {
	local name

	name="$(printf '0%.0s' {1..64})"
	mkdir src
	cp "$DIR/model-00001-of-00004.safetensors" "src/$name"
	run -0 "$WCX" pack src dst
	[[ "$output" == *"warning: src/$name: its contents are not those of the SHA-256 in its name"* ]]
}

@test "a file of a tree that is called .safetensors and is none is warned of and copied" {
	mkdir src
	echo "version https://git-lfs.github.com/spec/v1" >src/pointer.safetensors
	: >src/empty.safetensors
	echo '{}' >src/config.json
	run -0 "$WCX" pack src packed
	echo "$output"
	[[ "$output" == *"warning: src/pointer.safetensors: not a safetensors file: looks like a Git LFS pointer; "*"; not packed"* ]]
	[[ "$output" == *"warning: src/empty.safetensors: not a safetensors file: "*"; not packed"* ]]
	[ "$(grep -c warning <<<"$output")" -eq 2 ]
	diff -r src packed
}

@test "--link makes hard links of what is not packed, --reflink and a plain run do not" {
	"$WCX" pack -q --link "$DIR" "$BATS_FILE_TMPDIR/linked"
	[ "$BATS_FILE_TMPDIR/linked/config.json" -ef "$DIR/config.json" ]
	"$WCX" pack -q --reflink "$DIR" reflinked
	[ ! reflinked/config.json -ef "$DIR/config.json" ]
	cmp reflinked/config.json "$DIR/config.json"
	"$WCX" unpack -q "$BATS_FILE_TMPDIR/linked" back
	rm -r "$BATS_FILE_TMPDIR/linked"
	same_trees "$DIR" back
}

@test "copies keep holes" {
	mkdir src
	truncate -s 100M src/sparse
	echo data | dd of=src/sparse bs=1 seek=50000000 conv=notrunc status=none
	"$WCX" pack -q src dst
	cmp src/sparse dst/sparse
	[ "$(stat -c %b dst/sparse)" -lt 1000 ]
}

@test "a packed cache, mounted, is the cache" {
	[ -c /dev/fuse ] || skip "there is no /dev/fuse"
	mkdir mnt
	"$WCXFS" "$PACKED" mnt
	diff -r --no-dereference "$CACHE" mnt && diff -r "$CACHE/$REPO/snapshots" "mnt/$REPO/snapshots"
	umount mnt 2>/dev/null || fusermount3 -u mnt
}

@test "trees and files are packed and unpacked where there is no /proc" {
	unshare --mount true 2>/dev/null || skip "no mount namespace can be made here"
	cp -a "$DIR" src
	# shellcheck disable=SC2016 # the inner shell expands it
	unshare --mount bash -c 'mount -t tmpfs none /proc && "$WCX" pack -q src dst && "$WCX" unpack -q dst back &&
		"$WCX" pack -q src/model-00001-of-00004.safetensors one && "$WCX" unpack -q one two'
	same_trees src back
	cmp two src/model-00001-of-00004.safetensors
}

# --- in place ---

@test "--rm packs and unpacks in place" {
	cp -a "$CACHE" tree
	ln "$(find tree -path "*/blobs/*" -size +100k | head -n 1)" tree/second
	describe tree >before
	run -0 "$WCX" pack --rm tree
	[[ "$output" == *"4 packed, 8 left out, 5 sources removed in "* || "$output" == *"4 packed, 1 linked, "*" 5 sources removed in "* ]]
	[ "$(count_packed tree)" -eq 5 ]
	[ -z "$(find tree -type f -size +100k ! -name "*.wcx")" ]
	"$WCX" verify -q tree
	"$WCX" pack -q --rm tree
	"$WCX" unpack -q --rm tree
	describe tree | cmp before -
}

@test "a packed file is unpacked whatever its other names are" {
	local file="$DIR/model-00001-of-00004.safetensors"

	mkdir src
	"$WCX" pack -q "$file" src/model.wcx
	ln src/model.wcx src/another
	ln src/model.wcx src/more.wcx
	"$WCX" unpack -q src dst
	cmp "$file" dst/model
	[ dst/model -ef dst/more ]
	cmp src/another dst/another
	"$WCX" unpack -q --rm src
	cmp "$file" src/model
	[ src/model -ef src/more ]
	cmp dst/another src/another
	[ "$(cd src && echo *)" = "another model more" ]
}

@test "--rm of a file packs it beside itself" {
	cp "$DIR/model-00001-of-00004.safetensors" a
	cp "$DIR/config.json" b
	run -3 "$WCX" pack --rm a b
	[[ "$output" == *"b: not a safetensors file: looks like JSON"* ]]
	[ "$(ls)" = $'a.wcx\nb' ]
	"$WCX" unpack -q --rm a.wcx
	cmp a "$DIR/model-00001-of-00004.safetensors"
	[ "$(ls)" = $'a\nb' ]
}

@test "--rm keeps a source whose packed file is another's or damaged" {
	cp "$DIR/model-00001-of-00004.safetensors" a
	"$WCX" pack -q "$DIR/model-00002-of-00004.safetensors" a.wcx
	run -1 "$WCX" pack --rm .
	[[ "$output" == *"./a.wcx: exists already, and does not hold ./a; --force replaces it"* ]]
	cmp a "$DIR/model-00001-of-00004.safetensors"
	"$WCX" pack -qf a a.wcx
	printf '\377\377' | dd of=a.wcx bs=1 seek=$(($(stat -c %s a.wcx) / 2)) conv=notrunc status=none
	run -1 "$WCX" pack --rm .
	cmp a "$DIR/model-00001-of-00004.safetensors"
	"$WCX" pack -q --rm --force .
	[ "$(ls)" = a.wcx ]
	"$WCX" unpack -q a.wcx b
	cmp b "$DIR/model-00001-of-00004.safetensors"
}

@test "--rm keeps a source while another process removes or replaces its packed file" {
	local name=model-00001-of-00004.safetensors

	mkdir src
	cp "$DIR/$name" src
	"$WCX" pack -q src/$name
	run -1 flock src/$name.wcx "$WCX" pack -q --rm src
	[ "$output" = "wcx pack: src/$name: kept, since another process removes or replaces its output" ]
	run -1 flock -s src/$name.wcx "$WCX" unpack -q --rm src
	cmp {"$DIR",src}/$name
	[ -e src/$name.wcx ]
	flock -s src/$name.wcx "$WCX" pack -q --rm src
	[ "$(cd src && echo *)" = $name.wcx ]
}

@test "unpack --rm keeps a packed file whose original another process has removed" {
	local name=model-00001-of-00004.safetensors

	mkdir src
	cp "$DIR/$name" src
	"$WCX" pack -q src/$name
	run -1 remove_once_locked src/$name "$WCX" unpack -q --rm src
	[[ "$output" == *"src/$name.wcx: kept, since another process removes or replaces its output" ]]
	"$WCX" unpack -q src/$name.wcx back
	cmp "$DIR/$name" back
}

# Run a command on a copy of a tree where file a, which has the further name b, comes after file big.  It is stopped in a system
# call, and a file replaced.
replace_in() {
	local call="$1" file="$2" new="$3" tree="$5"

	rm -rf work
	cp -a "$tree" work
	cp "$new" new
	stop_in "$call" "$WCX" "$4" -q -j 1 --rm work
	mv new "work/$file"
	go_on
	[ ! -e work/b.wcx ] || "$WCX" unpack -q --rm work/b.wcx
	cmp work/b "$DIR/model-00001-of-00004.safetensors"
}

@test "--rm of a file that is replaced loses no contents that have a further name" {
	local new="$DIR/model-00002-of-00004.safetensors"

	needs_strace
	mkdir plain
	cp "$DIR/model-00001-of-00004.safetensors" plain/a
	ln plain/a plain/b
	cp "$DIR/model-00003-of-00004.safetensors" plain/big
	cp -a plain packed
	"$WCX" pack -q --rm packed
	"$WCX" pack -q "$new" new.wcx
	# The source, before it is opened
	replace_in linkat a "$new" pack plain
	replace_in linkat a.wcx new.wcx unpack packed
	# The output, before its further name is made
	replace_in unlinkat:2 a.wcx new.wcx pack plain
	replace_in unlinkat:2 a "$new" unpack packed
}

@test "--rm keeps a source whose output is replaced after it was found to be complete" {
	local old="$DIR/model-00001-of-00004.safetensors" new="$DIR/model-00002-of-00004.safetensors"

	needs_strace
	mkdir work
	cp "$old" work/a
	"$WCX" pack -q work/a
	"$WCX" pack -q "$new" new.wcx
	cp -a work both
	stop_in pread64:3 -P "$PWD/work/a.wcx" "$WCX" pack -q -j 1 --rm work
	mv new.wcx work/a.wcx
	! go_on || false
	cmp work/a "$old"
	grep "^wcx pack: work/a: kept, since another process removes or replaces its output$" stopped.out
	stop_in pread64 -P "$PWD/both/a" "$WCX" unpack -q -j 1 --rm both
	cp "$new" new
	mv new both/a
	! go_on || false
	"$WCX" unpack -q both/a.wcx back
	cmp back "$old"
}

@test "--rm removes a source only once the output is on the disk, whoever wrote it" {
	local way command from to order name

	needs_strace
	cp -a "$DIR" tree
	"$WCX" pack -q tree there
	for way in "pack .safetensors .safetensors.wcx" "unpack .safetensors.wcx .safetensors"; do
		read -r command from to <<<"$way"
		cp -a there/*.safetensors.wcx "$DIR"/*.safetensors tree # in memory alone
		ASAN_OPTIONS=detect_leaks=0 strace -fyo trace -e trace=fsync,unlinkat "$WCX" "$command" -q --rm tree
		[ "$(find tree -name "*$from" | wc -l)" -eq 0 ]
		order="$(sed -nE 's|.*fsync\([0-9]+<[^>]*/([^>]*)>.*|sync \1|p; s|.*unlinkat\([^"]*"([^"]*)".*|remove \1|p' trace)"
		for file in "$DIR"/*.safetensors; do
			name="$(basename "$file" .safetensors)"
			[[ "$order" == *"sync $name$to"$'\n'*"remove $name$from"* ]]
		done
	done
}

@test "--rm keeps its word to links: a link to a source stays, and nothing is removed through one" {
	mkdir tree other
	cp "$DIR/model-00001-of-00004.safetensors" other/a
	ln -s ../other/a tree/a
	ln -s ../other tree/directory
	"$WCX" pack -q --rm tree
	[ -f other/a ] && [ ! -e other/a.wcx ] && [ -L tree/a ]
	run -1 "$WCX" pack --rm tree/a
	[[ "$output" == *"tree/a: kept, since it is a link to the file"* ]]
	[ -f other/a ]
}

# Every model of the directory is whole, as a source or packed.
check_whole() {
	local file

	for file in "$DIR"/*.safetensors; do
		file="${file##*/}"
		if [ -e "$1/$file" ]; then
			cmp "$1/$file" "$DIR/$file"
		else
			"$WCX" unpack -q "$1/$file.wcx" "$1/check"
			cmp "$1/check" "$DIR/$file"
			rm "$1/check"
		fi
	done
}

@test "packing in place that is killed at any moment loses nothing, and goes on" {
	local kills=0 wait_ms

	cp -a "$DIR" tree
	while [ "$(find tree -name "*.safetensors" | wc -l)" -gt 0 ]; do
		"$WCX" pack -q -j 1 --rm tree &
		# Longer each time, so that a slow machine gets done as well.
		wait_ms=$((RANDOM % (100 + 20 * kills) + 10))
		timeout "$((wait_ms / 1000)).$(printf %03d $((wait_ms % 1000)))" tail --pid=$! -f /dev/null || true
		kill -KILL $! 2>/dev/null && kills=$((kills + 1))
		wait $! || true
		check_whole tree
		[ "$kills" -lt 200 ]
	done
	echo "$kills kills"
	"$WCX" unpack -q --rm tree
	touch -r "$DIR" tree # a killed run cannot set its time back
	same_trees "$DIR" tree
}

@test "packing to another place that is killed or interrupted leaves whole files, and goes on" {
	local status

	for signal in KILL TERM; do
		status=0
		# A run that ends before the signal reaches it is whole as well, and shows nothing of the signal.
		for ((run = 0; run < 100 && status == 0; run++)); do
			rm -rf "$signal" "$signal.back"
			"$WCX" pack -q -j 1 "$DIR" "$signal" 2>messages &
			until [ -n "$(find "$signal" -name "*.wcx" 2>/dev/null)" ] || ! kill -0 $! 2>/dev/null; do
				:
			done
			kill "-$signal" $! 2>/dev/null || true
			wait $! || status=$?
			"$WCX" verify -q "$signal"
			[ -z "$(find "$signal" -name ".wcx-*")" ]
			"$WCX" pack -q "$DIR" "$signal"
			"$WCX" unpack -q "$signal" "$signal.back"
			same_trees "$DIR" "$signal.back"
		done
		[ "$status" -ne 0 ]
	done
	grep -q "interrupted; the same command goes on from here" messages
}

@test "a directory that the user has made keeps its permissions, one that a killed run has made gets the source's" {
	mkdir src
	chmod 755 src
	cp "$DIR/config.json" src
	for mode in 700 711 1777; do
		mkdir -m $mode dst-$mode
		"$WCX" pack -q src dst-$mode
		[ "$(stat -c %a dst-$mode)" = $mode ]
	done
	strace -o /dev/null true || skip "strace is not installed, or may not trace"
	run strace -f -qq -o /dev/null -e trace=fsync -e inject=fsync:signal=KILL "$WCX" pack src dst
	[ -d dst ] && [ "$(stat -c %a dst)" != 755 ]
	"$WCX" pack -q src dst
	[ "$(stat -c %a dst)" = 755 ]
}

@test "what killed runs left is removed, and looked for once in a directory" {
	local left=.wcx-tmp-abcdefghijklmnop

	mkdir src dst
	cp "$DIR/config.json" src
	for i in {1..40}; do echo "$i" >"src/$i"; done
	echo left >dst/$left
	"$WCX" pack -q src dst
	[ ! -e dst/$left ]
	echo left >src/$left
	cp "$DIR/model-00004-of-00004.safetensors" src
	"$WCX" pack -q --rm src
	[ ! -e src/$left ]
	strace -o /dev/null true || skip "strace is not installed, or may not trace"
	for i in {1..40}; do echo "$i" >>"src/$i"; done
	strace -f -qq -o calls -e trace=getdents64 "$WCX" pack -q src dst
	cmp src/40 dst/40
	[ "$(wc -l <calls)" -lt 30 ]
}

@test "directories above a destination are made, and go again if nothing comes of it" {
	"$WCX" pack -q "$DIR" new/er//dst
	[ "$(count_packed new/er/dst)" -eq 4 ]
	run -1 "$WCX" pack --base=missing "$DIR" other/er/dst
	[ ! -e other ]
	mkdir damaged
	head -c 1000 "$(find new -name "*-00001-*.wcx")" >damaged/x.wcx
	run -1 "$WCX" unpack damaged other/dst
	[ ! -e other ]
	# Nothing else is removed.
	mkdir -p mine/er
	run -1 "$WCX" pack --base=missing "$DIR" mine/er/dst
	[ -d mine/er ] && [ ! -e mine/er/dst ]
	run -1 "$WCX" pack --base=missing "$DIR" mine/er
	[ -d mine/er ]
	"$WCX" quantize --help >/dev/null
	run -1 "$WCX" quantize "$DIR/1_Pooling" other/int8
	[ ! -e other ]
}

@test "all arguments are looked at before the first file is touched" {
	local what

	cp -a "$DIR" src
	describe src >before
	for what in "pack --rm src" "unpack --rm src" "convert src"; do
		# shellcheck disable=SC2086 # a command and its arguments
		run -1 "$WCX" $what missing
		[ "$output" = "wcx ${what%% *}: missing: No such file or directory; nothing was done" ]
		describe src | cmp before -
	done
}

# --- space ---

@test "too little space is told of before the work" {
	[ "$(id -u)" -eq 0 ] || skip "only root can mount a small file system"
	mkdir small
	mount -t tmpfs -o size=1m wcx-test small || {
		rmdir small
		skip "a tmpfs cannot be mounted here"
	}
	run -1 "$WCX" unpack "$PACKED" small/dst
	bytes="$(find "$CACHE" -type f -printf '%s\n' | awk '{ s += $1 } END { print s }')"
	[ "$output" = "wcx unpack: small/dst: needs $bytes bytes, 1048576 are free; nothing was written" ]
	mount -o remount,size=2m small
	run -1 "$WCX" pack "$DIR" small/dst
	[[ "$output" == *"warning: small/dst: may need up to "*" bytes, 2097152 are free"* ]]
	[[ "$output" == *"stopped, since other files would fail too"* ]]
	mount -o remount,size=20m small
	"$WCX" pack -q "$DIR" small/dst
	"$WCX" unpack -q small/dst back
	same_trees "$DIR" back
}

@test "what fits is not refused: values that need few bits, holes, and files that get a further name" {
	[ "$(id -u)" -eq 0 ] || skip "only root can mount a small file system"
	mkdir small src
	mount -t tmpfs -o size=3m wcx-test small || {
		rmdir small
		skip "a tmpfs cannot be mounted here"
	}
	"$PYTHON" - <<-'END'
		import numpy as np
		from safetensors_io import build_header, lay_out
		weights = np.random.default_rng(1).standard_normal(1 << 21).astype(np.float32)
		weights.view(np.uint32)[:] &= 0xffff0000 # of BF16
		tensors = lay_out([("w", "F32", [2048, 1024])])
		open("src/upcast.safetensors", "wb").write(build_header(tensors) + weights.tobytes())
	END
	run -0 "$WCX" pack src/upcast.safetensors small/file.wcx
	[[ "$output" == *"warning: small/file.wcx: may need up to 83"?????" bytes, "* ]]
	rm small/file.wcx
	run -0 "$WCX" pack src small/dst
	[[ "$output" == *"warning: small/dst: may need up to 83"?????" bytes, "* ]]
	rm -r small/dst
	mkdir copied
	truncate -s 1G copied/hole
	"$WCX" unpack -q copied small/dst
	dd if=/dev/urandom of=small/data bs=64K count=28 status=none
	mkdir small/src && mv small/data small/src
	"$WCX" unpack -q --link small/src small/linked
}

# Mount a file system that takes a and A for one name at small, as teardown expects it.
mount_folding() {
	local loop

	mkdir small
	truncate -s 64M image
	mount -t tmpfs -o casefold tmpfs small 2>/dev/null && mkdir small/dir && chattr +F small/dir && return
	mkfs.vfat image >/dev/null && mount -o loop image small 2>/dev/null && mkdir small/dir && return
	loop="$(losetup -f --show image)"
	mkfs.exfat "$loop" >/dev/null && mount.exfat-fuse "$loop" small >/dev/null 3>&- && mkdir small/dir
	losetup -d "$loop" # once it is unmounted
	[ ! -d small/dir ] || return 0
	rmdir small
	return 1
}

@test "names that are one in the destination are refused before anything is written" {
	mkdir -p src/deep packed
	cp "$DIR/model-00001-of-00004.safetensors" src/deep/model.safetensors
	cp "$DIR/model-00002-of-00004.safetensors" src/deep/Model.safetensors
	"$WCX" pack -q src other # where case counts
	[ "$(count_packed other)" -eq 2 ]
	mount_folding 2>/dev/null || skip "no file system that takes upper and lower case for the same can be mounted"
	run -1 "$WCX" pack src small/dir/dst
	[[ "$output" == *"odel.safetensors: "?"odel.safetensors is beside it, and small/dir/dst takes both names for one; nothing was written" ]]
	run -1 "$WCX" unpack -f other small/dir/dst
	[[ "$output" == *"takes both names for one; nothing was written" ]]
	run -1 "$WCX" pack -f src/deep/*odel.safetensors small/dir
	[[ "$output" == *"small/dir/model.safetensors.wcx: would be the output of several files; nothing was done" ]]
	[ -z "$(ls -A small/dir)" ]
	mv src/deep/Model.safetensors src/deep/model2.safetensors
	"$WCX" pack -q src small/dir/dst
	[ "$(count_packed small/dir/dst)" -eq 2 ]
}

# --- what is said ---

@test "a rate counts what was worked on, and rows those files that did not fail" {
	mkdir damaged
	"$WCX" pack -q "$DIR/model-00001-of-00004.safetensors" damaged/x.wcx
	"$PYTHON" -c 'import sys; f = open(sys.argv[1], "r+b"); f.seek(20000); f.write(bytes(1000))' damaged/x.wcx
	run -1 "$WCX" unpack damaged back
	[[ "$output" =~ $'\n'"wcx unpack: 1 failed in "[0-9.]+" s"$ ]]
	[[ "$output" != *dtype* ]]
	run -1 --separate-stderr "$WCX" unpack --json damaged back
	[[ "$output" != *'"output"'* && "$output" != *'"ratio"'* && "$output" == *'"dtypes":{}'* ]]
	run -0 "$WCX" pack "$DIR" dst
	[[ "${lines[-1]}" == *"B/s)" ]]
	run -0 "$WCX" unpack -q dst back
	run -0 "$WCX" unpack dst back
	[[ "${lines[-1]}" =~ " done already in "[0-9.]+" s"$ ]]
}

@test "several files go to a directory, beside themselves or to a name" {
	mkdir out
	run -3 "$WCX" pack "$DIR"/*.safetensors "$DIR/config.json" out
	[[ "$output" == *"config.json: not a safetensors file: looks like JSON"* ]]
	[ "$(count_packed out)" -eq 4 ]
	"$WCX" verify -q out
	cp "$DIR/model-00001-of-00004.safetensors" one
	"$WCX" pack -q one
	"$WCX" pack -q one two
	"$WCX" pack -q one out
	cmp one.wcx two
	cmp one.wcx out/one.wcx
	mkdir back
	"$WCX" unpack -q out/*.wcx back
	cmp back/one one
	cmp "back/model-00002-of-00004.safetensors" "$DIR/model-00002-of-00004.safetensors"
}

@test "of several files with one output none is worked on" {
	mkdir a b out
	cp "$DIR/model-00001-of-00004.safetensors" a/x
	cp "$DIR/model-00002-of-00004.safetensors" b/x
	cp a/x first
	run -1 "$WCX" pack -f b/x first a/x out
	[ "$output" = "wcx pack: out/x.wcx: would be the output of several files; nothing was done" ]
	[ -z "$(ls out)" ]
	"$WCX" pack -q a/x
	"$WCX" pack -q b/x
	run -1 "$WCX" unpack -f a/x.wcx b/x.wcx out
	[ "$output" = "wcx unpack: out/x: would be the output of several files; nothing was done" ]
	[ -z "$(ls out)" ]
}

@test "what cannot be kept of many files is said once" {
	[ "$(id -u)" -eq 0 ] || skip "only root can act as other users"
	command -v setpriv >/dev/null || skip "setpriv is not installed"
	local user=(setpriv --reuid=65534 --regid=65534 --clear-groups) name

	chmod a+rx "$BATS_RUN_TMPDIR" "$BATS_FILE_TMPDIR" "${BATS_TEST_TMPDIR%/*}" "$BATS_TEST_TMPDIR" .
	cp -a "$DIR" src
	# A path that is too long for a message
	name="$(printf 'x%.0s' {1..200})"
	mkdir -p "src/$name/$name/$name"
	chmod -R u=rwX,go=rX src
	mkdir mine
	chown 65534:65534 mine
	run -0 "${user[@]}" "$WCX" pack src mine/dst
	[ "$(grep -c "warning: .*the group cannot be kept: " <<<"$output")" -eq 2 ]
	[ "$(grep -c "warning: .*the owner cannot be kept: " <<<"$output")" -eq 2 ]
	[[ "$output" == *"warning: $(($(find src | wc -l) - 1)) more (-v names them): the owner cannot be kept: "* ]]
	[ -z "$(find mine/dst -type d ! -perm 755 -o -type f ! -perm 644)" ]
	run -0 "${user[@]}" "$WCX" pack -v src mine/again
	[ "$(grep -c "warning: .*the owner cannot be kept: " <<<"$output")" -eq "$(find src | wc -l)" ]
}

@test "NAME beside its packed file is no failure, and beside another one says what can be done" {
	mkdir src
	cp "$DIR/model-00001-of-00004.safetensors" src/a
	"$WCX" pack -q src/a
	cp -a src same
	for check in "" --check; do
		rm -rf dst back
		run -0 "$WCX" pack ${check:+"$check"} same dst
		[[ "$output" == *" 1 copied, 1 done already "* ]]
		cmp same/a.wcx dst/a.wcx
		run -0 "$WCX" unpack ${check:+"$check"} same back
		[[ "$output" == *" 1 copied, 1 done already "* ]]
		[ "$(ls back)" = a ]
		cmp same/a back/a
	done
	touch src/a
	run -1 "$WCX" pack src other
	[[ "$output" == *"src/a: not packed, since a.wcx is beside it; wcx pack --rm src/a removes it if that holds it"* ]]
	run -1 "$WCX" unpack src other-back
	[[ "$output" == *"src/a.wcx: not unpacked, since a is beside it; wcx pack --rm src/a leaves one, if they are the same"* ]]
	run -0 "$WCX" pack --rm src/a
	[[ "$output" == *"packed already into "*"; source removed" ]]
	"$WCX" pack -q src other
}

@test "verify, info and rm of a tree without a packed file fail" {
	for command in verify info rm; do
		run -1 "$WCX" "$command" "$DIR"
		[ "$output" = "wcx $command: $DIR: no packed file in it" ]
	done
}

@test "verify of a tree names a damaged file, checks the rest, and exits with 1" {
	local file

	cp -a "$PACKED" tree
	file="$(find tree -name "*.wcx" | sort | head -n 1)"
	printf '\377\377' | dd of="$file" bs=1 seek=$(($(stat -c %s "$file") / 2)) conv=notrunc status=none
	echo short >tree/other.wcx
	run -1 --separate-stderr "$WCX" verify tree
	[ "$(grep -c ": sound$" <<<"$output")" -eq 3 ]
	# shellcheck disable=SC2154 # set by run
	[[ "$stderr" == *"$file: "*"damaged"* ]]
	[[ "$stderr" == *"tree/other.wcx: not a .wcx file"* ]]
}

@test "progress tells files, rate, ratio and time left on a terminal" {
	script -qec true /dev/null || skip "script(1) cannot create a terminal"
	run -0 script -qec "'$WCX' pack '$DIR' dst" /dev/null
	[[ "$output" =~ packing\ +[0-9]+\ %\ +[0-9]+\ of\ 9\ files\ +[0-9.]+\ [kM]?B\ of\ [0-9.]+\ MB\ +[0-9.]+\ [kM]?B/s ]]
	[[ "$output" =~ ratio\ 1\.[0-9]+\ +[0-9]+:[0-9][0-9]\ left ]]
	run -0 script -qec "'$WCX' pack -q '$DIR' dst2" /dev/null
	[ -z "$output" ]
}

@test "info of a tree shows each file in order, and totals by dtype" {
	run -0 --separate-stderr "$WCX" info "$PACKED"
	[ -z "$stderr" ]
	[ "$(grep -c '[.]wcx$' <<<"$output")" -eq 4 ]
	grep '[.]wcx$' <<<"$output" | awk '{ print $4 }' | sort -c
	grep -qE "^I8 +[0-9]+ +[0-9]+ +[0-9]+ +1[.][0-9]+ +[0-9.]+ %$" <<<"$output"
	grep -qE "^total +[0-9]+ +$(find "$CACHE/$REPO/blobs" -size +100k -printf '%s\n' | awk '{ s += $1 } END { print s }') " <<<"$output"
}

@test "no line that any command prints has a control character of a name" {
	local odd=$'a\e[31m\xc2\x9b2J\nb' name

	name="$odd.safetensors"
	mkdir "$odd" "cache$odd"
	cp "$DIR/model-00001-of-00004.safetensors" "$odd/$name"
	cp "$odd/$name" "$odd/other$name"
	truncate -s 30 "$odd/other$name.none"
	{
		"$WCX" pack "$odd/$name" "$odd/$name.wcx"
		"$WCX" pack "$odd/$name" "$odd/$name.wcx" || true
		"$WCX" pack --base="$odd/$name.wcx" "$odd/other$name" "$odd/other$name.wcx"
		"$WCX" pack -v "$odd" "copy$odd"
		"$WCX" verify "$odd/$name.wcx" "$odd/other$name.wcx"
		"$WCX" verify -v "$odd"
		"$WCX" info "$odd/other$name.wcx"
		"$WCX" info "$odd"
		"$WCX" info "$odd/none$odd" || true
		"$WCX" unpack -v "copy$odd" "plain$odd"
		"$WCX" warm -v "$odd" || true
		"$WCX" hub --undo "cache$odd"
		"$WCX" hub -v --undo "cache$odd"
		"$WCX" rm -n -v --store="$odd" "$odd/other$name.wcx"
		"$WCX" rm -v --store="$odd" "$odd/other$name.wcx" "$odd/$name.wcx"
		"$WCX" "$odd" || true
	} >../printed 2>&1
	cat -v ../printed
	grep -qF 'a?[31m??2J?b' ../printed
	LC_ALL=C run -1 grep -nP '[\x00-\x1f\x7f]|\xc2[\x80-\x9f]|^b[./:\x27]' ../printed
}

@test "all JSON that is printed is as docs/json.md says" {
	local name=$'\xff.safetensors' status=0

	cp -a "$DIR" src
	cp "$DIR/model-00001-of-00004.safetensors" "src/$name"
	ln src/config.json src/again
	mkfifo src/fifo
	"$WCX" pack --json -j 1 src dst 2>/dev/null >lines
	"$WCX" pack --json src dst 2>/dev/null >>lines
	echo broken >dst/broken.wcx
	"$WCX" verify --json dst 2>/dev/null >>lines || status=$?
	[ "$status" -eq 1 ]
	"$WCX" info --json dst 2>/dev/null >>lines || true
	rm dst/broken.wcx
	"$WCX" unpack --json dst back 2>/dev/null >>lines
	"$WCX" warm --json back 2>/dev/null >>lines
	"$WCX" pack --json --rm back 2>/dev/null >>lines || true
	cp "$BATS_TEST_DIRNAME/../reference/golden/version3/version3_best_i8.wcx" old.wcx
	"$WCX" convert --json old.wcx 2>/dev/null >>lines
	"$WCX" pack --json src/config.json 2>/dev/null >>lines || status=$?
	[ "$status" -eq 3 ]
	cp -a src other
	"$WCX" pack --json --base=dst other against 2>/dev/null >>lines
	"$WCX" info --json --compare against/model-00004-of-00004.safetensors.wcx >object
	rm -r dst
	"$WCX" info --json --store=against against/model-00004-of-00004.safetensors.wcx >orphan
	"$PYTHON" - lines object "$BATS_TEST_DIRNAME/../../docs/json.md" <<-'END'
		import json, re, sys

		TYPES = {"string": str, "integer": int, "number": (int, float), "object": dict, "array": list, "boolean": bool}
		tables, seen = {}, set()
		for line in open(sys.argv[3]):
		    if line.startswith("## "):
		        table = tables.setdefault(line[3:].strip(), {})
		    elif row := re.match(r"\| `(\w+)` \| (\w+) \| (\w+) \|", line):
		        table[row[1]] = TYPES[row[2]], row[3] == "always"
		outcomes = set(re.findall(r"`(\w+)`", re.search(r"Outcomes: .*?\n\n", open(sys.argv[3]).read(), re.S)[0]))

		def check(value, name):
		    table = tables[name]
		    for key, of in value.items():
		        assert key in table, f"{name}: {key} is not documented"
		        assert isinstance(of, table[key][0]) and (table[key][0] is bool or not isinstance(of, bool)), (key, of)
		        seen.add((name, key))
		    for key, (_, always) in table.items():
		        assert not always or key in value, f"{name}: no {key} in {value}"
		    for total in value.get("dtypes", {}).values():
		        check(total, "Dtype")

		lines = [json.loads(line) for line in open(sys.argv[1])]
		for line in lines:
		    check(line, {"file": "File", "total": "Total"}[line["type"]])
		    assert line["type"] == "total" or line["outcome"] in outcomes, line
		    assert line["type"] == "file" or set(line["files"]) <= outcomes, line
		info = json.load(open(sys.argv[2]))
		check(info, "Info")
		for base in info["bases"] + json.load(open("orphan"))["bases"]:
		    check(base, "Base")
		for tensor in info["tensors"]:
		    check(tensor, "Tensor")
		for name, table in tables.items():
		    missing = {key for key in table if (name, key) not in seen} - {"file_hex", "base_hex"}
		    missing -= {"name_hex", "path_hex"} if name == "Base" else set()
		    assert not missing, f"{name}: {missing} are never printed"
		told = {line["outcome"] for line in lines if line["type"] == "file"}
		assert outcomes == told, outcomes ^ told
		commands = {line["command"] for line in lines}
		assert commands == {"pack", "unpack", "convert", "verify", "info", "warm"}, commands
		hexed = next(line for line in lines if "path_hex" in line)
		assert bytes.fromhex(hexed["path_hex"]) == b"src/\xff.safetensors" and hexed["path"] == "src/\ufffd.safetensors"
		files = [line for line in lines if line["type"] == "file" and line["command"] == "pack"]
		total = next(line for line in lines if line["type"] == "total")
		first = [line for line in files if line["outcome"] == "packed" and line["path"].startswith("src/")]
		assert sum(line["bytes"] for line in first) == total["bytes"], total
		assert sum(line["packed_bytes"] for line in first) == total["packed_bytes"], total
	END
}
