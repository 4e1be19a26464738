#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""wcx_encode.py good|family|bad OUTDIR, wcx_encode.py flips OUTDIR COUNT SEED FILE.wcx... - makes .wcx files that test readers.

  good   files NAME.wcx that use everything docs/format.md allows, each with its original NAME.safetensors
  family files family_NAME.wcx with bases, beside these: family_base.wcx and family_other_base.wcx
  bad    files bad_WHY.wcx that each break one rule but have valid checksums, so that readers must check the rule itself;
         bad_data_WHY.wcx break a rule of section 3, of ZSTD tiles or of checksums of data, which only decoding detects
  flips  COUNT copies of each FILE, each with one changed byte in a packed tile and valid checksums, and with the original as
         .safetensors if wcx_decode.py still accepts the file

Follows docs/format.md alone, independently of the C code and, except for flips, of wcx_decode.py.  Encodes symbol by symbol
as described in section 3.2, which is slow; the files are small.
"""
import copy
import functools
import hashlib
import itertools
import os
import random
import struct
import sys
from dataclasses import dataclass, field, replace

import numpy as np
import xxhash
import zstandard

import wcx_decode

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures"))
from safetensors_io import build_header, lay_out  # noqa: E402

STORED, CODED, CONSTANT, ZSTD = range(4)
RAW, RANS, CONST = range(3)  # codings of a field
NOTHING, PLANE, EXCEPTIONS = range(3)  # the part whose bytes a carrier carries
NONE, ROTATE, FOLD = range(3)  # transforms
NONE, LEFT, UP, LEFT2 = PREDICTORS = range(4)
NONE, INTEGER, FLOAT = range(3)  # differences
BASES, SETS, ESCAPES, DIFFERENCE_PAIRS = 1, 2, 4, 8  # features
ESCAPE = 255  # a symbol
SUPERBLOCK_BYTES = 192


def xxh3(data):
    return xxhash.xxh3_64_intdigest(bytes(data))


# ---- elements and fields (sections 2.3, 3.4 and 3.5) ----


@dataclass
class Field:
    """A field of a segment; if first_table is None, it gets tables of its own."""

    width: int
    table_count: int = 0
    base: int = 0
    first_table: int = None
    pairs: bool = False
    zero: bool = False
    reserved: int = 0  # flags
    by_context: bool = False
    set_bits: int = 0  # with by_context: table_count is that of all sets
    escapes: bool = False

    @property
    def choice_bits(self):
        return self.set_bits if self.by_context else self.table_count >> 1

    def pack(self):
        flags = (7 if self.by_context else self.table_count) | self.pairs << 3 | self.zero << 4 | self.set_bits << 5
        flags |= self.escapes << 7 | self.reserved
        return struct.pack("<BBHI", self.width, flags, self.base, self.first_table or 0)

    def planes(self):
        """Returns the bits of each raw plane, the largest first."""
        return [1 << i for i in reversed(range(6)) if self.width >> i & 1]


def raw_fields(elem_bytes):
    return [Field(min(32, 8 * elem_bytes)) for _ in range(max(1, elem_bytes // 4))]


def rotate(elements, bits):
    """Rotates to the left; bits may be negative."""
    width = 8 * elements.itemsize
    bits %= width
    return elements << bits | elements >> (width - bits) if bits else elements


def fold(u, lowest):
    """Inverts the bits above the lowest field if bit 0 is set; the function is its own inverse."""
    above = u.dtype.type(2 ** (8 * u.itemsize) - 2**lowest.width)
    return np.where(u & 1, u ^ above, u)


def transform(elements, how, fields):
    u = rotate(elements, 1) if how else elements
    return fold(u, fields[0]) if how == FOLD else u


def undo_transform(u, how, fields):
    u = fold(u, fields[0]) if how == FOLD else u
    return rotate(u, -1) if how else u


def predict(u, predictor):
    """Returns the prediction for each element of a tile (height, width)."""
    left, left_left, up = np.zeros_like(u), np.zeros_like(u), np.zeros_like(u)
    left[:, 1:] = u[:, :-1]
    left_left[:, 2:] = u[:, :-2]
    up[1:] = u[:-1]
    return [np.zeros_like(u), left, up, left + left - left_left][predictor]


# ---- differences (section 3.6) ----


def in_order(elements, difference):
    """Returns T(elements): unsigned integers that, as signed ones, are in the order of the numbers."""
    if difference == INTEGER:
        return elements
    highest = elements.dtype.type(1 << 8 * elements.itemsize - 1)
    return np.where(elements & highest, elements ^ (highest - elements.dtype.type(1)), elements)


def residuals_of(tile, base_tile, difference):
    """Returns the differences, of which those near 0 are small numbers."""
    d = in_order(tile, difference) - in_order(base_tile, difference)
    signs = np.where(d >> d.dtype.type(8 * d.itemsize - 1), d.dtype.type(2 ** (8 * d.itemsize) - 1), d.dtype.type(0))
    return d << d.dtype.type(1) ^ signs


def keys_of(base_tile, difference):
    """Returns the highest 8 bits of the magnitudes of the base's elements, or all 7 of a byte's."""
    signed = in_order(base_tile, difference).view(f"<i{base_tile.itemsize}").astype(object)
    bits = 8 * base_tile.itemsize - 1
    return np.array([(~t if t < 0 else t) >> max(0, bits - 8) for t in signed.reshape(-1)], int)


def contexts_of(base_tile, difference, thresholds):
    return np.searchsorted(np.frombuffer(thresholds, np.uint8), keys_of(base_tile, difference), "right")


def cut(tile, seg, fields, base_tile=None):
    """Returns the values of each field of the tile, in tile order."""
    if base_tile is None:
        u = transform(tile, seg.transform, fields)
        residuals = u - predict(u, seg.predictor)
    else:
        residuals = residuals_of(tile, base_tile, seg.difference)
    residuals = residuals.reshape(-1).astype(np.uint64)
    values = []
    for this in fields:
        values.append(residuals & ((1 << this.width) - 1))
        residuals = residuals >> this.width
    return values


def symbols_for(values, this):
    """Returns the symbols of the values, or -1; in a field of pairs, those of single elements."""
    values = values.astype(np.int64)
    symbols = values - this.base
    if this.zero:
        symbols = np.where(values == 0, 0, np.where(symbols > 0, symbols, -1))
    return np.where((symbols >= 0) & (symbols < (16 if this.pairs else 256 - this.escapes)), symbols, -1)


# ---- coded tiles (section 3) ----


@dataclass
class Source:
    """The input for a coded tile; listed has the ascending positions of the exceptions."""

    seg: "Segment"
    values: list
    fields: list
    codings: list
    choices: dict  # by field: a table for each run
    listed: np.ndarray = None
    contexts: np.ndarray = None  # of the elements

    @property
    def carrier(self):
        return last_coded(self.codings)

    def list_exceptions(self, more):
        """Lists the elements that need it, and those of more(values)."""
        if self.carrier is not None:
            values = self.values[self.carrier]
            needed = np.flatnonzero(symbols_for(values, self.fields[self.carrier]) < 0)
            self.listed = np.union1d(needed, more(values)).astype(int)

    def list_pairs_without_symbol(self, tables):
        """Lists both elements of pairs that have no symbol."""
        symbols = self.pair_symbols(self.carrier, tables)
        pairs = np.flatnonzero([symbol is None for symbol in symbols])
        both = np.concatenate([2 * pairs, 2 * pairs + 1])
        self.listed = np.union1d(self.listed, both[both < len(self.values[self.carrier])])

    def table_of_elements(self, f):
        """Returns the number of the table for each element of a field."""
        n, this = len(self.values[f]), self.fields[f]
        choice = np.array(self.choices[f])[np.arange(n) // self.seg.run] if f in self.choices else np.zeros(n, int)
        return choice * (this.table_count >> this.set_bits) + self.contexts if this.by_context else choice

    def symbols(self, f, tables):
        """Returns the symbols of a field; those of exceptions are arbitrary, here their own if it has a frequency."""
        if self.fields[f].pairs:
            symbols = self.pair_symbols(f, tables)
            assert None not in symbols, "a pair without a symbol"
            return symbols
        symbols, table_of = symbols_for(self.values[f], self.fields[f]), self.table_of_elements(f)
        known = (symbols >= 0) & (np.array(tables)[table_of, symbols] > 0)
        if f == self.carrier:
            instead = np.argmax(tables, axis=1)[table_of[self.listed]]
            symbols[self.listed] = np.where(known[self.listed], symbols[self.listed], instead)
            if self.fields[f].escapes:
                symbols[self.listed] = ESCAPE
            known[self.listed] = True
        assert known.all(), "a value without a symbol"
        return symbols.tolist()

    def pair_symbols(self, f, tables):
        """Returns the symbols of pairs, or None.  A missing second value of the last pair is 15 or, if rare, any."""
        halves, free = symbols_for(self.values[f], self.fields[f]).tolist(), set(self.listed.tolist())
        table_of = self.table_of_elements(f)[::2]
        if len(halves) % 2:
            free.add(len(halves))
            halves.append(15)
        symbols = []
        for a_at, a, b, table in zip(itertools.count(0, 2), halves[::2], halves[1::2], table_of):
            own, b_at, frequencies = a + 16 * b, a_at + 1, tables[table]
            if min(a, b) >= 0 and frequencies[own]:
                symbols.append(own)
                continue
            possible = [p for p in range(256) if frequencies[p] and (p % 16 == a or a_at in free)
                        and (p // 16 == b or b_at in free)]
            symbols.append(max(possible, key=lambda p: frequencies[p], default=None))
        return symbols


def last_coded(codings):
    return max((f for f, coding in enumerate(codings) if coding == RANS), default=None)


@dataclass
class CodedField:
    """A field of a coded tile, packed."""

    coding: int
    value: int = 0  # of CONST
    payload_bytes: int = None  # in the header; None: the correct size
    planes: list = field(default_factory=list)
    payload: bytes = b""


@dataclass
class CodedTile:
    """The parts of a coded tile; its header can be made to contradict the rest."""

    fields: list
    exception_count: int = 0
    exceptions: bytes = b""
    flip: int = 0  # bits to flip in the first word of the header

    @property
    def carrier(self):
        return last_coded([made.coding for made in self.fields])

    def header(self):
        first, more = self.exception_count << 20, []
        for f, made in enumerate(self.fields):
            first |= made.coding << 2 * f
            if made.coding == CONST:
                more.append(made.value)
            elif made.coding == RANS and f != self.carrier:
                more.append(len(made.payload) if made.payload_bytes is None else made.payload_bytes)
        return struct.pack(f"<{1 + len(more)}I", first ^ self.flip, *more)

    def parts(self):
        """Returns the existing parts in order."""
        parts = [self.header()]
        parts += [plane for made in self.fields for plane in made.planes]
        parts += [self.exceptions] if self.exceptions else []
        return parts + [made.payload for made in self.fields if made.payload]

    def assemble(self, pad=bytes):
        return join(self.parts(), pad)


@dataclass
class Options:
    """Unusual encodings: the first is legal but never used by a packer, the others can break rules."""

    pad: callable = bytes  # makes this many bytes of padding and spare bits
    spoil: dict = field(default_factory=dict)  # by field: (lane, bits of its final state to flip)
    exceptions: callable = lambda positions, values: (positions, values)  # changes the lists of exceptions
    carry: int = None  # NOTHING, PLANE or EXCEPTIONS; None: the correct one


def padded(data, alignment, pad=bytes):
    return data + pad(-len(data) % alignment)


def join(parts, pad=bytes, alignment=4):
    packed = b""
    for part in parts:
        packed = padded(packed, alignment, pad) + part
    return packed


def pack_bits(values, bits, pad=bytes):
    """Packs values of `bits` bits into bytes, as one little-endian number."""
    number = sum(int(value) << bits * i for i, value in enumerate(values))
    return pack_number(number, bits * len(values), pad)


def pack_number(number, bits, pad):
    """Packs a number of `bits` bits into bytes; pad makes the spare bits of the last byte."""
    spare = -bits % 8
    last = pad(1)[0] >> 8 - spare << bits if spare else 0
    return (number | last).to_bytes((bits + spare) // 8, "little")


def pack_plane(values, bits, shift, seg, pad=bytes):
    """Section 3.1: makes a raw plane of values whose lowest bit is at shift in the transformed elements."""
    elem_bits, p = 8 * seg.elem_bytes, seg.word_elements
    line, in_line = np.divmod(np.arange(len(values)), 32 * p)
    lane, t = np.divmod(in_line, p)
    unit, i = np.divmod(line, 32 // (bits * p))
    units = np.unpackbits(np.frombuffer(pad(128 * (unit[-1] + 1)), np.uint8), bitorder="little").reshape(-1, 32, 32)
    for b in range(bits):
        x = shift + b if seg.transform == NONE else (shift + b - 1) % elem_bits
        units[unit, lane, (elem_bits * t + x + bits * i) % 32] = values >> b & 1
    return np.packbits(units, bitorder="little").tobytes()


def rans_encode(symbols, tables, table_of, per_line, final_states):
    """Returns start states and words for the symbols, per_line in each lane and line, that lead to final_states.

    Symbol i uses tables[table_of[i]].
    """
    starts = [np.concatenate([[0], np.cumsum(table)]).tolist() for table in tables]
    x = list(final_states)
    words = []
    for line in reversed(range(-(-len(symbols) // (32 * per_line)))):
        for k in reversed(range(per_line)):
            for lane in reversed(range(32)):
                i = per_line * (32 * line + lane) + k
                if i >= len(symbols):
                    continue
                s = symbols[i]
                frequencies, start = tables[table_of[i]], starts[table_of[i]]
                f = frequencies[s]
                if x[lane] >= f << 20:
                    words.append(x[lane] & 0xFFFF)
                    x[lane] >>= 16
                x[lane] = x[lane] // f << 12 | x[lane] % f + start[s]
    return x, words[::-1]


def pack_states(states, pad=bytes):
    """Packs widths and start states."""
    number = at = 0
    widths = [x.bit_length() - 17 for x in states]
    for x, k in zip(states, widths):
        number |= (x - (1 << 16 + k)) << at
        at += 16 + k
    return pack_bits(widths, 4) + padded(pack_number(number, at, pad), 2, pad)


def encode_tile(source, tables, options):
    """Encodes source to a CodedTile."""
    coded = CodedTile([CodedField(coding) for coding in source.codings])
    shift = 0
    for made, this, values in zip(coded.fields, source.fields, source.values):
        plane_shift = shift
        shift += this.width
        if made.coding == CONST:
            assert (values == values[0]).all()
            made.value = int(values[0])
        elif made.coding == RAW:
            for bits in this.planes():
                made.planes.append(pack_plane(values, bits, plane_shift, source.seg, options.pad))
                values = values >> bits
                plane_shift += bits
    carrier = source.carrier
    if carrier is not None:
        add_exceptions(coded, source.fields[carrier], source, options)
        carried = take_carried(coded, options.carry)
    for f, (made, this) in enumerate(zip(coded.fields, source.fields)):
        if made.coding == RANS:
            final = carried if f == carrier else bytes(64)
            made.payload = encode_payload(source, f, tables_of(this, tables), final, options)
    return coded


def tables_of(this, tables):
    """Returns the tables for the symbols of a field."""
    own = tables[this.first_table : this.first_table + this.table_count]
    return [pair_table(table) for table in own] if this.pairs else own


def add_exceptions(coded, this, source, options):
    values = source.values[source.carrier][source.listed]
    positions, values = options.exceptions(source.listed.tolist(), values.tolist())
    coded.exception_count = len(positions)
    coded.exceptions = padded(pack_exceptions(positions, values, this), 2, options.pad)


def pack_exceptions(positions, values, this):
    if this.escapes:
        return np.array(values, "<u2").tobytes()
    return np.array(positions, "<u2").tobytes() + np.array(values, "u1" if this.width <= 8 else "<u2").tobytes()


def take_carried(coded, carry):
    """Removes the carried bytes from their part, the last raw plane or the exceptions, and returns them."""
    last = next((made for made in reversed(coded.fields) if made.planes), None)
    if carry is None:
        carry = PLANE if last else EXCEPTIONS if len(coded.exceptions) >= 64 else NOTHING
    if carry == PLANE:
        carried, last.planes[-1] = last.planes[-1][-64:], last.planes[-1][:-64]
    elif carry == EXCEPTIONS:
        carried, coded.exceptions = coded.exceptions[-64:], coded.exceptions[:-64]
    else:
        carried = b""
    return carried.rjust(64, b"\0")


def encode_payload(source, f, tables, final_halves, options):
    states = [1 << 16 | half for half in struct.unpack("<32H", final_halves)]
    lane, bits = options.spoil.get(f, (0, 0))
    states[lane] ^= bits
    choices = b""
    if f in source.choices:
        choices = padded(pack_bits(source.choices[f], source.fields[f].choice_bits, options.pad), 4, options.pad)
    p = source.seg.word_elements
    each = 2 if source.fields[f].pairs else 1
    table_of = source.table_of_elements(f)[::each]
    states, words = rans_encode(source.symbols(f, tables), tables, table_of, p // each, states)
    return choices + pack_states(states, options.pad) + struct.pack(f"<{len(words)}H", *words)


# ---- frequency tables (sections 2.6 and 2.7) ----


def normalise(counts, floor=0, whole=4096):
    """Returns 256 frequencies with the sum whole, each less, at least floor, and at least 1 for symbols with a count."""
    counts = [int(c) for c in counts]
    total = max(1, sum(counts))
    frequencies = [max(1 if c else 0, floor, c * whole // total) for c in counts]
    for s in 0, 1:
        if sum(1 for f in frequencies if f) < 2:
            frequencies[s] = max(1, frequencies[s])
    while sum(frequencies) != whole:
        largest = frequencies.index(max(frequencies))
        frequencies[largest] -= min(sum(frequencies) - whole, frequencies[largest] // 2)
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


def pair_table(frequencies):
    """Section 2.7: derives the table of pairs from a table."""
    products = [frequencies[p % 16] * frequencies[p // 16] for p in range(256)]
    scaled = lambda k: [0 if q < 256 else max(1, q * k >> 28) for q in products]
    k = 0
    for bit in reversed(range(18)):  # bisects: the sum never falls as k grows
        k |= (sum(scaled(k | 1 << bit)) <= 4096) << bit
    pairs = scaled(k)
    pairs[products.index(max(products))] += 4096 - sum(pairs)
    return pairs


# ---- the container (section 2) ----


@dataclass
class Segment:
    bytes: int
    cols: int = 0
    tile_rows: int = 0
    tile_cols: int = 0
    run: int = 0
    same_as: int = 0
    entropy: int = 0
    elem_bytes: int = 0
    transform: int = 0
    predictor: int = 0
    field_count: int = 0
    base: int = 0  # number, from 1
    difference: int = 0
    threshold_count: int = None  # None: the number of thresholds
    kind: int = 0
    reserved: int = 0
    base_offset: int = 0
    thresholds: bytes = b""
    reserved_at_end: int = 0

    @property
    def word_elements(self):
        return max(1, 4 // self.elem_bytes)

    def pack(self):
        threshold_count = len(self.thresholds) if self.threshold_count is None else self.threshold_count
        return struct.pack("<QQIIIIIBBBBIBBBBQ7sB", self.bytes, self.cols, self.tile_rows, self.tile_cols, self.run,
                           self.same_as, self.entropy, self.elem_bytes, self.transform, self.predictor, self.field_count,
                           self.base, self.difference, threshold_count, self.kind, self.reserved, self.base_offset,
                           self.thresholds, self.reserved_at_end)


@dataclass
class Base:
    """A base of a file; None for name_bytes means the size of the name."""

    sha256: bytes
    original_bytes: int
    name: bytes = b""
    name_bytes: int = None
    reserved: int = 0

    def pack(self):
        name_bytes = len(self.name) if self.name_bytes is None else self.name_bytes
        return struct.pack("<32sQII", self.sha256, self.original_bytes, name_bytes, self.reserved)


@dataclass
class Entry:
    """A tile entry with its packed bytes; None for size or checksum means theirs."""

    mode: int
    data: bytes = b""
    checksum: int = None
    size: int = None

    def pack(self):
        size = len(self.data) if self.size is None else self.size
        checksum = xxh3(self.data) & 0xFFFFFFFF if self.checksum is None else self.checksum
        return struct.pack("<II", size | self.mode << 24, checksum)


def compress(data, level=3, **how):
    return zstandard.ZstdCompressor(level=level, **how).compress(data)


def compress_in_blocks(data):
    """Four blocks at least."""
    writer = zstandard.ZstdCompressor(level=3).compressobj(size=len(data))
    quarter = len(data) // 4 + 1
    parts = [writer.compress(data[at : at + quarter]) + writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
             for at in range(0, len(data), quarter)]
    return b"".join(parts) + writer.flush()


def with_content_size(frame, size):
    """Changes the content size of a frame, with 8 bytes; the frame must have one of 2 or 4 bytes and no window."""
    old_bytes = {0x60: 2, 0xA0: 4}[frame[4] & ~4]
    return frame[:4] + bytes([frame[4] | 0xC0]) + struct.pack("<Q", size) + frame[5 + old_bytes :]


@dataclass
class File:
    """A .wcx file under construction."""

    original: bytearray = field(default_factory=bytearray)
    segments: list = field(default_factory=list)
    contents: list = field(default_factory=list)  # of the segments
    fields: list = field(default_factory=list)
    entries: list = field(default_factory=list)
    tables: list = field(default_factory=list)  # encoded
    frequencies: list = field(default_factory=list)
    bases: list = field(default_factory=list)
    optional_features: int = 0
    extra: bytes = b""  # at the end of the index
    base_contents: list = field(default_factory=list)  # the bases' originals
    coded: dict = field(default_factory=dict)  # CodedTile by tile
    sources: dict = field(default_factory=dict)  # Source by tile
    pad: callable = bytes
    alignment: int = 4  # of the packed tiles
    gap: bytes = b""  # between the packed tiles and the index
    tail: bytes = b""  # behind the index

    def add_table(self, frequencies):
        self.tables.append(encode_table(frequencies))
        self.frequencies.append(frequencies)
        return len(self.tables) - 1

    def has_difference_pairs(self):
        fields = iter(self.fields)
        return any([this.pairs for seg in self.segments for this in itertools.islice(fields, seg.field_count) if seg.base])

    def add_base(self, original, name=b""):
        """Adds a base; returns its number."""
        self.bases.append(Base(hashlib.sha256(original).digest(), len(original), name))
        self.base_contents.append(bytes(original))
        return len(self.bases)

    def add_same(self, number):
        """Adds a segment with the content of another."""
        self.segments.append(Segment(len(self.contents[number]), same_as=number))
        self.contents.append(self.contents[number])
        self.original += self.contents[number]

    def add_segment(self, data, *, elem_bytes=1, cols=None, tile=None, fields=None, transform=NONE, predictor=NONE,
                    run=0, recipe=STORED, choose=None, zstd=compress, listed=lambda i, values: [], options=None,
                    base=0, base_offset=0, difference=NONE, thresholds=b""):
        """Adds a segment of the given data.

        tile is (rows, columns), by default flat.  recipe is a mode or, for coded tiles, a list with the coding of each
        field (by default RANS for fields with tables, RAW for others); or a function that returns one of these for the
        number of a tile in the segment.  choose(tile, field, run) chooses a table or set of them, by default each in turn.
        listed(tile, values) returns positions to list as exceptions even if their values in the carrier have symbols.
        """
        cols = len(data) // elem_bytes if cols is None else cols
        tile_rows, tile_cols = tile or (1, 65536)
        fields = [replace(this) for this in fields or raw_fields(elem_bytes)]
        seg = Segment(len(data), cols, tile_rows, tile_cols, run, 0, entropy(data, elem_bytes), elem_bytes, transform,
                      predictor, len(fields), base, difference, base_offset=base_offset, thresholds=thresholds)

        def tiles_of(contents):
            matrix = np.frombuffer(contents, f"<u{elem_bytes}").reshape(-1, cols)
            return [np.ascontiguousarray(matrix[y : y + tile_rows, x : x + tile_cols])
                    for y in range(0, len(matrix), tile_rows) for x in range(0, cols, tile_cols)]

        tiles = tiles_of(data)
        base_tiles = [None] * len(tiles)
        if base:
            base_tiles = tiles_of(self.base_contents[base - 1][base_offset : base_offset + len(data)])
        self.segments.append(seg)
        self.contents.append(bytes(data))
        self.original += data
        self.fields += fields
        choose = choose or (lambda i, f, r: (i + f + r) % (1 << fields[f].choice_bits))
        recipes = [recipe(i) if callable(recipe) else recipe for i in range(len(tiles))]
        default = [RANS if this.table_count else RAW for this in fields]
        sources = []
        for i, (tile_data, base_tile, how) in enumerate(zip(tiles, base_tiles, recipes)):
            choices = {f: [choose(i, f, r) for r in range(-(-tile_data.size // run))]
                       for f, this in enumerate(fields) if this.choice_bits}
            codings = default if how == CODED else how
            is_coded = isinstance(codings, list)
            sources.append(Source(seg, cut(tile_data, seg, fields, base_tile), fields, codings, choices) if is_coded else None)
            if is_coded and base:
                sources[-1].contexts = contexts_of(base_tile, difference, thresholds)
            if is_coded:
                sources[-1].list_exceptions(lambda values, i=i: listed(i, values))
        self.make_tables(fields, sources)
        for tile_data, base_tile, how, source in zip(tiles, base_tiles, recipes, sources):
            if source:
                self.add_coded(tile_data, source, options or Options())
            elif how == CONSTANT and base:
                self.add_plain(residuals_of(tile_data, base_tile, difference), how, zstd)
            else:
                self.add_plain(tile_data, how, zstd)

    def make_tables(self, fields, sources):
        """Makes tables for fields without first_table, from the symbols that are coded with them."""
        for f, this in enumerate(fields):
            if not this.table_count or this.first_table is not None:
                continue
            counts = np.zeros((this.table_count, 256), int)
            for source in sources:
                if source and source.codings[f] == RANS:
                    counted = np.ones(len(source.values[f]), bool)
                    counted[source.listed if f == source.carrier else []] = False
                    symbols = symbols_for(source.values[f], this)
                    symbols[~counted] = ESCAPE
                    counted |= this.escapes
                    np.add.at(counts, (source.table_of_elements(f)[counted], symbols[counted]), 1)
            this.first_table = len(self.tables)
            for table in counts:
                self.add_table([4 * f for f in normalise(table, whole=1024)] if this.escapes else normalise(table))

    def add_plain(self, tile, mode, zstd):
        if mode == CONSTANT:
            assert (tile == tile[0, 0]).all()
            self.entries.append(Entry(CONSTANT, checksum=int(tile[0, 0])))
        else:
            self.entries.append(Entry(mode, tile.tobytes() if mode == STORED else zstd(tile.tobytes())))
            assert mode == STORED or len(self.entries[-1].data) < tile.nbytes, "ZSTD does not pay"

    def add_coded(self, tile, source, options):
        carrier = source.carrier
        if carrier is not None and source.fields[carrier].pairs:
            source.list_pairs_without_symbol(tables_of(source.fields[carrier], self.frequencies))
        self.sources[len(self.entries)] = source
        self.coded[len(self.entries)] = encode_tile(source, self.frequencies, options)
        packed = self.coded[len(self.entries)].assemble(options.pad)
        assert len(packed) < tile.nbytes, f"coding does not pay: {len(packed)} of {tile.nbytes}"
        self.entries.append(Entry(CODED, packed))

    def pack_bases(self):
        return b"".join([*(this.pack() for this in self.bases), *(this.name for this in self.bases)])

    def build(self, **changed):
        """Returns the bytes of the file; changed has wrong values for fields of the superblock."""
        tables = b"".join(self.tables)
        index = b"".join(part.pack() for part in [*self.segments, *self.fields, *self.entries]) + tables + self.pack_bases()
        index += self.extra
        area = b"".join(padded(entry.data, self.alignment, self.pad) for entry in self.entries) + self.gap
        fields = {
            "magic": b"\x89WCX\r\n\x1a\n", "version": 1, "field_count": len(self.fields),
            "features": (BASES if self.bases else 0) | (SETS if any(this.set_bits for this in self.fields) else 0)
                        | (ESCAPES if any(this.escapes for this in self.fields) else 0)
                        | (DIFFERENCE_PAIRS if self.has_difference_pairs() else 0),
            "packed_bytes": SUPERBLOCK_BYTES + len(area) + len(index) + len(self.tail),
            "original_bytes": sum(s.bytes for s in self.segments) % 2**64,
            "index_offset": SUPERBLOCK_BYTES + len(area), "index_bytes": len(index),
            "segment_count": len(self.segments), "table_count": len(self.tables), "tile_count": len(self.entries),
            "table_bytes": len(tables), "index_checksum": xxh3(index), "sha256": hashlib.sha256(self.original).digest(),
            "optional_features": self.optional_features, "base_count": len(self.bases),
            "base_name_bytes": sum(len(this.name) for this in self.bases), "extra_bytes": len(self.extra), "reserved": b"",
        }
        wrong_sum = changed.pop("checksum", 0)
        fields.update(changed)
        superblock = struct.pack("<8sIIQQQQQIIQQQ32sQIIQ40s", *fields.values())
        return superblock + struct.pack("<Q", xxh3(superblock) ^ wrong_sum) + area + index + self.tail


def entropy(data, elem_bytes):
    bits = 0.0
    for column in np.frombuffer(data, np.uint8).reshape(-1, elem_bytes).T:
        shares = np.unique(column, return_counts=True)[1] / column.size
        bits -= (shares * np.log2(shares)).sum()
    return int(bits * 1000)


# ---- good files ----


def start(specs, metadata=None, header=None, **how):
    """Starts a file with the segment of the safetensors header for (name, dtype, shape), in the order of their data."""
    file = File()
    file.add_segment(build_header(lay_out(specs), metadata) if header is None else header, **how)
    return file


def draw(rng, count, elem_bytes, fields, transform=NONE, spread=1 / 24, fixed=None):
    """Draws elements: fields with tables bell-shaped (spread: relative to all symbols), fixed ones given, others random."""
    u = np.zeros(count, np.uint64)
    shift = 0
    for f, this in enumerate(fields):
        if f in (fixed or {}):
            values = np.broadcast_to(fixed[f], count)
        elif this.table_count:
            values = draw_bell(rng, count, this, spread)
        else:
            values = rng.integers(0, 1 << this.width, count)
        u |= values.astype(np.uint64) << shift
        shift += this.width
    return undo_transform(u.astype(f"<u{elem_bytes}"), transform, fields).tobytes()


def draw_bell(rng, count, this, spread=1 / 24):
    symbol_count = 16 if this.pairs else 1 << min(8, this.width)
    symbols = np.rint(rng.standard_normal(count) * spread * symbol_count).astype(int) % symbol_count
    return np.where((symbols == 0) & this.zero, 0, symbols + this.base)


def draw_exceptions(rng, count, this, at):
    """Draws bell-shaped values, and random ones at some places; in a wide field most of these have no symbol."""
    values = draw_bell(rng, count, this)
    values[at] = rng.integers(0, 1 << this.width, len(at))
    return values


def spread_out(rng, count, n):
    """Draws count of n places, ascending; includes the last place and, if count > 1, the first."""
    ends = [n - 1, 0][:count]
    return np.sort(np.concatenate([ends, rng.choice(np.arange(1, n - 1), count - len(ends), replace=False)]).astype(int))


def fields_for(elem_bytes):
    """Raw and coded fields."""
    return {
        1: [Field(2), Field(6, 1)],
        2: [Field(5), Field(3), Field(8, 1)],
        4: [Field(1), Field(8, 1), Field(15), Field(8, 1)],
        8: [Field(1), Field(8, 1), Field(32), Field(15), Field(8, 1)],
    }[elem_bytes]


DTYPES = {1: "U8", 2: "U16", 4: "U32", 8: "U64"}


def good_stored_only(rng):
    file = start([("a", "U8", [1]), ("b", "BF16", [3, 5])], {"format": "pt"})
    file.add_segment(b"\x07")
    file.add_segment(rng.bytes(30), elem_bytes=2)
    return file


def good_optional_features(rng):
    """Flags that mean nothing to a reader, and bytes that it does not look at."""
    file = start([("a", "U8", [10])])
    file.add_segment(rng.bytes(10))
    file.optional_features, file.extra = 1 << 63 | 5, rng.bytes(77)
    return file


def good_every_element_size(rng):
    cases = [(n, predictor, NONE) for n in DTYPES for predictor in PREDICTORS]
    cases += [(n, NONE, ROTATE) for n in DTYPES] + [(1, NONE, FOLD)]
    file = start([(f"t{n}.{predictor}.{transform}", DTYPES[n], [50, 40]) for n, predictor, transform in cases])
    for n, predictor, transform in cases:
        file.add_segment(draw(rng, 2000, n, fields_for(n), transform), elem_bytes=n, cols=40, tile=(50, 40), recipe=CODED,
                         fields=fields_for(n), transform=transform, predictor=predictor)
    return file


def good_raw_planes_of_every_width(rng):
    """Fields of all widths, first and last in elements that do not fill the last line."""
    cases = [(n, width, last, transform) for n, transform in [*itertools.product(DTYPES, (NONE, ROTATE)), (1, FOLD)]
             for width in range(1, min(33, 8 * n)) for last in range(2 - (transform == FOLD))]
    count_of = {1: 2045, 2: 2045, 4: 1021, 8: 1021}
    file = start([(f"t{n}.{width}.{last}.{transform}", DTYPES[n], [count_of[n]]) for n, width, last, transform in cases])
    for n, width, last, transform in cases:
        coded = min(8, 8 * n - width)
        fields = [Field(width), Field(coded, 1), *raw_parts(8 * n - width - coded)]
        if last:
            fields.reverse()
        file.add_segment(draw(rng, count_of[n], n, fields, transform, spread=0.01), elem_bytes=n, fields=fields,
                         transform=transform, recipe=CODED)
    return file


def raw_parts(width):
    """Returns raw fields with this number of bits in total."""
    return [Field(part) for part in (min(32, width), width - 32) if part > 0]


def good_lines_and_units(rng):
    """Planes of 1 to 32 bits, of elements that exactly fill lines and units, or are one fewer or one more."""
    cases = []
    for n, bits in itertools.product(DTYPES, (1, 2, 4, 8, 16, 32)):
        if bits < 8 * n:
            unit, line = 1024 // bits, 32 * max(1, 4 // n)
            counts = {units * unit + lines * line + more for units in (2, 3) for lines in (0, 1) for more in (-1, 0, 1)}
            cases += [(n, bits, count) for count in sorted(counts)]
    file = start([(f"t{n}.{bits}.{count}", DTYPES[n], [count]) for n, bits, count in cases])
    for i, (n, bits, count) in enumerate(cases):
        coded = min(8, 8 * n - bits)
        fields = [Field(bits), Field(coded, 1), *raw_parts(8 * n - bits - coded)]
        rest = range(2, len(fields))
        file.add_segment(draw(rng, count, n, fields, i % 2, spread=0.01, fixed={f: 1 for f in rest}), elem_bytes=n,
                         fields=fields, transform=i % 2, recipe=[RAW, RANS, *[CONST for _ in rest]])
    return file


def good_carried_bytes(rng):
    """Carried bytes with and without elements, in lanes without symbols; no part to carry; no carrier; several planes."""
    counts = [29, 30, 31, 32, 48, 49, 64, 65]
    others = [("nobody", "U32", [300]), ("nothing", "U8", [900]), ("planes", "U32", [1000])]
    file = start([(f"t{n}", "U64", [n]) for n in counts] + others)
    for n in counts:
        fields = [Field(32), Field(24), Field(8, 1)]
        file.add_segment(draw(rng, n, 8, fields, spread=0.01, fixed={1: 9}), elem_bytes=8, fields=fields,
                         recipe=[RAW, CONST, RANS])
    fields = [Field(16), Field(16)]
    file.add_segment(draw(rng, 300, 4, fields, fixed={1: 9}), elem_bytes=4, fields=fields, recipe=[RAW, CONST])
    fields = [Field(4, 1), Field(4, 1)]
    file.add_segment(draw(rng, 900, 1, fields), fields=fields, recipe=CODED)
    fields = [Field(3), Field(8, 1), Field(10), Field(8, 1), Field(3)]
    file.add_segment(draw(rng, 1000, 4, fields), elem_bytes=4, fields=fields, recipe=CODED)
    return file


def good_wide_symbols(rng):
    """Fields of 9 to 16 bits with the smallest, a medium and the largest base, with and without a symbol for 0."""
    cases = [(width, base, zero) for width in range(9, 17) for base in (0, 1, (1 << width) // 3, (1 << width) - 256)
             for zero in (False, True)]
    file = start([(f"t{width}.{base}.{zero}", "BF16", [1500]) for width, base, zero in cases])
    for width, base, zero in cases:
        fields = [*[Field(16 - width)] * (width < 16), Field(width, 1, base, zero=zero)]
        values = draw_bell(rng, 1500, fields[-1], spread=1 / 12)
        values[:3] = base + zero, base + 1, base + 255
        file.add_segment(draw(rng, 1500, 2, fields, ROTATE, fixed={len(fields) - 1: values}), elem_bytes=2, fields=fields,
                         transform=ROTATE, recipe=CODED)
    return file


def good_exceptions(rng):
    """Few and many exceptions in fields of all widths, carried or not, with a carried raw plane or without one."""
    cases = list(itertools.product(range(1, 17), (RAW, CONST), (1, 2, 3, 15, 16, 17, 20, 21, 22, 85, 100)))
    file = start([(f"t{width}.{coding}.{count}", "U32", [600]) for width, coding, count in cases])
    for width, coding, count in cases:
        base = min(1000, max(0, (1 << width) - 256))
        fields = [Field(16), *[Field(16 - width)] * (width < 16), Field(width, 1, base, zero=width > 8 and count % 2 == 0)]
        at = spread_out(rng, count, 600)
        fixed = {0: 0xABCD, len(fields) - 1: draw_exceptions(rng, 600, fields[-1], at)}
        if coding == CONST and width < 16:
            fixed[1] = 0
        file.add_segment(draw(rng, 600, 4, fields, fixed=fixed), elem_bytes=4, fields=fields,
                         recipe=[CONST, *[coding] * (width < 16), RANS], listed=lambda i, values: at)
    return file


def good_exceptions_beside_planes(rng):
    """Exceptions of fewer, as many and more bytes than are carried, with the plane above or below the carrier."""
    cases = list(itertools.product((8, 12), (5, 16, 21, 22, 30), (0, 1)))
    file = start([(f"t{width}.{count}.{last}", "U64", [130]) for width, count, last in cases])
    for width, count, last in cases:
        at = spread_out(rng, count, 130)
        values = draw_exceptions(rng, 130, Field(width, 1), at)
        parts = [(Field(4), RAW, None), (Field(28 - width), CONST, 1), (Field(width, 1), RANS, values),
                 (Field(32), CONST, 9)]
        if last:
            parts.reverse()
        fields = [this for this, _, _ in parts]
        fixed = {f: value for f, (_, _, value) in enumerate(parts) if value is not None}
        file.add_segment(draw(rng, 130, 8, fields, fixed=fixed), elem_bytes=8, fields=fields,
                         recipe=[coding for _, coding, _ in parts], listed=lambda i, values: at)
    return file


def good_exceptions_of_most_elements(rng):
    """Every element of tiles of even and odd size; as many as a header can count, up to the last of the largest tile."""
    sizes = [40, 41, 250, 251]
    file = start([(f"t{n}.{width}", "U64", [n]) for n in sizes for width in (7, 14)] +
                 [(f"last{width}.{coding}", "U32", [65536]) for width in (8, 16) for coding in (RAW, CONST)])
    for n, width in itertools.product(sizes, (7, 14)):
        fields = [Field(32), Field(width, 1, 0), Field(32 - width)]
        fixed = {0: 9, 1: rng.integers(0, 1 << width, n), 2: 9}
        file.add_segment(draw(rng, n, 8, fields, fixed=fixed), elem_bytes=8, fields=fields, recipe=[CONST, RANS, CONST],
                         listed=lambda i, values: range(len(values)))
    for width, coding in itertools.product((8, 16), (RAW, CONST)):
        fields = [Field(32 - width), Field(width, 1, 0)]
        at = np.arange(65536 - 4095, 65536)
        fixed = {1: draw_exceptions(rng, 65536, fields[1], at)}
        if coding == CONST:
            fixed[0] = 77
        file.add_segment(draw(rng, 65536, 4, fields, fixed=fixed), elem_bytes=4, fields=fields, recipe=[coding, RANS],
                         listed=lambda i, values: at)
    return file


def good_exceptions_not_needed(rng):
    """Every 40th element listed, although all have symbols and are coded with these."""
    file = start([(f"t{width}", "BF16", [2000]) for width in range(5, 17)])
    for width in range(5, 17):
        fields = [*[Field(16 - width)] * (width < 16), Field(width, 1, (1 << width) - 256 if width > 8 else 0)]
        file.add_segment(draw(rng, 2000, 2, fields, ROTATE), elem_bytes=2, fields=fields, transform=ROTATE, recipe=CODED,
                         listed=lambda i, values: range(0, 2000, 40))
    return file


def good_exceptions_and_all_else(rng):
    """Exceptions with every predictor or rotation, other coded fields, and carriers with 1, 2 and 4 tables; or none."""
    ways = [(NONE, predictor) for predictor in PREDICTORS] + [(ROTATE, NONE)]
    cases = list(itertools.product(ways, (1, 2, 4), (0, 70)))
    file = start([(f"t{way}.{tables}.{count}", "F32", [30, 50]) for way, tables, count in cases] +
                 [("tiles", "F32", [50, 70])])
    for (transform, predictor), tables, count in cases:
        fields = [Field(1), Field(8, 1), Field(3, 2), Field(7), Field(10, tables, 500, zero=tables > 1), Field(3)]
        values = draw_exceptions(rng, 1500, fields[4], spread_out(rng, count, 1500))
        data = draw(rng, 1500, 4, fields, transform, fixed={4: values})
        data = add_up(np.frombuffer(data, "<u4").reshape(30, 50), predictor).tobytes()
        file.add_segment(data, elem_bytes=4, cols=50, tile=(30, 50), fields=fields, transform=transform, predictor=predictor,
                         run=128, recipe=CODED)
    fields = [Field(8, 4), Field(16, 2, 300), Field(8)]  # carrier or number of exceptions differs in each tile
    at = rng.choice(3500, 300, replace=False)
    fixed = {1: draw_exceptions(rng, 3500, fields[1], at), 2: 9}
    file.add_segment(draw(rng, 3500, 4, fields, fixed=fixed), elem_bytes=4, cols=70, tile=(20, 30), fields=fields, run=256,
                     listed=lambda i, values: range(0, len(values), 10 * i + 9),
                     recipe=lambda i: [RANS, RANS if i % 2 else RAW, CONST])
    return file


def add_up(residuals, predictor):
    """Returns the tile with these residuals."""
    for axis in [(), (1,), (0,), (1, 1)][predictor]:
        residuals = np.cumsum(residuals, axis=axis, dtype=residuals.dtype)
    return residuals


def good_choices_of_tables(rng):
    """1, 2 and 4 tables with runs of many lengths; the last run and its last line are shorter."""
    runs = [128, 256, 640, 1408, 65536]
    others = [("rows", "I8", [24, 384]), ("pairs", "I8", [24, 384]), ("short", "I16", [3, 1111]), ("long", "I64", [1777])]
    file = start([(f"t{run}", "I32", [2, 3333]) for run in runs] + others)
    fields = [Field(8, 4), Field(8, 1), Field(8, 2), Field(8)]
    for run in runs:
        file.add_segment(draw(rng, 6666, 4, fields), elem_bytes=4, cols=3333, tile=(1, 3333), fields=fields, run=run,
                         recipe=CODED, choose=lambda i, f, r: rng.integers(0, fields[f].table_count))
    widths = np.array([1, 3, 7, 20] * 6)  # one for each row
    rows = np.rint(rng.standard_normal((24, 384)) * widths[:, None]).astype(np.int8)
    how = {"cols": 384, "tile": (10, 384), "run": 384, "recipe": CODED, "choose": lambda i, f, r: (10 * i + r) % 4}
    file.add_segment(rows.tobytes(), fields=[Field(8, 4)], **how)
    file.add_segment(rows.tobytes(), fields=[Field(4), Field(4, 4, pairs=True)], transform=FOLD, **how)
    fields = [Field(8, 2), Field(8, 4)]
    file.add_segment(draw(rng, 3333, 2, fields), elem_bytes=2, cols=1111, tile=(2, 1111), fields=fields, run=128,
                     recipe=CODED, choose=lambda i, f, r: rng.integers(0, fields[f].table_count))
    fields = [Field(8, 4), Field(31), Field(17), Field(8, 2)]
    file.add_segment(draw(rng, 1777, 8, fields), elem_bytes=8, fields=fields, run=256, recipe=CODED)
    return file


def good_pairs(rng):
    """Pairs with 1, 2 and 4 tables above various fields, with every transform and predictor; odd and even counts."""
    raw, coded, both = [Field(4)], [Field(4, 1)], [Field(2, 2), Field(2)]
    ways = [(below, NONE, predictor) for below in (raw, coded, both) for predictor in PREDICTORS]
    ways += [(below, ROTATE, NONE) for below in (raw, coded, both)]
    ways += [(below, FOLD, NONE) for below in (raw, [Field(1), Field(3)], [Field(1), Field(3, 1)], [Field(3), Field(1, 4)])]
    cases = list(itertools.product(ways, (1, 2, 4), ([1, 1501], [30, 43])))
    file = start([(f"t{i}", "I8", shape) for i, (_, _, shape) in enumerate(cases)])
    for (below, transform, predictor), table_count, (rows, cols) in cases:
        fields = [*below, Field(4, table_count, pairs=True)]
        data = draw(rng, rows * cols, 1, fields, transform)
        data = add_up(np.frombuffer(data, np.uint8).reshape(rows, cols), predictor).tobytes()
        choosing = any(this.table_count > 1 for this in fields)
        file.add_segment(data, cols=cols, tile=(rows, cols), fields=fields, transform=transform, predictor=predictor,
                         run=256 if choosing else 0, recipe=CODED)
    return file


def good_pairs_of_two_bytes(rng):
    """Pairs in elements of two bytes: of all widths and bases, with 1, 2 and 4 tables, exceptions, odd and even counts."""
    widths = (4, 0), (5, 9), (8, 107), (8, 240), (9, 0), (12, 4080), (16, 65520), (16, 300)
    cases = list(itertools.product(widths, (1, 2, 4), (NONE, ROTATE), (1501, 2000)))
    file = start([(f"t{i}", "BF16", [n]) for i, (*_, n) in enumerate(cases)])
    for (width, base), table_count, transform, n in cases:
        below = [Field(5, 1), Field(11 - width)] if width < 11 else [Field(16 - width)] * (width < 16)
        fields = [*below, Field(width, table_count, base, pairs=True)]
        at = spread_out(rng, 25, n)
        fixed = {len(below): draw_exceptions(rng, n, fields[-1], at)}
        choosing = any(this.table_count > 1 for this in fields)
        file.add_segment(draw(rng, n, 2, fields, transform, fixed=fixed), elem_bytes=2, fields=fields, transform=transform,
                         run=256 if choosing else 0, recipe=CODED, listed=lambda i, values, at=at: at)
    return file


def good_pairs_of_every_tail(rng):
    """Tiles whose last element is at each place of a line, folded or not; also tiles of one line."""
    sizes = [117, 118, 119, 120, 127, 128, *range(640, 640 + 129), 65535]
    file = start([(f"t{n}", "I8", [n]) for n in sizes])
    fields = [Field(4), Field(4, 1, pairs=True)]
    for i, n in enumerate(sizes):
        transform = FOLD if i % 2 else NONE
        data = draw(rng, n, 1, fields, transform, spread=0.01, fixed={0: 5} if n < 640 else {})
        file.add_segment(data, fields=fields, transform=transform, recipe=[CONST if n < 640 else RAW, RANS])
    return file


def good_tables_of_pairs(rng):
    """Tables with few, many, equally likely, several most likely, or missing pairs; a field for each."""
    tables = [
        [4095, 1], [1, 4095], [2048, 2048], [2048] + [0] * 14 + [2048], [1365, 1365, 1366], [1366, 1365, 1365],
        [256] * 16, [255, 257] * 8, [4081] + [1] * 15, [1] * 15 + [4081], [2047, 2047, 1, 1], [16, 2032, 16, 2032],
        [15, 4050, 16, 15], [15, 17, 4064], [273] * 14 + [137, 137], [2000, 1500, 400, 100, 50, 20, 10, 5, 4, 3, 2, 1, 1],
        [1 << i for i in (11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0)],
    ]
    tables += [normalise(rng.integers(0, 1 << 12, 16) ** power) for power in (1, 2, 3, 4, 6) for _ in range(4)]
    file = start([(f"t{i}", "U8", [1999]) for i in range(len(tables))])
    for i, table in enumerate(tables):
        table = [*table, *[0] * (256 - len(table))]
        fields = [Field(4), Field(4, 1, 0, file.add_table(table), pairs=True)]
        values = rng.choice(16, 1999, p=np.array(table[:16]) / 4096)
        # With frequencies of 1 in 4096, even symbols of the table may not occur among the values.
        present = np.flatnonzero(table)
        values[: len(present)] = present
        file.add_segment(draw(rng, 1999, 1, fields, fixed={1: values, 0: 3}), fields=fields, recipe=[CONST, RANS])
    return file


def good_exceptions_in_pairs(rng):
    """Exceptions of the first, second or both elements of pairs, and of a single last one; carried or not; folded."""
    places = {
        "first": lambda n: range(0, n, 20), "second": lambda n: range(1, n, 20), "ends": lambda n: [0, n - 1],
        "both": lambda n: np.flatnonzero(np.arange(n) // 2 % 20 == 4), "last": lambda n: [n - 1],
        "one_before_last": lambda n: [n - 2], "neighbours": lambda n: range(901, 990),
        "any": lambda n: spread_out(rng, 50, n),
    }
    cases = list(itertools.product(places, (RAW, CONST), (NONE, FOLD), (2000, 2001), (1, 2)))
    file = start([(f"t{'.'.join(map(str, case))}", "U8", [case[3]]) for case in cases])
    for place, coding, transform, n, table_count in cases:
        fields = [Field(3), Field(1), Field(4, table_count, pairs=True)]
        at = np.array(places[place](n))
        fixed = {2: draw_exceptions(rng, n, fields[2], at), **({0: 5, 1: 1} if coding == CONST else {1: 0})}
        file.add_segment(draw(rng, n, 1, fields, transform, spread=0.02, fixed=fixed), fields=fields, transform=transform,
                         run=128 * (table_count > 1), recipe=[coding, CONST, RANS], listed=lambda i, values, at=at: at)
    return file


def good_folded(rng):
    """Single symbols above a first field of 1 to 7 bits, raw or constant, with fields between; with exceptions."""
    cases = [([Field(width), Field(8 - width, tables)], [RAW, RANS]) for width in range(1, 8) for tables in (1, 2, 4)]
    cases += [([Field(width), Field(8 - width, 1)], [CONST, RANS]) for width in range(1, 8)]
    cases += [
        ([Field(1), Field(2), Field(5, 4)], [RAW, RAW, RANS]), ([Field(1), Field(2, 1), Field(5, 2)], [RAW, RANS, RANS]),
        ([Field(1), Field(2), Field(5, 1)], [RAW, CONST, RANS]), ([Field(1), Field(5, 1), Field(2)], [RAW, RANS, CONST]),
        ([Field(2), Field(3, 4), Field(3)], [RAW, RANS, RAW]), ([Field(4), Field(4)], [RAW, CONST]),
        ([Field(1), Field(7, 1)], [CONST, CONST]), ([Field(1), Field(3), Field(4)], [CONST, RAW, CONST]),
    ]
    shapes = [1, 3001], [66, 61]
    file = start([(f"t{i}.{rows}", "I8", [rows, cols]) for i in range(len(cases)) for rows, cols in shapes])
    for i, (fields, recipe) in enumerate(cases):
        for rows, cols in shapes:
            # A constant first field is odd, which inverts the bits above it, in one of two segments.
            fixed = {f: (rows & 1) if f == 0 else 1 for f, coding in enumerate(recipe) if coding == CONST}
            data = draw(rng, rows * cols, 1, fields, FOLD, spread=0.02, fixed=fixed)
            choosing = any(this.table_count > 1 for this in fields)
            file.add_segment(data, cols=cols, tile=(min(33, rows), cols), fields=fields, transform=FOLD, recipe=recipe,
                             run=384 if choosing else 0, listed=lambda i, values: range(0, len(values), 80))
    return file


def good_folded_codings_mixed_by_tile(rng):
    """Tiles of folded elements, some in pairs, with a different coding of fields in each; and tiles of all modes."""
    combinations = list(itertools.product((RAW, CONST), (RANS, RAW, CONST), (RANS, RAW, CONST)))
    combinations.remove((RAW, RAW, RAW))
    fields = [Field(1), Field(3, 1), Field(4, 2, pairs=True)]
    tiles = [draw(rng, 2045, 1, fields, FOLD, fixed={f: (1, 6, 11)[f] for f in range(3) if codings[f] == CONST})
             for codings in combinations]
    tiles += [draw(rng, 2045, 1, fields, FOLD), bytes(2045), b"\x80" * 2045]
    recipes = [*map(list, combinations), STORED, ZSTD, CONSTANT]
    file = start([("a", "I8", [len(tiles), 2045])])
    file.add_segment(b"".join(tiles), tile=(1, 2045), fields=fields, transform=FOLD, run=512, recipe=lambda i: recipes[i])
    return file


def good_most_fields(rng):
    """10 fields with 4 tables each; 10 fields, only the first and last coded; 16 raw planes."""
    file = start([(f"t{i}", "F64", [2000]) for i in range(3)])
    widths = [8, 4, 2, 8, 8, 8, 8, 8, 8, 2]
    for tables in [4] * 10, [1, *[0] * 8, 1]:
        fields = [Field(width, count) for width, count in zip(widths, tables)]
        file.add_segment(draw(rng, 2000, 8, fields), elem_bytes=8, fields=fields, run=32 * tables[1], recipe=CODED)
    fields = [Field(8, 1)] + [Field(width) for width in (16, 7, 7, 7, 7, 12)]
    file.add_segment(draw(rng, 2000, 8, fields), elem_bytes=8, fields=fields, recipe=CODED)
    return file


def good_square_tiles(rng):
    """Tiles of 256 x 256, narrower or shorter at the right and lower edges."""
    file = start([(f"t{i}", "I8", [300, 390]) for i in range(5)])
    how = {"cols": 390, "tile": (256, 256), "recipe": CODED}
    for predictor in NONE, LEFT, UP:
        file.add_segment(draw(rng, 300 * 390, 1, [Field(8, 1)]), fields=[Field(2), Field(6, 2)], run=1024,
                         predictor=predictor, **how)
    file.add_segment(draw(rng, 300 * 390, 1, [Field(8, 1)]), fields=[Field(8, 1)], predictor=LEFT2, **how)
    file.add_segment(draw(rng, 300 * 390, 1, [Field(8, 1)]), fields=[Field(4), Field(4, 4, pairs=True)], run=256,
                     transform=FOLD, **how)
    return file


def good_codings_mixed_by_tile(rng):
    """Tiles with a different coding of fields in each, and tiles of all modes."""
    combinations = list(itertools.product((RANS, RAW, CONST), repeat=3))
    combinations.remove((RAW, RAW, RAW))
    fields = [Field(4, 1), Field(9, 1, 200), Field(3, 2)]
    tiles = [draw(rng, 1000, 2, fields, fixed={f: (5, 201, 3)[f] for f in range(3) if codings[f] == CONST})
             for codings in combinations]
    tiles += [draw(rng, 1000, 2, fields), bytes(2000), b"\x12\x34" * 1000]
    recipes = [*map(list, combinations), STORED, ZSTD, CONSTANT]
    file = start([("a", "I16", [len(tiles), 1000])])
    file.add_segment(b"".join(tiles), elem_bytes=2, tile=(1, 1000), fields=fields, run=256, recipe=lambda i: recipes[i])
    return file


def good_constant_fields(rng):
    """Constant fields of all widths with their largest values; tiles of only a header, with as many fields as possible."""
    file = start([(f"t{width}", "U64", [50]) for width in range(1, 33)] + [("most", "U64", [50])])
    for width in range(1, 33):
        fields = [Field(width), Field(32), Field(32 - width)] if width < 32 else [Field(32), Field(32)]
        values = {0: (1 << width) - 1, 1: 0x8000F00F, 2: 0}
        file.add_segment(draw(rng, 50, 8, fields, fixed=values), elem_bytes=8, fields=fields, recipe=[CONST] * len(fields))
    fields = [Field(width) for width in (2, 4, 8, 8, 8, 8, 8, 8, 8, 2)]
    values = {f: f if f < 9 else 3 for f in range(10)}
    values[0] = 1
    file.add_segment(draw(rng, 50, 8, fields, fixed=values), elem_bytes=8, fields=fields, recipe=[CONST] * 10)
    return file


def good_every_lane_tail(rng):
    """Tiles of one row whose last symbol is at each place of a line."""
    sizes = {1: [*range(300, 300 + 128), 512, 4096, 65536], 2: range(256, 256 + 64), 4: range(96, 96 + 32),
             8: range(64, 64 + 32)}
    cases = [(n, size) for n in sizes for size in sizes[n]]
    file = start([(f"t{n}.{size}", DTYPES[n], [size]) for n, size in cases])
    for i, (n, size) in enumerate(cases):
        fields = [*raw_parts(8 * n - 8), Field(8, 1)]
        constant = range(len(fields) - 1)
        file.add_segment(draw(rng, size, n, fields, spread=0.003, fixed={f: 0 for f in constant}), elem_bytes=n,
                         fields=fields, predictor=i % 4 if n == 1 else NONE, recipe=[*[CONST for _ in constant], RANS])
    return file


def good_lanes_without_symbols(rng):
    cases = [(8, n) for n in (14, 30, 31, 40, 77, 127)] + [(4, 31), (2, 63), (2, 62), (1, 117), (1, 122), (1, 124)]
    file = start([(f"t{elem_bytes}.{n}", DTYPES[elem_bytes], [n]) for elem_bytes, n in cases])
    for elem_bytes, n in cases:
        fields = [*raw_parts(8 * elem_bytes - 8), Field(8, 1)]
        constant = range(len(fields) - 1)
        file.add_segment(draw(rng, n, elem_bytes, fields, spread=0.003, fixed={f: 9 for f in constant}), fields=fields,
                         elem_bytes=elem_bytes, recipe=[*[CONST for _ in constant], RANS])
    return file


def good_shared_tables(rng):
    """Tables shared by fields of one segment and of several, in overlapping ranges; one table without users."""
    file = start([("a", "I16", [900]), ("b", "I16", [900]), ("c", "I8", [900]), ("pairs", "I8", [900])])
    for spread in 5, 7, 9, 11, 13:
        counts = 1e6 * np.exp(-0.5 * (np.arange(256).astype(np.int8) / spread) ** 2)
        file.add_table(normalise(counts, floor=1))
    for first, second in (0, 0), (1, 2):
        fields = [Field(8, 2, 0, first), Field(8, 1, 0, second)]
        file.add_segment(draw(rng, 900, 2, fields), elem_bytes=2, fields=fields, run=128, recipe=CODED)
    file.add_segment(draw(rng, 900, 1, [Field(8, 1)]), fields=[Field(8, 4, 0, 0)], run=128, predictor=UP, recipe=CODED)
    table = file.add_table(normalise([1 + (900 >> i) for i in range(16)] + [0] * 240))
    fields = [Field(4, 1, 0, table), Field(4, 1, 0, table, pairs=True)]  # one table for single values and for pairs
    file.add_segment(draw(rng, 900, 1, fields, fixed={f: rng.geometric(0.5, 900) % 16 for f in range(2)}), fields=fields,
                     recipe=CODED)
    return file


def good_same_content(rng):
    """Tied tensors of all modes, adjacent and apart; the last segment is one of them."""
    names = "plain", "constant", "coded", "zstd"
    file = start([(f"{name}.{i}", "I8", [40, 50]) for i in range(4) for name in names])
    contents = [rng.bytes(2000), bytes([7]) * 2000, draw(rng, 2000, 1, [Field(8, 1)], spread=0.01), b"zstd" * 500]
    hows = [{}, {"recipe": CONSTANT}, {"recipe": CODED, "fields": [Field(8, 1)], "predictor": LEFT}, {"recipe": ZSTD}]
    for data, how in zip(contents, hows):
        file.add_segment(data, cols=50, tile=(25, 50 if how == {"recipe": ZSTD} else 30), **how)
    for i in range(3):
        for number in range(1, 5) if i else range(4, 0, -1):
            file.add_same(number)
    return file


def good_constant_tiles(rng):
    values = {1: b"\xff", 2: b"\x00\x80", 4: b"\x00\x00\x80\xff", 8: b"\xff\xff\xff\xff\0\0\0\0"}
    dtypes = {1: "BOOL", 2: "F16", 4: "F32", 8: "U64"}
    file = start([(f"t{n}", dtypes[n], [50, 60]) for n in values] + [("half", "I8", [200])])
    for n, value in values.items():
        how = {"predictor": UP} if n == 2 else {"transform": ROTATE}
        file.add_segment(value * 3000, elem_bytes=n, cols=60, tile=(32, 32), recipe=CONSTANT, **how)
    file.add_segment(bytes([1]) * 100 + rng.bytes(100), tile=(1, 100), fields=[Field(4), Field(4)], transform=FOLD,
                     recipe=lambda i: STORED if i else CONSTANT)
    return file


def good_zstd_tiles(_rng):
    """Frames of several levels, with a checksum, of several blocks, with a size field of 8 bytes; also the header."""
    ways = [compress, lambda part: compress(part, 1), lambda part: compress(part, 19),
            lambda part: compress(part, write_checksum=True), lambda part: with_content_size(compress(part), len(part)), compress_in_blocks]
    data = np.repeat(np.arange(40000, dtype="<i8") // 3, 2).tobytes()
    text = build_header(lay_out([(f"ids.{i}", "I64", [80000]) for i in range(len(ways))]), {"spaces": " " * 500})
    file = start([], header=text, recipe=ZSTD)
    for i, way in enumerate(ways):
        how = {"predictor": LEFT2} if i % 2 else {"transform": ROTATE}
        file.add_segment(data, elem_bytes=8, tile=(1, 8192), recipe=ZSTD, zstd=way, **how)
    return file


def good_many_segments(rng):
    """Tensors without elements (no segment) and without dimensions between others."""
    specs = []
    for i in range(200):
        specs += [(f"t{i}", "I8", [i % 7 + 1, 3]), (f"empty{i}", "F32", [0, 5]), (f"scalar{i}", "F64", [])]
    file = start(specs, {"k": "v"})
    for i in range(200):
        file.add_segment(rng.bytes((i % 7 + 1) * 3))
        file.add_segment(bytes(8), elem_bytes=8, recipe=STORED if i % 2 else CONSTANT)
    return file


def good_neighbours_in_one_segment(rng):
    """Several tensors in one segment, one without elements; tiles begin within tensors."""
    shapes = [[7], [3, 100], [0, 4], [], [640], [17, 5]]
    file = start([(f"norm{i}", "F16", shape) for i, shape in enumerate(shapes)] + [("b", "I8", [100]), ("c", "I8", [300])])
    fields = [Field(4), Field(12, 2, 100)]
    file.add_segment(draw(rng, 1033, 2, fields, ROTATE), elem_bytes=2, tile=(1, 500), fields=fields, transform=ROTATE,
                     run=128, recipe=lambda i: STORED if i == 2 else CODED)
    file.add_segment(draw(rng, 400, 1, [Field(8, 1)], spread=0.01), fields=[Field(8, 1)], recipe=CODED)
    return file


def good_header_in_coded_tiles(rng):
    """A header with leading white space, in three coded tiles and a short stored one."""
    text = build_header(lay_out([(f"model.layers.{i}.weight", "I8", [4]) for i in range(100)]))[8:]
    text = b" \n\t " + text
    header = struct.pack("<Q", len(text)) + text
    file = start([], header=header, tile=(1, 2500), fields=[Field(8, 1)], recipe=lambda i: CODED if i < 3 else STORED)
    for _ in range(100):
        file.add_segment(rng.bytes(4))
    return file


def good_header_alone(_rng):
    return start([("nothing", "F32", [0])], {"only": "metadata"})


def good_tile_wider_than_matrix(rng):
    file = start([("a", "I8", [33, 17]), ("b", "I8", [999])])
    file.add_segment(draw(rng, 33 * 17, 1, [Field(8, 1)], spread=0.01), cols=17, tile=(256, 256), fields=[Field(8, 1)],
                     predictor=LEFT2, recipe=CODED)
    file.add_segment(rng.bytes(999), tile=(256, 1))
    return file


def good_narrow_tiles_as_tall_as_they_may_be(rng):
    file = start([("slender", "I8", [100, 2]), ("fields", "I8", [100, 10])])
    file.add_segment(rng.bytes(200), cols=2, tile=(8, 1))
    file.add_segment(rng.bytes(1000), cols=10, tile=(64, 9), fields=[Field(1)] * 8)
    return file


def good_views_that_are_not_the_tensor(rng):
    """Segments whose width and element size differ from those of the tensor."""
    file = start([("a", "BF16", [48, 64]), ("b", "I8", [60, 64]), ("c", "F32", [40, 50])])
    file.add_segment(draw(rng, 6144, 1, [Field(8, 1)]), cols=96, tile=(16, 50), fields=[Field(8, 1)], predictor=UP,
                     recipe=CODED)
    for cols, count, n, tile, how in ((40, 960, 4, (24, 40), {"transform": ROTATE}),
                                      (1, 1000, 8, (1000, 3), {"predictor": LEFT})):
        file.add_segment(draw(rng, count, n, fields_for(n)), cols=cols, elem_bytes=n, tile=tile, fields=fields_for(n),
                         recipe=CODED, **how)
    return file


def good_padding_of_any_content(rng):
    """Random bits wherever zeros are written but not checked: gaps, unused bits of planes, spare bits, padding."""
    fields = [Field(7), Field(8, 2), Field(8, 4), Field(9)]
    file = start([(f"t{n}.{carries}", "U32", [n]) for n in range(1001, 1009) for carries in range(2)] +
                 [(f"pairs{n}", "U8", [n]) for n in range(1001, 1009)])
    file.pad = rng.bytes
    for n in range(1001, 1009):
        for recipe in CODED, [CONST, RANS, RANS, CONST]:  # the latter carries exceptions together with their padding
            file.add_segment(draw(rng, n, 4, fields, fixed={} if recipe == CODED else {0: 1, 3: 2}), elem_bytes=4,
                             fields=fields, run=384, options=Options(pad=rng.bytes), recipe=recipe,
                             listed=lambda i, values: range(3, n, 30))
    for n in range(1001, 1009):
        fields = [Field(4), Field(4, 2, pairs=True)]
        file.add_segment(draw(rng, n, 1, fields, FOLD), fields=fields, transform=FOLD, run=128, recipe=CODED,
                         options=Options(pad=rng.bytes), listed=lambda i, values: range(3, n, 101))
    return file


def good_start_states_of_any_size(rng):
    """States of 17 to 32 bits, in lanes that share a byte of widths with lanes of any size."""
    file = start([(f"t{n}", "I8", [n]) for n in range(1500, 1520)])
    met = set()
    for n in range(1500, 1520):
        fields = [Field(8, 1)]
        file.add_segment(draw(rng, n, 1, fields, spread=0.001 * (n - 1499)), fields=fields, recipe=CODED)
        (payload,) = file.coded[len(file.entries) - 1].parts()[1:]
        met |= {half for byte in payload[:16] for half in ((0, byte & 15), (1, byte >> 4))}
    assert len(met) == 32, "a width of a state is not met"
    return file


def good_extreme_tables(rng):
    """Frequencies 4095 and 1; 16 for all 256 symbols; symbols only at both ends; the longest gap in the middle."""
    file = start([(name, "U8", [4000]) for name in ("steep", "rare", "flat", "ends", "single", "bits")])
    steep = file.add_table([4095, 1] + [0] * 254)
    flat = file.add_table([16] * 256)
    ends = file.add_table([127] + [0] * 254 + [3969])
    late = file.add_table([0] * 254 + [128, 3968])
    choose = lambda values, shares: rng.choice(np.array(values, np.uint8), 4000, p=shares).tobytes()
    how = lambda table: {"fields": [Field(8, 1, 0, table)], "recipe": CODED}
    file.add_segment(choose([0, 1], [0.999, 0.001]), **how(steep))
    file.add_segment(choose([0, 1], [0.9, 0.1]), **how(steep))
    file.add_segment(choose(range(256), None), fields=[Field(8, 1, 0, flat)])
    file.add_segment(choose([0, 255], [0.1, 0.9]), **how(ends))
    file.add_segment(bytes([255]) * 4000, **how(late))
    fields = [Field(1, 1), Field(6, 1), Field(1, 1, 0, steep)]
    file.add_segment(choose([0, 1, 128], [0.9, 0.05, 0.05]), fields=fields, recipe=CODED)
    return file


def good_full_tiles(rng):
    """The largest tiles: 65,536 elements of eight bytes, and of one byte with a predictor across the whole tile."""
    file = start([("wide", "I64", [65536]), ("flat", "I8", [65537])])
    fields = [Field(31), Field(9), Field(8, 2), Field(16, 1, 65280)]
    file.add_segment(draw(rng, 65536, 8, fields, ROTATE), elem_bytes=8, fields=fields, transform=ROTATE, run=65536,
                     recipe=CODED)
    file.add_segment(draw(rng, 65537, 1, [Field(8, 1)]), fields=[Field(8, 4)], run=128, predictor=LEFT2,
                     recipe=lambda i: STORED if i else CODED)
    return file


def files_of(prefix):
    """Yields (name, File) for each function PREFIX_NAME that makes one."""
    for name, make in globals().copy().items():
        if name.startswith(prefix) and name != "family_start":
            yield name[len(prefix) :], make(np.random.default_rng(2026))


# ---- families: files with bases, and these ----

FAMILY_ELEMENTS = {1: 2501, 2: 1300, 4: 900, 8: 700}


def family_base(rng):
    """Bell-shaped elements of each size, as floats or integers: zeros, subnormals, infinities and NaN among them."""
    file = start([(f"t{n}", DTYPES[n], [count]) for n, count in FAMILY_ELEMENTS.items()])
    for n, count in FAMILY_ELEMENTS.items():
        file.add_segment(floats(rng, n, count), elem_bytes=n)
    return file


def family_other_base(rng):
    file = start([("w", "U16", [2999])])
    file.add_segment(rng.bytes(5998), elem_bytes=2)
    return file


def floats(rng, elem_bytes, count):
    values = rng.standard_normal(count) / 20
    if elem_bytes >= 4:
        elements = values.astype(f"<f{elem_bytes}").view(f"<u{elem_bytes}")
    else:  # the highest bytes of F32 are BF16's; a byte is like F8_E4M3
        elements = (values.astype("<f4").view("<u4") >> 16).astype("<u2")
        elements = elements if elem_bytes == 2 else ((elements >> 8 & 0x80) | (elements >> 4) & 0x7F).astype("u1")
    highest = 1 << 8 * elem_bytes - 1
    odd = [0, highest, 1, highest | 1, 2 * highest - 1, highest - 1, 0x7F8 << 8 * elem_bytes - 12 if elem_bytes > 1 else 0x7F]
    elements = elements.copy()
    elements[: len(odd)] = odd
    return elements.tobytes()


def moved(rng, data, elem_bytes, difference, spread):
    """Returns data with its elements moved by a bell-shaped number of steps in their order; some by very many."""
    elements = np.frombuffer(data, f"<u{elem_bytes}")
    steps = np.rint(rng.standard_normal(elements.size) * spread).astype(np.int64)
    far = rng.choice(elements.size, 5, replace=False)
    steps[far] = rng.integers(-(1 << 62), 1 << 62, 5)
    return in_order(in_order(elements, difference) + steps.astype(elements.dtype), difference).tobytes()


def family_start(specs, **how):
    """Starts a file with both bases; returns it with their originals."""
    file = start(specs, **how)
    originals = []
    for name, make in ("base", family_base), ("other_base", family_other_base):
        originals.append(bytes(make(np.random.default_rng(2026)).original))
        file.add_base(originals[-1], b"family_%s.wcx" % name.encode())
    return file, originals


def base_tensor(original, elem_bytes):
    """Returns the offset of a tensor of family_base in its original."""
    (header_bytes,) = struct.unpack_from("<Q", original)
    sizes = list(FAMILY_ELEMENTS)
    return 8 + header_bytes + sum(n * FAMILY_ELEMENTS[n] for n in sizes[: sizes.index(elem_bytes)])


def fields_of_differences(elem_bytes, context_count):
    """A wide field with tables by context as the carrier, or several fields."""
    by_context = {"table_count": context_count, "by_context": True} if context_count else {"table_count": 1}
    return {
        1: [Field(8, **by_context)],
        2: [Field(16, **by_context)],
        4: [Field(4), Field(8, 1), Field(16, **by_context), Field(4)],
        8: [Field(8, 1), Field(8, **by_context), Field(16, **by_context), Field(32)],
    }[elem_bytes]


def family_every_element_size(rng):
    """Each size of elements, either order, with and without contexts."""
    thresholds = {1: [20, 50, 51, 52, 60, 70, 90], 2: [100, 105, 110, 112, 115, 118, 127], 4: [100, 112, 118],
                  8: [110, 115, 127, 250]}
    cases = [(n, difference, with_contexts) for n in DTYPES for difference in (INTEGER, FLOAT) for with_contexts in (0, 1)]
    file, (original, _) = family_start([(f"t{n}.{d}.{c}", DTYPES[n], [FAMILY_ELEMENTS[n]]) for n, d, c in cases])
    for n, difference, with_contexts in cases:
        at = base_tensor(original, n)
        its_thresholds = bytes(thresholds[n] * with_contexts)
        fields = fields_of_differences(n, with_contexts and 1 + len(its_thresholds))
        data = moved(rng, original[at : at + n * FAMILY_ELEMENTS[n]], n, difference, {1: 1, 2: 3, 4: 500, 8: 900}[n])
        file.add_segment(data, elem_bytes=n, fields=fields, recipe=CODED, base=1, base_offset=at, difference=difference,
                         thresholds=its_thresholds)
    return file


def family_every_mode(rng):
    """All modes in one segment, whose range of the base is aligned to nothing; tiles of one row, and of whole rows."""
    def recipe(i):
        return [CODED, STORED, CONSTANT, CONSTANT, ZSTD, CODED][i]

    file, (original, other) = family_start([("flat", "BF16", [1200]), ("rows", "BF16", [120, 10]), ("again", "BF16", [1200]),
                                            ("raw", "U16", [1200]), ("alone", "U8", [900])])
    at = base_tensor(original, 2) + 3
    for cols, tile in (1200, (1, 200)), (10, (20, 10)):
        elements = np.frombuffer(original[at : at + 2400], "<u2").copy()
        ordered = in_order(elements, FLOAT)
        ordered[:200] += rng.integers(0, 3, 200).astype("<u2")
        ordered[600:800] -= 7  # every residual is 13; those of 400..600 are 0
        elements = in_order(ordered, FLOAT)
        elements[200:400] = rng.integers(0, 1 << 16, 200)
        elements[800:1000] = 0x3C00
        file.add_segment(elements.tobytes(), elem_bytes=2, cols=cols, tile=tile, fields=[Field(16, 2, by_context=True)],
                         recipe=recipe, base=1, base_offset=at, difference=FLOAT, thresholds=bytes([120]))
    file.add_same(1)
    fields = [Field(2, 1), Field(7), Field(7, 1)]
    data = moved(rng, other[500:2900], 2, INTEGER, 1)
    file.add_segment(data, elem_bytes=2, fields=fields, recipe=[RANS, RAW, RANS], base=2, base_offset=500,
                     difference=INTEGER)
    file.add_segment(draw(rng, 900, 1, [Field(8, 1)]), fields=[Field(8, 1)], recipe=CODED)
    return file


def family_exceptions_and_carried_bytes(rng):
    """Exceptions as carriers of bytes in a wide field by context, and planes below one; lanes without symbols."""
    tiles = [600, 33, 64]
    counts = [1200, 1056, 1088]
    file, (original, _) = family_start([(f"t{tile}", "BF16", [count]) for tile, count in zip(tiles, counts)])
    at = base_tensor(original, 2)
    for tile, count in zip(tiles, counts):
        elements = np.frombuffer(original[at : at + 2 * count], "<u2")
        steps = rng.integers(-2, 3, count)
        steps[::20] = rng.integers(-30000, 30000, len(steps[::20]))
        data = in_order(in_order(elements, FLOAT) + steps.astype("<u2"), FLOAT).tobytes()
        fields = [Field(16, 3, by_context=True)] if tile == 600 else [Field(4), Field(12, 3, by_context=True)]
        recipe = CODED if tile == 600 else STORED
        file.add_segment(data, elem_bytes=2, tile=(1, tile), fields=fields, recipe=recipe, base=1, base_offset=at,
                         difference=FLOAT, thresholds=bytes([110, 120]))
    return file


def family_sets_of_tables(rng):
    """Each size of elements with two or four sets, in one field or two, beside one that has none; runs that end early."""
    thresholds = {1: [50, 60], 2: [110, 112, 115, 118, 120, 124, 127], 4: [118], 8: [115, 127]}
    cases = [(1, 2, 128, 2000), (2, 2, 128, 600), (4, 1, 256, 900), (8, 1, 384, 700)]
    file, (original, _) = family_start([(f"t{n}", DTYPES[n], [FAMILY_ELEMENTS[n]]) for n, *_ in cases])
    for n, bits, run, tile in cases:
        at, contexts = base_tensor(original, n), 1 + len(thresholds[n])
        sets = {"table_count": contexts << bits, "by_context": True, "set_bits": bits}
        fields = {
            1: [Field(8, **sets)],
            2: [Field(16, **sets)],
            4: [Field(4), Field(8, 1), Field(16, **sets), Field(4)],
            8: [Field(8, **sets), Field(8, 3, by_context=True), Field(16, **sets), Field(32)],
        }[n]
        data = np.frombuffer(original[at : at + n * FAMILY_ELEMENTS[n]], f"<u{n}")
        parts = [moved(rng, part.tobytes(), n, FLOAT, {1: 1, 2: 2, 4: 400, 8: 800}[n] * (1 + 2 * (r % (1 << bits))))
                 if len(part) > 5 else part.tobytes() for r, part in enumerate(np.split(data, range(run, len(data), run)))]
        file.add_segment(b"".join(parts), elem_bytes=n, tile=(1, tile), fields=fields, run=run, recipe=CODED, base=1,
                         base_offset=at, difference=FLOAT, thresholds=bytes(thresholds[n]))
    return file


def family_escapes(rng):
    """Escapes with one table, by context and in sets: none, few, as many as are carried, and of elements that need none."""
    thresholds = bytes([110, 112, 115, 118, 120, 124, 127])
    cases = [("one", 1, 0, FLOAT, 600), ("contexts", 8, 0, FLOAT, 1111), ("sets", 8, 2, FLOAT, 700), ("integers", 8, 1, INTEGER, 333)]
    count = FAMILY_ELEMENTS[2]
    file, (original, _) = family_start([(name, "BF16", [count]) for name, *_ in cases])
    at = base_tensor(original, 2)
    elements = np.frombuffer(original[at : at + 2 * count], "<u2")
    for name, tables, bits, difference, tile in cases:
        steps = np.rint(rng.standard_normal(count) * 3).astype(np.int64)
        few, many = (slice(tile, 2 * tile, 50), slice(2 * tile, 3 * tile, 9))
        for some in few, many:
            steps[some] = rng.integers(-30000, 30000, len(steps[some]))
        steps[-1] = -128  # residual 255
        data = in_order(in_order(elements, difference) + steps.astype("<u2"), difference).tobytes()
        fields = [Field(16, tables << bits, by_context=tables > 1, set_bits=bits, escapes=True)]
        file.add_segment(data, elem_bytes=2, tile=(1, tile), fields=fields, run=128 if bits else 0, recipe=CODED, base=1,
                         base_offset=at, difference=difference, thresholds=thresholds if tables > 1 else b"",
                         listed=lambda i, values: range(0, 200, 7) if i == 3 else [])
    return file


def family_pairs(rng):
    """Differences of bytes in pairs: beyond the 16 symbols in few elements, in as many as are carried, or in most; odd tiles."""
    cases = [("integers", INTEGER, 1, 640), ("odd", INTEGER, 3, 417), ("floats", FLOAT, 1, 700)]
    count = FAMILY_ELEMENTS[1]
    file, (original, _) = family_start([(name, "I8", [count]) for name, *_ in cases])
    at = base_tensor(original, 1)
    elements = np.frombuffer(original[at : at + count], "u1")
    for name, difference, deviation, tile in cases:
        steps = np.rint(rng.standard_normal(count) * deviation).astype(np.int64)
        few, many = slice(tile, 2 * tile, 50), slice(2 * tile, 3 * tile, 9)
        for some in few, many:
            steps[some] = rng.integers(-128, 128, len(steps[some]))
        steps[:4] = [7, -8, 8, -9]  # residuals 14 to 17
        data = in_order(in_order(elements, difference) + steps.astype("u1"), difference).tobytes()
        file.add_segment(data, elem_bytes=1, tile=(1, tile), fields=[Field(8, 1, pairs=True)], recipe=CODED, base=1,
                         base_offset=at, difference=difference, 
                         listed=lambda i, values: range(0, 200, 7) if i == 3 else [])
    return file


# ---- bad files ----

# Tiles and segments of base(), and the number of elements of its tiles.
HEADER, CODED_TILE, CONSTANT_TILE, STORED_TILE, SHORT_TILE, CARRYING_TILE, ZSTD_TILE, PAIR_TILE = 0, 1, 2, 5, 6, 7, 8, 9
CODED_SEG, CONSTANT_SEG, STORED_SEG, SHORT_SEG, CARRYING_SEG, ZSTD_SEG, PAIR_SEG, SAME_SEG, LAST_SAME_SEG = range(1, 10)
N, CONSTANT_N, STORED_N, SHORT_N, CARRYING_N, ZSTD_N, PAIR_N = 1200, 100, 24, 30, 1000, 600, 901
RAW_FIELD, CHOICE_FIELD, CONSTANT_FIELD, WIDE_FIELD = range(4)  # of CODED_SEG; the last is the carrier, and carries a plane
SHORT_FIELD = 1  # of SHORT_SEG: the only RANS field, a carrier without a part to carry
CARRYING_FIELD = 1  # of CARRYING_SEG: the carrier of exceptions; the previous field is also RANS
PAIR_FIELD = 1  # of PAIR_SEG, whose elements are folded; the previous field is raw
TABLE_COUNT = 8  # CHOICE_FIELD has 0 and 1, WIDE_FIELD 2, SHORT_FIELD 3, CARRYING_SEG 4 and 5, PAIR_FIELD 6 and 7
PAIR_TABLE = 6


def base():
    """Returns a copy of the good file from which each bad file differs in one place."""
    return copy.deepcopy(make_base())


@functools.cache
def make_base():
    rng = np.random.default_rng(7)
    file = start([("a", "I32", [30, 40]), ("b", "U8", [3 * CONSTANT_N]), ("c", "U8", [STORED_N]), ("d", "I64", [SHORT_N]),
                  ("e", "U16", [CARRYING_N]), ("f", "U8", [ZSTD_N]), ("g", "I8", [PAIR_N]), ("h", "I32", [30, 40]),
                  ("i", "I32", [30, 40])])
    fields = [Field(7), Field(8, 2), Field(5), Field(12, 1, 1000, zero=True)]
    wide_values = draw_exceptions(rng, N, fields[WIDE_FIELD], spread_out(rng, 20, N))
    file.add_segment(draw(rng, N, 4, fields, ROTATE, fixed={CONSTANT_FIELD: 17, WIDE_FIELD: wide_values}), elem_bytes=4,
                     cols=40, tile=(30, 40), fields=fields, transform=ROTATE, run=256, recipe=[RAW, RANS, CONST, RANS])
    file.add_segment(b"\x07" * 3 * CONSTANT_N, tile=(1, CONSTANT_N), recipe=CONSTANT)
    file.add_segment(rng.bytes(STORED_N))
    fields = [Field(24), Field(8, 1), Field(32)]
    file.add_segment(draw(rng, SHORT_N, 8, fields, fixed={0: 9, 2: 9}), elem_bytes=8, fields=fields,
                     recipe=[CONST, RANS, CONST])
    fields = [Field(8, 1), Field(5, 1), Field(3)]
    at = spread_out(rng, 31, CARRYING_N)
    values = draw_exceptions(rng, CARRYING_N, fields[CARRYING_FIELD], at)
    file.add_segment(draw(rng, CARRYING_N, 2, fields, fixed={CARRYING_FIELD: values, 2: 6}), elem_bytes=2, fields=fields,
                     recipe=[RANS, RANS, CONST], listed=lambda i, values: at)
    file.add_segment(b"zstd" * (ZSTD_N // 4), recipe=ZSTD)
    fields = [Field(4), Field(4, 2, pairs=True)]
    at = spread_out(rng, 21, PAIR_N)
    values = draw_exceptions(rng, PAIR_N, fields[PAIR_FIELD], at)
    file.add_segment(draw(rng, PAIR_N, 1, fields, FOLD, fixed={PAIR_FIELD: values}), fields=fields, transform=FOLD, run=256,
                     recipe=CODED, listed=lambda i, values: at)
    file.add_same(CODED_SEG)
    file.add_same(CODED_SEG)
    return file


def first_field(number):
    """Returns the index of the first field of a segment of base()."""
    return sum(seg.field_count for seg in base().segments[:number])


def with_superblock(**changed):
    return base().build(**changed)


def with_changes(changed_of, changed):
    """Returns base() with other values in the part that changed_of returns; functions get the old values."""
    file = base()
    part = changed_of(file)
    for name, value in changed.items():
        setattr(part, name, value(getattr(part, name)) if callable(value) else value)
    return file


def with_segment(number, **changed):
    return with_changes(lambda file: file.segments[number], changed).build()


def with_entry(tile, **changed):
    return with_changes(lambda file: file.entries[tile], changed).build()


def with_field(number, f, **changed):
    return with_changes(lambda file: file.fields[first_field(number) + f], changed).build()


def with_fields(number, fields, **changed):
    """Replaces the fields of a segment, but not its tiles; checks of the index do not decode them."""
    file = with_changes(lambda file: file.segments[number], {"field_count": len(fields), **changed})
    at = first_field(number)
    file.fields[at : at + base().segments[number].field_count] = fields
    return file.build()


def with_coded(f, tile=CODED_TILE, **changed):
    """Changes one field of a coded tile."""
    return with_coded_tile(tile, lambda coded: coded.fields[f], **changed)


def with_coded_tile(tile, part_of=lambda coded: coded, **changed):
    """Changes the part of a coded tile that part_of returns, by default the tile itself."""
    file = with_changes(lambda file: part_of(file.coded[tile]), changed)
    file.entries[tile].data = file.coded[tile].assemble()
    return file.build()


def with_plane(change):
    """Changes the last plane of CODED_TILE, which is partly carried."""
    return with_coded(RAW_FIELD, planes=lambda planes: [*planes[:-1], change(planes[-1])])


def with_packed(tile, change):
    return with_entry(tile, data=change)


def with_table(encoded):
    """Adds a table that no field uses."""
    file = base()
    file.tables.append(encoded)
    return file.build()


def with_options(tile, **options):
    """Encodes a coded tile with other options."""
    file = base()
    file.entries[tile].data = encode_tile(file.sources[tile], file.frequencies, Options(**options)).assemble()
    source = file.sources[tile]
    assert 8 * len(file.entries[tile].data) < len(source.values[0]) * sum(this.width for this in source.fields)
    return file.build()


def with_final_state(tile, f, lane, bits):
    return with_options(tile, spoil={f: (lane, bits)})


def with_listed(tile, change):
    """Changes the exceptions of a coded tile: pairs of position and value."""
    return with_options(tile, exceptions=lambda positions, values: map(list, zip(*change(list(zip(positions, values))))))


def with_parts(tile, change, **how):
    """Changes the parts of a coded tile (section 3), or how they are joined."""
    file = base()
    packed = join(change(file.coded[tile].parts()), **how)
    assert packed != file.entries[tile].data
    file.entries[tile].data = packed
    return file.build()


def bad_superblocks():
    file = base()
    good = file.build()
    table_bytes = len(b"".join(file.tables))
    index_bytes = len(b"".join(part.pack() for part in [*file.segments, *file.fields, *file.entries])) + table_bytes
    rest_bytes = index_bytes - table_bytes
    index_offset = len(good) - index_bytes
    yield "empty", b""
    yield "no_wcx", b"\x08\0\0\0\0\0\0\0{}      " * 20
    yield "superblock_cut", good[:191]
    yield "superblock_alone", good[:192]
    yield "cut_by_a_byte", good[:-1]
    yield "a_byte_appended", good + b"\0"
    yield "magic", with_superblock(magic=b"\x89WCX\n\x1a\n\0")
    for version in 0, 2, 3, 4, 1 << 16:
        yield f"version_{version}", with_superblock(version=version)
    yield "feature", with_superblock(features=16)
    yield "feature_of_difference_pairs", with_superblock(features=8)
    yield "feature_of_escapes", with_superblock(features=4)
    yield "feature_of_sets", with_superblock(features=2)
    yield "feature_of_bases", with_superblock(features=1)
    yield "base_count", with_superblock(base_count=1)
    yield "base_name_bytes", with_superblock(base_name_bytes=1)
    yield "extra_bytes", with_superblock(extra_bytes=1, optional_features=1)
    yield "extra_bytes_wrap", with_superblock(extra_bytes=2**64 - 8, tile_count=len(base().entries) + 1, optional_features=1)
    yield "superblock_reserved", with_superblock(reserved=b"\1")
    yield "superblock_reserved_end", with_superblock(reserved=bytes(39) + b"\x80")
    extra = base()
    extra.extra = b"x"
    yield "extra_bytes_without_feature", extra.build()
    yield "feature_highest", with_superblock(features=1 << 63)
    yield "packed_bytes", with_superblock(packed_bytes=len(good) + 16)
    yield "original_bytes_0", with_superblock(original_bytes=0)
    yield "original_bytes_more", with_superblock(original_bytes=len(file.original) + 1)
    yield "original_bytes_over_limit", with_superblock(original_bytes=(1 << 60) + 1)
    yield "superblock_checksum", with_superblock(checksum=1)
    yield "index_checksum", with_superblock(index_checksum=0)
    yield "index_offset_wraps", with_superblock(index_offset=2**64 - 16, index_bytes=len(good) + 16,
                                                table_bytes=len(good) + 16 - rest_bytes)
    yield "index_in_superblock", with_superblock(index_offset=112, index_bytes=len(good) - 112,
                                                 table_bytes=len(good) - 112 - rest_bytes)
    yield "index_bytes_0", with_superblock(index_bytes=0, index_offset=len(good))
    yield "index_bytes_wraps", with_superblock(index_bytes=index_bytes, tile_count=len(file.entries) + (1 << 61))
    yield "table_bytes", with_superblock(table_bytes=table_bytes - 1)
    yield "tile_count_0", with_superblock(tile_count=0)
    yield "segment_count_0", with_superblock(segment_count=0, original_bytes=0)
    yield "segment_count_huge", with_superblock(segment_count=2**32 - 1)
    yield "field_count_huge", with_superblock(field_count=2**32 - 1)
    longer = base()
    longer.add_table([16] * 256)
    yield "table_count_less", longer.build(table_count=TABLE_COUNT)
    yield "table_count_more", with_superblock(table_count=TABLE_COUNT + 1)
    yield "table_count_huge", with_superblock(table_count=2**32 - 1)
    longer.tables += [b"\x8f\xff\x01\x00\xfd"] * ((1 << 17) - TABLE_COUNT)
    yield "table_count_over_limit", longer.build()
    yield "data_sha256", with_superblock(sha256=bytes(32))
    yield "no_segments", File().build()
    for gap in 1, 2, 4, 12, 16:
        file = base()
        file.gap = bytes(gap)
        yield f"index_behind_a_gap_of_{gap}", file.build()
    for alignment in 1, 2, 8, 16:
        file = base()
        file.alignment = alignment
        assert len(file.build()) != len(good)
        yield f"tiles_at_multiples_of_{alignment}", file.build()
    file = base()
    file.tail = bytes(16)
    yield "index_ends_early", file.build()
    yield "index_over_limit", index_over_limit(good[index_offset:], rest_bytes)


def index_over_limit(index, rest_bytes):
    """An index of 2^28 + 8 bytes; its additional bytes are zeros that count as tables."""
    index += bytes((1 << 28) + 8 - len(index))
    file = base()
    area_end = len(file.build()) - rest_bytes - len(b"".join(file.tables))
    head = file.build(packed_bytes=area_end + len(index), index_bytes=len(index), index_checksum=xxh3(index),
                      table_bytes=len(index) - rest_bytes)
    return head[:area_end] + index


def bad_segments():
    file = base()
    before = sum(seg.bytes for seg in file.segments[:STORED_SEG])
    del file.original[before : before + STORED_N], file.entries[STORED_TILE]
    file.segments[STORED_SEG].bytes = 0
    yield "segment_bytes_0", file.build()
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
    file = base()
    file.segments[STORED_SEG].tile_rows, file.segments[STORED_SEG].tile_cols = 257, 16
    data = file.entries[STORED_TILE].data
    file.entries[STORED_TILE : STORED_TILE + 1] = [Entry(STORED, data[:16]), Entry(STORED, data[16:])]
    yield "segment_tile_too_tall", file.build()
    for rows, cols, field_count in (9, 1, 1), (65, 9, 8):
        file = start([("a", "U8", [100, cols + 1])])
        fields = [Field(8)] if field_count == 1 else [Field(1)] * 8
        file.add_segment(bytes(100 * (cols + 1)), cols=cols + 1, tile=(rows, cols), fields=fields)
        yield f"segment_narrow_tile_of_{rows}_rows", file.build()
    file = base()
    del file.original[7 : file.segments[0].bytes]
    file.segments[0].bytes = file.segments[0].cols = 7
    file.entries[0].data = bytes(file.original[:7])
    yield "segment_header_too_small", file.build()
    yield "segment_more_tiles", with_segment(CODED_SEG, tile_rows=15)
    yield "segment_fewer_tiles", with_segment(CONSTANT_SEG, tile_cols=300)
    for elem_bytes in 0, 3, 5, 16, 255:
        cols = STORED_N // max(1, elem_bytes) or 1
        yield f"segment_elem_bytes_{elem_bytes}", with_segment(STORED_SEG, elem_bytes=elem_bytes, cols=cols)
    for run in 0, 1, 64, 127, 129, 192, 65536 + 128, 2**31, 2**32 - 1:
        yield f"segment_run_{run}", with_segment(CODED_SEG, run=run)
    yield "segment_run_without_choices", with_segment(SHORT_SEG, run=128)
    yield "segment_run_without_tables", with_segment(STORED_SEG, run=128)
    for number in 3, 4, 255:
        yield f"segment_transform_{number}", with_segment(STORED_SEG, transform=number)
    for number in 4, 255:
        yield f"segment_predictor_{number}", with_segment(STORED_SEG, predictor=number)
    for predictor in LEFT, UP, LEFT2:
        yield f"segment_rotated_with_predictor_{predictor}", with_segment(CODED_SEG, predictor=predictor)
        yield f"segment_folded_with_predictor_{predictor}", with_segment(PAIR_SEG, predictor=predictor)
    for n in 2, 4, 8:
        yield (f"segment_folded_with_elements_of_{n}",
               with_fields(STORED_SEG, [Field(4 * n)] * 2, elem_bytes=n, cols=STORED_N // n, transform=FOLD))
    yield "segment_folded_with_one_field", with_segment(STORED_SEG, transform=FOLD)
    yield "segment_folded_with_one_field_of_tables", with_fields(STORED_SEG, [Field(8, 1, 0, 3)], transform=FOLD)
    fields = [Field(4, 1, 0, PAIR_TABLE), Field(4)]
    yield "segment_folded_with_tables_of_the_first_field", with_fields(STORED_SEG, fields, transform=FOLD)
    yield ("segment_folded_pairs_with_tables_of_the_first_field",
           with_field(PAIR_SEG, 0, table_count=1, first_table=PAIR_TABLE))
    file = base()  # the sum of sizes is correct modulo 2^64
    for number in STORED_SEG, SHORT_SEG:
        file.segments[number].bytes += 1 << 63
        file.segments[number].cols = file.segments[number].bytes // file.segments[number].elem_bytes
    yield "segment_bytes_sum_wraps", file.build()


def bad_same_segments():
    for number in SAME_SEG, LAST_SAME_SEG, LAST_SAME_SEG + 1, 2**32 - 1:
        yield f"same_as_{number}", with_segment(SAME_SEG, same_as=number)
    yield "same_as_that_is_the_same", with_segment(LAST_SAME_SEG, same_as=SAME_SEG)
    file = base()
    file.segments[LAST_SAME_SEG].bytes -= 4
    del file.original[-4:]
    yield "same_as_a_larger_one", file.build()
    file = base()
    file.segments[LAST_SAME_SEG].bytes += 4
    file.original += bytes(4)
    yield "same_as_a_smaller_one", file.build()
    for name in ("cols", "tile_rows", "tile_cols", "run", "entropy", "elem_bytes", "transform", "predictor", "base",
                 "difference", "kind", "reserved", "base_offset", "reserved_at_end"):
        yield f"same_with_{name}", with_segment(SAME_SEG, **{name: 1})
    yield "same_with_fields", with_fields(SAME_SEG, [Field(8)])
    file = base()
    file.segments[SAME_SEG] = replace(file.segments[CODED_SEG], same_as=CODED_SEG, field_count=0)
    yield "same_with_everything", file.build()
    yield "same_as_of_the_header", with_segment(0, same_as=1)


def dependent(rows=60):
    """A file with two bases, whose tiles are all stored: only its index depends on them."""
    rng = np.random.default_rng(11)
    file = start([("a", "BF16", [40, 30]), ("b", "I32", [rows, 10]), ("c", "U8", [40])])
    file.bases = [Base(bytes(range(32)), 3200, b"../base/model.safetensors.wcx"), Base(bytes(32), 1 << 60, b"")]
    for _ in range(40):
        file.add_table([16] * 256)
    fields = [Field(4), Field(12, 3, 0, 1, by_context=True)]
    file.add_segment(rng.bytes(2400), elem_bytes=2, tile=(1, 250), fields=fields)
    refer(file, DEPENDENT_SEG, base=1, difference=FLOAT, base_offset=800, thresholds=bytes([100, 130]))
    file.add_segment(rng.bytes(40 * rows), elem_bytes=4, cols=10, tile=(4, 10), fields=[Field(8, 1, 0, 0)] * 4)
    refer(file, SECOND_SEG, base=2, difference=INTEGER, base_offset=1 << 59)
    file.add_segment(rng.bytes(40))
    return file


DEPENDENT_SEG, SECOND_SEG, INDEPENDENT_SEG = 1, 2, 3


def refer(file, number, **changed):
    for name, value in changed.items():
        setattr(file.segments[number], name, value)


def with_reference(number, **changed):
    file = dependent()
    refer(file, number, **changed)
    return file.build()


def bad_bases():
    file = dependent()
    yield "bases_without_feature", file.build(features=0)
    yield "base_count_less", file.build(base_count=1)
    yield "base_count_more", file.build(base_count=3)
    yield "base_count_over_limit", file.build(base_count=257)
    yield "base_count_huge", file.build(base_count=2**32 - 1)
    yield "base_name_bytes_less", file.build(base_name_bytes=len(file.bases[0].name) - 1)
    yield "base_name_bytes_huge", file.build(base_name_bytes=2**32 - 1)
    file.bases *= 129
    yield "bases_over_limit", file.build()
    for name, value in [("original_bytes", 0), ("original_bytes", (1 << 60) + 1), ("name_bytes", 28), ("name_bytes", 30),
                        ("name_bytes", 2**32 - 1), ("reserved", 1), ("reserved", 1 << 31)]:
        file = dependent()
        setattr(file.bases[0], name, value)
        yield f"base_{name}_{value}", file.build()
    for name in b"\0", b"a\0b", b"n" * 4096:
        file = dependent()
        file.bases[1].name = name
        yield f"base_name_of_{len(name)}", file.build()


def escaping():
    """dependent(), with escapes in the first segment that has a base."""
    file = dependent()
    file.fields[1:3] = [Field(16, 3, 0, 1, by_context=True, escapes=True)]
    file.segments[DEPENDENT_SEG].field_count = 1
    return file


def bad_escapes():
    yield "escapes_without_feature", escaping().build(features=BASES)
    yield "feature_of_escapes_without_escapes", dependent().build(features=BASES | ESCAPES)
    file = escaping()
    file.segments[DEPENDENT_SEG].field_count = 2
    file.fields[1:2] = [Field(8), Field(8, 3, 0, 1, by_context=True, escapes=True)]
    yield "escapes_above_a_raw_field", file.build()
    file = escaping()
    file.fields[1].base = 1
    yield "escapes_with_a_base", file.build()
    file = escaping()
    file.fields[-2].escapes = True
    yield "escapes_in_four_bytes", file.build()
    file = escaping()
    file.fields[-1].escapes = True
    yield "escapes_without_a_base", file.build()
    file = escaping()
    file.fields[1].by_context, file.fields[1].table_count = False, 0
    yield "escapes_without_tables", file.build()
    file = escaping()
    file.tables[2] = encode_table([15, 17] + [16] * 254)
    yield "escapes_with_fine_frequencies", file.build()
    file = escaping()
    file.fields[0].escapes = True
    yield "escapes_in_the_header", file.build()


def bad_pairs():
    def pairing():
        """dependent(), with pairs in a segment of bytes that has a base."""
        file = dependent()
        file.fields[1:3] = [Field(8, 1, 0, 1, pairs=True)]
        file.tables[1] = encode_table([256] * 16 + [0] * 240)
        refer(file, DEPENDENT_SEG, field_count=1, elem_bytes=1, cols=2400, tile_cols=500, threshold_count=0, thresholds=b"")
        return file

    file = pairing()
    yield "difference_pairs_without_feature", file.build(features=BASES)
    yield "feature_of_difference_pairs_without_pairs", dependent().build(features=BASES | DIFFERENCE_PAIRS)
    file.fields[1].base = 1
    yield "difference_pairs_with_a_base", file.build()
    file = pairing()
    file.fields[1:2] = [Field(4), Field(4, 1, 0, 1, pairs=True)]
    file.segments[DEPENDENT_SEG].field_count = 2
    yield "difference_pairs_of_four_bits", file.build()
    file = pairing()
    file.fields[1].by_context = True
    refer(file, DEPENDENT_SEG, threshold_count=1, thresholds=b"\5")
    yield "difference_pairs_by_context", file.build()
    file = pairing()
    file.fields[1].first_table = 0
    yield "difference_pairs_with_a_symbol_above_15", file.build()


def bad_differences():
    for name, values in {
        "base": [0, 3, 2**32 - 1], "difference": [NONE, 3, 255], "threshold_count": [0, 1, 3, 8, 255], "kind": [1, 255],
        "reserved": [1], "reserved_at_end": [1], "base_offset": [801, 3201, 2**64 - 1], "transform": [ROTATE],
        "predictor": [LEFT, UP], "run": [128],
    }.items():
        for value in values:
            yield f"difference_with_{name}_{value}", with_reference(DEPENDENT_SEG, **{name: value})
    for thresholds in [0, 1], [5, 5], [9, 5], [5]:
        yield f"thresholds_{'_'.join(map(str, thresholds))}", with_reference(DEPENDENT_SEG, thresholds=bytes(thresholds),
                                                                           threshold_count=2)
    yield "difference_passes_its_base", with_reference(SECOND_SEG, base_offset=(1 << 60) - 2399)
    yield "difference_of_2040_bytes", dependent(51).build()
    yield "difference_by_narrow_tiles", with_reference(SECOND_SEG, tile_cols=9)
    for name, value in ("base", 1), ("difference", INTEGER), ("threshold_count", 1), ("base_offset", 1):
        yield f"no_difference_but_{name}", with_reference(INDEPENDENT_SEG, **{name: value})
    yield "no_difference_but_thresholds", with_reference(INDEPENDENT_SEG, thresholds=b"\1")
    yield "difference_of_the_header", with_reference(0, base=2, difference=INTEGER)
    for name, where in {"pairs": 2, "zero": 2, "reserved": 2, "by_context": 3}.items():
        file = dependent()
        setattr(file.fields[where], name, 1 << 5 if name == "reserved" else True)
        yield f"difference_with_field_of_{name}", file.build()
    for count in 2, 3, 4:
        file = dependent()
        file.fields[2].by_context, file.fields[2].table_count = False, count
        file.segments[DEPENDENT_SEG].run = 128
        yield f"difference_with_choice_of_{count}", file.build()
    for bits in 1, 2, 3:
        file = dependent()
        file.segments[DEPENDENT_SEG].run = 128
        file.fields[2].set_bits = bits
        yield f"difference_with_set_bits_{bits}_without_feature", file.build(features=BASES)
        file.segments[DEPENDENT_SEG].run = 64
        yield f"difference_with_set_bits_{bits}_without_a_run", file.build()
        file.segments[DEPENDENT_SEG].run = 128
        file.fields[2].first_table = 41 - (3 << bits)
        yield f"difference_with_set_bits_{bits}_and_a_missing_table", file.build()
    file.fields[2].first_table = 0
    yield "difference_with_eight_sets", file.build()
    file = dependent()
    file.segments[DEPENDENT_SEG].run = 128
    file.fields[2].set_bits = 1
    file.fields[1].set_bits = 1
    yield "difference_with_sets_of_a_raw_field", file.build()
    file = dependent()
    file.segments[SECOND_SEG].run = 128
    file.fields[4].set_bits = 1
    yield "difference_with_sets_of_a_single_table", file.build()
    yield "feature_of_sets_without_sets", dependent().build(features=BASES | SETS)
    file = dependent()
    file.segments[DEPENDENT_SEG].run, file.segments[DEPENDENT_SEG].thresholds = 128, bytes(range(1, 7))
    file.fields[2].set_bits = 2
    file.fields[1:2] = [Field(2), Field(2, 7, 0, 0, by_context=True)]
    file.fields[3].width = 12
    file.segments[DEPENDENT_SEG].field_count = 3
    for this in range(40):
        file.tables[this] = encode_table([1024] * 4 + [0] * 252)
    file.fields[2].by_context, file.fields[2].set_bits = True, 2
    yield "difference_with_sets_of_56_tables", file.build()
    yield from bad_escapes()
    yield from bad_pairs()
    file = dependent()
    file.fields[2].first_table = 38
    yield "difference_with_missing_table", file.build()
    file = dependent()
    file.segments[DEPENDENT_SEG].thresholds = bytes(range(1, 7))
    file.fields[1:3] = [Field(2), Field(2), *[Field(2, 7, 0, 0, by_context=True)] * 6]
    file.segments[DEPENDENT_SEG].field_count = 8
    for this in range(40):
        file.tables[this] = encode_table([1024] * 4 + [0] * 252)
    yield "difference_with_42_tables", file.build()


def bad_fields():
    yield "field_count_of_segment_0", with_fields(STORED_SEG, [])
    for count in 11, 12, 16:
        fields = [Field(2)] * (16 - count) + [Field(1)] * (2 * count - 16)
        yield f"field_count_of_segment_{count}", with_fields(STORED_SEG, fields, elem_bytes=2, cols=STORED_N // 2)
    yield "field_count_of_segment_less", with_segment(CODED_SEG, field_count=3)
    yield "field_count_of_segment_more", with_segment(CODED_SEG, field_count=5)
    file = base()
    file.fields.pop()
    yield "one_field_less", file.build()
    file = base()
    file.fields.append(Field(8))
    yield "one_field_more", file.build()
    yield "field_width_0", with_fields(STORED_SEG, [Field(0), Field(8)])
    yield "field_width_33", with_fields(STORED_SEG, [Field(33), Field(31)], elem_bytes=8, cols=STORED_N // 8)
    yield "field_width_64", with_fields(STORED_SEG, [Field(64)], elem_bytes=8, cols=STORED_N // 8)
    yield "field_widths_less", with_fields(STORED_SEG, [Field(7)])
    yield "field_widths_more", with_fields(STORED_SEG, [Field(8), Field(1)])
    yield "field_widths_of_another_element", with_fields(STORED_SEG, [Field(16)])
    yield "field_widths_wrap", with_fields(STORED_SEG, [Field(32)] * 8 + [Field(8)])
    yield "field_raw_planes_17", with_fields(STORED_SEG, [Field(3)] * 8 + [Field(8)], elem_bytes=4, cols=STORED_N // 4)
    for count in 3, 5, 6, 7:
        file = with_changes(lambda file: file.fields[first_field(CODED_SEG) + CHOICE_FIELD], {"table_count": count})
        file.tables += file.tables[:1] * count  # enough of them
        yield f"field_table_count_{count}", file.build()
    for width in 17, 31:
        fields = [Field(32 - width), Field(width, 1, 0, 3)]
        yield f"field_width_{width}_with_table", with_fields(STORED_SEG, fields, elem_bytes=4, cols=STORED_N // 4)
    for bit in 5, 6, 7:
        yield f"field_reserved_{bit}", with_field(STORED_SEG, 0, reserved=1 << bit)
        yield f"field_reserved_{bit}_with_table", with_field(CODED_SEG, WIDE_FIELD, reserved=1 << bit)
    yield "field_pairs_without_table", with_fields(STORED_SEG, [Field(4), Field(4, pairs=True)])
    yield "field_zero_without_table", with_field(STORED_SEG, 0, zero=True)
    yield "field_zero_without_table_wide", with_field(SHORT_SEG, 2, zero=True)
    for f, number in (CHOICE_FIELD, CODED_SEG), (SHORT_FIELD, SHORT_SEG), (CARRYING_FIELD, CARRYING_SEG):
        yield f"field_zero_of_field_{f}_of_segment_{number}", with_field(number, f, zero=True)
    yield "field_zero_of_pairs", with_field(PAIR_SEG, PAIR_FIELD, zero=True)
    yield from bad_fields_of_pairs()
    yield "field_first_table_without_table", with_field(STORED_SEG, 0, first_table=1)
    yield "field_base_without_table", with_field(STORED_SEG, 0, base=1)
    yield "field_base_without_table_wide", with_field(SHORT_SEG, 2, base=1)
    yield "field_base_of_8_bits", with_field(CODED_SEG, CHOICE_FIELD, base=1)
    yield "field_base_of_8_bits_that_wraps", with_field(CODED_SEG, CHOICE_FIELD, base=(1 << 16) - 256)
    yield "field_base_of_pairs", with_field(PAIR_SEG, PAIR_FIELD, base=1)
    yield "field_base_too_large", with_field(CODED_SEG, WIDE_FIELD, base=(1 << 12) - 255)
    for width in 9, 16:
        fields = [Field(width, 1, (1 << width) - 255, 3), Field(32 - width)]
        yield f"field_base_too_large_{width}", with_fields(STORED_SEG, fields, elem_bytes=4, cols=STORED_N // 4)
    yield "field_table_missing", with_field(CODED_SEG, WIDE_FIELD, first_table=TABLE_COUNT)
    yield "field_second_table_missing", with_field(CODED_SEG, CHOICE_FIELD, first_table=TABLE_COUNT - 1)
    yield "field_fourth_table_missing", with_field(CODED_SEG, CHOICE_FIELD, first_table=TABLE_COUNT - 3, table_count=4)
    yield "field_first_table_wraps", with_field(CODED_SEG, CHOICE_FIELD, first_table=2**32 - 1)
    for width in range(1, 8):
        file = base()
        table = file.add_table([4095] + [0] * ((1 << width) - 1) + [1] + [0] * (255 - (1 << width)))
        file.fields[first_field(STORED_SEG) : first_field(STORED_SEG) + 1] = [Field(width, 1, 0, table), Field(8 - width)]
        file.segments[STORED_SEG].field_count = 2
        yield f"field_of_{width}_bits_with_more_symbols", file.build()
    file = base()  # only the last of four tables has a symbol too many
    for last in 15, 15, 15, 16:
        file.add_table([4095] + [0] * (last - 1) + [1] + [0] * (255 - last))
    file.fields[first_field(STORED_SEG) : first_field(STORED_SEG) + 1] = [Field(4), Field(4, 4, 0, TABLE_COUNT)]
    file.segments[STORED_SEG].field_count, file.segments[STORED_SEG].run = 2, 128
    yield "field_with_more_symbols_in_its_last_table", file.build()


def bad_fields_of_pairs():
    of_pairs = Field(4, 1, 0, PAIR_TABLE, pairs=True)
    yield "field_pairs_first", with_fields(STORED_SEG, [of_pairs, Field(4)])
    yield "field_pairs_twice", with_fields(STORED_SEG, [of_pairs, of_pairs])
    yield "field_pairs_below_the_last", with_fields(STORED_SEG, [Field(2), of_pairs, Field(2)])
    for width in 1, 2, 3, 5, 6, 7, 8:
        file = base()
        table = file.add_table([4095, 1] + [0] * 254)
        fields = [*[Field(8 - width)] * (width < 8), Field(width, 1, 0, table, pairs=True)]
        file.fields[first_field(STORED_SEG) : first_field(STORED_SEG) + 1] = fields
        file.segments[STORED_SEG].field_count = len(fields)
        yield f"field_pairs_of_{width}_bits", file.build()
    for n in 4, 8:
        fields = [Field(part) for part in [(28,), (28, 32)][n // 8]] + [of_pairs]
        yield f"field_pairs_in_elements_of_{n}", with_fields(STORED_SEG, fields, elem_bytes=n, cols=STORED_N // n)
    for width, low in (1, 0), (3, 0), (4, 1), (8, 241), (11, 2033):
        fields = [Field(16 - width), Field(width, 1, low, PAIR_TABLE, pairs=True)]
        yield (f"field_pairs_of_{width}_bits_in_two_bytes_from_{low}",
               with_fields(STORED_SEG, fields, elem_bytes=2, cols=STORED_N // 2))
    fields = [Field(6), Field(10, 1, 7, PAIR_TABLE, pairs=True, zero=True)]
    yield "field_zero_of_wide_pairs", with_fields(STORED_SEG, fields, elem_bytes=2, cols=STORED_N // 2)
    yield "field_pairs_wide", with_field(CODED_SEG, WIDE_FIELD, pairs=True)
    yield "field_pairs_with_more_symbols", with_field(PAIR_SEG, PAIR_FIELD, first_table=2)
    file = base()
    file.add_table([4095] + [0] * 15 + [1] + [0] * 239)
    file.fields[first_field(PAIR_SEG) + PAIR_FIELD].first_table = TABLE_COUNT - 1
    yield "field_pairs_with_more_symbols_in_its_last_table", file.build()


def bad_entries():
    for mode in 4, 5, 255:
        yield f"mode_{mode}", with_entry(STORED_TILE, mode=mode)
    yield "stored_too_small", with_entry(STORED_TILE, size=STORED_N - 1)
    yield "stored_too_large", with_entry(STORED_TILE, size=STORED_N + 1)
    yield "stored_size_0", with_entry(STORED_TILE, data=b"")
    yield "stored_size_0_in_place", with_entry(STORED_TILE, size=0)
    yield "coded_as_large_as_tile", with_packed(CODED_TILE, lambda data: data + bytes(4 * N - len(data)))
    yield "coded_larger_than_tile", with_packed(CODED_TILE, lambda data: data + bytes(4 * N + 4 - len(data)))
    yield "coded_reaches_into_index", with_entry(CODED_TILE, size=4 * N - 1)
    yield "zstd_as_large_as_tile", with_packed(ZSTD_TILE, lambda data: data + bytes(ZSTD_N - len(data)))
    yield "zstd_larger_than_tile", with_packed(ZSTD_TILE, lambda data: data + bytes(ZSTD_N + 4 - len(data)))
    yield "zstd_reaches_into_index", with_entry(ZSTD_TILE, size=ZSTD_N - 1)
    yield "zstd_ends_before_index", with_entry(ZSTD_TILE, size=1)
    file = with_changes(lambda file: file.segments[ZSTD_SEG], {"cols": 24, "tile_rows": 25, "tile_cols": 12})
    file.entries[ZSTD_TILE : ZSTD_TILE + 1] = [Entry(ZSTD, compress(b"zstd" * (ZSTD_N // 8)))] * 2
    yield "zstd_narrow", file.build()
    file = start([("a", "U8", [65544])])
    file.add_segment(bytes(65544), elem_bytes=8, recipe=ZSTD)
    yield "zstd_tile_too_large", file.build()
    yield "constant_too_wide", with_entry(CONSTANT_TILE, checksum=0x107)
    yield "constant_far_too_wide", with_entry(CONSTANT_TILE, checksum=7 | 1 << 31)
    yield "constant_size", with_entry(CONSTANT_TILE, data=b"\x07")
    yield "constant_size_in_place", with_entry(CONSTANT_TILE, size=1)
    yield "data_stored_checksum", with_entry(STORED_TILE, checksum=1)
    yield "data_coded_checksum", with_entry(CODED_TILE, checksum=1)
    yield "data_zstd_checksum", with_entry(ZSTD_TILE, checksum=1)
    file = base()
    file.entries.append(Entry(CONSTANT, checksum=7))
    yield "one_tile_more", file.build()
    file = base()
    file.entries.pop(CONSTANT_TILE)
    yield "one_tile_less", file.build()


def bad_tables():
    flat = b"\x10" * 256
    yield "table_sum_less", with_table(b"\x0f" + flat[1:])
    yield "table_sum_more", with_table(b"\x11" + flat[1:])
    yield "table_sum_twice", with_table(b"\x20" * 256)
    yield "table_empty", with_table(b"\x00\xff" * 3)
    yield "table_single_symbol", with_table(b"\x90\x00" + b"\x00\xfe" + b"\x00")
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
    yield from bad_headers()
    yield "data_raw_plane_short", with_plane(lambda plane: plane[:-64])
    yield "data_raw_plane_long", with_plane(lambda plane: plane + bytes(128))
    yield "data_raw_plane_whole", with_plane(lambda plane: plane + bytes(64))
    yield "data_raw_plane_missing", with_coded(RAW_FIELD, planes=lambda planes: planes[:-1])
    yield "data_raw_plane_without_its_last_unit", with_coded(RAW_FIELD, planes=lambda p: [p[0][:-128], *p[1:]])
    yield "data_raw_plane_as_long_as_its_bits", with_coded(RAW_FIELD, planes=lambda p: [p[0][: N * 4 // 8], *p[1:]])
    yield "data_raw_field_that_is_constant", with_coded(CONSTANT_FIELD, coding=RAW)
    yield "data_choices_short", with_coded(CHOICE_FIELD, payload=lambda p: p[4:])
    yield "data_choices_long", with_coded(CHOICE_FIELD, payload=lambda p: bytes(4) + p)
    yield "data_choices_without_states", with_coded(CHOICE_FIELD, payload=lambda p: p[:4])
    for name, f, tile in ("", CHOICE_FIELD, CODED_TILE), ("last_", WIDE_FIELD, CODED_TILE), ("pair_", PAIR_FIELD, PAIR_TILE):
        widths_at = 0 if f == WIDE_FIELD else 4
        yield f"data_{name}rans_odd", with_coded(f, tile, payload=lambda p: p + b"\0")
        yield f"data_{name}rans_cut_and_odd", with_coded(f, tile, payload=lambda p: p[:-1])
        yield f"data_{name}rans_empty", with_coded(f, tile, payload=b"")
        for size in 2, 14, 16, 18, 78:
            yield f"data_{name}rans_of_{size}_bytes", with_coded(f, tile, payload=lambda p: p[: widths_at + size])
        yield f"data_{name}rans_states_alone", with_coded(f, tile, payload=lambda p: p[: states_end(p, widths_at)])
        yield f"data_{name}rans_states_cut", with_coded(f, tile, payload=lambda p: p[: states_end(p, widths_at) - 2])
        yield f"data_{name}rans_word_missing", with_coded(f, tile, payload=lambda p: p[:-2])
        yield f"data_{name}rans_word_left", with_coded(f, tile, payload=lambda p: p + b"\0\0")
        yield f"data_{name}rans_words_left", with_coded(f, tile, payload=lambda p: p + b"\0\0\0\0")
        for lane, bit in (0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (30, 3), (31, 1):
            flip = lambda p: flipped(p, 8 * widths_at + 4 * lane + bit)
            yield f"data_{name}rans_width_of_lane_{lane}_bit_{bit}", with_coded(f, tile, payload=flip)
    for lane in 0, 17, 31:
        yield f"data_rans_low_half_of_lane_{lane}", with_final_state(CODED_TILE, CHOICE_FIELD, lane, 1)
        yield f"data_rans_high_half_of_lane_{lane}", with_final_state(CODED_TILE, CHOICE_FIELD, lane, 0x30000)
        yield f"data_rans_high_half_of_carrier_{lane}", with_final_state(CODED_TILE, WIDE_FIELD, lane, 0x30000)
        yield f"data_rans_high_half_of_pairs_{lane}", with_final_state(PAIR_TILE, PAIR_FIELD, lane, 0x30000)
    yield "data_rans_highest_bit_of_carrier", with_final_state(CODED_TILE, WIDE_FIELD, 5, 1 << 31)
    yield "data_rans_zero_word_missing", without_zero_word()
    yield "data_rans_low_half_of_carrier_without_bytes", with_final_state(SHORT_TILE, SHORT_FIELD, 0, 0x8000)
    yield "data_rans_low_half_of_lane_without_symbol", with_final_state(SHORT_TILE, SHORT_FIELD, 31, 1)
    yield "data_rans_high_half_of_lane_without_symbol", with_final_state(SHORT_TILE, SHORT_FIELD, 31, 0x30000)
    for size in 1, 2, 3, 4, 16, 64:
        yield f"data_coded_tile_longer_by_{size}", with_packed(CODED_TILE, lambda packed, size=size: packed + bytes(size))
    for size in 1, 2, 4, 64:
        yield f"data_coded_tile_cut_by_{size}", with_packed(CODED_TILE, lambda packed, size=size: packed[:-size])
    for size in 0, 1, 3, 4, 8, 11, 12, 13, 64, 128:
        yield f"data_coded_tile_of_{size}_bytes", with_packed(CODED_TILE, lambda packed, size=size: packed[:size])
    yield "data_coded_tile_of_header_alone", with_packed(SHORT_TILE, lambda packed: packed[:12])


def bad_headers():
    for f, coding in enumerate([RAW, RANS, CONST, RANS]):
        yield f"data_coding_3_of_field_{f}", with_coded_tile(CODED_TILE, flip=(coding ^ 3) << 2 * f)
    for bit in range(8, 20):
        yield f"data_coding_of_no_field_bit_{bit}", with_coded_tile(CODED_TILE, flip=1 << bit)
    for bit in 4, 5, 18, 19:
        yield f"data_coding_of_no_field_of_pairs_bit_{bit}", with_coded_tile(PAIR_TILE, flip=1 << bit)
    tile_of_7 = lambda first, tail=b"": with_entry(CONSTANT_TILE, mode=CODED, checksum=None,
                                                   data=struct.pack("<II", first, 7) + tail)
    for size in 1, 2, 4, 64:
        yield f"data_coded_tile_without_carrier_longer_by_{size}", tile_of_7(CONST, bytes(size))
    for count in 1, 22, 4095:
        yield f"data_{count}_exceptions_without_carrier", tile_of_7(CONST | count << 20)
    for bit in 2, 19:
        yield f"data_coding_of_no_field_without_carrier_bit_{bit}", tile_of_7(CONST | 1 << bit)
    for bit in 5, 7, 8, 16, 24, 31:
        yield f"data_constant_field_too_large_by_bit_{bit}", with_coded(CONSTANT_FIELD, value=17 | 1 << bit)
    yield "data_constant_field_of_8_bits_too_large", with_entry(CONSTANT_TILE, mode=CODED, checksum=None,
                                                                data=struct.pack("<II", CONST, 7 | 1 << 8))
    file = base()
    source = file.sources[CODED_TILE]
    fields = [Field(5, 1, 0, 0) if f == CONSTANT_FIELD else this for f, this in enumerate(source.fields)]
    made = encode_tile(replace(source, fields=fields, codings=[RAW, RANS, RANS, RANS]), file.frequencies, Options())
    file.entries[CODED_TILE].data = made.assemble()  # correct for a reader that uses table 0 if there is none
    yield "data_rans_field_without_tables", file.build()
    for more in -64, -4, -2, -1, 1, 2, 4, 64:
        size = lambda _: len(base().coded[CODED_TILE].fields[CHOICE_FIELD].payload) + more
        yield f"data_payload_of_first_field_larger_by_{more}", with_coded(CHOICE_FIELD, payload_bytes=size)
    for size in 0, 2, 3000, (1 << 18) - 2, 1 << 31, (1 << 32) - 2:
        yield f"data_payload_of_first_field_of_{size}", with_coded(CHOICE_FIELD, payload_bytes=size)


def without_zero_word():
    """ZSTD_TILE coded in rANS without its last word, which is 0 like the gap behind it."""
    file = base()
    # d, the last symbol of a lane, is the lowest in the table and leaves zeros in its state, which t before it emits.
    frequencies = {"d": 1, "s": 2000, "t": 100, "z": 1995}
    this = Field(8, 1, 0, file.add_table([frequencies.get(chr(s), 0) for s in range(256)]))
    file.fields[first_field(ZSTD_SEG)] = this
    values = np.frombuffer(file.contents[ZSTD_SEG], np.uint8).astype(np.uint64)
    source = Source(file.segments[ZSTD_SEG], [values], [this], [RANS], {}, np.zeros(0, int))
    packed = encode_tile(source, file.frequencies, Options()).assemble()
    assert packed.endswith(b"\0\0") and len(packed) % 4 == 0
    file.entries[ZSTD_TILE] = Entry(CODED, packed[:-2])
    return file.build()


def states_end(payload, widths_at):
    """Returns the offset of the words of a payload."""
    widths = [half for byte in payload[widths_at : widths_at + 16] for half in (byte & 15, byte >> 4)]
    return widths_at + 16 + -(-(32 * 16 + sum(widths)) // 16) * 2


def flipped(data, bit):
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def bad_places_of_parts():
    """Misplaced parts: CODED_TILE has a header, three planes, exceptions and two payloads; CARRYING_TILE has no planes."""
    for alignment in 1, 2, 8, 16:
        yield f"data_parts_at_multiples_of_{alignment}", with_parts(CODED_TILE, lambda parts: parts, alignment=alignment)
        yield (f"data_carrying_parts_at_multiples_of_{alignment}",
               with_parts(CARRYING_TILE, lambda parts: parts, alignment=alignment))
    for name, tile, count in ("", CODED_TILE, 7), ("carrying_", CARRYING_TILE, 4), ("pair_", PAIR_TILE, 4):
        assert len(base().coded[tile].parts()) == count
        for i in range(count):
            with_gap = lambda parts, i=i: [*parts[:i], bytes(4), *parts[i:]]
            yield f"data_{name}gap_in_front_of_part_{i}", with_parts(tile, with_gap)
            yield f"data_{name}part_{i}_missing", with_parts(tile, lambda parts, i=i: parts[:i] + parts[i + 1 :])
    orders = {
        "exceptions_first": (4, 0, 1, 2, 3, 5, 6),
        "exceptions_in_front_of_planes": (0, 4, 1, 2, 3, 5, 6),
        "exceptions_in_front_of_last_plane": (0, 1, 2, 4, 3, 5, 6),
        "exceptions_behind_payload": (0, 1, 2, 3, 5, 4, 6),
        "exceptions_behind_payloads": (0, 1, 2, 3, 5, 6, 4),
        "payloads_in_front_of_planes": (0, 4, 5, 6, 1, 2, 3),
        "payloads_exchanged": (0, 1, 2, 3, 4, 6, 5),
    }
    for name, order in orders.items():
        yield f"data_{name}", with_parts(CODED_TILE, lambda parts, order=order: [parts[i] for i in order])
    for name, order in ("first", (1, 0, 2, 3)), ("behind_payload", (0, 2, 1, 3)), ("behind_payloads", (0, 2, 3, 1)):
        yield f"data_carried_exceptions_{name}", with_parts(CARRYING_TILE, lambda parts, o=order: [parts[i] for i in o])

def bad_exceptions():
    """Broken lists that are otherwise correct: a reader without the check may even restore the right elements."""
    for name, tile, n, beyond in (("", CODED_TILE, N, 1 << 12), ("carried_", CARRYING_TILE, CARRYING_N, 1 << 5),
                                  ("pair_", PAIR_TILE, PAIR_N, 1 << 4)):
        count = len(base().sources[tile].listed)
        for at in 0, 1, count // 2, count - 2, count - 1:
            double = lambda listed, at=at: [*listed[: at + 1], *listed[at:]]
            yield f"data_{name}exception_{at}_twice", with_listed(tile, double)
            too_large = lambda listed, at=at: [*listed[:at], (listed[at][0], listed[at][1] | beyond), *listed[at + 1 :]]
            yield f"data_{name}exception_{at}_too_large", with_listed(tile, too_large)
        for at in 0, 1, count // 2, count - 2:
            exchange = lambda listed, at=at: [*listed[:at], listed[at + 1], listed[at], *listed[at + 2 :]]
            yield f"data_{name}exceptions_{at}_and_next_exchanged", with_listed(tile, exchange)
        yield f"data_{name}exceptions_descend", with_listed(tile, lambda listed: listed[::-1])
        yield f"data_{name}exceptions_start_with_last", with_listed(tile, lambda listed: listed[-1:] + listed[:-1])
        yield f"data_{name}exceptions_all_at_0", with_listed(tile, lambda listed: listed[:1] * count)
        for position in n, n + 1, 1 << 15, (1 << 16) - 1:
            yield f"data_{name}exception_at_{position}", with_listed(tile, lambda listed: [*listed, (position, 0)])
        for changed in 0, 1, count - 1, count + 1, (1 << 12) - 1:
            yield f"data_{name}exceptions_counted_as_{changed}", with_coded_tile(tile, exception_count=changed)
    yield "data_exception_far_too_large", with_listed(CODED_TILE, lambda listed: [(p, v | 0xF000) for p, v in listed])
    yield ("data_carried_exception_far_too_large",
           with_listed(CARRYING_TILE, lambda listed: [(p, v | 0xE0) for p, v in listed]))
    yield "data_pair_exception_far_too_large", with_listed(PAIR_TILE, lambda listed: [(p, v | 0xF0) for p, v in listed])
    yield "data_exception_counted_but_missing", with_coded_tile(SHORT_TILE, exception_count=1)
    yield "data_exceptions_not_counted", with_coded_tile(SHORT_TILE, exceptions=bytes([5, 0, 0, 0]))
    yield "data_plane_not_carried", with_options(CODED_TILE, carry=NOTHING)
    yield "data_plane_of_pairs_not_carried", with_options(PAIR_TILE, carry=NOTHING)
    yield "data_exceptions_carried_instead_of_plane", with_options(CODED_TILE, carry=EXCEPTIONS)
    yield "data_exceptions_of_pairs_carried_instead_of_plane", with_options(PAIR_TILE, carry=EXCEPTIONS)
    yield "data_exceptions_not_carried", with_options(CARRYING_TILE, carry=NOTHING)
    for count, carry in (1, EXCEPTIONS), (20, EXCEPTIONS), (21, NOTHING), (22, NOTHING):
        values = [int(value) for value in base().sources[SHORT_TILE].values[SHORT_FIELD][:count]]
        what = "carried" if carry else "not_carried"
        yield (f"data_{count}_exceptions_{what}",
               with_options(SHORT_TILE, exceptions=lambda _p, _v: (list(range(count)), values), carry=carry))


def bad_zstd_tiles():
    skippable = struct.pack("<II", 0x184D2A50, 4) + b"skip"
    content = b"zstd" * (ZSTD_N // 4)
    frames = {
        "no_frame": bytes(64),
        "empty": b"",
        "magic_alone": compress(content)[:4],
        "cut": compress(content)[:-1],
        "without_checksum": compress(content, write_checksum=True)[:-4],
        "wrong_checksum": compress(content, write_checksum=True)[:-1] + b"\x55",
        "a_byte_behind": compress(content) + b"\0",
        "two_frames": compress(content[:300]) + compress(content[300:]),
        "two_frames_each_the_tile": compress(content) * 2,
        "empty_frame_behind": compress(content) + compress(b""),
        "empty_frame_in_front": compress(b"") + compress(content),
        "skippable_frame_behind": compress(content) + skippable,
        "skippable_frame_in_front": skippable + compress(content),
        "skippable_frame_alone": skippable,
        "empty_frame": compress(b""),
        "too_little": compress(content[:-1]),
        "too_much": compress(content + b"z"),
        "untold": compress(content, write_content_size=False),
        "too_little_untold": compress(content[:-1], write_content_size=False),
        "too_much_untold": compress(content + b"z", write_content_size=False),
        "dictionary": compress(content, dict_data=dictionary()),
        "far_too_much": compress(bytes(1 << 22)),
        "far_too_much_untold": compress(bytes(1 << 22), write_content_size=False),
        "too_little_for_what_it_tells": with_content_size(compress(content[:-1]), ZSTD_N),
        "too_much_for_what_it_tells": with_content_size(compress(content + b"z"), ZSTD_N),
    }
    for size in 0, 1, ZSTD_N - 1, ZSTD_N + 1, ZSTD_N + (1 << 32), 1 << 60, (1 << 64) - 2, (1 << 64) - 1:
        frames[f"size_of_{size}"] = with_content_size(compress(content), size)
    for name, frame in frames.items():
        assert len(frame) < ZSTD_N, name
        yield f"data_zstd_{name}", with_entry(ZSTD_TILE, data=frame)


def dictionary():
    rng = np.random.default_rng(5)
    words = [rng.bytes(8) for _ in range(50)]
    samples = [b"".join(words[i] for i in rng.integers(0, 50, 20)) for _ in range(200)]
    return zstandard.train_dictionary(2000, samples)


def bad_files():
    """Yields (name, bytes) of files; the name says how each differs from base()."""
    for group in (bad_superblocks, bad_segments, bad_same_segments, bad_bases, bad_differences, bad_fields, bad_entries,
                  bad_tables, bad_coded_tiles, bad_places_of_parts, bad_exceptions, bad_zstd_tiles):
        for why, data in group():
            yield "bad_" + why, data


# ---- flips ----


def seal(data):
    """Corrects the checksums of index and superblock."""
    (index_offset,) = struct.unpack_from("<Q", data, 40)
    struct.pack_into("<Q", data, 80, xxh3(data[index_offset:]))
    struct.pack_into("<Q", data, 184, xxh3(data[:184]))


def flip_byte(wcx, data, rng):
    """Changes one byte of a packed tile of data, whose index is wcx; corrects all checksums except the SHA-256.

    Returns the tile.
    Never changes tiles of the header, because readers may parse their text, nor ZSTD tiles, because the result of a damaged
    frame depends on the version of the library.  Half of the changes are near the start of the tile, which has the header
    and, without planes and exceptions, the widths of states.
    """
    tiles = range(wcx.segments[1].first_tile, wcx.tile_count)
    tile = rng.choice([t for t in tiles if wcx.modes[t] in (STORED, CODED)])
    place, size = int(wcx.places[tile]), int(wcx.sizes[tile])
    at = place + rng.randrange(min(size, 64) if rng.random() < 0.5 else size)
    data[at] ^= rng.choice([1 << rng.randrange(8), rng.randrange(1, 256)])
    entry_at = wcx.index_offset + 64 * wcx.segment_count + 8 * wcx.field_count + 8 * tile
    struct.pack_into("<I", data, entry_at + 4, xxh3(data[place : place + size]) & 0xFFFFFFFF)
    seal(data)
    return tile


def with_tile(wcx, contents, tile, elements):
    """Returns the original, made of contents, the segments, with other elements in one tile."""
    number = wcx.segments.index(wcx.segment_of(tile))
    seg = wcx.segments[number]
    matrix = contents[number].view(seg.dtype).reshape(seg.rows, seg.cols).copy()
    y, x, height, width = seg.tile_place(tile)
    matrix[y : y + height, x : x + width] = elements
    is_changed = [number in (i, other.same_as) for i, other in enumerate(wcx.segments)]
    return b"".join((matrix if changed else content).tobytes() for changed, content in zip(is_changed, contents))


def open_with_bases(path, directory):
    """Opens a file whose bases are in a directory, under the last part of their names."""
    wcx = wcx_decode.Wcx(path)
    for base in wcx.bases:
        wcx.use_base(wcx_decode.read_original(os.path.join(directory, os.path.basename(base.name.decode()))))
    return wcx


def write_flips(path, out_dir, count, seed):
    rng = random.Random(seed)
    directory = os.path.dirname(path)
    wcx = open_with_bases(path, directory)
    contents = list(wcx.decode_segments())
    stem = os.path.join(out_dir, os.path.basename(path).removesuffix(".wcx"))
    for i in range(count):
        with open(path, "rb") as file:
            data = bytearray(file.read())
        tile = flip_byte(wcx, data, rng)
        write_file(f"{stem}.flip{i}.wcx", data)
        try:
            elements = open_with_bases(f"{stem}.flip{i}.wcx", directory).decode_tile(tile)
        except wcx_decode.WcxError:
            continue
        original = with_tile(wcx, contents, tile, elements)
        data[88:120] = hashlib.sha256(original).digest()
        seal(data)
        write_file(f"{stem}.flip{i}.wcx", data)
        write_file(f"{stem}.flip{i}.safetensors", original)


# ---- the program ----


def write_file(path, data):
    """Writes data; trailing zeros take no disk space."""
    with open(path, "wb") as out:
        out.write(data.rstrip(b"\0"))
        out.truncate(len(data))


def main():
    command, *args = sys.argv[1:] or [None]
    if (command, len(args)) not in (("good", 1), ("family", 1), ("bad", 1)) and (command != "flips" or len(args) < 4):
        sys.exit(__doc__.splitlines()[0])
    out_dir = args[0]
    os.makedirs(out_dir, exist_ok=True)
    if command in ("good", "family"):
        for name, file in files_of(command + "_"):
            name = "family_" * (command == "family") + name
            write_file(os.path.join(out_dir, name + ".wcx"), file.build())
            write_file(os.path.join(out_dir, name + ".safetensors"), bytes(file.original))
    elif command == "bad":
        for name, data in bad_files():
            write_file(os.path.join(out_dir, name + ".wcx"), data)
    else:
        for path in args[3:]:
            write_flips(path, out_dir, int(args[1]), int(args[2]))


if __name__ == "__main__":
    main()
