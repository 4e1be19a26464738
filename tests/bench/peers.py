# SPDX-License-Identifier: MIT
"""The codecs to compare wcx with: zstd, ZipNN, pcodec (PyPI: zstandard, zipnn, pcodec) and htscodecs (Debian:
libhtscodecs2).  Each gets a whole file, blocks of 64 KiB, or single tensors; with tensors, zstd packs the header.
"""
import ctypes
import importlib.metadata
import sys
import unittest.mock
from dataclasses import dataclass

import numpy as np
import setting

sys.path.insert(0, setting.FIXTURES)
from safetensors_io import ELEM_BYTES, read_header  # noqa: E402

ZSTD_LEVEL = 19
BLOCK_BYTES = 64 << 10


class Failed(Exception):
    pass


@dataclass
class Part:
    """Bytes with their dtype (the most common one, for a file), and the name and shape of a tensor."""

    data: bytes
    dtype: str
    name: str = ""
    shape: tuple = ()

    @property
    def elem_bytes(self):
        return ELEM_BYTES.get(self.dtype, 1)


class Model:
    """A safetensors file in memory."""

    def __init__(self, path):
        with open(path, "rb") as file:
            tensors, _, begin = read_header(file)
            file.seek(0)
            self.data = file.read()
        self.header = self.data[:begin]
        self.tensors = [Part(self.data[begin + t.begin : begin + t.end], t.dtype, t.name, tuple(t.shape))
                        for t in tensors if t.end > t.begin]
        totals = {}
        for tensor in self.tensors:
            totals[tensor.dtype] = totals.get(tensor.dtype, 0) + len(tensor.data)
        self.dtype = max(totals, key=totals.get)

    def whole(self):
        return [Part(self.data, self.dtype)]

    def blocks(self):
        return [Part(self.data[at : at + BLOCK_BYTES], self.dtype) for at in range(0, len(self.data), BLOCK_BYTES)]


class Zstd:
    def __init__(self):
        import zstandard
        self.zstandard = zstandard

    def pack(self, part):
        return self.zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(part.data)

    def unpack(self, packed, _):
        return self.zstandard.ZstdDecompressor().decompress(packed)


class Zipnn:
    """ZipNN does not support integers: they are passed as FP8, whose bytes it codes unchanged."""

    DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}

    def __init__(self, **options):
        # It imports PyTorch, which takes gigabytes, but does not use it for bytes: mocks are enough.
        try:
            import torch  # noqa: F401
        except ImportError:
            sys.modules["torch"] = sys.modules["safetensors.torch"] = unittest.mock.MagicMock()
        import zipnn
        self.zipnn, self.options = zipnn.ZipNN, options

    def codec(self, part):
        return self.zipnn(input_format="byte", bytearray_dtype=self.DTYPES.get(part.dtype, "float8_e4m3fn"), **self.options)

    def pack(self, part):
        return self.codec(part).compress(bytearray(part.data))  # a copy, because it writes to its input

    def unpack(self, packed, part):
        return self.codec(part).decompress(packed)


class Pcodec:
    """Dtypes that pcodec does not support are passed as unsigned integers."""

    DTYPES = {"I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8"}

    def __init__(self, level):
        import pcodec
        self.standalone = pcodec.standalone
        self.config = pcodec.ChunkConfig(compression_level=level, enable_8_bit=True)

    def pack(self, part):
        numbers = np.frombuffer(part.data, self.DTYPES.get(part.dtype, f"<u{part.elem_bytes}"))
        return self.standalone.simple_compress(numbers, self.config)

    def unpack(self, packed, _):
        return self.standalone.simple_decompress(packed).tobytes()


class Htscodecs:
    """rANS 32x16; elements of several bytes in one stream per byte, each packed in the mode that suits it best (STRIPE)."""

    X32, STRIPE = 0x04, 0x08

    def __init__(self, order):
        self.library, self.order = ctypes.CDLL("libhtscodecs.so.2"), order
        self.library.htscodecs_version.restype = ctypes.c_char_p
        self.version = self.library.htscodecs_version().decode()

    def run(self, function, source, capacity, *options):
        target, size = ctypes.create_string_buffer(capacity), ctypes.c_uint(capacity)
        function.restype = ctypes.c_void_p
        if not function(source, len(source), target, ctypes.byref(size), *options):
            raise Failed("htscodecs failed")
        return target.raw[: size.value]

    def pack(self, part):
        stripes = part.elem_bytes if part.elem_bytes > 1 else 0
        order = self.X32 | self.order | (self.STRIPE | stripes << 8 if stripes else 0)
        capacity = self.library.rans_compress_bound_4x16(len(part.data), order)
        return self.run(self.library.rans_compress_to_4x16, part.data, capacity, order)

    def unpack(self, packed, part):
        return self.run(self.library.rans_uncompress_to_4x16, packed, len(part.data))


def packed_bytes(codec, part):
    """Packs a part, checks that it unpacks to the same bytes, and returns the packed size."""
    packed = codec.pack(part)
    if bytes(codec.unpack(packed, part)) != part.data:
        raise Failed(f"{type(codec).__name__} unpacked to other bytes")
    return len(packed)


def header_bytes(model):
    return packed_bytes(Zstd(), Part(model.header, "U8"))


def by_part(codec, parts):
    return lambda model: sum(packed_bytes(codec, part) for part in parts(model))


def by_tensor(codec):
    return lambda model: header_bytes(model) + sum(packed_bytes(codec, tensor) for tensor in model.tensors)


def zstd():
    return {f"zstd -{ZSTD_LEVEL}": by_part(Zstd(), Model.whole)}


def zipnn():
    return {
        "ZipNN, file": by_part(Zipnn(), Model.whole),
        "ZipNN, tensors": by_tensor(Zipnn(compression_threshold=1.0, compression_chunk=128 << 10)),
    }


def pcodec():
    return {f"pcodec -{level}, tensors": by_tensor(Pcodec(level)) for level in (8, 12)}


def htscodecs():
    return {
        "rANS 32x16, order 0, 64 KiB": by_part(Htscodecs(0), Model.blocks),
        "rANS 32x16, order 1, 64 KiB": by_part(Htscodecs(1), Model.blocks),
        "rANS 32x16, order 0, tensors": by_tensor(Htscodecs(0)),
        "rANS 32x16, order 1, tensors": by_tensor(Htscodecs(1)),
    }


FAMILIES = {"zstd": zstd, "zipnn": zipnn, "pcodec": pcodec, "htscodecs": htscodecs}


def load(families):
    """Returns functions by name, which pack a model, check that it unpacks to the same bytes, and return the packed size."""
    functions = {}
    for family in families:
        try:
            functions.update(FAMILIES[family]())
        except (ImportError, OSError) as error:
            raise Failed(f"{family} is not available ({error}); install it, or use --without {family}") from None
    return functions


def version(family):
    if family == "zstd":
        return "zstd " + ".".join(map(str, Zstd().zstandard.ZSTD_VERSION))
    if family == "htscodecs":
        return f"htscodecs {Htscodecs(0).version}"
    return f"{family} {importlib.metadata.version(family)}"
