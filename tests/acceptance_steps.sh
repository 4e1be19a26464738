#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# acceptance_steps.sh [STEP...] - what acceptance.sh does within a fresh Debian; without arguments, all of it
#
# Installs the packages that lie beside this script; packs, quantises, mounts and loads a real model; removes the packages.
# Leaves the system as it was.  Two more steps are not part of all: install_service, and in the booted system service.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH=$here/site PYTHONDONTWRITEBYTECODE=1 DEBIAN_FRONTEND=noninteractive
export HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_PROGRESS_BARS=1
exec 3>&1

step() {
	printf '\n== %s (%d s)\n' "$*" "$SECONDS" >&3
}

# What has to fail: fails STATUS COMMAND... - and prints its message
fails() {
	local status=0

	"${@:2}" 2>message >message || status=$?
	[ "$status" = "$1" ] || { echo "status $status instead of $1: ${*:2}" >&2; cat message >&2; return 1; }
}

# Every file of the system, but what packages, Python and this script write anyway.
system_files() {
	find / -xdev \( -path /acceptance -o -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /run -o -path /outside \
		-o -path /var/cache -o -path /var/log -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/lib/systemd \
		-o -path /root \) -prune -o -print | sort
}

install_packages() {
	step "Installing $(cd "$here" && echo ./*.deb)"
	apt-get -qq update
	# adduser: fuse3 needs it, and apt keeps it when fuse3 goes.
	apt-get -qq install --no-install-recommends python3 python3-venv diffutils adduser >/dev/null 2>&1
	if [ ! -d "$here/site" ]; then
		python3 -m venv "$here/venv"
		"$here/venv/bin/pip" --disable-pip-version-check -q install numpy safetensors==0.8.0 huggingface_hub
		ln -s "$("$here/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" "$here/site"
	fi
	system_files >"$here/before"
	apt-get -qq install --no-install-recommends "$here"/*.deb >/dev/null 2>&1
	wcx --version
	wcxfs --version
	ldconfig -p | grep -o 'libwcx\.so\.[0-9]*' | sort -u
	[ -s /usr/share/man/man1/wcx-pack.1.gz ]
	[ -x /sbin/mount.wcxfs ]
	[ -s /usr/lib/systemd/system/wcxfs@.service ]
	! ldd /usr/bin/wcx /usr/bin/wcxfs /usr/lib/*/libwcx.so.0 | grep -E 'not found|libcuda'
}

# same_tree A B - the same names, contents, links, owners, modes and times
same_tree() {
	diff -r --no-dereference "$1" "$2"
	diff <(cd "$1" && find . ! -type d -printf '%p %y %l %U:%G %m %s %Ts\n' | sort) \
		<(cd "$2" && find . ! -type d -printf '%p %y %l %U:%G %m %s %Ts\n' | sort)
}

pack_files() {
	step "A file: pack, verify, info, unpack"
	cp "$here/model.safetensors" .
	wcx pack -q model.safetensors model.safetensors.wcx
	wcx verify -q model.safetensors.wcx
	wcx info --json model.safetensors.wcx | python3 -c 'import json, sys; print(len(json.load(sys.stdin)["tensors"]), "tensors")'
	wcx unpack -q model.safetensors.wcx copy.safetensors
	cmp model.safetensors copy.safetensors
	rm model.safetensors.wcx copy.safetensors

	step "What is wrong is said, and nothing is left"
	echo '{"a": 1}' >x.json
	fails 3 wcx pack x.json x.wcx
	grep -i json message
	fails 1 wcx pack model.safetensors nowhere/x.wcx
	grep nowhere message
	fails 2 wcx packk
	grep "pack" message
	fails 2 wcxfs . . -o cachesize=1G
	grep cache_size message
	[ ! -e x.wcx ]
}

pack_trees() {
	local commits

	step "A directory of shards, and a hub cache"
	python3 "$here/hub_cache.py" shard model.safetensors shards --shards 3
	cat >shards/config.json <<-'END'
		{
		  "architectures": ["BertModel"], "model_type": "bert", "vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6,
		  "num_attention_heads": 12, "intermediate_size": 1536, "max_position_embeddings": 512, "type_vocab_size": 2
		}
	END
	commits=$(python3 "$here/hub_cache.py" cache hub org/model shards)
	mkdir shards/empty store
	wcx pack -q shards store/shards
	[ "$(find store -name '*.safetensors.wcx' | wc -l)" = 3 ]
	[ -d store/shards/empty ]
	wcx verify -q store
	wcx unpack -q store/shards back
	same_tree shards back
	find store -name '*.wcx' -printf '%p %i %C@\n' | sort >before
	wcx pack --json -q shards store/shards | tail -n 1
	find store -name '*.wcx' -printf '%p %i %C@\n' | sort | diff before - # all was done already
	rm -r back

	wcx pack -q hub store/hub
	wcx unpack -q store/hub back
	same_tree hub back
	echo "$commits" >commits

	step "In place"
	cp -a shards inplace
	wcx pack -q --rm inplace
	[ -z "$(find inplace -name '*.safetensors')" ]
	wcx unpack -q --rm inplace
	same_tree shards inplace
	rm -r back inplace
}

quantize() {
	step "INT8 from F32, packed in the same pass"
	wcx quantize --dry-run shards | tail -n 3
	wcx quantize --pack shards store/int8
	wcx verify -q store/int8
	fails 1 wcx quantize store/int8 again
}

mount_store() {
	step "mount -t wcxfs, and what it shows"
	mkdir -p /mnt/models
	mount -t wcxfs "$PWD/store" /mnt/models -o allow_other,cache_size=256M
	same_bytes shards /mnt/models/shards
	same_bytes hub /mnt/models/hub
	fails 32 mount -t wcxfs "$PWD/store" /mnt/models
	df /mnt/models
	wcx warm -q /mnt/models/shards
}

same_bytes() {
	diff <(cd "$1" && find . -type f -exec sha256sum {} + | sort) <(cd "$2" && find . -type f -exec sha256sum {} + | sort)
}

show_status() {
	step "What the mount says of itself"
	wcx status /mnt/models
	wcx status --json /mnt/models | python3 -c 'import json, sys; json.loads(sys.stdin.read())'
	wcx status --prometheus /mnt/models | grep -c '^wcxfs_'
	python3 - /mnt/models/shards/model-00001-of-00003.safetensors <<-'END'
		import hashlib, os, sys
		for name in ("ratio", "packed_bytes", "dtypes"):
		    print(name, os.getxattr(sys.argv[1], "user.wcx." + name).decode())
		digest = hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest()
		assert os.getxattr(sys.argv[1], "user.wcx.sha256").decode() == digest
	END
}

load_models() {
	step "Loading from the mount"
	python3 "$here/acceptance_load.py" shards /mnt/models/shards hub /mnt/models/hub /mnt/models/int8
}

live_cache() {
	step "A hub cache that stays in use"
	mkdir -p unpacked
	wcxfs "$PWD/hub" "$PWD/unpacked"
	cp -a hub hub.original
	wcx hub -q "$PWD/hub" "$PWD/unpacked"
	[ "$(find hub -name '*.wcx' | wc -l)" -ge 3 ]
	python3 "$here/acceptance_load.py" shards hub
	same_bytes hub.original unpacked
	wcx hub -q --undo "$PWD/hub"
	same_tree hub.original hub
	umount unpacked
}

fstab() {
	step "fstab, and the end of a mount"
	umount /mnt/models
	echo "$PWD/store /mnt/models wcxfs allow_other,nofail,noauto 0 0" >/etc/fstab
	mount /mnt/models
	same_bytes shards /mnt/models/shards
	umount /mnt/models
	[ -z "$(ls /mnt/models)" ]
	rmdir /mnt/models
	: >/etc/fstab
}

remove_packages() {
	step "Removing the packages"
	cd /
	rm -r "$here/work"
	apt-get -qq purge --autoremove wcxfs 'libwcx*' >/dev/null 2>&1
	[ ! -e /usr/bin/wcxfs ]
	system_files >"$here/after"
	diff "$here/before" "$here/after"
	! grep -qx wcxfs /proc/[0-9]*/comm
}

install_service() {
	step "Installing systemd"
	apt-get -qq install --no-install-recommends systemd-sysv "$here"/wcxfs_*.deb >/dev/null 2>&1
	mkdir -p /srv/store
	wcx pack -q "$here/model.safetensors" /srv/store
}

# until_shown - wait for the service to show the model
until_shown() {
	# shellcheck disable=SC2016 # the inner shell expands it
	timeout 60 bash -c 'until cmp "$0" /srv/models/model.safetensors; do sleep 0.1; done 2>/dev/null' "$here/model.safetensors"
}

service() {
	step "The unit, under $(systemctl --version | head -n 1)"
	mkdir -p /etc/wcxfs /srv/models
	printf '%s\n' STORE=/srv/store MOUNTPOINT=/srv/models OPTIONS=allow_other,warm=. >/etc/wcxfs/models.conf
	systemctl enable --now wcxfs@models || { journalctl -u wcxfs@models; return 1; }
	cmp "$here/model.safetensors" /srv/models/model.safetensors
	wcx status /srv/models
	systemctl kill --signal=KILL wcxfs@models
	until_shown
	systemctl restart wcxfs@models
	cmp "$here/model.safetensors" /srv/models/model.safetensors
	systemctl disable --now wcxfs@models
	[ -z "$(ls /srv/models)" ]
	fails 1 systemctl start wcxfs@modles

	step "The unit, as a user"
	chown nobody /srv/models
	mkdir /etc/systemd/system/wcxfs@models.service.d
	printf '%s\n' '[Service]' User=nobody AmbientCapabilities=CAP_SYS_ADMIN >/etc/systemd/system/wcxfs@models.service.d/user.conf
	systemctl daemon-reload
	systemctl start wcxfs@models || { journalctl -u wcxfs@models; return 1; }
	[ "$(stat -c %U "/proc/$(systemctl show -P MainPID wcxfs@models)")" = nobody ]
	cmp "$here/model.safetensors" /srv/models/model.safetensors
	systemctl kill --signal=KILL wcxfs@models
	until_shown
	systemctl stop wcxfs@models
	[ -z "$(ls /srv/models)" ]

	step "fstab, under systemd"
	echo "/srv/store /srv/models wcxfs allow_other,nofail 0 0" >/etc/fstab
	systemctl daemon-reload
	systemctl start srv-models.mount
	cmp "$here/model.safetensors" /srv/models/model.safetensors
	systemctl stop srv-models.mount
	[ -z "$(ls /srv/models)" ]
}

ALL=(install_packages pack_files pack_trees quantize mount_store show_status load_models live_cache fstab remove_packages)
[ $# -gt 0 ] || set -- "${ALL[@]}"
mkdir -p "$here/work"
for name in "$@"; do
	cd "$here/work"
	"$name"
done
step "Done"
