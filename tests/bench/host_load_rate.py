#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""host_load_rate.py PACKED ORIGINAL [--rounds N] - times loading a model file into tensors on the CPU.

Alternates, from the page cache, between

  wcx               the Python package on the packed file: decoded by all cores straight into the tensors
  mount, read(2)    reading the file once through a fresh mount, nothing decoded, in blocks of 1 MiB into one buffer
  mount, tensors    safetensors on a fresh mount, copied
  raw, tensors      safetensors on the original, copied

Compares the tensors first.  Prints medians with the slowest and the fastest round, in bytes of tensors per second.  Needs
numpy (torch for BF16 and FP8), safetensors and permission to mount; WCX_BUILD is the folder with wcxfs and libwcx.so (default: build/).
"""
import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

try:  # numpy lacks some types
    import torch
except ImportError:
    torch = None

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BUILD = os.environ.get("WCX_BUILD", os.path.join(ROOT, "build"))
os.environ.setdefault("WCX_LIBRARY", os.path.join(BUILD, "libwcx.so"))
sys.path.insert(0, os.path.join(ROOT, "tools", "python"))
import wcx  # noqa: E402
from safetensors import safe_open  # noqa: E402

BLOCK = 1 << 20
FRAMEWORK = "pt" if torch else "np"


def arrays(path):
    """Loads all tensors; copies, so that nothing is left to page faults."""
    tensors = {}
    with safe_open(path, framework=FRAMEWORK) as file:
        for name in file.keys():
            tensor = file.get_tensor(name)
            tensors[name] = tensor.clone() if torch else np.array(tensor)
    return tensors


def same(a, b):
    if torch:
        return a.dtype == b.dtype and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def read_through(path):
    buffer = bytearray(BLOCK)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def mounted(packed, load):
    """Runs load on the file that a fresh mount shows; returns what it returned, and its seconds."""
    work = tempfile.mkdtemp(dir=os.path.dirname(os.path.abspath(packed)))
    store, mount_point = os.path.join(work, "store"), os.path.join(work, "mount")
    os.mkdir(store)
    os.mkdir(mount_point)
    try:
        os.link(packed, os.path.join(store, "model.safetensors.wcx"))
        subprocess.run([os.path.join(BUILD, "wcxfs"), store, mount_point], check=True, stderr=subprocess.DEVNULL)
        try:
            return timed(load, os.path.join(mount_point, "model.safetensors"))
        finally:
            subprocess.run(["umount", mount_point], check=True)
    finally:
        shutil.rmtree(work)


def timed(load, path):
    start = time.perf_counter()
    result = load(path)
    return result, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packed")
    parser.add_argument("original")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    ways = {
        "wcx": lambda: timed(lambda path: wcx.load_file(path, framework=FRAMEWORK), args.packed),
        "mount, read(2)": lambda: mounted(args.packed, read_through),
        "mount, tensors": lambda: mounted(args.packed, arrays),
        "raw, tensors": lambda: timed(arrays, args.original),
    }
    expected = arrays(args.original)
    for way in ("wcx", "mount, tensors"):
        found = ways[way]()[0]
        assert found.keys() == expected.keys()
        assert all(same(found[name], expected[name]) for name in expected), way
    total = sum(tensor.nbytes for tensor in expected.values())
    del expected, found
    seconds = {way: [] for way in ways}
    for _ in range(args.rounds):
        for way, run in ways.items():
            seconds[way].append(run()[1])
    print(f"{len(os.sched_getaffinity(0))} cores, {os.path.basename(args.packed)}: {total / 1e9:.2f} GB of tensors, "
          f"packed {os.path.getsize(args.packed) / 1e9:.2f} GB")
    for way in ways:
        rates = sorted(total / s / 1e9 for s in seconds[way])
        print(f"  {way:16s} {statistics.median(rates):6.2f} GB/s ({rates[0]:.2f} to {rates[-1]:.2f})")
    for peer in list(ways)[1:]:
        print(f"  wcx / {peer:16s} {statistics.median(seconds[peer]) / statistics.median(seconds['wcx']):.2f}")


if __name__ == "__main__":
    main()
