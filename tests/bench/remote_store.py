#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""remote_store.py [options] [FILE.safetensors] - times reads from a mount whose store is on another machine.

The stores, each DELAY milliseconds away (by default 10, there and back):

  delayed  a file system of the tests, which delays each answer
  sshfs    over a connection that delays what passes through it, to Debian's sftp-server (sshfs, openssh-sftp-server)
  rclone   `rclone mount` of `rclone serve webdav`, over such a connection (rclone); its cache on the local disk is empty

For each store and round: copies the packed file from there with cp, and reads the original through a fresh mount of it, all
with empty caches.  Prints seconds, and cp's seconds by the reader's: 1 is a mount that gives an original in the time in which cp
gets the packed file, that is, as many bytes a second as cp times the ratio.  Compares the SHA-256 first.  Needs root.
"""
import argparse
import asyncio
import contextlib
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import setting

READS = {  # name: mode of the reader, KiB in a block
    "read 1 MiB": ("read", "1024"),
    "mmap": ("mmap", "1024"),
    "O_DIRECT 1 MiB": ("direct", "1024"),
    "O_DIRECT 16 MiB": ("direct", "16384"),
    "8 threads, O_DIRECT 1 MiB": ("direct:8", "1024"),
}
START_S = 20


class DelayedConnection:
    """Passes bytes on, each half of the delay later, between clients and what connect() gives."""

    def __init__(self, delay_ms, connect):
        self.delay_s, self.connect, self.tasks = delay_ms / 2000, connect, set()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        server = asyncio.run_coroutine_threadsafe(self.listen(), self.loop).result()
        self.port = server.sockets[0].getsockname()[1]

    async def listen(self):
        return await asyncio.start_server(self.serve, "127.0.0.1", 0, limit=1 << 22)

    async def serve(self, reader, writer):
        far_reader, far_writer = await self.connect()
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            due = asyncio.Queue(4096)
            for task in (self.receive(source, due), self.send(due, sink)):
                task = self.loop.create_task(task)
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)

    async def receive(self, source, due):
        data = b"more"
        while data:
            try:
                data = await source.read(1 << 18)
            except ConnectionError:
                data = b""
            await due.put((self.loop.time() + self.delay_s, data))

    async def send(self, due, sink):
        with contextlib.suppress(ConnectionError):
            while True:
                at, data = await due.get()
                await asyncio.sleep(at - self.loop.time())
                if not data:
                    break
                sink.write(data)
                await sink.drain()
        sink.close()


def wait_mounted(path):
    deadline = time.monotonic() + START_S
    while not os.path.ismount(path):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} is not mounted")
        time.sleep(0.05)


@contextlib.contextmanager
def delayed(store, lower, args):
    subprocess.run([os.path.join(args.build, "tests/slow_store"), store, lower, str(args.delay), lower + ".gate"], check=True)
    yield


@contextlib.contextmanager
def sshfs(store, lower, args):
    async def connect():
        server = await asyncio.create_subprocess_exec("/usr/lib/openssh/sftp-server", stdin=subprocess.PIPE,
                                                      stdout=subprocess.PIPE, limit=1 << 22)
        return server.stdout, server.stdin

    port = DelayedConnection(args.delay, connect).port
    subprocess.run(["sshfs", "-o", f"directport={port}", f"127.0.0.1:{store}", lower], check=True)
    yield


@contextlib.contextmanager
def rclone(store, lower, args):
    address = ("127.0.0.1", 18000 + os.getpid() % 10000)
    server = subprocess.Popen(["rclone", "serve", "webdav", "--addr", "%s:%d" % address, store], stderr=subprocess.DEVNULL)
    port = DelayedConnection(args.delay, lambda: asyncio.open_connection(*address)).port
    time.sleep(1)
    cache = tempfile.TemporaryDirectory()  # it must have one: without, each read elsewhere opens the file anew
    subprocess.run(["rclone", "mount", "--daemon", "--read-only", "--vfs-cache-mode", "full", "--cache-dir", cache.name,
                    "--webdav-url", f"http://127.0.0.1:{port}", ":webdav:", lower], check=True, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        server.terminate()
        server.wait()
        cache.cleanup()


STORES = {"delayed": delayed, "sshfs": sshfs, "rclone": rclone}


def unmount(path):
    """What used it may not have exited yet."""
    deadline = time.monotonic() + START_S
    while subprocess.run(["umount", path], stderr=subprocess.DEVNULL).returncode:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} is busy")
        time.sleep(0.05)


@contextlib.contextmanager
def remote(name, store, lower, args):
    """The store as seen from this machine, with empty caches."""
    with STORES[name](store, lower, args):
        wait_mounted(lower)
        try:
            yield
        finally:
            unmount(lower)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_mounted(read, lower, mountpoint, args):
    """Seconds that a reader takes through a fresh mount; read None: compares."""
    options = ["-o", args.options] if args.options else []
    subprocess.run([os.path.join(args.build, "wcxfs"), lower, mountpoint, *options], check=True, stderr=subprocess.DEVNULL)
    try:
        path = os.path.join(mountpoint, "model")
        if not read:
            return sha256(path)
        output = subprocess.run([os.path.join(args.build, "tests/bench/reader"), *read, path], check=True, capture_output=True,
                                text=True).stdout
        return float(output.split()[2])
    finally:
        subprocess.run(["fusermount3", "-u", mountpoint], check=True)


def measure(name, original, work, args):
    store, lower, mountpoint = (os.path.join(work, part) for part in ("store", "lower", "mnt"))
    seconds = {}
    with remote(name, store, lower, args):
        if read_mounted(None, lower, mountpoint, args) != sha256(original):
            sys.exit(f"{name}: the mounted file differs")
    for _ in range(args.rounds):
        with remote(name, store, lower, args):
            start = time.monotonic()
            subprocess.run(["cp", os.path.join(lower, "model.wcx"), os.path.join(work, "copy")], check=True)
            seconds.setdefault("cp", []).append(time.monotonic() - start)
        for read, arguments in READS.items():
            with remote(name, store, lower, args):
                seconds.setdefault(read, []).append(read_mounted(arguments, lower, mountpoint, args))
    for read, times in seconds.items():
        middle = statistics.median(times)
        line = f"| {name} | {read} | {middle:.2f} [{min(times):.2f} – {max(times):.2f}] |"
        print(line, "|" if read == "cp" else f"{statistics.median(seconds['cp']) / middle:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", help="by default, generated INT8")
    parser.add_argument("--mib", type=int, default=96, help="size of the generated file")
    parser.add_argument("--delay", type=int, default=10, help="milliseconds, there and back")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stores", default="delayed,sshfs,rclone")
    parser.add_argument("--options", default="", help="of wcxfs")
    parser.add_argument("--build", default=os.path.join(os.path.dirname(__file__), "../../build"))
    args = parser.parse_args()
    args.build = os.path.abspath(args.build)
    print(setting.origin())
    with setting.working_directory(None) as work:
        original = args.file or os.path.join(work, "model")
        for part in ("store", "lower", "mnt"):
            os.mkdir(os.path.join(work, part))
        if not args.file:
            subprocess.run([sys.executable, os.path.join(setting.FIXTURES, "make_int8.py"), original, "--mib", str(args.mib)], check=True)
        subprocess.run([os.path.join(args.build, "wcx"), "pack", "-q", original, os.path.join(work, "store/model.wcx")], check=True)
        print("| store | | seconds | cp by this |\n|---|---|---|---|")
        for name in args.stores.split(","):
            if name == "delayed" or shutil.which(name):
                measure(name, original, work, args)
            else:
                print(f"| {name} | not installed | | |")


if __name__ == "__main__":
    main()
