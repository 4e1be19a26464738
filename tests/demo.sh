#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# The main use, from scratch: quantises and packs a trained model, mounts the store, and loads it with the unmodified safetensors package.
# Installs what it needs (Debian packages, and PyPI packages into build/).  Leaves no mount, and no files outside build/.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/prepare.sh"

work=
cleanup() {
	[ -z "$work" ] || { mountpoint -q "$work/mnt" && fusermount3 -u "$work/mnt"; rm -rf "$work"; }
}
trap cleanup EXIT

install_build_packages
say "Building wcx and wcxfs"
# shellcheck disable=SC2119 # without options
configure_build
make_targets wcx wcxfs
say "Getting a trained model (all-MiniLM-L6-v2) and turning its linear layers into INT8"
make_python numpy safetensors
fetch_model
work=$(mktemp -d)
mkdir "$work/store" "$work/mnt"
"$build/wcx" quantize "$build/model/minilm" "$work/original"

say "Packing it"
"$build/wcx" pack "$work/original/model.safetensors" "$work/store/model.safetensors.wcx"
"$build/wcx" info "$work/store/model.safetensors.wcx"

say "Mounting the store"
"$build/wcxfs" "$work/store" "$work/mnt"
ls -l "$work/store" "$work/mnt"

say "Loading it from the mount with safetensors"
"$PYTHON" - "$work/original/model.safetensors" "$work/mnt/model.safetensors" <<'END'
import hashlib, sys
import safetensors, safetensors.numpy
import numpy as np

original, mounted = sys.argv[1:]
digest = lambda path: hashlib.sha256(open(path, "rb").read()).hexdigest()
loaded, expected = (safetensors.numpy.load_file(path) for path in (mounted, original))
assert loaded.keys() == expected.keys()
assert all(loaded[name].tobytes() == expected[name].tobytes() for name in expected)
w = loaded["encoder.layer.0.attention.self.query.weight"]
print(f"safetensors {safetensors.__version__}: {len(loaded)} tensors, each equal to the original")
print(f"encoder.layer.0.attention.self.query.weight: {w.dtype} {w.shape}, mean {np.mean(w):.4f}, "
      f"first values {w.ravel()[:8].tolist()}")
print(f"SHA-256 of the original  {digest(original)}\nSHA-256 through the mount {digest(mounted)}")
assert digest(original) == digest(mounted)
END

say "Disk space"
before=$(stat -c %s "$work/original/model.safetensors")
after=$(stat -c %s "$work/store/model.safetensors.wcx")
fusermount3 -u "$work/mnt"
awk -v b="$before" -v a="$after" 'BEGIN {
	printf "%d bytes became %d: ratio %.4f, %d bytes (%.1f %%) saved\n", b, a, b / a, b - a, 100 * (b - a) / b
}'
