# SPDX-License-Identifier: MIT
"""Loads packed files into the memory of GPUs, as torch tensors."""
import os
import threading
from typing import Dict, Iterable, Optional

from ._file import File
from ._frameworks import Torch
from ._library import Handle, call, library, targets


def cuda_device(device):
    """Returns a torch.device with an index: "cuda" means the current GPU.  Raises ValueError for devices other than CUDA's."""
    import torch

    device = torch.device(device)
    if device.type != "cuda":
        raise ValueError(f"{device}: packed files can be loaded to the CPU and to CUDA devices")
    return device if device.index is not None else torch.device("cuda", torch.cuda.current_device())


class Loader(Handle):
    """Loads files into the memory of one GPU.

    threads is the number of threads that read; 0 means one per core, at most 16.  A loader holds pinned memory and memory
    of the GPU (wcx.h says how much) and takes up to seconds to create, so keep it.  close() frees these, as does dropping the
    last reference.  A loader may be shared by threads, whose loads then run one after the other.  It does not survive a fork.
    Raises OSError if there is no such GPU, and ValueError for every use after close().
    """

    _close_function = "wcx_loader_close"

    def __init__(self, device="cuda", threads: int = 0):
        self.device = cuda_device(device)
        self._framework = Torch()
        self._lock = threading.Lock()  # wcx_load allows one thread at a time per loader
        self._create("wcx_loader_open", self.device.index, threads)

    def load_ranges(self, file: File, ranges) -> None:
        """Loads ranges of the original, a list of (offset, bytes, device address), and waits until they are in place.

        On the GPU, loading starts after the work in the current stream.  Raises OSError: EBADMSG for a damaged tile, EIO if
        the GPU fails; the bytes of the ranges are then undefined.
        """
        stream = self._framework.torch.cuda.current_stream(self.device).cuda_stream
        with self._lock:
            call("wcx_load", self._open(), file._open(), targets(ranges), len(ranges), stream)

    def pin(self, file: File) -> None:
        """Keeps a copy of a file in pinned memory, read and checked by this loader's threads; see File.pin."""
        with self._lock:
            call("wcx_file_pin", file._open(), self._open())

    def load(self, file: File, names: Optional[Iterable[str]] = None) -> Dict[str, "object"]:
        """Returns a dict of the named tensors of a file, or of all.  Raises KeyError for an unknown name."""
        tensors, ranges = {}, []
        for name in file.tensors if names is None else names:
            info = file.tensors[name]
            tensors[name] = self._framework.empty(*self._framework.storage(info), self.device)
            ranges.append((info.offset, info.bytes, tensors[name].data_ptr()))
        self.load_ranges(file, ranges)
        return tensors


class Held(Handle):
    """A part of a file that stays packed in memory, and is decoded on the GPU whenever it is needed.

    ranges is a list of (offset, bytes, dst): ranges of the original, and their offsets from the base that decode gets.  The
    packed bytes stay on the loader's GPU (on_device) or in pinned memory of the host.  nbytes is what they take there.

    For one thread at a time.  Raises OSError as Loader.load_ranges does; damage is found here, but for tiles whose coding is
    invalid in spite of a right checksum, which check finds after the first decode.  Decodes must have ended on the GPU before
    it is closed.
    """

    _close_function = "wcx_held_close"

    def __init__(self, loader: Loader, file: File, ranges, on_device: bool):
        self._file = file  # must stay open
        with loader._lock:
            self._create(
                "wcx_held_open", loader._open(), file._open(), targets(ranges), len(ranges), int(on_device)
            )
        self.on_device = on_device
        self.nbytes: int = library.wcx_held_bytes(self._open())

    def fetch(self, place: int, stream) -> None:
        """Copies the packed bytes to nbytes at a device address, a multiple of 256, in the order of a torch stream."""
        call("wcx_held_fetch", self._open(), place, stream.cuda_stream)

    def decode(self, base: int, stream, place: int = 0) -> None:
        """Decodes to base, a device address that is a multiple of 256, in the order of a torch stream, without waiting.

        place is where the part was fetched to, and is used up; it is not needed for a part on the device.
        """
        call("wcx_held_decode", self._open(), place, base, stream.cuda_stream)

    def check(self, stream) -> None:
        """Waits for a stream, and raises OSError if the last decode in it failed."""
        call("wcx_held_check", self._open(), stream.cuda_stream)


_loaders: Dict[int, Loader] = {}
_loaders_lock = threading.Lock()  # protects _loaders


def _begin_in_child() -> None:
    """Forgets the parent's loaders.  A thread of the parent may have held the lock."""
    global _loaders_lock

    _loaders_lock = threading.Lock()
    _loaders.clear()


os.register_at_fork(after_in_child=_begin_in_child)


def loader_for(device) -> Loader:
    """Returns this process's loader for a device, which later calls share."""
    device = cuda_device(device)
    with _loaders_lock:
        if device.index not in _loaders:
            _loaders[device.index] = Loader(device)
        return _loaders[device.index]
