# SPDX-License-Identifier: MIT
"""What the frameworks call the dtypes of a file, and empty tensors of theirs to load into.

A dtype that a framework does not have comes as a one-dimensional tensor of its bytes, with a warning.  F4 has two values in
an element of torch's type, so that the last dimension is half that in the file.
"""
import ctypes
import warnings
from typing import Any, Tuple

import numpy as np

from ._file import Tensor

_libc = ctypes.CDLL(None)
_NUMPY = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
    "C64": np.complex64,
}
# numpy has no such types.  ml_dtypes does; without it the bits come as integers of the same size.
_ML_DTYPES = {
    "BF16": ("bfloat16", np.uint16),
    "F8_E4M3": ("float8_e4m3fn", np.uint8),
    "F8_E5M2": ("float8_e5m2", np.uint8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", np.uint8),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", np.uint8),
    "F8_E8M0": ("float8_e8m0fnu", np.uint8),
}
_TORCH = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F4": "float4_e2m1fn_x2",
}
_NAMES = {"np": "np", "numpy": "np", "pt": "pt", "torch": "pt", "pytorch": "pt"}


_HUGE_FROM, _HUGE_PAGE, _MADV_HUGEPAGE = 4 << 20, 2 << 20, 14


def advise_huge_pages(address: int, size: int) -> None:
    """Asks the kernel for huge pages in new memory, where a load would otherwise spend time on page faults."""
    first, end = -(-address // _HUGE_PAGE) * _HUGE_PAGE, (address + size) // _HUGE_PAGE * _HUGE_PAGE
    if first < end:
        _libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), _MADV_HUGEPAGE)  # may fail: it is a wish


def _warn_of_bytes(info: Tensor, framework: str) -> None:
    warnings.warn(f"{info.name}: {framework} has no type for {info.dtype} {list(info.shape)}: loaded as bytes", stacklevel=6)


class Numpy:
    """Tensors as numpy arrays."""

    def storage(self, info: Tensor) -> Tuple[Any, Tuple[int, ...]]:
        """Returns the dtype and the shape in elements of it that a tensor has in this framework."""
        dtype = _NUMPY.get(info.dtype)
        if dtype is None and info.dtype in _ML_DTYPES:
            name, dtype = _ML_DTYPES[info.dtype]
            try:
                import ml_dtypes
            except ImportError:
                ml_dtypes = None
            if hasattr(ml_dtypes, name):
                dtype = getattr(ml_dtypes, name)
            else:
                warnings.warn(f"{info.dtype} is loaded as integers of the same bits: ml_dtypes is not installed", stacklevel=5)
        if dtype is None:
            _warn_of_bytes(info, "numpy")
            return np.dtype(np.uint8), (info.bytes,)
        return np.dtype(dtype), info.shape

    def empty(self, dtype, shape, device):
        return np.empty(shape, dtype)  # which asks for huge pages itself

    def address(self, tensor) -> int:
        return tensor.ctypes.data

    def owned(self, tensor):
        """Returns a contiguous tensor with the same values."""
        return np.ascontiguousarray(tensor) if tensor.ndim else tensor


class Torch:
    """Tensors of torch, on any device."""

    def __init__(self):
        import torch

        self.torch = torch

    def storage(self, info: Tensor) -> Tuple[Any, Tuple[int, ...]]:
        """See Numpy.storage."""
        dtype, shape = getattr(self.torch, _TORCH.get(info.dtype, ""), None), info.shape
        if info.dtype == "F4" and dtype is not None:
            if not shape or shape[-1] % 2:
                dtype = None
            else:
                shape = (*shape[:-1], shape[-1] // 2)
        if dtype is None:
            _warn_of_bytes(info, "torch")
            return self.torch.uint8, (info.bytes,)
        return dtype, shape

    def empty(self, dtype, shape, device):
        tensor = self._empty(dtype, shape, device)
        if tensor.device.type == "cpu" and tensor.nbytes >= _HUGE_FROM:
            advise_huge_pages(tensor.data_ptr(), tensor.nbytes)
        return tensor

    def _empty(self, dtype, shape, device):
        try:
            return self.torch.empty(shape, dtype=dtype, device=device)
        except (RuntimeError, NotImplementedError):  # some types have no allocation of their own
            if dtype.itemsize != 1:
                raise
            return self.torch.empty(shape, dtype=self.torch.uint8, device=device).view(dtype)

    def address(self, tensor) -> int:
        return tensor.data_ptr()

    def owned(self, tensor):
        return tensor.contiguous()


def framework_of(name: str):
    """Returns the object for a framework's name: np, numpy, pt, torch or pytorch.  Raises ValueError for others."""
    known = _NAMES.get(name)
    if known is None:
        raise ValueError(f"framework {name!r} is not known: np and pt are")
    return Torch() if known == "pt" else Numpy()


def is_known(name) -> bool:
    return name in _NAMES
