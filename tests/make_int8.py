#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""make_int8.py OUT.safetensors [--mib N] [--seed S] [--only int8|bf16] - make a mixed checkpoint of about N MiB.

By default N is 8, and never less than about 5 come out.  The same N and seed give the same file.  It holds:

  gaussian_channel   I8, rows drawn from N(0, 0.02 w), one width w a row with ln w from N(0, 0.3); a scale a row
  gaussian_tensor    I8, the same weights' distribution; one scale for the tensor
  student_channel    I8, rows from Student's t with 5 degrees (heavy tails) times 0.02 w; a scale a row
  student_tensor     I8, the same distribution; one scale for the tensor
  (I8 is symmetric, the largest magnitude becomes 127; X_scale is F16, [rows, 1] or [1])
  BF16, F16, F32     matrices of N(0, 0.02), norms of N(1, 0.02)
  F8_E4M3            a matrix of N(0, 0.02) times a scale
  INT4               N(0, 2.5) rounded to -8..7, two a U8 or eight an I32
  I64 position ids, BOOL masks (lower triangle; random), an F64 and a C64 tensor of N(0, 1)
  a constant tensor, two tied pairs (equal bytes under two names), tensors without elements, 0-dimensional ones
  odd shapes: 4097 x 333, 131,073, 1 x 1 x 7

with __metadata__, the JSON shuffled, the data aligned for their types.  --only: nothing but matrices of up
to 4096 x 14336, I8 from N(0, 33.6), clipped at 127, or BF16 from N(0, 0.02), for benchmarks.
"""
import argparse
import multiprocessing
import zlib

import numpy as np

from quantize_int8 import channel_scales, quantize
from safetensors_io import build_header, lay_out, to_bf16

SIGMA = 0.02
ROW_SPREAD = 0.3
BENCH_ROWS, BENCH_COLS, BENCH_SIGMA = 4096, 14336, 33.6
BLOCK_ROWS = 256


def rows_of(rng, rows, cols, draw, spread=ROW_SPREAD):
    """F32 weights: draw's unit distribution times SIGMA times a width for each row."""
    widths = SIGMA * np.exp(spread * rng.standard_normal((rows, 1)))
    return draw(rng, (rows, cols)).astype(np.float32) * widths.astype(np.float32)


def gaussian(rng, shape):
    return rng.standard_normal(shape, dtype=np.float32)


def student(rng, shape):
    return rng.standard_t(5, shape)


def tensor_scale(weights):
    return channel_scales(weights.reshape(1, -1)).reshape(1)


def f8_e4m3(values):
    """The nearest code of F8_E4M3 for each value; magnitudes above 448 become 448."""
    codes = np.arange(127)
    exponent, mantissa = codes >> 3, codes & 7
    magnitudes = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0 ** (exponent - 10.0))
    nearest = np.searchsorted((magnitudes[1:] + magnitudes[:-1]) / 2, np.abs(values))
    return (nearest | (values < 0) << 7).astype(np.uint8)


def int4(rng, rows, cols):
    return np.clip(np.rint(2.5 * gaussian(rng, (rows, cols))), -8, 7).astype(np.int8).view(np.uint8) & 15


class Plan:
    """The tensors in the order of their data, each group of them with the function that makes its arrays."""

    def __init__(self, seed):
        self.seed = seed
        self.specs = []
        self.groups = []

    def add(self, name, dtype, shape, make, key=None):
        """One tensor: make(rng) returns or yields its arrays.  Tensors with the same key have the same random numbers."""
        self.add_group([(name, dtype, shape)], make, key)

    def add_group(self, specs, make, key=None):
        self.groups.append((len(self.specs), make, [self.seed, zlib.crc32((key or specs[0][0]).encode())]))
        self.specs += specs

    def add_int8(self, name, rows, cols, draw, per_channel, key=None):
        def make(rng):
            weights = rows_of(rng, rows, cols, draw)
            scale = channel_scales(weights) if per_channel else tensor_scale(weights)
            return scale, quantize(weights, scale)

        scale_shape = [rows, 1] if per_channel else [1]
        self.add_group([(name + "_scale", "F16", scale_shape), (name, "I8", [rows, cols])], make, key)

    def bytes(self):
        return lay_out(self.specs)[-1].end if self.specs else 0

    def write(self, path):
        tensors = lay_out(self.specs)
        shuffled = np.random.default_rng(self.seed).permutation(len(tensors))
        metadata = {"format": "pt", "made_by": "make_int8.py", "seed": str(self.seed)}
        header = build_header([tensors[i] for i in shuffled], metadata)
        with open(path, "wb") as out:
            out.write(header)
        jobs = [(path, len(header) + tensors[first].begin, number)
                for number, (first, _, _) in enumerate(self.groups)]
        Plan.written = self  # the functions that make arrays go to other processes by fork alone
        with multiprocessing.get_context("fork").Pool() as pool:
            pool.starmap(write_group, jobs, chunksize=1)


def write_group(path, offset, number):
    _, make, seed = Plan.written.groups[number]
    with open(path, "r+b") as out:
        out.seek(offset)
        for array in make(np.random.default_rng(seed)):
            out.write(np.ascontiguousarray(array))


def add_float(plan, name, dtype, shape, mean=0.0):
    def make(rng):
        values = np.float32(SIGMA) * gaussian(rng, shape) + np.float32(mean)
        yield to_bf16(values) if dtype == "BF16" else values.astype({"F16": "<f2", "F32": "<f4"}[dtype])

    plan.add(name, dtype, shape, make)


def add_layer(plan, prefix, width, rows):
    """A layer of about 5.5 * width * rows bytes."""
    plan.add_int8(prefix + "self_attn.q_proj.weight", rows, width, gaussian, True)
    plan.add_int8(prefix + "self_attn.o_proj.weight", rows, width, gaussian, False)
    plan.add_int8(prefix + "mlp.up_proj.weight", rows, width, student, True)
    plan.add_int8(prefix + "mlp.down_proj.weight", rows, width, student, False)
    add_float(plan, prefix + "mlp.gate.weight", "BF16", [rows // 4, width], 0.0)
    add_float(plan, prefix + "self_attn.rotary.weight", "F16", [rows // 4, width], 0.0)
    add_float(plan, prefix + "input_layernorm.weight", "BF16", [width], 1.0)


def add_layers(plan, bytes_left):
    width = 512 if bytes_left < 64 << 20 else 2048
    number = 0
    while bytes_left >= 5 * 4 * width:  # rows that a further layer can have are a multiple of 4: what follows stays aligned
        rows = min(width, bytes_left // (5 * width) // 4 * 4)
        before = plan.bytes()
        add_layer(plan, f"model.layers.{number}.", width, rows)
        bytes_left -= plan.bytes() - before
        number += 1


def add_floats_and_integers(plan):
    add_float(plan, "model.embed_tokens.weight", "BF16", [640, 384])
    add_float(plan, "vision.patch.weight", "F32", [96, 3, 14, 14])
    add_float(plan, "pooler.dense.weight", "F32", [256, 384])
    add_float(plan, "pooler.dense.bias", "F16", [384], 1.0)
    plan.add("model.position_ids", "I64", [1, 512], lambda rng: [np.arange(512, dtype="<i8")])
    plan.add("statistics.mean", "F64", [3, 41], lambda rng: [rng.standard_normal((3, 41))])
    plan.add("rotary.frequencies", "C64", [5, 17], lambda rng: [rng.standard_normal((5, 17, 2)).astype("<f4")])
    plan.add("model.norm.constant", "F32", [3072], lambda rng: [np.full(3072, 0.0625, "<f4")])
    plan.add("step", "I64", [], lambda rng: [np.array(123456789, "<i8")])
    plan.add("temperature", "F64", [], lambda rng: [np.array(0.7, "<f8")])
    plan.add("empty.weight", "F32", [0, 5], lambda rng: [])
    plan.add("empty.bias", "I8", [0], lambda rng: [])


def add_small_types(plan):
    plan.add("fp8.weight", "F8_E4M3", [512, 384], lambda rng: [f8_e4m3(SIGMA * 2000 * gaussian(rng, (512, 384)))])
    plan.add("int4.qweight", "I32", [64, 512], lambda rng: [pack_nibbles(int4(rng, 64 * 512, 8), "<u4")])
    plan.add("int4.packed", "U8", [256, 384], lambda rng: [pack_nibbles(int4(rng, 256 * 384, 2), "<u1")])
    plan.add("mask.causal", "BOOL", [256, 256], lambda rng: [np.tri(256, dtype=bool)])
    plan.add("mask.random", "BOOL", [100, 40], lambda rng: [rng.random((100, 40)) < 0.1])
    plan.add("constant.weight", "I8", [384, 384], lambda rng: [np.full((384, 384), 3, np.int8)])
    plan.add("empty.mask", "BOOL", [7, 0, 3], lambda rng: [])


def pack_nibbles(nibbles, dtype):
    """Each row of nibbles as one integer, the first one lowest."""
    shifts = 4 * np.arange(nibbles.shape[1], dtype=dtype)
    return np.bitwise_or.reduce(nibbles.astype(dtype) << shifts, axis=1)


def add_ties_and_odd_shapes(plan):
    """Ends the file: from here on the data of elements of one byte are at odd offsets."""
    for name in "encoder.shared.weight", "decoder.shared.weight":
        plan.add_int8(name, 256, 384, gaussian, True, key="shared.weight")
    plan.add_int8("odd.weight", 4097, 333, gaussian, True)
    for name in "lm_head.flat", "embed.flat":
        plan.add(name, "I8", [131073], lambda rng: [quantized_flat(rng, 131073)], key="flat")
    plan.add("odd.tiny", "I8", [1, 1, 7], lambda rng: [quantized_flat(rng, 7)])


def quantized_flat(rng, count):
    weights = rows_of(rng, 1, count, gaussian)
    return quantize(weights, tensor_scale(weights))


def plan_mixed(plan, target_bytes):
    tail = Plan(plan.seed)
    add_small_types(tail)
    add_ties_and_odd_shapes(tail)
    add_floats_and_integers(plan)
    add_layers(plan, target_bytes - plan.bytes() - tail.bytes())
    plan.groups += [(len(plan.specs) + first, make, seed) for first, make, seed in tail.groups]
    plan.specs += tail.specs


def plan_only(plan, dtype, target_bytes):
    blocks, elem_bytes = (int8_blocks, 1) if dtype == "I8" else (bf16_blocks, 2)
    rows_left = max(1, target_bytes // BENCH_COLS // elem_bytes)
    number = 0
    while rows_left:
        rows = min(BENCH_ROWS, rows_left)
        plan.add(f"model.layers.{number}.mlp.down_proj.weight", dtype, [rows, BENCH_COLS], blocks(rows))
        rows_left -= rows
        number += 1


def gaussian_blocks(rng, rows):
    for y in range(0, rows, BLOCK_ROWS):
        yield gaussian(rng, (min(BLOCK_ROWS, rows - y), BENCH_COLS))


def int8_blocks(rows):
    def make(rng):
        for block in gaussian_blocks(rng, rows):
            yield np.clip(np.rint(np.float32(BENCH_SIGMA) * block), -127, 127).astype(np.int8)

    return make


def bf16_blocks(rows):
    def make(rng):
        for block in gaussian_blocks(rng, rows):
            yield to_bf16(np.float32(SIGMA) * block)

    return make


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--mib", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=["int8", "bf16"])
    args = parser.parse_args()
    plan = Plan(args.seed)
    if args.only:
        plan_only(plan, {"int8": "I8", "bf16": "BF16"}[args.only], args.mib << 20)
    else:
        plan_mixed(plan, args.mib << 20)
    plan.write(args.out)


if __name__ == "__main__":
    main()
