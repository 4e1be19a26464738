# SPDX-License-Identifier: MIT
"""The programs that family.py compares: each packs a file of a family, most of them as the difference from its base.

Peers whose `needs_base` is true keep the base as ZipNN packs it, which is the smallest that any peer makes of it alone.
"""
import subprocess

import numpy as np
import peers
import zstandard

LEVEL = peers.ZSTD_LEVEL
PATCH_LEVEL = 10  # 13 takes six times as long for 1 % less; 19 takes 100 s of CPU time for 45 MB
WINDOW_LOG = 27  # zstd's --long: the whole base is in the window


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, *blocks):
    with open(path, "wb") as file:
        for block in blocks:
            file.write(block)


def run(*command):
    subprocess.run(command, check=True)


class Zstd:
    """The program, on the file alone."""

    needs_base, name = False, f"zstd -{LEVEL}"

    def pack(self, _, path, packed):
        run("zstd", "-q", "-f", f"-{LEVEL}", path, "-o", packed)

    def unpack(self, _, packed, path):
        run("zstd", "-q", "-f", "-d", packed, "-o", path)


class Zipnn:
    """ZipNN on the file alone, as bytes of its most common dtype, with one thread."""

    needs_base, name = False, "ZipNN"

    def __init__(self):
        self.codec, self.dtypes = peers.Zipnn(threads=1), {}

    def pack(self, _, path, packed):
        dtype = self.dtypes[packed] = peers.Model(path).dtype
        write(packed, self.codec.pack(peers.Part(read(path), dtype)))

    def unpack(self, _, packed, path):
        write(path, self.codec.unpack(read(packed), peers.Part(b"", self.dtypes[packed])))


class Bitx:
    """BitX (ZipLLM, NSDI'26) by its description: each tensor XOR the base's of the same name, dtype and shape, or as it is; the
    bytes of each place of the elements, over the whole file, packed by zstd.  Names and sizes cost nothing but the header.
    """

    needs_base = True

    def __init__(self, level):
        self.level, self.name = level, f"BitX (zstd -{level})"

    @staticmethod
    def differences(model, base):
        """Yields each tensor's bytes and the base's, or zeros."""
        known = {(t.name, t.dtype, t.shape): t.data for t in base.tensors}
        for tensor in model.tensors:
            data = known.get((tensor.name, tensor.dtype, tensor.shape), bytes(len(tensor.data)))
            yield tensor, np.frombuffer(data, np.uint8)

    def pack(self, base, path, packed):
        model, planes = peers.Model(path), {}
        for tensor, other in self.differences(model, peers.Model(base)):
            bits = np.frombuffer(tensor.data, np.uint8) ^ other
            for place in range(tensor.elem_bytes):
                planes.setdefault((tensor.elem_bytes, place), []).append(bits[place :: tensor.elem_bytes])
        parts = [model.header] + [np.concatenate(planes[key]) for key in sorted(planes)]
        codec = zstandard.ZstdCompressor(level=self.level)
        blocks = [codec.compress(part) for part in parts]
        write(packed, *[piece for block in blocks for piece in (len(block).to_bytes(8, "little"), block)])

    def unpack(self, base, packed, path):
        data, parts, codec = read(packed), [], zstandard.ZstdDecompressor()
        while data:
            length = int.from_bytes(data[:8], "little")
            parts.append(codec.decompress(data[8 : 8 + length]))
            data = data[8 + length :]
        write(path, parts[0])
        with open(path, "r+b") as file:  # the shapes come from the header, so that it must be there to be read
            tensors, _, begin = peers.read_header(file)
            file.truncate(begin + max(t.end for t in tensors))
        model = peers.Model(path)
        kinds = sorted({t.elem_bytes for t in model.tensors})
        planes = {key: np.frombuffer(part, np.uint8)
                  for key, part in zip([(size, place) for size in kinds for place in range(size)], parts[1:])}
        at, blocks = dict.fromkeys(kinds, 0), [model.header]
        for tensor, other in self.differences(model, peers.Model(base)):
            size, count = tensor.elem_bytes, len(tensor.data) // tensor.elem_bytes
            bits = np.stack([planes[size, place][at[size] : at[size] + count] for place in range(size)], 1).ravel()
            at[size] += count
            blocks.append((bits ^ other).tobytes())
        write(path, *blocks)


class ZstdPatch:
    needs_base, name = True, f"zstd -{PATCH_LEVEL} --patch-from"

    def pack(self, base, path, packed):
        run("zstd", "-q", "-f", f"-{PATCH_LEVEL}", f"--long={WINDOW_LOG}", f"--patch-from={base}", path, "-o", packed)

    def unpack(self, base, packed, path):
        run("zstd", "-q", "-f", "-d", f"--long={WINDOW_LOG}", f"--patch-from={base}", packed, "-o", path)


class Xdelta:
    """With a window over the whole base, and its secondary compression of the differences."""

    needs_base, name = True, "xdelta3 -9"

    def pack(self, base, path, packed):
        run("xdelta3", "-e", "-f", "-9", "-B", str(1 << WINDOW_LOG), "-s", base, path, packed)

    def unpack(self, base, packed, path):
        run("xdelta3", "-d", "-f", "-B", str(1 << WINDOW_LOG), "-s", base, packed, path)


class WcxAlone:
    needs_base, name = False, "wcx alone"

    def __init__(self, program):
        self.program = program

    def pack(self, _, path, packed):
        run(self.program, "pack", "-q", "--force", "--base=none", path, packed)

    def unpack(self, _, packed, path):
        run(self.program, "unpack", "-q", "--force", packed, path)


class Wcx(WcxAlone):
    """Against the base, which `wcx pack` packed: family.py gives the packed base for the base."""

    needs_base, name = True, "wcx"

    def pack(self, base, path, packed):
        run(self.program, "pack", "-q", "--force", f"--base={base}", path, packed)


def all_codecs(program):
    """Returns the codecs by name; without wcx if program is None."""
    ours = [Wcx(program), WcxAlone(program)] if program else []
    codecs = [*ours, Bitx(1), Bitx(3), Bitx(LEVEL), ZstdPatch(), Xdelta(), Zipnn(), Zstd()]
    return {codec.name: codec for codec in codecs}


def base_codec(codec):
    """The name of the codec that packs the base of a store."""
    if isinstance(codec, WcxAlone):
        return WcxAlone.name
    return Zipnn.name if codec.needs_base else codec.name


def versions():
    def first_line(*command):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return done.stdout.strip().splitlines()[0]

    return ", ".join([first_line("zstd", "--version").strip("* "), first_line("xdelta3", "-V"), peers.version("zipnn"),
                      f"for BitX {peers.version('zstd')}"])
