# SPDX-License-Identifier: MIT
"""Loads packed model files as torch tensors, directly into GPU memory.  Calls libwcx through ctypes.

    from wcx_torch import load_file
    tensors = load_file("model.safetensors.wcx", device="cuda")

This returns what safetensors.torch.load_file returns for the original file.  A tensor whose dtype this torch does not have
(F6_E2M3, for example) comes as a one-dimensional uint8 tensor of its bytes, with a warning, and the others as usual.  F4 has
two values in each element of torch's type, so that the last dimension is half that in the file.

Or from a shell, to time a load:

    python3 wcx_torch.py model.safetensors.wcx [DEVICE]

libwcx.so is searched at the path in WCX_LIBRARY, next to this file, in ../build, in ../lib, then in the system's folders.
"""
import ctypes
import os
import sys
import threading
import time
import warnings

import torch

ERROR_BYTES = 1024

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
for _name, _attribute in (
    ("U16", "uint16"),
    ("U32", "uint32"),
    ("U64", "uint64"),
    ("F8_E4M3", "float8_e4m3fn"),
    ("F8_E5M2", "float8_e5m2"),
    ("F8_E4M3FNUZ", "float8_e4m3fnuz"),
    ("F8_E5M2FNUZ", "float8_e5m2fnuz"),
    ("F8_E8M0", "float8_e8m0fnu"),
    ("F4", "float4_e2m1fn_x2"),
):
    if hasattr(torch, _attribute):
        DTYPES[_name] = getattr(torch, _attribute)


class TensorInfo(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_uint64)),
        ("dim_count", ctypes.c_size_t),
        ("offset", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
    ]


class Target(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint64), ("bytes", ctypes.c_uint64), ("dst", ctypes.c_void_p)]


def _find_library():
    here = os.path.dirname(os.path.abspath(__file__))
    places = [here, os.path.join(here, "..", "build"), os.path.join(here, "..", "lib")]
    paths = [os.environ.get("WCX_LIBRARY", "")] + [os.path.join(place, "libwcx.so") for place in places]
    return ctypes.CDLL(next((path for path in paths if path and os.path.exists(path)), "libwcx.so.0"))


_text = [ctypes.c_char_p, ctypes.c_size_t]
_lib = _find_library()
_lib.wcx_file_open.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p)] + _text
_lib.wcx_file_close.argtypes = [ctypes.c_void_p]
_lib.wcx_file_close.restype = None
_lib.wcx_file_tensor_count.argtypes = [ctypes.c_void_p]
_lib.wcx_file_tensor_count.restype = ctypes.c_size_t
_lib.wcx_file_tensor.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(TensorInfo)]
_lib.wcx_loader_open.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.POINTER(ctypes.c_void_p)] + _text
_lib.wcx_loader_close.argtypes = [ctypes.c_void_p]
_lib.wcx_loader_close.restype = None
_lib.wcx_load.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(Target), ctypes.c_size_t, ctypes.c_void_p] + _text


def _call(function, *arguments):
    """Calls a function that takes an error buffer as its last arguments.  Raises OSError with the text on failure."""
    error = ctypes.create_string_buffer(ERROR_BYTES)
    result = function(*arguments, error, ERROR_BYTES)
    if result < 0:
        raise OSError(-result, error.value.decode("utf-8", "replace"))


class Tensor:
    """One tensor of a file: dtype as the header writes it, shape, and offset and size in bytes in the original file."""

    def __init__(self, info):
        self.dtype = info.dtype.decode()
        self.shape = tuple(info.shape[: info.dim_count])
        self.offset, self.bytes = info.offset, info.bytes


class File:
    """An open packed file.  tensors maps names to Tensor.  Close it, or use it in a with statement."""

    def __init__(self, path):
        self._file = ctypes.c_void_p()
        _call(_lib.wcx_file_open, os.fsencode(path), ctypes.byref(self._file))
        self.tensors = {}
        for i in range(_lib.wcx_file_tensor_count(self._file)):
            info = TensorInfo()
            _lib.wcx_file_tensor(self._file, i, ctypes.byref(info))
            self.tensors[info.name.decode()] = Tensor(info)

    def close(self):
        _lib.wcx_file_close(self._file)
        self._file = ctypes.c_void_p()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def _empty(name, info, device):
    """Returns a tensor without values for a Tensor of a file."""
    dtype, shape = DTYPES.get(info.dtype), info.shape
    if dtype is None or info.dtype == "F4" and shape[-1] % 2:
        warnings.warn(f"{name}: torch has no type for {info.dtype} {list(shape)}: loaded as bytes", stacklevel=4)
        return torch.empty(info.bytes, dtype=torch.uint8, device=device)
    if info.dtype == "F4":
        tensor = torch.empty((*shape[:-1], shape[-1] // 2), dtype=torch.uint8, device=device).view(dtype)
    else:
        tensor = torch.empty(shape, dtype=dtype, device=device)
    if tensor.nbytes != info.bytes:
        raise ValueError(f"{name}: {info.bytes} bytes do not fit {info.dtype} and the shape {list(shape)}")
    return tensor


def _gpu(device):
    """Returns the torch.device with an index: "cuda" means the current GPU.  Raises ValueError for other devices."""
    device = torch.device(device)
    if device.type != "cuda":
        raise ValueError(f"{device}: packed files can only be loaded to CUDA devices")
    return device if device.index is not None else torch.device("cuda", torch.cuda.current_device())


class Loader:
    """Loads files into the memory of one GPU.

    threads is the number of threads that read; 0 means one per core, at most 16.  A loader holds pinned memory and takes
    up to seconds to create, so keep it.  It may be shared by threads, whose loads then run one after the other.
    """

    def __init__(self, device="cuda", threads=0):
        self.device = _gpu(device)
        self._lock = threading.Lock()  # wcx_load allows one thread at a time per loader
        self._loader = ctypes.c_void_p()
        _call(_lib.wcx_loader_open, self.device.index, threads, ctypes.byref(self._loader))

    def close(self):
        _lib.wcx_loader_close(self._loader)
        self._loader = ctypes.c_void_p()

    def load(self, file, names=None):
        """Returns a dict of the named tensors of a File, or of all.

        Waits until they are loaded.  On the GPU, loading starts after the work in the current stream.  Raises KeyError for
        an unknown name, OSError when loading fails.
        """
        tensors, targets = {}, []
        for name in file.tensors if names is None else names:
            info = file.tensors[name]
            tensors[name] = _empty(name, info, self.device)
            targets.append(Target(info.offset, info.bytes, tensors[name].data_ptr()))
        stream = torch.cuda.current_stream(self.device).cuda_stream
        with self._lock:
            _call(_lib.wcx_load, self._loader, file._file, (Target * len(targets))(*targets), len(targets), stream)
        return tensors


_loaders = {}
_loaders_lock = threading.Lock()  # protects _loaders


def load_file(path, device="cuda"):
    """Returns a dict of all tensors of a packed file.  Keeps a Loader for each device for later calls."""
    device = _gpu(device)
    with _loaders_lock:
        loader = _loaders.get(device) or _loaders.setdefault(device, Loader(device))
    with File(path) as file:
        return loader.load(file)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: wcx_torch.py FILE.wcx [DEVICE]")
    device = sys.argv[2] if len(sys.argv) > 2 else "cuda"
    _loaders[_gpu(device)] = Loader(device)
    start = time.perf_counter()
    tensors = load_file(sys.argv[1], device)
    seconds = time.perf_counter() - start
    total = sum(tensor.nbytes for tensor in tensors.values())
    print(f"{len(tensors)} tensors, {total} bytes, in {seconds:.3f} s: {total / seconds / 1e9:.1f} GB/s")


if __name__ == "__main__":
    main()
