#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""wcx_decode.py FILE.wcx [OUT] - decode a .wcx file, independently of the C code.

Written from docs/format.md alone, in its order and with its names, to be read beside it.  Checks every rule of the
format, every tile's checksum and the SHA-256 of the whole, writes the safetensors file to OUT if one is given, and
prints one line that counts the modes, codings and predictors met.  Exit status 1, with a message, when FILE is damaged.

All the tiles of a window that have the same shape are decoded in lockstep: states are arrays of (tiles, 32 lanes).
"""
import bisect
import hashlib
import os
import struct
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
import xxhash

MAGIC = bytes.fromhex("89574358 0D0A1A0A")
SUPERBLOCK = struct.Struct("<8sIIQQQQQIIQQQ32sQ")
SEGMENT = struct.Struct("<QQIIIIBB6s")
TILE_ENTRY = np.dtype([("place", "<u8"), ("size_mode", "<u4"), ("checksum", "<u4")])

MODES = STORED, CODED, CONSTANT = range(3)
MODE_NAMES = "STORED", "CODED", "CONSTANT"
PLANE_STORED, PLANE_RANS, PLANE_CONSTANT = range(3)
CODING_NAMES = "STORED", "RANS", "CONSTANT"
NONE, LEFT, UP, AVG = range(4)
PREDICTOR_NAMES = "NONE", "LEFT", "UP", "AVG"

ORIGINAL_BYTES_MAX = 1 << 60
INDEX_BYTES_MAX = 1 << 28
TILE_ELEMENTS_MAX = 65536
FREQUENCY_SUM = 4096
LANES = 32
STATES_BYTES = 4 * LANES
FINAL_STATE = 1 << 16

WINDOW_BYTES = 64 << 20  # decoded bytes of the tiles that are decoded together: bounds the memory, not the result


class WcxError(Exception):
    """The file is not a .wcx file of this version, or it is damaged."""


def must(condition, message):
    if not condition:
        raise WcxError(message)


def xxh3(data):
    return xxhash.xxh3_64_intdigest(data)


def ceil_div(a, b):
    return -(-a // b)


@dataclass
class Segment:
    """Section 2.2, with what follows from it."""

    bytes: int
    cols: int
    tile_rows: int
    tile_cols: int
    first_table: int
    entropy: int
    elem_bytes: int
    table_mask: int
    first_tile: int

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
        return self.grid_rows * self.grid_cols

    def tile_place(self, tile):
        """Where a tile (numbered through the file) lies in the matrix: y, x, height, width."""
        grid_y, grid_x = divmod(tile - self.first_tile, self.grid_cols)
        y, x = grid_y * self.tile_rows, grid_x * self.tile_cols
        return y, x, min(self.tile_rows, self.rows - y), min(self.tile_cols, self.cols - x)

    def tile_elements(self):
        """The number of elements of each of the segment's tiles."""
        heights = np.full(self.grid_rows, min(self.tile_rows, self.rows), np.int64)
        heights[-1] = self.rows - (self.grid_rows - 1) * self.tile_rows
        widths = np.full(self.grid_cols, min(self.tile_cols, self.cols), np.int64)
        widths[-1] = self.cols - (self.grid_cols - 1) * self.tile_cols
        return np.outer(heights, widths).reshape(-1)

    def table(self, plane):
        """The number of the plane's frequency table, None when it has none."""
        if not self.table_mask >> plane & 1:
            return None
        return self.first_table + (self.table_mask & ((1 << plane) - 1)).bit_count()


@dataclass
class Plane:
    """The header and the payload of one byte plane of one coded tile (section 3)."""

    coding: int
    predictor: int
    payload: np.ndarray


def parse_segment(raw, number, first_tile, table_count):
    where = f"segment {number}: "
    *fields, reserved = SEGMENT.unpack(raw)
    seg = Segment(*fields, first_tile)
    must(seg.elem_bytes in (1, 2, 4, 8), f"{where}elem_bytes is {seg.elem_bytes}")
    must(seg.bytes >= 1 and seg.bytes % seg.elem_bytes == 0, f"{where}{seg.bytes} bytes in elements of {seg.elem_bytes}")
    must(seg.cols >= 1 and seg.bytes // seg.elem_bytes % seg.cols == 0, f"{where}{seg.cols} columns do not fit its elements")
    must(seg.tile_rows >= 1 and seg.tile_cols >= 1, f"{where}a tile side is 0")
    must(seg.tile_rows * seg.tile_cols <= TILE_ELEMENTS_MAX, f"{where}tiles of {seg.tile_rows} x {seg.tile_cols} elements")
    must(seg.tile_cols >= seg.cols or seg.tile_rows <= 256, f"{where}tiles of {seg.tile_rows} rows, narrower than the matrix")
    must(number or seg.bytes >= 8, "a header of less than 8 bytes")
    must(seg.table_mask >> seg.elem_bytes == 0, f"{where}a table for a byte plane that does not exist")
    if seg.table_mask:
        must(seg.first_table + seg.table_mask.bit_count() <= table_count, f"{where}its tables do not exist")
    must(not any(reserved), f"{where}reserved bytes are set")
    return seg


def parse_table(raw, at):
    """The 256 frequencies of the table at raw[at:], and where the next one starts (section 2.4)."""
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


class Wcx:
    """An opened .wcx file, its index checked in full."""

    def __init__(self, path):
        must(os.path.getsize(path) >= SUPERBLOCK.size, "shorter than a superblock")
        self.file = np.memmap(path, np.uint8, "r")
        self._parse_superblock(self.file[: SUPERBLOCK.size].tobytes())
        index = self.file[self.index_offset :].tobytes()
        must(xxh3(index) == self.index_checksum, "the checksum of the index differs")
        entries_at = SEGMENT.size * self.segment_count
        tables_at = entries_at + TILE_ENTRY.itemsize * self.tile_count
        self._parse_segments(index[:entries_at])
        self._parse_tile_entries(index[entries_at:tables_at])
        self._parse_tables(index[tables_at:])
        self.seen = Counter()

    def _parse_superblock(self, raw):
        (magic, version, reserved, features, packed_bytes, self.original_bytes, self.index_offset, index_bytes,
         self.segment_count, self.table_count, self.tile_count, self.table_bytes, self.index_checksum,
         self.sha256, checksum) = SUPERBLOCK.unpack(raw)
        must(magic == MAGIC, "not a .wcx file")
        must(version == 1, f"version {version} is unknown")
        must(checksum == xxh3(raw[:120]), "the checksum of the superblock differs")
        must(reserved == 0, "reserved bytes of the superblock are set")
        must(features == 0, f"unknown features {features:#x}")
        must(packed_bytes == len(self.file), f"{len(self.file)} bytes long, but written as {packed_bytes}")
        must(1 <= self.original_bytes <= ORIGINAL_BYTES_MAX, f"an original of {self.original_bytes} bytes")
        must(self.index_offset % 16 == 0 and self.index_offset >= SUPERBLOCK.size, f"index at offset {self.index_offset}")
        must(self.index_offset + index_bytes == packed_bytes, "the index does not end where the file ends")
        parts = SEGMENT.size * self.segment_count + TILE_ENTRY.itemsize * self.tile_count + self.table_bytes
        must(index_bytes == parts, f"an index of {index_bytes} bytes whose parts have {parts}")
        must(index_bytes <= INDEX_BYTES_MAX, f"an index of {index_bytes} bytes")
        must(self.segment_count >= 1 and self.tile_count >= 1, "no segment or no tile")

    def _parse_segments(self, raw):
        self.segments = []
        first_tile = 0
        for number, at in enumerate(range(0, len(raw), SEGMENT.size)):
            seg = parse_segment(raw[at : at + SEGMENT.size], number, first_tile, self.table_count)
            first_tile += seg.tile_count
            self.segments.append(seg)
        must(first_tile == self.tile_count, f"the segments have {first_tile} tiles, the superblock {self.tile_count}")
        total = sum(seg.bytes for seg in self.segments)
        must(total == self.original_bytes, f"segments of {total} bytes for an original of {self.original_bytes}")
        self.first_tiles = [seg.first_tile for seg in self.segments]

    def _parse_tile_entries(self, raw):
        entries = np.frombuffer(raw, TILE_ENTRY)
        self.places = entries["place"]
        self.sizes = entries["size_mode"] & np.uint32(0xFFFFFF)
        self.modes = entries["size_mode"] >> np.uint32(24)
        self.checksums = entries["checksum"]
        per_segment = [seg.tile_count for seg in self.segments]
        elem_bytes = np.repeat([seg.elem_bytes for seg in self.segments], per_segment)
        self.tile_bytes = np.concatenate([seg.tile_elements() for seg in self.segments]) * elem_bytes
        self._check_tile_entries(elem_bytes)

    def _check_tile_entries(self, elem_bytes):
        end = np.uint64(self.index_offset)
        constant = self.modes == CONSTANT
        packed = ~constant
        inside = (self.places <= end) & (self.sizes <= end - np.minimum(self.places, end))
        unused_bits = np.minimum(elem_bytes * 8, 63).astype(np.uint64)
        rules = [
            (np.isin(self.modes, MODES), "an unknown mode"),
            (constant | (self.places % np.uint64(16) == 0) & (self.places >= SUPERBLOCK.size), "a misplaced packed tile"),
            (constant | inside, "a packed tile that reaches into the index"),
            ((self.modes != STORED) | (self.sizes == self.tile_bytes), "a stored tile of a wrong size"),
            ((self.modes != CODED) | (self.sizes < self.tile_bytes), "a coded tile that saves nothing"),
            (packed | (elem_bytes == 8) | (self.places >> unused_bits == 0), "a constant that does not fit its element"),
            (packed | (self.sizes == 0) & (self.checksums == 0), "a constant tile with a size or a checksum"),
        ]
        for kept, message in rules:
            if not kept.all():
                raise WcxError(f"{self.describe_tile(int(np.argmin(kept)))}: {message}")

    def _parse_tables(self, raw):
        must(self.table_count <= len(raw), "more frequency tables than bytes for them")
        self.frequencies = []
        at = 0
        for _ in range(self.table_count):
            frequencies, at = parse_table(raw, at)
            self.frequencies.append(np.array(frequencies, np.uint32))
        must(at == len(raw), "bytes follow the last frequency table")

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
        """Decode any tiles; for each an array of bytes (height, width, elem_bytes)."""
        decoded = []
        jobs = defaultdict(list)  # by (height, width, predictor): planes to decode in lockstep
        for tile in tiles:
            seg = self.segment_of(tile)
            _, _, height, width = seg.tile_place(tile)
            elements = np.empty((height, width, seg.elem_bytes), np.uint8)
            decoded.append(elements)
            mode = int(self.modes[tile])
            self.seen["mode", mode] += 1
            if mode == CONSTANT:
                elements[:] = np.frombuffer(int(self.places[tile]).to_bytes(8, "little"), np.uint8)[: seg.elem_bytes]
            elif mode == STORED:
                elements[:] = self.packed_tile(tile).reshape(elements.shape)
            else:
                self._open_coded_tile(tile, elements, jobs)
        for (height, width, predictor), planes in jobs.items():
            self._decode_planes(height, width, predictor, planes)
        return decoded

    def _open_coded_tile(self, tile, elements, jobs):
        """Fill in the planes that need no decoding and note the others in jobs."""
        where = self.describe_tile(tile)
        height, width, elem_bytes = elements.shape
        for p, plane in enumerate(parse_coded_tile(self.packed_tile(tile), elem_bytes, where)):
            self.seen["coding", plane.coding] += 1
            if plane.coding == PLANE_STORED:
                must(len(plane.payload) == height * width, f"{where}: stored plane {p} of a wrong size")
                elements[:, :, p] = plane.payload.reshape(height, width)
            elif plane.coding == PLANE_CONSTANT:
                must(len(plane.payload) == 1, f"{where}: constant plane {p} of a wrong size")
                elements[:, :, p] = plane.payload[0]
            else:
                self.seen["predictor", plane.predictor] += 1
                table = self.segment_of(tile).table(p)
                must(table is not None, f"{where}: plane {p} has no frequency table")
                must(len(plane.payload) >= STATES_BYTES and len(plane.payload) % 2 == 0,
                     f"{where}: plane {p} has {len(plane.payload)} rANS bytes")
                jobs[height, width, plane.predictor].append((tile, table, plane.payload, elements[:, :, p]))

    def _decode_planes(self, height, width, predictor, planes):
        tiles, tables, payloads, targets = zip(*planes)
        used, table_of = np.unique(tables, return_inverse=True)
        symbols, good = rans_decode(payloads, height * width, [self.frequencies[table] for table in used], table_of)
        if not good.all():
            raise WcxError(f"{self.describe_tile(tiles[int(np.argmin(good))])}: rANS ends in a wrong state or place")
        values = undo_prediction(symbols.reshape(-1, height, width), predictor)
        for target, plane in zip(targets, values):
            target[:] = plane

    def windows(self):
        """Ranges of tiles, all in order, of about WINDOW_BYTES each."""
        ends = np.cumsum(self.tile_bytes)
        first = 0
        while first < self.tile_count:
            before = ends[first - 1] if first else 0
            last = max(first + 1, int(np.searchsorted(ends, before + WINDOW_BYTES)))
            yield range(first, last)
            first = last

    def decode_segments(self):
        """Yield the bytes of each segment in order; their concatenation is the safetensors file."""
        for window in self.windows():
            for tile, elements in zip(window, self.decode_tiles(window)):
                seg = self.segment_of(tile)
                if tile == seg.first_tile:
                    matrix = np.empty((seg.rows, seg.cols, seg.elem_bytes), np.uint8)
                y, x, height, width = seg.tile_place(tile)
                matrix[y : y + height, x : x + width] = elements
                if tile == seg.first_tile + seg.tile_count - 1:
                    yield matrix.reshape(-1)

    def decode_all(self):
        """Yield as decode_segments does; after the last segment, check the SHA-256."""
        digest = hashlib.sha256()
        for data in self.decode_segments():
            digest.update(data)
            yield data
        must(digest.digest() == self.sha256, "the SHA-256 of the decoded file differs")

    def summary(self):
        """One line: what has been decoded so far."""
        parts = []
        for kind, names in (("mode", MODE_NAMES), ("coding", CODING_NAMES), ("predictor", PREDICTOR_NAMES)):
            counts = [f"{name}={self.seen[kind, value]}" for value, name in enumerate(names) if self.seen[kind, value]]
            parts.append(f"{kind}s {' '.join(counts) or '-'}")
        return f"{self.original_bytes} bytes, {self.segment_count} segments, {self.tile_count} tiles; " + "; ".join(parts)


def parse_coded_tile(packed, elem_bytes, where):
    """The planes of a coded tile (section 3)."""
    at = 4 * elem_bytes
    must(len(packed) >= at, f"{where}: too short for its plane headers")
    planes = []
    for p, header in enumerate(packed[:at].tobytes()[i : i + 4] for i in range(0, at, 4)):
        header = int.from_bytes(header, "little")
        coding, predictor, reserved, payload_bytes = header & 3, header >> 2 & 3, header >> 4 & 15, header >> 8
        must(coding <= PLANE_CONSTANT, f"{where}: plane {p} has the unknown coding 3")
        must(predictor == NONE or coding == PLANE_RANS, f"{where}: plane {p} has a predictor without rANS")
        must(reserved == 0, f"{where}: plane {p} has reserved bits set")
        must(at + payload_bytes <= len(packed), f"{where}: plane {p} passes the end of the tile")
        planes.append(Plane(coding, predictor, packed[at : at + payload_bytes]))
        at += ceil_div(payload_bytes, 4) * 4
    must(at == len(packed), f"{where}: its planes end at {at}, the tile at {len(packed)}")
    return planes


def rans_decode(payloads, n, frequencies, table_of):
    """Section 3.1 for many planes of n symbols in lockstep; payloads[i] has the table frequencies[table_of[i]].

    Returns the symbols, (planes, n), and for each plane whether it ended as it must.
    """
    symbol_at, frequency_at, rest_at = slot_tables(frequencies)
    first_slot = (table_of.astype(np.uint32) * np.uint32(FREQUENCY_SUM))[:, None]
    x = np.stack([np.frombuffer(payload[:STATES_BYTES].tobytes(), "<u4") for payload in payloads]).astype(np.uint32)
    words = [np.frombuffer(payload[STATES_BYTES:].tobytes(), "<u2") for payload in payloads]
    ends = np.cumsum([len(w) for w in words])
    next_word = (ends - [len(w) for w in words])[:, None]
    words = np.concatenate(words + [np.zeros(1, "<u2")]).astype(np.uint32)  # one more, so that clipping finds one

    group_count = ceil_div(n, 4 * LANES)
    symbols = np.zeros((len(payloads), group_count, LANES, 4), np.uint8)
    lanes = np.arange(LANES)
    for g in range(group_count):
        for k in range(4):
            active = 4 * LANES * g + 4 * lanes + k < n
            slot = (x & np.uint32(FREQUENCY_SUM - 1)) + first_slot
            symbols[:, g, :, k] = symbol_at[slot]
            x = np.where(active, frequency_at[slot] * (x >> np.uint32(12)) + rest_at[slot], x)
            takes = active & (x < FINAL_STATE)
            taken = np.cumsum(takes, axis=1)
            word = words.take(next_word + taken - 1, mode="clip")
            x = np.where(takes, x << np.uint32(16) | word, x)
            next_word = next_word + taken[:, -1:]
    # A plane that takes words past its end reads its neighbour's; next_word tells, because it never goes back.
    good = (x == FINAL_STATE).all(axis=1) & (next_word[:, 0] == ends)
    return symbols.reshape(len(payloads), -1)[:, :n], good


def slot_tables(frequencies):
    """For each slot of each table, one table behind the other: the symbol s, F(s) and slot - C(s)."""
    symbol_at = np.concatenate([np.repeat(np.arange(256, dtype=np.uint8), table) for table in frequencies])
    frequency_at = np.concatenate([np.repeat(table, table) for table in frequencies])
    rest_at = np.concatenate([np.arange(f, dtype=np.uint32) for table in frequencies for f in table])
    return symbol_at, frequency_at, rest_at


def undo_prediction(symbols, predictor):
    """Section 3.2 for many planes of one shape: symbols (planes, height, width) become plane bytes."""
    if predictor == NONE:
        return symbols
    if predictor == LEFT:
        return np.cumsum(symbols, axis=2, dtype=np.uint8)
    if predictor == UP:
        return np.cumsum(symbols, axis=1, dtype=np.uint8)
    # AVG needs the bytes to the left and above, so the bytes of one anti-diagonal can be had at the same time.
    count, height, width = symbols.shape
    values = np.zeros((count, height + 1, width + 1), np.int8)  # a border of zeros above and to the left
    residuals = symbols.view(np.int8)
    for diagonal in range(height + width - 1):
        y = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        x = diagonal - y
        average = (values[:, y + 1, x].astype(np.int16) + values[:, y, x + 1]) >> 1
        values[:, y + 1, x + 1] = average.astype(np.int8) + residuals[:, y, x]
    return values[:, 1:, 1:].view(np.uint8)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__.splitlines()[0])
    path, out_path = sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else os.devnull
    try:
        with open(out_path, "wb") as out:
            wcx = Wcx(path)
            for data in wcx.decode_all():
                out.write(data)
    except (WcxError, OSError, MemoryError) as error:
        if len(sys.argv) == 3 and os.path.isfile(out_path):
            os.unlink(out_path)
        sys.exit(f"wcx_decode: {path}: {error}")
    print(f"{path}: {wcx.summary()}")


if __name__ == "__main__":
    main()
