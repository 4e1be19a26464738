# SPDX-License-Identifier: MIT
"""The codecs that wcx is compared with: zstd, ZipNN, pcodec (PyPI: zstandard, zipnn, pcodec) and htscodecs (Debian:
libhtscodecs2).  Each gets a file whole, in blocks of 64 KiB, or tensor by tensor; in the last case zstd packs the header.
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
    """Bytes and what they are, or mostly are: of which dtype, and in the case of a tensor of which shape and name."""

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
    """It has no code for integers: these are given as FP8, of which it codes the bytes as they are."""

    DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}

    def __init__(self, **options):
        # It loads PyTorch, several gigabytes, of which it uses nothing for bytes: names without meaning will do.
        try:
            import torch  # noqa: F401
        except ImportError:
            sys.modules["torch"] = sys.modules["safetensors.torch"] = unittest.mock.MagicMock()
        import zipnn
        self.zipnn, self.options = zipnn.ZipNN, options

    def codec(self, part):
        return self.zipnn(input_format="byte", bytearray_dtype=self.DTYPES.get(part.dtype, "float8_e4m3fn"), **self.options)

    def pack(self, part):
        return self.codec(part).compress(bytearray(part.data))  # a copy, for it works in the buffer that it is given

    def unpack(self, packed, part):
        return self.codec(part).decompress(packed)


class Pcodec:
    """What it has no dtype for is given as unsigned integers."""

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
    """rANS 32x16; elements of several bytes as so many streams, of which it packs each as it finds best (STRIPE)."""

    X32, STRIPE = 0x04, 0x08

    def __init__(self, order):
        self.library, self.order = ctypes.CDLL("libhtscodecs.so.2"), order
        self.library.htscodecs_version.restype = ctypes.c_char_p
        self.version = self.library.htscodecs_version().decode()

    def run(self, function, source, room, *options):
        target, size = ctypes.create_string_buffer(room), ctypes.c_uint(room)
        function.restype = ctypes.c_void_p
        if not function(source, len(source), target, ctypes.byref(size), *options):
            raise Failed("htscodecs failed")
        return target.raw[: size.value]

    def pack(self, part):
        stripes = part.elem_bytes if part.elem_bytes > 1 else 0
        order = self.X32 | self.order | (self.STRIPE | stripes << 8 if stripes else 0)
        room = self.library.rans_compress_bound_4x16(len(part.data), order)
        return self.run(self.library.rans_compress_to_4x16, part.data, room, order)

    def unpack(self, packed, part):
        return self.run(self.library.rans_uncompress_to_4x16, packed, len(part.data))


def packed_bytes(codec, part):
    """The size of a part packed, once that is known to give the part back."""
    packed = codec.pack(part)
    if bytes(codec.unpack(packed, part)) != part.data:
        raise Failed(f"{type(codec).__name__} gave other bytes back")
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
    """Functions by name: the packed size of a model, having been restored from it."""
    functions = {}
    for family in families:
        try:
            functions.update(FAMILIES[family]())
        except (ImportError, OSError) as error:
            raise Failed(f"{family} is not to be had ({error}); install it, or say --without {family}") from None
    return functions


def version(family):
    if family == "zstd":
        return "zstd " + ".".join(map(str, Zstd().zstandard.ZSTD_VERSION))
    if family == "htscodecs":
        return f"htscodecs {Htscodecs(0).version}"
    return f"{family} {importlib.metadata.version(family)}"
