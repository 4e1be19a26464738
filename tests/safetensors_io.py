# SPDX-License-Identifier: MIT
"""Reads and writes the safetensors container by hand, with nothing but numpy, for the programs beside it."""
import json
import math
import struct
from dataclasses import dataclass

import numpy as np

ELEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8, "C64": 8,
}


@dataclass
class Tensor:
    """What a header says about one tensor; begin and end count from the first byte behind the header."""

    name: str
    dtype: str
    shape: list
    begin: int
    end: int


def lay_out(specs):
    """Tensors from (name, dtype, shape), one behind the other in the order given."""
    tensors = []
    at = 0
    for name, dtype, shape in specs:
        end = at + math.prod(shape) * ELEM_BYTES[dtype]
        tensors.append(Tensor(name, dtype, list(shape), at, end))
        at = end
    return tensors


def build_header(tensors, metadata=None):
    """The length and the JSON, padded with spaces to a multiple of 8; the JSON lists the tensors in the order given."""
    entries = {"__metadata__": metadata} if metadata else {}
    for t in tensors:
        entries[t.name] = {"dtype": t.dtype, "shape": t.shape, "data_offsets": [t.begin, t.end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def read_header(file):
    """From a file at its start: the tensors in the order of their data, the metadata or None, where the data begin."""
    (length,) = struct.unpack("<Q", file.read(8))
    entries = json.loads(file.read(length))
    metadata = entries.pop("__metadata__", None)
    tensors = [Tensor(name, e["dtype"], e["shape"], *e["data_offsets"]) for name, e in entries.items()]
    return sorted(tensors, key=lambda t: (t.begin, t.end)), metadata, 8 + length


def to_bf16(values):
    """F32 to the bits of BF16, rounded to nearest even; for finite values."""
    bits = np.ascontiguousarray(values, "<f4").view("<u4")
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")


def from_bf16(bits):
    return (bits.astype("<u4") << 16).view("<f4")
