#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
#
# wcx convert: files of format version 3 become those of version 1, and a file that cannot be converted stays as it is.
#
# The inputs are golden files as they were before the format became stable; the golden files of the same names without
# `version3_' are what an independent program made of them.

bats_require_minimum_version 1.5.0

load ../fixtures/suite

setup_file() {
	suite_find xxhash || return 0
	export GOLDEN="$BATS_TEST_DIRNAME/../reference/golden"
}

setup() {
	suite_start
	mkdir "$BATS_TEST_TMPDIR/work"
	cd "$BATS_TEST_TMPDIR/work" || return
}

teardown() {
	cd "$BATS_TEST_DIRNAME" || return
}

# Put a file of version 3, by its golden name, where it is wanted.
old() {
	cp "$GOLDEN/version3/version3_$1.wcx" "$2"
}

@test "each old golden file becomes the new one, and wcx says so" {
	for path in "$GOLDEN"/version3/*.wcx; do
		name=${path##*/version3_}
		cp "$path" "$name"
		run -0 "$WCX" convert "$name"
		[ "$output" = "$name: converted to version 1" ]
		cmp "$name" "$GOLDEN/$name"
	done
	[ "$(find . -type f | wc -l)" -ge 10 ]
}

@test "a file of version 1 is done already, and other files are refused" {
	cp "$GOLDEN/best_i8.wcx" new.wcx
	before=$(stat -c '%i %Y' new.wcx)
	run -0 "$WCX" convert new.wcx
	[[ "$output" == "new.wcx: "*" packed already into "* ]]
	[ "$(stat -c '%i %Y' new.wcx)" = "$before" ]
	echo text >text.wcx
	run -1 "$WCX" convert text.wcx
	[ "$output" = "wcx convert: text.wcx: not a .wcx file" ]
	run -1 "$WCX" convert missing.wcx
	[ "$output" = "wcx convert: missing.wcx: No such file or directory" ]
	run -2 "$WCX" convert
}

@test "other commands refuse version 3 and say what to do" {
	old best_i8 old.wcx
	for command in info verify unpack; do
		run -1 "$WCX" "$command" old.wcx
		[ "$output" = "wcx $command: old.wcx: format version 3: run \`wcx convert' to bring it to version 1" ]
	done
}

@test "of a tree, names of one file stay so, and metadata, times and all else stay" {
	mkdir -p tree/sub
	old best_i8 tree/a.wcx
	old best_bf16 tree/sub/b.wcx
	cp "$GOLDEN/best_f32.wcx" tree/sub/new.wcx
	echo text >tree/sub/text
	ln tree/a.wcx tree/sub/again.wcx
	ln -s ../a.wcx tree/sub/link.wcx
	chmod 640 tree/a.wcx
	[ "$EUID" -ne 0 ] || chown 1234:2345 tree/a.wcx
	touch -d 2020-02-02 tree/a.wcx tree/sub/*
	touch -d 2021-01-01 tree tree/sub
	describe() { find tree -printf '%p %y %m %u %g %T@ %l %n\n' | sort; }
	describe >before

	"$WCX" convert --json tree >lines
	describe | diff before -
	[ tree/a.wcx -ef tree/sub/again.wcx ]
	cmp tree/a.wcx "$GOLDEN/best_i8.wcx"
	cmp tree/sub/b.wcx "$GOLDEN/best_bf16.wcx"
	[ "$(grep -c '"outcome":"converted"' lines)" -eq 2 ]
	[ "$(grep -c '"outcome":"linked"' lines)" -eq 1 ]
	[ "$(grep -c '"outcome":"done"' lines)" -eq 1 ]
	[ "$(grep -c '"outcome":"left"' lines)" -eq 1 ]
	run -0 "$WCX" convert tree
	[[ "$output" == *"3 done already, 1 left out"* ]]
}

@test "a link is not replaced by what it leads to" {
	old best_i8 old.wcx
	ln -s old.wcx link.wcx
	run -1 "$WCX" convert link.wcx
	[ "$output" = "wcx convert: link.wcx: is a link; name the file that it leads to" ]
	[ -L link.wcx ]
	cmp old.wcx "$GOLDEN/version3/version3_best_i8.wcx"
}

@test "a damaged file stays as it is, and nothing else is left" {
	old best_i8 sound.wcx
	"$PYTHON" - <<-'END'
		import struct
		import xxhash

		with open("sound.wcx", "rb") as file:
		    sound = file.read()
		(index,) = struct.unpack_from("<Q", sound, 40)

		def damage(name, at, value, seals=True):
		    data = bytearray(sound)
		    data[at] ^= value
		    if seals:
		        struct.pack_into("<Q", data, 80, xxhash.xxh3_64_intdigest(bytes(data[index:])))
		        struct.pack_into("<Q", data, 120, xxhash.xxh3_64_intdigest(bytes(data[:120])))
		    with open(f"bad_{name}.wcx", "wb") as file:
		        file.write(data)

		damage("tile", index - 40, 1)
		damage("superblock", 90, 1, False)
		damage("index", index + 3, 1, False)
		damage("sha256", 90, 1)
		for at in 12, 16, 24, 32, 40, 41, 48, 56, 57, 58, 59, 60, 64, 72:
		    damage(f"superblock_{at}", at, 4)
		for at in range(0, len(sound) - index, 37):
		    damage(f"index_{at}", index + at, 1 + at % 255)
		for size in 100, 127, 128, 200, index, len(sound) - 1:
		    with open(f"bad_cut_{size}.wcx", "wb") as file:
		        file.write(sound[:size])
	END
	rm sound.wcx
	sha256sum ./* | sort >../before
	sha256=$(sed -n 's/  best_i8$//p' "$GOLDEN/manifest")
	for file in bad_*; do
		run "$WCX" convert "$file"
		if [ "$status" -eq 0 ]; then # the change was to what is only informative
			"$WCX" unpack "$file" ../unpacked
			echo "$sha256  ../unpacked" | sha256sum --check --quiet
			rm ../unpacked
			sed -i "/ .\/$file\$/d" ../before
			rm "$file"
		else
			echo "$output"
			[ "$status" -eq 1 ]
			[[ "$output" == *"$file"* ]]
		fi
	done
	sha256sum ./* | sort | diff ../before -
	[ "$(find . -name '.*' ! -name . | wc -l)" -eq 0 ]
	[ "$(wc -l <../before)" -gt 40 ]
	run -1 "$WCX" convert bad_tile.wcx
	[[ "$output" == *"bad_tile.wcx: "*"not converted (offsets are those in version 1)" ]]
}

@test "a packed file whose beginning cannot be read is no file of another kind" {
	strace -o /dev/null true || skip "strace is not installed, or may not trace"
	mkdir tree
	old best_i8 tree/old.wcx
	for command in convert "unpack --rm" verify info; do
		# shellcheck disable=SC2086 # an option may follow
		run -1 strace -f -qq -o /dev/null -P "$PWD/tree/old.wcx" -e trace=pread64 -e inject=pread64:error=EIO \
			"$WCX" $command tree
		[[ $output == *"tree/old.wcx: "*"Input/output error"* ]]
	done
}
