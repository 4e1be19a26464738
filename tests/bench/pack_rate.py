#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""pack_rate.py [OPTIONS] - times the whole of `wcx pack`, beside zstd on all threads, ZipNN and one core's SHA-256.

Generates weights (INT8: Gaussian, sigma 33.6; BF16: Gaussian, sigma 0.02), reads them into the page cache, and lets all take
turns: `wcx pack`, which verifies and hashes; `zstd -3 -T0` and `zstd -19 -T0`; ZipNN from memory to memory, with all threads;
SHA-256 of the file on one core.  Whatever packs must give the original back before it is timed.  With --files N, N files are
packed side by side by N processes, each with its share of the cores.  `encode_rate` tells what the encoders do alone.

With --base DRIFT, the weights are a base's after Gaussian drift of DRIFT standard deviations, and `wcx pack --base` takes turns with
the others, against the packed base.

Needs numpy, and wcx; peers that are missing are left out and named.
"""
import argparse
import hashlib
import importlib.util
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np
import setting

sys.path.append(setting.FIXTURES)
from safetensors_io import read_header, to_bf16  # noqa: E402

BLOCK = 1 << 20
SIGMA_INT8, SIGMA_BF16 = 33.6, 0.02


class Missing(Exception):
    pass


def digest(path):
    """The SHA-256, from buffers of 1 MiB as OpenSSL gets them in wcx."""
    sha, block = hashlib.sha256(), bytearray(BLOCK)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            sha.update(memoryview(block)[:count])
    return sha.hexdigest()


def same(path, other):
    with open(path, "rb") as a, open(other, "rb") as b:
        while True:
            block = a.read(BLOCK)
            if block != b.read(BLOCK):
                sys.exit(f"pack_rate.py: {other} differs from {path}")
            if not block:
                return


class Wcx:
    suffix = "wcx"

    def __init__(self, program, threads, bases=None):
        self.program, self.options, self.bases = program, ["-j", str(threads)] if threads else [], bases
        self.name = "wcx pack" + (f" -j {threads}" if threads else "") + (" --base" if bases else "")

    def start(self, source, target):
        base = self.bases[source] if self.bases else "none"
        return subprocess.Popen([self.program, "pack", "-q", f"--base={base}", *self.options, source, target])

    def unpack(self, packed, target):
        subprocess.run([self.program, "unpack", "-q", packed, target], check=True)


class Zstd:
    suffix = "zst"

    def __init__(self, level, threads):
        if not shutil.which("zstd"):
            raise Missing(f"zstd -{level}: no program zstd")
        self.level, self.threads, self.name = level, threads, f"zstd -{level} -T{threads}"

    def start(self, source, target):
        return subprocess.Popen(["zstd", "-q", f"-{self.level}", f"-T{self.threads}", source, "-o", target])

    def unpack(self, packed, target):
        subprocess.run(["zstd", "-q", "-d", packed, "-o", target], check=True)


class Zipnn:
    """In a process of its own, which prints how long packing took: starting Python and reading the file do not count."""

    suffix = "znn"
    SCRIPT = """
import sys, time
sys.path[:0] = [sys.argv[4]]
import peers
codec = peers.Zipnn(threads=int(sys.argv[5]))
part = peers.Part(open(sys.argv[1], "rb").read(), sys.argv[3])
start = time.perf_counter()
packed = codec.pack(part)
print(time.perf_counter() - start, len(packed))
if sys.argv[2] and bytes(codec.unpack(packed, part)) != part.data:
    sys.exit("ZipNN unpacked to other bytes")
"""

    def __init__(self, dtype, threads):
        if not importlib.util.find_spec("zipnn"):
            raise Missing("ZipNN: no module zipnn")
        self.dtype, self.threads, self.name = dtype, threads or os.cpu_count(), "ZipNN, in memory"

    def run(self, source, verify):
        out = subprocess.run([sys.executable, "-c", self.SCRIPT, source, "1" if verify else "", self.dtype,
                              os.path.dirname(os.path.abspath(__file__)), str(self.threads)],
                             check=True, capture_output=True, text=True).stdout.split()
        return float(out[0]), int(out[1])


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def packed_path(directory, number, codec):
    return os.path.join(directory, f"{number}.{codec.suffix}")


def pack(codec, sources, directory):
    """Packs all sources side by side; returns seconds, CPU seconds and bytes, and leaves nothing."""
    cpu, start = cpu_seconds(), time.perf_counter()
    children = [codec.start(source, packed_path(directory, i, codec)) for i, source in enumerate(sources)]
    if any([child.wait() for child in children]):
        sys.exit(f"pack_rate.py: {codec.name} failed")
    taken = time.perf_counter() - start
    size = 0
    for i in range(len(sources)):
        size += os.path.getsize(packed_path(directory, i, codec))
        os.unlink(packed_path(directory, i, codec))
    return taken, cpu_seconds() - cpu, size


def verify(codec, source, directory):
    packed, back = packed_path(directory, "check", codec), os.path.join(directory, "back")
    if codec.start(source, packed).wait():
        sys.exit(f"pack_rate.py: {codec.name} failed")
    codec.unpack(packed, back)
    same(source, back)
    os.unlink(packed)
    os.unlink(back)


def generate(args, directory):
    paths = []
    for i in range(args.files):
        paths.append(os.path.join(directory, f"{i}.safetensors"))
        subprocess.run([sys.executable, os.path.join(setting.FIXTURES, "make_int8.py"), "--only", args.dtype,
                        "--mib", str(args.mib), "--seed", str(i + 1), paths[-1]], check=True)
    return paths


def drift(args, path, base):
    """Writes the weights of base to path, each moved by --base standard deviations."""
    random, step = np.random.default_rng(1), 1 << 22
    with open(base, "rb") as file:
        _, _, begin = read_header(file)
    shutil.copyfile(base, path)
    data = np.memmap(path, np.int8 if args.dtype == "int8" else np.uint16, "r+", offset=begin)
    sigma = args.base * (SIGMA_INT8 if args.dtype == "int8" else SIGMA_BF16)
    for at in range(0, len(data), step):
        part = data[at : at + step]
        moved = random.standard_normal(len(part), np.float32) * np.float32(sigma)
        if args.dtype == "int8":
            part[:] = np.clip(part + np.rint(moved), -127, 127)
        else:
            part[:] = np.frombuffer(to_bf16((part.astype(np.uint32) << 16).view(np.float32) + moved), np.uint16)
    data.flush()


def generate_relatives(args, directory, bases, program):
    """Returns relatives of the generated files, and the packed base of each; the bases go."""
    packed = {}
    for i, base in enumerate(bases):
        path = os.path.join(directory, f"relative-{i}.safetensors")
        drift(args, path, base)
        packed[path] = os.path.join(directory, f"base-{i}.wcx")
        subprocess.run([program, "pack", "-q", "--base=none", base, packed[path]], check=True)
        os.unlink(base)
    return packed


def find_codecs(args, bases):
    share = max(2, os.cpu_count() // args.files) if args.files > 1 else 0
    wcx = setting.program(args.wcx, args.build, "wcx")
    makers = [lambda: Wcx(wcx, args.threads or share)]
    if bases:
        makers.append(lambda: Wcx(wcx, args.threads or share, bases))
    makers += [lambda level=level: Zstd(level, args.threads or share) for level in args.levels]
    codecs, missing = [], []
    for make in makers:
        try:
            codecs.append(make())
        except Missing as error:
            missing.append(str(error))
    return codecs, missing


def row(name, seconds, cpu, total, packed):
    rates = sorted(total / s / 1e9 for s in seconds)
    per_core = f"{total / statistics.median(cpu) / 1e9:.2f}" if cpu else "–"
    ratio = f"{total / packed:.4f}" if packed else "–"
    spread = f"{statistics.median(rates):.2f} ({rates[0]:.2f}–{rates[-1]:.2f})"
    return [name, f"{statistics.median(seconds):.2f}", spread, per_core, ratio]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=512, help="MiB of a file (512)")
    parser.add_argument("--dtype", choices=["int8", "bf16"], default="int8")
    parser.add_argument("--files", type=int, default=1, help="pack so many side by side")
    parser.add_argument("--base", type=float, metavar="DRIFT", help="also pack against a base, from which the weights drifted")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of each process; default: all cores, or their share")
    parser.add_argument("--levels", type=lambda text: [int(n) for n in text.split(",") if n], default=[3, 19],
                        help="of zstd (3,19); empty: none")
    parser.add_argument("--without-zipnn", action="store_true")
    parser.add_argument("--build", default="build")
    parser.add_argument("--wcx", help="the program, if not in the build directory")
    parser.add_argument("--dir", help="directory for sources and outputs, such as one in memory; default: temporary")
    return parser.parse_args()


def main():
    args = parse()
    print(setting.origin())
    zipnn = None
    with setting.working_directory(args.dir) as directory:
        sources, bases = generate(args, directory), None
        if args.base is not None:
            bases = generate_relatives(args, directory, sources, setting.program(args.wcx, args.build, "wcx"))
            sources = list(bases)
        codecs, missing = find_codecs(args, bases)
        try:
            if args.files == 1 and not args.without_zipnn:
                zipnn = Zipnn({"int8": "I8", "bf16": "BF16"}[args.dtype], args.threads)
        except Missing as error:
            missing.append(str(error))
        total = sum(os.path.getsize(source) for source in sources)
        times = {codec.name: [] for codec in codecs}
        sha, zipped = [], []
        for codec in codecs:
            verify(codec, sources[0], directory)
        if zipnn:
            zipnn.run(sources[0], True)
        for _ in range(args.rounds):
            for codec in codecs:
                times[codec.name].append(pack(codec, sources, directory))
            start = time.perf_counter()
            digest(sources[0])
            sha.append(time.perf_counter() - start)
            if zipnn:
                zipped.append(zipnn.run(sources[0], False))
        for path in [*sources, *(bases or {}).values()]:
            os.unlink(path)
    rows = [row(codec.name, *zip(*[(t, c) for t, c, _ in times[codec.name]]), total, times[codec.name][-1][2])
            for codec in codecs]
    if zipnn:
        rows.append(row(zipnn.name, [s for s, _ in zipped], None, total, zipped[-1][1]))
    one = total / args.files
    rows.append(row("SHA-256 of one file, one core", sha, None, one, None))
    print(f"{args.files} × {args.mib} MiB of {args.dtype.upper()}, median of {args.rounds} rounds in turn "
          "(slowest–fastest); all verified.\n")
    print(setting.markdown_table(["program", "seconds", "GB/s", "GB per CPU second", "ratio"], rows))
    ours = [t for t, _, _ in times[codecs[0].name]]
    for codec in codecs[1:]:
        theirs = [t for t, _, _ in times[codec.name]]
        print(f"\n{codecs[0].name} takes {statistics.median(a / b for a, b in zip(ours, theirs)):.2f} × as long as {codec.name}")
    if args.files == 1:
        print(f"\n{codecs[0].name} is {statistics.median(b / a for a, b in zip(ours, sha)):.2f} × as fast as SHA-256 on one core")
    encoders = os.path.join(args.build, "tests", "bench", "encode_rate")
    if os.access(encoders, os.X_OK):
        print("\nThe encoders alone: threads, GB/s, GB per CPU second, weights\n")
        print(subprocess.run([encoders], check=True, capture_output=True, text=True).stdout)
    for what in missing:
        print(f"left out: {what}")


if __name__ == "__main__":
    main()
