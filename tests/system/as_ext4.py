# SPDX-License-Identifier: MIT
"""What as_ext4.bats needs of the system that no command offers: handles, descriptors kept open, rewound directories."""

import ctypes
import errno
import fcntl
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

AT_FDCWD = -100
HANDLE_BYTES = 128
MS_REMOUNT_RO_NOSUID_NODEV = 32 | 1 | 2 | 4


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


def cmd_forget(mount):
    """Have the kernel forget the files of a mount that nobody uses, and of no other, as it does with what is remounted."""
    if libc.mount(None, os.fsencode(mount), None, MS_REMOUNT_RO_NOSUID_NODEV, None):
        raise OSError(ctypes.get_errno(), f"remounting {mount}")


def cmd_handles(mount):
    """Handles of files that hold their own names open these files or nothing, after the kernel has forgotten them."""
    names = sorted(os.listdir(mount))
    handles = {name: handle_of(f"{mount}/{name}") for name in names}
    mount_fd = os.open(mount, os.O_RDONLY)
    same = stale = 0
    for _ in range(3):
        cmd_forget(mount)
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
    assert all(os.pread(fd, 1 << 20, 0) == os.pread(fds[0], 1 << 20, 0) for fd in fds)
    deadline = time.monotonic() + 60
    while (taken := descriptors(pid, stored)) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)  # what it has opened to look at, it closes a little later
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
                deadline = time.monotonic() + 20
                while seen != expected:
                    assert time.monotonic() < deadline, f"tail -f printed {seen!r} of {expected!r}"
                    seen += (tail.stdout.read() or b"").decode()
                    time.sleep(0.05)
        finally:
            tail.kill()


def cmd_lease_looked_at(stored, mounted):
    """Who only looks at a file with a lease does not wait for that: the kernel ends one that is kept after 45 seconds."""
    fd = os.open(stored, os.O_RDWR)
    signal.signal(signal.SIGIO, lambda *_: None)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    subprocess.run(["stat", mounted], stdout=subprocess.DEVNULL, check=True, timeout=30)


def cmd_lease(stored, mounted):
    """A reader gets a file on which a file server has a lease, once that is given back."""
    fd = os.open(stored, os.O_RDWR)
    breaks = []

    def give_back(*_):
        breaks.append(stored)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    signal.signal(signal.SIGIO, give_back)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as e:
        sys.exit(f"no leases here: {e}")
    read = subprocess.run(["cat", mounted], stdout=subprocess.PIPE, check=True).stdout
    assert breaks and read, (breaks, len(read))


def cmd_private(mount, store, user, is_removed=""):
    """Descriptors of a file, a directory and a link, which did not need to be read, lead to nothing private in their place."""
    store, public, secret = Path(store), Path(store, "d"), b"secret" * 3
    packed = [next(Path(store).glob(f"{i}*.wcx")).read_bytes() for i in (1, 2)]

    def fill(name, text, packed):
        (public / "sub").mkdir(parents=True)
        for file in (public / "f", public / "sub" / "f", public / "sub" / name):
            file.write_bytes(text)
        (public / "link").symlink_to(name)
        (public / "p.wcx").write_bytes(packed)
        return [file.lstat().st_ino for file in (public, *sorted(public.glob("**/*"))) if file.name != name]

    def look():
        opened = [os.open(f"{mount}/d/{name}", os.O_PATH | os.O_NOFOLLOW) for name in ("f", "sub", "link", "p")]
        listed = os.open(f"{mount}/d/sub", os.O_RDONLY | os.O_DIRECTORY)
        os.listdir(listed)
        os.write(ready[1], b"1")
        os.read(moved[0], 1)
        for seconds in (0, 2):  # what the kernel knows is a second old at most
            time.sleep(seconds)
            for _ in range(2):  # it may ask again
                for peek in (
                    lambda: os.read(os.open(f"/proc/self/fd/{opened[0]}", os.O_RDONLY), 99),
                    lambda: b"secret" * (os.fstat(opened[0]).st_size == len(secret)),
                    lambda: os.read(os.open("f", os.O_RDONLY, dir_fd=opened[1]), 99) if seconds else b"",
                    lambda: os.fsencode(os.readlink("", dir_fd=opened[2])),
                    lambda: b"secret" * (len(os.read(os.open(f"/proc/self/fd/{opened[3]}", os.O_RDONLY), 99)) > 0),
                    lambda: os.fsencode(" ".join(os.listdir(listed))),
                ):
                    try:
                        assert b"secret" not in peek()
                    except OSError as e:
                        assert e.errno in (errno.ESTALE, errno.EACCES, errno.ENOENT), e

    ready, moved = os.pipe(), os.pipe()
    numbers = fill("public", b"public", packed[0])
    if not (child := os.fork()):
        os.setgid(int(user))
        os.setuid(int(user))
        look()
        os._exit(0)
    os.read(ready[0], 1)
    if is_removed:
        shutil.rmtree(public)
    else:
        public.rename(store / "old")
    assert (fill("secret", secret, packed[1]) == numbers) == bool(is_removed), "inode numbers"
    public.chmod(0o700)
    time.sleep(1.1)
    os.write(moved[1], b"1")
    assert os.waitpid(child, 0)[1] == 0


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


def change_files(store, versions, until):
    """Replace, delete, chmod and touch files of a store; every content that is ever there is one of the versions."""
    choice = random.Random(1)
    while time.monotonic() < until:
        name, fresh = choice.choice(sorted(versions)), f"{store}/.wcx-tmp-beingchangednow{choice.randrange(2, 8)}"
        match choice.randrange(6):
            case 0 if choice.randrange(3) == 0:
                Path(store, name).unlink(missing_ok=True)
            case 1 if Path(store, name).exists():
                os.chmod(f"{store}/{name}", choice.choice((0o400, 0o644)))
            case 2 if Path(store, name).exists():
                os.utime(f"{store}/{name}", (1, 1))
            case _:
                Path(fresh).write_bytes(choice.choice(versions[name]))
                os.utime(fresh, (1, 1))
                os.replace(fresh, f"{store}/{name}")
        time.sleep(choice.choice((0, 0.001, 0.02, 0.1)))


def describe(data, contents):
    """Which of the contents the pages of wrong data are from."""
    sources = []
    for at in range(0, len(data), 4096):
        page = data[at : at + 4096]
        source = next((i for i, content in enumerate(contents) if content[at : at + len(page)] == page), "none")
        if not sources or sources[-1][0] != source:
            sources.append((source, at))
    return "from " + ", ".join(f"version {source} at {at}" for source, at in sources[:6])


def check_tree(tree, shown, failures, what):
    for name, contents in shown.items():
        try:
            data = Path(tree, name).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as e:
            if e.errno != errno.ESTALE:
                failures.put(f"{what}: {name}: {e}")
            continue
        if data not in contents:
            failures.put(f"{what}: {name}: {len(data)} bytes that never were in it, {describe(data, contents)}")


def read_files(mount, shown, scratch, commands, failures, until, rounds):
    """Read or copy a mount again and again, and compare with all contents that a file may have had."""
    while time.monotonic() < until:
        if commands:
            shutil.rmtree(scratch, ignore_errors=True)
            os.mkdir(scratch)
            run = subprocess.run(["sh", "-c", commands, "sh", mount, scratch], capture_output=True, text=True, check=False)
            for line in run.stderr.split("\n"):
                if line and not any(text in line for text in (*TOLERATED, STALE)):
                    failures.put(f"{commands}: {line}")
        check_tree(scratch if commands else mount, shown, failures, commands or "read")
        rounds.put(1)


def cmd_replace_often(seconds, *files):
    """
    Files that are opened without a look at the path that changes: for each the place where it is read, the one where it is
    replaced some hundred times a second, and what is put there and shown then, in turn.
    """
    until = time.monotonic() + float(seconds)
    replaced = 0

    def replace(stored, versions):
        nonlocal replaced
        while time.monotonic() < until:
            Path(stored + ".new").write_bytes(versions[replaced % len(versions)])
            os.replace(stored + ".new", stored)
            replaced += 1
            time.sleep(0.004)

    for place, stored, *paths in (file.split() for file in files):
        versions = [Path(path).read_bytes() for path in paths[::2]]
        shown = [Path(path).read_bytes() for path in paths[1::2]]
        writer = threading.Thread(target=replace, args=(stored, versions))
        writer.start()
        seen = [Path(place).read_bytes() for _ in iter(lambda: time.monotonic() < until, False)]
        writer.join()
        wrong = [data for data in seen if data not in shown]
        print(f"{place}: replaced {replaced} times, read {len(seen)}, {len(wrong)} wrong")
        assert seen and not wrong, describe(wrong[0], shown)
        until += float(seconds)


# What cp, tar, rsync and find say of files that change or vanish while they look, on ext4, too.
TOLERATED = ("No such file", "changed", "vanished", "shrank", "File removed", "Exiting with failure", "some files", "skipping")
STALE = "Stale file handle"  # wcxfs only: replaced twice between the kernel's look and its open, and once more at the next try
COPIES = ("", "", "", 'cp -a "$1/." "$2"', 'tar -C "$1" -cf - . | tar -C "$2" -xf -', 'rsync -aH "$1/" "$2"',
          'find "$1" -type f -size +1 -newermt 1969-01-01 >/dev/null; cp "$1"/* "$2"')


def cmd_stress(store, mount, scratch, seconds, *models):
    """Readers and copiers against a writer: models are pairs of an original and its packed file."""
    originals = [Path(path).read_bytes() for path in models[::2]]
    packed = [Path(path).read_bytes() for path in models[1::2]]
    plain = [f"{i}\n".encode() * (20000 + 3 * i) for i in range(5)]
    versions = {f"{i}.safetensors.wcx": packed for i in range(3)} | {f"{i}.json": plain for i in range(3)}
    shown = {name.removesuffix(".wcx"): originals if name.endswith(".wcx") else plain for name in versions}
    until, failures, rounds = time.monotonic() + float(seconds), multiprocessing.Queue(), multiprocessing.Queue()
    processes = [multiprocessing.Process(target=change_files, args=(store, versions, until))]
    for i, commands in enumerate(COPIES):
        if not commands.startswith("rsync") or shutil.which("rsync"):
            arguments = (mount, shown, f"{scratch}/{i}", commands, failures, until, rounds)
            processes.append(multiprocessing.Process(target=read_files, args=arguments))
    for process in processes:
        process.start()
    found, count = [], 0
    while any(process.is_alive() for process in processes) or not (failures.empty() and rounds.empty()):
        time.sleep(0.05)
        while not failures.empty():
            found.append(failures.get())
        while not rounds.empty():
            count += rounds.get()
    print(f"{count} rounds, {len(found)} failures", *sorted(set(found))[:40], sep="\n")
    assert not found and count and all(process.exitcode == 0 for process in processes)


globals()["cmd_" + sys.argv[1]](*sys.argv[2:])
