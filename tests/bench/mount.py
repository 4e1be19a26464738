#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""mount.py [options] [FILE.safetensors ...] - times reads from a mount, a raw file and a server that does no work.

Reads the file (by default 512 MiB of generated INT8) as model loaders do, first cold and then warm:

  raw file           cold: its pages were dropped from the page cache
  null server        a FUSE server that answers from memory: the upper bound of a mount.  Cold: freshly mounted
  null server, push  the same server, which also pushes the file into the page cache ahead of the reader
  wcxfs              cold: freshly mounted; the pages of the .wcx file are in the page cache, or not with --wcx-pages out

Each round measures all of them in turn.  First compares the SHA-256 of the mounted file, which also warms up; the checksums
of all reads must agree.  Prints the median of the rounds in GB/s with the slowest and the fastest, and for each server the
largest resident memory, the CPU time until it has mounted, and that of a cold read, including the kernel's work on behalf of
the server.
With --targets, it measures instead what a mount with decoder=auto should reach on a host with a GPU, of an INT8 and a BF16 file,
and prints each figure beside its target: one reader, eight with O_DIRECT, four files at once and random reads, CPU time,
memory, and with --disk reads from a disk.  On 16 cores, four rounds of two files of 2 GiB take under five minutes:

  mount.py --targets --packed --limit 290 --workdir /dev/shm/bench /dev/shm/int8 /dev/shm/bf16

Dropping all caches needs root; other users can only ask the kernel to drop the pages of the files.
"""
import argparse
import contextlib
import hashlib
import os
import select
import shutil
import statistics
import subprocess
import sys

import setting

READS = {  # name: heading, mode of the reader, KiB in a block
    "mmap": ("mmap", "mmap", 1024),
    "read": ("read 1 MiB", "read", 1024),
    "direct": ("O_DIRECT 1 MiB", "direct", 1024),
    "random": ("random 64 KiB", "random", 64),
    "direct8": ("8 threads, O_DIRECT 1 MiB", "direct:8", 1024),
    "read8": ("8 threads, read 16 MiB", "read:8", 16384),
}
DEFAULT_READS = "mmap,read,direct,random"
PUSHED = ["mmap", "read", "read8"]  # sequential reads through the page cache, which pushing helps
FILES_MAX = 4
MOUNT_POLL_MS = 100
STOP_S = 60


class Failed(Exception):
    pass


def drop_caches(paths, notes):
    try:
        with open("/proc/sys/vm/drop_caches", "w") as knob:
            knob.write("3")
    except OSError:
        notes.add("Could not drop all caches (not root?), only the pages of the files.")
        for path in paths:
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bring_in(paths):
    buffer = bytearray(1 << 20)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def wait_mounted(process, mountpoint):
    """Waits until the process has mounted; the kernel reports changes of /proc/self/mounts."""
    with open("/proc/self/mounts", "rb", buffering=0) as mounts:
        change = select.poll()
        change.register(mounts, select.POLLERR | select.POLLPRI)
        while process.poll() is None:
            mounts.seek(0)
            if f" {mountpoint} ".encode() in mounts.read():
                return
            change.poll(MOUNT_POLL_MS)
    raise Failed(f"{process.args[0]} ended with status {process.returncode}")


@contextlib.contextmanager
def mounted(command, mountpoint, log):
    """Runs a server in the foreground; enters when it has mounted, and terminates it on exit."""
    with open(log, "wb") as messages:
        process = subprocess.Popen(command, stderr=messages)
    try:
        wait_mounted(process, mountpoint)
        yield process
    except Failed as failure:
        with open(log, errors="replace") as messages:
            raise Failed(f"{failure}: {messages.read()}") from None
    finally:
        process.terminate()
        process.wait(STOP_S)


def peak_mib(process):
    """The largest resident memory of a process so far."""
    with open(f"/proc/{process.pid}/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return int(lines["VmHWM"].split()[0]) // 1024


def cpu_s(process):
    """The CPU time of a process so far, or 0 without one."""
    if not process:
        return 0.0
    with open(f"/proc/{process.pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Usage:
    """Memory and CPU time of the processes of a subject."""

    def __init__(self):
        self.peak_mib, self.start_cpu_s, self.cold_cpu_s = 0, [], {}

    def note(self, process, name, is_cold, gb, start_s):
        """start_s: the CPU time of the process when it had mounted."""
        self.peak_mib = max(self.peak_mib, peak_mib(process))
        if is_cold:
            self.start_cpu_s.append(start_s)
            self.cold_cpu_s.setdefault(name, []).append((cpu_s(process) - start_s) / gb)


class Raw:
    name, holds = "raw file", "file"
    reads = list(READS)

    def __init__(self, paths, notes):
        self.paths, self.notes = paths, notes

    @contextlib.contextmanager
    def fresh(self):
        drop_caches(self.paths, self.notes)
        yield self.paths, None


class Null:
    holds = "noise"

    def __init__(self, command, bench, push_threads):
        self.name = "null server, push" if push_threads else "null server"
        self.reads = PUSHED if push_threads else list(READS)
        self.mountpoint, self.log = bench.mountpoint, bench.log
        mib = max(1, -(-os.path.getsize(bench.raw[0]) // 2**20))
        self.command = [command, self.mountpoint, str(mib), str(push_threads)]
        self.paths = [os.path.join(self.mountpoint, str(i)) for i in range(len(bench.raw))]

    @contextlib.contextmanager
    def fresh(self):
        with mounted(self.command, self.mountpoint, self.log) as process:
            yield self.paths, process


class NullCopy(Null):
    """A null server that answers from a copy of the file in its memory, not from 64 MiB that stay in a core's cache."""
    holds = "file"

    def __init__(self, command, bench):
        super().__init__(command, bench, 0)
        self.name = "null server, copy"
        self.command[2] = os.path.join(os.path.dirname(bench.store), "copied")
        os.mkdir(self.command[2])
        os.symlink(bench.raw[0], os.path.join(self.command[2], "file"))
        self.paths = [os.path.join(self.mountpoint, "file")] * len(bench.raw)


class Wcxfs:
    holds = "file"
    reads = list(READS)

    def __init__(self, command, bench, kind, args, name):
        self.name, self.pages = name, args.wcx_pages
        self.mountpoint, self.log, self.notes = bench.mountpoint, bench.log, bench.notes
        options = ",".join(filter(None, [f"decoder={kind}", args.options]))
        self.command = [command, bench.store, self.mountpoint, "-f", "-o", options]
        self.decoder = "unknown"
        self.packed = [os.path.join(bench.store, name) for name in sorted(os.listdir(bench.store))]
        self.paths = [os.path.join(self.mountpoint, os.path.basename(path)[: -len(".wcx")]) for path in self.packed]

    @contextlib.contextmanager
    def fresh(self):
        if self.pages == "in":
            bring_in(self.packed)
        elif self.pages == "out":
            drop_caches(self.packed, self.notes)
        with mounted(self.command, self.mountpoint, self.log) as process:
            yield self.paths, process
        with open(self.log) as messages:
            said = [line.rsplit("decoding with ", 1)[1].strip() for line in messages if "decoding with " in line]
        self.decoder = said[0] if said else "unknown"


class Bench:
    """Files and directories of one measurement."""

    def __init__(self, args, workdir):
        self.notes = set()
        self.store, self.mountpoint = os.path.join(workdir, "store"), os.path.join(workdir, "mnt")
        self.log = os.path.join(workdir, "log")
        shutil.rmtree(self.store, ignore_errors=True)
        os.mkdir(self.store)
        os.makedirs(self.mountpoint, exist_ok=True)
        self.wcx = setting.program(args.wcx, args.build, "wcx")
        self.raw = [os.path.abspath(args.file) if args.file else self.generate(args.mib, workdir)]
        packed = os.path.join(self.store, "file0.safetensors.wcx")
        subprocess.run([self.wcx, "pack", "-q", self.raw[0], packed], check=True)
        for i in range(1, args.files):
            self.raw.append(shutil.copyfile(self.raw[0], os.path.join(workdir, f"file{i}.safetensors")))
            shutil.copyfile(packed, os.path.join(self.store, f"file{i}.safetensors.wcx"))
        os.sync()  # only clean pages can be dropped

    @staticmethod
    def generate(mib, workdir, dtype="int8"):
        path = os.path.join(workdir, f"{dtype}.safetensors")
        make = os.path.join(setting.FIXTURES, "make_int8.py")
        subprocess.run([sys.executable, make, path, "--only", dtype, "--mib", str(mib)], check=True)
        return path


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def verify(raw, wcxfs, count=None):
    """Compares the first count mounted files, or all, with the first raw one."""
    expected = sha256(raw[0])
    with wcxfs.fresh() as (paths, _):
        for path in paths[:count]:
            if sha256(path) != expected:
                raise Failed(f"{path} differs from {raw[0]}")


class Reader:
    """Runs the reader and checks its checksums."""

    def __init__(self, command):
        self.command = command
        self.sums = {}

    def read(self, subject, name, paths):
        """Returns GB/s and seconds, or None for both if the file system of the raw file lacks O_DIRECT."""
        _, mode, block_kib = READS[name]
        done = subprocess.run([self.command, mode, str(block_kib), *paths], capture_output=True, text=True)
        if done.returncode and mode.startswith("direct") and isinstance(subject, Raw):
            return None, None
        if done.returncode:
            raise Failed(done.stderr.strip())
        rate, _, seconds, _, _, checksum = done.stdout.split()
        self.check(subject, mode, checksum)
        return float(rate), float(seconds)

    def check(self, subject, mode, checksum):
        """Raw file and mount have equal contents, so all reads of a whole file must have the same sum."""
        key = subject.holds, "random" if mode == "random" else "whole"
        if self.sums.setdefault(key, checksum) != checksum:
            raise Failed(f"{subject.name}, {mode}: sum {checksum}, should be {self.sums[key]}")


def measure(subjects, names, reader, rounds):
    """Returns rates by (read, state, subject), one per round; and the usage of each subject that has a process."""
    rates, usages = {}, {}
    for _ in range(rounds):
        for name in names:
            for subject in subjects:
                if name not in subject.reads:
                    continue
                with subject.fresh() as (paths, process):
                    start_s = cpu_s(process)
                    for state in "cold", "warm":
                        rate, seconds = reader.read(subject, name, paths)
                        rates.setdefault((name, state, subject.name), []).append(rate)
                        if process:
                            usage = usages.setdefault(subject.name, Usage())
                            usage.note(process, name, state == "cold", rate * seconds, start_s)
    return rates, usages


def cell(values):
    if not values or None in values:
        return "–"
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def quotient(values, base):
    if not values or not base or None in base:
        return "–"
    return f"{statistics.median(values) / statistics.median(base):.2f}"


def report_usage(reads, usages):
    def seconds(usage, read):
        return f"{statistics.median(usage.cold_cpu_s[read]):.2f}" if read in usage.cold_cpu_s else "–"

    rows = [
        [name, str(usage.peak_mib), f"{statistics.median(usage.start_cpu_s):.2f}"] + [seconds(usage, read) for read in reads]
        for name, usage in usages.items()
    ]
    return setting.markdown_table(["server", "resident MiB, at most", "start: s"] + [f"{READS[read][0]}: s/GB" for read in reads], rows)


def report(subjects, reads, rates):
    names = [subject.name for subject in subjects]
    last, mounts = names[-1], [subject.name for subject in subjects if isinstance(subject, Wcxfs)]
    others = [name for name in names if name not in mounts]
    rows = []
    for read in reads:
        for state in "cold", "warm":
            values = {name: rates.get((read, state, name)) for name in names}
            # Ratios are those of the last mount; with several decoders, it is also compared with the best of the others.
            ratios = [quotient(values[last], values[name]) for name in others]
            if len(mounts) > 1:
                best = max((values[name] for name in mounts[:-1]), key=statistics.median)
                ratios.append(quotient(values[last], best))
            rows.append([READS[read][0], state] + [cell(values[name]) for name in names] + ratios)
    against = others + (["best other"] if len(mounts) > 1 else [])
    return setting.markdown_table(["read", "state"] + names + [f"{last} : {other}" for other in against], rows)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("originals", nargs="*", metavar="FILE.safetensors", help="one file; with --targets, any number")
    parser.add_argument("--mib", type=int, default=512, help="size of the generated file (default: 512)")
    parser.add_argument("--files", type=int, default=1, choices=range(1, FILES_MAX + 1), metavar="N",
                        help="read N copies at the same time, one thread per copy")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without-raw", action="store_true", help="omit the raw file")
    parser.add_argument("--without-null", action="store_true", help="omit the null servers")
    parser.add_argument("--reads", default=DEFAULT_READS, metavar="HOW,...",
                        help=f"kinds of reads, of {', '.join(READS)} (default: {DEFAULT_READS})")
    parser.add_argument("--decoder", default="cpu", metavar="KIND,...",
                        help="auto, cpu, cuda, or several of them to compare (default: cpu)")
    parser.add_argument("--options", default="", metavar="OPT,...", help="further options for wcxfs -o")
    parser.add_argument("--wcx-pages", default="in", choices=["in", "out"],
                        help="whether a cold mount finds the .wcx file in the page cache (default: in)")
    parser.add_argument("--targets", action="store_true", help="measure what a mount on a host with a GPU should reach")
    parser.add_argument("--packed", action="store_true", help="with --targets: each FILE.wcx is there, and need not be packed")
    parser.add_argument("--disk", metavar="DIR", help="with --targets: also read from this directory, on a disk")
    parser.add_argument("--limit", type=float, default=float("inf"), metavar="SECONDS",
                        help="with --targets: begin no round that might end later (default: no limit)")
    parser.add_argument("--push-threads", type=int, default=4, help="threads of the pushing null server (default: 4)")
    parser.add_argument("--build", default="build", help="build directory with the programs (default: build)")
    parser.add_argument("--wcx", help="the program wcx (default: that of --build)")
    parser.add_argument("--wcxfs", help="the program wcxfs (default: that of --build)")
    parser.add_argument("--ceilings", metavar="DIR", help="use DIR/nullfs and DIR/rd as null server and reader")
    parser.add_argument("--workdir", help="directory for generated files (default: a temporary one)")
    args = parser.parse_args()
    if not args.targets and len(args.originals) > 1:
        parser.error("several files are for --targets")
    args.file = args.originals[0] if args.originals else None
    return args


def run(args, workdir):
    null = setting.program(args.ceilings and os.path.join(args.ceilings, "nullfs"), args.build, "tests/bench/null_server")
    reader = setting.program(args.ceilings and os.path.join(args.ceilings, "rd"), args.build, "tests/bench/reader")
    daemon = setting.program(args.wcxfs, args.build, "wcxfs")
    origin = setting.origin()
    bench = Bench(args, workdir)
    kinds = args.decoder.split(",")
    reads = args.reads.split(",")
    if not set(reads) <= set(READS):
        raise Failed(f"--reads {args.reads}: must be some of {', '.join(READS)}")
    mounts = [Wcxfs(daemon, bench, kind, args, "wcxfs" if len(kinds) == 1 else f"wcxfs, {kind}") for kind in kinds]
    subjects = [] if args.without_raw else [Raw(bench.raw, bench.notes)]
    if not args.without_null:
        subjects += [Null(null, bench, 0), Null(null, bench, args.push_threads)]
    subjects += mounts
    for wcxfs in mounts:
        verify(bench.raw, wcxfs)
    rates, usages = measure(subjects, reads, Reader(reader), args.rounds)
    raw_bytes, packed_bytes = os.path.getsize(bench.raw[0]), os.path.getsize(mounts[0].packed[0])
    print(origin)
    print(f"{args.files} file(s) of {raw_bytes / 2**20:.1f} MiB, packed {packed_bytes / 2**20:.1f} MiB (page cache: "
          f"{args.wcx_pages} before a cold mount).")
    print("; ".join(f"{wcxfs.name}: {wcxfs.decoder}" for wcxfs in mounts) + ".")
    print(f"GB/s, median of {args.rounds} rounds (slowest–fastest); all sums agree.\n")
    print(report(subjects, reads, rates))
    print(f"\nResources of the servers; CPU seconds are those of the cold reads.\n\n{report_usage(reads, usages)}")
    print("\n".join([""] + sorted(bench.notes)), end="")


def run_in_directory(args, function):
    """Calls the function of a benchmark with arguments and a directory for files; exits with a message on failure."""
    try:
        with setting.working_directory(args.workdir) as workdir:
            function(args, workdir)
    except (Failed, OSError, subprocess.SubprocessError) as failure:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {failure}")


def main():
    args = parse_arguments()
    if args.targets:
        import mount_targets
    run_in_directory(args, mount_targets.run if args.targets else run)


if __name__ == "__main__":
    import mount  # under the name by which mount_targets knows this file

    mount.main()
