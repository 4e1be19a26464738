#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""wcx_decode.py FILE.wcx [OUT [BASE...]] - decodes a .wcx file, independently of the C code.

Follows docs/format.md alone, in its order and with its names, so that both can be read side by side.  Checks every rule of
the format, the checksum of every tile and the SHA-256 of the whole, writes the safetensors file to OUT if given, and prints
one line with counts of the features found.  Exits with status 1 and a message if FILE is damaged.  Each BASE is one that
FILE refers to, a safetensors file or packed, which is told by its SHA-256.

Decodes in lockstep all RANS fields of a window that distribute symbols to lanes in the same way: states are arrays of
(fields, 32 lanes).
"""
import bisect
import functools
import hashlib
import os
import struct
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np
import xxhash
import zstandard

MAGIC = bytes.fromhex("89574358 0D0A1A0A")
ZSTD_MAGIC = bytes.fromhex("28B52FFD")
SUPERBLOCK = struct.Struct("<8sIIQQQQQIIQQQ32sQIIQ40sQ")
SEGMENT = struct.Struct("<QQIIIIIBBBBIBBBBQ7sB")
FIELD = struct.Struct("<BBHI")
BASE = struct.Struct("<32sQII")
TILE_ENTRY = np.dtype([("size_mode", "<u4"), ("checksum", "<u4")])

MODES = STORED, CODED, CONSTANT, ZSTD = range(4)
MODE_NAMES = "STORED", "CODED", "CONSTANT", "ZSTD"
FIELD_RAW, FIELD_RANS, FIELD_CONSTANT = range(3)
CODING_NAMES = "RAW", "RANS", "CONSTANT"
TRANSFORMS = NONE, ROTATE, FOLD = range(3)
TRANSFORM_NAMES = "NONE", "ROTATE", "FOLD"
PREDICTORS = NONE, LEFT, UP, LEFT2 = range(4)
PREDICTOR_NAMES = "NONE", "LEFT", "UP", "LEFT2"
DIFFERENCES = NONE, INTEGER, FLOAT = range(3)
DIFFERENCE_NAMES = "NONE", "INTEGER", "FLOAT"
TABLES_BY_CONTEXT = 7  # in place of the number of tables
FLAG_PAIRS, FLAG_ZERO, FLAG_ESCAPES = 1 << 3, 1 << 4, 1 << 7
FEATURE_BASES, FEATURE_SETS, FEATURE_ESCAPES, FEATURE_DIFFERENCE_PAIRS = 1 << 0, 1 << 1, 1 << 2, 1 << 3
ESCAPE = 255  # a symbol

ORIGINAL_BYTES_MAX = 1 << 60
INDEX_BYTES_MAX = 1 << 28
TABLES_MAX = 131072
BASES_MAX = 256
BASE_NAME_BYTES_MAX = 4095
THRESHOLDS_MAX = 7
SEGMENT_TABLES_MAX = 40  # of a segment of differences
TABLE_BYTES_MIN = 5
TILE_ELEMENTS_MAX = 65536
FIELDS_MAX = 10
RAW_PLANES_MAX = 16
RUN_MIN, RUN_MAX = 128, 65536
FREQUENCY_SUM = 4096
PAIR_PRODUCT_MIN = 256
PAIR_FACTOR_MAX = (1 << 18) - 1
LANES = 32
UNIT_BYTES = 4 * LANES
WIDTHS_BYTES = LANES // 2
CARRIED_BYTES = 2 * LANES
STATE_MIN = 1 << 16
ALIGNMENT = 4  # of packed tiles, and of the parts of a coded tile

WINDOW_BYTES = 64 << 20  # decoded bytes of tiles that are decoded together: limits memory, does not affect the result


class WcxError(Exception):
    """The file is damaged, or not a .wcx file of this version."""


def must(condition, message):
    if not condition:
        raise WcxError(message)


def xxh3(data):
    return xxhash.xxh3_64_intdigest(data)


def ceil_div(a, b):
    return -(-a // b)


def align(a, b):
    return ceil_div(a, b) * b


# ---- the index (section 2) ----


@dataclass
class Field:
    """Section 2.3; shift is the sum of the widths of the lower fields."""

    width: int
    flags: int
    base: int
    first_table: int
    shift: int = 0
    context_count: int = 0  # of the segment

    @property
    def is_by_context(self):
        return self.flags & 7 == TABLES_BY_CONTEXT

    @property
    def table_count(self):
        return self.context_count << self.set_bits if self.is_by_context else self.flags & 7

    @property
    def set_bits(self):
        return self.flags >> 5 & 3

    @property
    def choice_bits(self):
        return self.set_bits if self.is_by_context else self.table_count >> 1

    @property
    def is_of_pairs(self):
        return bool(self.flags & FLAG_PAIRS)

    @property
    def has_zero(self):
        return bool(self.flags & FLAG_ZERO)

    @property
    def has_escapes(self):
        return bool(self.flags & FLAG_ESCAPES)

    @property
    def tables(self):
        return range(self.first_table, self.first_table + self.table_count)

    def planes(self):
        """Returns the raw planes in order: (bits, shift within the element)."""
        shift = self.shift
        for bits in (32, 16, 8, 4, 2, 1):
            if self.width & bits:
                yield bits, shift
                shift += bits

    def values(self):
        """Returns the values of the symbols 0..256, two for each symbol of pairs."""
        symbols = np.arange(256, dtype=np.uint64)
        if self.is_of_pairs:
            return np.stack([symbols & 15, symbols >> 4], axis=1) + np.uint64(self.base)
        return np.where((symbols == 0) & self.has_zero, 0, symbols + self.base)


@dataclass
class Segment:
    """Section 2.2, with derived values."""

    bytes: int
    cols: int
    tile_rows: int
    tile_cols: int
    run: int
    same_as: int
    entropy: int
    elem_bytes: int
    transform: int
    predictor: int
    field_count: int
    base: int  # number, from 1; 0: none
    difference: int
    threshold_count: int
    kind: int
    reserved: int
    base_offset: int
    all_thresholds: bytes
    reserved_at_end: int
    first_tile: int = 0
    fields: list = field(default_factory=list)

    @property
    def rows(self):
        return self.bytes // self.elem_bytes // self.cols

    @property
    def grid_rows(self):
        return ceil_div(self.rows, self.tile_rows)

    @property
    def grid_cols(self):
        return ceil_div(self.cols, self.tile_cols)

    @property
    def tile_count(self):
        return 0 if self.same_as else self.grid_rows * self.grid_cols

    @property
    def thresholds(self):
        return list(self.all_thresholds[: self.threshold_count])

    @property
    def context_count(self):
        return self.threshold_count and self.threshold_count + 1

    @property
    def dtype(self):
        return f"<u{self.elem_bytes}"

    @property
    def word_elements(self):
        """Section 3.1: the elements of a lane in each line."""
        return max(1, 4 // self.elem_bytes)

    def line_count(self, n):
        return ceil_div(n, self.word_elements * LANES)

    def plane_bytes(self, bits, n):
        """Section 3.1: the bytes of a raw plane of n elements."""
        return ceil_div(self.line_count(n) * bits * self.word_elements, 32) * UNIT_BYTES

    def tile_place(self, tile):
        """Returns the place of a tile (numbered through the file) in the matrix: y, x, height, width."""
        grid_y, grid_x = divmod(tile - self.first_tile, self.grid_cols)
        y, x = grid_y * self.tile_rows, grid_x * self.tile_cols
        return y, x, min(self.tile_rows, self.rows - y), min(self.tile_cols, self.cols - x)

    def tile_heights(self):
        """Returns the height of each row of tiles."""
        heights = np.full(self.grid_rows, min(self.tile_rows, self.rows), np.int64)
        heights[-1] = self.rows - (self.grid_rows - 1) * self.tile_rows
        return heights

    def tile_elements(self):
        """Returns the number of elements of each tile of the segment."""
        widths = np.full(self.grid_cols, min(self.tile_cols, self.cols), np.int64)
        widths[-1] = self.cols - (self.grid_cols - 1) * self.tile_cols
        return np.outer(self.tile_heights(), widths).reshape(-1)

    def tile_is_narrow(self):
        """Returns for each tile whether it has several rows, but not all columns."""
        return np.repeat((self.tile_heights() > 1) & (self.tile_cols < self.cols), self.grid_cols)


@dataclass
class Base:
    """Section 2.8; name is a hint at where its packed file is."""

    sha256: bytes
    original_bytes: int
    name_bytes: int
    reserved: int
    name: bytes = b""


def parse_bases(raw, count):
    """Reads entries and names, which raw has."""
    names = raw[BASE.size * count :]
    bases = [Base(*BASE.unpack_from(raw, BASE.size * number)) for number in range(count)]
    must(sum(base.name_bytes for base in bases) == len(names), "the names of the bases have another size than their entries say")
    at = 0
    for number, base in enumerate(bases, 1):
        where = f"base {number}: "
        base.name = names[at : at + base.name_bytes]
        at += base.name_bytes
        must(1 <= base.original_bytes <= ORIGINAL_BYTES_MAX, f"{where}an original of {base.original_bytes} bytes")
        must(base.name_bytes <= BASE_NAME_BYTES_MAX, f"{where}a name of {base.name_bytes} bytes")
        must(b"\0" not in base.name, f"{where}a zero byte in its name")
        must(base.reserved == 0, f"{where}reserved bytes that are not zero")
    return bases


def check_difference(seg, where, number, bases):
    """Checks what a segment says about its base."""
    must(seg.kind == 0, f"{where}the unknown kind {seg.kind}")
    must(seg.reserved == 0 and seg.reserved_at_end == 0, f"{where}reserved bytes that are not zero")
    must(seg.base <= len(bases), f"{where}base {seg.base} does not exist")
    must(seg.difference in DIFFERENCES, f"{where}difference {seg.difference}")
    must((seg.base == 0) == (seg.difference == NONE), f"{where}a base or a difference alone")
    must(seg.threshold_count <= THRESHOLDS_MAX, f"{where}{seg.threshold_count} thresholds")
    must(not any(seg.all_thresholds[seg.threshold_count :]), f"{where}thresholds beyond the last")
    ascending = [0, *seg.thresholds]
    must(all(a < b for a, b in zip(ascending, ascending[1:])), f"{where}thresholds that do not ascend")
    if not seg.base:
        must(seg.base_offset == 0 and seg.threshold_count == 0, f"{where}an offset or thresholds without a base")
        return
    must(number > 0, f"{where}a header with a base")
    must(seg.bytes >= 2048, f"{where}{seg.bytes} bytes with a base")
    must(seg.base_offset + seg.bytes <= bases[seg.base - 1].original_bytes, f"{where}passes the end of its base")
    must(seg.transform == NONE and seg.predictor == NONE, f"{where}a difference with a transform or a predictor")
    must(seg.tile_cols >= seg.cols or min(seg.tile_rows, seg.rows) == 1, f"{where}narrow tiles of differences")


def parse_segment(raw, number, earlier, bases):
    """Reads a segment without its fields, which follow all segments."""
    where = f"segment {number}: "
    seg = Segment(*SEGMENT.unpack(raw))
    must(seg.bytes >= 1, f"{where}empty")
    if seg.same_as:
        must(seg.same_as < number and not earlier[seg.same_as].same_as, f"{where}the same as segment {seg.same_as}")
        must(seg.bytes == earlier[seg.same_as].bytes, f"{where}not the size of segment {seg.same_as}")
        alone = SEGMENT.pack(seg.bytes, 0, 0, 0, 0, seg.same_as, *(0 for _ in range(11)), bytes(THRESHOLDS_MAX), 0)
        must(raw == alone, f"{where}more than same_as is set")
        return seg
    must(number or seg.bytes >= 8, "a header of less than 8 bytes")
    must(seg.elem_bytes in (1, 2, 4, 8), f"{where}elem_bytes is {seg.elem_bytes}")
    must(seg.bytes % seg.elem_bytes == 0, f"{where}{seg.bytes} bytes in elements of {seg.elem_bytes}")
    must(seg.cols >= 1 and seg.bytes // seg.elem_bytes % seg.cols == 0, f"{where}{seg.cols} columns do not fit its elements")
    must(seg.tile_rows >= 1 and seg.tile_cols >= 1, f"{where}a tile side is 0")
    must(seg.tile_rows * seg.tile_cols <= TILE_ELEMENTS_MAX, f"{where}tiles of {seg.tile_rows} x {seg.tile_cols} elements")
    must(seg.tile_cols >= seg.cols or seg.tile_rows <= 256, f"{where}tiles of {seg.tile_rows} rows, but not all columns")
    height = min(seg.tile_rows, seg.rows)
    must(seg.tile_cols >= seg.cols or height <= 8 * seg.tile_cols and height * seg.field_count <= 512,
         f"{where}tiles of {height} x {seg.tile_cols} elements and {seg.field_count} fields, but not all columns")
    must(seg.transform in TRANSFORMS, f"{where}transform {seg.transform}")
    must(seg.predictor in PREDICTORS, f"{where}predictor {seg.predictor}")
    must(seg.transform == NONE or seg.predictor == NONE, f"{where}a transform and a predictor")
    must(1 <= seg.field_count <= FIELDS_MAX, f"{where}{seg.field_count} fields")
    check_difference(seg, where, number, bases)
    return seg


def parse_field(raw, where, seg, table_count):
    this = Field(*FIELD.unpack(raw), context_count=seg.context_count)
    must(1 <= this.width <= 32, f"{where}a field of {this.width} bits")
    must(this.set_bits <= 2, f"{where}a field with SETS {this.set_bits}")
    must(this.is_by_context or not this.set_bits, f"{where}a field with sets of tables, but not by context")
    if this.is_by_context:
        must(this.table_count, f"{where}a field with tables by context, without contexts")
    else:
        must(this.table_count in (0, 1, 2, 4), f"{where}a field with {this.table_count} tables")
    if seg.base:
        must(this.is_by_context or this.table_count <= 1, f"{where}differences with a choice of {this.table_count} tables")
        must(not this.has_zero, f"{where}differences with ZERO")
        must(not this.is_of_pairs or not this.is_by_context, f"{where}differences with PAIRS and contexts")
    if this.table_count:
        must(this.width <= 16, f"{where}a field of {this.width} bits with tables")
        must(this.tables[-1] < table_count, f"{where}the tables of a field do not exist")
        symbol_count = 16 if this.is_of_pairs else 256
        must(this.base <= max(0, 2**this.width - symbol_count), f"{where}a field of {this.width} bits with base {this.base}")
        must(this.width > 8 or not this.has_zero, f"{where}a field of {this.width} bits with ZERO")
        must(not this.is_of_pairs or not this.has_zero, f"{where}a field of pairs with ZERO")
    else:
        rest = this.flags, this.base, this.first_table
        must(not any(rest), f"{where}a field with flags, a base or a table, but without tables")
    return this


def check_fields(seg, where):
    """Checks the rules about all fields of a segment together; also sets their shifts."""
    shift = 0
    for this in seg.fields:
        this.shift = shift
        shift += this.width
    must(shift == 8 * seg.elem_bytes, f"{where}fields of {shift} bits together")
    plane_count = sum(this.width.bit_count() for this in seg.fields)
    must(plane_count <= RAW_PLANES_MAX, f"{where}{plane_count} raw planes")
    *below, last = seg.fields
    must(not any(this.is_of_pairs for this in below), f"{where}pairs in a field that is not the last")
    if last.is_of_pairs and seg.base:
        must(seg.elem_bytes == 1 and last.width == 8 and not last.base, f"{where}pairs in differences that cannot have them")
    elif last.is_of_pairs:
        good = last.width >= 4 if seg.elem_bytes == 2 else last.width == 4 and seg.elem_bytes == 1
        must(good, f"{where}pairs of {last.width} bits in {seg.elem_bytes} bytes")
    if seg.transform == FOLD:
        must(seg.elem_bytes == 1, f"{where}folded elements of {seg.elem_bytes} bytes")
        must(below and not below[0].table_count, f"{where}folded elements without a lowest field that is never coded")
    if any(this.has_escapes for this in seg.fields):
        must(seg.base and seg.elem_bytes == 2 and not below and not last.base, f"{where}escapes in fields that cannot have them")
    if seg.base:
        table_count = sum(this.table_count for this in seg.fields)
        must(table_count <= SEGMENT_TABLES_MAX, f"{where}{table_count} tables for differences")
    if any(this.choice_bits for this in seg.fields):
        must(seg.run % RUN_MIN == 0 and RUN_MIN <= seg.run <= RUN_MAX, f"{where}runs of {seg.run}")
    else:
        must(seg.run == 0, f"{where}runs of {seg.run} without a choice")


def parse_table(raw, at):
    """Section 2.6: reads the 256 frequencies of the table at raw[at:]; returns them and the start of the next table."""
    frequencies = []
    after_run = False
    while len(frequencies) < 256:
        must(at + 1 <= len(raw), "a frequency table is cut short")
        first = raw[at]
        if 1 <= first <= 127:
            frequencies.append(first)
            at += 1
            after_run = False
            continue
        must(at + 2 <= len(raw), "a frequency table is cut short")
        second = raw[at + 1]
        at += 2
        if first:
            must(first <= 0x8F, "a frequency is above 4095")
            frequency = (first & 0x0F) << 8 | second
            must(frequency >= 128, "a frequency below 128 takes two bytes")
            frequencies.append(frequency)
        else:
            must(not after_run, "a run of absent symbols follows another")
            frequencies.extend([0] * (second + 1))
            must(len(frequencies) <= 256, "a run of absent symbols passes symbol 255")
        after_run = first == 0
    must(sum(frequencies) == FREQUENCY_SUM, f"the frequencies of a table sum to {sum(frequencies)}")
    return frequencies, at


def pair_frequencies(frequencies):
    """Section 2.7: derives the frequencies of pairs from those of the symbols 0..16."""
    single = frequencies[:16].astype(np.int64)
    product = np.outer(single, single).reshape(-1)  # pair p is at row p >> 4 and column p & 15

    def scaled(factor):
        return np.where(product < PAIR_PRODUCT_MIN, 0, np.maximum(1, product * factor >> 28))

    # The sum is monotonic in the factor, so bisection finds the largest factor that fits.
    factor = bisect.bisect(range(PAIR_FACTOR_MAX + 1), FREQUENCY_SUM, key=lambda k: scaled(k).sum()) - 1
    pairs = scaled(factor)
    pairs[np.argmax(product)] += FREQUENCY_SUM - pairs.sum()  # argmax returns the first of several
    return pairs.astype(np.uint32)


class Wcx:
    """An open .wcx file, with its index fully checked."""

    def __init__(self, path):
        must(os.path.getsize(path) >= SUPERBLOCK.size, "shorter than a superblock")
        self.file = np.memmap(path, np.uint8, "r")
        self._parse_superblock(self.file[: SUPERBLOCK.size].tobytes())
        index = self.file[self.index_offset :].tobytes()
        must(xxh3(index) == self.index_checksum, "the checksum of the index differs")
        extra_at = len(index) - self.extra_bytes
        bases_at = extra_at - BASE.size * self.base_count - self.base_name_bytes
        self.bases = parse_bases(index[bases_at:extra_at], self.base_count)
        fields_at = SEGMENT.size * self.segment_count
        entries_at = fields_at + FIELD.size * self.field_count
        tables_at = entries_at + TILE_ENTRY.itemsize * self.tile_count
        self._parse_segments(index[:fields_at])
        self._parse_fields(index[fields_at:entries_at])
        self._parse_tile_entries(index[entries_at:tables_at])
        self._parse_tables(index[tables_at:bases_at])
        self.base_files = {}  # the bytes of the bases' safetensors files, by number from 1: set them before decoding
        self.pair_frequencies = functools.cache(lambda table: pair_frequencies(self.frequencies[table]))
        self.seen = Counter()

    def _parse_superblock(self, raw):
        (magic, version, self.field_count, features, packed_bytes, self.original_bytes, self.index_offset, index_bytes,
         self.segment_count, self.table_count, self.tile_count, self.table_bytes, self.index_checksum,
         self.sha256, self.optional_features, self.base_count, self.base_name_bytes, self.extra_bytes, reserved,
         checksum) = SUPERBLOCK.unpack(raw)
        must(magic == MAGIC, "not a .wcx file")
        must(version == 1, f"version {version} is unknown")
        must(checksum == xxh3(raw[:184]), "the checksum of the superblock differs")
        unknown = features & ~(FEATURE_BASES | FEATURE_SETS | FEATURE_ESCAPES | FEATURE_DIFFERENCE_PAIRS)
        must(unknown == 0, f"unknown features {unknown:#x}")
        self.has_sets, self.has_escapes = bool(features & FEATURE_SETS), bool(features & FEATURE_ESCAPES)
        self.has_difference_pairs = bool(features & FEATURE_DIFFERENCE_PAIRS)
        must(bool(features & FEATURE_BASES) == (self.base_count > 0), "the feature BASES contradicts the number of bases")
        must(self.base_count <= BASES_MAX, f"{self.base_count} bases")
        must(self.extra_bytes == 0 or self.optional_features, "extra bytes without an optional feature")
        must(not any(reserved), "reserved bytes of the superblock are not zero")
        must(packed_bytes == len(self.file), f"{len(self.file)} bytes long, but written as {packed_bytes}")
        must(1 <= self.original_bytes <= ORIGINAL_BYTES_MAX, f"an original of {self.original_bytes} bytes")
        must(self.index_offset + index_bytes == packed_bytes, "the index does not end where the file ends")
        parts = (SEGMENT.size * self.segment_count + FIELD.size * self.field_count + TILE_ENTRY.itemsize * self.tile_count
                 + self.table_bytes + BASE.size * self.base_count + self.base_name_bytes + self.extra_bytes)
        must(index_bytes == parts, f"an index of {index_bytes} bytes whose parts have {parts}")
        must(index_bytes <= INDEX_BYTES_MAX, f"an index of {index_bytes} bytes")
        must(self.segment_count >= 1 and self.tile_count >= 1, "no segment or no tile")
        must(self.table_count <= TABLES_MAX, f"{self.table_count} frequency tables")
        must(self.table_count <= self.table_bytes // TABLE_BYTES_MIN, "more frequency tables than bytes for them")

    def _parse_segments(self, raw):
        self.segments = []
        first_tile = 0
        for number, at in enumerate(range(0, len(raw), SEGMENT.size)):
            seg = parse_segment(raw[at : at + SEGMENT.size], number, self.segments, self.bases)
            seg.first_tile = first_tile
            first_tile += seg.tile_count
            self.segments.append(seg)
        must(first_tile == self.tile_count, f"the segments have {first_tile} tiles, the superblock {self.tile_count}")
        total = sum(seg.bytes for seg in self.segments)
        must(total == self.original_bytes, f"segments of {total} bytes for an original of {self.original_bytes}")
        # A segment without tiles begins at the same tile as its successor; bisect_right passes over it.
        self.first_tiles = [seg.first_tile for seg in self.segments]

    def _parse_fields(self, raw):
        total = sum(seg.field_count for seg in self.segments)
        must(total == self.field_count, f"the segments have {total} fields, the superblock {self.field_count}")
        fields = (raw[at : at + FIELD.size] for at in range(0, len(raw), FIELD.size))
        for number, seg in enumerate(self.segments):
            where = f"segment {number}: "
            seg.fields = [parse_field(next(fields), where, seg, self.table_count) for _ in range(seg.field_count)]
            if not seg.same_as:
                check_fields(seg, where)
        has_sets = any(this.set_bits for seg in self.segments for this in seg.fields)
        must(has_sets == self.has_sets, "the feature SETS contradicts the fields")
        has_escapes = any(this.has_escapes for seg in self.segments for this in seg.fields)
        must(has_escapes == self.has_escapes, "the feature ESCAPES contradicts the fields")
        has_pairs = any(this.is_of_pairs for seg in self.segments if seg.base for this in seg.fields)
        must(has_pairs == self.has_difference_pairs, "the feature DIFFERENCE_PAIRS contradicts the fields")

    def _parse_tile_entries(self, raw):
        entries = np.frombuffer(raw, TILE_ENTRY)
        self.sizes = (entries["size_mode"] & 0xFFFFFF).astype(np.int64)
        self.modes = entries["size_mode"] >> 24
        self.checksums = entries["checksum"]
        starts = SUPERBLOCK.size + np.concatenate([[0], np.cumsum(align(self.sizes, ALIGNMENT))])
        self.places = starts[:-1]
        own = [seg for seg in self.segments if not seg.same_as]
        elem_bytes = np.repeat([seg.elem_bytes for seg in own], [seg.tile_count for seg in own])
        self.tile_bytes = np.concatenate([seg.tile_elements() for seg in own]) * elem_bytes
        narrow = np.concatenate([seg.tile_is_narrow() for seg in own])
        self._check_tile_entries(elem_bytes, narrow)
        must(starts[-1] == self.index_offset, f"the packed tiles end at {starts[-1]}, the index is at {self.index_offset}")

    def _check_tile_entries(self, elem_bytes, narrow):
        smaller = np.isin(self.modes, (CODED, ZSTD))
        fits = self.checksums >> np.minimum(elem_bytes * 8, 63).astype(np.uint64) == 0
        rules = [
            (np.isin(self.modes, MODES), "an unknown mode"),
            ((self.modes != STORED) | (self.sizes == self.tile_bytes), "a stored tile of a wrong size"),
            (~smaller | (self.sizes < self.tile_bytes), "a packed tile that saves nothing"),
            ((self.modes != ZSTD) | ~narrow, "a narrow tile in Zstandard"),
            ((self.modes != ZSTD) | (self.tile_bytes <= 65536), "a large tile in Zstandard"),
            ((self.modes != CONSTANT) | fits, "a constant that does not fit its element"),
            ((self.modes != CONSTANT) | (self.sizes == 0), "a constant tile with a size"),
        ]
        for kept, message in rules:
            if not kept.all():
                raise WcxError(f"{self.describe_tile(int(np.argmin(kept)))}: {message}")

    def _parse_tables(self, raw):
        self.frequencies = []
        at = 0
        for _ in range(self.table_count):
            frequencies, at = parse_table(raw, at)
            self.frequencies.append(np.array(frequencies, np.uint32))
        must(at == len(raw), "bytes follow the last frequency table")
        for number, seg in enumerate(self.segments):
            for this in seg.fields:
                limit = 16 if this.is_of_pairs else 1 << min(8, this.width)
                beyond = any(self.frequencies[table][limit:].any() for table in this.tables)
                must(not beyond, f"segment {number}: a table gives symbols to a field that it does not have")
                fine = this.has_escapes and any((self.frequencies[table] % 4).any() for table in this.tables)
                must(not fine, f"segment {number}: frequencies of a field with escapes that are no multiples of 4")

    def describe_tile(self, tile):
        number = bisect.bisect_right(self.first_tiles, tile) - 1
        y, x, height, width = self.segments[number].tile_place(tile)
        return f"tile {tile} (segment {number}, row {y}, column {x}, {height} x {width})"

    def segment_of(self, tile):
        return self.segments[bisect.bisect_right(self.first_tiles, tile) - 1]

    def packed_tile(self, tile):
        start = int(self.places[tile])
        packed = self.file[start : start + int(self.sizes[tile])]
        must(xxh3(packed) & 0xFFFFFFFF == self.checksums[tile], f"{self.describe_tile(tile)}: its checksum differs")
        return packed

    def decode_tile(self, tile):
        return self.decode_tiles([tile])[0]

    def decode_tiles(self, tiles):
        """Decodes any tiles; returns an array of elements (height, width) for each."""
        decoded = []
        jobs = defaultdict(list)  # RANS fields to decode in lockstep, by the distribution of symbols to lanes
        for tile in tiles:
            seg = self.segment_of(tile)
            _, _, height, width = seg.tile_place(tile)
            elements = np.zeros(height * width, seg.dtype)
            decoded.append(elements.reshape(height, width))
            mode = int(self.modes[tile])
            self.seen["mode", mode] += 1
            base = self.base_tile(tile, seg) if seg.base and mode in (CODED, CONSTANT) else None
            if mode == CONSTANT:
                elements[:] = self.checksums[tile] if base is None else undo_differences(self.checksums[tile], base, seg)
            elif mode == STORED:
                elements.view(np.uint8)[:] = self.packed_tile(tile)
            elif mode == ZSTD:
                elements.view(np.uint8)[:] = self._decompress_tile(tile)
            else:
                for this in self._open_coded_tile(tile, seg, elements, base):
                    jobs[len(elements), seg.word_elements, this.field.is_of_pairs, this.tables.shape].append(this)
        for (n, word_elements, are_pairs, _), fields in jobs.items():
            self._decode_fields(n, word_elements, are_pairs, fields)
        for tile, elements in zip(tiles, decoded):
            if self.modes[tile] == CODED:
                seg = self.segment_of(tile)
                if seg.base:
                    elements[:] = undo_differences(elements, self.base_tile(tile, seg).reshape(elements.shape), seg)
                else:
                    elements[:] = undo_transform(undo_prediction(elements, seg.predictor), seg)
        return decoded

    def use_base(self, data):
        """Decodes differences from this safetensors file, if it is a base of this one."""
        digest = hashlib.sha256(data).digest()
        for number, base in enumerate(self.bases, 1):
            if (base.sha256, base.original_bytes) == (digest, len(data)):
                self.base_files[number] = data

    def base_tile(self, tile, seg):
        """Section 2.8: returns the elements of the base's tile, of which there is a whole range of bytes."""
        must(seg.base in self.base_files, f"{self.describe_tile(tile)}: base {seg.base} is missing")
        y, x, height, width = seg.tile_place(tile)
        start = seg.base_offset + (y * seg.cols + x) * seg.elem_bytes
        return np.frombuffer(self.base_files[seg.base], np.uint8, height * width * seg.elem_bytes, start).view(seg.dtype)

    def _decompress_tile(self, tile):
        where, limit = self.describe_tile(tile), int(self.tile_bytes[tile])
        packed = self.packed_tile(tile).tobytes()
        must(packed.startswith(ZSTD_MAGIC), f"{where}: no Zstandard frame")
        try:
            must(zstandard.frame_content_size(packed) == limit, f"{where}: a Zstandard frame of another size, or of none")
            data = zstandard.ZstdDecompressor().decompress(packed, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise WcxError(f"{where}: {error}") from None
        must(len(data) == limit, f"{where}: a Zstandard frame of {len(data)} bytes for {limit}")
        return np.frombuffer(data, np.uint8)

    def _open_coded_tile(self, tile, seg, elements, base):
        """Stores in elements what needs no decoding; returns the RANS fields."""
        self.seen["transform", seg.transform] += 1
        self.seen["predictor", seg.predictor] += 1
        self.seen["difference", seg.difference] += 1
        coded = CodedTile(self.packed_tile(tile), seg, elements, base, self.describe_tile(tile))
        for coding in coded.codings:
            self.seen["coding", coding] += 1
        for this in coded.rans_fields:
            kind, count = ("context", this.field.context_count) if this.field.is_by_context else ("table", this.field.table_count)
            self.seen[kind, count] += 1
            self.seen["set", 1 << this.field.set_bits] += this.field.is_by_context
            self.seen["pairs"] += this.field.is_of_pairs
            self.seen["pairs of differences"] += this.field.is_of_pairs and seg.base > 0
            self.seen["pairs of two bytes"] += this.field.is_of_pairs and seg.elem_bytes == 2
            self.seen["carrier of planes"] += this.cut_plane is not None
            self.seen["carrier of exceptions"] += this.carries_exceptions
            self.seen["exceptions"] += this.exception_count
            self.seen["escapes"] += this.exception_count * this.field.has_escapes
            self.seen["carrier of escapes"] += this.carries_exceptions and this.field.has_escapes
        return coded.rans_fields

    def _decode_fields(self, n, word_elements, are_pairs, fields):
        """Decodes RANS fields of n elements each, and stores values and carried bytes in their elements."""
        used, table_of = np.unique(np.stack([this.tables for this in fields]), return_inverse=True)
        table_of = table_of.reshape(len(fields), *fields[0].tables.shape)
        frequencies = [self.pair_frequencies(table) if are_pairs else self.frequencies[table] for table in used]
        symbols, x, good = rans_decode([this.states for this in fields], [this.words for this in fields], n, word_elements,
                                       1 + are_pairs, frequencies, table_of)
        good &= (x >> 16 == 1).all(axis=1)
        for this, field_symbols, final_states, field_good in zip(fields, symbols, x & 0xFFFF, good):
            must(field_good, f"{this.where}: rANS ends in a wrong state or place")
            values = this.field.values()[field_symbols].reshape(-1)[:n]
            this.finish(values, final_states.astype("<u2").view(np.uint8))

    def windows(self):
        """Yields consecutive ranges of tiles of about WINDOW_BYTES each."""
        ends = np.cumsum(self.tile_bytes)
        first = 0
        while first < self.tile_count:
            before = ends[first - 1] if first else 0
            last = max(first + 1, int(np.searchsorted(ends, before + WINDOW_BYTES)))
            yield range(first, last)
            first = last

    def decode_own_segments(self):
        """Yields the bytes of each segment that has tiles, in order."""
        for window in self.windows():
            for tile, elements in zip(window, self.decode_tiles(window)):
                seg = self.segment_of(tile)
                if tile == seg.first_tile:
                    matrix = np.empty((seg.rows, seg.cols), seg.dtype)
                y, x, height, width = seg.tile_place(tile)
                matrix[y : y + height, x : x + width] = elements
                if tile == seg.first_tile + seg.tile_count - 1:
                    yield matrix.reshape(-1).view(np.uint8)

    def decode_segments(self):
        """Yields the bytes of each segment in order; their concatenation is the safetensors file."""
        wanted = {seg.same_as for seg in self.segments} - {0}
        kept = {}
        own = self.decode_own_segments()
        for number, seg in enumerate(self.segments):
            self.seen["same_as"] += seg.same_as > 0
            data = kept[seg.same_as] if seg.same_as else next(own)
            if number in wanted:
                kept[number] = data
            yield data

    def decode_all(self):
        """Like decode_segments; checks the SHA-256 after the last segment."""
        digest = hashlib.sha256()
        for data in self.decode_segments():
            digest.update(data)
            yield data
        must(digest.digest() == self.sha256, "the SHA-256 of the decoded file differs")

    def summary(self):
        """Returns one line with counts of the features decoded so far."""
        parts = []
        names_of = {"mode": MODE_NAMES, "coding": CODING_NAMES, "transform": TRANSFORM_NAMES, "predictor": PREDICTOR_NAMES,
                    "table": range(5), "difference": DIFFERENCE_NAMES, "context": range(9), "set": range(5)}
        for kind, names in names_of.items():
            counts = [f"{name}={self.seen[kind, value]}" for value, name in enumerate(names) if self.seen[kind, value]]
            parts.append(f"{kind}s {' '.join(counts) or '-'}")
        carriers = [f"{what}={self.seen['carrier of ' + what]}" for what in ("planes", "exceptions")]
        parts.append(f"pairs {self.seen['pairs']}; carriers of {' '.join(carriers)}")
        parts.append(f"exceptions {self.seen['exceptions']}; same_as {self.seen['same_as']}")
        return f"{self.original_bytes} bytes, {self.segment_count} segments, {self.tile_count} tiles; " + "; ".join(parts)


# ---- coded tiles (section 3) ----


@dataclass
class RansField:
    """A field of a coded tile before decoding.

    A carrier has the part that it carries, without the carried bytes: cut_plane (None if no plane is carried) or exceptions.
    """

    where: str
    seg: Segment
    field: Field
    elements: np.ndarray  # of the tile; finish stores the values here
    tables: np.ndarray  # index of the table of each line (lines, 1, 1), or of each symbol (lines, lanes, steps)
    states: list
    words: np.ndarray
    exception_count: int = 0
    cut_plane: tuple = None  # plane, bits, shift
    exceptions: bytes = b""

    @property
    def carries_exceptions(self):
        return len(self.exceptions) < exceptions_bytes(self.field, self.exception_count)

    def finish(self, values, final_bytes):
        """Stores the values of the symbols, and the part that the low halves of the final states complete."""
        if self.cut_plane:
            plane, bits, shift = self.cut_plane
            put_plane(self.elements, np.concatenate([plane, final_bytes]), bits, shift, self.seg)
        elif self.carries_exceptions:
            self.exceptions += final_bytes.tobytes()
        else:
            must(not final_bytes.any(), f"{self.where}: rANS ends in states with bytes of nothing")
        self.apply_exceptions(values)
        put_values(self.elements, values, self.field.shift)

    def apply_exceptions(self, values):
        """Section 3.3: replaces values by exceptions."""
        count, width = self.exception_count, self.field.width
        if self.field.has_escapes:
            escapes = values == ESCAPE
            must(escapes.sum() == count, f"{self.where}: {escapes.sum()} escapes, but {count} values for them")
            values[escapes] = np.frombuffer(self.exceptions, "<u2", count)
            return
        positions = np.frombuffer(self.exceptions, "<u2", count).astype(np.int64)
        exceptions = np.frombuffer(self.exceptions, "u1" if width <= 8 else "<u2", count, 2 * count)
        must((np.diff(positions) > 0).all(), f"{self.where}: the positions of exceptions do not ascend")
        must((positions < len(values)).all(), f"{self.where}: an exception beyond the last element")
        must((exceptions.astype(np.int64) < 1 << width).all(), f"{self.where}: too large a value of an exception")
        values[positions] = exceptions


def exceptions_bytes(this, count):
    if this.has_escapes:
        return 2 * count
    return align((3 if this.width <= 8 else 4) * count, 2)


class CodedTile:
    """Parses a coded tile: stores in elements, which must be zeros, what needs no decoding; rans_fields has the rest.

    base has the elements of the base's tile, in a segment that has a base.
    """

    def __init__(self, packed, seg, elements, base, where):
        self.packed, self.seg, self.elements, self.base, self.where = packed, seg, elements, base, where
        self.end = 0  # of the previous part
        rans, payload_sizes, exception_count = self.take_header()
        self.carrier = rans[-1] if rans else None
        cut_plane = self.take_planes()
        exceptions = self.take_exceptions(exception_count, bool(cut_plane))
        self.rans_fields = [self.take_payload(seg.fields[f], size) for f, size in zip(rans, [*payload_sizes, None])]
        if rans:
            self.rans_fields[-1].exception_count = exception_count
            self.rans_fields[-1].cut_plane = cut_plane
            self.rans_fields[-1].exceptions = exceptions
        must(self.end == len(packed), f"{where}: its parts end at {self.end}, the tile at {len(packed)}")

    def take(self, part_bytes):
        """Returns the next part of the tile; None takes the rest."""
        start = align(self.end, ALIGNMENT)
        self.end = max(start, len(self.packed)) if part_bytes is None else start + part_bytes
        must(self.end <= len(self.packed), f"{self.where}: its parts pass its end")
        return self.packed[start : self.end]

    def take_header(self):
        """Takes the header; returns RANS fields, sizes of their payloads (without the carrier's), number of exceptions."""

        def take_u32():
            return int(self.take(4).view("<u4")[0])

        first = take_u32()
        self.codings = [first >> 2 * f & 3 for f in range(self.seg.field_count)]
        exception_count = first >> 20
        beyond = (first & 0xFFFFF) >> 2 * self.seg.field_count
        must(beyond == 0, f"{self.where}: codings of fields that there are not")
        rans = [f for f, coding in enumerate(self.codings) if coding == FIELD_RANS]
        must(rans or exception_count == 0, f"{self.where}: exceptions without a carrier")
        payload_sizes = []
        for f, (this, coding) in enumerate(zip(self.seg.fields, self.codings)):
            where = f"{self.where}: field {f}"
            must(coding <= FIELD_CONSTANT, f"{where} has the unknown coding 3")
            if coding == FIELD_RANS:
                must(this.table_count, f"{where} has no frequency table")
                if f != rans[-1]:
                    payload_sizes.append(take_u32())
            elif coding == FIELD_CONSTANT:
                value = take_u32()
                must(value < 1 << this.width, f"{where} has too large a value")
                put_values(self.elements, np.array([value]), this.shift)
        return rans, payload_sizes, exception_count

    def take_planes(self):
        """Takes the raw planes; if the last is carried, returns its stored beginning with its bits and shift."""
        raw_fields = [this for this, coding in zip(self.seg.fields, self.codings) if coding == FIELD_RAW]
        planes = [plane for this in raw_fields for plane in this.planes()]
        for number, (bits, shift) in enumerate(planes):
            plane_bytes = self.seg.plane_bytes(bits, len(self.elements))
            if number == len(planes) - 1 and self.carrier is not None:
                return self.take(plane_bytes - CARRIED_BYTES), bits, shift
            put_plane(self.elements, self.take(plane_bytes), bits, shift, self.seg)
        return None

    def take_exceptions(self, count, plane_is_carried):
        """Takes the exceptions, without their carried bytes."""
        if not count:
            return b""
        part_bytes = exceptions_bytes(self.seg.fields[self.carrier], count)
        carried = not plane_is_carried and part_bytes >= CARRIED_BYTES
        return self.take(part_bytes - CARRIED_BYTES * carried).tobytes()

    def take_payload(self, this, payload_bytes):
        """Takes the payload of a RANS field; None for payload_bytes takes the rest."""
        n, run, choice_bits = len(self.elements), self.seg.run, this.choice_bits
        payload = self.take(payload_bytes)
        must(len(payload) % 2 == 0, f"{self.where}: {len(payload)} rANS bytes")
        run_count = ceil_div(n, run) if choice_bits else 0
        widths_at = align(ceil_div(run_count * choice_bits, 8), 4)
        must(len(payload) >= widths_at + WIDTHS_BYTES, f"{self.where}: {len(payload)} rANS bytes")
        tables = np.full(self.seg.line_count(n), this.first_table, np.int64)
        if choice_bits:
            choices = unpack_bits(payload[:widths_at], choice_bits, run_count)
            lines_per_run = run // (self.seg.word_elements * LANES)
            step = this.context_count if this.is_by_context else 1
            tables += step * np.repeat(choices.astype(np.int64), lines_per_run)[: len(tables)]
        tables = tables[:, None, None]
        if this.is_by_context:
            contexts = np.zeros((len(tables), LANES, self.seg.word_elements), np.int64)
            contexts.reshape(-1)[:n] = contexts_of(self.base, self.seg)
            tables = tables + contexts
        states, words = start_states(payload[widths_at:], self.where)
        return RansField(self.where, self.seg, this, self.elements, tables, states, words)


def start_states(data, where):
    """Section 3.2: reads widths and start states; returns the states of the lanes and the words behind them."""
    sizes = [16 + k for k in unpack_bits(data[:WIDTHS_BYTES], 4, LANES).tolist()]  # without the highest bit
    end = WIDTHS_BYTES + align(ceil_div(sum(sizes), 8), 2)
    must(end <= len(data), f"{where}: its start states pass its end")
    number = int.from_bytes(data[WIDTHS_BYTES:end].tobytes(), "little")
    states = []
    for size in sizes:
        states.append(1 << size | number & (1 << size) - 1)
        number >>= size
    return states, data[end:].view("<u2")


def unpack_bits(data, bits, n):
    """Returns the first n numbers of 1, 2 or 4 bits in data."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return (data[:, None] >> shifts & ((1 << bits) - 1)).reshape(-1)[:n]


def put_plane(elements, plane, bits, shift, seg):
    """Section 3.1: stores a raw plane in the elements, with its lowest bit at shift."""
    per_unit = 32 // (bits * seg.word_elements)  # lines
    turns = (bits * np.arange(per_unit, dtype=np.uint32))[:, None]
    units = plane.view("<u4").reshape(-1, 1, LANES)
    words = (units >> turns | units << (-turns & 31)).astype("<u4")  # (units, lines, lanes), bits in place
    if seg.elem_bytes == 8:
        words = words.astype("<u8") * ((1 << 32) + 1)  # bits are the same in both halves
    shown = words.reshape(-1).view(seg.dtype)[: len(elements)]
    if seg.transform != NONE:
        shown = rotate_right(shown, 8 * seg.elem_bytes - 1)
    put_values(elements, shown >> shift & ((1 << bits) - 1), shift)


def put_values(elements, values, shift):
    elements |= values.astype(elements.dtype) << shift


def rans_decode(states, words, n, word_elements, symbol_elements, frequencies, table_of):
    """Section 3.2 for many fields of n elements in lockstep: line g of field i has the table frequencies[table_of[i, g, 0, 0]],
    or symbol k of lane l in it the table frequencies[table_of[i, g, l, k]].

    A lane has word_elements elements in each line, and each of its symbols stands for symbol_elements of them.  Returns
    the symbols (fields, symbols of all lines, including those that do not exist), the final states (fields, 32), and for
    each field whether exactly all words were used.
    """
    entries = slot_entries(frequencies)
    first_slot = (table_of * FREQUENCY_SUM).astype(np.uint32)
    x = np.array(states, np.uint32)
    ends = np.cumsum([len(w) for w in words])
    next_word = (ends - [len(w) for w in words])[:, None]
    words = np.concatenate(words + [np.zeros(1, "<u2")]).astype(np.uint32)  # one for clipping

    line_count = table_of.shape[1]
    symbols = np.zeros((len(states), line_count, LANES, word_elements // symbol_elements), np.uint8)
    lanes = np.arange(LANES)
    for g in range(line_count):
        for k in range(symbols.shape[3]):
            active = word_elements * (LANES * g + lanes) + symbol_elements * k < n
            entry = entries[(x & FREQUENCY_SUM - 1) + first_slot[:, g, :, k % first_slot.shape[3]]]
            symbols[:, g, :, k] = entry & 0xFF
            x = np.where(active, (entry >> 8 & 0xFFF) * (x >> 12) + (entry >> 20), x)
            takes = active & (x < STATE_MIN)
            taken = np.cumsum(takes, axis=1)
            word = words.take(next_word + taken - 1, mode="clip")
            x = np.where(takes, x << 16 | word, x)
            next_word = next_word + taken[:, -1:]
    # A field may run into the words of the next one.  next_word shows this, because it never decreases.
    return symbols.reshape(len(states), -1), x, next_word[:, 0] == ends


def slot_entries(frequencies):
    """Returns for each slot of all tables, concatenated: the symbol s, F(s) << 8 and (slot - C(s)) << 20."""
    symbols = np.concatenate([np.repeat(np.arange(256, dtype=np.uint32), table) for table in frequencies])
    own = np.concatenate([np.repeat(table, table) for table in frequencies])
    rest = np.concatenate([np.arange(f, dtype=np.uint32) for table in frequencies for f in table])
    return symbols | own << 8 | rest << 20


def order(elements, seg):
    """Section 3.6: T."""
    if seg.difference == INTEGER:
        return elements
    sign = 1 << 8 * seg.elem_bytes - 1
    return np.where(elements & elements.dtype.type(sign), elements ^ elements.dtype.type(sign - 1), elements)


def undo_differences(residuals, base, seg):
    """Section 3.6: restores elements from their residuals, or from one residual of all, and those of the base."""
    e = np.asarray(residuals).astype(seg.dtype)
    d = np.where(e & e.dtype.type(1), ~(e >> e.dtype.type(1)), e >> e.dtype.type(1))
    return order(order(base, seg) + d, seg)


def contexts_of(base, seg):
    """Section 3.6: returns the contexts of the elements whose base has these."""
    bits = 8 * seg.elem_bytes
    t = order(base, seg)
    m = np.where(t >> t.dtype.type(bits - 1), ~t, t)
    key = m >> t.dtype.type(0 if bits == 8 else bits - 9)
    return (key[:, None] >= np.array(seg.thresholds, t.dtype)).sum(axis=1)


def undo_prediction(residuals, predictor):
    """Section 3.5: restores the tile u from its residuals (height, width)."""
    sums = {NONE: (), LEFT: (1,), UP: (0,), LEFT2: (1, 1)}
    for axis in sums[predictor]:
        residuals = np.cumsum(residuals, axis=axis, dtype=residuals.dtype)
    return residuals


def undo_transform(u, seg):
    """Section 3.4: restores the elements from u."""
    if seg.transform == FOLD:
        above = 0xFF >> seg.fields[0].width << seg.fields[0].width
        u = np.where(u & 1, u ^ above, u).astype(u.dtype)
    return u if seg.transform == NONE else rotate_right(u, 1)


def rotate_right(elements, bits):
    return elements >> bits | elements << (8 * elements.itemsize - bits)


def read_original(path):
    """Returns the bytes of a safetensors file, which may be packed."""
    with open(path, "rb") as file:
        data = file.read()
    return b"".join(segment.tobytes() for segment in Wcx(path).decode_all()) if data.startswith(MAGIC) else data


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__.splitlines()[0])
    path, out_path = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else os.devnull
    try:
        with open(out_path, "wb") as out:
            wcx = Wcx(path)
            for base in sys.argv[3:]:
                wcx.use_base(read_original(base))
            for data in wcx.decode_all():
                out.write(data)
    except (WcxError, OSError, MemoryError) as error:
        if len(sys.argv) > 2 and os.path.isfile(out_path):
            os.unlink(out_path)
        sys.exit(f"wcx_decode: {path}: {error}")
    print(f"{path}: {wcx.summary()}")


if __name__ == "__main__":
    main()
