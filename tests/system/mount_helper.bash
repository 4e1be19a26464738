# SPDX-License-Identifier: MIT
# Starts and stops mounts for mount.bats.  Each test has one mount, $MNT, of a store that it chooses.

# Run a command of mount_reader.py.
reader() {
	"$PYTHON" "$BATS_TEST_DIRNAME/mount_reader.py" "$@"
}

mount_setup_file() {
	suite_find numpy xxhash safetensors zstandard || return 1
	if ! (exec 3<>/dev/fuse) 2>/dev/null; then
		# shellcheck disable=SC2034 # suite_start reads it
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

# The processes that serve $MNT, one per line.
daemons() {
	local found pid

	found="$(pgrep -f -- "wcxfs.* $MNT( |\$)")" || true
	for pid in $found; do
		# A guard has its daemon's command line until it has its own.
		grep -qxF -- "$(ps -o ppid= -p "$pid" | tr -d ' ')" <<< "$found" || echo "$pid"
	done
}

# within SECONDS COMMAND... - whether the command succeeds in this time; a try that begins later is the last
within() {
	local end now

	end=$(($(date +%s%N) + $1 * 1000000000))
	while now=$(date +%s%N) && ! "${@:2}"; do
		[ "$now" -lt "$end" ] || {
			echo "not within $1 s: ${*:2}"
			return 1
		}
		sleep 0.05
	done
}

is_mounted() {
	grep -qF " $MNT " /proc/mounts
}

# Mount a store in the background, as a user does; the mount is ready when the command returns.
start_mount() {
	"$WCXFS" "$1" "$MNT" "${@:2}"
	is_mounted
}

# Mount a store with the daemon in the foreground; log_until reads its messages.
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

# Print how many read requests for packed files a logged mount has received.
request_count() {
	kill -USR1 "$DAEMON"
	log_until "requests:"
	tail -n 1 "$LOG" | sed -E 's/.*requests: ([0-9]+) .*/\1/'
}

# Check that the mount is gone, and wait until the process that served it is, too.
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

# Remove what a test left behind; fail if that does not work.
mount_teardown() {
	local status=0 pid

	[ -n "${MNT-}" ] || return 0 # skipped before mount_setup
	cd "$BATS_TEST_DIRNAME" || return
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
