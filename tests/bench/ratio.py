#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ratio.py [options] FILE.safetensors... - compares the ratio of wcx with other codecs and the order-0 limit.

Prints for each file the packed size by wcx, its reference mode and its peers (see peers.py); the best peer is bold.  Prints
for each tensor bits per element; for wcx these include the tiles of the tensor, but not index and tables.  The limit is the
order-0 entropy of each byte of an element, with one distribution per byte position and tensor; distributions cost nothing,
and the limit of a file includes the header packed by zstd.

Every packed file and tensor must unpack to the same bytes.
"""
import argparse
import concurrent.futures
import filecmp
import json
import math
import os
import subprocess
import sys

import numpy as np
import peers
import setting

LIMIT, ZSTD = "order-0 limit", f"zstd -{peers.ZSTD_LEVEL}"
MODES = {"wcx": [], "wcx, reference": ["--mode=reference"]}


def pack(wcx, path, workdir, options):
    """Packs and unpacks a file; returns the output of wcx info."""
    packed, restored = os.path.join(workdir, "packed.wcx"), os.path.join(workdir, "restored.safetensors")
    subprocess.run([wcx, "pack", "-q", "--force", *options, path, packed], check=True)
    subprocess.run([wcx, "unpack", "-q", "--force", packed, restored], check=True)
    if not filecmp.cmp(path, restored, shallow=False):
        raise peers.Failed(f"{path}: wcx unpacked to other bytes")
    info = json.loads(subprocess.run([wcx, "info", "--json", packed], stdout=subprocess.PIPE, check=True).stdout)
    info["packed_bytes"] = os.path.getsize(packed)
    os.remove(packed)
    os.remove(restored)
    return info


def limit_bits(tensor):
    """Returns the order-0 entropy of each byte position of the elements, summed, in bits per element."""
    bits = 0.0
    for place in np.frombuffer(tensor.data, np.uint8).reshape(-1, tensor.elem_bytes).T:
        counts = np.bincount(place)
        share = counts[counts > 0] / len(place)
        bits -= float(share @ np.log2(share))
    return bits


class Subject:
    """One file: packed sizes by codec, and bits per element of its tensors by codec."""

    def __init__(self, path, model):
        self.path, self.model = path, model
        self.name = os.path.basename(path).removesuffix(".safetensors")
        self.sizes = {}
        self.bits = {tensor.name: {} for tensor in model.tensors}

    def pack_with_wcx(self, wcx, modes, workdir):
        for mode in modes:
            info = pack(wcx, self.path, workdir, MODES[mode])
            self.sizes[mode] = info["packed_bytes"]
            packed_bytes = {tensor["name"]: tensor["packed_bytes"] for tensor in info["tensors"]}
            for tensor in self.model.tensors:
                self.bits[tensor.name][mode] = bits_per_element(tensor, packed_bytes[tensor.name])

    def find_limit(self):
        total = 0.0
        for tensor in self.model.tensors:
            bits = self.bits[tensor.name][LIMIT] = limit_bits(tensor)
            total += bits * len(tensor.data) / tensor.elem_bytes / 8
        self.sizes[LIMIT] = math.ceil(total) + peers.header_bytes(self.model)

    def pack_with_peers(self, functions, pool):
        """zstd takes most of the time and runs in threads; meanwhile the others run one after another."""
        tensors = self.model.tensors if ZSTD in functions else []
        parts = [pool.submit(peers.packed_bytes, peers.Zstd(), tensor) for tensor in tensors]
        whole = {name: pool.submit(functions[name], self.model) for name in functions if name == ZSTD}
        sizes = {name: functions[name](self.model) for name in functions if name not in whole}
        self.sizes.update({name: whole[name].result() if name in whole else sizes[name] for name in functions})
        for tensor, part in zip(tensors, parts):
            self.bits[tensor.name][ZSTD] = bits_per_element(tensor, part.result())

    def as_json(self):
        tensors = [{"name": t.name, "dtype": t.dtype, "shape": t.shape, "bits": self.bits[t.name]}
                   for t in self.model.tensors]
        return {"name": self.name, "bytes": len(self.model.data), "sizes": self.sizes, "tensors": tensors}


def bits_per_element(tensor, packed_bytes):
    return 8 * packed_bytes * tensor.elem_bytes / len(tensor.data)


def difference(value, base):
    return f"{100 * (value / base - 1):+.2f} %"


def file_rows(subjects, peer_names):
    """Returns one row per codec with one column per file; the size of the best peer is bold."""
    best = [min((s.sizes[name] for name in peer_names), default=None) for s in subjects]
    rows = [["file as it is"] + [f"{len(s.model.data):,}" for s in subjects]]
    for name in subjects[0].sizes:
        cells = [f"{s.sizes[name]:,}" for s in subjects]
        rows.append([name] + [f"**{c}**" if name in peer_names and s.sizes[name] == b else c
                              for c, s, b in zip(cells, subjects, best)])
    rows.append([f"wcx against {LIMIT}"] + [difference(s.sizes["wcx"], s.sizes[LIMIT]) for s in subjects])
    if peer_names:
        rows.append(["wcx against the best peer"] + [difference(s.sizes["wcx"], b) for s, b in zip(subjects, best)])
    return rows


def tensor_row(tensor, bits):
    label = [tensor.name, tensor.dtype, "×".join(map(str, tensor.shape))]
    off = difference(bits["wcx"], bits[LIMIT]) if bits[LIMIT] else "–"
    return label + [f"{value:.4f}" for value in bits.values()] + [off]


def report(args, origin, subjects, peer_names):
    table = setting.markdown_table if args.markdown else setting.text_table
    print(origin)
    print("Bytes of whole files:\n")
    print(table(["codec"] + [s.name for s in subjects], file_rows(subjects, peer_names)))
    for subject in subjects:
        shown = sorted(subject.model.tensors, key=lambda t: -len(t.data))[: args.largest]
        head = ["tensor", "dtype", "shape", *subject.bits[shown[0].name], f"wcx against {LIMIT}"]
        print(f"\n{subject.name}, bits per element ({len(shown)} of {len(subject.model.tensors)} tensors):\n")
        print(table(head, [tensor_row(tensor, subject.bits[tensor.name]) for tensor in shown]))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE.safetensors")
    parser.add_argument("--build", default="build", help="build directory with the programs (default: build)")
    parser.add_argument("--wcx", help="the program wcx (default: that of --build)")
    parser.add_argument("--workdir", help="directory for generated files (default: a temporary one)")
    parser.add_argument("--largest", type=int, metavar="N", help="list only the N largest tensors of a file")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument("--json", metavar="FILE", help="also write all figures to FILE, for ratio_chart.py")
    parser.add_argument("--without", default=[], type=lambda text: text.split(","), metavar="NAME,...",
                        help=f"omit some of: reference, {', '.join(peers.FAMILIES)}")
    return parser.parse_args()


def run(args, workdir):
    wcx = setting.program(args.wcx, args.build, "wcx")
    families = [family for family in peers.FAMILIES if family not in args.without]
    modes = [mode for mode in MODES if not ("reference" in args.without and MODES[mode])]
    origin = setting.origin() + ", ".join(map(peers.version, families)) + "\n"
    functions = peers.load(families)
    subjects = [Subject(path, peers.Model(path)) for path in args.files]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for subject in subjects:
            subject.pack_with_wcx(wcx, modes, workdir)
            subject.find_limit()
            subject.pack_with_peers(functions, pool)
    report(args, origin, subjects, list(functions))
    if args.json:
        with open(args.json, "w") as file:
            json.dump([subject.as_json() for subject in subjects], file)


def main():
    args = parse_arguments()
    try:
        with setting.working_directory(args.workdir) as workdir:
            run(args, workdir)
    except (peers.Failed, ImportError, OSError, subprocess.SubprocessError) as failure:
        sys.exit(f"ratio.py: {failure}")


if __name__ == "__main__":
    main()
