# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# For scripts to source, after prepare.sh: makes fresh Debian systems in a directory and runs commands in them.  Needs root.

# can_make_trees - whether this machine can; says what is missing otherwise
can_make_trees() {
	[ "$(id -u)" = 0 ] || { echo "needs root"; return 1; }
	unshare --mount --pid --fork true || { echo "needs namespaces"; return 1; }
	[ -n "$(debian_mirror)" ] || { echo "this machine's sources name no mirror of Debian"; return 1; }
}

# The mirror that this machine installs Debian from.
debian_mirror() {
	# shellcheck disable=SC2016 # apt-get replaces these
	apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(SUITE) $(CODENAME)' 'Created-By: Packages' |
		awk '$1 == "Debian" && $2 !~ /security/ { print $2; exit }'
}

# give_outside TREE - write TREE/outside/environment: what makes pip work on this machine, for use in the tree
give_outside() {
	local key value

	mkdir "$1/outside"
	cp /etc/resolv.conf /etc/hosts "$1/etc/"
	env | grep -iE '^(https?|no)_proxy=' >"$1/outside/environment" || true
	"$PYTHON" -m pip config list | while IFS='=' read -r key value; do
		key=${key##*.}
		value=${value#\'}
		value=${value%\'}
		if [ -e "$value" ]; then
			cp -rL "$value" "$1/outside/$key"
			value=/outside/$key
		fi
		key=${key^^}
		echo "PIP_${key//-/_}=$value"
	done >>"$1/outside/environment"
}

# make_tree SUITE TREE LOG - install a minimal Debian of that suite into an empty directory; $PYTHON's pip is asked how it
# reaches the world
make_tree() {
	local options=(--dpkgopt=force-unsafe-io) option

	install_packages mmdebstrap # does in half of debootstrap's time what that does
	while read -r option; do
		options+=("--aptopt=$option")
	done < <(apt-config dump | grep -E '^Acquire::(https?|Check-)')
	chmod 755 "$2"
	mmdebstrap --mode=root --variant=minbase "${options[@]}" "$1" "$2" "$(debian_mirror)" >"$3" 2>&1 ||
		{ tail -n 3 "$3"; return 1; }
	ln -sf ../proc/self/mounts "$2/etc/mtab" # as in an installed system; fusermount3 reads it
	give_outside "$2"
}

# in_tree TREE SCRIPT [ARGUMENT...] - run a script of bash in the tree, in namespaces of its own for mounts and processes,
# all of which end with it
in_tree() {
	# shellcheck disable=SC2016 # the inner shell expands these
	unshare --mount --pid --fork --kill-child --mount-proc bash -euc '
		mount --rbind "$1" "$1" # the tests make mount namespaces, for which the root has to be a mount point
		cd "$1"
		mount --rbind /dev "$1/dev"
		mount -t proc proc "$1/proc"
		mount --rbind /sys "$1/sys"
		mapfile -t outside <"$1/outside/environment"
		# Not chroot: who enters a mount namespace (setns) gets its root, which would be the outer one.
		pivot_root . .
		umount -l .
		cd /
		exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 "${outside[@]}" \
			bash -euc "$2" bash "${@:3}"
	' bash "$@" </dev/null
}

# boot_tree TREE SCRIPT - boot the tree, which needs systemd, in a container, run a script of bash there, and print what it
# printed; its status, or 77 where this machine cannot boot trees.  The machine's own init need not be systemd.
boot_tree() {
	local status=0 output=$1/outside/output

	install_packages systemd-container
	printf 'exec >/outside/output 2>&1\n%s\n' "$2" >"$1/outside/script"
	mknod -m 666 "$1/outside/fuse" c 10 229 # for all, as udev makes it
	# Not systemd.run=, which needs a console since systemd 257.
	printf '%s\n' '[Unit]' SuccessAction=exit FailureAction=exit '[Service]' Type=oneshot \
		'ExecStart=/bin/bash /outside/script' >"$1/etc/systemd/system/script.service"
	SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 timeout --kill-after=10 300 systemd-nspawn --quiet --boot --directory="$1" \
		--register=no --keep-unit --bind="$1/outside/fuse:/dev/fuse" --capability=all --system-call-filter=bpf --console=pipe \
		systemd.unit=script.service </dev/null >"$1/outside/console" 2>&1 || status=$?
	[ -e "$output" ] || { echo "skipped: no boot: $(tail -n 1 "$1/outside/console")"; return 77; }
	cat "$output"
	return "$status"
}
