# SPDX-License-Identifier: MIT
"""What as_ext4.bats needs of the system that no command offers: handles, descriptors kept open, rewound directories."""

import ctypes
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

AT_FDCWD = -100
HANDLE_BYTES = 128


class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * HANDLE_BYTES)]


libc = ctypes.CDLL(None, use_errno=True)


def handle_of(path):
    handle, mount_id = Handle(bytes=HANDLE_BYTES), ctypes.c_int()
    if libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id), 0):
        raise OSError(ctypes.get_errno(), f"name_to_handle_at {path}")
    return handle


def open_handle(mount_fd, handle):
    fd = libc.open_by_handle_at(mount_fd, ctypes.byref(handle), os.O_RDONLY)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "open_by_handle_at")
    return fd


def drop_caches():
    Path("/proc/sys/vm/drop_caches").write_text("2\n")


def cmd_handles(mount):
    """Handles of files that hold their own names open these files or nothing, after the kernel has forgotten them."""
    names = sorted(os.listdir(mount))
    handles = {name: handle_of(f"{mount}/{name}") for name in names}
    mount_fd = os.open(mount, os.O_RDONLY)
    same = stale = 0
    for _ in range(3):
        drop_caches()
        for name in reversed(names):  # so that what was freed is used again for others
            os.stat(f"{mount}/{name}")
        for name, handle in handles.items():
            try:
                fd = open_handle(mount_fd, handle)
            except OSError as e:
                if e.errno not in (116, 2):  # ESTALE, ENOENT
                    raise
                stale += 1
                continue
            found = os.read(fd, 1000).decode().strip()
            os.close(fd)
            assert found == name, f"the handle of {name} opens {found}"
            same += 1
    print(f"{same} the same, {stale} stale, none another")


def cmd_reopen(mounted, replacement, stored, *expected):
    """A file that is open is replaced in the store; its descriptor is opened again by /proc."""
    with open(mounted, "rb") as file:
        file.read(100)
        os.replace(replacement, stored)
        contents = [Path(path).read_bytes() for path in expected]
        for delay in (0, 0, 1.2, 0, 1.2):
            time.sleep(delay)
            with open(f"/proc/self/fd/{file.fileno()}", "rb") as again:
                assert again.read() in contents, "neither the old bytes nor the new ones"
        file.seek(0)
        assert file.read() == contents[0], "the open descriptor does not keep the old bytes"


def cmd_rewind(mounted, stored):
    """A directory that is open shows what was added once it is rewound, and not what was removed."""
    fd = os.open(mounted, os.O_RDONLY)
    before = os.listdir(fd)  # listdir begins with rewinddir
    Path(stored, "added").touch()
    assert sorted(os.listdir(fd)) == sorted([*before, "added"])
    Path(stored, "added").unlink()
    assert sorted(os.listdir(fd)) == sorted(before)


def descriptors(pid, path):
    """How many descriptors of a file a process has."""
    found = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += os.path.samestat(os.stat(f"/proc/{pid}/fd/{fd}"), os.stat(path))
        except FileNotFoundError:
            pass
    return found


def resident_kib(pid):
    status = Path(f"/proc/{pid}/status").read_text().split("\n")
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def cmd_opens(pid, path, stored, count):
    """So many opens of a file take one descriptor of the daemon."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    fds = [os.open(path, os.O_RDONLY) for _ in range(int(count))]
    taken = descriptors(pid, stored)
    assert all(os.pread(fd, 1 << 20, 0) == os.pread(fds[0], 1 << 20, 0) for fd in fds)
    print(f"{len(fds)} opens take {taken} descriptors")
    assert taken == 1


def cmd_opendirs(pid, path, count, most_mib):
    """So many readers within a directory make the daemon grow by less than so many MiB."""
    before = resident_kib(pid)
    readers = [os.scandir(path) for _ in range(int(count))]
    for reader in readers:
        next(reader)
    grown = (resident_kib(pid) - before) / 1024
    left = [sum(1 for _ in reader) for reader in readers]
    print(f"{count} open directories of {left[0] + 1} entries take {grown:.1f} MiB")
    assert len(set(left)) == 1
    assert grown < float(most_mib)


def cmd_rewrite(source, target):
    """Write into a file what another holds, at once, and give it the time that it had."""
    times = os.stat(target)
    with open(source, "rb") as src, open(target, "wb") as dst:
        shutil.copyfileobj(src, dst)
    os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))


def cmd_follow(mounted, stored, *lines):
    """tail -f prints what is appended to a file."""
    with subprocess.Popen(["tail", "-f", "-n", "+1", mounted], stdout=subprocess.PIPE, bufsize=0) as tail:
        try:
            os.set_blocking(tail.stdout.fileno(), False)
            expected, seen = Path(stored).read_text(), ""
            for line in [None, *lines]:
                if line:
                    with open(stored, "a") as file:
                        file.write(line + "\n")
                    expected += line + "\n"
                deadline = time.monotonic() + 5
                while seen != expected:
                    assert time.monotonic() < deadline, f"tail -f printed {seen!r} of {expected!r}"
                    seen += (tail.stdout.read() or b"").decode()
                    time.sleep(0.05)
        finally:
            tail.kill()


def cmd_poll_growing(source, stored, mounted, steps):
    """A copy in progress, looked at after every piece."""
    data = Path(source).read_bytes()
    step = len(data) // int(steps)
    for i in range(int(steps)):
        Path(stored).write_bytes(data[: 200 + i * step])
        for look in (os.stat, lambda path: open(path, "rb").close()):
            try:
                look(mounted)
            except OSError:
                pass


globals()["cmd_" + sys.argv[1]](*sys.argv[2:])
