#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""filesystems.py [options] [FILE] - compares a mounted store with the kernel's file systems that compress.

Packs a file (by default 512 MiB of generated INT8) with each, mounts the result, and reads the file as loaders do, cold:
none of its pages are in the page cache.  The packed bytes are there (--packed in, the default: the cost of decompression) or
not (--packed out: that of the disk, too).

  squashfs    zstd, blocks of 1 MiB (squashfs-tools)
  erofs       lz4hc (erofs-utils)
  btrfs       compress-force=zstd (btrfs-progs)
  wcxfs       also with -o prefetch=0

Each round measures all of them in turn; the checksums of all reads must agree.  Prints bytes on disk, and the median of the
rounds in GB/s with the slowest and the fastest.  Needs root and loop devices; skips what is not installed.
"""
import argparse
import contextlib
import os
import shutil
import subprocess

import mount
import setting

MODES = {"mmap": ("mmap", 1024), "read 1 MiB": ("read", 1024)}
BTRFS_SPARE = 256 << 20


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Image:
    """An image file mounted by the kernel."""

    def __init__(self, name, tool, path, source, mountpoint, options="loop,ro"):
        self.name, self.tool, self.path, self.source = name, tool, path, source
        self.mountpoint, self.options = mountpoint, options
        self.file = os.path.join(mountpoint, os.path.basename(source))

    def is_there(self):
        return shutil.which(self.tool) is not None

    def make(self):
        if self.tool == "mksquashfs":
            run("mksquashfs", self.source, self.path, "-comp", "zstd", "-b", "1M", "-noappend")
        else:
            folder = self.path + ".d"
            os.mkdir(folder)
            os.link(self.source, os.path.join(folder, os.path.basename(self.source)))
            run("mkfs.erofs", "-zlz4hc", self.path, folder)
            shutil.rmtree(folder)

    def size(self):
        return os.path.getsize(self.path)

    @contextlib.contextmanager
    def fresh(self):
        run("mount", "-o", self.options, self.path, self.mountpoint)
        try:
            yield self.file
        finally:
            run("umount", self.mountpoint)


class Btrfs(Image):
    def make(self):
        with open(self.path, "wb") as image:
            image.truncate(os.path.getsize(self.source) + BTRFS_SPARE)
        run("mkfs.btrfs", "-f", "-m", "single", self.path)
        run("mount", "-o", "loop,compress-force=zstd", self.path, self.mountpoint)
        try:
            self.empty = shutil.disk_usage(self.mountpoint).used
            shutil.copyfile(self.source, self.file)
            os.sync()
            self.used = shutil.disk_usage(self.mountpoint).used - self.empty
        finally:
            run("umount", self.mountpoint)

    def size(self):
        return self.used


class Wcxfs:
    def __init__(self, name, daemon, packer, store, source, mountpoint, log, options):
        self.name, self.packer, self.source, self.mountpoint, self.log = name, packer, source, mountpoint, log
        self.path = os.path.join(store, os.path.basename(source) + ".wcx")
        self.command = [daemon, store, mountpoint, "-f", "-o", options]

    def is_there(self):
        return True

    def make(self):
        if not os.path.exists(self.path):
            run(self.packer, "pack", "-q", self.source, self.path)

    def size(self):
        return os.path.getsize(self.path)

    @contextlib.contextmanager
    def fresh(self):
        with mount.mounted(self.command, self.mountpoint, self.log):
            yield os.path.join(self.mountpoint, os.path.basename(self.source))


def read(reader, label, path, sums):
    mode, block_kib = MODES[label]
    done = subprocess.run([reader, mode, str(block_kib), path], capture_output=True, text=True, check=True)
    rate, *_, total = done.stdout.split()
    sums.add(total)
    if len(sums) > 1:
        raise mount.Failed(f"{path}: its sum {total} differs from the others")
    return float(rate)


def measure(subjects, reader, args):
    rates, sums = {}, set()
    for _ in range(args.rounds):
        for label in MODES:
            for subject in subjects:
                mount.drop_caches([subject.path], set())
                if args.packed == "in":
                    mount.bring_in([subject.path])
                with subject.fresh() as path:
                    rates.setdefault((label, subject.name), []).append(read(reader, label, path, sums))
    return rates


def report(subjects, rates, raw_bytes):
    rows = []
    for subject in subjects:
        size = subject.size()
        rows.append([subject.name, f"{size:,}", f"{raw_bytes / size:.4f}"] +
                    [mount.cell(rates[label, subject.name]) for label in MODES])
    return setting.markdown_table(["file system", "bytes", "ratio"] + [f"{label}, GB/s" for label in MODES], rows)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?")
    parser.add_argument("--mib", type=int, default=512, help="size of the generated file (default: 512)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--decoder", default="cpu", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--packed", default="in", choices=["in", "out"])
    parser.add_argument("--build", default="build", help="build directory with the programs (default: build)")
    parser.add_argument("--workdir", help="directory for generated files (default: a temporary one)")
    return parser.parse_args()


def compare(args, workdir):
    origin = setting.origin()
    daemon = setting.program(None, args.build, "wcxfs")
    packer = setting.program(None, args.build, "wcx")
    reader = setting.program(None, args.build, "tests/bench/reader")
    source = os.path.abspath(args.file) if args.file else mount.Bench.generate(args.mib, workdir)
    store, mountpoint, log = (os.path.join(workdir, name) for name in ("store", "mnt", "log"))
    os.mkdir(store)
    os.mkdir(mountpoint)
    place = os.path.join(workdir, "image")
    options = f"decoder={args.decoder}"
    subjects = [
        Image("squashfs, zstd -b 1M", "mksquashfs", place + ".squashfs", source, mountpoint),
        Image("erofs, lz4hc", "mkfs.erofs", place + ".erofs", source, mountpoint),
        Btrfs("btrfs, zstd", "mkfs.btrfs", place + ".btrfs", source, mountpoint),
        Wcxfs("wcxfs, prefetch=0", daemon, packer, store, source, mountpoint, log, options + ",prefetch=0,readahead=128K"),
        Wcxfs("wcxfs", daemon, packer, store, source, mountpoint, log, options),
    ]
    subjects = [subject for subject in subjects if subject.is_there()]
    for subject in subjects:
        subject.make()
    os.sync()
    rates = measure(subjects, reader, args)
    print(origin)
    print(f"{os.path.getsize(source) / 2**20:.1f} MiB; packed bytes {args.packed} the page cache before each read; median of "
          f"{args.rounds} rounds (slowest–fastest); all sums agree.\n")
    print(report(subjects, rates, os.path.getsize(source)))


def main():
    mount.run_in_directory(parse_arguments(), compare)


if __name__ == "__main__":
    main()
