#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""difference_agree.py PROGRAM - decodes the tiles of differences that difference_tiles prints, with wcx_decode.py.

Exits with status 1 if one decodes to something else, or the tiles lack a feature; with 77 if a package is missing.
"""
import subprocess
import sys
from collections import Counter

try:
    import numpy as np

    from wcx_decode import CODED, CODING_NAMES, CONSTANT, Field, Segment, Wcx, pair_frequencies
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)


class OneTile(Wcx):
    """A file whose only tile that matters is the first of segment 0."""

    def __init__(self, line, seen):
        elem_bytes, difference, thresholds, run, fields, mode, constant, tables, base, packed, tile = line.split()
        thresholds, tables, base, self.packed, self.original = (
            bytes.fromhex(word.strip("-")) for word in (thresholds, tables, base, packed, tile))
        fields = [[int(number) for number in words.split(",")] for words in fields.rstrip(";").split(";")]
        elements = len(self.original) // int(elem_bytes)
        # The base's tile begins in the middle of the base, where it is not aligned.
        seg = Segment(**dict.fromkeys(Segment.__match_args__[: Segment.__match_args__.index("first_tile")], 0) | {
            "bytes": len(self.original), "cols": elements, "tile_rows": 1, "tile_cols": elements, "run": int(run),
            "elem_bytes": int(elem_bytes), "field_count": len(fields), "base": 1, "difference": int(difference), "base_offset": 3,
            "threshold_count": len(thresholds), "all_thresholds": thresholds.ljust(7, b"\0")})
        shift = first_table = 0
        for width, flags, symbol_base in fields:
            this = Field(width, flags, symbol_base, first_table, context_count=seg.context_count, shift=shift)
            seg.fields.append(this)
            shift += width
            first_table += this.table_count
        self.segments, self.first_tiles, self.seen = [seg], [0], seen
        self.modes, self.checksums = [int(mode)], [int(constant)]
        self.frequencies = np.frombuffer(tables, "<u2").reshape(-1, 256).astype(np.uint32)
        self.pair_frequencies = lambda table: pair_frequencies(self.frequencies[table])
        self.base_files = {1: b"\0\0\0" + base}

    def packed_tile(self, tile):
        return np.frombuffer(self.packed, np.uint8)


def main():
    seen = Counter()
    for line in subprocess.run([sys.argv[1]], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines():
        one = OneTile(line, seen)
        if one.decode_tile(0).tobytes() != one.original:
            sys.exit(f"difference_agree: decodes to something else: {line[:200]}")
    print(f"{sum(seen['mode', mode] for mode in range(4))} tiles: {dict(seen)}")
    wanted = [("mode", CODED), ("mode", CONSTANT), ("context", 2), ("context", 8), ("set", 2), ("set", 4), ("table", 1), ("difference", 1),
              ("difference", 2), *(("coding", coding) for coding in range(len(CODING_NAMES))), "exceptions", "escapes", "carrier of escapes", "pairs of differences",
              "carrier of planes", "carrier of exceptions"]
    missing = [feature for feature in wanted if not seen[feature]]
    if missing:
        sys.exit(f"difference_agree: no tile has {missing}")


if __name__ == "__main__":
    main()
