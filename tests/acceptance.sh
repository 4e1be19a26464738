#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# acceptance.sh [SUITE] - what a host does with wcxfs, from the Debian packages on a fresh Debian (bookworm, trixie)
#
# Builds the packages (in a system of that suite, if this machine is of another), installs them into a fresh minimal system,
# runs acceptance_steps.sh there with a real model, and removes the packages again; then boots that system, for the service.
# Needs root.  With TORCH=FOLDER, a virtual
# environment of this machine's Python with transformers, torch and compressed-tensors, the frameworks' part runs too.
# FRESH=FOLDER is a system as make_tree makes it, to be copied instead of made; WCX_CUDA=ON builds packages with CUDA.
# Exits with 77 and a reason where this machine cannot make such systems.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/prepare.sh"
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/debian_tree.bash"

suite=${1:-bookworm}
host_suite=$(. /etc/os-release && echo "$VERSION_CODENAME")

lacks=$(can_make_trees) || { echo "skipped: $lacks"; exit 77; }
work=$(mktemp -d)
cleanup() {
	awk -v top="$work/" 'index($2, top) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount -l
	rm -rf --one-file-system "$work"
}
trap cleanup EXIT
mkdir -p "$build" "$work/tree"

install_build_packages
say "Preparing a real model"
make_python numpy safetensors==0.8.0 huggingface_hub
fetch_model

say "Installing a fresh Debian: $suite"
if [ -n "${FRESH-}" ]; then
	cp -a "$FRESH/." "$work/tree"
else
	make_tree "$suite" "$work/tree" "$build/acceptance.log" || { echo "skipped: mmdebstrap failed"; exit 77; }
fi

# SOURCE BUILD: for this system or another
# shellcheck disable=SC2016 # the shell that runs it expands these
build_packages='
	cmake -S "$1" -B "$2" -DCMAKE_INSTALL_PREFIX=/usr -DBUILD_TESTING=OFF -DWCX_WERROR=ON -DWCX_CUDA=${WCX_CUDA-OFF}
	cmake --build "$2" -j "$(nproc)"
	cd "$2"
	rm -f ./*.deb
	cpack
'
say "Building packages"
if [ "$suite" = "$host_suite" ]; then
	install_packages dpkg-dev
	packages=$build/packages
	bash -euc "$build_packages" bash "$root" "$packages" >"$build/acceptance.log" 2>&1 ||
		{ tail -n 30 "$build/acceptance.log"; exit 1; }
else
	cp -a "$work/tree" "$work/builder"
	mkdir "$work/builder/src"
	(cd "$root" && git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C "$work/builder/src")
	# shellcheck disable=SC2016
	in_tree "$work/builder" '
		. /src/tests/prepare.sh
		install_build_packages
		install_packages dpkg-dev file
		'"$build_packages" /src /src/build >"$build/acceptance.log" 2>&1 ||
		{ tail -n 30 "$build/acceptance.log"; exit 1; }
	packages=$work/builder/src/build
fi

mkdir "$work/tree/acceptance"
cp "$packages"/*.deb "$root"/tests/acceptance_steps.sh "$root"/tests/acceptance_load.py "$root"/tests/fixtures/*.py \
	"$build/model/model.safetensors" "$work/tree/acceptance"
if [ "$suite" = "$host_suite" ]; then # this machine's Python packages fit the tree's Python
	python=${TORCH-$build/venv}
	mkdir "$work/tree/acceptance/site"
	mount --bind "$("$python/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" "$work/tree/acceptance/site"
fi
in_tree "$work/tree" 'bash /acceptance/acceptance_steps.sh'
in_tree "$work/tree" 'bash /acceptance/acceptance_steps.sh install_service'
boot_tree "$work/tree" 'bash /acceptance/acceptance_steps.sh service' || [ $? = 77 ]
