#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2030,SC2031,SC2154 # each test is a process, and changes variables for itself; run sets stderr
#
# Files that are packed against a base, without it, with another in its place, with a damaged one, and with one that is not
# theirs to read; and what removes files from a store.
#
# The base is Gaussian weights (sigma 0.02), BF16; tuned-1 is those after Gaussian drift of 0.001 sigma (weight_family.py).

bats_require_minimum_version 1.5.0
load ../fixtures/suite
load mount_helper

setup_file() {
	mount_setup_file || return 0
	export ORIG="$BATS_FILE_TMPDIR/orig" STORE="$BATS_FILE_TMPDIR/store"

	"$PYTHON" "$FIXTURES/weight_family.py" "$ORIG" 0.001
	mkdir "$STORE"
	"$WCX" pack -q "$ORIG/base" "$STORE/base"
	mkdir "$STORE/tuned"
	"$WCX" pack -q --base="$STORE/base" "$ORIG/tuned-1/model.safetensors" "$STORE/tuned/model.safetensors.wcx"
	[ "$(stat -c %s "$STORE/tuned/model.safetensors.wcx")" -lt $(($(stat -c %s "$ORIG/tuned-1/model.safetensors") / 2)) ]
	chmod -R u=rwX,go=rX "$BATS_FILE_TMPDIR"
	chmod a+x "$BATS_RUN_TMPDIR" # other users read, too
	BASE_SHA="$(sha256sum <"$ORIG/base/model.safetensors" | cut -c 1-12)"
	export BASE_SHA
}

setup() {
	suite_start
	mount_setup
	OWN="$BATS_TEST_TMPDIR/own"
	chmod a+rx "$BATS_TEST_TMPDIR" "${BATS_TEST_TMPDIR%/*}"
	cp -a --no-preserve=xattr "$STORE" "$OWN" # as most copies, without marks of bases
	BASE="$OWN/base/model.safetensors.wcx"
	TUNED="$OWN/tuned/model.safetensors.wcx"
	cd "$BATS_TEST_TMPDIR" || return
}

teardown() {
	rm -f "$BATS_TEST_TMPDIR/gate"
	! mountpoint -q "$BATS_TEST_TMPDIR/slow" || fusermount3 -u "$BATS_TEST_TMPDIR/slow"
	mount_teardown
}

needs_two_users() {
	[ "$(id -u)" -eq 0 ] || skip "only root can act as other users"
	command -v setpriv >/dev/null || skip "setpriv is not installed"
}

# Run a command as the user 65534, or as another one.
as_user() {
	setpriv --reuid="${2:-65534}" --regid="${2:-65534}" --clear-groups -- bash -c "$1"
}

is_tuned() {
	cmp "$1" "$ORIG/tuned-1/model.safetensors"
}

# The dependent unpacks to its original.
unpacks() {
	rm -f out
	"$WCX" unpack -q "$@" "$TUNED" out
	is_tuned out
}

# Write the base's SHA-256 and size into the superblock of another packed file: a forgery, with bytes of the forger's.
forge() {
	"$PYTHON" - "$BASE" "$1" <<-'END'
		import sys, xxhash

		base = open(sys.argv[1], "rb").read(192)
		file = open(sys.argv[2], "r+b")
		forged = bytearray(file.read(192))
		assert forged[24:32] == base[24:32] or forged != base
		forged[88:120] = base[88:120]
		forged[184:192] = xxhash.xxh3_64(bytes(forged[:184])).digest()[::-1]
		file.seek(0)
		file.write(forged)
	END
}

# --- where a base is ---

@test "a base is found at its hint, and wherever else it is in the store" {
	unpacks
	rm out
	mkdir -p "$OWN/deep/er"
	mv "$BASE" "$OWN/deep/er/renamed.wcx"
	unpacks # as it is around the directory of the file
	run -0 "$WCX" verify "$TUNED"
	[[ "$output" == "$TUNED: sound, with the base $OWN/deep/er/renamed.wcx" ]]
	run -1 "$WCX" unpack --store="$OWN/tuned" "$TUNED" out2
	[[ "$output" == *": not found in $OWN/tuned" ]]
	unpacks --store="$OWN"
	"$WCX" unpack -q "$OWN" all
	is_tuned all/tuned/model.safetensors
	run -0 "$WCX" info --store="$OWN" "$TUNED"
	[[ "$output" == *"base 1: sha256 $BASE_SHA"*$'\n'"  $OWN/deep/er/renamed.wcx"* ]]
	mv "$OWN/deep/er/renamed.wcx" "$OWN/tuned"
	unpacks
}

@test "around a file, its base is looked for no further than rm looks for what needs one" {
	mv "$BASE" .
	unpacks
	# The home directory is the end.
	run -1 env HOME="$BATS_TEST_TMPDIR" "$WCX" unpack "$TUNED" out2
	[[ "$output" == *"tuned/model.safetensors.wcx: "*"base $BASE_SHA (../base/model.safetensors.wcx): not found in $OWN/tuned and around it; --store=DIR says where else to look" ]]
	[ ! -e out2 ]
	mkdir "$OWN/tmp"
	chmod 1777 "$OWN/tmp"
	mv "$OWN/tuned" "$OWN/tmp"
	run -1 "$WCX" verify "$OWN/tmp/tuned/model.safetensors.wcx"
	[[ "$output" == *": not found in $OWN/tmp/tuned and around it; --store=DIR says where else to look" ]]
}

@test "a store may have more bases than a process may have files open" {
	"$PYTHON" - <<-'END'
		import os, numpy
		from safetensors_io import Tensor, build_header

		os.mkdir("many")
		rng = numpy.random.default_rng(5)
		for family in range(60):
		    base = rng.integers(0, 100, 10000).astype("u1")
		    for name, data in ("a", base), ("b", base + (rng.random(10000) < 0.01)):
		        header = build_header([Tensor(f"w{family}", "U8", [10000], 0, 10000)], {})
		        open(f"many/{family}{name}.safetensors", "wb").write(header + data.astype("u1").tobytes())
	END
	"$WCX" pack -q many packed
	"$WCX" verify --json packed | tail -1 | grep -q '"based_files":60,'
	(
		ulimit -n 64
		"$WCX" verify -q -j 2 packed
		"$WCX" unpack -q -j 2 packed back
	)
	diff -r many back
}

@test "what the store lacks is reported, and the rest is verified" {
	"$WCX" verify -q "$OWN"
	rm "$BASE"
	cp -a "$STORE/base" "$OWN/copy"
	"$WCX" verify -q "$OWN" # by SHA-256 alone
	rm -r "$OWN/copy"
	"$WCX" pack -q "$ORIG/tuned-1/model.safetensors" "$OWN/alone.safetensors.wcx"
	run -1 "$WCX" verify "$OWN"
	[[ "$output" == *"tuned/model.safetensors.wcx: base $BASE_SHA (../base/model.safetensors.wcx): not found in $OWN"* ]]
	[[ "$output" == *"alone.safetensors.wcx: sound"* ]]
	[[ "$output" == *"1 sound, 1 failed"* ]]
	run -0 "$WCX" info "$TUNED"
	[[ "$output" == *"base 1: sha256 $BASE_SHA"*"not found in "* ]]
}

@test "verify says so if a mount of the store will not find or use a base" {
	mv "$OWN/base" .
	"$WCX" rm -q "$TUNED"
	"$WCX" pack -q --base=base "$ORIG/tuned-1/model.safetensors" "$TUNED"
	run -1 "$WCX" verify "$OWN"
	[[ "${lines[0]}" == "wcx verify: $TUNED: sound, but a mount of $OWN cannot read it: base $BASE_SHA (../../base/model.safetensors.wcx) is not in there; --store=DIR names the store" ]]
	run -1 "$WCX" verify -q --store="$OWN" "$TUNED"
	"$WCX" verify -q --store="$BATS_TEST_TMPDIR" "$TUNED"
	run -0 "$WCX" verify "$TUNED"
	[[ "$output" == "$TUNED: sound, with the base $PWD/base/model.safetensors.wcx" ]]
	# A mount takes another one that is in the store, and so does verify.
	cp -a base "$OWN/again"
	"$WCX" verify -q "$OWN"
	chmod o-r "$OWN"/again/*.wcx
	rm -r base
	run -1 "$WCX" verify "$OWN"
	[[ "$output" == *"$TUNED: sound, but a mount will not use base $BASE_SHA "*", since that has another owner, or fewer may read it"* ]]
}

@test "a base that cannot be opened is told apart from one that is not there" {
	"$PYTHON" - "$BASE" <<-'END'
		import sys

		with open(sys.argv[1], "r+b") as file:
		    file.seek(40)
		    index = int.from_bytes(file.read(8), "little")
		    file.seek(index + 100)
		    file.write(bytes(8))
	END
	run -1 "$WCX" verify "$TUNED"
	[[ "$output" == *"tuned/model.safetensors.wcx: base $BASE_SHA (../base/model.safetensors.wcx): cannot be opened: "*"base/model.safetensors.wcx: "*index* ]]
	start_logged_mount "$OWN"
	run ! cat "$MNT/tuned/model.safetensors"
	log_until "base $BASE_SHA (../base/model.safetensors.wcx): cannot be opened: "
}

@test "a base that may not be read is told apart from one that is not there" {
	local message="tuned/model.safetensors.wcx: base $BASE_SHA (../base/model.safetensors.wcx): cannot be opened: "

	needs_two_users
	chmod o-r "$BASE"
	run -1 as_user "'$WCX' verify '$TUNED'"
	[[ "$output" == *"$message"*"base/model.safetensors.wcx: Permission denied" ]]
	chmod o+r "$BASE"
	chmod o-x "$OWN/base"
	run -1 as_user "'$WCX' verify '$OWN'"
	[[ "$output" == *"$message"*"base/model.safetensors.wcx: Permission denied"* ]]
	chmod o+x "$OWN/base"
	as_user "'$WCX' verify -q '$OWN'"
}

@test "another file in the base's place is not taken for it" {
	cp "$ORIG/tuned-1/model.safetensors" other.safetensors
	"$WCX" pack -q other.safetensors other.wcx
	mv other.wcx "$BASE"
	run -1 "$WCX" verify "$OWN"
	[[ "$output" == *"tuned/model.safetensors.wcx: base $BASE_SHA "*"base/model.safetensors.wcx is there, but holds another file"* ]]
	echo garbage >"$BASE"
	run -1 "$WCX" verify "$TUNED"
	[[ "$output" == *"is no packed file that can be read"* ]]
	# A FIFO in its place is not waited for, nor a device opened.
	rm "$BASE"
	mkfifo "$BASE"
	run -1 timeout 20 "$WCX" verify "$TUNED"
	[[ "$output" == *"not found in"* ]]
}

@test "info of a tree shows who depends on whom" {
	run -0 "$WCX" info "$OWN"
	grep -qE "^ +base of: $OWN/tuned/model.safetensors.wcx$" <<<"$output"
	grep -qE "^ +base: $OWN/base/model.safetensors.wcx$" <<<"$output"
	run -0 "$WCX" info --json "$TUNED"
	[[ "$output" == *"\"path\": \"$OWN/base/model.safetensors.wcx\""* ]]
	(cd "$OWN" && run -0 "$WCX" info tuned/..//tuned/model.safetensors.wcx && [[ "$output" == *$'\n'"  base/model.safetensors.wcx"* ]])
	# Behind a link, .. is elsewhere.
	ln -s "$OWN/tuned" link
	run -0 "$WCX" info link/model.safetensors.wcx
	[[ "$output" == *$'\n'"  link/../base/model.safetensors.wcx"* ]]
	rm "$BASE"
	run -0 "$WCX" info "$OWN"
	[[ "$output" != *"base of: "* && "$output" == *"  base $BASE_SHA (../base/model.safetensors.wcx): not found in $OWN"* ]]
	run -0 "$WCX" info --json "$OWN"
	[[ "$output" == *"\"bases\":[\"$BASE_SHA"* ]]
}

# --- mounts ---

@test "a mounted fine-tune has its original's bytes, read whole and in parts" {
	start_mount "$OWN"
	is_tuned "$MNT/tuned/model.safetensors"
	cmp "$MNT/base/model.safetensors" "$ORIG/base/model.safetensors"
	"$PYTHON" - "$MNT/tuned/model.safetensors" "$ORIG/tuned-1/model.safetensors" <<-'END'
		import os, random, sys

		mounted, original = (os.open(path, os.O_RDONLY) for path in sys.argv[1:])
		os.posix_fadvise(mounted, 0, 0, os.POSIX_FADV_DONTNEED)
		random.seed(1)
		size = os.fstat(original).st_size
		for _ in range(300):
		    at, count = random.randrange(size), random.choice([1, 100, 4096, 70000])
		    assert os.pread(mounted, count, at) == os.pread(original, count, at), (at, count)
	END
}

@test "in a mount, a missing base is EIO for what needs it until it is there again" {
	mv "$BASE" away
	start_logged_mount "$OWN"
	run ! cat "$MNT/tuned/model.safetensors"
	grep -q "warning: store $OWN: 1 of its files cannot be read for lack of a base: tuned/model.safetensors.wcx needs base $BASE_SHA (../base/" "$LOG"
	log_until "base $BASE_SHA (../base/model.safetensors.wcx): not found in the store"
	grep -q "tuned/model.safetensors.wcx: tensor .embed.weight., tile 0 (offset " "$LOG"
	mv away "$OWN/elsewhere.wcx"
	# It is looked for once a second, and the store is searched every three.
	for _ in {1..60}; do
		! is_tuned "$MNT/tuned/model.safetensors" 2>/dev/null || break
		read -r -t 0.1 <> <(:) || true
	done
	is_tuned "$MNT/tuned/model.safetensors"
	is_tuned "$MNT/tuned/model.safetensors"
}

@test "damage in the base is EIO where the fine-tune needs those tiles, and nowhere else" {
	"$PYTHON" - "$BASE" <<-'END'
		import sys

		file = open(sys.argv[1], "r+b")
		file.seek(1_000_000)
		byte = file.read(1)[0]
		file.seek(1_000_000)
		file.write(bytes([byte ^ 1]))
	END
	start_mount "$OWN"
	"$PYTHON" - "$MNT" "$ORIG" <<-'END'
		import errno, os, sys

		def read(path):
		    fd, parts, at = os.open(path, os.O_RDONLY), [], 0
		    while at < os.fstat(fd).st_size:
		        try:
		            parts.append(os.pread(fd, 4096, at))
		        except OSError as e:
		            assert e.errno == errno.EIO
		            parts.append(None)
		        at += 4096
		    return parts

		base, tuned = read(f"{sys.argv[1]}/base/model.safetensors"), read(f"{sys.argv[1]}/tuned/model.safetensors")
		for parts, name in ((base, "base"), (tuned, "tuned-1")):
		    original = open(f"{sys.argv[2]}/{name}/model.safetensors", "rb").read()
		    for i, part in enumerate(parts):
		        assert part is None or part == original[4096 * i:4096 * i + 4096], (name, i)
		lost = [sum(part is None for part in parts) for parts in (base, tuned)]
		# One tile of 32 KiB of the base, and those of the fine-tune that overlap it.
		assert 8 <= lost[0] <= 10 and 8 <= lost[1] <= 26, lost
	END
	run -1 "$WCX" verify "$OWN"
	[[ "$output" == *"base/model.safetensors.wcx: tensor "*": damaged"* ]]
	[[ "$output" == *"tuned/model.safetensors.wcx: tensor "*": base $BASE_SHA ("*"base/model.safetensors.wcx: tensor "*": damaged"* ]]
}

# --- whose a base may be ---

@test "a private base is not disclosed by a file that others may read" {
	needs_two_users
	chmod 0600 "$BASE"
	chown -R 1234:1234 "$OWN/tuned"
	start_logged_mount "$OWN" -o allow_other
	run ! as_user "cat '$MNT/tuned/model.safetensors'"
	log_until "base/model.safetensors.wcx is not for everybody to read who may read this file"
	chmod 0644 "$BASE"
	chmod 0700 "$OWN/base"
	run ! as_user "cat '$MNT/tuned/model.safetensors'"
	stop_mount
	# Nor does root unpack it for its owner, to whom the output belongs.
	run -1 "$WCX" unpack "$TUNED" out
	[[ "$output" == *"is not for everybody to read who may read this file"* ]]
	# Of the same owner, for the same readers, it may be private.
	chown -R 1234:1234 "$OWN/base"
	start_mount "$OWN" -o allow_other
	as_user "cat '$MNT/tuned/model.safetensors'" >out
	is_tuned out
}

@test "a forged base of another owner is not used" {
	needs_two_users
	# Another file of the same size, as if the base's weights had been changed.
	"$PYTHON" "$FIXTURES/weight_family.py" forged 0.001 --seed 2
	"$WCX" pack -q forged/base "$OWN/forged"
	forge "$OWN/forged/model.safetensors.wcx"
	mv "$BASE" genuine
	cp "$OWN/forged/model.safetensors.wcx" "$BASE"
	unpacks && return 1 # the owner's own forgery is believed: its bytes are wrong, and unpack finds out
	chown -R 1234:1234 "$OWN/base" "$OWN/forged"
	run -1 env HOME="$BATS_TEST_TMPDIR" "$WCX" verify "$TUNED"
	[[ "$output" == *"says that it holds it, but belongs to neither root, the reader nor the owner"* ]]
	run -1 "$WCX" verify "$OWN"
	[[ "$output" == *"says that it holds it, but belongs to neither root, the reader nor the owner"* ]]
	start_mount "$OWN" -o allow_other
	run ! cat "$MNT/tuned/model.safetensors"
	stop_mount
	# Where the genuine one is too, it is found behind the forged ones.
	mv genuine "$OWN/zzz.wcx"
	unpacks
	unpacks --store="$OWN"
	start_mount "$OWN" -o allow_other
	is_tuned "$MNT/tuned/model.safetensors"
}

# --- what removes files ---

@test "unpacking in place removes a base only when nothing needs it" {
	run -1 "$WCX" unpack --rm --store="$OWN" "$BASE"
	[[ "$output" == *"base/model.safetensors.wcx: unpacked, but kept, since $OWN/tuned/model.safetensors.wcx is packed against it"* ]]
	[ -e "$BASE" ] && rm "$OWN/base/model.safetensors"
	# The base is the larger file, which would come first.
	"$WCX" unpack -q -j 1 --rm "$OWN"
	[ -z "$(find "$OWN" -name "*.wcx")" ]
	is_tuned "$OWN/tuned/model.safetensors"
	cmp "$OWN/base/model.safetensors" "$ORIG/base/model.safetensors"
}

@test "wcx hub keeps packed blobs that others are packed against" {
	local cache="$BATS_TEST_TMPDIR/cache" blobs sha other

	blobs="$cache/models--org--m/blobs"
	sha="$(sha256sum <"$ORIG/base/model.safetensors" | cut -d " " -f 1)"
	other="$(sha256sum <"$ORIG/tuned-1/model.safetensors" | cut -d " " -f 1)"
	mkdir -p "$blobs" "$cache/models--org--m/snapshots/1" store
	cp "$ORIG/base/model.safetensors" "$blobs/$sha"
	ln -s "../../blobs/$sha" "$cache/models--org--m/snapshots/1/model.safetensors"
	start_mount "$cache"
	"$WCX" hub -q "$cache" "$MNT"
	"$WCX" pack -q --base="$blobs/$sha.wcx" "$ORIG/tuned-1/model.safetensors" store/tuned.wcx
	TUNED=store/tuned.wcx
	run -1 "$WCX" hub --undo "$cache"
	[[ $output == *"$blobs/$sha.wcx: restored, but kept, since "*"/store/tuned.wcx is packed against it"* ]]
	cmp "$blobs/$sha" "$ORIG/base/model.safetensors"
	unpacks
	# Another blob does not take its place.
	mv "$blobs/$sha.wcx" "$blobs/$other.wcx"
	cp "$ORIG/tuned-1/model.safetensors" "$blobs/$other"
	rm "$blobs/$sha"
	run -1 "$WCX" hub "$cache" "$MNT"
	[[ $output == *"$blobs/$other.wcx: not replaced, since "*"/store/tuned.wcx is packed against it"* ]]
	unpacks --store="$BATS_TEST_TMPDIR"
	mv "$blobs/$other.wcx" "$blobs/$sha.wcx"
	rm "$blobs/$other"
	# One that no snapshot names any more stays as long as it is needed.
	"$WCX" hub -q "$cache" "$MNT"
	rm -r "$cache/models--org--m/snapshots/1"
	run -0 "$WCX" hub "$cache" "$MNT"
	[[ $output == *"warning: $blobs/$sha.wcx: no longer in use, but kept, since "*"/store/tuned.wcx is packed against it"* ]]
	unpacks
	run -0 "$WCX" hub --store="$cache" "$cache" "$MNT" # which is below the directory that the mark names
	[[ $output == *"no longer in use, but kept"* ]]
	rm "$TUNED"
	run -0 "$WCX" hub --store="$BATS_TEST_TMPDIR" "$cache" "$MNT"
	[[ $output == *"1 no longer in use removed"* ]]
	[ ! -e "$blobs/$sha.wcx" ]
}

@test "a base that comes into a directory while its successor is quantised keeps the directory" {
	local pid status=0

	"$PYTHON" "$FIXTURES/small_llama.py" model --dtype BF16
	echo held >model/notes.txt
	mkdir slow int8
	echo '{}' >int8/config.json
	echo "read /notes.txt" >gate
	"$WCX_BUILD/tests/slow_store" model slow 0 "$PWD/gate" 3>&-
	"$WCX" quantize -f slow int8 >messages 2>&1 3>&- &
	pid=$!
	until compgen -G ".wcx-*/*.safetensors" >/dev/null; do
		kill -0 "$pid"
	done
	"$WCX" pack -q "$ORIG/base/model.safetensors" int8/base.wcx
	"$WCX" pack -q --base=int8/base.wcx "$ORIG/tuned-1/model.safetensors" tuned.wcx
	rm gate
	wait "$pid" || status=$?
	[ "$status" -eq 1 ]
	grep -q "int8/base.wcx: not replaced, since tuned.wcx is packed against it" messages
	TUNED=tuned.wcx
	unpacks
	[ -z "$(find . -maxdepth 1 -name ".wcx-*")" ]
}

@test "a base that is needed is not removed, and its dependents are named" {
	run -1 "$WCX" rm --store="$OWN" "$BASE"
	[[ "$output" == *"base/model.safetensors.wcx: needed by $OWN/tuned/model.safetensors.wcx"* ]]
	[[ "$output" == *"not removed: 1 file is packed against it"* ]]
	unpacks
	cd "$OWN"
	run -1 "$WCX" rm base # the store is where we are
	unpacks
	"$WCX" rm tuned
	[ -d tuned ] && [ ! -e "$TUNED" ] && [ -e "$BASE" ]
	"$WCX" rm base/model.safetensors.wcx
	[ ! -e "$BASE" ]
	run -1 "$WCX" rm base/model.safetensors.wcx
	echo '{}' >config.json
	run -1 "$WCX" rm config.json
	[ -e config.json ]
	run -2 "$WCX" rm
}

@test "a base that another name of a dependent needs is not removed" {
	mkdir "$OWN/kept"
	ln "$TUNED" "$OWN/kept/model.safetensors.wcx"
	run -1 "$WCX" rm --store="$OWN" "$OWN/base" "$OWN/tuned"
	[[ "$output" == *"base/model.safetensors.wcx: needed by $OWN/kept/model.safetensors.wcx"* ]]
	[ -e "$BASE" ] && [ ! -e "$TUNED" ]
	"$WCX" verify -q "$OWN"
}

@test "a base is not removed while a directory of the store cannot be listed" {
	needs_two_users
	chown -R 1234:1234 "$OWN"
	mkdir "$OWN/private" "$OWN/lost+found"
	mv "$OWN/tuned" "$OWN/private"
	chmod 0700 "$OWN/private" "$OWN/lost+found"
	run -1 as_user "'$WCX' rm --store='$OWN' '$OWN/base'" 1234
	[[ "$output" == *"not removed, since what is packed against it is not known: private: cannot be listed: Permission denied"* ]]
	[ -e "$BASE" ]
	run -1 as_user "'$WCX' unpack --rm --store='$OWN' '$BASE'" 1234
	[ -e "$BASE" ]
	rm -r "$OWN/private"
	as_user "'$WCX' rm --store='$OWN' '$OWN/base'" 1234
	[ ! -e "$BASE" ]
}

@test "a base is not removed while a file needs features that are not known" {
	demand_unknown_feature "$TUNED"
	run -1 "$WCX" rm --store="$OWN" "$BASE"
	[[ "$output" == *"not removed, since what is packed against it is not known: "*"needs features"* ]]
	[ -e "$BASE" ]
}

@test "a family goes together" {
	touch "$OWN/tuned/config.json"
	"$WCX" rm "$OWN"
	[ -z "$(find "$OWN" -name "*.wcx")" ]
	[ -e "$OWN/tuned/config.json" ]
}

@test "rm --rebase packs the dependents without their base first" {
	chmod 0640 "$TUNED"
	touch -d "2024-02-29 12:34:56" "$TUNED"
	"$WCX" rm --rebase --store="$OWN" "$OWN/base"
	[ ! -e "$BASE" ]
	[ "$(stat -c "%a %y" "$TUNED")" = "640 $(date -d "2024-02-29 12:34:56" "+%F %T.%N %z")" ]
	[ "$(find "$OWN" | wc -l)" -eq 4 ]
	"$WCX" verify -q "$OWN"
	run -0 "$WCX" info "$TUNED"
	[[ "$output" != *"base 1"* ]]
	unpacks
}

@test "rm --rebase packs a file once that was packed against several of those that go" {
	"$PYTHON" "$FIXTURES/weight_family.py" sharded 0.001 --shards 2
	"$WCX" pack -q sharded/base s/base
	"$WCX" pack -q --base=s/base sharded/tuned-1 s/tuned
	run -0 "$WCX" info --json s
	[[ "$output" == *'"base_count":2'* ]]
	run -0 "$WCX" rm -n --rebase --store=s s/base
	[ "$(grep -c "packed again" <<<"$output")" -eq 2 ]
	run -0 "$WCX" rm -v --rebase --store=s s/base
	[ "$(grep -c "packed again" <<<"$output")" -eq 2 ]
	[ -z "$(find s/base -name "*.wcx")" ]
	"$WCX" verify -q s
}

@test "rm --rebase packs a dependent again under each of its names" {
	ln "$TUNED" "$OWN/tuned/again.wcx"
	ln "$TUNED" "$OWN/model.safetensors.wcx"
	run -0 --separate-stderr "$WCX" rm --dry-run --rebase --store="$OWN" "$BASE"
	[ "$(grep -c "would be packed again" <<<"$output")" -eq 3 ]
	"$WCX" rm -q --rebase --store="$OWN" "$BASE"
	[ ! -e "$BASE" ]
	"$WCX" verify -q "$OWN"
	[ "$("$WCX" info --json "$OWN" | tail -1 | grep -c based_files)" -eq 0 ]
	"$WCX" unpack "$OWN/tuned/again.wcx" original
	is_tuned original
}

@test "rm --rebase --for=speed packs the dependents as pack --for=speed does" {
	"$WCX" rm --rebase --for=speed --store="$OWN" "$OWN/base"
	"$WCX" pack -q --for=speed "$ORIG/tuned-1/model.safetensors" speed.wcx
	"$WCX" info --json speed.wcx | grep -q '"mode": *"pairs8'
	cmp speed.wcx "$TUNED"
}

@test "rm --dry-run removes nothing, and says what rm would" {
	find "$OWN" -printf "%p %i %C@\n" | sort >before
	run -1 --separate-stderr "$WCX" rm -n --store="$OWN" "$BASE" "$OWN/none.wcx"
	[ -z "$output" ]
	[[ "$stderr" == *"base/model.safetensors.wcx: needed by $OWN/tuned/model.safetensors.wcx"* ]]
	[[ "$stderr" == *"not removed: 1 file is packed against it"* && "$stderr" == *"none.wcx: No such file"* ]]
	run -0 --separate-stderr "$WCX" rm --dry-run --store="$OWN" "$OWN"
	[ "$output" = "$TUNED: would be removed
$BASE: would be removed" ]
	run -0 --separate-stderr "$WCX" rm --dry-run --rebase --store="$OWN" "$OWN/base"
	[ "$output" = "$TUNED: would be packed again, without a base
$BASE: would be removed" ]
	find "$OWN" -printf "%p %i %C@\n" | sort | diff before -
}

@test "rm --dry-run is in the way of nobody who packs" {
	local pid

	mkfifo full
	exec 7<>full
	dd if=/dev/zero bs=4096 oflag=nonblock status=none >&7 2>/dev/null || true # what is printed now waits
	"$WCX" rm -n --store="$OWN" "$BASE" "$OWN/none.wcx" 2>full 3>&- 7>&- &
	pid=$!
	until find "/proc/$pid/fd" -lname "$BASE" 2>/dev/null | grep -q .; do
		kill -0 "$pid"
	done
	flock -s -w 20 "$BASE" true
	kill "$pid"
	exec 7>&-
}

@test "rm --dry-run knows of directories that may not be written to" {
	needs_two_users
	chmod a+rx "$OWN/tuned"
	run -1 as_user "'$WCX' rm -n --store='$OWN' '$TUNED'"
	[[ "$output" == *"$TUNED: Permission denied" ]]
	run -1 as_user "'$WCX' rm --store='$OWN' '$TUNED'"
	[[ "$output" == *"$TUNED: Permission denied" ]]
}

@test "rm --rebase that is killed leaves nothing" {
	strace -qo trace true 2>/dev/null || skip "strace is not installed, or may not trace"
	find "$OWN" | sort >before
	run strace -qfo trace -e trace=pwrite64 -e inject=pwrite64:signal=KILL "$WCX" rm --rebase --store="$OWN" "$OWN/base"
	grep -q "killed by SIGKILL" trace
	"$WCX" pack -q "$ORIG/tuned-1/model.safetensors" "$OWN/tuned/other.wcx" # where files cannot be without a name
	rm "$OWN/tuned/other.wcx"
	find "$OWN" | sort | cmp before -
	unpacks
}

@test "rm --rebase keeps a base if a dependent cannot be packed again" {
	"$PYTHON" - "$TUNED" <<-'END'
		import sys

		file = open(sys.argv[1], "r+b")
		file.seek(5000)
		file.write(b"damage")
	END
	run -1 "$WCX" rm --rebase --store="$OWN" "$BASE"
	[[ "$output" == *"tuned/model.safetensors.wcx"*"damaged"* ]]
	[ -e "$BASE" ]
	[ "$(find "$OWN" | wc -l)" -eq 5 ]
}

@test "a base that something is being packed against is not removed" {
	command -v flock >/dev/null || skip "flock is not installed"
	run -1 flock -s "$BASE" "$WCX" rm --store="$OWN" "$BASE" "$TUNED"
	[[ "$output" == *"not removed: another process packs against it"* ]]
	[ -e "$BASE" ] && [ ! -e "$TUNED" ]
	# And the other way round.
	run -1 flock -x "$BASE" "$WCX" pack --base="$BASE" "$ORIG/tuned-1/model.safetensors" "$TUNED"
	[ ! -e "$TUNED" ]
}
