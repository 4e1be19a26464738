#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""load_rate.py [PACKED ORIGINAL ...] [--checkpoint PACKED ORIGINAL] [--rounds N] [--threads N] [--no-peer] - times loads.

For each packed file and its original, from the page cache, in turn in each round:
  link     a copy of as many bytes as the packed file has, from pinned memory: what the link to the GPU can do
  load     libwcx loads the packed file, which is open
  open     the same, and opens it first
  pinned   libwcx loads it from a copy in pinned memory, which was made once (wcx_file_pin)
  peer     safetensors.torch.load_file loads the original
For a checkpoint, a directory and what `wcx pack` made of it:
  directory    wcx.load_directory loads the packed files
  accelerated  transformers' AutoModelForCausalLM.from_pretrained loads the packed directory, with wcx.accelerate()
  transformers the same, unchanged, loads the original
  peer         safetensors.torch.load_file loads each file of the original
All make new torch tensors each time.  Compares the tensors first.  Prints medians with the slowest and the fastest round, in
bytes of tensors per second.  Needs torch and a GPU; WCX_LIBRARY is the path of libwcx.so.
"""
import argparse
import gc
import glob
import os
import statistics
import sys
import time

import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools", "python"))
from wcx import File, Loader, accelerate, load_directory  # noqa: E402


def seconds_of(load):
    torch.cuda.synchronize()
    start = time.perf_counter()
    kept = load()  # freed after the clock has stopped
    torch.cuda.synchronize()
    taken = time.perf_counter() - start
    del kept
    gc.collect()  # transformers' models have cycles
    return taken


def time_in_turn(ways, rounds):
    """Returns the seconds of each round for each of the named calls, which take turns; a round before is not counted."""
    seconds = {name: [] for name in ways}
    for way in ways.values():
        seconds_of(way)
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(seconds_of(way))
    return seconds


def touch(path):
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def compare(mine, theirs):
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor.view(-1).view(torch.uint8), theirs[name].view(-1).view(torch.uint8)), name
    return sum(tensor.nbytes for tensor in mine.values())


def rates(packed, original, loader, rounds, with_peer):
    """Returns bytes of tensors, seconds for pinning, and a dict of the seconds of each round."""
    from safetensors.torch import load_file

    size = os.path.getsize(packed)
    source = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(size, dtype=torch.uint8, device="cuda")

    def open_and_load():
        with File(packed) as file:
            return loader.load(file)

    touch(packed)
    touch(original)
    reference = load_file(original, device="cuda")
    total = compare(open_and_load(), reference)
    with File(packed) as file, File(packed) as pinned:
        start = time.perf_counter()
        loader.pin(pinned)
        pin_seconds = time.perf_counter() - start
        compare(loader.load(pinned), reference)
        del reference
        ways = {
            "link": lambda: target.copy_(source, non_blocking=True),
            "load": lambda: loader.load(file),
            "open": open_and_load,
            "pinned": lambda: loader.load(pinned),
        }
        if with_peer:
            ways["peer"] = lambda: load_file(original, device="cuda")
        seconds = time_in_turn(ways, rounds)
    return total, pin_seconds, seconds


def directory_rates(packed, original, rounds):
    """Returns bytes of tensors, and a dict of the seconds of each round."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()

    def raw():
        return {k: v for path in paths for k, v in load_file(path, device="cuda").items()}

    def pretrained(path):
        return AutoModelForCausalLM.from_pretrained(path, dtype="auto", device_map="cuda", local_files_only=True)

    def accelerated():
        with accelerate():
            return pretrained(packed)

    paths = sorted(glob.glob(os.path.join(original, "*.safetensors")))
    for path in paths + glob.glob(os.path.join(packed, "*.wcx")):
        touch(path)
    reference = raw()
    total = compare(load_directory(packed, device="cuda", framework="pt"), reference)
    theirs = pretrained(original).state_dict()
    compare(accelerated().state_dict(), theirs)
    del reference, theirs
    ways = {"directory": lambda: load_directory(packed, device="cuda", framework="pt"), "accelerated": accelerated,
            "transformers": lambda: pretrained(original), "peer": raw}
    return total, time_in_turn(ways, rounds)


def line(what, seconds, size):
    rates = sorted(size / s / 1e9 for s in seconds)
    print(f"  {what:58s} {statistics.median(rates):6.1f} GB/s ({rates[0]:.1f} to {rates[-1]:.1f})")
    return statistics.median(rates)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="PACKED ORIGINAL")
    parser.add_argument("--checkpoint", nargs=2, metavar=("PACKED", "ORIGINAL"), help="directories of a model")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--no-peer", action="store_true", help="do not time safetensors")
    args = parser.parse_args()
    if len(args.files) % 2:
        parser.error("packed files and originals come in pairs")
    loader = Loader("cuda", args.threads)
    print(f"{torch.cuda.get_device_name()}, {os.cpu_count()} cores, {args.rounds} rounds")
    for packed, original in zip(args.files[::2], args.files[1::2]):
        total, pin_seconds, seconds = rates(packed, original, loader, args.rounds, not args.no_peer)
        size = os.path.getsize(packed)
        print(f"{os.path.basename(packed)}: {total / 1e9:.3f} GB of tensors, packed {size / 1e9:.3f} GB")
        link = line("link: cudaMemcpy of pinned memory, packed bytes", seconds["link"], size)
        whole = line("wcx_load", seconds["load"], total)
        line("wcx_load, opened anew", seconds["open"], total)
        pinned = line("wcx_load, pinned", seconds["pinned"], total)
        if "peer" in seconds:
            line("safetensors load_file of the original", seconds["peer"], total)
        limit = link * total / size
        print(f"  link x ratio {limit:.1f} GB/s: wcx_load has {whole / limit:.2f} of it, pinned {pinned / limit:.2f}; "
              f"pinning took {pin_seconds:.2f} s ({size / pin_seconds / 1e9:.1f} GB/s packed)")
    if args.checkpoint:
        total, seconds = directory_rates(*args.checkpoint, args.rounds)
        print(f"{args.checkpoint[1]}: {total / 1e9:.3f} GB of tensors")
        line("wcx.load_directory", seconds["directory"], total)
        line("from_pretrained of the packed directory, wcx.accelerate()", seconds["accelerated"], total)
        line("from_pretrained of the original", seconds["transformers"], total)
        line("safetensors load_file of the original", seconds["peer"], total)


if __name__ == "__main__":
    main()
