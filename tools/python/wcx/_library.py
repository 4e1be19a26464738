# SPDX-License-Identifier: MIT
"""Finds libwcx, and calls it through ctypes.  fs/lib/wcx.h documents the functions."""
import ctypes
import os
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_ssize_t, c_uint, c_uint64, c_void_p
from typing import Any, Dict, List, Tuple

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
        raise ImportError(f"{SONAME} is not found: install wcxfs, or set WCX_LIBRARY to the path of libwcx.so") from error


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


def call(name, *arguments):
    """Calls a function that takes an error buffer.  Returns its result; raises OSError with its errno and text if negative."""
    error = ctypes.create_string_buffer(ERROR_BYTES)
    result = getattr(library, name)(*arguments, error, ERROR_BYTES)
    if result < 0:
        raise OSError(-result, error.value.decode("utf-8", "replace"))
    return result


def targets(ranges):
    """Returns an array of Target for (offset, bytes, address) tuples."""
    return (Target * len(ranges))(*(Target(*values) for values in ranges))
