#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""mixed_readers.py [--seconds N] [options] - runs many readers at once, for a long time, and compares every byte.

Mounts four files (INT8, BF16, and two with all dtypes) with a cache of 64 MiB.  Sixteen processes read them: each file by
mmap, by sequential read(2), with O_DIRECT at random places, and in several streams (forwards, backwards, in parallel, with
holes; tests/system/mount_reader.py).  Drops the kernel's caches every three seconds, which needs root.  Prints the counters
of the daemon and its largest resident memory.  Exits with status 1 if a byte was wrong, a reader failed, or the daemon did
not end cleanly.  In a memory cgroup, the kernel reclaims pages all the time.
"""
import argparse
import os
import signal
import subprocess
import sys
import threading
import time

import mount
import setting

FILES = {"int8": ["--only", "int8", "--mib", "128"], "bf16": ["--only", "bf16", "--mib", "64"],
         "mixed": ["--mib", "64"], "other": ["--mib", "32", "--seed", "5"]}
WAYS = ["mmap", "compare", "direct", "streams"]
DROP_S = 3
END_S = 120  # for readers in the middle of a round


def round_command(way, original, copy, number):
    if way == "compare":
        return ["cmp", original, copy]
    reader = [sys.executable, os.path.join(setting.TESTS, "system", "mount_reader.py"), way, original, copy]
    return reader + [str(number)] if way == "direct" else reader


def read_for_long(way, original, copy, end, failures, counts):
    number = 0
    while time.monotonic() < end and not failures:
        number += 1
        command = round_command(way, original, copy, number)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=END_S + end - time.monotonic())
        except subprocess.TimeoutExpired:
            failures.append(f"{command}: hangs")
            return
        if done.returncode:
            failures.append(f"{command}: {done.stdout}{done.stderr}")
    counts.append(number)


def run(args, workdir):
    wcx, daemon = (setting.program(None, args.build, name) for name in ("wcx", "wcxfs"))
    store, mountpoint, log = (os.path.join(workdir, name) for name in ("store", "mnt", "log"))
    os.makedirs(store)
    os.mkdir(mountpoint)
    originals = {name: os.path.join(workdir, name) for name in FILES}
    for name, path in originals.items():
        subprocess.run([sys.executable, os.path.join(setting.FIXTURES, "make_int8.py"), path, *FILES[name]], check=True)
        subprocess.run([wcx, "pack", "-q", path, os.path.join(store, name + ".wcx")], check=True)
    failures, counts, notes = [], [], set()
    origin = setting.origin()
    with mount.mounted([daemon, store, mountpoint, "-f", "-o", args.options], mountpoint, log) as process:
        end = time.monotonic() + args.seconds
        threads = [threading.Thread(target=read_for_long, args=(way, path, os.path.join(mountpoint, name), end, failures, counts))
                   for name, path in originals.items() for way in WAYS]
        for thread in threads:
            thread.start()
        while time.monotonic() < end and not failures:
            mount.drop_caches([], notes)
            time.sleep(DROP_S)
        for thread in threads:
            thread.join()
        peak = mount.peak_mib(process)
        process.send_signal(signal.SIGUSR1)
        time.sleep(1)  # until the daemon has logged its counters
    if process.returncode:
        failures.append(f"the daemon ended with status {process.returncode}")
    with open(log) as messages:
        print(f"{origin}\n{sum(counts)} rounds of {len(threads)} readers in {args.seconds} s; resident memory at most {peak} MiB.\n"
              f"{messages.read()}")
    print("\n".join(sorted(notes) + failures))
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--options", default="cache_size=64M,drop_packed", metavar="OPT,...", help="options for wcxfs -o")
    parser.add_argument("--build", default="build", help="build directory with the programs (default: build)")
    parser.add_argument("--workdir", help="an empty directory for generated files (default: a temporary one)")
    args = parser.parse_args()
    with setting.working_directory(args.workdir) as workdir:
        sys.exit(run(args, workdir))


if __name__ == "__main__":
    main()
