#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Checks everything that needs a real GPU: first correctness, then speed.
#
#   gpu_suite.sh [FILE.wcx ...]      packed models, in addition to synthetic ones
#
# WCX_BUILD is the build folder of wcx, wcxfs, libwcx.so, gpu_check, gpu_checksum_check and gpu_rate (default: build/); PYTHON
# is a Python with numpy, torch and safetensors.  The mount needs root.  Without compute-sanitizer (CUDA Toolkit) that part is skipped.
# SKIP="tiles files load stream mount sanitizer bench" skips these parts.
set -euo pipefail
tests=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "${WCX_BUILD:-$tests/../build}" && pwd)
PYTHON=${PYTHON:-python3}
SKIP=${SKIP:-}
export WCX_LIBRARY=$build/libwcx.so
gpu_rate=$build/tests/bench/gpu_rate
work=$(mktemp -d)
mkdir -p "$work/store/family" "$work/original/family" "$work/mnt"

cleanup() {
	! mountpoint -q "$work/mnt" || umount "$work/mnt"
	rm -rf "$work"
}
trap cleanup EXIT

part() {
	printf '\n== %s (%d s)\n' "$*" "$SECONDS"
}

wanted() {
	[[ " $SKIP " != *" $1 "* ]]
}

# with_mount OPTIONS COMMAND... - run the command while the store is mounted
with_mount() {
	"$build/wcxfs" "$work/store" "$work/mnt" -o "$1"
	"${@:2}"
	umount "$work/mnt"
}

same_bytes() {
	local file

	for file in "$work"/original/* "$work"/original/family/*; do
		[ -d "$file" ] || cmp "$file" "$work/mnt/${file#"$work/original/"}"
	done
	echo "all files through the mount are equal to the originals"
}

# same_family - the relatives through the mount, of which the GPU must have decoded most
same_family() {
	local file

	for file in "$work"/original/family/*-tuned; do
		cmp "$file" "$work/mnt/family/$(basename "$file")"
	done
	"$build/wcx" status --json "$work/mnt" | "$PYTHON" -c 'import json, sys
decoded = json.load(sys.stdin)["decoded"]
print(decoded)
assert decoded["gpu"]["bytes"] > 9 * decoded["cpu"]["bytes"]'
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader || true
grep -m1 'model name' /proc/cpuinfo || true

if wanted tiles; then
	part "Generated tiles, valid and damaged, against the CPU"
	"$build/gpu_checksum_check"
	"$build/gpu_check"
fi

part "Synthetic files: INT8 of 2 GiB, BF16 of 512 MiB, INT8 of 64 MiB in reference mode, and all dtypes"
"$PYTHON" "$tests/fixtures/make_int8.py" "$work/original/gaussian" --only int8 --mib 2048
"$PYTHON" "$tests/fixtures/make_int8.py" "$work/original/bf16" --only bf16 --mib 512
"$build/wcx" pack "$work/original/gaussian" "$work/store/gaussian.wcx"
"$build/wcx" pack "$work/original/bf16" "$work/store/bf16.wcx"
"$PYTHON" "$tests/fixtures/make_int8.py" "$work/original/reference" --only int8 --mib 64
"$build/wcx" pack --mode=reference "$work/original/reference" "$work/store/reference.wcx"
"$PYTHON" "$tests/fixtures/make_int8.py" "$work/mixed" --mib 64
"$build/wcx" pack "$work/mixed" "$work/mixed.wcx"
for dtype in BF16 F32 I8; do
	"$PYTHON" "$tests/fixtures/weight_family.py" "$work/$dtype" 0.002 --dtype "$dtype"
	mv "$work/$dtype/base/model.safetensors" "$work/original/family/$dtype"
	mv "$work/$dtype/tuned-1/model.safetensors" "$work/original/family/$dtype-tuned"
	"$build/wcx" pack "$work/original/family/$dtype" "$work/store/family/$dtype.wcx"
	"$build/wcx" pack --base="$work/store/family/$dtype.wcx" "$work/original/family/$dtype-tuned" \
		"$work/store/family/$dtype-tuned.wcx"
done
for file in "$@"; do
	name=$(basename "$file" .wcx)
	cp "$file" "$work/store/$name.wcx"
	"$build/wcx" unpack --decoder=cpu "$file" "$work/original/$name"
done

if wanted files; then
	part "Every tile of every file against the CPU"
	"$build/gpu_check" "$work"/store/*.wcx "$work/mixed.wcx"
	"$build/wcx" verify -v --decoder=cuda "$work"/store/*.wcx "$work"/store/family/*.wcx "$work/mixed.wcx"
fi

if wanted load; then
	part "Loading into GPU memory"
	"$PYTHON" "$tests/gpu/gpu_load_check.py" "$work/mixed.wcx" "$work/mixed" \
		"$work/store/reference.wcx" "$work/original/reference"
	for dtype in BF16 F32 I8; do
		"$PYTHON" "$tests/gpu/gpu_load_check.py" "$work/store/family/$dtype-tuned.wcx,$work/store/family/$dtype.wcx" \
			"$work/original/family/$dtype-tuned"
	done
	"$PYTHON" "$tests/gpu/parallel_load.py" "$work/mixed.wcx" "$work/mixed" --rounds 1
fi

# within_budget - the same, and what is pinned, of tiles and of buffers, is part of a cache of 64 MiB
within_budget() {
	same_bytes
	"$build/wcx" status --json "$work/mnt" | "$PYTHON" -c 'import json, sys
status = json.load(sys.stdin)
gpu, cache = status["gpu_memory"], status["cache"]
print(gpu, cache["budget_bytes"])
assert 0 < gpu["buffer_bytes"] <= 16 << 20 and gpu["buffer_bytes"] + cache["budget_bytes"] == 64 << 20
assert gpu["buffer_bytes"] / 2 < gpu["pinned_bytes"] <= 64 << 20'
}

if wanted stream && "$PYTHON" -c "import transformers" 2>/dev/null; then
	part "Models whose weights stay packed"
	"$PYTHON" "$tests/gpu/gpu_stream_check.py" "$build/wcx"
fi

if wanted mount; then
	part "The mount"
	with_mount decoder=cuda same_bytes
	with_mount decoder=cuda same_family
	with_mount decoder=cuda,cache_size=64M within_budget
	export WCX_GPU_FAIL_AFTER=20
	echo "the GPU lost after 20 batches:"
	"$build/wcx" verify -v --decoder=cuda "$work"/store/*.wcx 2>&1 | tee "$work/lost"
	grep -q "the GPU failed" "$work/lost"
	with_mount decoder=cuda same_bytes
	unset WCX_GPU_FAIL_AFTER
	with_mount decoder=cuda "$PYTHON" - "$work/original" "$work/mnt" <<'END'
import os, sys, time
import torch
from safetensors.torch import load_file

def load(path):
    start = time.perf_counter()
    tensors = load_file(path, device="cuda")
    torch.cuda.synchronize()
    return tensors, os.path.getsize(path) / (time.perf_counter() - start) / 1e9

torch.zeros(1, device="cuda")
for name in sorted(name for name in os.listdir(sys.argv[1]) if name != "family"):
    (mounted, cold), (_, warm) = (load(os.path.join(sys.argv[2], name)) for _ in range(2))
    original, raw = load(os.path.join(sys.argv[1], name))
    assert mounted.keys() == original.keys()
    assert all(torch.equal(mounted[k].view(torch.uint8), original[k].view(torch.uint8)) for k in original)
    print(f"{name}: {len(original)} tensors on {torch.cuda.get_device_name()}, all equal; "
          f"load_file: mount cold {cold:.2f} GB/s, mount warm {warm:.2f}, original from the page cache {raw:.2f}")
END
fi

if wanted sanitizer && command -v compute-sanitizer >/dev/null; then
	# One thread: racecheck sometimes deadlocks when several threads launch kernels.
	for tool in memcheck initcheck synccheck racecheck; do
		part "compute-sanitizer, $tool"
		threads=()
		[ "$tool" != racecheck ] || threads=(--one-thread)
		timeout 150 compute-sanitizer --tool "$tool" --error-exitcode 9 "$build/gpu_check" "${threads[@]}" | tail -n 4
		timeout 60 compute-sanitizer --tool "$tool" --error-exitcode 9 "$build/gpu_checksum_check" | tail -n 4
	done
fi

if wanted bench; then
	part "Speed: decoding in GPU memory, in large and small batches, and from and to host memory"
	"$gpu_rate" "$work"/store/*.wcx
	"$gpu_rate" --latency "$work/store/gaussian.wcx"
	"$gpu_rate" --host "$work/store/gaussian.wcx"
	part "Speed: differences from a base, of weights that have drifted by 0.001 of their deviation, and the base"
	for dtype in BF16 I8; do
		"$PYTHON" "$tests/fixtures/make_drift.py" "$dtype" "$work/base" "$work/tuned"
		"$build/wcx" pack -f "$work/base" "$work/base.wcx"
		"$build/wcx" pack -f --base="$work/base.wcx" "$work/tuned" "$work/tuned.wcx"
		"$gpu_rate" --base "$work/base.wcx" "$work/tuned.wcx"
	done
	part "Speed: loading into GPU memory"
	for name in gaussian bf16; do
		"$PYTHON" "$tests/bench/load_rate.py" "$work/store/$name.wcx" "$work/original/$name"
	done
fi
part "Done"
