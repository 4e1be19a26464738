#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ideas.py [--markdown] FILE.safetensors... - estimates what each idea of the coding model saves on real weights.

Prints bits per weight over the matrices of each file, from statistics alone.  The estimates include 12-bit tables at their
written size and the choices of tables; they exclude tiles, states and index.  Compare an idea with the row that it builds
on.  `best of a tensor` takes the smallest result for each tensor, as the packer does.
"""
import argparse
import sys

import numpy as np

import setting

sys.path.insert(0, setting.FIXTURES)
from safetensors_io import ELEM_BYTES, read_header  # noqa: E402

PROB_BITS = 12
EXCEPTION_BITS = 30
ROUNDS = 5
MIN_COLS = 64  # narrower tensors do not count as matrices
EXPONENT_BITS = {"F16": 5, "BF16": 8, "F32": 8}
BYTE_DTYPES = ("I8", "F8_E4M3", "F8_E5M2")


def build_table(counts):
    """Returns 12-bit frequencies; symbols too rare for one get 0."""
    scale, total = 1 << PROB_BITS, counts.sum()
    kept = np.where(counts * EXCEPTION_BITS >= total * np.log2(1 + 1 / scale), counts, 0)
    freqs = np.maximum(np.rint(kept / kept.sum() * scale), kept > 0)
    while (excess := int(freqs.sum()) - scale) != 0:
        if excess > 0:
            loss = np.where(freqs > 1, kept * -np.log2(1 - 1 / np.maximum(freqs, 1.5)), np.inf)
            freqs[np.argmin(loss)] -= 1
        else:
            freqs[np.argmax(np.where(kept > 0, kept * np.log2(1 + 1 / np.maximum(freqs, 1)), -1))] += 1
    return freqs


def table_bits(counts):
    """Returns the bits of symbols with these counts, including their table."""
    if not counts.sum():
        return 0
    freqs = build_table(counts)
    coded = freqs > 0
    symbols = (counts[coded] * (PROB_BITS - np.log2(freqs[coded]))).sum()
    return symbols + counts[~coded].sum() * EXCEPTION_BITS + 8 * (2 + 1.1 * coded.sum())


def histograms(symbols, groups, group_count):
    """Counts each of 256 symbols in each group."""
    index = groups.astype(np.int64) * 256 + symbols
    return np.bincount(index.ravel(), minlength=group_count * 256).reshape(group_count, 256).astype(float)


def cluster(counts, clusters):
    """Lloyd's method, minimising bits instead of squares; returns the cluster of each row of counts."""
    whole = counts.sum(0) + 0.05
    width = -(counts * np.log2(whole / whole.sum())).sum(1) / np.maximum(counts.sum(1), 1)
    chosen = np.searchsorted(np.quantile(width, np.arange(1, clusters) / clusters), width)
    for _ in range(ROUNDS):
        sums = np.array([counts[chosen == k].sum(0) + 0.05 for k in range(clusters)])
        chosen = (counts @ -np.log2(sums / sums.sum(1, keepdims=True)).T).argmin(1)
    return chosen


def by_groups(symbols, groups, group_count, clusters):
    """Returns the bits if each group chooses a table, including the choices."""
    counts = histograms(symbols, groups, group_count)
    chosen = cluster(counts, clusters)
    return sum(table_bits(counts[chosen == k].sum(0)) for k in range(clusters)) + group_count * np.log2(clusters)


def rows_and_columns(symbols, clusters):
    """Returns the bits with one table for each pair of a row cluster and a column cluster."""
    rows, cols = symbols.shape
    row_of, col_of = np.arange(rows)[:, None], np.arange(cols)[None, :]
    row_cluster = cluster(histograms(symbols, np.broadcast_to(row_of, symbols.shape), rows), clusters)
    col_cluster = cluster(histograms(symbols, np.broadcast_to(col_of, symbols.shape), cols), clusters)
    counts = histograms(symbols, row_cluster[:, None] * clusters + col_cluster[None, :], clusters**2)
    return sum(table_bits(c) for c in counts) + rows * np.log2(clusters) + cols * np.log2(clusters)


def top_symbols(elements, bits, width):
    """Maps the highest `width` of `bits` bits to symbols 0 to 255; wide fields keep their highest values, and 0."""
    values = elements >> (bits - width)
    if width <= 8:
        return values
    base = max(int(values.max()) - 255, 0)
    return np.where(values > base, values - base, 0)


def one_table(symbols):
    return table_bits(np.bincount(symbols.ravel(), minlength=256).astype(float))


def measure_tensor(dtype, elements):
    """Returns the bits of a tensor by idea; elements is a matrix of unsigned integers."""
    bits = 8 * ELEM_BYTES[dtype]
    rows, cols = elements.shape
    row_of, col_of = (np.broadcast_to(i, elements.shape) for i in (np.arange(rows)[:, None], np.arange(cols)[None, :]))
    if dtype != "I8":
        elements = (elements << 1 | elements >> (bits - 1)) & ((1 << bits) - 1)
    ideas = {"byte by byte, one table each": sum(one_table(elements >> 8 * b & 255) for b in range(bits // 8))}
    widths = range(8, 3, -1) if dtype in BYTE_DTYPES else range(EXPONENT_BITS[dtype], EXPONENT_BITS[dtype] + 4)
    splits = {}
    for width in widths:
        splits[width] = one_table(top_symbols(elements, bits, width)) + (bits - width) * elements.size
        ideas[f"{width} high bits coded, {bits - width} raw"] = splits[width]
    best = min(splits, key=splits.get)
    ideas["best split of a tensor"] = splits[best]
    symbols, raw = top_symbols(elements, bits, best), (bits - best) * elements.size
    for clusters in (2, 4, 8, 16):
        ideas[f"best split, {clusters} tables by row"] = by_groups(symbols, row_of, rows, clusters) + raw
    ideas["best split, 4 tables by column"] = by_groups(symbols, col_of, cols, 4) + raw
    ideas["best split, 4 × 4 tables by row and column"] = rows_and_columns(symbols, 4) + raw
    for name, axis in (("LEFT", 1), ("UP", 0)):
        residuals = np.diff(elements, axis=axis, prepend=0) & ((1 << bits) - 1)
        ideas[f"best split, {name}"] = one_table(residuals >> (bits - min(best, 8))) + (bits - min(best, 8)) * elements.size
    if dtype in BYTE_DTYPES and cols % 2 == 0:
        pairs = (elements[:, ::2] >> 4) * 16 + (elements[:, 1::2] >> 4)
        ideas["pairs of 4 high bits in a symbol, 4 raw"] = one_table(pairs) + 4 * elements.size
    ideas["best of a tensor: split, 1 to 4 tables by row, predictor"] = min(
        ideas[i] for i in ideas if i.startswith("best split") and "column" not in i and "8 " not in i and "16 " not in i)
    return ideas


def measure_file(path):
    total, elements = {}, 0
    with open(path, "rb") as file:
        tensors, _, data_start = read_header(file)
        for tensor in tensors:
            if tensor.dtype not in (*BYTE_DTYPES, *EXPONENT_BITS) or len(tensor.shape) != 2 or tensor.shape[1] < MIN_COLS:
                continue
            file.seek(data_start + tensor.begin)
            matrix = np.frombuffer(file.read(tensor.end - tensor.begin), f"<u{ELEM_BYTES[tensor.dtype]}")
            for idea, bits in measure_tensor(tensor.dtype, matrix.astype(np.int64).reshape(tensor.shape)).items():
                total[idea] = total.get(idea, 0) + bits
            elements += matrix.size
    return {idea: bits / elements for idea, bits in total.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE.safetensors")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    args = parser.parse_args()
    table = setting.markdown_table if args.markdown else setting.text_table
    print(setting.origin())
    for path in args.files:
        print(f"\n{path}, bits per weight of its matrices:\n")
        print(table(["idea", "bits"], [[idea, f"{bits:.4f}"] for idea, bits in measure_file(path).items()]))


if __name__ == "__main__":
    main()
