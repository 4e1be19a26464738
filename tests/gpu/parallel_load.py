#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""parallel_load.py PACKED ORIGINAL [--ranks N] [--rounds N] - loads a model as N processes of tensor parallelism do.

Rank r is a process of its own and loads the r-th part of the rows of each matrix, and all other tensors whole, to GPU
r modulo the number of GPUs.  Checks these tensors, by ranges and by safe_open's get_slice, against safetensors' get_slice of
the original.  Then all ranks load at the same time: prints the median of the rounds in bytes of tensors per second, of each
rank, and beside it one process that loads the whole file.  Needs torch, safetensors and a GPU; WCX_LIBRARY names libwcx.so.
Exits with 77 without a GPU.
"""
import argparse
import os
import statistics
import sys
import time

import safetensors
import torch
import torch.multiprocessing as processes

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools", "python"))
from wcx import File, Loader, safe_open  # noqa: E402

GET_SLICES = 20  # tensors that are also loaded by get_slice, one by one


def rows_of(shape, rank, ranks):
    """The rows that a rank has of a tensor; None: all of it, which is no matrix."""
    if len(shape) != 2 or shape[0] == 0:
        return None
    return shape[0] * rank // ranks, shape[0] * (rank + 1) // ranks


def ranges_of(file, rank, ranks):
    """(name, offset, bytes) of the part of each tensor that a rank has."""
    for name, info in file.tensors.items():
        rows = rows_of(info.shape, rank, ranks)
        row_bytes = info.bytes // info.shape[0] if rows else 0
        first, end = (rows[0] * row_bytes, rows[1] * row_bytes) if rows else (0, info.bytes)
        yield name, info.offset + first, end - first


def load(loader, path, rank, ranks):
    """One call for all parts; returns the buffer and where each part is in it."""
    with File(path) as file:
        parts, at = {}, 0
        for name, offset, size in ranges_of(file, rank, ranks):
            parts[name] = (offset, size, at)
            at += (size + 255) // 256 * 256
        buffer = torch.empty(at, dtype=torch.uint8, device=loader.device)
        loader.load_ranges(file, [(offset, size, buffer.data_ptr() + place) for offset, size, place in parts.values()])
    return buffer, parts


def raw(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8).cpu()


def check(packed, original, loader, rank, ranks):
    buffer, parts = load(loader, packed, rank, ranks)
    host, sliced = buffer.cpu(), 0
    with safetensors.safe_open(original, "pt") as theirs, safe_open(packed, "pt", device=str(loader.device)) as ours:
        for name, (_, size, at) in parts.items():
            view = theirs.get_slice(name)
            rows = rows_of(view.get_shape(), rank, ranks)
            want = raw(view[rows[0] : rows[1]] if rows else theirs.get_tensor(name))
            assert torch.equal(host[at : at + size], want), f"rank {rank}: {name}"
            if rows and sliced < GET_SLICES:
                part = ours.get_slice(name)[rows[0] : rows[1]]
                assert part.device == buffer.device and torch.equal(raw(part), want), f"rank {rank}: get_slice of {name}"
                sliced += 1
    return len(parts), sliced


def run_rank(rank, ranks, args, barrier, results):
    device = rank % torch.cuda.device_count()
    torch.cuda.set_device(device)
    loader = Loader(f"cuda:{device}", args.threads)
    count, sliced = check(args.packed, args.original, loader, rank, ranks)
    print(f"rank {rank} of {ranks} on cuda:{device}: {count} tensors, {sliced} of them also by get_slice, are correct", flush=True)
    rates = []
    for _ in range(args.rounds):
        barrier.wait()
        start = time.perf_counter()
        buffer, parts = load(loader, args.packed, rank, ranks)
        torch.cuda.synchronize()
        rates.append(sum(size for _, size, _ in parts.values()) / (time.perf_counter() - start) / 1e9)
        del buffer
    results.put((rank, rates))


def run(ranks, args):
    context = processes.get_context("spawn")
    barrier, results = context.Barrier(ranks), context.Queue()
    started = [context.Process(target=run_rank, args=(rank, ranks, args, barrier, results)) for rank in range(ranks)]
    for process in started:
        process.start()
    rates = []
    for process in started:
        process.join()
        if process.exitcode:
            for other in started:
                other.kill()
            sys.exit(f"a rank failed with {process.exitcode}")
    for _ in started:
        rates.append(results.get())
    for rank, of_rank in sorted(rates):
        print(f"  {ranks} rank(s), rank {rank}: {statistics.median(of_rank):6.1f} GB/s ({min(of_rank):.1f} to {max(of_rank):.1f})")
    return sum(statistics.median(of_rank) for _, of_rank in rates)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packed")
    parser.add_argument("original")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: no GPU")
        sys.exit(77)
    print(f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}, {os.cpu_count()} cores, {os.path.basename(args.packed)}")
    alone = run(1, args)
    together = run(args.ranks, args)
    print(f"  all ranks together {together:.1f} GB/s, one process {alone:.1f} GB/s")


if __name__ == "__main__":
    main()
