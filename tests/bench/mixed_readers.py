#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""mixed_readers.py [--seconds N] [options] - many readers at once, for a long time, with every byte compared.

Four files (INT8, BF16, and two with all dtypes) are mounted with a cache of 64 MiB and read by sixteen processes: each file by
mmap, by read(2) from front to back, with O_DIRECT at random places, and by several streams (forwards, backwards, side by side,
with holes; tests/system/mount_reader.py).  Every three seconds the kernel's caches are dropped, which takes root.  Prints what the
daemon counted and the largest resident memory it had; exit status 1 if a byte was wrong, a reader failed, or the daemon did
not end as it should.  To be run in a memory cgroup to have the kernel reclaim pages all the time.
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
END_S = 120  # for readers that have begun a round


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
            failures.append(f"{command}: waits")
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
        time.sleep(1)  # for the log
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
    parser.add_argument("--options", default="cache_size=64M,drop_packed", metavar="OPT,...", help="for wcxfs, as for its -o")
    parser.add_argument("--build", default="build", help="where the programs were built (default: build)")
    parser.add_argument("--workdir", help="an empty directory for the files that are made (default: a temporary one)")
    args = parser.parse_args()
    with setting.working_directory(args.workdir) as workdir:
        sys.exit(run(args, workdir))


if __name__ == "__main__":
    main()
