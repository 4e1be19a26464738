#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2030,SC2031 # each test is a process, and sets MNT for itself
#
# The daemon as a service: starting where it must not, dying, serving as PID 1, and what lies below and above a mount.

bats_require_minimum_version 1.5.0
load ../fixtures/suite
load mount_helper

setup_file() {
	mount_setup_file || return 0
	export ORIG="$BATS_FILE_TMPDIR/orig" STORE="$BATS_FILE_TMPDIR/store"

	mkdir -p "$ORIG" "$STORE/sub"
	"$PYTHON" "$FIXTURES/make_int8.py" "$ORIG/model.safetensors" --mib 96 --only int8
	"$WCX" pack "$ORIG/model.safetensors" "$STORE/model.safetensors.wcx"
	head -c 3000000 /dev/urandom >"$STORE/plain"
	echo '{"model_type": "test"}' >"$STORE/config.json"
}

setup() {
	suite_start
	[ "$(id -u)" -eq 0 ] || skip "only root can make mounts"
	mount_setup
	LOWER="$BATS_TEST_TMPDIR/lower"
}

teardown() {
	[ -z "$SUITE_LACKS" ] || return 0
	! grep -qF " $STORE/sub " /proc/mounts || umount -l "$STORE/sub"
	mount_teardown
	! grep -qF " $LOWER " /proc/mounts || umount -l "$LOWER"
}

gives_enotconn() {
	run ! timeout 20 "$@"
	[[ "$output" == *"Transport endpoint is not connected"* ]]
}

# --- where a store may be mounted ---

@test "a store that contains its own mount is listed and read, and the mount within is not entered" {
	start_logged_mount "$STORE"
	mount --bind "$MNT" "$STORE/sub"
	run timeout 20 find "$MNT"
	[ "$(grep -c "^$MNT" <<<"$output")" -eq 4 ]
	[[ "$output" == *"sub"*"Too many levels of symbolic links"* ]]
	for command in "ls $MNT/sub" "cat $MNT/sub/config.json" "cat $MNT/sub/sub/sub/config.json" "stat $MNT/sub/sub"; do
		# shellcheck disable=SC2086 # several words
		run ! timeout 20 $command
		[[ "$output" == *"Too many levels of symbolic links"* ]]
	done
	cmp "$STORE/config.json" "$STORE/sub/config.json"
	cmp "$ORIG/model.safetensors" "$MNT/model.safetensors"
	umount "$STORE/sub"
	sleep 1.1 # attributes are kept for a second
	[ -z "$(ls "$MNT/sub")" ]
}

@test "the root directory is refused as a mount point" {
	run -1 timeout 20 "$WCXFS" "$STORE" /
	[[ "$output" == *"mount point /: the root directory"* ]]
	run -1 timeout 20 "$WCXFS" "$STORE" /..
	[[ "$output" == *"mount point /: the root directory"* ]]
	run ! pgrep -f -- "wcxfs $STORE /"
}

@test "of eight daemons started at once on a mount point one mounts, and the others say so" {
	local i ended mounted pids

	for _ in 1 2 3; do
		pids=() mounted=0
		for i in 1 2 3 4 5 6 7 8; do
			"$WCXFS" "$STORE" "$MNT" 2>"$LOG.$i" 3>&- &
			pids+=($!)
		done
		for i in 1 2 3 4 5 6 7 8; do
			ended=0
			wait "${pids[i - 1]}" || ended=$?
			if [ "$ended" -eq 0 ]; then
				mounted=$((mounted + 1))
			else
				[ "$ended" -eq 1 ]
				grep -q "already mounted there" "$LOG.$i"
			fi
		done
		[ "$mounted" -eq 1 ]
		[ "$(grep -cF " $MNT " /proc/mounts)" -eq 1 ]
		cmp "$STORE/config.json" "$MNT/config.json"
		stop_mount
	done
}

@test "a mount point that another process keeps locked is mounted, and can be locked while mounted" {
	flock "$MNT" "$WCXFS" "$STORE" "$MNT"
	is_mounted
	flock -n "$MNT" true
}

@test "remounting is refused, and changes nothing" {
	start_mount "$STORE"
	run -1 "$WCXFS" "$STORE" "$MNT" -o remount,cache_size=64M
	[[ "$output" == *"cannot be changed"* ]]
	run -1 "$WCXFS" "$STORE" "$MNT" -o rw,remount
	[ "$(grep -cF " $MNT " /proc/mounts)" -eq 1 ]
	[ "$(daemons | wc -l)" -eq 1 ]
	cmp "$STORE/config.json" "$MNT/config.json"
}

# --- a daemon that dies ---

# Print what is seen of a daemon that was killed while a reader had a file open; $1: whether the guard has fusectl.  In a mount
# namespace of its own, which takes all mounts with it.
killed_daemon() {
	export MNT STORE WCXFS
	timeout 60 unshare --mount --propagation private bash -eu /dev/fd/7 "$1" 2>&1 7<<-'END'
		control=/sys/fs/fuse/connections
		if [ "$1" = yes ]; then
			mountpoint -q "$control" || mount -t fusectl none "$control"
		else
			while mountpoint -q "$control"; do umount -l "$control"; done
		fi
		"$WCXFS" "$STORE" "$MNT" 3>&- 2>/dev/null
		daemon=$(pgrep -o -f -- "wcxfs $STORE $MNT\$") # the guard is called so at first, too
		guard=$(pgrep -P "$daemon")
		exec 8<"$MNT/model.safetensors"
		head -c 100000 <&8 >/dev/null
		stat "$MNT" >/dev/null # for a second, the kernel may answer with these attributes
		kill -KILL "$daemon"
		while grep -qs '^State:.[^Z]' "/proc/$guard/status"; do sleep 0.02; done
		! "$WCXFS" "$STORE" "$MNT"
		for command in "cat $MNT/config.json" "ls $MNT" "tail -c 100000 /proc/self/fd/8" "dd skip=9 bs=1M count=1"; do
			! $command <&8 || echo "no error: $command"
		done
		exec 8<&-
		grep -cF " $MNT fuse.wcxfs" /proc/mounts
		fusermount3 -u "$MNT"
		"$WCXFS" "$STORE" "$MNT" 3>&- 2>/dev/null
		cmp "$STORE/config.json" "$MNT/config.json"
		fusermount3 -u "$MNT"
		echo finished
	END
}

@test "a killed daemon leaves ENOTCONN and no directory that looks empty, with fusectl and without" {
	for fusectl in yes no; do
		run -0 killed_daemon "$fusectl"
		echo "$output"
		[ "$(grep -c "Transport endpoint is not connected" <<<"$output")" -eq 5 ]
		[[ "$output" == *"left by a dead mount"*finished ]]
		[[ "$output" != *"no error"* ]]
	done
}

@test "what the unit runs first removes the mount of a killed daemon however it is named, and no other" {
	local before name guard

	before=$(sed -n "s/^ExecStartPre=-.bin.sh -c '\\(.*\\)'$/\\1/p" "$WCX_BUILD/wcxfs@.service" | sed 's/\$\$/$/g')
	[[ "$before" == *umount* ]]
	MNT="$BATS_TEST_TMPDIR/a store"
	mkdir "$MNT"
	ln -s "$MNT" "$BATS_TEST_TMPDIR/link"
	for name in "$MNT" "$MNT/" "$BATS_TEST_TMPDIR/link"; do
		start_logged_mount "$STORE"
		MOUNTPOINT="$name" sh -c "$before"
		cmp "$STORE/config.json" "$MNT/config.json"
		guard=$(pgrep -P "$DAEMON")
		kill -KILL "$DAEMON"
		reader wait_exit "$guard"
		gives_enotconn ls "$MNT"
		MOUNTPOINT="$name" sh -c "$before"
		ls "$MNT"
	done
}

# Slow requests make it likely that a thread of the daemon waits for a page that a reader has locked.
@test "readers of a daemon killed while it pushes pages get ENOTCONN, and the mount stays" {
	[ -r /proc/self/stack ] || skip "it cannot be read where a thread is blocked"
	local guard

	LD_PRELOAD="${WCX%/*}/tests/libslow_requests.so" start_logged_mount "$STORE" -o decoder=cpu
	guard=$(pgrep -P "$DAEMON")
	reader kill_pusher "$DAEMON" "$MNT/model.safetensors" KILL
	reader wait_exit "$guard"
	is_mounted
	gives_enotconn ls "$MNT"
	fusermount3 -u "$MNT"
}

@test "a store on a network file system that dies gives EIO, with the cause in the log" {
	local lower

	mkdir "$LOWER"
	"$WCXFS" "$STORE" "$LOWER" 3>&-
	lower=$(pgrep -o -f -- "wcxfs $STORE $LOWER\$") # not the guard, which is called so at first
	start_logged_mount "$LOWER"
	cmp "$STORE/config.json" "$MNT/config.json"
	exec 8<"$MNT/model.safetensors" 9<"$MNT/plain"
	head -c 100000 <&8 | cmp -n 100000 - "$ORIG/model.safetensors"
	kill -KILL "$lower"
	reader wait_exit "$lower"
	for command in "ls $MNT" "cat $MNT/config.json" "cat $MNT/model.safetensors" "dd bs=1M skip=2" \
		"stat -f $MNT" "tail -c 1000 $MNT/plain"; do
		# shellcheck disable=SC2086 # several words
		run ! timeout 20 $command <&9
		echo "$command: $output"
		[[ "$output" == *"Input/output error"* ]]
	done
	exec 8<&- 9<&-
	log_until "Transport endpoint is not connected"
}

# --- PID 1 ---

# Whether a process of a container sees the guard, and neither orphans nor zombies.
is_alone() {
	output=$(nsenter --target "$1" --pid --mount --root ps -eo pid,ppid,stat,args)
	[[ "$output" == *wcxfs-guard* ]] && ! grep -E " Z|sleep|defunct" <<<"$output"
}

@test "as PID 1 of a container the daemon reaps orphans, and ends at SIGTERM" {
	local first

	rm -f "$LOG.fifo"
	mkfifo "$LOG.fifo"
	exec {LOG_FD}<>"$LOG.fifo"
	unshare --pid --fork --mount-proc --kill-child "$WCXFS" "$STORE" "$MNT" -f 2>&"$LOG_FD" 3>&- &
	DAEMON=$!
	log_until "mounted at"
	first=$(pgrep -P "$DAEMON")
	for _ in 1 2 3 4 5; do
		nsenter --target "$first" --pid --mount --root sh -c '(sleep 0.2; exit 3) & exit' 3>&-
	done
	within 60 is_alone "$first"
	nsenter --target "$first" --pid --mount --root cmp "$STORE/config.json" "$MNT/config.json"
	kill -TERM "$first"
	wait "$DAEMON"
}

# --- readers that drop pages ---

@test "eight readers, one of which drops the page cache behind it, decode a file about once" {
	local alone

	start_logged_mount "$STORE" -o cache_size=256M
	cat "$MNT/model.safetensors" >/dev/null
	alone=$(counter misses)
	stop_mount
	start_logged_mount "$STORE" -o cache_size=256M
	reader side_by_side "$ORIG/model.safetensors" "$MNT/model.safetensors" 8
	echo "alone: $alone, together: $(counter misses)"
	[ "$(counter misses)" -le $((alone * 5 / 4)) ]
}

# --- mounts that others make ---

@test "a mount made by the caller and passed as /dev/fd/N is served, and none is left dead" {
	local fd options

	for fd in 3 9; do
		for options in "" -f; do
			# shellcheck disable=SC2086 # none or one
			reader passed_mount "$MNT" "$fd" "$STORE/config.json" "$WCXFS" "$STORE" "/dev/fd/$fd" $options
			check_gone
		done
	done
	for options in cache_size=lots decoder=tpu; do
		run ! reader passed_mount "$MNT" 5 "$STORE/config.json" "$WCXFS" "$STORE" /dev/fd/5 -o "$options"
		[[ "$output" == *"$options"*"exit status 2"* ]]
		run ! is_mounted
	done
	run ! reader passed_mount "$MNT" 5 "$STORE/config.json" "$WCXFS" "$BATS_TEST_TMPDIR/none" /dev/fd/5
	[[ "$output" == *"none: No such file"*"exit status 1"* ]]
	run ! is_mounted
	PASSED_OPTIONS=allow_other run ! reader passed_mount "$MNT" 5 "$STORE/config.json" "$WCXFS" "$STORE" /dev/fd/5
	[[ "$output" == *"without default_permissions"* ]]
	run ! is_mounted
	run -2 "$WCXFS" "$STORE" /dev/fd/77
	[[ "$output" == *"not a descriptor of /dev/fuse"* ]]
}
