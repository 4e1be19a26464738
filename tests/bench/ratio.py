#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ratio.py [options] FILE.safetensors... - how small wcx makes models, beside zstd -19 and the order-0 limit.

For each tensor: bits per element as wcx packs it, as zstd -19 packs the tensor's bytes, and the limit of any code that
takes the bytes of an element one by one (order 0).  For each file: the ratio, which for wcx counts header and index, and
for the limit neither packs the header nor counts an index or a table.  Both programs have to give the input back.
zstd is the program or the Python package (zstandard, or Python 3.14); without either its columns stay empty.
"""
import argparse
import concurrent.futures
import filecmp
import json
import math
import os
import shutil
import subprocess
import sys

import setting

sys.path.insert(0, setting.TESTS)
from safetensors_io import ELEM_BYTES  # noqa: E402

LEVEL = 19


def program_zstd():
    path = shutil.which("zstd")

    def run(data, *options):
        return subprocess.run([path, "-q", "-c", *options], input=data, stdout=subprocess.PIPE, check=True).stdout

    if path is None:
        return None
    return lambda data: run(data, f"-{LEVEL}", "--no-check", f"--stream-size={len(data)}"), lambda data, _: run(data, "-d")


def package_zstd():
    try:
        import zstandard
    except ImportError:
        return None
    return zstandard.ZstdCompressor(level=LEVEL).compress, zstandard.ZstdDecompressor().decompress


def standard_zstd():
    try:
        from compression import zstd
    except ImportError:
        return None
    return lambda data: zstd.compress(data, level=LEVEL), lambda data, _: zstd.decompress(data)


def zstd_bytes(zstd, data):
    """The size of data packed by zstd, once that is known to give data back."""
    compress, decompress = zstd
    packed = compress(data)
    if decompress(packed, len(data)) != data:
        sys.exit("ratio.py: zstd gave other bytes back")
    return len(packed)


def pack(wcx, path, workdir):
    """Packs and restores a file; returns what wcx info says of it."""
    packed, restored = os.path.join(workdir, "packed.wcx"), os.path.join(workdir, "restored.safetensors")
    subprocess.run([wcx, "pack", "-q", "--force", path, packed], check=True)
    subprocess.run([wcx, "unpack", "-q", "--force", packed, restored], check=True)
    if not filecmp.cmp(path, restored, shallow=False):
        sys.exit(f"ratio.py: {path}: wcx gave other bytes back")
    info = json.loads(subprocess.run([wcx, "info", "--json", packed], stdout=subprocess.PIPE, check=True).stdout)
    os.remove(packed)
    os.remove(restored)
    return info


class Tensor:
    def __init__(self, info):
        self.label = [info["name"], info["dtype"], "×".join(map(str, info["shape"]))]
        self.offset, self.bytes, self.packed_bytes = info["offset"], info["bytes"], info["packed_bytes"]
        self.elements = self.bytes // ELEM_BYTES.get(info["dtype"], 1)
        self.limit_bytes = info["entropy_bits_per_element"] * self.elements / 8
        self.zstd_bytes = None

    def row(self):
        return self.label + [bits(b, self.elements) for b in (self.packed_bytes, self.zstd_bytes, self.limit_bytes)]


def bits(packed_bytes, elements):
    return "–" if packed_bytes is None else f"{8 * packed_bytes / elements:.4f}"


def ratio(original_bytes, packed_bytes):
    return f"{original_bytes / packed_bytes:.4f}" if packed_bytes else "–"


class Model:
    def __init__(self, wcx, path, workdir):
        info = pack(wcx, path, workdir)
        self.path, self.bytes, self.packed_bytes = path, info["bytes"], info["packed_bytes"]
        self.tensors = [Tensor(t) for t in info["tensors"] if t["bytes"]]
        self.zstd_bytes = None
        self.limit_bytes = self.bytes - sum(t.bytes - t.limit_bytes for t in self.tensors)

    def pack_with_zstd(self, zstd, pool):
        with open(self.path, "rb") as file:
            data = file.read()
        whole = pool.submit(zstd_bytes, zstd, data)
        parts = [pool.submit(zstd_bytes, zstd, data[t.offset : t.offset + t.bytes]) for t in self.tensors]
        for tensor, part in zip(self.tensors, parts):
            tensor.zstd_bytes = part.result()
        self.zstd_bytes = whole.result()

    def row(self):
        sizes = (self.packed_bytes, self.zstd_bytes, self.limit_bytes)
        return [os.path.basename(self.path), f"{self.bytes / 2**20:.1f}"] + [ratio(self.bytes, size) for size in sizes]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE.safetensors")
    parser.add_argument("--build", default="build", help="where the programs were built (default: build)")
    parser.add_argument("--wcx", help="the program wcx, if not the build's")
    parser.add_argument("--workdir", help="directory for the files that are made (default: a temporary one)")
    parser.add_argument("--largest", type=int, default=math.inf, metavar="N", help="list only the N largest tensors of a file")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument("--no-zstd", action="store_true", help="leave zstd out, which takes most of the time")
    return parser.parse_args()


def report(args, origin, models, zstd):
    table = setting.markdown_table if args.markdown else setting.text_table
    columns = ["wcx", f"zstd -{LEVEL}", "order-0 limit"]
    print(origin)
    if not zstd:
        print("zstd was left out.\n" if args.no_zstd else "There is no zstd here, neither the program nor the package.\n")
    print("Ratio of whole files:\n")
    print(table(["file", "MiB"] + columns, [model.row() for model in models]))
    for model in models:
        shown = sorted(model.tensors, key=lambda t: -t.bytes)[: min(args.largest, len(model.tensors))]
        print(f"\n{os.path.basename(model.path)}, bits per element ({len(shown)} of {len(model.tensors)} tensors):\n")
        print(table(["tensor", "dtype", "shape"] + columns, [tensor.row() for tensor in shown]))


def main():
    args = parse_arguments()
    wcx = setting.program(args.wcx, args.build, "wcx")
    origin = setting.origin()
    zstd = None if args.no_zstd else program_zstd() or package_zstd() or standard_zstd()
    with setting.working_directory(args.workdir) as workdir, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        models = [Model(wcx, path, workdir) for path in args.files]
        for model in models if zstd else []:
            model.pack_with_zstd(zstd, pool)
    report(args, origin, models, zstd)


if __name__ == "__main__":
    main()
