# SPDX-License-Identifier: MIT
"""What mount.py --targets measures: each figure that a mount on a host with a GPU should reach, beside its target.

For each file, rounds measure all servers in turn, in alternating order.  A server is mounted anew for each list of PLANS; what
one mount reads are copies of the packed file, one for each reader, so that all are cold.
"""
import dataclasses
import os
import shutil
import statistics
import subprocess
import sys
import time

import mount
import setting

NULL, COPY, PUSH, CPU, AUTO = "null server", "null server, copy", "null server, push", "wcxfs, cpu", "wcxfs, auto"
RAW = "raw file"
READERS = 4  # of as many files at the same time
COPIES = 2 * READERS
MEMORY_CACHE_MIB = 512  # at most; small, so that the reads fill it
MEMORY_MAX_MIB = 64
PRINT_CUDA_MIB = """
import ctypes
def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))
before, cuda, context = resident(), ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
assert cuda.cuInit(0) == 0 and cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
print((resident() - before) // 1024)
"""


@dataclasses.dataclass(frozen=True)
class Read:
    """A kind of mount.READS, of some files of a mount at the same time; warm: it is then repeated."""
    kind: str
    first: int
    files: int = 1
    warm: bool = False

    def heading(self):
        how = mount.READS[self.kind][0]
        return how if self.files == 1 else f"{self.files} files, {how}"


MMAP, READ, DIRECT, RANDOM = Read("mmap", 0), Read("read", 1), Read("direct8", 2, warm=True), Read("random", 3)
MMAP_FOUR, READ_FOUR = Read("mmap", 0, READERS), Read("read", READERS, READERS)
PLANS = {  # subject: mounts, and what is read in each
    NULL: [[DIRECT], [MMAP_FOUR, READ_FOUR]],
    COPY: [[DIRECT]],  # for information: a reply costs more where it does not come from a core's cache
    PUSH: [[MMAP, READ], [MMAP_FOUR, READ_FOUR]],
    CPU: [[RANDOM]],
    AUTO: [[RANDOM], [MMAP, READ], [DIRECT], [MMAP_FOUR, READ_FOUR]],
}
OTHERS = ["–"] * (len(PLANS) - 1)
TARGETS = [  # read, state, the best of which others is the measure, the least share of that
    (MMAP, "cold", [PUSH], 0.95),
    (READ, "cold", [PUSH], 0.95),
    (DIRECT, "cold", [NULL], 0.65),
    (DIRECT, "used", [NULL], 0.65),
    (DIRECT, "warm", [NULL], 0.8),
    (RANDOM, "cold", [CPU], 1.0),
    (MMAP_FOUR, "cold", [NULL, PUSH], 0.9),
    (READ_FOUR, "cold", [NULL, PUSH], 0.95),
]
CPU_TARGETS = [MMAP, READ, MMAP_FOUR, READ_FOUR]
CPU_MAX_S = 0.95
DISK_SHARE = 0.95  # of the raw file's rate times the ratio
DISK_ROUNDS = 3  # for each other one: disks vary more


class Sample:
    """A file with copies of its packed form, in a store of their own.  Has what the subjects of mount.py want of a Bench."""

    def __init__(self, original, packed, workdir, notes, copies=COPIES):
        self.name, self.notes = os.path.basename(original), notes
        self.raw, self.raw_bytes = [os.path.abspath(original)] * copies, os.path.getsize(original)
        self.store, self.mountpoint = os.path.join(workdir, "store"), os.path.join(workdir, "mnt")
        self.log = os.path.join(workdir, "log")
        shutil.rmtree(workdir, ignore_errors=True)
        os.makedirs(self.store)
        os.mkdir(self.mountpoint)
        for i in range(copies):
            shutil.copyfile(packed, os.path.join(self.store, f"file{i}.safetensors.wcx"))
        self.ratio = self.raw_bytes / os.path.getsize(packed)


class Measurement:
    """Rates and CPU seconds a GB by (subject, read, state), one for each round, and what else was measured once."""

    def __init__(self, reader_command):
        self.readers = {files: mount.Reader(reader_command) for files in (1, READERS)}
        self.rates, self.cpu_s = {}, {}

    def read(self, subject, read, paths, process):
        for state in ["cold", "warm"] if read.warm else ["cold"]:
            before_s = mount.cpu_s(process)
            rate, seconds = self.readers[read.files].read(subject, read.kind, paths[read.first:read.first + read.files])
            key = subject.name, read, state
            self.rates.setdefault(key, []).append(rate)
            self.cpu_s.setdefault(key, []).append((mount.cpu_s(process) - before_s) / (rate * seconds))

    def round(self, subjects):
        for subject in subjects:
            for plan in PLANS[subject.name]:
                with subject.fresh() as (paths, process):
                    for read in plan:
                        self.read(subject, read, paths, process)

    def used_round(self, subject):
        """Direct readers of a file that is not cached, in a mount whose cache another file has filled."""
        with subject.fresh() as (paths, _):
            for path in paths[DIRECT.first:DIRECT.first + 2]:
                rate, _ = self.readers[1].read(subject, DIRECT.kind, [path])
        self.rates.setdefault((subject.name, DIRECT, "used"), []).append(rate)


def cuda_mib():
    """The resident memory that CUDA itself takes: that by which another process grows when it opens the GPU; 0 without one."""
    done = subprocess.run([sys.executable, "-c", PRINT_CUDA_MIB], capture_output=True, text=True)
    return int(done.stdout) if done.returncode == 0 else 0


@dataclasses.dataclass(frozen=True)
class WcxfsArguments:
    wcx_pages: str  # "out": dropped from the page cache before each mount; "kept": as they are, since they were just written
    options: str


def with_cache(args, cache_bytes):
    """The same arguments with a cache of that size."""
    return dataclasses.replace(args, options=",".join(filter(None, [args.options, f"cache_size={cache_bytes}"])))


def memory_beyond_mib(daemon, sample, args, measurement):
    """The most resident memory of a mount beyond its cache_size and what CUDA takes, after reads that fill the cache."""
    cache_mib = min(MEMORY_CACHE_MIB, sample.raw_bytes >> 21)
    subject = mount.Wcxfs(daemon, sample, "auto", with_cache(args, cache_mib << 20), AUTO)
    with subject.fresh() as (paths, process):
        for read in DIRECT, MMAP_FOUR:
            measurement.readers[read.files].read(subject, read.kind, paths[read.first:read.first + read.files])
        return mount.peak_mib(process) - cache_mib - cuda_mib()


def measure_disk(daemon, sample, args, measurement, deadline):
    """Reads the original and the packed file from the disk, in rounds like the others."""
    workdir = os.path.join(args.disk, "wcx-mount-targets")
    try:
        disk = Sample(sample.raw[0], os.path.join(sample.store, "file0.safetensors.wcx"), workdir, sample.notes, copies=1)
        disk.raw = [shutil.copyfile(sample.raw[0], os.path.join(workdir, "original"))]
        os.sync()
        raw = mount.Raw(disk.raw, disk.notes)
        wcxfs = mount.Wcxfs(daemon, disk, "auto", WcxfsArguments("out", args.options), AUTO)
        for number in in_time(DISK_ROUNDS * args.rounds, deadline):
            for kind in "mmap", "read":
                for subject, state in [(raw, "disk"), (wcxfs, "disk")][::1 if number % 2 == 0 else -1]:
                    with subject.fresh() as (paths, _):
                        rate, _ = measurement.readers[1].read(subject, kind, paths[:1])
                        measurement.rates.setdefault((subject.name, kind, state), []).append(rate)
    finally:
        shutil.rmtree(workdir, ignore_errors=True)


def in_time(rounds, deadline):
    """Yields numbers of rounds, as long as another one as long as the longest so far ends before the deadline."""
    longest = 0
    for number in range(rounds):
        start = time.monotonic()
        if number and start + longest > deadline:
            return
        yield number
        longest = max(longest, time.monotonic() - start)


def verdict(reached, wanted, is_least, digits=2):
    reached = round(reached, digits)
    met = reached >= wanted if is_least else reached <= wanted
    return [f"{reached:.{digits}f}", f"{'≥' if is_least else '≤'} {wanted:.{digits}f}", "met" if met else "missed"]


def rate_rows(measurement):
    for read, state, others, least in TARGETS:
        values = {name: measurement.rates.get((name, read, "cold" if state == "used" and name != AUTO else state)) for name in PLANS}
        best = max((values[name] for name in others), key=statistics.median)
        reached = statistics.median(values[AUTO]) / statistics.median(best)
        heading = f"{read.heading()}, {'cold, used memory' if state == 'used' else state}: GB/s"
        yield [heading] + [mount.cell(values[name]) for name in PLANS] + verdict(reached, least, True)


def cpu_rows(measurement):
    for read in CPU_TARGETS:
        values = {name: measurement.cpu_s.get((name, read, "cold")) for name in PLANS}
        reached = statistics.median(values[AUTO])
        yield [f"{read.heading()}: CPU s/GB"] + [mount.cell(values[name]) for name in PLANS] + verdict(reached, CPU_MAX_S, False)


def disk_rows(measurement, ratio):
    for kind in "mmap", "read":
        raw, wcxfs = (measurement.rates.get((name, kind, "disk")) for name in (RAW, AUTO))
        if raw and wcxfs:
            reached = statistics.median(wcxfs) / statistics.median(raw)
            yield [f"{mount.READS[kind][0]}, from disk: GB/s; raw file {mount.cell(raw)}"] + OTHERS + [mount.cell(wcxfs)] + \
                verdict(reached, DISK_SHARE * ratio, True)


def report(sample, measurement, beyond_mib):
    rows = list(rate_rows(measurement)) + list(cpu_rows(measurement))
    rows.append(["resident beyond cache_size and CUDA: MiB"] + OTHERS + [str(beyond_mib)] +
                verdict(beyond_mib, MEMORY_MAX_MIB, False, digits=0))
    rows += disk_rows(measurement, sample.ratio)
    rounds = len(measurement.rates[AUTO, MMAP, "cold"])
    print(f"\n{sample.name}: {sample.raw_bytes / 2**20:.1f} MiB, ratio {sample.ratio:.3f}, {rounds} rounds\n")
    print(setting.markdown_table(["figure"] + list(PLANS) + ["reached", "wanted", ""], rows), flush=True)


def measure_file(number, original, packed, args, workdir, notes, deadline):
    """Measures one file and prints its table; returns what decoded."""
    sample = Sample(original, packed, os.path.join(workdir, f"targets{number}"), notes)
    null, daemon = (setting.program(given, args.build, name) for given, name in
                    ((args.ceilings and os.path.join(args.ceilings, "nullfs"), "tests/bench/null_server"), (args.wcxfs, "wcxfs")))
    measurement = Measurement(setting.program(args.ceilings and os.path.join(args.ceilings, "rd"), args.build, "tests/bench/reader"))
    options = WcxfsArguments("kept", args.options)
    cpu, auto = mount.Wcxfs(daemon, sample, "cpu", options, CPU), mount.Wcxfs(daemon, sample, "auto", options, AUTO)
    used = mount.Wcxfs(daemon, sample, "auto", with_cache(options, sample.raw_bytes), AUTO)
    copy = mount.NullCopy(setting.program(None, args.build, "tests/bench/null_server"), sample)
    subjects = [mount.Null(null, sample, 0), copy, mount.Null(null, sample, args.push_threads), cpu, auto]
    mount.verify(sample.raw[:1], auto, 1)
    for files, reader in measurement.readers.items():
        reader.read(mount.Raw(sample.raw, notes), "mmap", sample.raw[:files])  # the sum that all others must have
    rounds_end = deadline - (deadline - time.monotonic()) / 3 if args.disk else deadline
    for round_number in in_time(args.rounds, rounds_end):
        measurement.round(subjects if round_number % 2 == 0 else subjects[::-1])
        measurement.used_round(used)
    beyond_mib = memory_beyond_mib(daemon, sample, options, measurement)
    if args.disk:
        measure_disk(daemon, sample, args, measurement, deadline)
    report(sample, measurement, beyond_mib)
    shutil.rmtree(os.path.dirname(sample.store))
    return auto.decoder


def packed_of(args, original, workdir):
    """The packed form of a file: what lies beside it with --packed, or a new one."""
    if args.packed:
        return original + ".wcx"
    packed = os.path.join(workdir, os.path.basename(original) + ".wcx")
    subprocess.run([setting.program(args.wcx, args.build, "wcx"), "pack", "-q", original, packed], check=True)
    return packed


def run(args, workdir):
    start, origin, notes = time.monotonic(), setting.origin(), set()
    files = args.originals or [mount.Bench.generate(args.mib, workdir, dtype) for dtype in ("int8", "bf16")]
    print(origin)
    print("GB/s and CPU seconds of the server a GB read, with the kernel's work on its behalf: medians (least–most).")
    for number, original in enumerate(files):
        left_s = args.limit - (time.monotonic() - start)
        deadline = time.monotonic() + left_s / (len(files) - number)
        decoder = measure_file(number, original, packed_of(args, original, workdir), args, workdir, notes, deadline)
    print(f"\nwcxfs, auto: {decoder}.  All sums agree.  {time.monotonic() - start:.0f} s.")
    print("\n".join(sorted(notes)), end="")
