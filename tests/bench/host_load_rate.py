#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""host_load_rate.py PACKED ORIGINAL [--rounds N] - times loading a model file into numpy arrays on the CPU.

Alternates, from the page cache, between

  wcx               the Python package on the packed file: decoded by all cores straight into the arrays
  mount, read(2)    reading the file once through a fresh mount, nothing decoded, in blocks of 1 MiB into one buffer
  mount, arrays     safetensors on a fresh mount, copied into arrays
  raw, arrays       safetensors on the original, copied into arrays

Compares the tensors first.  Prints medians with the slowest and the fastest round, in bytes of tensors per second.  Needs
numpy, safetensors and permission to mount; WCX_BUILD is the folder with wcxfs and libwcx.so (default: build/).
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

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BUILD = os.environ.get("WCX_BUILD", os.path.join(ROOT, "build"))
os.environ.setdefault("WCX_LIBRARY", os.path.join(BUILD, "libwcx.so"))
sys.path.insert(0, os.path.join(ROOT, "tools", "python"))
import wcx  # noqa: E402
from safetensors import safe_open  # noqa: E402

BLOCK = 1 << 20


def arrays(path):
    """Loads what numpy has types for; copies, so that nothing is left to page faults."""
    tensors = {}
    with safe_open(path, framework="np") as file:
        for name in file.keys():
            tensors[name] = np.array(file.get_tensor(name))
    return tensors


def read_through(path):
    buffer = bytearray(BLOCK)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def mounted(packed, load):
    """Runs load on the file that a fresh mount shows; returns what it returned, and its seconds."""
    work = tempfile.mkdtemp()
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
        "wcx": lambda: timed(wcx.load_file, args.packed),
        "mount, read(2)": lambda: mounted(args.packed, read_through),
        "mount, arrays": lambda: mounted(args.packed, arrays),
        "raw, arrays": lambda: timed(arrays, args.original),
    }
    expected = arrays(args.original)
    for way in ("wcx", "mount, arrays"):
        found = ways[way]()[0]
        assert found.keys() == expected.keys()
        assert all(found[name].tobytes() == expected[name].tobytes() for name in expected), way
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
