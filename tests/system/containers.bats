#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2030,SC2031 # each test is a process, and sets MNT for itself
#
# What containers rest on (docs/containers.md): mount namespaces with and without propagation, and mounting inside one.

bats_require_minimum_version 1.5.0
load ../fixtures/suite
load mount_helper

setup_file() {
	mount_setup_file || return 0
	if ! unshare --mount --propagation slave true 2>/dev/null; then
		# shellcheck disable=SC2034 # suite_start reads it
		SUITE_LACKS="mount namespaces cannot be made here"
		return 0
	fi
	export ORIG="$BATS_FILE_TMPDIR/model.safetensors" STORE="$BATS_FILE_TMPDIR/store"
	mkdir "$STORE"
	"$PYTHON" "$FIXTURES/make_int8.py" "$ORIG" --mib 1
	"$WCX" pack -q "$ORIG" "$STORE/model.safetensors.wcx"
}

setup() {
	suite_start
	mount_setup
	# Mounts in it propagate, as on a host whose root systemd has made shared.
	mkdir "$BATS_TEST_TMPDIR/shared"
	mount --bind "$BATS_TEST_TMPDIR/shared" "$BATS_TEST_TMPDIR/shared"
	mount --make-shared "$BATS_TEST_TMPDIR/shared"
	MNT="$BATS_TEST_TMPDIR/shared/mnt"
	mkdir "$MNT"
}

teardown() {
	[ -z "$SUITE_LACKS" ] || return 0
	[ -z "${CONTAINER-}" ] || kill "$CONTAINER" 2>/dev/null || true
	mount_teardown
	umount "$BATS_TEST_TMPDIR/shared"
}

# Start a namespace with a propagation; it lives until CONTAINER is killed.
start_container() {
	local ready="$BATS_TEST_TMPDIR/ready"

	mkfifo "$ready"
	# shellcheck disable=SC2016 # the inner shell expands it
	unshare --mount --propagation "$1" bash -c 'echo >"$1"; exec sleep 600' bash "$ready" 3>&- &
	CONTAINER=$!
	read -r <"$ready"
}

in_container() {
	nsenter --target "$CONTAINER" --mount "$@"
}

@test "a container with slave propagation sees a mount that comes after it, and that it is gone" {
	start_container slave
	start_mount "$STORE"
	in_container cmp "$MNT/model.safetensors" "$ORIG"
	stop_mount
	run ! in_container cat "$MNT/model.safetensors"
	start_mount "$STORE"
	in_container cmp "$MNT/model.safetensors" "$ORIG"
}

@test "a container with private propagation does not see a mount that comes after it" {
	start_container private
	start_mount "$STORE"
	cmp "$MNT/model.safetensors" "$ORIG"
	run ! in_container cat "$MNT/model.safetensors"
}

@test "a container keeps a mount that the host has unmounted, until it ends" {
	start_mount "$STORE"
	start_container private
	in_container cmp "$MNT/model.safetensors" "$ORIG"
	fusermount3 -u "$MNT"
	in_container cmp "$MNT/model.safetensors" "$ORIG"
	kill "$CONTAINER"
	check_gone
}

# As -v MOUNT:/models:rslave does, and -v DIRECTORY_ABOVE:/mnt:rslave.
@test "a daemon that comes back is seen where the directory above the mount was bound, and not where the mount was" {
	local bound="$BATS_TEST_TMPDIR/bound" above="$BATS_TEST_TMPDIR/above" daemon

	start_mount "$STORE"
	start_container slave
	mkdir "$bound" "$above"
	in_container mount --rbind "$MNT" "$bound"
	in_container mount --rbind "${MNT%/*}" "$above"
	in_container cmp "$bound/model.safetensors" "$ORIG"
	daemon="$(daemons)"
	kill -KILL "$daemon"
	reader wait_exit "$daemon"
	umount -l "$MNT"
	start_mount "$STORE"
	in_container cmp "$above/mnt/model.safetensors" "$ORIG"
	run ! in_container cat "$bound/model.safetensors"
	[[ "$output" == *"endpoint is not connected"* ]]
}

@test "wcxfs mounts inside a user namespace, without root and fusermount3, and is gone with it" {
	unshare --user --map-root-user --mount true 2>/dev/null || skip "user namespaces cannot be made here"
	# shellcheck disable=SC2016 # the inner shell expands these
	unshare --user --map-root-user --mount --pid --fork --kill-child bash -euc '
		mount --bind /proc /proc 2>/dev/null || true
		PATH=/usr/bin:/bin "$1" "$2" "$3"
		cmp "$3/model.safetensors" "$4"
		umount "$3"
	' bash "$WCXFS" "$STORE" "$MNT" "$ORIG"
	run ! cat "$MNT/model.safetensors"
}
