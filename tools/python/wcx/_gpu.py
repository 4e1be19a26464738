# SPDX-License-Identifier: MIT
"""Loads packed files into the memory of GPUs, as torch tensors."""
import ctypes
import os
import threading
from typing import Dict, Iterable, Optional

from ._file import File
from ._frameworks import Torch
from ._library import call, library, targets


def cuda_device(device):
    """Returns a torch.device with an index: "cuda" means the current GPU.  Raises ValueError for devices other than CUDA's."""
    import torch

    device = torch.device(device)
    if device.type != "cuda":
        raise ValueError(f"{device}: packed files can be loaded to the CPU and to CUDA devices")
    return device if device.index is not None else torch.device("cuda", torch.cuda.current_device())


class Loader:
    """Loads files into the memory of one GPU.

    threads is the number of threads that read; 0 means one per core, at most 16.  A loader holds pinned memory and takes
    up to seconds to create, so keep it.  It may be shared by threads, whose loads then run one after the other.  It does not
    survive a fork.  Raises OSError if there is no such GPU.
    """

    def __init__(self, device="cuda", threads: int = 0):
        self.device = cuda_device(device)
        self._framework = Torch()
        self._lock = threading.Lock()  # wcx_load allows one thread at a time per loader
        self._handle = ctypes.c_void_p()
        call("wcx_loader_open", self.device.index, threads, ctypes.byref(self._handle))

    def close(self) -> None:
        """Frees the loader's memory; no other thread may be using it."""
        handle, self._handle = self._handle, ctypes.c_void_p()
        library.wcx_loader_close(handle)

    def load_ranges(self, file: File, ranges) -> None:
        """Loads ranges of the original, a list of (offset, bytes, device address), and waits until they are in place.

        On the GPU, loading starts after the work in the current stream.  Raises OSError: EBADMSG for a damaged tile, EIO if
        the GPU fails; the bytes of the ranges are then undefined.
        """
        stream = self._framework.torch.cuda.current_stream(self.device).cuda_stream
        with self._lock:
            if not self._handle:
                raise ValueError("the loader has been closed")
            call("wcx_load", self._handle, file._open(), targets(ranges), len(ranges), stream)

    def load(self, file: File, names: Optional[Iterable[str]] = None) -> Dict[str, "object"]:
        """Returns a dict of the named tensors of a file, or of all.  Raises KeyError for an unknown name."""
        tensors, ranges = {}, []
        for name in file.tensors if names is None else names:
            info = file.tensors[name]
            tensors[name] = self._framework.empty(*self._framework.storage(info), self.device)
            ranges.append((info.offset, info.bytes, tensors[name].data_ptr()))
        self.load_ranges(file, ranges)
        return tensors


_loaders: Dict[tuple, Loader] = {}
_loaders_lock = threading.Lock()  # protects _loaders


def loader_for(device) -> Loader:
    """Returns this process's loader for a device, which later calls share."""
    device = cuda_device(device)
    key = (os.getpid(), device.index)
    with _loaders_lock:
        if key not in _loaders:
            _loaders[key] = Loader(device)
        return _loaders[key]
