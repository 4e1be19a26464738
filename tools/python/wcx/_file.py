# SPDX-License-Identifier: MIT
"""Open packed files: their tensors, their bytes, and where to find them."""
import builtins
import ctypes
import json
import operator
import os
import stat
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Dict, Optional, Tuple, Union

from ._library import Handle, TensorInfo, call, library, targets

MAGIC = b"\x89WCX\r\n\x1a\n"
PATH = Union[str, bytes, "os.PathLike[str]"]


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file, as the safetensors header describes it.

    dtype is the header's name ("I8", "BF16", ...), shape has its sizes in elements.  offset and bytes say where its data are
    in the original file.
    """

    name: str
    dtype: str
    shape: Tuple[int, ...]
    offset: int
    bytes: int


class File(Handle):
    """An open packed file.

    path names the .wcx file itself.  tensors maps names to Tensor, in the order of their data.  A File may be used by any
    number of threads, and in a forked child if no other thread was using it then.  It is closed when nothing refers to it any
    more, or at the end of a with statement; in a child that ends.

    Raises OSError: EBADMSG for a damaged file, ENOTSUP for one that is too new, or the error of opening or reading; and
    ValueError for a path with a null byte, and for every use of a file that has been closed.
    """

    _close_function = "wcx_file_close"

    def __init__(self, path: PATH):
        self.path: str = os.fsdecode(path)
        self.tensors: Dict[str, Tensor] = {}
        if "\0" in self.path:
            raise ValueError(f"{self!r}: a path has no null bytes")
        self._create("wcx_file_open", os.fsencode(path))
        for i in range(library.wcx_file_tensor_count(self._handle)):
            info = TensorInfo()
            library.wcx_file_tensor(self._handle, i, ctypes.byref(info))
            name = info.name.decode("utf-8", "surrogateescape")
            shape = tuple(info.shape[: info.dim_count])
            self.tensors[name] = Tensor(name, info.dtype.decode(), shape, info.offset, info.bytes)

    @property
    def bytes(self) -> int:
        """Size of the original file."""
        return library.wcx_file_bytes(self._open())

    @property
    def sha256(self) -> str:
        """SHA-256 of the original file, in hexadecimal, as the packed file tells it."""
        digest = ctypes.create_string_buffer(32)
        library.wcx_file_sha256(self._open(), digest)
        return digest.raw.hex()

    def metadata(self) -> Optional[Dict[str, str]]:
        """Returns the header's __metadata__, or None if it has none."""
        header = self.read(8, library.wcx_file_header_bytes(self._open()) - 8)
        return json.loads(header).get("__metadata__")

    def read(self, offset: int, size: int) -> builtins.bytes:
        """Returns bytes of the original file; fewer than asked for only at its end.  Raises ValueError if offset is negative."""
        offset, size = operator.index(offset), operator.index(size)  # of numpy, too
        size = max(0, min(size, self.bytes - offset))
        buffer = ctypes.create_string_buffer(size)
        count = call("wcx_file_read", self._open(), buffer, size, offset)
        return buffer.raw[:count]

    def load_host(self, ranges, threads: int = 0) -> None:
        """Decodes ranges of the original into host memory, on all cores (threads: 0) or on so many threads.

        ranges is a list of (offset, bytes, address) whose ranges do not overlap.  The caller keeps the memory.
        """
        handle = self._open()
        if ranges:
            call("wcx_load_host", handle, targets(ranges), len(ranges), threads)

    def pin(self, device="cuda") -> None:
        """Keeps a copy of the packed file in pinned memory, from which GPUs load it at their link's full speed.

        For files that are loaded again and again.  device is a GPU whose loader reads and checks the copy; loads to any GPU
        use it.  It takes as much memory as the packed file, until the File is closed.  What happens to the file on the disk
        makes no difference to it.  No other thread may be using the File.  Raises OSError: EBADMSG for a damaged tile, ENOMEM
        if there is no memory or the system does not allow to pin so much; the File can then be used as before.
        """
        from ._gpu import loader_for  # needs torch

        loader_for(device).pin(self)

    def __repr__(self):
        return f"wcx.File({self.path!r})"


# --- from the path that a program asks for to the packed file ---


def _is_packed(path: str) -> bool:
    """Whether path is a packed file.  Opens no FIFO or device."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _unescape(field: str) -> str:
    """Undoes the octal escapes of /proc/self/mountinfo."""
    return os.fsdecode(field.encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1"))


def _mounts():
    """Yields (mount point, directory of the store that it shows) of the wcxfs mounts, the latest first."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except OSError:
        return
    for line in reversed(lines):
        before, _, after = line.rstrip("\n").partition(" - ")
        fields, (fstype, source) = before.split(" "), after.split(" ")[:2]
        if fstype == "fuse.wcxfs":
            root = _unescape(fields[3])
            yield _unescape(fields[4]), os.path.normpath(_unescape(source) + "/" + root)


def _behind_mount(path: str) -> Optional[str]:
    """The packed file that a mount shows at path.

    None if there is none or if it cannot be told for certain: the mount says which SHA-256 the file that it shows has.
    """
    path = os.path.realpath(path)
    for mount_point, store in _mounts():
        if path != mount_point and not path.startswith(mount_point.rstrip("/") + "/"):
            continue
        packed = os.path.normpath(os.path.join(store, os.path.relpath(path, mount_point))) + ".wcx"
        try:
            shown = os.getxattr(path, "user.wcx.sha256").decode()
            return packed if _is_packed(packed) and open_file(packed).sha256 == shown else None
        except OSError:
            return None
    return None


def find_packed(path: PATH) -> Optional[str]:
    """Returns the path of the packed file for a path that a program asks for, or None.

    path may name a packed file; a file that a mount shows, if its store can be read too; or the original of a packed file
    beside which it was, NAME for NAME.wcx, also through links (a Hugging Face cache whose blobs are packed).
    """
    name = os.fsdecode(path)
    try:
        os.stat(name)  # not os.path.exists, which accelerate replaces
        exists = True
    except ValueError:  # a null byte
        return None
    except OSError:
        exists = False
    if exists:
        return name if _is_packed(name) else _behind_mount(name)
    for candidate in (name + ".wcx", os.path.realpath(name) + ".wcx"):
        if _is_packed(candidate):
            return candidate
    return None


# --- files that stay open ---

_KEPT_FILES = 16
_kept: "OrderedDict[tuple, File]" = OrderedDict()
_kept_lock = threading.Lock()  # protects _kept


def _begin_in_child() -> None:
    """Forgets the parent's files, whose locks threads of the parent may have held, as that of the list."""
    global _kept_lock

    _kept_lock = threading.Lock()
    _kept.clear()


os.register_at_fork(after_in_child=_begin_in_child)


def open_file(path: str) -> File:
    """Returns an open File for a packed file, if it has not changed the one of an earlier call.

    Some programs open a file again for each tensor.  The last 16 files stay open; do not close what this returns.
    """
    status = os.stat(path)
    key = (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    with _kept_lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    file = File(path)
    with _kept_lock:
        _kept[key] = file
        while len(_kept) > _KEPT_FILES:
            _kept.popitem(last=False)
    return file
