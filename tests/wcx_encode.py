#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""wcx_encode.py good|bad OUTDIR, wcx_encode.py flips FILE.wcx OUTDIR COUNT SEED - make .wcx files to test readers with.

  good   files NAME.wcx that use all that docs/format.md allows, NAME.safetensors beside each as what they hold
  bad    files bad_WHY.wcx, each breaking one rule, with checksums that fit, so that the rule itself has to refuse it;
         bad_data_WHY.wcx break a rule of section 3 or a checksum of data: only decoding the tile shows that
  flips  COUNT copies of FILE, each with one byte of a packed tile changed and the checksums fixed up; beside those that
         wcx_decode.py still accepts lies what it decodes, as .safetensors

Written from docs/format.md alone, independently of the C code and, but for flips, of wcx_decode.py.  Encodes symbol by
symbol, as section 3.1 says it, and so is slow; the files are small.
"""
import copy
import hashlib
import os
import random
import struct
import sys
from dataclasses import dataclass, field

import numpy as np
import xxhash

import wcx_decode
from safetensors_io import build_header, lay_out

STORED, CODED, CONSTANT = range(3)
P_STORED, P_RANS, P_CONSTANT = range(3)
NONE, LEFT, UP, AVG = range(4)


def xxh3(data):
    return xxhash.xxh3_64_intdigest(bytes(data))


# ---- coded tiles (section 3) ----


@dataclass
class Plane:
    """A plane of a coded tile; what the header says can be made to differ from the payload."""

    coding: int
    payload: bytes
    predictor: int = NONE
    reserved: int = 0
    payload_bytes: int = None

    def header(self):
        payload_bytes = len(self.payload) if self.payload_bytes is None else self.payload_bytes
        return struct.pack("<I", self.coding | self.predictor << 2 | self.reserved << 4 | payload_bytes << 8)


def assemble(planes):
    padded = (plane.payload + bytes(-len(plane.payload) % 4) for plane in planes)
    return b"".join(plane.header() for plane in planes) + b"".join(padded)


def predict(plane, predictor):
    """The prediction for every byte of a plane (height, width)."""
    left, up = np.zeros_like(plane), np.zeros_like(plane)
    left[:, 1:] = plane[:, :-1]
    up[1:] = plane[:-1]
    average = (left.view(np.int8).astype(int) + up.view(np.int8)) // 2  # floor
    return [np.zeros_like(plane), left, up, average.astype(np.uint8)][predictor]


def residuals(plane, predictor):
    return (plane - predict(plane, predictor)).tobytes()


def rans_encode(symbols, frequencies, final_states=(1 << 16,) * 32):
    """The payload for the symbols; final_states are what the decoder shall end with."""
    starts = np.concatenate([[0], np.cumsum(frequencies)]).tolist()
    x = list(final_states)
    words = []
    for group in reversed(range(0, len(symbols), 128)):
        for k in reversed(range(4)):
            for lane in reversed(range(32)):
                i = group + 4 * lane + k
                if i >= len(symbols):
                    continue
                s = symbols[i]
                f = frequencies[s]
                if x[lane] >= f << 20:
                    words.append(x[lane] & 0xFFFF)
                    x[lane] >>= 16
                x[lane] = x[lane] // f << 12 | x[lane] % f + starts[s]
    return struct.pack("<32I", *x) + struct.pack(f"<{len(words)}H", *reversed(words))


# ---- frequency tables (section 2.4) ----


def normalise(counts, floor=0):
    """256 frequencies that sum to 4096, none above 4095, at least 1 (and floor) where there is a count."""
    counts = [int(c) for c in counts]
    total = max(1, sum(counts))
    frequencies = [max(1 if c else 0, floor, c * 4096 // total) for c in counts]
    if sum(1 for f in frequencies if f) < 2:
        frequencies[0 if not frequencies[0] else 1] = 1
    while sum(frequencies) != 4096:
        largest = frequencies.index(max(frequencies))
        frequencies[largest] -= min(sum(frequencies) - 4096, frequencies[largest] // 2)
    return frequencies


def encode_table(frequencies):
    out = bytearray()
    s = 0
    while s < 256:
        f = frequencies[s]
        run = next((i for i, g in enumerate(frequencies[s:]) if g), 256 - s)
        if run:
            out += bytes([0, run - 1])
        elif f < 128:
            out.append(f)
        else:
            out += bytes([0x80 | f >> 8, f & 0xFF])
        s += max(run, 1)
    return bytes(out)


# ---- the container (section 2) ----


@dataclass
class Segment:
    bytes: int
    cols: int
    tile_rows: int
    tile_cols: int
    first_table: int = 0
    entropy: int = 0
    elem_bytes: int = 1
    table_mask: int = 0
    reserved: bytes = bytes(6)

    def pack(self):
        return struct.pack("<QQIIIIBB6s", self.bytes, self.cols, self.tile_rows, self.tile_cols, self.first_table,
                           self.entropy, self.elem_bytes, self.table_mask, self.reserved)


@dataclass
class Entry:
    """A tile entry; checksum None is that of the packed bytes."""

    mode: int
    place: int
    size: int = 0
    checksum: int = None


@dataclass
class File:
    """A .wcx file being made."""

    original: bytearray = field(default_factory=bytearray)
    packed: bytearray = field(default_factory=bytearray)
    segments: list = field(default_factory=list)
    entries: list = field(default_factory=list)
    tables: list = field(default_factory=list)  # encoded
    frequencies: list = field(default_factory=list)
    planes: dict = field(default_factory=dict)  # of the coded tiles, by tile
    data: dict = field(default_factory=dict)  # of the coded tiles before coding, by tile: (rows, columns, bytes)
    gap: bytes = b""  # between the packed tiles and the index
    tail: bytes = b""  # behind the index

    def add_table(self, frequencies):
        self.tables.append(encode_table(frequencies))
        self.frequencies.append(frequencies)
        return len(self.tables) - 1

    def place_packed(self, data, gap=0):
        """Append packed bytes, gap further 16-byte blocks behind the last; returns their offset."""
        self.packed += bytes(-len(self.packed) % 16 + 16 * gap)
        self.packed += data
        return 128 + len(self.packed) - len(data)

    def set_packed(self, tile, data):
        """Give a tile other packed bytes."""
        entry = self.entries[tile]
        entry.place, entry.size = self.place_packed(data), len(data)

    def add_segment(self, data, *, cols=None, tile=None, elem_bytes=1, recipe=STORED, tables=None, gap=0):
        """Add a segment of the given data.

        tile is (rows, columns), by default flat.  recipe is STORED, CONSTANT or, for coded tiles, a list with a
        (coding, predictor) for each plane; or a function from the number of the tile within the segment to one of
        these.  tables is (first_table, table_mask) to use tables that exist; by default each plane gets its own.
        """
        cols = len(data) // elem_bytes if cols is None else cols
        tile_rows, tile_cols = tile or (1, 65536)
        matrix = np.frombuffer(data, np.uint8).reshape(-1, cols, elem_bytes)
        tiles = [np.ascontiguousarray(matrix[y : y + tile_rows, x : x + tile_cols])
                 for y in range(0, len(matrix), tile_rows) for x in range(0, cols, tile_cols)]
        recipes = [recipe(i) if callable(recipe) else recipe for i in range(len(tiles))]
        first_table, mask = tables or self.make_tables(tiles, recipes)
        entropy = self.entropy(matrix)
        self.segments.append(Segment(len(data), cols, tile_rows, tile_cols, first_table, entropy, elem_bytes, mask))
        self.original += data
        for tile_data, tile_recipe in zip(tiles, recipes):
            self.add_tile(tile_data, tile_recipe, first_table, mask, gap)

    @staticmethod
    def entropy(matrix):
        bits = 0.0
        for p in range(matrix.shape[2]):
            shares = np.unique(matrix[:, :, p], return_counts=True)[1] / matrix[:, :, p].size
            bits -= (shares * np.log2(shares)).sum()
        return int(bits * 1000)

    def make_tables(self, tiles, recipes):
        first_table, mask = len(self.tables), 0
        for p in range(tiles[0].shape[2]):
            counts = np.zeros(256, int)
            for tile, recipe in zip(tiles, recipes):
                if isinstance(recipe, list) and recipe[p][0] == P_RANS:
                    counts += np.bincount(list(residuals(tile[:, :, p], recipe[p][1])), minlength=256)
            if counts.any():
                self.add_table(normalise(counts))
                mask |= 1 << p
        return first_table, mask

    def add_tile(self, tile, recipe, first_table, mask, gap):
        if recipe == CONSTANT:
            assert (tile == tile[0, 0]).all()
            self.entries.append(Entry(CONSTANT, int.from_bytes(tile[0, 0].tobytes(), "little"), 0, 0))
            return
        if recipe == STORED:
            packed = tile.tobytes()
        else:
            planes = [self.encode_plane(tile[:, :, p], *recipe[p], first_table + bin(mask & ((1 << p) - 1)).count("1"))
                      for p in range(len(recipe))]
            self.planes[len(self.entries)] = planes
            self.data[len(self.entries)] = tile
            packed = assemble(planes)
            assert len(packed) < tile.size, f"coding does not pay: {len(packed)} of {tile.size}"
        self.entries.append(Entry(STORED if recipe == STORED else CODED, self.place_packed(packed, gap), len(packed)))

    def encode_plane(self, plane, coding, predictor, table):
        if coding == P_STORED:
            return Plane(coding, plane.tobytes())
        if coding == P_CONSTANT:
            assert (plane == plane[0, 0]).all()
            return Plane(coding, plane[:1, :1].tobytes())
        return Plane(coding, rans_encode(residuals(plane, predictor), self.frequencies[table]), predictor)

    def pack_entry(self, entry):
        checksum = entry.checksum
        if checksum is None:
            checksum = xxh3(self.packed[entry.place - 128 : entry.place - 128 + entry.size]) & 0xFFFFFFFF
        return struct.pack("<QII", entry.place, entry.size | entry.mode << 24, checksum)

    def build(self, **changed):
        """The bytes of the file; changed are fields of the superblock with other values than the right ones."""
        tables = b"".join(self.tables)
        index = b"".join(s.pack() for s in self.segments) + b"".join(map(self.pack_entry, self.entries)) + tables
        area = bytes(self.packed) + bytes(-len(self.packed) % 16) + self.gap
        fields = {
            "magic": b"\x89WCX\r\n\x1a\n", "version": 1, "reserved": 0, "features": 0,
            "packed_bytes": 128 + len(area) + len(index) + len(self.tail),
            "original_bytes": sum(s.bytes for s in self.segments) % 2**64,
            "index_offset": 128 + len(area), "index_bytes": len(index),
            "segment_count": len(self.segments), "table_count": len(self.tables), "tile_count": len(self.entries),
            "table_bytes": len(tables), "index_checksum": xxh3(index), "sha256": hashlib.sha256(self.original).digest(),
        }
        wrong_sum = changed.pop("checksum", 0)
        fields.update(changed)
        superblock = struct.pack("<8sIIQQQQQIIQQQ32s", *fields.values())
        return superblock + struct.pack("<Q", xxh3(superblock) ^ wrong_sum) + area + index + self.tail


# ---- good files ----


def start(specs, metadata=None, header=None, **how):
    """A file with the segment of the safetensors header for (name, dtype, shape), in the order of their data."""
    file = File()
    file.add_segment(build_header(lay_out(specs), metadata) if header is None else header, **how)
    return file


def narrow(rng, count, elem_bytes, spread=6.0):
    """count elements: the plane above all others and plane 0 bell-shaped, plane 1 random, the others constant."""
    planes = np.full((count, elem_bytes), 0x5A, np.uint8)
    planes[:, 0] = np.rint(rng.standard_normal(count) * spread).astype(int) & 255
    if elem_bytes > 1:
        planes[:, 1] = rng.integers(0, 256, count)
        planes[:, elem_bytes - 1] = np.rint(rng.standard_normal(count) * spread / 2).astype(int) & 255
    return planes.tobytes()


def recipe_for(elem_bytes, predictor):
    """A recipe for the data of narrow()."""
    middle = [(P_STORED, NONE)] + [(P_CONSTANT, NONE)] * (elem_bytes - 3)
    top = (P_RANS, predictor)
    return {1: [top], 2: [(P_RANS, NONE), top]}.get(elem_bytes) or [(P_RANS, NONE)] + middle + [top]


def good_stored_only(rng):
    file = start([("a", "U8", [1]), ("b", "BF16", [3, 5])], {"format": "pt"})
    file.add_segment(b"\x07")
    file.add_segment(rng.bytes(30), elem_bytes=2)
    return file


def good_every_element_size(rng):
    dtypes = {1: "I8", 2: "BF16", 4: "F32", 8: "I64"}
    file = start([(f"t{n}.{predictor}", dtype, [20, 30]) for n, dtype in dtypes.items() for predictor in range(4)])
    for n in dtypes:
        for predictor in range(4):
            file.add_segment(narrow(rng, 600, n), elem_bytes=n, cols=30, tile=(20, 30), recipe=recipe_for(n, predictor))
    return file


def good_predictors_in_square_tiles(rng):
    file = start([(f"t{predictor}", "I8", [300, 390]) for predictor in range(4)])
    for predictor in range(4):
        file.add_segment(narrow(rng, 300 * 390, 1), cols=390, tile=(256, 256), recipe=[(P_RANS, predictor)])
    return file


def good_predictors_mixed_by_tile(rng):
    file = start([("edge", "I8", [70, 130]), ("wide", "I16", [70, 130])])
    edge = (127 + np.rint(4 * rng.standard_normal((70, 130)))).astype(np.uint8)  # about where 127 becomes -128
    file.add_segment(edge.tobytes(), cols=130, tile=(40, 50), recipe=lambda i: [(P_RANS, i % 4)])
    wide = np.stack([edge, np.roll(edge, 1, axis=0)], axis=2)
    file.add_segment(wide.tobytes(), cols=130, tile=(40, 50), elem_bytes=2,
                     recipe=lambda i: STORED if i == 5 else [(P_RANS, i % 4), (P_RANS, (i + 1) % 4)])
    return file


def good_every_lane_tail(rng):
    """Tiles of one row whose number of symbols ends in each place of a group."""
    sizes = [*range(300, 300 + 128), 512, 4096, 65536]
    file = start([(f"t{n}", "I8", [n]) for n in sizes])
    for n in sizes:
        file.add_segment(narrow(rng, n, 1, 0.7), recipe=[(P_RANS, n % 4)])
    return file


def good_lanes_without_symbols(rng):
    sizes = [30, 40, 77, 127]
    file = start([(f"t{n}", "I64", [n]) for n in sizes])
    for n in sizes:
        data = np.full((n, 8), 9, np.uint8)
        data[:, 3] = rng.integers(0, 2, n)
        file.add_segment(data.tobytes(), elem_bytes=8, recipe=[(P_RANS if p == 3 else P_CONSTANT, NONE) for p in range(8)])
    return file


def good_shared_tables(rng):
    """Three tables: the first segment uses 0 and 1, the second 1 and 2, the third 1; another one is used by nobody."""
    file = start([("a", "I16", [900]), ("b", "I16", [900]), ("c", "I8", [900])])
    for spread in 5, 7, 9, 11:
        counts = 1e6 * np.exp(-0.5 * (np.arange(256).astype(np.int8) / spread) ** 2)
        file.add_table(normalise(counts, floor=1))
    two = [(P_RANS, NONE), (P_RANS, NONE)]
    bell = lambda count: (np.rint(rng.standard_normal(count) * 6).astype(int) & 255).astype(np.uint8).tobytes()
    file.add_segment(bell(1800), elem_bytes=2, recipe=two, tables=(0, 3))
    file.add_segment(bell(1800), elem_bytes=2, recipe=two, tables=(1, 3))
    file.add_segment(bell(900), recipe=[(P_RANS, UP)], tables=(1, 1))
    return file


def good_shared_packed_tiles(rng):
    """Two tied tensors whose entries name the same packed bytes, of coded and of stored tiles."""
    file = start([("a", "I8", [1000]), ("tied", "I8", [1000])])
    data = narrow(rng, 1000, 1, 2.0)
    recipe = lambda i: STORED if i == 1 else [(P_RANS, NONE)]
    file.add_segment(data, tile=(1, 400), recipe=recipe)
    first = [copy.copy(entry) for entry in file.entries[1:]]
    file.add_segment(data, tile=(1, 400), recipe=recipe, tables=(0, 1))
    file.entries[4:] = first
    return file


def good_constant_tiles(rng):
    values = {1: b"\xff", 2: b"\x00\x80", 4: b"\x00\x00\x80\x3f", 8: b"\xff\xff\xff\xff\xff\xff\xff\xff"}
    dtypes = {1: "BOOL", 2: "F16", 4: "F32", 8: "U64"}
    file = start([(f"t{n}", dtypes[n], [50, 60]) for n in values] + [("half", "I8", [200])])
    for n, value in values.items():
        file.add_segment(value * 3000, elem_bytes=n, cols=60, tile=(32, 32), recipe=CONSTANT)
    file.add_segment(bytes(100) + narrow(rng, 100, 1), tile=(1, 100), recipe=lambda i: STORED if i else CONSTANT)
    return file


def good_many_segments(rng):
    """With tensors without elements (no segment) and of no dimension between the others."""
    specs = []
    for i in range(200):
        specs += [(f"t{i}", "I8", [i % 7 + 1, 3]), (f"empty{i}", "F32", [0, 5]), (f"scalar{i}", "F64", [])]
    file = start(specs, {"k": "v"})
    for i in range(200):
        file.add_segment(rng.bytes((i % 7 + 1) * 3))
        file.add_segment(bytes(8), elem_bytes=8, recipe=STORED if i % 2 else CONSTANT)
    return file


def good_header_in_coded_tiles(rng):
    """A header with white space in front, in three coded tiles and a short stored one."""
    text = build_header(lay_out([(f"model.layers.{i}.weight", "I8", [4]) for i in range(100)]))[8:]
    text = b" \n\t " + text
    header = struct.pack("<Q", len(text)) + text
    file = start([], header=header, tile=(1, 2500), recipe=lambda i: [(P_RANS, NONE)] if i < 3 else STORED)
    for _ in range(100):
        file.add_segment(rng.bytes(4))
    return file


def good_header_alone(_rng):
    return start([("nothing", "F32", [0])], {"only": "metadata"})


def good_tile_wider_than_matrix(rng):
    file = start([("a", "I8", [33, 17]), ("b", "I8", [999])])
    file.add_segment(narrow(rng, 33 * 17, 1, 2.0), cols=17, tile=(256, 256), recipe=[(P_RANS, AVG)])
    file.add_segment(narrow(rng, 999, 1, 2.0), tile=(256, 1))
    return file


def good_views_that_are_not_the_tensor(rng):
    """Segments tiled with other widths and element sizes than the tensor's own."""
    file = start([("a", "BF16", [48, 64]), ("b", "I8", [60, 64]), ("c", "F32", [40, 25])])
    file.add_segment(narrow(rng, 6144, 1), cols=96, tile=(16, 50), recipe=[(P_RANS, UP)])
    file.add_segment(narrow(rng, 960, 4), cols=40, elem_bytes=4, tile=(24, 40), recipe=recipe_for(4, LEFT))
    file.add_segment(narrow(rng, 500, 8), cols=1, elem_bytes=8, tile=(500, 3), recipe=recipe_for(8, AVG))
    return file


def good_gaps_and_any_order(rng):
    """Packed tiles in the reverse of their order, with gaps of zeros, a gap in front of the index too."""
    file = start([("a", "I8", [2000])])
    file.add_segment(narrow(rng, 2000, 1, 2.0), tile=(1, 300), recipe=[(P_RANS, LEFT)], gap=3)
    old, file.packed = file.packed, bytearray()
    for entry in reversed(file.entries):
        entry.place = file.place_packed(old[entry.place - 128 : entry.place - 128 + entry.size], gap=2)
    file.gap = bytes(48)
    return file


def good_extreme_tables(rng):
    """Frequencies 4095 and 1; all 256 symbols with 16; symbols at both ends only; the longest run in the middle."""
    file = start([(name, "U8", [4000]) for name in ("steep", "rare", "flat", "ends", "single")])
    steep = file.add_table([4095, 1] + [0] * 254)
    flat = file.add_table([16] * 256)
    ends = file.add_table([127] + [0] * 254 + [3969])
    late = file.add_table([0] * 254 + [128, 3968])
    choose = lambda values, shares: rng.choice(np.array(values, np.uint8), 4000, p=shares).tobytes()
    rans = [(P_RANS, NONE)]
    file.add_segment(choose([0, 1], [0.999, 0.001]), recipe=rans, tables=(steep, 1))
    file.add_segment(choose([0, 1], [0.9, 0.1]), recipe=rans, tables=(steep, 1))
    file.add_segment(choose(range(256), None), recipe=STORED, tables=(flat, 1))
    file.add_segment(choose([0, 255], [0.1, 0.9]), recipe=rans, tables=(ends, 1))
    file.add_segment(bytes([255]) * 4000, recipe=rans, tables=(late, 1))
    return file


def good_full_tiles(rng):
    """The largest tiles: 65,536 elements of eight bytes, and of one byte with a predictor that runs through it."""
    file = start([("wide", "I64", [65536]), ("flat", "I8", [65537])])
    file.add_segment(narrow(rng, 65536, 8), elem_bytes=8, recipe=recipe_for(8, LEFT))
    file.add_segment(narrow(rng, 65537, 1), recipe=lambda i: STORED if i else [(P_RANS, AVG)])
    return file


def good_files():
    """(name, File) for each function good_NAME."""
    for name, make in globals().copy().items():
        if name.startswith("good_") and name != "good_files":
            yield name[len("good_") :], make(np.random.default_rng(2026))


# ---- bad files ----

HEADER, CODED_TILE, CONSTANT_TILE, STORED_TILE, SHORT_TILE = 0, 1, 2, 5, 6  # tiles of base()
CODED_SEG, CONSTANT_SEG, STORED_SEG, SHORT_SEG = 1, 2, 3, 4  # its segments
STORED_PLANE, RANS_PLANE, CONSTANT_PLANE, TOP_PLANE = range(4)  # planes of CODED_TILE
N = 1200  # its elements
SHORT_N, SHORT_PLANE = 40, 3  # elements of SHORT_TILE and its only plane in rANS


def base():
    """The good file that each bad one differs from in one place."""
    rng = np.random.default_rng(7)
    file = start([("a", "I32", [30, 40]), ("b", "U8", [300]), ("c", "U8", [20]), ("d", "I64", [SHORT_N])])
    planes = np.full((N, 4), 0x11, np.uint8)
    planes[:, STORED_PLANE] = rng.integers(0, 256, N)
    planes[:, RANS_PLANE] = rng.integers(0, 9, N)
    planes[:, TOP_PLANE] = rng.integers(250, 256, N)
    recipe = [(P_STORED, NONE), (P_RANS, UP), (P_CONSTANT, NONE), (P_RANS, NONE)]
    file.add_segment(planes.tobytes(), elem_bytes=4, cols=40, tile=(30, 40), recipe=recipe)
    file.add_segment(b"\x07" * 300, tile=(1, 100), recipe=CONSTANT)
    file.add_segment(rng.bytes(16) + struct.pack("<I", file.segments[0].bytes))  # ends as the index begins
    short = np.full((SHORT_N, 8), 3, np.uint8)
    short[:, SHORT_PLANE] = rng.integers(0, 2, SHORT_N)
    recipe = [(P_RANS if p == SHORT_PLANE else P_CONSTANT, NONE) for p in range(8)]
    file.add_segment(short.tobytes(), elem_bytes=8, recipe=recipe)
    return file


def with_superblock(**changed):
    return base().build(**changed)


def with_segment(number, **changed):
    file = base()
    for name, value in changed.items():
        setattr(file.segments[number], name, value)
    return file.build()


def with_entry(tile, **changed):
    file = base()
    for name, value in changed.items():
        setattr(file.entries[tile], name, value)
    return file.build()


def with_plane(plane, tile=CODED_TILE, **changed):
    file = base()
    for name, value in changed.items():
        old = getattr(file.planes[tile][plane], name)
        setattr(file.planes[tile][plane], name, value(old) if callable(value) else value)
    file.set_packed(tile, assemble(file.planes[tile]))
    return file.build()


def with_packed(tile, change):
    file = base()
    file.set_packed(tile, change(assemble(file.planes[tile])))
    return file.build()


def with_table(encoded):
    """A fourth table, used by no plane."""
    file = base()
    file.tables.append(encoded)
    return file.build()


def with_final_state(tile, plane, lane, table):
    file = base()
    states = [1 << 16] * 32
    states[lane] += 1
    chosen = file.planes[tile][plane]
    symbols = residuals(file.data[tile][:, :, plane], chosen.predictor)
    chosen.payload = rans_encode(symbols, file.frequencies[table], states)
    file.set_packed(tile, assemble(file.planes[tile]))
    return file.build()


def bad_superblocks():
    good = base().build()
    index_bytes = 40 * 5 + 16 * 7 + len(b"".join(base().tables))
    index_offset = len(good) - index_bytes
    yield "empty", b""
    yield "no_wcx", b"\x08\0\0\0\0\0\0\0{}      " * 20
    yield "superblock_cut", good[:127]
    yield "superblock_alone", good[:128]
    yield "cut_by_a_byte", good[:-1]
    yield "a_byte_appended", good + b"\0"
    yield "magic", with_superblock(magic=b"\x89WCX\n\x1a\n\0")
    yield "version_0", with_superblock(version=0)
    yield "version_2", with_superblock(version=2)
    yield "superblock_reserved", with_superblock(reserved=1)
    yield "feature", with_superblock(features=1)
    yield "feature_highest", with_superblock(features=1 << 63)
    yield "packed_bytes", with_superblock(packed_bytes=len(good) + 16)
    yield "original_bytes_0", with_superblock(original_bytes=0)
    yield "original_bytes_more", with_superblock(original_bytes=sum(s.bytes for s in base().segments) + 1)
    yield "original_bytes_over_limit", with_superblock(original_bytes=(1 << 60) + 1)
    yield "superblock_checksum", with_superblock(checksum=1)
    yield "index_checksum", with_superblock(index_checksum=0)
    yield "index_offset_wraps", with_superblock(index_offset=2**64 - 16, index_bytes=len(good) + 16,
                                                table_bytes=len(good) + 16 - 40 * 5 - 16 * 7)
    yield "index_in_superblock", with_superblock(index_offset=112, index_bytes=len(good) - 112,
                                                 table_bytes=len(good) - 112 - 40 * 5 - 16 * 7)
    yield "index_bytes_0", with_superblock(index_bytes=0, index_offset=len(good) // 16 * 16)
    yield "table_bytes", with_superblock(table_bytes=len(b"".join(base().tables)) - 1)
    yield "tile_count_wraps", with_superblock(tile_count=7 + (1 << 60))
    yield "tile_count_0", with_superblock(tile_count=0)
    yield "segment_count_0", with_superblock(segment_count=0, original_bytes=0)
    yield "segment_count_huge", with_superblock(segment_count=2**32 - 1)
    file = base()
    file.add_table([16] * 256)
    yield "table_count_less", file.build(table_count=3)
    yield "table_count_more", with_superblock(table_count=4)
    yield "table_count_huge", with_superblock(table_count=2**32 - 1)
    yield "data_sha256", with_superblock(sha256=bytes(32))
    nothing = File()
    yield "no_segments", nothing.build()
    file = base()
    file.gap = bytes(8)
    yield "index_not_aligned", file.build()
    file = base()
    file.tail = bytes(16)
    yield "index_ends_early", file.build()
    yield "index_over_limit", index_over_limit(good[index_offset:])


def index_over_limit(index):
    """An index of 2^28 + 16 bytes, all of whose further bytes are zeros that count as tables."""
    index += bytes((1 << 28) + 16 - len(index))
    file = base()
    area = 128 + len(file.packed) + -len(file.packed) % 16
    head = file.build(packed_bytes=area + len(index), index_bytes=len(index), index_checksum=xxh3(index),
                      table_bytes=len(index) - 40 * 5 - 16 * 7)
    return head[:area] + index


def bad_segments():
    yield "segment_bytes_0", with_segment(STORED_SEG, bytes=0)
    file = base()
    file.segments[CONSTANT_SEG].bytes = file.segments[CONSTANT_SEG].cols = 299
    yield "segment_bytes_less", file.build(original_bytes=len(file.original))
    yield "segment_bytes_no_multiple", with_segment(SHORT_SEG, bytes=SHORT_N * 8 + 4)
    yield "segment_bytes_huge", with_segment(STORED_SEG, bytes=2**64 - 4, cols=2**64 - 4)
    yield "segment_cols_0", with_segment(STORED_SEG, cols=0)
    yield "segment_cols_no_divisor", with_segment(CONSTANT_SEG, cols=299)
    yield "segment_cols_huge", with_segment(STORED_SEG, cols=2**63)
    yield "segment_tile_rows_0", with_segment(STORED_SEG, tile_rows=0)
    yield "segment_tile_cols_0", with_segment(STORED_SEG, tile_cols=0)
    yield "segment_tile_too_large", with_segment(CODED_SEG, tile_rows=2, tile_cols=32769)
    yield "segment_tile_wraps_32_bit", with_segment(CODED_SEG, tile_rows=1 << 16, tile_cols=1 << 16)
    yield "segment_tile_wraps_to_fit", with_segment(CODED_SEG, tile_rows=(1 << 31) + 30, tile_cols=40)
    yield "segment_tile_too_tall", with_segment(CODED_SEG, tile_rows=257, tile_cols=1)
    file = base()
    header_bytes = file.segments[0].bytes
    file.segments[0].bytes = file.segments[0].cols = 7
    file.set_packed(0, bytes(file.original[:7]))
    yield "segment_header_too_small", file.build(original_bytes=len(file.original) - header_bytes + 7)
    yield "segment_more_tiles", with_segment(CODED_SEG, tile_rows=15)
    yield "segment_fewer_tiles", with_segment(CONSTANT_SEG, tile_cols=300)
    for elem_bytes in 0, 3, 5, 16, 255:
        cols = 20 // max(1, elem_bytes) or 1
        yield f"segment_elem_bytes_{elem_bytes}", with_segment(STORED_SEG, elem_bytes=elem_bytes, cols=cols)
    yield "segment_table_mask", with_segment(CODED_SEG, table_mask=0b11010)
    yield "segment_table_missing", with_segment(SHORT_SEG, first_table=3)
    yield "segment_second_table_missing", with_segment(CODED_SEG, first_table=2)
    yield "segment_first_table_wraps", with_segment(CODED_SEG, first_table=2**32 - 1)
    for byte in 0, 5:
        yield f"segment_reserved_{byte}", with_segment(STORED_SEG, reserved=bytes(byte) + b"\1" + bytes(5 - byte))
    file = base()  # a sum of sizes that is right modulo 2^64
    for number in STORED_SEG, SHORT_SEG:
        file.segments[number].bytes += 1 << 63
        file.segments[number].cols = file.segments[number].bytes // file.segments[number].elem_bytes
    yield "segment_bytes_sum_wraps", file.build()


def bad_entries():
    file = base()
    end = 128 + len(file.packed) + -len(file.packed) % 16
    stored = bytes(file.packed[file.entries[STORED_TILE].place - 128 :][:20])
    file.packed += bytes(-len(file.packed) % 16 + 8) + stored
    file.entries[STORED_TILE].place = 128 + len(file.packed) - 20
    yield "place_not_aligned", file.build()
    file = base()
    file.set_packed(STORED_TILE, stored[:16])
    file.entries[STORED_TILE].size, file.entries[STORED_TILE].checksum = 20, xxh3(stored) & 0xFFFFFFFF
    yield "tile_reaches_into_index", file.build()
    yield "place_in_superblock", with_entry(STORED_TILE, place=112, checksum=0)
    yield "place_0", with_entry(CODED_TILE, place=0, checksum=0)
    yield "tile_in_index", with_entry(STORED_TILE, place=end)
    yield "place_wraps", with_entry(STORED_TILE, place=2**64 - 16, checksum=0)
    for mode in 3, 4, 255:
        yield f"mode_{mode}", with_entry(STORED_TILE, mode=mode)
    yield "stored_too_small", with_entry(STORED_TILE, size=19)
    yield "stored_too_large", with_entry(STORED_TILE, size=21)
    yield "stored_size_0", with_entry(STORED_TILE, size=0)
    file = base()
    file.set_packed(STORED_TILE, assemble([Plane(P_STORED, stored)]))
    file.entries[STORED_TILE].mode = CODED
    yield "coded_larger_than_tile", file.build()
    file = base()
    file.set_packed(CODED_TILE, bytes(file.data[CODED_TILE].tobytes()))
    file.entries[CODED_TILE].mode = CODED
    yield "coded_as_large_as_tile", file.build()
    yield "constant_too_wide", with_entry(CONSTANT_TILE, place=0x107)
    yield "constant_far_too_wide", with_entry(CONSTANT_TILE, place=7 | 1 << 63)
    yield "constant_size", with_entry(CONSTANT_TILE, size=1)
    yield "constant_checksum", with_entry(CONSTANT_TILE, checksum=1)
    yield "data_stored_checksum", with_entry(STORED_TILE, checksum=1)
    yield "data_coded_checksum", with_entry(CODED_TILE, checksum=1)
    file = base()
    file.entries.append(copy.copy(file.entries[-1]))
    yield "one_tile_more", file.build()
    file = base()
    file.entries.pop()
    yield "one_tile_less", file.build()


def bad_tables():
    flat = b"\x10" * 256
    yield "table_sum_less", with_table(b"\x0f" + flat[1:])
    yield "table_sum_more", with_table(b"\x11" + flat[1:])
    yield "table_sum_twice", with_table(b"\x20" * 256)
    yield "table_empty", with_table(b"\x00\xff")
    yield "table_single_symbol", with_table(b"\x90\x00" + b"\x00\xfe")
    yield "table_first_byte", with_table(b"\xc8\x00" + b"\x88\x00" + b"\x00\xfd")
    yield "table_two_bytes_for_127", with_table(b"\x80\x7f" + b"\x8f\x81" + b"\x00\xfd")
    yield "table_two_bytes_for_0", with_table(b"\x80\x00" + b"\x88\x00" * 2 + b"\x00\xfc")
    yield "table_run_passes_255", with_table(b"\x88\x00" * 2 + b"\x00\xfe")
    yield "table_run_after_run", with_table(b"\x88\x00" * 2 + b"\x00\x00" + b"\x00\xfc")
    yield "table_cut", with_table(flat[:255])
    yield "table_cut_in_frequency", with_table(b"\x88\x00" + b"\x00\xfd" + b"\x88")
    yield "table_cut_in_run", with_table(b"\x88\x00" * 2 + b"\x00")
    yield "table_followed_by_bytes", with_table(flat + b"\x00")


def bad_coded_tiles():
    yield "data_coding_3_of_constant_plane", with_plane(CONSTANT_PLANE, coding=3)
    yield "data_coding_3_of_rans_plane", with_plane(TOP_PLANE, coding=3)
    yield "data_predictor_of_stored_plane", with_plane(STORED_PLANE, predictor=LEFT)
    yield "data_predictor_of_constant_plane", with_plane(CONSTANT_PLANE, predictor=AVG)
    for bit in range(4):
        yield f"data_plane_reserved_{bit}", with_plane(RANS_PLANE, reserved=1 << bit)
    yield "data_stored_plane_short", with_plane(STORED_PLANE, payload=lambda p: p[:-1])
    yield "data_stored_plane_long", with_plane(STORED_PLANE, payload=lambda p: p + b"\0")
    yield "data_stored_plane_empty", with_plane(STORED_PLANE, payload=b"")
    yield "data_constant_plane_long", with_plane(CONSTANT_PLANE, payload=lambda p: p * 2)
    yield "data_constant_plane_empty", with_plane(CONSTANT_PLANE, payload=b"")
    yield "data_rans_odd", with_plane(RANS_PLANE, payload=lambda p: p + b"\0")
    yield "data_rans_without_states", with_plane(RANS_PLANE, payload=b"")
    yield "data_rans_states_cut", with_plane(RANS_PLANE, payload=lambda p: p[:126])
    yield "data_rans_states_alone", with_plane(RANS_PLANE, payload=lambda p: p[:128])
    yield "data_rans_word_missing", with_plane(RANS_PLANE, payload=lambda p: p[:-2])
    yield "data_rans_last_word_missing", with_plane(TOP_PLANE, payload=lambda p: p[:-2])
    yield "data_rans_word_left", with_plane(RANS_PLANE, payload=lambda p: p + b"\0\0")
    yield "data_rans_last_words_left", with_plane(TOP_PLANE, payload=lambda p: p + b"\0\0\0\0")
    yield "data_rans_final_state_of_lane_0", with_final_state(CODED_TILE, RANS_PLANE, 0, 0)
    yield "data_rans_final_state_of_lane_31", with_final_state(CODED_TILE, TOP_PLANE, 31, 1)
    yield "data_rans_state_of_lane_without_symbol", with_final_state(SHORT_TILE, SHORT_PLANE, 31, 2)
    yield "data_rans_without_table", with_segment(CODED_SEG, first_table=1, table_mask=1 << TOP_PLANE)
    yield "data_rans_without_tables", with_segment(SHORT_SEG, first_table=0, table_mask=0)
    yield "data_payload_passes_tile", with_plane(TOP_PLANE, payload_bytes=4000)
    yield "data_payload_as_large_as_can_be", with_plane(STORED_PLANE, payload_bytes=(1 << 24) - 1)
    yield "data_coded_tile_longer", with_packed(CODED_TILE, lambda packed: packed + bytes(4))
    yield "data_coded_tile_without_padding", with_packed(SHORT_TILE, lambda packed: packed[:-1])
    yield "data_coded_tile_cut", with_packed(CODED_TILE, lambda packed: packed[:-4])
    yield "data_coded_tile_headers_cut", with_packed(CODED_TILE, lambda packed: packed[:15])
    yield "data_coded_tile_headers_alone", with_packed(CODED_TILE, lambda packed: packed[:16])
    yield "data_coded_tile_empty", with_packed(CODED_TILE, lambda packed: b"")


def bad_files():
    """(name, bytes) of files that differ from base() in what their name says."""
    for group in bad_superblocks, bad_segments, bad_entries, bad_tables, bad_coded_tiles:
        for why, data in group():
            yield "bad_" + why, data


# ---- flips ----


def seal(data):
    """Make the checksums of the index and the superblock right."""
    (index_offset,) = struct.unpack_from("<Q", data, 40)
    struct.pack_into("<Q", data, 80, xxh3(data[index_offset:]))
    struct.pack_into("<Q", data, 120, xxh3(data[:120]))


def flip_byte(wcx, data, rng):
    """Change one byte of a packed tile of data, whose index is wcx; all checksums but the SHA-256 become right.

    The header's tiles are spared, because a reader may want to make sense of their text.  Every second byte is one of
    the first of its tile, where plane headers and states are.
    """
    tile = rng.choice([t for t in range(wcx.segments[1].first_tile, wcx.tile_count) if wcx.modes[t] != CONSTANT])
    size = int(wcx.sizes[tile])
    at = int(wcx.places[tile]) + rng.randrange(min(size, 64) if rng.random() < 0.5 else size)
    data[at] ^= rng.choice([1 << rng.randrange(8), rng.randrange(1, 256)])
    entries_at = wcx.index_offset + 40 * wcx.segment_count
    for t in range(wcx.tile_count):  # tiles may share packed bytes
        place, size = int(wcx.places[t]), int(wcx.sizes[t])
        if wcx.modes[t] != CONSTANT and place <= at < place + size:
            struct.pack_into("<I", data, entries_at + 16 * t + 12, xxh3(data[place : place + size]) & 0xFFFFFFFF)
    seal(data)


def write_flips(path, out_dir, count, seed):
    rng = random.Random(seed)
    wcx = wcx_decode.Wcx(path)
    stem = os.path.join(out_dir, os.path.basename(path).removesuffix(".wcx"))
    for i in range(count):
        with open(path, "rb") as file:
            data = bytearray(file.read())
        flip_byte(wcx, data, rng)
        write_file(f"{stem}.flip{i}.wcx", data)
        try:
            original = b"".join(segment.tobytes() for segment in wcx_decode.Wcx(f"{stem}.flip{i}.wcx").decode_segments())
        except wcx_decode.WcxError:
            continue
        data[88:120] = hashlib.sha256(original).digest()
        seal(data)
        write_file(f"{stem}.flip{i}.wcx", data)
        write_file(f"{stem}.flip{i}.safetensors", original)


# ---- the program ----


def write_file(path, data):
    """Write data; zeros at its end take no space."""
    with open(path, "wb") as out:
        out.write(data.rstrip(b"\0"))
        out.truncate(len(data))


def main():
    command, *args = sys.argv[1:] or [None]
    if (command, len(args)) not in (("good", 1), ("bad", 1), ("flips", 4)):
        sys.exit(__doc__.splitlines()[0])
    out_dir = args[1] if command == "flips" else args[0]
    os.makedirs(out_dir, exist_ok=True)
    if command == "good":
        for name, file in good_files():
            write_file(os.path.join(out_dir, name + ".wcx"), file.build())
            write_file(os.path.join(out_dir, name + ".safetensors"), bytes(file.original))
    elif command == "bad":
        for name, data in bad_files():
            write_file(os.path.join(out_dir, name + ".wcx"), data)
    else:
        write_flips(args[0], out_dir, int(args[2]), int(args[3]))


if __name__ == "__main__":
    main()
