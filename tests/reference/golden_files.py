#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""golden_files.py COMMAND ... - checks the golden files and adds new ones; golden/golden_files.md describes them.

  decode            decode each with wcx_decode.py, compare its SHA-256, and check that together they use the whole format
  originals OUT_DIR write the safetensors files from which golden/best_NAME.wcx, reference_NAME.wcx and speed_NAME.wcx were
                    packed as original_NAME, and those of tuned_NAME.wcx and paired_NAME.wcx, against best_NAME.wcx, as tuned_NAME
  same A.wcx B.wcx  check that two files are equal, except for Zstandard frames with equal contents
  add WCX           make the files listed here that are missing in golden/manifest, with the program WCX or wcx_encode.py

The bytes of an original depend only on this file: on integers from SplitMix64, and on conversions that IEEE 754 defines
exactly.
"""
import hashlib
import os
import subprocess
import sys
import tempfile
from collections import Counter

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "golden")
MANIFEST = os.path.join(GOLDEN, "manifest")
sys.path.insert(0, os.path.join(HERE, "..", "fixtures"))
import wcx_decode  # noqa: E402
import wcx_encode  # noqa: E402
from safetensors_io import ELEM_BYTES, Tensor, build_header, to_bf16  # noqa: E402

# Elements of a tensor, by their size in bytes: enough for coding to pay.
COUNTS = {1: 3072, 2: 2048, 4: 1536, 8: 1024}


class Random:
    """SplitMix64 (G. Steele and others, OOPSLA 2014)."""

    def __init__(self, seed):
        self.state = np.uint64(seed)

    def words(self, count):
        with np.errstate(over="ignore"):
            z = self.state + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            self.state = z[-1]
            z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        return z ^ z >> np.uint64(31)

    def bell(self, count):
        """Nearly normal integers: sums of eight bytes minus their mean; the standard deviation is 209."""
        return self.words(count).astype("<u8").view("u1").reshape(count, 8).sum(axis=1).astype(np.int64) - 1020


def scaled(bell, sigma):
    """Integers with this standard deviation (a number, or one per row); halves are rounded up."""
    return (2 * bell * sigma + 209) // 418


# ---- functions that draw a number of elements, as an array of the size of the dtype ----


def numbers(dtype, sigma, middle=0):
    """Nearly normal integers around a middle."""
    return lambda random, count: (scaled(random.bell(count), sigma) + middle).astype(dtype)


def int8_with_row_scales(random, count):
    """INT8 weights in 48 rows with standard deviations from 3 to 50."""
    sigmas = np.array([3, 7, 20, 50] * 12)[:, None]
    return np.clip(scaled(random.bell(count).reshape(48, -1), sigmas), -127, 127).astype("i1")


def flags(random, count):
    """Booleans, of which one in eight is true."""
    return (random.words(count) >> np.uint64(61) == 0).astype("u1")


def nibble_pairs(random, count):
    """Bytes of two INT4, each with a standard deviation of 2."""
    low, high = (np.clip(scaled(random.bell(count), 2), -8, 7) & 15 for _ in range(2))
    return (low | high << 4).astype("u1")


def int4_words(random, count):
    """Words of eight INT4."""
    return nibble_pairs(random, 4 * count).view("<i4")


def int4_words_with_zero_points(random, count):
    """The same in eight rows, of which four have values around -4, and four around 4."""
    zeros = np.array([-4, 4] * 4)[:, None]
    low, high = (np.clip(scaled(random.bell(4 * count).reshape(8, -1), 2) + zeros, -8, 7) & 15 for _ in range(2))
    return (low | high << 4).astype("u1").reshape(-1).view("<i4")


def int8_words(random, count):
    """Words of four INT8 plus 128, each with a standard deviation of 25."""
    return numbers("u1", 25, 128)(random, 4 * count).view("<i4")


def counting(dtype, step):
    """Ascending multiples of a step."""
    return lambda _random, count: (np.arange(count) * step + 1000).astype(dtype)


def floats(random, count):
    """Nearly normal floats with a standard deviation of 0.0255; multiples of 2^-40, which are exact in F64."""
    low = (random.words(count) >> np.uint64(37)).astype(np.float64)  # 27 bits
    return random.bell(count) * 2.0**-13 + low * 2.0**-40


def f8_e5m2(random, count):
    """The upper bytes of F16."""
    return (floats(random, count).astype("<f2").view("<u2") >> 8).astype("u1")


def f8_e4m3(random, count):
    """Values times 64, truncated to 3 mantissa bits and exponents from 2^-6 up; smaller values become 0."""
    bits = (floats(random, count) * 64).astype("<f4").view("<u4").astype(np.int64)
    exponents = np.clip((bits >> 23 & 0xFF) - 120, 0, 15)
    return np.where(exponents > 0, bits >> 31 << 7 | exponents << 3 | bits >> 20 & 7, 0).astype("u1")


def f32_that_holds_bf16(random, count):
    return to_bf16(floats(random, count)).astype("<u4") << 16


def f32_with_outliers(random, count):
    """One element in 64 has random bits, and one in 16 is 0."""
    values, chances = floats(random, count).astype("<f4").view("<u4"), random.words(count)
    values = np.where(chances % np.uint64(64) == 0, (chances >> np.uint64(32)).astype("<u4"), values)
    return np.where(chances % np.uint64(16) == 1, 0, values).astype("<u4")


# The originals: a seed, the dtype of all their tensors, and the tensors as (name, function that draws the elements).
ORIGINALS = {
    "bool": (1, "BOOL", [("flags", flags)]),
    "f4": (2, "F4", [("weight", nibble_pairs)]),
    "f6_e2m3": (3, "F6_E2M3", [("weight", numbers("u1", 40))]),
    "f6_e3m2": (4, "F6_E3M2", [("weight", numbers("u1", 9, 128))]),
    "u8": (5, "U8", [("weight", numbers("u1", 25, 128)), ("narrow", numbers("u1", 4, 100))]),
    "i8": (6, "I8", [("rows", int8_with_row_scales), ("weight", numbers("i1", 25)), ("int4", numbers("i1", 2))]),
    "f8_e5m2": (7, "F8_E5M2", [("weight", f8_e5m2)]),
    "f8_e4m3": (8, "F8_E4M3", [("weight", f8_e4m3)]),
    "f8_e8m0": (9, "F8_E8M0", [("scales", numbers("u1", 2, 118))]),
    "i16": (10, "I16", [("weight", numbers("<i2", 300))]),
    "u16": (11, "U16", [("counting", counting("<u2", 3))]),
    "f16": (12, "F16", [("weight", lambda random, count: floats(random, count).astype("<f2"))]),
    "bf16": (13, "BF16", [("weight", lambda random, count: to_bf16(floats(random, count)))]),
    "i32": (14, "I32", [("weight", numbers("<i4", 50000)), ("counting", counting("<i4", 257))]),
    "u32": (15, "U32", [("counting", counting("<u4", 70001))]),
    "f32": (16, "F32", [("weight", lambda random, count: floats(random, count).astype("<f4"))]),
    "f32_special": (17, "F32", [("bf16", f32_that_holds_bf16), ("outliers", f32_with_outliers)]),
    "c64": (18, "C64", [("weight", lambda random, count: floats(random, 2 * count).astype("<f4").view("<u8"))]),
    "f64": (19, "F64", [("weight", floats)]),
    "i64": (20, "I64", [("counting", counting("<i8", 1)), ("weight", numbers("<i8", 10**6))]),
    "u64": (21, "U64", [("weight", lambda random, count: random.words(count) >> np.uint64(20))]),
    "f8_e4m3fnuz": (22, "F8_E4M3FNUZ", [("weight", f8_e4m3)]),
    "f8_e5m2fnuz": (23, "F8_E5M2FNUZ", [("weight", f8_e5m2)]),
    "i32_packed": (24, "I32", [("int4", int4_words), ("rows", int4_words_with_zero_points), ("int8", int8_words)]),
}
BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}  # dtypes whose elements share bytes

# The reference mode depends on the size of elements, not on the dtype.
REFERENCE = ["bool", "i8", "bf16", "f32"]

# Those that are also packed for speed.
SPEED = ["bf16", "f16"]

# Fine-tunes of the originals: how the dtype's numbers are in order, and the standard deviation of their steps in that order.
TUNED = {
    "i8": (wcx_encode.INTEGER, 1), "f8_e4m3": (wcx_encode.FLOAT, 1), "bf16": (wcx_encode.FLOAT, 3),
    "f16": (wcx_encode.FLOAT, 12), "f32": (wcx_encode.FLOAT, 3000), "i64": (wcx_encode.INTEGER, 5),
}

# Those whose differences are coded in pairs since the format has these; tuned_NAME is from before.
PAIRED = ["i8"]

# The files of a family, and the bases, of wcx_encode.py.
FAMILY = ["base", "other_base", "every_element_size", "every_mode", "exceptions_and_carried_bytes",
          "sets_of_tables", "escapes", "pairs"]

# The smallest of wcx_encode.py's good files.
ENCODED = [
    "carried_bytes", "constant_fields", "constant_tiles", "exceptions_beside_planes", "extreme_tables", "header_alone",
    "header_in_coded_tiles", "lanes_without_symbols", "neighbours_in_one_segment", "same_content", "shared_tables",
    "start_states_of_any_size", "stored_only",
]


def original(name):
    """Returns a safetensors file: the listed tensors, a copy of the first, a constant, random bits and two small ones.

    A few bytes of another dtype precede each: wcx packs small neighbours of one dtype together, which it must do only with
    the two small ones.
    """
    seed, dtype, listed = ORIGINALS[name]
    random = Random(seed)
    count = COUNTS[ELEM_BYTES.get(dtype, 1)]
    drawn = [(tensor, draw(random, count).reshape(-1)) for tensor, draw in listed]
    first = drawn[0][1]
    unsigned = f"<u{first.itemsize}"
    drawn += [("copy", first), ("constant", np.full(1536 // first.itemsize, 0x3C, unsigned)),
              ("random", random.words(24).view(unsigned)), ("small.0", first[:96])]
    tensors, data = [], bytearray()

    def put(tensor, its_dtype, shape, elements):
        tensors.append(Tensor(tensor, its_dtype, shape, len(data), len(data) + elements.nbytes))
        data.extend(elements.tobytes())

    for tensor, elements in drawn:
        put(f"before.{tensor}", "I8" if dtype == "U8" else "U8", [8], random.words(1))
        put(tensor, dtype, shape_of(dtype, elements), elements)
    put("small.1", dtype, shape_of(dtype, first[96:192]), first[96:192])
    return build_header(tensors) + bytes(data)


def tuned(name):
    """Returns the original of that name after fine-tuning: the first three quarters of its elements have moved."""
    difference, sigma = TUNED[name]
    seed, dtype, _ = ORIGINALS[name]
    base = original(name)
    header_bytes = 8 + int.from_bytes(base[:8], "little")
    elements = np.frombuffer(base[header_bytes:], f"<u{ELEM_BYTES[dtype]}")
    steps = scaled(Random(seed + 1000).bell(elements.size), sigma).astype(elements.dtype)
    steps[3 * elements.size // 4 :] = 0
    moved = wcx_encode.in_order(wcx_encode.in_order(elements, difference) + steps, difference)
    return base[:header_bytes] + moved.astype(elements.dtype).tobytes()


def shape_of(dtype, elements):
    return [8, elements.nbytes // BITS.get(dtype, 8 * elements.dtype.itemsize)]


def every_element_size():
    """Like the file of this name in wcx_encode.py with fewer elements, and with carried exceptions."""
    w, rng = wcx_encode, np.random.default_rng(2026)
    cases = [(n, predictor, w.NONE) for n in w.DTYPES for predictor in w.PREDICTORS]
    cases += [(n, w.NONE, w.ROTATE) for n in w.DTYPES] + [(1, w.NONE, w.FOLD)]
    cols_of = {1: 60, 2: 40, 4: 24, 8: 16}
    file = w.start([(f"t{n}.{p}.{t}", w.DTYPES[n], [20, cols_of[n]]) for n, p, t in cases] + [("exceptions", "U32", [600])])
    for n, predictor, transform in cases:
        fields = w.fields_for(n)
        fixed = {2: 9} if n == 8 else {}
        recipe = [w.CONST if f in fixed else w.RANS if this.table_count else w.RAW for f, this in enumerate(fields)]
        data = w.draw(rng, 20 * cols_of[n], n, fields, transform, fixed=fixed)
        data = w.add_up(np.frombuffer(data, f"<u{n}").reshape(20, -1), predictor).tobytes()
        file.add_segment(data, elem_bytes=n, cols=cols_of[n], tile=(20, cols_of[n]), fields=fields,
                         transform=transform, predictor=predictor, recipe=recipe)
    fields = [w.Field(20), w.Field(12, 1, 1000)]
    at = w.spread_out(rng, 30, 600)
    data = w.draw(rng, 600, 4, fields, fixed={0: 5, 1: w.draw_exceptions(rng, 600, fields[1], at)})
    file.add_segment(data, elem_bytes=4, fields=fields, recipe=[w.CONST, w.RANS], listed=lambda i, values: at)
    return file


def read_manifest():
    """Returns the SHA-256 of each original, by the name of the file without .wcx."""
    with open(MANIFEST, encoding="ascii") as file:
        return {name: digest for digest, name in (line.split() for line in file)}


def add(program):
    have = read_manifest() if os.path.exists(MANIFEST) else {}
    for name in ORIGINALS:
        for mode in ["best", "reference"] if name in REFERENCE else ["best"]:
            if f"{mode}_{name}" not in have:
                with tempfile.NamedTemporaryFile() as source:
                    source.write(original(name))
                    source.flush()
                    packed = os.path.join(GOLDEN, f"{mode}_{name}.wcx")
                    subprocess.run([program, "pack", "-q", f"--mode={mode}", source.name, packed], check=True)
                append(f"{mode}_{name}", original(name))
    for name in SPEED:
        if f"speed_{name}" not in have:
            with tempfile.NamedTemporaryFile() as source:
                source.write(original(name))
                source.flush()
                packed = os.path.join(GOLDEN, f"speed_{name}.wcx")
                subprocess.run([program, "pack", "-q", "--for=speed", source.name, packed], check=True)
            append(f"speed_{name}", original(name))
    for result, name in [*(("tuned", name) for name in TUNED), *(("paired", name) for name in PAIRED)]:
        if f"{result}_{name}" not in have:
            with tempfile.NamedTemporaryFile() as source:
                source.write(tuned(name))
                source.flush()
                base, packed = (os.path.join(GOLDEN, f"{kind}_{name}.wcx") for kind in ("best", result))
                subprocess.run([program, "pack", "-q", f"--base={base}", source.name, packed], check=True)
            append(f"{result}_{name}", tuned(name))
    family = dict(wcx_encode.files_of("family_"))
    for name in FAMILY:
        if f"family_{name}" not in have:
            with open(os.path.join(GOLDEN, f"family_{name}.wcx"), "wb") as out:
                out.write(family[name].build())
            append(f"family_{name}", family[name].original)
    encoded = {name: lambda name=name: getattr(wcx_encode, f"good_{name}")(np.random.default_rng(2026)) for name in ENCODED}
    for name, make in {**encoded, "every_element_size": every_element_size}.items():
        if f"encoded_{name}" not in have:
            file = make()
            with open(os.path.join(GOLDEN, f"encoded_{name}.wcx"), "wb") as out:
                out.write(file.build())
            append(f"encoded_{name}", file.original)


def append(name, content):
    with open(MANIFEST, "a", encoding="ascii") as out:
        out.write(f"{hashlib.sha256(content).hexdigest()}  {name}\n")


def decode():
    seen = Counter()
    for name, digest in read_manifest().items():
        wcx = wcx_encode.open_with_bases(os.path.join(GOLDEN, f"{name}.wcx"), GOLDEN)
        if hashlib.sha256(b"".join(part.tobytes() for part in wcx.decode_all())).hexdigest() != digest:
            sys.exit(f"{name} decodes to something else")
        seen += wcx.seen
        for seg in wcx.segments:
            seen["element of", seg.elem_bytes, "predictor", seg.predictor] += 1
            seen["element of", seg.elem_bytes, "transform", seg.transform] += 1
    needed = [("mode", m) for m in wcx_decode.MODES] + [("coding", c) for c in range(3)]
    needed += [("table", n) for n in (1, 2, 4)] + ["pairs", "pairs of two bytes", "exceptions", "same_as"]
    needed += ["carrier of planes", "carrier of exceptions"]
    needed += [("difference", d) for d in wcx_decode.DIFFERENCES] + [("context", n) for n in (2, 3, 4, 8)]
    needed += [("set", n) for n in (1, 2, 4)] + ["escapes", "carrier of escapes", "pairs of differences"]
    for n in (1, 2, 4, 8):
        needed += [("element of", n, "predictor", p) for p in wcx_decode.PREDICTORS]
        needed += [("element of", n, "transform", t) for t in wcx_decode.TRANSFORMS if t != wcx_decode.FOLD or n == 1]
    lacking = [what for what in needed if not seen[what]]
    if lacking:
        sys.exit(f"no golden file has {lacking}")
    print(f"{len(read_manifest())} golden files decode to their originals")


def same(path_a, path_b):
    """Compares both indexes, tile by tile; values that depend on sizes and checksums of Zstandard frames may differ."""
    a, b = wcx_decode.Wcx(path_a), wcx_decode.Wcx(path_b)
    equal = a.segments == b.segments and np.array_equal(a.modes, b.modes) and np.array_equal(a.frequencies, b.frequencies)
    for tile in range(a.tile_count if equal else 0):
        if a.modes[tile] == wcx_decode.CONSTANT:
            equal &= a.checksums[tile] == b.checksums[tile]
        elif a.modes[tile] == wcx_decode.ZSTD:
            equal &= np.array_equal(a.decode_tile(tile), b.decode_tile(tile))
        else:
            equal &= np.array_equal(a.packed_tile(tile), b.packed_tile(tile))
    if not equal or a.sha256 != b.sha256:
        sys.exit(f"{path_a} and {path_b} differ")


def main():
    match sys.argv[1:]:
        case ["decode"]:
            decode()
        case ["originals", out_dir]:
            for kind, make, names in ("original", original, ORIGINALS), ("tuned", tuned, TUNED):
                for name in names:
                    with open(os.path.join(out_dir, f"{kind}_{name}"), "wb") as out:
                        out.write(make(name))
        case ["same", path_a, path_b]:
            same(path_a, path_b)
        case ["add", program]:
            add(program)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
