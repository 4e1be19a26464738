#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2030,SC2031 # each test is a process, and sets MNT for itself
#
# What a service needs beside files: mount(8) and /etc/fstab, logs, the pid file, a service manager, and warnings.

bats_require_minimum_version 1.5.0
load ../fixtures/suite
load mount_helper

setup_file() {
	mount_setup_file || return 0
	export ORIG="$BATS_FILE_TMPDIR/orig" STORE="$BATS_FILE_TMPDIR/store" HELPER="$WCX_BUILD/mount.wcxfs"

	mkdir -p "$ORIG" "$STORE"
	"$PYTHON" "$FIXTURES/make_int8.py" "$ORIG/model.safetensors" --mib 2
	"$WCX" pack -q "$ORIG/model.safetensors" "$STORE/model.safetensors.wcx"
	echo '{"model_type": "test"}' >"$STORE/config.json"
	chmod 755 "$BATS_RUN_TMPDIR" "$BATS_FILE_TMPDIR" # other users mount, too
}

setup() {
	suite_start
	[ "$(id -u)" -eq 0 ] || skip "only root can make mounts"
	mount_setup
}

teardown() {
	mount_teardown
}

# Run the commands of standard input in a mount namespace of its own, which takes all mounts with it.  There /sbin has
# mount.wcxfs, and everybody may open /dev/fuse.
in_namespace() {
	export MNT STORE WCX WCXFS BATS_TEST_TMPDIR
	cat >"$BATS_TEST_TMPDIR/commands"
	timeout 120 unshare --mount --propagation private bash -eu /dev/fd/7 "$BATS_TEST_TMPDIR" 2>&1 3>&- 7<<-'END'
		sbin=$(readlink -f /sbin)
		mkdir "$1/sbin" "$1/real"
		mount --bind "$sbin" "$1/real"
		mount -t tmpfs none "$1/sbin"
		for program in "$1/real/"*; do
			ln -s "$program" "$1/sbin/"
		done
		ln -s "$WCXFS" "$1/sbin/mount.wcxfs"
		ln -sf "$WCXFS" "$WCX" "$1/sbin/"
		mknod -m 666 "$1/sbin/fuse" c 10 229
		mount --bind "$1/sbin" "$sbin"
		mount --bind "$1/sbin/fuse" /dev/fuse
		. "$1/commands"
	END
}

# --- mount(8) ---

@test "mount -t wcxfs and -t fuse.wcxfs mount a store, with options of fstab that are for others, and umount unmounts it" {
	run -0 in_namespace <<-'END'
		options=rw,defaults,nofail,_netdev,noauto,noatime,x-systemd.requires=net.service,x-systemd.automount,comment=none
		for type in wcxfs fuse.wcxfs; do
			mount -t $type "$STORE" "$MNT" -o $options,log="$BATS_TEST_TMPDIR/log"
			grep -F " $MNT fuse.wcxfs ro,nosuid,nodev," /proc/mounts
			cmp "$STORE/config.json" "$MNT/config.json"
			umount "$MNT"
			! grep -F " $MNT " /proc/mounts
		done
		echo finished
	END
	echo "$output"
	[[ "$output" == *finished ]]
}

@test "mount -a mounts what is in fstab once, and a remount is refused with the reason" {
	run -0 in_namespace <<-'END'
		echo "$STORE $MNT wcxfs ro,cache_size=64M,_netdev,nofail,log=$BATS_TEST_TMPDIR/log 0 0" >"$1/fstab"
		mount -a -T "$1/fstab"
		mount -a --fstab "$1/fstab"
		[ "$(grep -cF " $MNT fuse.wcxfs" /proc/mounts)" -eq 1 ]
		grep "cache of 64 MiB" "$BATS_TEST_TMPDIR/log"
		! mount -T "$1/fstab" -o remount,cache_size=1G "$MNT"
		cmp "$STORE/config.json" "$MNT/config.json"
		umount "$MNT"
		echo finished
	END
	echo "$output"
	[[ "$output" == *"cannot be changed; unmount it and mount it again"*finished ]]
}

@test "a user mounts and unmounts a store that fstab lists with the option user" {
	run -0 in_namespace <<-'END'
		echo "$STORE $MNT wcxfs user,noauto 0 0" >"$1/fstab"
		mount --bind "$1/fstab" /etc/fstab
		chown nobody "$MNT"
		runuser -u nobody -- mount "$MNT"
		runuser -u nobody -- cmp "$STORE/config.json" "$MNT/config.json"
		! ls "$MNT"
		runuser -u nobody -- umount "$MNT"
		! grep -F " $MNT " /proc/mounts
		echo finished
	END
	echo "$output"
	[[ "$output" == *"Permission denied"*finished ]]
}

@test "the helper has mount's exit statuses; -f mounts nothing, -N another namespace" {
	local other

	run -0 "$HELPER" "$STORE" "$MNT" -f -n -s -v -t wcxfs -o ro
	[[ "$output" == *"could be mounted at $MNT"* ]]
	run ! is_mounted
	run -1 "$HELPER" "$STORE" "$MNT" -o cache_size=lots
	run -1 "$HELPER" "$STORE"
	run -1 "$HELPER" "$STORE" "$MNT" third
	run -1 "$HELPER" "$STORE" "$MNT" -x
	run -32 "$HELPER" "$BATS_TEST_TMPDIR/none" "$MNT" -f
	[[ "$output" == *"none: No such file or directory"* ]]
	unshare --mount --propagation private sleep 60 3>&- &
	other=$!
	until [ "$(readlink "/proc/$other/ns/mnt")" != "$(readlink /proc/self/ns/mnt)" ]; do sleep 0.02; done
	"$HELPER" "$STORE" "$MNT" -N "$other"
	nsenter --target "$other" --mount cmp "$STORE/config.json" "$MNT/config.json"
	run ! is_mounted
	nsenter --target "$other" --mount umount "$MNT"
	kill "$other"
}

# --- logs ---

@test "log=FILE takes all messages, and at SIGHUP is opened again by its name" {
	cd "$BATS_TEST_TMPDIR"
	mkdir logs
	"$WCXFS" "$STORE" "$MNT" -o log=logs/wcxfs.log,pidfile=pid
	grep -E "^[0-9-]+T[0-9:]+[+-][0-9]+ wcxfs\[$(cat pid)\]: $STORE mounted at $MNT" logs/wcxfs.log
	[ "$(stat -c %a logs/wcxfs.log)" = 640 ]
	mv logs/wcxfs.log logs/wcxfs.log.1
	kill -HUP "$(cat pid)"
	within 60 test -e logs/wcxfs.log
	kill -USR1 "$(cat pid)"
	within 60 grep "tiles: " logs/wcxfs.log
	run ! grep "tiles: " logs/wcxfs.log.1
	run -1 "$WCXFS" "$STORE" "$BATS_TEST_TMPDIR" -o log=none/log
	[[ "$output" == *"none/log: No such file or directory"* ]]
}

# A log in the directory that is mounted over: the daemon must never look it up through its own mount.
@test "log=FILE and pidfile=FILE may lie where the store is mounted" {
	"$WCXFS" "$STORE" "$MNT" -o "log=$MNT/log,pidfile=$MNT/pid" 3>&-
	kill -HUP "$(daemons)"
	timeout 20 cmp "$STORE/config.json" "$MNT/config.json"
	stop_mount
	grep "mounted at" "$MNT/log"
	[ ! -e "$MNT/pid" ]
}

# With a /dev of its own, which has no log, or one that is read.
with_dev() {
	in_namespace <<-END
		exec 8</dev/fuse # /dev is replaced below
		mkdir -p "\$1/dev"
		mount -t tmpfs none "\$1/dev"
		mknod -m 666 "\$1/dev/null" c 1 3
		mknod -m 666 "\$1/dev/fuse" c 10 229
		ln -s /proc/self/fd "\$1/dev/fd"
		mount --move "\$1/dev" /dev
		$(cat)
	END
}

@test "without syslog the messages of a daemon in the background go to standard error, which says so" {
	run -0 with_dev <<-'END'
		"$WCXFS" "$STORE" "$MNT" 2>"$1/errors"
		kill -USR1 "$(pgrep -o -f -- "wcxfs $STORE $MNT\$")" # the guard is called so at first, too
		until grep "tiles: " "$1/errors"; do sleep 0.02; done
		umount "$MNT"
		# What waits for the end of a pipe must not wait for the daemon.
		timeout 20 "$WCXFS" "$STORE" "$MNT" 2>&1 | cat >"$1/piped"
		umount "$MNT"
		cat "$1/errors" "$1/piped"
	END
	echo "$output"
	[[ "$output" == *"no syslog (/dev/log: No such file"*"go to standard error"*"mounted at $MNT"* ]]
	[[ "$output" == *"may be waited for"*"use -o log=FILE"* ]]
}

@test "with syslog the messages go there, in the foreground with log=syslog" {
	run -0 with_dev <<-'END'
		cat >"$1/syslog.py" <<-'PYTHON'
			import socket
			s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
			s.bind("/dev/log")
			while True:
			    print(s.recv(4096).decode(), flush=True)
		PYTHON
		"$PYTHON" "$1/syslog.py" >"$1/received" &
		trap "kill $!" EXIT
		until [ -S /dev/log ]; do sleep 0.02; done
		"$WCXFS" "$STORE" "$MNT" 2>"$1/errors"
		umount "$MNT"
		"$WCXFS" "$STORE" "$MNT" -f -o log=syslog 2>>"$1/errors" &
		until [ "$(grep -c "mounted at $MNT" "$1/received")" -ge 2 ]; do sleep 0.02; done
		umount "$MNT"
		! grep "mounted at" "$1/errors"
		cat "$1/received"
	END
	echo "$output"
	[[ "$output" == *"<30>"*"wcxfs["*"$STORE mounted at $MNT"* ]]
}

# --- the pid file and the service manager ---

@test "pidfile=FILE holds the daemon's number while it runs, and a failed start leaves another daemon's alone" {
	local pid="$BATS_TEST_TMPDIR/pid"

	start_mount "$STORE" -o "pidfile=$pid"
	[ "$(cat "$pid")" = "$(daemons)" ]
	run -1 "$WCXFS" "$STORE" "$MNT" -o "pidfile=$pid"
	run -1 "$WCXFS" "$STORE" "$BATS_TEST_TMPDIR/none" -o "pidfile=$pid"
	[ "$(cat "$pid")" = "$(daemons)" ]
	stop_mount
	[ ! -e "$pid" ]
	start_logged_mount "$STORE" -o "pidfile=$pid"
	[ "$(cat "$pid")" = "$DAEMON" ]
	echo 1 >"$pid" # another daemon's, by now
	kill -TERM "$DAEMON"
	wait "$DAEMON"
	[ "$(cat "$pid")" = 1 ]
	run ! env WCX_CPU=other "$WCXFS" "$STORE" "$MNT" -o "pidfile=$BATS_TEST_TMPDIR/new",decoder=cpu
	[ ! -e "$BATS_TEST_TMPDIR/new" ]
}

@test "a service manager hears that the mount is ready, and that it ends" {
	local socket

	cat >"$BATS_TEST_TMPDIR/manager.py" <<-'END'
		import os, socket, subprocess, sys
		path, mnt, command = sys.argv[1], sys.argv[2], sys.argv[3:]
		s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
		s.bind("\0" + path[1:] if path[0] == "@" else path)
		s.settimeout(20)
		with open(path[1:].replace("/", "_") if path[0] == "@" else path + ".log", "w+") as log:
		    child = subprocess.Popen(command, env=dict(os.environ, NOTIFY_SOCKET=path), stderr=log)
		    lines = s.recv(4096).decode().split("\n")
		    assert lines[0] == "READY=1", lines
		    assert lines[2].startswith("STATUS=") and lines[2].endswith("mounted at " + mnt), lines
		    pid = int(lines[1].removeprefix("MAINPID="))
		    assert pid == child.pid or "-f" not in command, lines
		    assert os.path.exists(mnt + "/config.json")
		    subprocess.run(["fusermount3", "-u", mnt], check=True)
		    lines = s.recv(4096).decode().split("\n")
		    assert lines[0] == "STOPPING=1", lines
		    assert child.wait(20) == 0
	END
	cd "$BATS_TEST_TMPDIR"
	for socket in "$BATS_TEST_TMPDIR/socket" "@wcxfs-$BASHPID-$RANDOM"; do
		timeout 60 "$PYTHON" manager.py "$socket" "$MNT" "$WCXFS" "$STORE" "$MNT" -f
	done
	timeout 60 "$PYTHON" manager.py "$BATS_TEST_TMPDIR/socket2" "$MNT" "$WCXFS" "$STORE" "$MNT"
}

# --- warnings ---

@test "swapped directories, a store without packed files, hidden files and a cache larger than memory are warned of" {
	local other="$BATS_TEST_TMPDIR/other"

	start_mount "$STORE" -o cache_size=64M 2>"$LOG"
	stop_mount
	run ! grep "warning" "$LOG"
	mkdir "$other"
	"$WCXFS" "$MNT" "$STORE" 2>"$LOG"
	fusermount3 -u "$STORE"
	grep "store $MNT: no packed file (NAME.wcx) is in it, but in the mount point $STORE: are they swapped?" "$LOG"
	grep "mount point $STORE: not empty" "$LOG"
	start_mount "$other" 2>"$LOG"
	stop_mount
	grep "store $other: no packed file (NAME.wcx) is in it\$" "$LOG"
	start_mount "$STORE" -o cache_size=4096G 2>"$LOG"
	stop_mount
	grep "cache_size: 4194304 MiB are more than the [0-9]* MiB of memory of this" "$LOG"
	"$WCXFS" "$STORE" "$STORE" 2>"$LOG"
	fusermount3 -u "$STORE"
	run ! grep "warning" "$LOG"
}

@test "the unit template is valid" {
	command -v systemd-analyze >/dev/null || skip "systemd-analyze is not installed"
	local unit="$BATS_TEST_TMPDIR/wcxfs@.service"

	sed -E "s|^ExecStart=[^ ]+|ExecStart=$WCXFS|" "$WCX_BUILD/wcxfs@.service" >"$unit"
	run -0 systemd-analyze verify --man=no "$BATS_TEST_TMPDIR/wcxfs@models.service"
	[ -z "$output" ]
}

# RestrictSUIDSGID= makes openat2 fail, as its mode cannot be filtered; the others hide the mount in a namespace.
@test "the unit has no option with which the store cannot be opened or the mount not be seen" {
	run ! grep -E '^(RestrictSUIDSGID|(Protect|Private)[A-Za-z]+|ReadOnlyPaths|BindPaths|TemporaryFileSystem|RootDirectory)=' \
		"$WCX_BUILD/wcxfs@.service"
}

# The unit's limits, as far as they can be had without systemd.
@test "a mount can be made, read and unmounted with the capabilities that the unit leaves" {
	command -v setpriv >/dev/null || skip "setpriv is not installed"
	local capabilities

	capabilities=$(sed -nE 's/^CapabilityBoundingSet=//p' "$WCX_BUILD/wcxfs@.service" |
		sed -E 's/CAP_/+/g; s/ /,/g' | tr '[:upper:]' '[:lower:]')
	[ "$capabilities" = "+sys_admin,+dac_read_search" ]
	setpriv --no-new-privs --bounding-set="-all,$capabilities" --inh-caps=-all "$WCXFS" "$STORE" "$MNT" -o allow_other
	cmp "$STORE/config.json" "$MNT/config.json"
	cmp "$ORIG/model.safetensors" "$MNT/model.safetensors"
	kill -TERM "$(daemons)"
	check_gone
}
