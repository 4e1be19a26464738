#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""load_rate.py PACKED ORIGINAL [--rounds N] [--threads N] - times loading a model file into GPU memory.

Alternates, from the page cache, between libwcx on the packed file and safetensors.torch.load_file on the original; both make
new torch tensors each time.  Compares the tensors first.  Prints medians with the slowest and the fastest round, in bytes of
tensors per second.  Needs torch, safetensors and a GPU; WCX_LIBRARY is the path of libwcx.so.
"""
import argparse
import os
import statistics
import sys
import time

import torch
from safetensors.torch import load_file

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools", "python"))
from wcx import File, Loader  # noqa: E402


def timed(load):
    torch.cuda.synchronize()
    start = time.perf_counter()
    tensors = load()
    torch.cuda.synchronize()
    return tensors, time.perf_counter() - start


def touch(path):
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def line(what, seconds, total):
    rates = sorted(total / s / 1e9 for s in seconds)
    print(f"  {what:34s} {statistics.median(rates):6.1f} GB/s ({rates[0]:.1f} to {rates[-1]:.1f})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packed")
    parser.add_argument("original")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    loader = Loader("cuda", args.threads)

    def ours():
        with File(args.packed) as file:
            return loader.load(file)

    def peer():
        return load_file(args.original, device="cuda")

    touch(args.packed)
    touch(args.original)
    mine, theirs = ours(), peer()
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor.view(-1).view(torch.uint8), theirs[name].view(-1).view(torch.uint8)), name
    total = sum(tensor.nbytes for tensor in mine.values())
    del mine, theirs
    seconds = ([], [])
    for _ in range(args.rounds):
        for load, into in zip((ours, peer), seconds):
            tensors, taken = timed(load)
            del tensors
            into.append(taken)
    print(f"{torch.cuda.get_device_name()}, {os.cpu_count()} cores, {os.path.basename(args.packed)}: {total / 1e9:.2f} GB of "
          f"tensors, packed {os.path.getsize(args.packed) / 1e9:.2f} GB")
    line("libwcx, packed", seconds[0], total)
    line("safetensors load_file, original", seconds[1], total)
    print(f"  ratio of medians {statistics.median(seconds[1]) / statistics.median(seconds[0]):.2f}")


if __name__ == "__main__":
    main()
