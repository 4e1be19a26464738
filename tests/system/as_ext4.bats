#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2030,SC2031 # each test is a process, and sets variables for itself
#
# A mount copies, backs up, guards and changes as ext4 does (docs/testing.md has the table).

bats_require_minimum_version 1.5.0
load ../fixtures/suite
load mount_helper

setup_file() {
	mount_setup_file || return 0
	export ORIG="$BATS_FILE_TMPDIR/orig" PACKED="$BATS_FILE_TMPDIR/packed"

	mkdir "$ORIG" "$PACKED"
	for seed in 1 2 3; do # all of one size
		"$PYTHON" "$FIXTURES/make_int8.py" "$ORIG/$seed" --mib 3 --seed "$seed"
		"$WCX" pack -q "$ORIG/$seed" "$PACKED/$seed.wcx"
	done
	"$PYTHON" "$FIXTURES/make_int8.py" "$ORIG/large" --mib 5 --seed 4
	"$WCX" pack -q "$ORIG/large" "$PACKED/large.wcx"
	chmod a+x "$BATS_RUN_TMPDIR" "$BATS_FILE_TMPDIR"
}

setup() {
	suite_start
	mount_setup
	S="$BATS_TEST_TMPDIR/store"
	MOUNTED=()
	ABOVE=
	mkdir "$S"
	chmod a+rx "$BATS_TEST_TMPDIR" "${BATS_TEST_TMPDIR%/*}"
	cp "$PACKED/1.wcx" "$S/a.safetensors.wcx"
	echo "{}" >"$S/config.json"
	chmod 644 "$S"/*
}

teardown() {
	[ -z "$SUITE_LACKS" ] || return 0
	# What lies above the mount goes first, what lies below it last.
	[ -z "$ABOVE" ] || unmount_below
	mount_teardown
	unmount_below
	[ -z "${LOOP-}" ] || losetup -d "$LOOP"
}

system_python() {
	"$PYTHON" "$BATS_TEST_DIRNAME/as_ext4.py" "$@"
}

needs() {
	local command

	for command in "$@"; do
		command -v "$command" >/dev/null || skip "$command is not installed"
	done
}

needs_root() {
	[ "$(id -u)" -eq 0 ] || skip "only root can do this"
}

# mount_below ARGUMENT... - mount something for the test; the last argument is where
mount_below() {
	needs_root
	mount "$@" || skip "mount $* does not work here"
	MOUNTED+=("${*: -1}")
}

unmount_below() {
	local i

	for ((i = ${#MOUNTED[@]} - 1; i >= 0; i--)); do
		umount "${MOUNTED[i]}"
	done
	MOUNTED=()
}

# Run a command as a user without rights; GROUPS_OF_USER has the groups.
as_user() {
	local groups=(--clear-groups)

	[ -z "$GROUPS_OF_USER" ] || groups=(--groups "$GROUPS_OF_USER")
	setpriv --reuid=65534 --regid=65534 "${groups[@]}" -- "$@"
}

user_reads() {
	if [ -d "$1" ]; then as_user ls "$1"; else as_user head -c 1 "$1"; fi >/dev/null 2>&1
}

user_fails() {
	! user_reads "$1"
}

shows() {
	cmp -s "$1" "$2"
}

stat_is() {
	[ "$(stat -c "$1" "$2" 2>/dev/null)" = "$3" ]
}

is_gone() {
	! stat "$1" >/dev/null 2>&1
}

# A copy of the mount by each of the usual ways holds what the mount shows.
copies_are_right() {
	local out="$BATS_TEST_TMPDIR/out"

	mkdir "$out" "$out/tar"
	cp -a "$MNT" "$out/cp"
	diff -r "$MNT" "$out/cp"
	tar -C "$MNT" -c . | tar -C "$out/tar" -x
	diff -r "$MNT" "$out/tar"
	if command -v rsync >/dev/null; then
		rsync -aH "$MNT/" "$out/rsync"
		diff -r "$MNT" "$out/rsync"
	fi
	rm -r "$out"
}

# --- numbers and copies ---

@test "a packed file and its hard link under another name are two files, and copies of both are right" {
	ln "$S/a.safetensors.wcx" "$S/a.bak"
	ln "$S/a.safetensors.wcx" "$S/same.safetensors.wcx"
	ln "$S/config.json" "$S/config.bak"
	start_mount "$S"
	[ "$(stat -c %i "$MNT/a.safetensors")" != "$(stat -c %i "$MNT/a.bak")" ]
	[ "$(stat -c %h "$MNT/a.safetensors" "$MNT/a.bak" "$MNT/same.safetensors")" = $'1\n1\n1' ]
	shows "$MNT/a.safetensors" "$ORIG/1"
	shows "$MNT/same.safetensors" "$ORIG/1"
	shows "$MNT/a.bak" "$PACKED/1.wcx"
	[ "$(stat -c "%i %h" "$MNT/config.json")" = "$(stat -c "%i %h" "$MNT/config.bak")" ]
	[ "$(stat -c %h "$MNT/config.json")" -eq 2 ]
	copies_are_right
}

@test "two file systems below one store whose numbers collide: find, du, tar, rsync -H and warm see both" {
	local disk

	for disk in one two; do
		mkdir "$S/$disk"
		mount_below -t tmpfs -o size=16m none "$S/$disk"
		mkdir -p "$S/$disk/sub/deeper"
	done
	cp "$PACKED/1.wcx" "$S/one/sub/m.safetensors.wcx"
	cp "$PACKED/2.wcx" "$S/two/sub/m.safetensors.wcx"
	for disk in one two; do
		ln "$S/$disk/sub/m.safetensors.wcx" "$S/$disk/sub/deeper/m.safetensors.wcx"
		echo "$disk" >"$S/$disk/sub/deeper/f"
		ln "$S/$disk/sub/deeper/f" "$S/$disk/sub/g"
	done
	[ "$(stat -c %i "$S"/{one,two}/sub/deeper/f | uniq | wc -l)" -eq 1 ] || skip "the numbers do not collide here"
	start_logged_mount "$S"
	run -0 find "$MNT" -type f
	[ "${#lines[@]}" -eq 10 ]
	[ "$(find "$MNT" -printf "%i %p\n" | grep -v /g$ | cut -d " " -f 1 | sort | uniq -d | wc -l)" -eq 2 ] # m, twice
	[ "$(du -s --apparent-size -B1M "$MNT" | cut -f 1)" -ge 9 ]
	copies_are_right
	"$WCX" warm -q "$MNT"
	[ "$(counter misses)" -ge $((3 * $(stat -c %s "$ORIG/1") / (1 << 20))) ]
	fusermount3 -u "$MNT"
	wait "$DAEMON"
}

@test "numbers stay the same after the kernel forgot the files, and are those that ls -i lists" {
	local before

	needs_root
	mkdir "$S/dir"
	cp "$PACKED/2.wcx" "$S/dir/b.safetensors.wcx"
	ln -s a.safetensors.wcx "$S/link.wcx"
	start_mount "$S"
	before=$(find "$MNT" -mindepth 1 -printf "%i %p\n" | sort)
	system_python forget "$MNT"
	[ "$(find "$MNT" -mindepth 1 -printf "%i %p\n" | sort)" = "$before" ]
	# shellcheck disable=SC2012 # ls is what is tested
	[ "$(cd "$MNT" && ls -i1 | awk '{ print $1, $2 }' | sort)" = "$(cd "$MNT" && stat -c "%i %n" -- * | sort)" ]
	[ "$("$PYTHON" -c 'import os, sys
for e in os.scandir(sys.argv[1]): print(e.inode(), e.name)' "$MNT" | sort)" = "$(cd "$MNT" && stat -c "%i %n" -- * | sort)" ]
}

@test "a handle never opens another file" {
	local i

	needs_root
	rm "$S"/*
	for i in {100..499}; do
		echo "$i" >"$S/$i"
	done
	start_mount "$S"
	system_python handles "$MNT"
}

# --- access ---

@test "chmod and chown in the store grant and revoke within a second" {
	needs_root
	mkdir "$S/dir"
	echo x >"$S/dir/file"
	start_mount "$S" -o allow_other
	for entry in a.safetensors:a.safetensors.wcx config.json:config.json dir:dir; do
		local shown="$MNT/${entry%:*}" stored="$S/${entry#*:}"

		chmod 755 "$stored"
		within 2 user_reads "$shown"
		for mode in 600 755 700 755; do
			chmod "$mode" "$stored"
			if [ "$mode" = 755 ]; then within 2 user_reads "$shown"; else within 2 user_fails "$shown"; fi
		done
		chmod 600 "$stored"
		within 2 user_fails "$shown"
		chown 65534 "$stored"
		chmod u+x "$stored"
		within 2 user_reads "$shown"
		chown 0 "$stored"
		within 2 user_fails "$shown"
	done
	user_fails "$MNT/dir/file"
	chmod 700 "$S"
	within 2 user_fails "$MNT"
	chmod 755 "$S"
	within 2 user_reads "$MNT"
}

@test "a file that becomes private, or is replaced by a private one, cannot be opened any more" {
	local file

	needs_root
	for file in config.json a.safetensors.wcx; do
		cp "$S/$file" "$BATS_TEST_TMPDIR/$file"
		chmod 600 "$BATS_TEST_TMPDIR/$file"
	done
	cp -p "$S/config.json" "$S/other"
	start_mount "$S" -o allow_other
	for file in config.json a.safetensors.wcx; do
		user_reads "$MNT/${file%.wcx}"
		mv "$BATS_TEST_TMPDIR/$file" "$S/$file"
		user_fails "$MNT/${file%.wcx}" # at once, though the kernel knows the old permissions for a second
	done
	user_reads "$MNT/other"
	chmod 600 "$S/other"
	user_fails "$MNT/other"
}

@test "an ACL that shuts a group out does, and one that lets a user in does, within a second" {
	needs_root
	needs setfacl
	mkdir "$S/dir"
	setfacl -m u:1:r "$S/config.json" 2>/dev/null || skip "the store's file system has no ACLs"
	setfacl -b "$S/config.json"
	start_mount "$S" -o allow_other
	for entry in a.safetensors:a.safetensors.wcx config.json:config.json dir:dir; do
		local shown="$MNT/${entry%:*}" stored="$S/${entry#*:}"

		chmod 750 "$stored"
		chgrp 65534 "$stored"
		within 2 user_reads "$shown"
		setfacl -m g::---,g:1234:rx,m::rx "$stored" # the mask shows as the group's bits
		within 2 user_fails "$shown"
		[ "$(stat -c %A "$shown" | cut -c 5-7)" = r-x ]
		setfacl -m u:65534:rx "$stored"
		within 2 user_reads "$shown"
		setfacl -x u:65534 "$stored"
		within 2 user_fails "$shown"
		GROUPS_OF_USER=1234 user_reads "$shown"
		setfacl -m m::--- "$stored"
		GROUPS_OF_USER=1234 within 2 user_fails "$shown"
		setfacl -b "$stored"
		chmod 750 "$stored"
		within 2 user_reads "$shown"
	done
}

@test "getfacl through the mount and cp -a keep an ACL, without write permission" {
	needs_root
	needs setfacl getfacl
	setfacl -m u:1234:rw "$S/a.safetensors.wcx" 2>/dev/null || skip "the store's file system has no ACLs"
	start_mount "$S"
	getfacl -cn "$MNT/a.safetensors" | grep -x "user:1234:r--"
	cp -a "$MNT/a.safetensors" "$BATS_TEST_TMPDIR/copy"
	getfacl -cn "$BATS_TEST_TMPDIR/copy" | grep -x "user:1234:r--"
}

@test "an open descriptor tells nothing of the file or directory that took its path" {
	needs_root
	mkdir "$S/dir" "$S/private"
	touch "$S/private/secret"
	chmod 700 "$S/private"
	install -m 600 "$PACKED/2.wcx" "$BATS_TEST_TMPDIR/new"
	start_mount "$S" -o allow_other
	exec 5<"$MNT/a.safetensors" 6<"$MNT/dir"
	as_user "$PYTHON" -c 'import os; assert os.listdir(6) == [] and len(os.getxattr(5, "user.wcx.sha256")) == 64'
	mv "$BATS_TEST_TMPDIR/new" "$S/a.safetensors.wcx"
	rmdir "$S/dir"
	mv "$S/private" "$S/dir"
	for name in ratio packed_bytes sha256 dtypes status; do
		run ! as_user "$PYTHON" -c 'import os, sys; os.getxattr(5, sys.argv[1])' "user.wcx.$name"
		[[ "$output" == *"Stale file handle"* ]]
	done
	run as_user "$PYTHON" -c 'import os; os.listdir(6); print(os.listdir(6))'
	[[ "$output" != *secret* ]]
	exec 5<&- 6<&-
}

@test "a descriptor does not lead to what took its path in a directory that is private" {
	needs_root
	cp "$PACKED/1.wcx" "$PACKED/2.wcx" "$S"
	start_mount "$S" -o allow_other
	system_python private "$MNT" "$S" 65534
}

@test "nor does it where the inode numbers are those of what was removed" {
	local image="$BATS_TEST_TMPDIR/image" disk="$BATS_TEST_TMPDIR/disk"

	needs_root
	needs mkfs.ext4
	truncate -s 64M "$image"
	mkfs.ext4 -q -I 256 "$image" # with times of birth
	mkdir "$disk"
	mount -o loop "$image" "$disk" || skip "ext4 cannot be mounted"
	MOUNTED+=("$disk")
	cp "$PACKED/1.wcx" "$PACKED/2.wcx" "$disk"
	start_mount "$disk" -o allow_other
	system_python private "$MNT" "$disk" 65534 removed
}

@test "the ACL of a replaced file goes on to decide on its descriptor" {
	needs_root
	needs setfacl
	for file in a.safetensors.wcx config.json; do
		chmod 600 "$S/$file"
		setfacl -m u:65534:r "$S/$file" 2>/dev/null || skip "the store's file system has no ACLs"
	done
	start_mount "$S" -o allow_other
	for file in a.safetensors.wcx config.json; do
		exec 5<"$MNT/${file%.wcx}"
		user_reads /proc/self/fd/5
		install -m 640 "$PACKED/2.wcx" "$BATS_TEST_TMPDIR/new"
		mv "$BATS_TEST_TMPDIR/new" "$S/$file"
		within 2 user_fails "$MNT/${file%.wcx}"
		sleep 1.1 # until when the kernel may know the ACL
		user_reads /proc/self/fd/5
		exec 5<&-
	done
}

@test "wcx pack by root keeps owner, group, mode, ACL and times" {
	local source="$BATS_TEST_TMPDIR/source" packed="$BATS_TEST_TMPDIR/packed.wcx"

	needs_root
	cp "$ORIG/1" "$source"
	chown 65534:1234 "$source"
	chmod 600 "$source"
	touch -d "2024-02-29 12:34:56.789" "$source"
	"$WCX" pack -q "$source" "$packed"
	[ "$(stat -c "%u %g %a %y" "$packed")" = "$(stat -c "%u %g %a %y" "$source")" ]
	needs setfacl getfacl
	chmod 640 "$source"
	setfacl -m g::---,u:7:r "$source" 2>/dev/null || skip "no ACLs here"
	rm "$packed"
	"$WCX" pack -q "$source" "$packed"
	[ "$(getfacl -cn "$packed")" = "$(getfacl -cn "$source")" ]
	run ! setpriv --reuid=65533 --regid=1234 --clear-groups head -c 1 "$packed"
}

# --- changes ---

@test "a file rewritten with the same size and time shows its new bytes at the next open" {
	echo old >"$S/plain"
	cp "$PACKED/2.wcx" "$S/part.safetensors.wcx"
	start_mount "$S"
	for _ in 1 2; do # also from the page cache
		shows "$MNT/a.safetensors" "$ORIG/1"
		[ "$(cat "$MNT/plain")" = old ]
	done
	head -c 100000 "$MNT/part.safetensors" | cmp - <(head -c 100000 "$ORIG/2")
	echo new >"$BATS_TEST_TMPDIR/new"
	system_python rewrite "$PACKED/3.wcx" "$S/a.safetensors.wcx"
	system_python rewrite "$PACKED/3.wcx" "$S/part.safetensors.wcx"
	system_python rewrite "$BATS_TEST_TMPDIR/new" "$S/plain"
	shows "$MNT/a.safetensors" "$ORIG/3"
	shows "$MNT/part.safetensors" "$ORIG/3"
	[ "$(cat "$MNT/plain")" = new ]
}

@test "a file replaced by one of the same size and time shows its new bytes, and an open descriptor keeps the old ones" {
	local plain packed

	echo old >"$S/plain"
	echo new >"$BATS_TEST_TMPDIR/plain"
	cp "$PACKED/2.wcx" "$BATS_TEST_TMPDIR/packed"
	touch -r "$S/plain" "$BATS_TEST_TMPDIR/plain"
	touch -r "$S/a.safetensors.wcx" "$BATS_TEST_TMPDIR/packed"
	start_mount "$S"
	exec {plain}<"$MNT/plain" {packed}<"$MNT/a.safetensors"
	head -c 100000 <&"$packed" | cmp - <(head -c 100000 "$ORIG/1")
	mv "$BATS_TEST_TMPDIR/plain" "$S/plain"
	mv "$BATS_TEST_TMPDIR/packed" "$S/a.safetensors.wcx"
	[ "$(cat "$MNT/plain")" = new ]
	shows "$MNT/a.safetensors" "$ORIG/2"
	[ "$(cat <&"$plain")" = old ]
	cmp - <(tail -c +100001 "$ORIG/1") <&"$packed"
	exec {plain}<&- {packed}<&-
}

@test "stat and ls show a replaced, grown or deleted file that nobody opens within a second" {
	echo plain >"$S/plain"
	echo gone >"$S/gone"
	cp "$PACKED/2.wcx" "$S/gone.safetensors.wcx"
	start_mount "$S"
	ls -l "$MNT"
	cp "$PACKED/large.wcx" "$BATS_TEST_TMPDIR/new"
	touch -d 2030-01-01 "$BATS_TEST_TMPDIR/new"
	mv "$BATS_TEST_TMPDIR/new" "$S/a.safetensors.wcx"
	echo more >>"$S/plain"
	rm "$S/gone" "$S/gone.safetensors.wcx"
	sleep 1.1
	stat_is %s "$MNT/a.safetensors" "$(stat -c %s "$ORIG/large")"
	[ "$(find "$MNT" -newermt 2029-01-01 -name "*.safetensors")" = "$MNT/a.safetensors" ]
	stat_is %s "$MNT/plain" 11
	is_gone "$MNT/gone"
	is_gone "$MNT/gone.safetensors"
	[ "$(ls "$MNT")" = $'a.safetensors\nconfig.json\nplain' ]
}

@test "rsync through the mount sees that a model was replaced" {
	needs rsync
	start_mount "$S"
	rsync -a "$MNT/" "$BATS_TEST_TMPDIR/copy"
	cp "$PACKED/large.wcx" "$BATS_TEST_TMPDIR/new"
	mv "$BATS_TEST_TMPDIR/new" "$S/a.safetensors.wcx"
	sleep 1.1
	rsync -a "$MNT/" "$BATS_TEST_TMPDIR/copy"
	shows "$BATS_TEST_TMPDIR/copy/a.safetensors" "$ORIG/large"
}

@test "tail -f follows a plain file that grows" {
	echo 1 >"$S/log"
	start_mount "$S"
	system_python follow "$MNT/log" "$S/log" 2 3 4 5
}

@test "an open file that gets another name has its links and permissions, and what is added to it" {
	local plain packed

	echo 1 >"$S/log"
	start_mount "$S"
	exec {plain}<"$MNT/log" {packed}<"$MNT/a.safetensors"
	mv "$S/log" "$S/log.1"
	mv "$S/a.safetensors.wcx" "$S/b.safetensors.wcx"
	echo 2 >>"$S/log.1"
	chmod 640 "$S"/*
	has() { [ "$(stat -L -c "%h %a %s" "/dev/fd/$1")" = "$2" ]; }
	within 2 has "$plain" "1 440 4"
	within 2 has "$packed" "1 440 $(stat -c %s "$ORIG/1")"
	[ "$(cat <&"$plain")" = $'1\n2' ]
	cmp "$ORIG/1" - <&"$packed"
	rm "$S/log.1" "$S/b.safetensors.wcx"
	within 2 has "$plain" "0 440 4"
	within 2 has "$packed" "0 440 $(stat -c %s "$ORIG/1")"
	exec {plain}<&- {packed}<&-
}

@test "a file that is open is read whatever takes the place of its directory or of itself" {
	local there gone

	mkdir "$S/model"
	cp "$PACKED/2.wcx" "$S/model/first.wcx"
	echo other >"$S/model/other"
	start_mount "$S"
	exec {there}<"$MNT/model/first" {gone}<"$MNT/a.safetensors"
	mv "$S/model" "$S/model-1" # and has another name from now on, as when a version is switched
	ln -s model-1 "$S/model"
	echo other | cmp - "$MNT/model/other" # at once: it was not looked up before
	head -c 1000 "$PACKED/1.wcx" >"$S/damaged"
	mv "$S/damaged" "$S/a.safetensors.wcx"
	sleep 1.1 # until when the kernel may know what was there
	cmp "$ORIG/2" - <&"$there"
	cmp "$ORIG/1" - <&"$gone"
	shows "$MNT/model/first" "$ORIG/2"
	exec {there}<&- {gone}<&-
}

@test "a file on which a file server has a lease is read" {
	start_mount "$S"
	run system_python lease "$S/config.json" "$MNT/config.json"
	[[ "$output" != *"no leases here"* ]] || skip "the store's file system has no leases"
	[ "$status" -eq 0 ]
	system_python lease "$S/a.safetensors.wcx" "$MNT/a.safetensors"
	echo "{}" >"$S/linked.json"
	ln "$S/linked.json" "$S/other.json"
	system_python lease_looked_at "$S/linked.json" "$MNT/linked.json"
}

@test "a deleted packed file's disk space is free within seconds" {
	local before

	rm -r "$S"
	mkdir "$S"
	mount_below -t tmpfs -o size=32m none "$S"
	before=$(df --output=avail "$S" | tail -n 1)
	cp "$PACKED/large.wcx" "$S/a.safetensors.wcx"
	start_mount "$S"
	shows "$MNT/a.safetensors" "$ORIG/large"
	rm "$S/a.safetensors.wcx"
	space_is_back() { [ "$(df --output=avail "$S" | tail -n 1)" -ge "$((before - 100))" ]; }
	within 10 space_is_back
	stop_mount
}

@test "a descriptor of a replaced file can be opened again by /proc/self/fd" {
	echo old >"$S/plain"
	echo new >"$BATS_TEST_TMPDIR/new"
	cp "$S/plain" "$BATS_TEST_TMPDIR/old"
	cp "$BATS_TEST_TMPDIR/new" "$BATS_TEST_TMPDIR/new2"
	cp "$PACKED/2.wcx" "$BATS_TEST_TMPDIR/2.wcx"
	start_mount "$S"
	system_python reopen "$MNT/a.safetensors" "$BATS_TEST_TMPDIR/2.wcx" "$S/a.safetensors.wcx" "$ORIG/1" "$ORIG/2"
	system_python reopen "$MNT/plain" "$BATS_TEST_TMPDIR/new" "$S/plain" "$BATS_TEST_TMPDIR/old" "$BATS_TEST_TMPDIR/new2"
}

@test "a bind mount of one file can be read after the file is replaced in the store" {
	local model="$BATS_TEST_TMPDIR/model" plain="$BATS_TEST_TMPDIR/plain" i

	echo old >"$S/plain"
	touch "$model" "$plain"
	start_mount "$S"
	ABOVE=1
	mount_below --bind "$MNT/a.safetensors" "$model"
	mount_below --bind "$MNT/plain" "$plain"
	shows "$model" "$ORIG/1"
	[ "$(cat "$plain")" = old ]
	for i in 2 3 2; do
		cp "$PACKED/$i.wcx" "$BATS_TEST_TMPDIR/new"
		echo "$i" >"$BATS_TEST_TMPDIR/new_plain"
		mv "$BATS_TEST_TMPDIR/new" "$S/a.safetensors.wcx"
		mv "$BATS_TEST_TMPDIR/new_plain" "$S/plain"
		sleep 1.1
		[ "$(cat "$plain")" = "$i" ]
		shows "$model" "$ORIG/$i"
	done
}

@test "overlayfs above the mount shows a replaced file" {
	local over="$BATS_TEST_TMPDIR/over" version

	mkdir "$over"{,_upper,_work}
	start_mount "$S"
	ABOVE=1
	mount_below -t overlay -o "lowerdir=$MNT,upperdir=${over}_upper,workdir=${over}_work" none "$over"
	shows "$over/a.safetensors" "$ORIG/1"
	for version in 2 large 3; do # the second has another size
		cp "$PACKED/$version.wcx" "$BATS_TEST_TMPDIR/new"
		mv "$BATS_TEST_TMPDIR/new" "$S/a.safetensors.wcx"
		sleep 1.1
		shows "$over/a.safetensors" "$ORIG/$version"
	done
}

# Which gives it the time of birth of another directory, and keeps its number.
@test "an open directory of a store on overlayfs stays what it is when it is copied up" {
	local layers="$BATS_TEST_TMPDIR/layers"

	mkdir "$layers"
	mount_below -t tmpfs none "$layers"
	mkdir -p "$layers"/{lower/d,upper,work,store}
	echo "{}" >"$layers/lower/d/config.json"
	chmod 700 "$layers"/{lower,upper,lower/d} # where everybody passes, what has its name is followed
	mount_below -t overlay -o "lowerdir=$layers/lower,upperdir=$layers/upper,workdir=$layers/work" none "$layers/store"
	start_mount "$layers/store"
	run -0 "$PYTHON" - "$MNT/d" "$layers/store/d/config.json" <<-'END'
		import os, sys, time
		directory = os.open(sys.argv[1], os.O_RDONLY)
		os.utime(sys.argv[2])
		time.sleep(1.2)  # until the mount looks again
		print(*os.listdir(directory))
	END
	[ "$output" = config.json ]
}

# Each time with another size, while the kernel still knows the one before.
@test "bind mounts of single files give whole versions of files that are replaced many times a second" {
	local models=() plain=() version

	touch "$BATS_TEST_TMPDIR"/{model,plain}
	for version in 1 2 large; do
		head -c "$((40000 + 5000 * ${#plain[@]} + RANDOM % 5000))" "$ORIG/$version" >"$BATS_TEST_TMPDIR/plain_$version"
		plain+=("$BATS_TEST_TMPDIR/plain_$version" "$BATS_TEST_TMPDIR/plain_$version")
		models+=("$PACKED/$version.wcx" "$ORIG/$version")
	done
	cp "$BATS_TEST_TMPDIR/plain_1" "$S/plain"
	start_mount "$S"
	ABOVE=1
	mount_below --bind "$MNT/a.safetensors" "$BATS_TEST_TMPDIR/model"
	mount_below --bind "$MNT/plain" "$BATS_TEST_TMPDIR/plain"
	system_python replace_often 1 "$BATS_TEST_TMPDIR/plain $S/plain ${plain[*]}" "$MNT/plain $S/plain ${plain[*]}" \
		"$BATS_TEST_TMPDIR/model $S/a.safetensors.wcx ${models[*]}"
}

# WCX_STRESS_SECONDS=600 has it look for ten minutes.
@test "readers, cp -a, tar, rsync and find get right bytes while files are replaced, touched and deleted" {
	mkdir "$BATS_TEST_TMPDIR/scratch"
	start_mount "$S"
	system_python stress "$S" "$MNT" "$BATS_TEST_TMPDIR/scratch" "${WCX_STRESS_SECONDS:-8}" \
		"$ORIG/1" "$PACKED/1.wcx" "$ORIG/2" "$PACKED/2.wcx" "$ORIG/large" "$PACKED/large.wcx"
}

# --- names ---

@test "rewinddir shows what was added and removed" {
	start_mount "$S"
	system_python rewind "$MNT" "$S"
}

@test "every link that leads somewhere in the store leads there in the mount" {
	mkdir -p "$S/blobs" "$S/v1.wcx" "$S/sub/deep"
	mv "$S/a.safetensors.wcx" "$S/blobs/x.wcx"
	cp "$PACKED/2.wcx" "$S/v1.wcx/m.safetensors.wcx"
	ln -s blobs/x.wcx "$S/model.safetensors"
	ln -s blobs/x.wcx "$S/both.safetensors.wcx"
	ln -s "$S/blobs/x.wcx" "$S/absolute.safetensors"
	ln -s "$S/blobs/x.wcx" "$S/sub/deep/absolute.safetensors.wcx"
	ln -s "$S/config.json" "$S/sub/absolute.json"
	ln -s both.safetensors.wcx "$S/chain.safetensors.wcx"
	ln -s chain.safetensors.wcx "$S/chained"
	ln -s self.safetensors.wcx "$S/self.safetensors"
	cp "$S/blobs/x.wcx" "$S/self.safetensors.wcx"
	ln -s v1.wcx "$S/latest"
	ln -s v1.wcx "$S/latest.wcx"
	ln -s "$S/v1.wcx" "$S/sub/latest"
	ln -s ../blobs "$S/sub/dirlink"
	ln -s dirlink/x.wcx "$S/sub/by_dirlink.safetensors"
	ln -s dirlink/../v1.wcx/m.safetensors.wcx "$S/sub/up_from_dirlink.safetensors"
	ln -s nowhere "$S/dangling"
	ln -s nowhere.wcx "$S/dangling.wcx"
	ln -s /nowhere/x.wcx "$S/outside.safetensors"
	start_mount "$S"
	for link in model both absolute sub/deep/absolute chain self sub/by_dirlink; do
		echo "$link -> $(readlink "$MNT/$link.safetensors")"
		shows "$MNT/$link.safetensors" "$ORIG/1"
	done
	for link in latest/m latest.wcx/m sub/latest/m sub/up_from_dirlink; do
		echo "$link -> $(readlink "$MNT/${link%/m}")"
		shows "$MNT/$link.safetensors" "$ORIG/2"
	done
	shows "$MNT/chained" "$ORIG/1"
	shows "$MNT/sub/absolute.json" "$S/config.json"
	[ "$(find "$MNT" -name "*self*" | wc -l)" -eq 1 ]
	[ "$(readlink "$MNT/dangling" "$MNT/outside.safetensors")" = $'nowhere\n/nowhere/x.wcx' ]
	run ! cat "$MNT/dangling" "$MNT/outside.safetensors"
	[ "$(find "$MNT" -xtype l | wc -l)" -eq 2 ] # dangling, whose namesake it hides, and outside
}

@test "links within a file system that is mounted below the store lead where they lead there" {
	mkdir "$S/disk"
	mount_below -t tmpfs -o size=16m none "$S/disk"
	mkdir -p "$S/disk/blobs" "$S/disk/snap"
	cp "$PACKED/2.wcx" "$S/disk/blobs/x.wcx"
	ln -s ../blobs/x.wcx "$S/disk/snap/model.safetensors.wcx"
	ln -s ../blobs/x.wcx "$S/disk/snap/plain.safetensors"
	ln -s blobs "$S/disk/b"
	ln -s ../b/x.wcx "$S/disk/snap/by_dirlink.safetensors"
	ln -s disk/b/x.wcx "$S/from_above.safetensors"
	start_mount "$S"
	for link in disk/snap/model disk/snap/plain disk/snap/by_dirlink from_above; do
		echo "$link -> $(readlink "$MNT/$link.safetensors")"
		shows "$MNT/$link.safetensors" "$ORIG/2"
	done
}

@test "a store that contains its own mount answers" {
	needs_root
	mkdir "$S/sub"
	start_mount "$S"
	ABOVE=1
	mount_below --bind "$MNT" "$S/sub"
	run timeout -s KILL 20 find "$MNT" -name "*.safetensors"
	[ "$status" -lt 124 ]
	[[ "$output" == *"$MNT/a.safetensors"* ]]
	shows "$MNT/a.safetensors" "$ORIG/1"
}

# --- what one user can take from others ---

@test "a growing bad file that is polled logs few lines, and damage elsewhere is logged after that" {
	cp "$PACKED/2.wcx" "$S/damaged.safetensors.wcx"
	reader flip "$S/damaged.safetensors.wcx" 1
	start_logged_mount "$S"
	system_python poll_growing "$PACKED/large.wcx" "$S/b.wcx" "$MNT/b" 1200
	run ! cat "$MNT/damaged.safetensors"
	log_until "damaged.safetensors.wcx"
	echo "$(grep -c "b.wcx" "$LOG") lines"
	[ "$(grep -c "b.wcx" "$LOG")" -ge 1 ]
	[ "$(grep -c "b.wcx" "$LOG")" -le 30 ]
	fusermount3 -u "$MNT"
	wait "$DAEMON"
}

@test "300 opens of one file take one descriptor of the daemon" {
	start_mount "$S"
	system_python opens "$(daemons | head -n 1)" "$MNT/config.json" "$S/config.json" 300
	system_python opens "$(daemons | head -n 1)" "$MNT/a.safetensors" "$S/a.safetensors.wcx" 300
}

@test "the log tells that the daemon has too many files open, and readers are told that it is not they" {
	(cd "$S" && seq 80 | xargs touch)
	(ulimit -n 64 && start_mount "$S" -o log="$BATS_TEST_TMPDIR/messages")
	run -1 "$PYTHON" -c 'import sys; files = [open(f"{sys.argv[1]}/{i}") for i in range(1, 81)]' "$MNT"
	[[ "$output" == *"Too many open files in system"* ]]
	grep "Too many open files" "$BATS_TEST_TMPDIR/messages"
	within 60 shows "$MNT/a.safetensors" "$ORIG/1" # the daemon learns of closed files a little later
}

@test "50 readers of a directory of 20,000 entries take less than 30 MiB" {
	mkdir "$S/many"
	(cd "$S/many" && seq -f "%020.0f" 20000 | xargs touch)
	touch -d 2099-01-01 "$S/many" # as its owner can
	start_mount "$S"
	system_python opendirs "$(daemons | head -n 1)" "$MNT/many" 50 30
}

@test "in a memory cgroup of 256 MiB, four readers of 200 MiB get all bytes" {
	local group=/sys/fs/cgroup/memory/wcxfs_test_$$ i

	needs_root
	mkdir "$group" 2>/dev/null && echo $((256 << 20)) >"$group/memory.limit_in_bytes" || skip "no memory cgroup (v1) to use"
	"$PYTHON" "$FIXTURES/make_int8.py" "$BATS_TEST_TMPDIR/big" --mib 200 --only int8
	"$WCX" pack -q "$BATS_TEST_TMPDIR/big" "$S/big.safetensors.wcx"
	(
		echo "$BASHPID" >"$group/cgroup.procs"
		start_mount "$S"
		for i in 1 2 3 4; do
			cmp "$MNT/big.safetensors" "$BATS_TEST_TMPDIR/big" &
		done
		for i in 1 2 3 4; do
			wait -n
		done
	)
	grep -x "oom_kill 0" "$group/memory.oom_control"
	stop_mount
	echo "at most $(($(cat "$group/memory.max_usage_in_bytes") >> 20)) MiB"
	rmdir "$group"
}

# --- packing ---

# Its files have the permissions that the mount gives to all, and chmod succeeds without effect.
@test "pack onto exfat, which has no links and no permissions" {
	local image="$BATS_TEST_TMPDIR/image" disk="$BATS_TEST_TMPDIR/disk"

	needs mkfs.exfat mount.exfat-fuse losetup
	needs_root
	truncate -s 32M "$image"
	LOOP=$(losetup -f --show "$image") || skip "no loop device"
	mkfs.exfat "$LOOP" >/dev/null
	mkdir "$disk" "$BATS_TEST_TMPDIR/tree"
	mount.exfat-fuse "$LOOP" "$disk" >/dev/null 3>&- || skip "exfat cannot be mounted"
	MOUNTED+=("$disk")
	cp "$ORIG/1" "$BATS_TEST_TMPDIR/tree/model.safetensors"
	chmod 600 "$BATS_TEST_TMPDIR/tree/model.safetensors"
	run -0 "$WCX" pack "$BATS_TEST_TMPDIR/tree/model.safetensors" "$disk/a.safetensors.wcx"
	[[ "$output" == *"the permissions cannot be kept"* ]]
	"$WCX" unpack -q "$disk/a.safetensors.wcx" "$BATS_TEST_TMPDIR/back"
	cmp "$BATS_TEST_TMPDIR/back" "$ORIG/1"
	run -1 "$WCX" pack -q "$ORIG/1" "$disk/a.safetensors.wcx"
	[[ "$output" == *"exists"* ]]
	"$WCX" pack -q "$BATS_TEST_TMPDIR/tree" "$disk/tree"
	"$WCX" verify -q "$disk/tree"
	[ -z "$(find "$disk" -name '.wcx-*')" ]
}

@test "a killed pack leaves nothing, and what an older one left is not shown" {
	local big="$BATS_TEST_TMPDIR/big" before after

	"$PYTHON" "$FIXTURES/make_int8.py" "$big" --mib 64
	touch "$S/.wcx-tmp-abcdefghijklmnop"
	before=$(find "$S" | sort)
	"$WCX" pack -q "$big" "$S/big.safetensors.wcx" &
	until readlink "/proc/$!/fd/"* 2>/dev/null | grep -q "^$S/[#.]"; do # what it writes, which has no name, or a hidden one
		kill -0 $!
	done
	kill -KILL $!
	run ! wait $!
	after=$(find "$S" | sort)
	echo "$after"
	[ "$after" = "$before" ] || [ "$after" = "$(grep -v '/\.wcx-tmp-abcdefghijklmnop$' <<<"$before")" ]
	touch "$S/.wcx-tmp-abcdefghijklmnop"
	start_mount "$S"
	[ "$(ls -A "$MNT")" = $'a.safetensors\nconfig.json' ]
	is_gone "$MNT/.wcx-tmp-abcdefghijklmnop"
}
