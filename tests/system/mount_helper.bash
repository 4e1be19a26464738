# SPDX-License-Identifier: MIT
# Starting and stopping mounts for mount.bats.  A test has one mount, $MNT, of a store of its own choice.

# Run a command of mount_reader.py, which lies beside this file.
reader() {
	"$PYTHON" "$BATS_TEST_DIRNAME/mount_reader.py" "$@"
}

mount_setup_file() {
	suite_find numpy xxhash safetensors zstandard || return 1
	if ! (exec 3<>/dev/fuse) 2>/dev/null; then
		SUITE_LACKS="/dev/fuse cannot be opened"
		return 1
	fi
	test -x "$WCXFS"
}

mount_setup() {
	MNT="$BATS_TEST_TMPDIR/mnt"
	LOG="$BATS_TEST_TMPDIR/log"
	mkdir "$MNT"
}

# The processes that serve $MNT, one a line.
daemons() {
	pgrep -f -- "wcxfs.* $MNT( |\$)" || true
}

is_mounted() {
	grep -qF " $MNT " /proc/mounts
}

# Mount a store as a user does: once the command returns, it is there.
start_mount() {
	"$WCXFS" "$1" "$MNT" "${@:2}"
	is_mounted
}

# Mount a store with the daemon in the foreground and its messages to be read by log_until.
start_logged_mount() {
	rm -f "$LOG.fifo"
	mkfifo "$LOG.fifo"
	exec {LOG_FD}<>"$LOG.fifo"
	"$WCXFS" "$1" "$MNT" -f "${@:2}" 2>&"$LOG_FD" 3>&- &
	DAEMON=$!
	log_until "mounted at"
}

# Move messages to $LOG until one contains the text.
log_until() {
	local line

	while read -r -t 60 -u "$LOG_FD" line; do
		echo "$line" >>"$LOG"
		[[ $line != *"$1"* ]] || return 0
	done
	echo "no message with '$1' after: $(cat "$LOG")"
	return 1
}

# Print a counter of the tile cache of a logged mount.
counter() {
	kill -USR1 "$DAEMON"
	log_until "tiles:"
	tail -n 1 "$LOG" | grep -oE "[0-9]+ $1" | cut -d " " -f 1
}

# Print how many reads of packed files a logged mount was asked for.
request_count() {
	kill -USR1 "$DAEMON"
	log_until "requests:"
	tail -n 1 "$LOG" | sed -E 's/.*requests: ([0-9]+) .*/\1/'
}

# Everything gone: the mount and the process that served it.
check_gone() {
	local pid

	for pid in $(daemons); do
		reader wait_exit "$pid"
	done
	[ -z "$(daemons)" ] && ! is_mounted
}

stop_mount() {
	fusermount3 -u "$MNT"
	check_gone
}

# What a test left behind is removed; what cannot be removed, or does not go, is a failure.
mount_teardown() {
	local status=0 pid

	cd "$BATS_TEST_DIRNAME"
	if is_mounted; then
		fusermount3 -u "$MNT" || status=1
	fi
	check_gone || status=1
	if [ "$status" -ne 0 ]; then
		echo "left behind: $(daemons) $(grep -F "$MNT" /proc/mounts)"
		for pid in $(daemons); do
			kill -KILL "$pid"
		done
		! is_mounted || umount -l "$MNT"
	fi
	return "$status"
}
