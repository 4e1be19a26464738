#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2030,SC2031 # each test is a process, and sets variables for itself
#
# A store that is slow or does not answer: who waits, for how long, and who does not.

bats_require_minimum_version 1.5.0
load ../fixtures/suite
load mount_helper

setup_file() {
	mount_setup_file || return 0
	export ORIG="$BATS_FILE_TMPDIR/orig" STORE="$BATS_FILE_TMPDIR/store"

	mkdir "$ORIG" "$STORE"
	"$PYTHON" "$FIXTURES/make_int8.py" "$ORIG/slow" --mib 5
	"$PYTHON" "$FIXTURES/make_int8.py" "$ORIG/ordinary" --mib 3 --seed 2
	for name in slow ordinary; do
		"$WCX" pack -q "$ORIG/$name" "$STORE/$name.wcx"
	done
	echo '{"model_type": "test"}' >"$STORE/config.json"
	chmod a+x "$BATS_RUN_TMPDIR" "$BATS_FILE_TMPDIR"
}

# Mount a delayed store over a network of its own at $LOWER; what $GATE says is held.
setup() {
	suite_start
	[ "$(id -u)" -eq 0 ] || skip "only root can serve other users"
	[ -r /proc/self/stack ] || skip "the kernel does not show where a thread waits"
	mount_setup
	chmod a+rx "$BATS_TEST_TMPDIR" "${BATS_TEST_TMPDIR%/*}"
	LOWER="$BATS_TEST_TMPDIR/lower" GATE="$BATS_TEST_TMPDIR/gate"
	READERS=()
	mkdir "$LOWER"
	"$WCX_BUILD/tests/slow_store" "$STORE" "$LOWER" 1 "$GATE" 3>&-
}

teardown() {
	[ -z "$SUITE_LACKS" ] || return 0
	[ -z "${SLOW_FD:-}" ] || exec {SLOW_FD}<&-
	rm -f "$GATE"
	if [ "${#READERS[@]}" -gt 0 ]; then # until they are gone, the mount is busy
		kill -KILL "${READERS[@]}" 2>/dev/null || true
		wait "${READERS[@]}" || true
	fi
	mount_teardown
	! grep -qF " $LOWER " /proc/mounts || umount "$LOWER"
}

# Have a user read an open descriptor by 64 threads, of which three quarters wait for a reply when this returns.
start_held_readers() {
	setpriv --reuid "$1" --clear-groups "$PYTHON" "$BATS_TEST_DIRNAME/mount_reader.py" held "$2" 64 3>&- &
	READERS+=($!)
	reader wait_held $! 48
}

as_user() {
	timeout 60 setpriv --reuid "$1" --clear-groups "${@:2}"
}

gives_eio() {
	run ! timeout 60 "$@"
	[[ "$output" == *"Input/output error"* ]]
}

@test "64 reads of a file that is not answered leave threads for other files and other users" {
	start_mount "$LOWER" -o allow_other,prefetch=0
	exec {SLOW_FD}<"$MNT/slow" # its index is read before the store falls silent
	echo "read /slow" >"$GATE"
	start_held_readers 4321 "$SLOW_FD"
	as_user 4321 cmp "$ORIG/ordinary" "$MNT/ordinary"
	as_user 1234 cmp "$ORIG/ordinary" "$MNT/ordinary"
	as_user 1234 cmp "$STORE/config.json" "$MNT/config.json"
	kill -0 "${READERS[0]}"
	rm "$GATE"
	timeout 60 cmp "$ORIG/slow" "$MNT/slow"
}

@test "killed O_DIRECT readers are gone at once, even if the store never answers" {
	start_mount "$LOWER" -o allow_other,prefetch=0
	exec {SLOW_FD}<"$MNT/slow"
	echo "read /slow" >"$GATE"
	start_held_readers 4321 "$SLOW_FD"
	kill -KILL "${READERS[0]}"
	timeout 60 tail --pid "${READERS[0]}" -f /dev/null
	rm "$GATE"
	timeout 60 cmp "$ORIG/slow" "$MNT/slow"
}

@test "signals that a reader handles do not cut its reads of a slow store short" {
	umount "$LOWER"
	"$WCX_BUILD/tests/slow_store" "$STORE" "$LOWER" 300 "$GATE" 3>&-
	start_mount "$LOWER" -o prefetch=0
	timeout 60 "$PYTHON" "$BATS_TEST_DIRNAME/mount_reader.py" ticking "$ORIG/slow" "$MNT/slow"
}

@test "a mount does not warn of bases that a slow store did not let it get to" {
	local family="$BATS_TEST_TMPDIR/family" name delay_ms

	"$PYTHON" "$FIXTURES/weight_family.py" "$family" 0.001
	umount "$LOWER"
	for name in base tuned-1; do
		mkdir -p "$BATS_TEST_TMPDIR/relatives/$name"
		"$WCX" pack -q ${base:+"--base=$base"} "$family/$name/model.safetensors" "$BATS_TEST_TMPDIR/relatives/$name/m.wcx"
		base="$BATS_TEST_TMPDIR/relatives/base/m.wcx"
	done
	for delay_ms in 40 60 80 100 120; do # time runs out here and there
		"$WCX_BUILD/tests/slow_store" "$BATS_TEST_TMPDIR/relatives" "$LOWER" "$delay_ms" "$GATE" 3>&-
		start_logged_mount "$LOWER" -o prefetch=0
		run ! grep "for lack of a base" "$LOG"
		stop_mount
		umount "$LOWER"
	done
}

@test "a mount does not wait until a slow store has been searched for packed files" {
	local store="$BATS_TEST_TMPDIR/plain"

	umount "$LOWER"
	mkdir "$store"
	(cd "$store" && seq 40 | xargs mkdir)
	"$WCX_BUILD/tests/slow_store" "$store" "$LOWER" 50 "$GATE" 3>&-
	start_logged_mount "$LOWER"
	run ! grep "no packed file" "$LOG" # as it would say at the end of 4 seconds
}

@test "a store that does not answer gives EIO after store_timeout, and works again when it answers" {
	start_logged_mount "$LOWER" -o store_timeout=1
	exec {SLOW_FD}<"$MNT/slow"
	: >"$GATE"
	gives_eio cat "$MNT/slow"
	gives_eio cat "$MNT/ordinary"
	gives_eio dd if="/proc/self/fd/$SLOW_FD" iflag=direct bs=1M of=/dev/null
	log_until "the store has not answered for 1 seconds"
	rm "$GATE"
	reader wait_same "$ORIG/slow" "$MNT/slow"
	reader wait_same "$ORIG/ordinary" "$MNT/ordinary"
}

@test "files that the store does not let the daemon close keep nobody waiting" {
	local store="$BATS_TEST_TMPDIR/small"

	umount "$LOWER"
	mkdir "$store"
	cp "$STORE/ordinary.wcx" "$store"
	(cd "$store" && seq 100 139 | xargs touch) # more than the daemon has threads
	"$WCX_BUILD/tests/slow_store" "$store" "$LOWER" 1 "$GATE" 3>&-
	start_mount "$LOWER"
	echo "flush /1" >"$GATE"
	timeout 60 cat "$MNT"/1*
	timeout 60 cmp "$ORIG/ordinary" "$MNT/ordinary"
}

@test "SIGTERM ends the mount of a store that does not answer" {
	start_mount "$LOWER" -o store_timeout=1
	: >"$GATE"
	gives_eio ls "$MNT"
	kill -TERM "$(daemons | head -n 1)"
	reader wait_unmounted "$MNT"
	rm "$GATE" # its threads may not exit before
	check_gone
}

@test "SIGTERM ends the mount of a store that does not answer about files that nobody has open" {
	start_mount "$LOWER" -o store_timeout=1
	DAEMON="$(daemons | head -n 1)"
	cat "$MNT/slow" >/dev/null
	: >"$GATE"
	reader wait_held "$DAEMON" 1 # which looks whether they are still there
	kill -TERM "$DAEMON"
	reader wait_unmounted "$MNT"
	rm "$GATE"
	check_gone
}

@test "SIGTERM ends the mount of a store that does not let the daemon close files" {
	start_mount "$LOWER" -o store_timeout=1
	DAEMON="$(daemons | head -n 1)"
	echo "flush /config.json" >"$GATE"
	cat "$MNT/config.json"
	kill -TERM "$DAEMON"
	reader wait_unmounted "$MNT"
	reader wait_killed "$DAEMON"
	rm "$GATE" # its thread may not exit before
	check_gone
}

@test "a store_timeout that is no number of seconds is refused" {
	for value in 1s -1 x 86401; do
		run -2 "$WCXFS" "$STORE" "$MNT" -o "store_timeout=$value"
		[[ "$output" == *"store_timeout=$value: not a number of seconds"* ]]
	done
}
