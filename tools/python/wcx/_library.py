# SPDX-License-Identifier: MIT
"""Finds libwcx, and calls it through ctypes.  fs/lib/wcx.h documents the functions."""
import ctypes
import os
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_ssize_t, c_uint, c_uint64, c_void_p
from typing import Any, Dict, List, Optional, Tuple

ERROR_BYTES = 1024
SONAME = "libwcx.so.0"


class TensorInfo(ctypes.Structure):
    """struct wcx_tensor_info"""

    _fields_ = [
        ("name", c_char_p),
        ("dtype", c_char_p),
        ("shape", POINTER(c_uint64)),
        ("dim_count", c_size_t),
        ("offset", c_uint64),
        ("bytes", c_uint64),
    ]


class Target(ctypes.Structure):
    """struct wcx_target: a range of the original, and the address that it goes to"""

    _fields_ = [("offset", c_uint64), ("bytes", c_uint64), ("dst", c_void_p)]


def _candidates():
    """Yields paths where the library may be, in the order that README names."""
    here = os.path.dirname(os.path.abspath(__file__))
    if os.environ.get("WCX_LIBRARY"):
        yield os.environ["WCX_LIBRARY"]
    yield os.path.join(here, SONAME)
    yield os.path.join(here, "..", "..", "..", "build", "libwcx.so")  # in a source tree


def _load_library():
    for path in _candidates():
        if os.path.exists(path):
            return ctypes.CDLL(path)
    try:
        return ctypes.CDLL(SONAME)  # where the system looks
    except OSError as error:
        raise ImportError(
            f"{SONAME} is not found: install libwcx0, run ldconfig after cmake --install, or set WCX_LIBRARY to its path"
        ) from error


_PROTOTYPES: Dict[str, Tuple[Any, List[Any], bool]] = {
    "wcx_file_open": (c_int, [c_char_p, POINTER(c_void_p)], True),
    "wcx_file_close": (None, [c_void_p], False),
    "wcx_file_bytes": (c_uint64, [c_void_p], False),
    "wcx_file_sha256": (None, [c_void_p, c_char_p], False),
    "wcx_file_header_bytes": (c_uint64, [c_void_p], False),
    "wcx_file_tensor_count": (c_size_t, [c_void_p], False),
    "wcx_file_tensor": (c_int, [c_void_p, c_size_t, POINTER(TensorInfo)], False),
    "wcx_file_read": (c_ssize_t, [c_void_p, c_void_p, c_size_t, c_uint64], True),
    "wcx_load_host": (c_int, [c_void_p, POINTER(Target), c_size_t, c_uint], True),
    "wcx_loader_open": (c_int, [c_int, c_uint, POINTER(c_void_p)], True),
    "wcx_loader_close": (None, [c_void_p], False),
    "wcx_file_pin": (c_int, [c_void_p, c_void_p], True),
    "wcx_load": (c_int, [c_void_p, c_void_p, POINTER(Target), c_size_t, c_void_p], True),
    "wcx_held_open": (c_int, [c_void_p, c_void_p, POINTER(Target), c_size_t, c_int, POINTER(c_void_p)], True),
    "wcx_held_close": (None, [c_void_p], False),
    "wcx_held_bytes": (c_uint64, [c_void_p], False),
    "wcx_held_fetch": (c_int, [c_void_p, c_void_p, c_void_p], True),
    "wcx_held_decode": (c_int, [c_void_p, c_void_p, c_void_p, c_void_p], True),
    "wcx_held_check": (c_int, [c_void_p, c_void_p], True),
}

library = _load_library()
for _name, (_result, _arguments, _has_error) in _PROTOTYPES.items():
    _function = getattr(library, _name)
    _function.restype = _result
    _function.argtypes = _arguments + ([c_char_p, c_size_t] if _has_error else [])


def _check_integers(kinds, values):
    """Raises ValueError for integers that do not fit: ctypes would drop their upper bits."""
    for kind, value in zip(kinds, values):
        if isinstance(value, int) and (kind(value).value or 0) != value:
            raise ValueError(f"{value} is out of range")


def call(name, *arguments):
    """Calls a function that takes an error buffer, and returns its result.

    Raises OSError with its errno and text if that is negative, and ValueError for an integer that the function cannot take.
    """
    _check_integers(_PROTOTYPES[name][1], arguments)
    error = ctypes.create_string_buffer(ERROR_BYTES)
    result = getattr(library, name)(*arguments, error, ERROR_BYTES)
    if result < 0:
        raise OSError(-result, error.value.decode("utf-8", "replace"))
    return result


def targets(ranges):
    """Returns an array of Target for (offset, bytes, address) tuples.  Raises ValueError for a negative one, or above 64 bits."""
    kinds = [kind for _, kind in Target._fields_]
    for values in ranges:
        _check_integers(kinds, values)
    return (Target * len(ranges))(*(Target(*values) for values in ranges))


class Handle:
    """An object of libwcx, which is freed once: by close(), by the end of a with statement, or when nothing refers to it.

    It can be neither copied nor pickled, and every use after close() raises ValueError.  A forked child does not free it: the
    threads that may hold its locks, and the GPU, are its parent's.
    """

    _close_function: str  # of libwcx; takes the handle
    _handle: Optional[ctypes.c_void_p] = None

    def _create(self, function: str, *arguments) -> None:
        """Calls a function that stores the new object's address to its last argument."""
        handle = ctypes.c_void_p()
        call(function, *arguments, ctypes.byref(handle))
        self._handle, self._process = handle, os.getpid()

    def _open(self) -> ctypes.c_void_p:
        if not self._handle:
            raise ValueError(f"{self!r} has been closed")
        return self._handle

    def close(self) -> None:
        """Frees the object; no other thread may be using it.  Closing again does nothing."""
        handle, self._handle = self._handle, None
        if handle and self._process == os.getpid():
            getattr(library, self._close_function)(handle)

    def __enter__(self):
        self._open()
        return self

    def __exit__(self, *exception):
        self.close()

    def __reduce__(self):
        raise TypeError(f"{self!r} cannot be copied or pickled")

    def __del__(self):
        self.close()
