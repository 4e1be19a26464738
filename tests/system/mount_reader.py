#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""mount_reader.py COMMAND ... - read mounted files as programs do, and compare them with the originals.

  pread ORIGINAL FILE SEED       preads of many sizes at random offsets, at every alignment, and past the end
  direct ORIGINAL FILE SEED      the same through O_DIRECT
  mmap ORIGINAL FILE             private and shared mappings, whole and at random pages
  sendfile ORIGINAL FILE         sendfile(2) into a file
  many ORIGINAL FILE N           N processes, and N threads in each of two others, all at once, with different offsets
  at_once ORIGINAL FILE N        N processes that read the whole file with O_DIRECT, starting at the same time
  side_by_side ORIGINAL FILE N   N processes that read the whole file, of which one evicts the file after each 16 MiB
  streams ORIGINAL FILE          the whole file forwards, backwards, in parallel parts and with holes, each time with its
                                 pages evicted first
  damaged ORIGINAL FILE START N  reads that touch START..START + N give EIO, all others the original's bytes
  safetensors ORIGINAL FILE      the safetensors package loads the same metadata and tensors from both
  tile FILE.wcx                  print START and N of a coded tile in the middle, and the offset of its packed bytes
  flip FILE OFFSET               change one byte
  kill_pusher PID COPY SIGNAL    read a slow daemon's file at six places, kill the daemon while it waits to push to a
                                 locked page, and check that all readers finish
  passed_mount DIR N FILE WCXFS STORE /dev/fd/N ...
                                 mount at DIR, have the command serve descriptor N, compare one file, and end it
  ahead FILE READ LEAST          read the first READ bytes, and wait until LEAST bytes of the next MiB are in the page cache
  wait_exit PID                  wait until a process has exited, a minute at most
  wait_link LINK TARGET          wait until a link has this target, a minute at most

Exit status 1, with a message, when something differs.
"""
import ctypes
import errno
import fcntl
import mmap
import multiprocessing
import os
import random
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time

PAGE = 4096
SIZES = [1, 2, 7, 100, PAGE - 1, PAGE, PAGE + 1, 65535, 65536, 65537, 200_000, 1 << 20, (3 << 20) + 5]


class Differs(Exception):
    pass


def same(expected, found, where):
    if expected != found:
        raise Differs(f"{where}: {len(found)} bytes, which differ from the original's {len(expected)}")


def wait_until(condition, message):
    """Waits for two minutes at most: another test's mount namespace may hold a copy of a mount for as long as it lasts."""
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            raise Differs(message)
        time.sleep(0.01)


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def random_places(size, seed, count):
    """Pairs of offset and length: random, at the alignments that matter, and past the end."""
    rng = random.Random(seed)
    for i in range(count):
        length = rng.choice(SIZES)
        offset = rng.choice([rng.randrange(size), rng.randrange(size) // PAGE * PAGE, rng.randrange(size) // 65536 * 65536,
                             max(0, size - rng.randrange(1, 2 * length + 1)), size, size + 1 + rng.randrange(10 * PAGE)])
        yield offset, length


def pread_all(fd, length, offset):
    """Call pread until all bytes are read or the file ends: a single call may return less."""
    parts = []
    while length and (part := os.pread(fd, length, offset)):
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return b"".join(parts)


def cmd_pread(original, path, seed, count=150):
    expected = read_file(original)
    fd = os.open(path, os.O_RDONLY)
    for offset, length in random_places(len(expected), int(seed), count):
        same(expected[offset : offset + length], pread_all(fd, length, offset), f"pread of {length} at {offset}")
    os.close(fd)


def cmd_direct(original, path, seed):
    expected = read_file(original)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, 4 << 20)
    for offset, length in random_places(len(expected), int(seed), 150):
        offset = offset // 512 * 512
        length = -(-length // 512) * 512
        count = os.preadv(fd, [memoryview(buffer)[:length]], offset)
        same(expected[offset : offset + length], buffer[:count], f"direct read of {length} at {offset}")
    os.close(fd)


def cmd_mmap(original, path):
    expected = read_file(original)
    for flags, name in (mmap.MAP_PRIVATE, "private"), (mmap.MAP_SHARED, "shared"):
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ) as mapped:
            rng = random.Random(1)
            for _ in range(200):
                at = rng.randrange(len(expected))
                same(expected[at : at + 100], mapped[at : at + 100], f"{name} mapping at {at}")
            same(expected, mapped[:], f"{name} mapping")


def cmd_sendfile(original, path):
    expected = read_file(original)
    with open(path, "rb") as file, tempfile.TemporaryFile() as copy:
        while os.sendfile(copy.fileno(), file.fileno(), None, 1 << 20):
            pass
        copy.seek(0)
        same(expected, copy.read(), "sendfile")


def read_in_many_ways(original, path, seed, failures):
    try:
        cmd_pread(original, path, seed, 40)
        if seed % 2:
            cmd_mmap(original, path)
        else:
            same(read_file(original), read_file(path), "read")
    except Exception as error:  # reported by the thread that joins us
        failures.append(f"reader {seed}: {error}")


def read_as_process(original, path, seeds):
    failures = []
    threads = [threading.Thread(target=read_in_many_ways, args=(original, path, seed, failures)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failure in failures:
        print(failure, file=sys.stderr)
    sys.exit(1 if failures else 0)


def run_processes(target, argument_lists):
    processes = [multiprocessing.Process(target=target, args=arguments) for arguments in argument_lists]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    failed = sum(process.exitcode != 0 for process in processes)
    if failed:
        raise Differs(f"{failed} of {len(processes)} processes failed")


def cmd_many(original, path, count):
    count = int(count)
    seeds = [[seed] for seed in range(count)] + [list(range(count, 2 * count)), list(range(2 * count, 3 * count))]
    run_processes(read_as_process, [(original, path, group) for group in seeds])


def read_directly(original, path, barrier):
    expected = read_file(original)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, 1 << 20)
    barrier.wait()
    offset = 0
    while count := os.preadv(fd, [buffer], offset):
        same(expected[offset : offset + count], buffer[:count], f"direct read at {offset}")
        offset += count
    same(len(expected), offset, "size")


def cmd_at_once(original, path, count):
    barrier = multiprocessing.Barrier(int(count))
    run_processes(read_directly, [(original, path, barrier)] * int(count))


def drop_pages(fd):
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def read_side_by_side(original, path, barrier, drops):
    expected = read_file(original)
    fd = os.open(path, os.O_RDONLY)
    barrier.wait()
    for offset in range(0, len(expected), 1 << 20):
        same(expected[offset : offset + (1 << 20)], pread_all(fd, 1 << 20, offset), f"offset {offset}")
        if drops and (offset + (1 << 20)) % (16 << 20) == 0:
            drop_pages(fd)


def cmd_side_by_side(original, path, count):
    barrier = multiprocessing.Barrier(int(count))
    run_processes(read_side_by_side, [(original, path, barrier, i == 0) for i in range(int(count))])


def check_blocks(expected, fd, offsets, length, what):
    for offset in offsets:
        same(expected[offset : offset + length], pread_all(fd, length, offset), f"{what}, offset {offset}")


def cmd_streams(original, path):
    expected = read_file(original)
    fd = os.open(path, os.O_RDONLY)
    failures = []
    for length in (100_000, 1 << 20):
        forwards = range(0, len(expected), length)
        holes = [offset for offset in forwards if offset // (4 << 20) % 2 == 0]
        for what, offsets in (("forwards", forwards), ("backwards", forwards[::-1]), ("with holes", holes)):
            drop_pages(fd)
            check_blocks(expected, fd, offsets, length, what)
        drop_pages(fd)

        def read_part(part):
            try:
                check_blocks(expected, fd, forwards[len(forwards) * part // 4 : len(forwards) * (part + 1) // 4], length,
                             "side by side")
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=read_part, args=(part,)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
    drop_pages(fd)
    with mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as mapping:
        same(expected, mapping[:], "mapping")
    os.close(fd)


def read_or_eio(fd, buffer, offset):
    try:
        return buffer[: os.preadv(fd, [buffer], offset)]
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None


def check_damage(expected, fd, length, start, end):
    """Check pieces of length bytes: those that touch start..end must fail, all others must have the original's bytes."""
    buffer = mmap.mmap(-1, length)
    for offset in range(0, len(expected), length):
        found = read_or_eio(fd, memoryview(buffer), offset)
        touches = offset < end and offset + length > start
        if touches != (found is None):
            raise Differs(f"{length} bytes at {offset}: {'read' if touches else 'an error'}, but {start}..{end} is damaged")
        if found is not None:
            same(expected[offset : offset + length], found.tobytes(), f"{length} bytes at {offset}")


def cmd_damaged(original, path, start, count):
    expected = read_file(original)
    start, end = int(start), int(start) + int(count)
    with open(path, "rb", buffering=0) as file:
        check_damage(expected, file.fileno(), PAGE, start, end)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    check_damage(expected, fd, 512, start, end)
    check_damage(expected, fd, 100 << 10, start, end)
    os.close(fd)


def tensors_of(path):
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        yield "metadata", file.metadata()
        for name in file.keys():
            try:
                tensor = file.get_tensor(name)
                yield name, (str(tensor.dtype), tensor.shape, tensor.tobytes())
            except (TypeError, KeyError, AttributeError) as error:  # a dtype that numpy lacks
                yield name, (file.get_slice(name).get_dtype(), repr(error))


def cmd_safetensors(original, path):
    expected, found = dict(tensors_of(original)), dict(tensors_of(path))
    if expected.keys() != found.keys():
        raise Differs("other tensors")
    for name, value in expected.items():
        if value != found[name]:
            raise Differs(f"tensor {name} differs")
    arrays = sum(isinstance(value[-1], bytes) for name, value in expected.items() if name != "metadata")
    print(f"{arrays} of {len(expected) - 1} tensors compared as arrays")
    if not arrays:
        raise Differs("no tensor could be loaded")


def cmd_tile(path):
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reference"))
    import wcx_decode

    wcx = wcx_decode.Wcx(path)
    candidates = [tile for tile in range(wcx.tile_count) if wcx.modes[tile] == wcx_decode.CODED]
    tile = candidates[len(candidates) // 2]
    segment = wcx.segment_of(tile)
    y, x, height, width = segment.tile_place(tile)
    if height > 1 and width < segment.cols:
        raise Differs("the tile is not a contiguous range of the original")
    before = sum(other.bytes for other in wcx.segments[: wcx.segments.index(segment)])
    start = before + (y * segment.cols + x) * segment.elem_bytes
    print(start, height * width * segment.elem_bytes, int(wcx.places[tile]))


def cmd_flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(int(offset))
        byte = file.read(1)[0]
        file.seek(int(offset))
        file.write(bytes([byte ^ 0x40]))


def read_until_error(path, start):
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        try:
            while file.read(128 << 10):
                pass
        except OSError:
            pass


def waits_to_push(pid):
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/stack") as stack:
                if (calls := stack.read()) and "fuse_dev_do_write" in calls and "folio" in calls:
                    return True
        except OSError:
            pass
    return False


def cmd_kill_pusher(pid, path, name):
    step = os.path.getsize(path) // 6
    readers = [multiprocessing.Process(target=read_until_error, args=(path, i * step), daemon=True) for i in range(6)]
    for reader in readers:
        reader.start()
    deadline = time.monotonic() + 60
    while not waits_to_push(pid):
        if time.monotonic() > deadline:
            raise Differs("no thread was seen waiting to push")
    os.kill(int(pid), signal.Signals[f"SIG{name}"])
    for reader in readers:
        reader.join(30)
        if reader.is_alive():
            subprocess.run(["umount", "-f", os.path.dirname(path)], check=False)  # unblocks the readers
            raise Differs("a reader still waits for the killed daemon")
    cmd_wait_exit(pid)


def page_cache_bytes(file, offset, length):
    """How much of a part of a file the page cache holds: root may ask."""
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(file.fileno(), length, mmap.MAP_PRIVATE, offset=offset) as mapped:
        pages = (ctypes.c_ubyte * (length // PAGE))()
        address = ctypes.addressof(ctypes.c_ubyte.from_buffer(mapped))
        if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(length), pages):
            raise OSError(ctypes.get_errno(), "mincore")
        return sum(page & 1 for page in pages) * PAGE


def cmd_ahead(path, read_bytes, least_bytes):
    with open(path, "rb", buffering=0) as file:
        for _ in range(0, int(read_bytes), PAGE):
            file.read(PAGE)
        wait_until(lambda: page_cache_bytes(file, int(read_bytes), 1 << 20) >= int(least_bytes),
                   f"the page cache does not hold {least_bytes} bytes after the first {read_bytes}")


def cmd_wait_exit(pid):
    try:
        fd = os.pidfd_open(int(pid))
    except ProcessLookupError:
        return
    if not select.select([fd], [], [], 60)[0]:
        raise Differs(f"process {pid} has not exited")


def cmd_wait_killed(pid):
    """Waits until a process has ended, but for threads that the kernel does not let go."""
    def is_killed():
        return read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()[0] == b"Z"

    wait_until(is_killed, f"process {pid} goes on")


def cmd_held(fd, count):
    """Reads an inherited descriptor by threads, with O_DIRECT."""
    fd = int(fd)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_DIRECT)

    def read(number):
        os.preadv(fd, [mmap.mmap(-1, 4096)], number << 16)

    for i in range(int(count)):
        threading.Thread(target=read, args=(i,)).start()


def cmd_wait_held(pid, count):
    """Waits until so many threads of a process wait for a reply or a page; those of a daemon may wait for requests besides."""

    def is_held(thread):
        try:
            with open(f"/proc/{pid}/task/{thread}/stack") as stack:
                functions = stack.read()
                return re.search(r" (fuse|folio_wait)_", functions) and " fuse_dev_" not in functions
        except (FileNotFoundError, ProcessLookupError):  # what it read was cached
            return False

    wait_until(lambda: len(list(filter(is_held, os.listdir(f"/proc/{pid}/task")))) >= int(count), "too few threads wait")


def cmd_ticking(original, path):
    """Reads directly while a timer that the process handles goes off all the time, as a profiler's does."""
    bytes = 1 << 20
    buffer = mmap.mmap(-1, bytes)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    libc = ctypes.CDLL(None, use_errno=True)  # Python's functions try again
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, False)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    n = libc.pread(fd, ctypes.byref(ctypes.c_char.from_buffer(buffer)), ctypes.c_size_t(bytes), ctypes.c_long(0))
    errnum = ctypes.get_errno()
    signal.setitimer(signal.ITIMER_REAL, 0)
    if n < 0:
        raise Differs(os.strerror(errnum))
    same(read_file(original)[:bytes], buffer[:n], path)


def cmd_wait_same(original, path):
    def is_same():
        try:
            return read_file(path) == read_file(original)
        except OSError:
            return False

    wait_until(is_same, f"{path} cannot be read, or differs")


def cmd_wait_unmounted(mountpoint):
    wait_until(lambda: f" {mountpoint} ".encode() not in read_file("/proc/mounts"), f"{mountpoint} is still mounted")


def cmd_wait_link(link, target):
    deadline = time.monotonic() + 60
    while os.readlink(link) != target:
        if time.monotonic() > deadline:
            raise Differs(f"{link} still leads to {os.readlink(link)}")
        time.sleep(0.05)


def cmd_passed_mount(mountpoint, number, original, *command):
    libc = ctypes.CDLL(None, use_errno=True)
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,{os.environ.get('PASSED_OPTIONS', 'default_permissions')}"
    if libc.mount(b"store", mountpoint.encode(), b"fuse.wcxfs", 7, options.encode()):
        raise OSError(ctypes.get_errno(), "mount")
    os.dup2(fuse, int(number))
    if fuse != int(number):
        os.close(fuse)
    daemon = subprocess.Popen(command, pass_fds=[int(number)])
    os.close(int(number))
    if "-f" not in command and daemon.wait():
        raise Differs(f"exit status {daemon.returncode}")
    same(read_file(original), read_file(os.path.join(mountpoint, os.path.basename(original))), "passed mount")
    pids = subprocess.run(["pgrep", "-f", " ".join(command)], capture_output=True, check=True, text=True).stdout.split()
    pids = [int(pid) for pid in pids if int(pid) != os.getpid()]
    os.kill(pids[0], signal.SIGTERM)  # the guard, which is called so at first, comes after the daemon
    cmd_wait_exit(pids[0])
    with open("/proc/mounts") as mounts:
        if f" {mountpoint} " in mounts.read():
            raise Differs("still mounted")


def main():
    command = globals().get("cmd_" + sys.argv[1]) if len(sys.argv) > 1 else None
    if not command:
        sys.exit(__doc__)
    try:
        command(*sys.argv[2:])
    except (Differs, OSError) as error:
        sys.exit(f"mount_reader.py {' '.join(sys.argv[1:])}: {error}")


if __name__ == "__main__":
    main()
