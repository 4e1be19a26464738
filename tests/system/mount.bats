#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2030,SC2031 # each test is a process, and sets MNT for itself
#
# A mounted store shows the original files, however they are read.

bats_require_minimum_version 1.5.0
load ../fixtures/suite
load mount_helper

setup_file() {
	mount_setup_file || return 0
	export ORIG="$BATS_FILE_TMPDIR/orig" STORE="$BATS_FILE_TMPDIR/store"

	mkdir -p "$ORIG/deep/er" "$STORE/deep/er"
	"$PYTHON" "$FIXTURES/make_int8.py" "$ORIG/model.safetensors" --mib 24
	"$PYTHON" "$FIXTURES/make_int8.py" "$ORIG/deep/er/other.safetensors" --mib 5 --seed 2
	for name in model deep/er/other; do
		"$WCX" pack "$ORIG/$name.safetensors" "$STORE/$name.safetensors.wcx"
	done
	echo '{"model_type": "test"}' >"$STORE/config.json"
	head -c 300000 /dev/urandom >"$STORE/deep/tokenizer.model"
	echo hidden >"$STORE/.hidden"
	ln -s deep/er "$STORE/link_to_dir"
	ln -s ../config.json "$STORE/deep/link_to_file"
	ln -s nowhere "$STORE/dangling"
	cp "$STORE/config.json" "$STORE/.hidden" "$ORIG"
	cp "$STORE/deep/tokenizer.model" "$ORIG/deep"
}

setup() {
	suite_start
	mount_setup
}

teardown() {
	mount_teardown
}

same_sha256() {
	[ "$(sha256sum <"$1")" = "$(sha256sum <"$2")" ]
}

# A store of its own for a test: $OWN with model.safetensors.wcx, other.safetensors.wcx and config.json.
own_store() {
	OWN="$BATS_TEST_TMPDIR/own"
	mkdir "$OWN"
	cp "$STORE/model.safetensors.wcx" "$STORE/deep/er/other.safetensors.wcx" "$STORE/config.json" "$OWN"
}

# The undamaged files of an own store are served.
own_rest_is_served() {
	same_sha256 "$ORIG/deep/er/other.safetensors" "$MNT/other.safetensors"
	same_sha256 "$ORIG/config.json" "$MNT/config.json"
}

has_gpu() {
	[ -c /dev/nvidiactl ]
}

# --- what is shown ---

# bats test_tags=short
@test "every mounted file has the original's SHA-256" {
	start_mount "$STORE"
	for name in model.safetensors deep/er/other.safetensors deep/tokenizer.model config.json .hidden; do
		same_sha256 "$ORIG/$name" "$MNT/$name"
	done
}

@test "ls shows the originals' names and no .wcx" {
	start_mount "$STORE"
	run ls -A "$MNT"
	[ "$output" = $'.hidden\nconfig.json\ndangling\ndeep\nlink_to_dir\nmodel.safetensors' ]
	run ls -a "$MNT/deep/er"
	[ "$output" = $'.\n..\nother.safetensors' ]
	run ! stat "$MNT/model.safetensors.wcx"
	run ! stat "$MNT/deep/er/other.safetensors.wcx"
}

@test "stat shows the original's size, the packed file's blocks, owner and times, and no write permission" {
	own_store
	chmod 0750 "$OWN/model.safetensors.wcx"
	touch -d "2024-02-29 12:34:56.789" "$OWN/model.safetensors.wcx"
	start_mount "$OWN"
	[ "$(stat -c %s "$MNT/model.safetensors")" = "$(stat -c %s "$ORIG/model.safetensors")" ]
	[ "$(stat -c %b "$MNT/model.safetensors")" = "$(stat -c %b "$OWN/model.safetensors.wcx")" ]
	[ "$(stat -c %a "$MNT/model.safetensors")" = 550 ]
	[ "$(stat -c "%U %G %y %h" "$MNT/model.safetensors")" = "$(stat -c "%U %G %y %h" "$OWN/model.safetensors.wcx")" ]
	[ "$(stat -c "%s %y" "$MNT/config.json")" = "$(stat -c "%s %y" "$OWN/config.json")" ]
	[ "$(stat -c %a "$MNT/config.json")" = 444 ]
}

@test "symlinks pass through unchanged" {
	start_mount "$STORE"
	[ "$(readlink "$MNT/link_to_dir")" = deep/er ]
	[ "$(readlink "$MNT/dangling")" = nowhere ]
	same_sha256 "$ORIG/deep/er/other.safetensors" "$MNT/link_to_dir/other.safetensors"
	same_sha256 "$ORIG/config.json" "$MNT/deep/link_to_file"
	run ! cat "$MNT/dangling"
}

@test "a Hugging Face cache works through its links" {
	local hub="$BATS_TEST_TMPDIR/hub/models--o--n"

	mkdir -p "$hub/blobs" "$hub/snapshots/1234" "$hub/refs"
	echo -n 1234 >"$hub/refs/main"
	cp "$STORE/model.safetensors.wcx" "$hub/blobs/abc.wcx"
	cp "$STORE/config.json" "$hub/blobs/def"
	ln -s ../../blobs/abc.wcx "$hub/snapshots/1234/model.safetensors.wcx"
	ln -s ../../blobs/def "$hub/snapshots/1234/config.json"
	start_mount "$BATS_TEST_TMPDIR/hub"
	cd "$MNT/models--o--n"
	[ "$(cat refs/main)" = 1234 ]
	[ "$(ls -A blobs snapshots/1234)" = $'blobs:\nabc\ndef\n\nsnapshots/1234:\nconfig.json\nmodel.safetensors' ]
	[ "$(readlink snapshots/1234/model.safetensors)" = ../../blobs/abc ]
	[ "$(stat -c %s snapshots/1234/model.safetensors)" -eq 15 ]
	[ "$(stat -L -c %s snapshots/1234/model.safetensors)" = "$(stat -c %s "$ORIG/model.safetensors")" ]
	same_sha256 "$ORIG/model.safetensors" snapshots/1234/model.safetensors
	same_sha256 "$ORIG/config.json" snapshots/1234/config.json
}

@test "links and names that only look packed keep their names" {
	own_store
	mkdir "$OWN/dir.wcx"
	echo inside >"$OWN/dir.wcx/file"
	ln -s /absolute/target.wcx "$OWN/absolute.wcx"
	ln -s target "$OWN/other_target.wcx"
	ln -s ../..wcx "$OWN/dots.wcx"
	echo 1 >"$OWN/.wcx"
	echo 2 >"$OWN/..wcx"
	echo 3 >"$OWN/...wcx"
	start_mount "$OWN"
	run ls -A "$MNT"
	[ "${output//$'\n'/ }" = "...wcx ..wcx .wcx absolute.wcx config.json dir.wcx dots.wcx model.safetensors\
 other.safetensors other_target.wcx" ]
	[ "$(cat "$MNT/dir.wcx/file" "$MNT/.wcx" "$MNT/..wcx" "$MNT/...wcx")" = $'inside\n1\n2\n3' ]
	[ "$(readlink "$MNT/absolute.wcx")" = /absolute/target.wcx ]
	[ "$(readlink "$MNT/other_target.wcx")" = target ]
	[ "$(readlink "$MNT/dots.wcx")" = ../..wcx ]
}

@test "a plain file hides the packed file of its name, and is shown once" {
	own_store
	echo plain >"$OWN/model.safetensors"
	start_mount "$OWN"
	[ "$(ls "$MNT")" = $'config.json\nmodel.safetensors\nother.safetensors' ]
	[ "$(cat "$MNT/model.safetensors")" = plain ]
}

@test "FIFOs, sockets and devices are shown and never block the mount" {
	own_store
	mkfifo "$OWN/fifo" "$OWN/fifo.wcx"
	"$PYTHON" -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$OWN/socket"
	start_mount "$OWN"
	[ "$(stat -c %F "$MNT/fifo" "$MNT/fifo.wcx" "$MNT/socket")" = $'fifo\nfifo\nsocket' ]
	run ! cat "$MNT/socket"
	own_rest_is_served
}

@test "a directory replaced by a link out of the store is not followed" {
	local upper="$BATS_TEST_TMPDIR/upper"

	mkdir -p "$upper/store/dir" "$upper/outside"
	echo inside >"$upper/store/dir/file"
	echo secret >"$upper/outside/file"
	start_mount "$upper/store"
	[ "$(stat -c %F "$MNT/dir/file")" = "regular file" ]
	mv "$upper/store/dir" "$upper/store/was_dir"
	ln -s ../outside "$upper/store/dir"
	run ! cat "$MNT/dir/file"
	[[ "$output" != *secret* ]]
}

@test "a directory of 20,000 files is listed and looked up with 1,024 descriptors" {
	local many="$BATS_TEST_TMPDIR/many"

	mkdir "$many"
	"$PYTHON" - "$many" "$STORE/deep/er/other.safetensors.wcx" <<-'END'
		import os, sys

		for i in range(20_000):
		    os.link(sys.argv[2], f"{sys.argv[1]}/{i:05}.safetensors.wcx")
	END
	(ulimit -n 1024 && start_mount "$many")
	# shellcheck disable=SC2012 # ls is what is tested
	[ "$(ls "$MNT" | wc -l)" -eq 20000 ]
	bytes=$(stat -c %s "$ORIG/deep/er/other.safetensors")
	[ "$(find "$MNT" -name "*.safetensors" -size "${bytes}c" | wc -l)" -eq 20000 ]
	same_sha256 "$ORIG/deep/er/other.safetensors" "$MNT/07777.safetensors"
	rm -r "$many"
}

@test "a store can be mounted over itself" {
	own_store
	rmdir "$MNT"
	MNT="$OWN"
	start_mount "$OWN"
	[ "$(ls "$OWN")" = $'config.json\nmodel.safetensors\nother.safetensors' ]
	same_sha256 "$ORIG/model.safetensors" "$OWN/model.safetensors"
	stop_mount
	[ -e "$OWN/model.safetensors.wcx" ]
}

@test "statfs reports the store's file system" {
	start_mount "$STORE"
	[ "$(stat -f -c %b "$MNT")" = "$(stat -f -c %b "$STORE")" ]
}

# --- how it is read ---

# bats test_tags=short
@test "preads of any size at any place give the original's bytes" {
	start_mount "$STORE"
	reader pread "$ORIG/model.safetensors" "$MNT/model.safetensors" 1
	reader pread "$ORIG/deep/tokenizer.model" "$MNT/deep/tokenizer.model" 2
}

# So that several threads copy at the same time.
@test "a large O_DIRECT read arrives in parts of 512 KiB" {
	local before

	start_logged_mount "$STORE"
	dd if="$MNT/model.safetensors" iflag=direct bs=8M count=1 of=/dev/null status=none
	before=$(request_count)
	dd if="$MNT/model.safetensors" iflag=direct bs=1M count=1 of=/dev/null status=none
	[ "$(request_count)" -eq $((before + 2)) ]
	[ "$before" -eq 16 ]
}

@test "O_DIRECT reads give the original's bytes" {
	start_mount "$STORE"
	reader direct "$ORIG/model.safetensors" "$MNT/model.safetensors" 3
	dd if="$MNT/model.safetensors" iflag=direct bs=1M status=none | cmp - "$ORIG/model.safetensors"
}

@test "private and shared mappings hold the original's bytes" {
	start_mount "$STORE"
	reader mmap "$ORIG/model.safetensors" "$MNT/model.safetensors"
}

@test "sendfile and cp copy the original's bytes" {
	start_mount "$STORE"
	reader sendfile "$ORIG/model.safetensors" "$MNT/model.safetensors"
	cp "$MNT/model.safetensors" "$BATS_TEST_TMPDIR/copy"
	cmp "$BATS_TEST_TMPDIR/copy" "$ORIG/model.safetensors"
}

# bats test_tags=short
@test "many processes and threads with a tiny cache each read the original's bytes" {
	start_mount "$STORE" -o cache_size=256K
	reader many "$ORIG/model.safetensors" "$MNT/model.safetensors" 6
}

@test "a cache of 0 bytes reads the original's bytes" {
	start_mount "$STORE" -o cache_size=0
	same_sha256 "$ORIG/deep/er/other.safetensors" "$MNT/deep/er/other.safetensors"
	reader at_once "$ORIG/deep/er/other.safetensors" "$MNT/deep/er/other.safetensors" 4
}

@test "the safetensors package loads the original's tensors" {
	start_mount "$STORE"
	reader safetensors "$ORIG/model.safetensors" "$MNT/model.safetensors"
	reader safetensors "$ORIG/deep/er/other.safetensors" "$MNT/deep/er/other.safetensors"
}

@test "sixteen readers of a cold file decode each tile once" {
	local alone

	start_logged_mount "$STORE" -o cache_size=256M
	reader at_once "$ORIG/model.safetensors" "$MNT/model.safetensors" 1
	alone=$(counter misses)
	[ "$alone" -gt 100 ]
	stop_mount
	start_logged_mount "$STORE" -o cache_size=256M
	reader at_once "$ORIG/model.safetensors" "$MNT/model.safetensors" 16
	[ "$(counter misses)" -eq "$alone" ]
}

@test "cached pages survive a reopen: reading a file again makes no requests" {
	local before

	start_logged_mount "$STORE" -o cache_size=0
	cat "$MNT/model.safetensors" >/dev/null
	cat "$MNT/model.safetensors" >/dev/null # waits for the read-ahead that the first one started
	[ "$(counter misses)" -gt 100 ]
	before=$(request_count)
	same_sha256 "$ORIG/model.safetensors" "$MNT/model.safetensors"
	[ "$(request_count)" -eq "$before" ]
}

@test "the cache keeps to its budget" {
	start_logged_mount "$STORE" -o cache_size=1M
	cat "$MNT/model.safetensors" >/dev/null
	[ "$(counter "bytes cached")" -le 1048576 ]
}

@test "writing in any way is refused with EROFS" {
	start_mount "$STORE"
	for command in "touch $MNT/new" "rm -f $MNT/config.json" "mkdir $MNT/dir" "chmod 600 $MNT/config.json" \
		"truncate -s 0 $MNT/model.safetensors" "ln -s a $MNT/link" "mv $MNT/config.json $MNT/c" \
		"dd if=/dev/zero of=$MNT/model.safetensors count=1 conv=notrunc"; do
		# shellcheck disable=SC2086 # several words
		run ! $command
		[[ "$output" == *"Read-only file system"* ]]
	done
	same_sha256 "$ORIG/model.safetensors" "$MNT/model.safetensors"
}

# --- files that change ---

@test "a replaced packed file is seen at the next open, and an open descriptor keeps the old bytes" {
	local fd

	own_store
	start_mount "$OWN"
	[ "$(stat -c %s "$MNT/model.safetensors")" = "$(stat -c %s "$ORIG/model.safetensors")" ]
	exec {fd}<"$MNT/model.safetensors"
	mv "$OWN/other.safetensors.wcx" "$OWN/model.safetensors.wcx"
	same_sha256 "$ORIG/deep/er/other.safetensors" "$MNT/model.safetensors"
	[ "$(stat -c %s "$MNT/model.safetensors")" = "$(stat -c %s "$ORIG/deep/er/other.safetensors")" ]
	[ "$(sha256sum <&"$fd")" = "$(sha256sum <"$ORIG/model.safetensors")" ]
	exec {fd}<&-
}

@test "a plain file that grew is seen at the next open" {
	own_store
	start_mount "$OWN"
	cat "$MNT/config.json"
	echo more >>"$OWN/config.json"
	cmp "$OWN/config.json" "$MNT/config.json"
}

@test "a packed file replaced by a plain file of the same name is seen at the next open" {
	own_store
	start_mount "$OWN"
	same_sha256 "$ORIG/deep/er/other.safetensors" "$MNT/other.safetensors"
	mv "$OWN/other.safetensors.wcx" "$OWN/other.safetensors"
	cmp "$OWN/other.safetensors" "$MNT/other.safetensors"
}

@test "a plain file added beside its packed file is seen at the next open" {
	own_store
	start_mount "$OWN"
	same_sha256 "$ORIG/deep/er/other.safetensors" "$MNT/other.safetensors"
	echo plain >"$OWN/other.safetensors"
	[ "$(cat "$MNT/other.safetensors")" = plain ]
}

@test "a link with a new target is followed there after a second" {
	own_store
	ln -s model.safetensors "$OWN/current"
	start_mount "$OWN"
	[ "$(readlink "$MNT/current")" = model.safetensors ]
	ln -sfn config.json "$OWN/current"
	reader wait_link "$MNT/current" config.json
	same_sha256 "$ORIG/config.json" "$MNT/current"
}

@test "added and removed files are seen" {
	own_store
	start_mount "$OWN"
	cp "$STORE/model.safetensors.wcx" "$OWN/new.safetensors.wcx"
	same_sha256 "$ORIG/model.safetensors" "$MNT/new.safetensors"
	rm "$OWN/model.safetensors.wcx"
	run ! cat "$MNT/model.safetensors"
	[[ "$output" == *"No such file"* ]]
	[ "$(ls "$MNT")" = $'config.json\nnew.safetensors\nother.safetensors' ]
}

# --- damaged files ---

@test "packed files with a bad magic, cut short or empty are listed, give EIO, and are logged once" {
	own_store
	for name in magic cut empty; do
		cp "$OWN/other.safetensors.wcx" "$OWN/$name.wcx"
	done
	reader flip "$OWN/magic.wcx" 1
	truncate -s -1 "$OWN/cut.wcx"
	truncate -s 0 "$OWN/empty.wcx"
	start_logged_mount "$OWN"
	[ "$(ls "$MNT")" = $'config.json\ncut\nempty\nmagic\nmodel.safetensors\nother.safetensors' ]
	for name in magic cut empty magic cut empty; do
		run ! stat "$MNT/$name"
		[[ "$output" == *"Input/output error"* ]]
		run ! cat "$MNT/$name"
		[[ "$output" == *"Input/output error"* ]]
	done
	own_rest_is_served
	counter misses
	for name in magic cut empty; do
		[ "$(grep -c "$name.wcx" "$LOG")" -eq 1 ]
	done
}

@test "a packed file with a damaged index gives EIO at open, and is logged once" {
	own_store
	reader flip "$OWN/model.safetensors.wcx" "$(($(stat -c %s "$OWN/model.safetensors.wcx") - 100))"
	start_logged_mount "$OWN"
	[ "$(stat -c %s "$MNT/model.safetensors")" = "$(stat -c %s "$ORIG/model.safetensors")" ]
	for _ in 1 2 3; do
		run ! cat "$MNT/model.safetensors"
		[[ "$output" == *"Input/output error"* ]]
	done
	own_rest_is_served
	counter misses
	[ "$(grep -c "model.safetensors.wcx" "$LOG")" -eq 1 ]
}

# bats test_tags=short
@test "a damaged tile gives EIO for its own bytes only, and is logged once" {
	local start count place

	own_store
	read -r start count place < <(reader tile "$OWN/model.safetensors.wcx")
	reader flip "$OWN/model.safetensors.wcx" "$((place + 20))"
	start_logged_mount "$OWN"
	reader damaged "$ORIG/model.safetensors" "$MNT/model.safetensors" "$start" "$count"
	own_rest_is_served
	counter misses
	[ "$(grep -c "model.safetensors.wcx" "$LOG")" -eq 1 ]
	grep -q "offset $start of the original" "$LOG"
}

# --- starting and stopping ---

@test "fusermount3 -u unmounts and ends the daemon" {
	start_mount "$STORE"
	[ -n "$(daemons)" ]
	stop_mount
}

@test "SIGTERM, SIGINT and SIGHUP unmount and end the daemon" {
	for signal in TERM INT HUP; do
		env --default-signal="$signal" "$WCXFS" "$STORE" "$MNT" # what runs in the background may ignore it
		kill -"$signal" "$(daemons)"
		check_gone
	done
}

# The kernel gives the next mount the number of the one that has just ended.
@test "a daemon that ends late leaves alone what was mounted at its place meanwhile" {
	local first

	start_mount "$STORE"
	first="$(daemons)"
	kill -STOP "$first"
	umount --lazy "$MNT"
	start_mount "$STORE"
	kill -CONT "$first"
	reader wait_exit "$first"
	timeout 20 cmp "$STORE/config.json" "$MNT/config.json"
	first="$(daemons)"
	mount -t tmpfs none "$MNT"
	kill -TERM "$first"
	reader wait_exit "$first"
	touch "$MNT/file"
	umount "$MNT"
	run ! touch "$MNT/file"
	umount "$MNT" # what is mounted below another cannot be reached
}

@test "a daemon in the foreground exits with status 0 after a signal" {
	start_logged_mount "$STORE"
	kill -TERM "$DAEMON"
	wait "$DAEMON"
}

@test "SIGTERM unmounts and ends the daemon while readers have files open" {
	local fd

	start_mount "$STORE"
	exec {fd}<"$MNT/model.safetensors"
	head -c 100000 <&"$fd" >/dev/null
	kill -TERM "$(daemons)"
	check_gone
	run ! cat <&"$fd"
	exec {fd}<&-
}

# The kernel locks a page until its request is answered, and pushing to it waits; slow requests make that frequent.
@test "a daemon killed while it pushes pages leaves no reader blocked, and no guard" {
	local guard

	[ -r /proc/self/stack ] && [ "$(id -u)" -eq 0 ] || skip "only root can read where a thread is blocked"
	for signal in KILL SEGV; do
		LD_PRELOAD="${WCX%/*}/tests/libslow_requests.so" start_logged_mount "$STORE" -o decoder=cpu
		guard=$(pgrep -P "$DAEMON")
		reader kill_pusher "$DAEMON" "$MNT/model.safetensors" "$signal"
		run ! cat "$MNT/model.safetensors"
		reader wait_exit "$guard"
		! is_mounted || fusermount3 -u "$MNT"
	done
}

@test "a guard watches the daemon and exits with it" {
	local guard

	start_logged_mount "$STORE"
	guard=$(pgrep -P "$DAEMON")
	ls "$MNT" >/dev/null
	has_own_name() { [ "$(tr '\0' ' ' <"/proc/$guard/cmdline")" = "wcxfs-guard " ]; }
	within 60 has_own_name # not the daemon's, as when it was forked
	fusermount3 -u "$MNT"
	wait "$DAEMON"
	[ ! -e "/proc/$guard" ]
}

@test "a guard that comes late leaves the mount of the next daemon alone" {
	local guard

	[ "$(id -u)" -eq 0 ] && grep -q . /proc/self/stack || skip "only root can read where a process waits"
	[ "$(printf '6.8\n%s\n' "$(uname -r)" | sort -V | head -n 1)" = 6.8 ] || skip "the kernel reuses the ids of mounts"
	start_logged_mount "$STORE"
	guard=$(pgrep -P "$DAEMON")
	within 60 grep -q sigtimedwait "/proc/$guard/stack"
	kill -STOP "$guard"
	kill -KILL "$DAEMON"
	run ! wait "$DAEMON"
	umount "$MNT"
	start_logged_mount "$STORE" # with the device number of the last one
	kill -CONT "$guard"
	reader wait_exit "$guard"
	same_sha256 "$ORIG/model.safetensors" "$MNT/model.safetensors"
}

@test "the daemon keeps no descriptor of its caller" {
	local fd

	exec {fd}>"$BATS_TEST_TMPDIR/lock"
	flock -n "$fd"
	start_mount "$STORE"
	exec {fd}>&-
	flock -w 60 "$BATS_TEST_TMPDIR/lock" true # the guard may still be starting
}

@test "a caller with closed standard streams gets a working mount" {
	"$WCXFS" "$STORE" "$MNT" -o decoder=cpu <&- >&- 2>&-
	same_sha256 "$ORIG/model.safetensors" "$MNT/model.safetensors"
}

@test "the log names the decoder, which WCX_CPU selects" {
	run ! env WCX_CPU=other "$WCXFS" "$STORE" "$MNT" -f -o decoder=cpu
	[[ "$output" == *"WCX_CPU=other: this CPU has no such variant"* ]]
	WCX_CPU=portable start_logged_mount "$STORE" -o decoder=cpu
	grep -q "decoding with cpu (portable)" "$LOG"
	same_sha256 "$ORIG/model.safetensors" "$MNT/model.safetensors"
}

@test "wcx warm reads files and trees; readers then make no requests" {
	local before

	start_logged_mount "$STORE" -o cache_size=0
	"$WCX" warm -q "$MNT"
	cat "$MNT/model.safetensors" >/dev/null # waits for the read-ahead that wcx warm started
	[ "$(counter misses)" -gt 100 ]
	before=$(request_count)
	same_sha256 "$ORIG/model.safetensors" "$MNT/model.safetensors"
	[ "$(request_count)" -eq "$before" ]
	run -1 "$WCX" warm "$MNT/no such file"
	[[ "$output" == *"no such file: No such file or directory"* ]]
}

@test "warm=PATH reads a part of the store into the page cache, and the log says so" {
	local before

	start_logged_mount "$STORE" -o cache_size=0,warm=deep
	log_until "$MNT/deep: in the page cache"
	before=$(request_count)
	[ "$before" -gt 0 ]
	same_sha256 "$ORIG/deep/er/other.safetensors" "$MNT/deep/er/other.safetensors"
	[ "$(request_count)" -eq "$before" ]
	same_sha256 "$ORIG/model.safetensors" "$MNT/model.safetensors"
	[ "$(request_count)" -gt "$before" ]
	[ "$(pgrep -P "$DAEMON" | wc -l)" -eq 1 ] # the guard
}

@test "warm=PATH with a path that is missing from the store, or outside it, is an error" {
	for path in nothing ../store deep/../.. "$STORE/deep"; do
		run -1 "$WCXFS" "$STORE" "$MNT" -o "warm=$path"
		[[ "$output" == *"warm=$path: not in the store $STORE, to which the path is relative"* ]]
	done
	run ! is_mounted
}

@test "SIGTERM ends a mount that is being warmed, and the warming, at once" {
	local children pid

	# Slow requests: the warming must not be over before it is looked for.
	LD_PRELOAD="${WCX%/*}/tests/libslow_requests.so" start_logged_mount "$STORE" -o warm=.
	children=$(pgrep -P "$DAEMON")
	[ "$(wc -l <<<"$children")" -eq 2 ] # the guard and the warming, which may both be called like the daemon
	kill -TERM "$DAEMON"
	wait "$DAEMON"
	run ! is_mounted
	for pid in $children; do
		reader wait_exit "$pid"
	done
}

# bats test_tags=short
@test "sequential reads of all kinds give the original's bytes with any window" {
	local options pushed

	for options in prefetch=0 prefetch=1M prefetch=64M,drop_packed prefetch=64M,cache_size=64M,readahead=128K; do
		start_logged_mount "$STORE" -o "$options"
		reader streams "$ORIG/model.safetensors" "$MNT/model.safetensors"
		request_count
		pushed=$(tail -n 1 "$LOG" | sed -E 's/.* ([0-9]+) bytes pushed.*/\1/')
		if [ "$options" = prefetch=0 ]; then [ "$pushed" -eq 0 ]; else [ "$pushed" -gt 0 ]; fi
		fusermount3 -u "$MNT"
		wait "$DAEMON"
	done
}

@test "with WCX_PAGES=ask the kernel asks for pages ahead of readers, and the mount is not busy" {
	local fd

	[ "$(id -u)" -eq 0 ] || skip "a copy of a mount needs root"
	WCX_PAGES=ask start_logged_mount "$STORE"
	exec {fd}<"$MNT/model.safetensors"
	head -c 16M <&"$fd" | cmp -n 16777216 - "$ORIG/model.safetensors"
	has_one() { [ "$(find "/proc/$DAEMON/fd" -lname "*model.safetensors" | wc -l)" -eq 1 ]; }
	within 60 has_one # the daemon's own
	exec {fd}<&-
	reader streams "$ORIG/model.safetensors" "$MNT/model.safetensors"
	fusermount3 -u "$MNT" # although the daemon may learn of the last close later
	wait "$DAEMON"
}

# A request for more pages than the kernel's read-ahead is cut off.
@test "with WCX_PAGES=ask a read-ahead that cannot be set is not asked for" {
	[ "$(id -u)" -eq 0 ] || skip "a copy of a mount needs root"
	unshare --mount mount -o remount,bind,ro /sys || skip "/sys cannot be made read-only here"
	# shellcheck disable=SC2016 # the inner shell's
	WCX_PAGES=ask unshare --mount --propagation private bash -euc '
		mount -o remount,bind,ro /sys
		"$WCXFS" "$STORE" "$1" -o readahead=1M
		trap "fusermount3 -u \"\$1\"" EXIT
		"${@:2}"' bash "$MNT" "$PYTHON" "$BATS_TEST_DIRNAME/mount_reader.py" ahead \
		"$MNT/model.safetensors" $((8 << 20)) $((900 << 10))
}

@test "readahead=BYTES sets the kernel's read-ahead" {
	local number

	start_mount "$STORE" -o readahead=512K
	ls "$MNT" >/dev/null
	number=$(awk -v path="$MNT" '$5 == path { print $3 }' /proc/self/mountinfo | tail -n 1)
	[ -w "/sys/class/bdi/$number/read_ahead_kb" ] || skip "the kernel's read-ahead cannot be changed here"
	[ "$(cat "/sys/class/bdi/$number/read_ahead_kb")" -eq 512 ]
}

@test "SIGTERM ends a daemon that is decoding ahead of a reader" {
	start_logged_mount "$STORE"
	cat "$MNT/model.safetensors" >/dev/null &
	kill -TERM "$DAEMON"
	wait "$DAEMON"
	run ! is_mounted
}

@test "invalid sizes of windows are reported with status 2" {
	for option in prefetch=lots readahead=-1; do
		run -2 "$WCXFS" "$STORE" "$MNT" -o "$option"
		[[ "$output" == *"$option: not a number of bytes"* ]]
	done
}

@test "a relative mount point works, and the daemon's working directory is /" {
	cd "$BATS_TEST_TMPDIR"
	"$WCXFS" "$STORE" mnt
	pid=$(pgrep -o -f "wcxfs $STORE mnt") # not the guard, which is called so at first
	[ "$(readlink "/proc/$pid/cwd")" = / ]
	same_sha256 "$ORIG/config.json" "$MNT/config.json"
	fusermount3 -u mnt
	reader wait_exit "$pid"
}

@test "the command itself reports missing directories, and fails" {
	run -1 "$WCXFS" "$BATS_TEST_TMPDIR/no_store" "$MNT"
	[[ "$output" == *"no_store: No such file or directory"* ]]
	run -1 "$WCXFS" "$STORE/config.json" "$MNT"
	[[ "$output" == *"config.json: Not a directory"* ]]
	run -1 "$WCXFS" "$STORE" "$BATS_TEST_TMPDIR/no_mount_point"
	[[ "$output" == *"no_mount_point: No such file or directory"* ]]
	run -1 "$WCXFS" "$STORE" "$STORE/config.json"
	[[ "$output" == *"config.json: Not a directory"* ]]
}

@test "a mount point in use or inside the store is refused" {
	start_mount "$STORE"
	run -1 "$WCXFS" "$STORE" "$MNT"
	[[ "$output" == *"already mounted there"* ]]
	run -1 "$WCXFS" "$STORE" "$STORE/deep"
	[[ "$output" == *"inside the store"* ]]
}

@test "wrong usage is reported with status 2" {
	run -2 "$WCXFS"
	run -2 "$WCXFS" "$STORE"
	run -2 "$WCXFS" "$STORE" "$MNT" third
	run -2 "$WCXFS" "$STORE" "$MNT" --no-such-option
	run -2 "$WCXFS" "$STORE" "$MNT" -o decoder=tpu
	[[ "$output" == *"decoder=tpu"*"auto, cpu, cuda or cuda:N"* ]]
	run -2 "$WCXFS" "$STORE" "$MNT" -o decoder=cuda:one
	[[ "$output" == *"decoder=cuda:one"* ]]
	run -2 "$WCXFS" "$STORE" "$MNT" -o ro,cachesize=1G
	[[ "$output" == *"unknown option cachesize=1G; did you mean \`cache_size'?"* ]]
	for size in lots 12Q 1KK "" -1 99999999999T; do
		run -2 "$WCXFS" "$STORE" "$MNT" -o "cache_size=$size"
		[[ "$output" == *"cache_size=$size"* ]]
	done
}

@test "an option that libfuse does not know is an error" {
	run ! "$WCXFS" "$STORE" "$MNT" -o no_such_option
	[[ "$output" == *"no_such_option"* ]]
}

@test "decoder=cuda without a GPU is reported by the command itself" {
	! has_gpu || skip "there is a GPU"
	run -1 "$WCXFS" "$STORE" "$MNT" -o decoder=cuda
	[ -n "$output" ]
	run ! is_mounted
}

@test "decoder=auto without a GPU says once that it uses the CPU, and works" {
	! has_gpu || skip "there is a GPU"
	run -0 "$WCXFS" "$STORE" "$MNT" -o decoder=auto
	[ "$(grep -ci "cpu" <<<"$output")" -eq 1 ]
	same_sha256 "$ORIG/model.safetensors" "$MNT/model.safetensors"
}

@test "help and version go to stdout with status 0" {
	run -0 --separate-stderr "$WCXFS" --help
	[[ "$output" == *"usage: wcxfs"*"cache_size="*"decoder="*"Examples:"* ]]
	run -0 --separate-stderr "$WCXFS" -h
	run -0 --separate-stderr "$WCXFS" --version
	[[ "$output" == wcxfs* ]]
}
