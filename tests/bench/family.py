#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""family.py [options] FAMILY_DIR - compares the bytes of a store of a model and its relatives, by wcx and others.

FAMILY_DIR is what train_family.py writes: base/model.safetensors, and model.safetensors of the relatives below lr-*/ and
run/checkpoint-*/.  Every program (family_peers.py) packs every file, restores it, and must give the same bytes; only then its
sizes and CPU times count.  Prints a table of whole stores: bytes, share of the originals, and CPU seconds for a relative.

With --speed, also times packing against the base and alone, and cold reads of a mounted relative packed against the base and
alone, in turn; for these the tensors are repeated under other names (--copies).

--json keeps all sizes and times in a file, from which family_chart.py draws.  What it already has for the same files is not
measured again, except the programs named by --again.
"""
import argparse
import contextlib
import filecmp
import glob
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time

import family_peers
import mount
import peers
import setting

from safetensors_io import build_header, read_header  # found by way of peers

BASE = "base"
ROTATED_ROWS = 37
READS = {"mmap": ("mmap", 1024), "read 1 MiB": ("read", 1024), "8 threads, O_DIRECT 1 MiB": ("direct:8", 1024)}


def natural(label):
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", label)]


def find_files(directory):
    """Returns paths by label, the base first, then checkpoints in order, then fine-tunes by learning rate."""
    found = {os.path.relpath(os.path.dirname(path), directory): os.path.abspath(path)
             for path in glob.glob(os.path.join(directory, "**", "model.safetensors"), recursive=True)}
    runs = sorted((label for label in found if label.startswith("run")), key=natural)
    rates = sorted((label for label in found if label.startswith("lr-")), key=lambda label: float(label[3:]))
    return {label: found[label] for label in [BASE, *runs, *rates]}


def cpu_seconds():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def timed(function, *arguments):
    """Returns the CPU time of this process and its children: what else runs on the machine changes it little."""
    start = cpu_seconds()
    function(*arguments)
    return cpu_seconds() - start


class Family:
    """The files, where packed ones go, and what is known of them: sizes and times by program and label."""

    def __init__(self, args, workdir):
        self.files, self.workdir = find_files(args.family), workdir
        self.bytes = {label: os.path.getsize(path) for label, path in self.files.items()}
        stamps = {label: [os.path.getsize(path), os.stat(path).st_mtime_ns] for label, path in self.files.items()}
        self.json, self.known = args.json, {"files": stamps, "results": {}}
        if args.json and os.path.exists(args.json):
            with open(args.json) as file:
                known = json.load(file)
            current = [label for label, stamp in stamps.items() if known["files"].get(label) == stamp]
            for name, results in known["results"].items() if BASE in current else ():
                if name not in args.again:
                    self.known["results"][name] = {label: results[label] for label in current if label in results}

    def save(self):
        if self.json:
            with open(self.json + ".part", "w") as file:
                json.dump(self.known, file, indent=1)
            os.rename(self.json + ".part", self.json)

    def results(self, name):
        return self.known["results"].setdefault(name, {})

    def base_path(self, codec):
        """wcx needs its packed base, which is made here if needed."""
        if not isinstance(codec, family_peers.Wcx):
            return self.files[BASE]
        path = os.path.join(self.workdir, "base.wcx")
        if not os.path.exists(path):
            family_peers.WcxAlone(codec.program).pack(None, self.files[BASE], path)
        return path

    def measure(self, codec, label):
        packed, restored = (os.path.join(self.workdir, name) for name in ("packed", "restored"))
        if isinstance(codec, family_peers.WcxAlone):
            packed, restored = packed + ".wcx", restored + ".safetensors"
        base, path = self.base_path(codec), self.files[label]
        pack_s = timed(codec.pack, base, path, packed)
        unpack_s = timed(codec.unpack, base, packed, restored)
        if not filecmp.cmp(path, restored, shallow=False):
            raise peers.Failed(f"{codec.name}: {label} is restored to other bytes")
        self.results(codec.name)[label] = {"bytes": os.path.getsize(packed), "pack_s": pack_s, "unpack_s": unpack_s}
        os.remove(packed)
        os.remove(restored)
        self.save()

    def measure_all(self, codecs):
        for codec in codecs.values():
            for label in self.files:
                if label not in self.results(codec.name) and not (label == BASE and codec.needs_base):
                    print(f"{codec.name}: {label}", file=sys.stderr)
                    self.measure(codec, label)

    def sizes(self, codec):
        """Returns packed bytes by label; the base's are those of the program that packs it."""
        sizes = {label: result["bytes"] for label, result in self.results(codec.name).items()}
        return {BASE: self.results(family_peers.base_codec(codec))[BASE]["bytes"], **sizes}


def spread(values, digits=1):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def share(part, whole):
    return f"{100 * part / whole:.2f} %" if whole else "–"


def store_table(family, codecs):
    """Whole stores: those of programs that were measured on all files."""
    total, runs = sum(family.bytes.values()), [label for label in family.files if label.startswith("run")]
    rates = [label for label in family.files if label.startswith("lr-")]
    groups = {BASE: [BASE], f"{len(runs)} checkpoints": runs, **{label: [label] for label in rates}}
    rows, totals = [["originals", f"{total:,}", "100 %", *["100 %"] * len(groups), "–", "–"]], {}
    for codec in codecs.values():
        sizes, results = family.sizes(codec), family.results(codec.name)
        totals[codec.name] = sum(sizes.values())
        rows.append([codec.name, f"{totals[codec.name]:,}", share(totals[codec.name], total)]
                    + [share(sum(sizes[label] for label in group), sum(family.bytes[label] for label in group))
                       for group in groups.values()]
                    + [spread([results[label][key] for label in runs + rates]) for key in ("pack_s", "unpack_s")])
    head = ["store by", "bytes", "of the originals", *groups, "CPU s to pack a relative", "CPU s to restore it"]
    return head, rows, totals


def report_stores(family, codecs):
    missing = [f"{codec.name}: {label}" for codec in codecs.values() for label in family.files if label not in family.sizes(codec)]
    if missing:
        raise peers.Failed("not measured: " + ", ".join(missing))
    head, rows, totals = store_table(family, codecs)
    print(f"{len(family.files)} files; every one was restored and compared. CPU times: median of the "
          f"{len(family.files) - 1} relatives (least–most), 1 thread except wcx.\n")
    print(setting.markdown_table(head, rows))
    best = min((name for name in totals if not isinstance(codecs[name], family_peers.WcxAlone)), key=totals.get)
    if family_peers.Wcx.name in totals:
        print(f"\nwcx : the best of the others ({best}) = {totals[family_peers.Wcx.name] / totals[best]:.3f} by bytes of the store")


def rotate(data, tensors, number):
    """Moves the rows of each tensor down by a number that differs from copy to copy: equal tensors would be packed and decoded once."""
    blocks = []
    for t in sorted(tensors, key=lambda t: t.begin):
        rows = t.shape[0] if len(t.shape) > 1 else 1
        at = t.begin + (t.end - t.begin) // max(rows, 1) * (number * ROTATED_ROWS % max(rows, 1))
        blocks += [data[at : t.end], data[t.begin : at]]
    return b"".join(blocks)


def repeat(path, target, copies):
    """Writes a file with each tensor several times under names of its own, and in other orders of its rows."""
    with open(path, "rb") as file:
        tensors, metadata, begin = read_header(file)
        file.seek(begin)
        data = file.read()
    repeated = []
    for i in range(copies):
        for t in tensors:
            at = i * len(data)
            repeated.append(type(t)(f"{i}.{t.name}", t.dtype, t.shape, at + t.begin, at + t.end))
    family_peers.write(target, build_header(repeated, metadata), *[rotate(data, tensors, i) for i in range(copies)])


class Speed:
    """The base and a relative, larger; the relative packed alone in one store, against the base in another."""

    def __init__(self, family, args, workdir):
        self.args, self.wcx = args, setting.program(args.wcx, args.build, "wcx")
        self.daemon = setting.program(args.wcxfs, args.build, "wcxfs")
        self.reader = setting.program(None, args.build, "tests/bench/reader")
        self.mountpoint, self.log = os.path.join(workdir, "mnt"), os.path.join(workdir, "log")
        os.makedirs(self.mountpoint, exist_ok=True)
        self.stores = {kind: os.path.join(workdir, kind) for kind in ("alone", "against")}
        for store in self.stores.values():
            shutil.rmtree(store, ignore_errors=True)
            os.mkdir(store)
        self.base, self.relative = (os.path.join(workdir, f"{name}.safetensors") for name in ("base", "relative"))
        repeat(family.files[BASE], self.base, args.copies)
        repeat(family.files[args.speed], self.relative, args.copies)
        self.gb = os.path.getsize(self.relative) / 1e9
        self.packed_base = os.path.join(self.stores["against"], "base.safetensors.wcx")
        self.run_wcx("pack", self.base, self.packed_base)

    def run_wcx(self, *arguments):
        subprocess.run([self.wcx, arguments[0], "-q", *arguments[1:]], check=True)

    def pack(self, kind):
        target = os.path.join(self.stores[kind], "relative.safetensors.wcx")
        with contextlib.suppress(FileNotFoundError):
            os.remove(target)
        option = "--base=none" if kind == "alone" else f"--base={self.packed_base}"
        start, cpu = time.perf_counter(), cpu_seconds()
        self.run_wcx("pack", option, self.relative, target)
        return time.perf_counter() - start, cpu_seconds() - cpu

    def read(self, kind, mode, block_kib):
        """One cold read through a fresh mount; returns seconds, the CPU seconds of the daemon, and the reader's checksum."""
        store = self.stores[kind]
        mount.bring_in([os.path.join(store, name) for name in os.listdir(store)])
        command = [self.daemon, store, self.mountpoint, "-f", "-o", f"decoder={self.args.decoder}"]
        with mount.mounted(command, self.mountpoint, self.log) as process:
            start_s = mount.cpu_s(process)
            done = subprocess.run([self.reader, mode, str(block_kib), os.path.join(self.mountpoint, "relative.safetensors")],
                                  capture_output=True, text=True)
            if done.returncode:
                raise peers.Failed(done.stderr.strip())
            usage = mount.Usage()
            usage.note(process, mode, True, 1, start_s)
        _, _, seconds, _, _, checksum = done.stdout.split()
        return float(seconds), usage.cold_cpu_s[mode][0], checksum

    def verify(self):
        for kind in self.stores:
            self.pack(kind)
            restored = self.relative + ".restored"
            self.run_wcx("unpack", os.path.join(self.stores[kind], "relative.safetensors.wcx"), restored)
            if not filecmp.cmp(self.relative, restored, shallow=False):
                raise peers.Failed(f"packed {kind}, {self.args.speed} is restored to other bytes")
            os.remove(restored)

    def measure(self):
        """Returns (seconds, CPU seconds) by what is done and kind, one a round."""
        self.verify()
        figures, sums = {}, {}
        for _ in range(self.args.rounds):
            for kind in self.stores:
                figures.setdefault(("wcx pack", kind), []).append(self.pack(kind))
            for name, (mode, block_kib) in READS.items():
                for kind in self.stores:
                    seconds, cpu, checksum = self.read(kind, mode, block_kib)
                    figures.setdefault((f"cold read, {name}", kind), []).append((seconds, cpu))
                    if sums.setdefault(mode, checksum) != checksum:
                        raise peers.Failed(f"{name}, {kind}: reads other bytes")
        return figures

    def report(self):
        figures, rows = self.measure(), []
        for what in dict.fromkeys(what for what, _ in figures):
            alone, against = figures[what, "alone"], figures[what, "against"]
            rows.append([what, *[spread([self.gb / s for s, _ in values], 2) for values in (alone, against)],
                         spread([a / b for (a, _), (b, _) in zip(alone, against)], 2),
                         *[spread([cpu / self.gb for _, cpu in values], 2) for values in (alone, against)],
                         spread([a / b for (_, a), (_, b) in zip(alone, against)], 2)])
        print(f"\n{self.args.speed} × {self.args.copies}, {1e3 * self.gb:.0f} MB; median of {self.args.rounds} rounds in turn "
              "(least–most); both were restored and compared first, and all reads have the same checksum.\n")
        print(setting.markdown_table(["", "alone: GB/s", "against the base: GB/s", "of alone", "alone: CPU s/GB",
                                      "against the base: CPU s/GB", "of alone, by CPU time"], rows))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", metavar="FAMILY_DIR")
    parser.add_argument("--json", metavar="FILE", help="keep all figures in FILE")
    parser.add_argument("--again", default=[], type=lambda text: text.split(","), metavar="NAME,...",
                        help="measure these programs again")
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="NAME,...", help="only these programs")
    parser.add_argument("--without-wcx", action="store_true", help="only the peers")
    parser.add_argument("--without-stores", action="store_true", help="only --speed")
    parser.add_argument("--speed", metavar="LABEL", help="also time packing and reading this relative, such as lr-2e-5")
    parser.add_argument("--copies", type=int, default=8, help="how often --speed repeats the tensors (default: 8)")
    parser.add_argument("--decoder", default="cpu", help="of the mount (default: cpu)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of --speed (default: 5)")
    parser.add_argument("--build", default="build", help="build directory with the programs (default: build)")
    parser.add_argument("--wcx", help="the program wcx (default: that of --build)")
    parser.add_argument("--wcxfs", help="the program wcxfs (default: that of --build)")
    parser.add_argument("--workdir", help="directory for generated files (default: a temporary one)")
    return parser.parse_args()


def run(args, workdir):
    print(setting.origin() + family_peers.versions() + "\n")
    family = Family(args, workdir)
    if not args.without_stores:
        codecs = family_peers.all_codecs(None if args.without_wcx else setting.program(args.wcx, args.build, "wcx"))
        chosen = {name: codec for name, codec in codecs.items() if not args.only or name in args.only}
        family.measure_all(chosen)
        report_stores(family, chosen)
    if args.speed:
        Speed(family, args, workdir).report()


def main():
    args = parse_arguments()
    try:
        with setting.working_directory(args.workdir) as workdir:
            run(args, workdir)
    except (peers.Failed, mount.Failed, ImportError, OSError, subprocess.SubprocessError) as failure:
        sys.exit(f"family.py: {failure}")


if __name__ == "__main__":
    main()
