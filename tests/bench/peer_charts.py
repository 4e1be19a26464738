#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""peer_charts.py BENCHMARKS.md SIZES.svg SPEEDS.svg - draws the tables of docs/benchmarks.md that compare wcx with peers.

SIZES.svg has the size of the model's six forms in percent of the original, for each codec.  SPEEDS.svg has GB/s of decoded
bytes: on one core, with whiskers from the slowest to the fastest round, and within the memory of a GPU.  All axes begin at
zero.  Needs matplotlib.
"""
import re
import sys

import matplotlib
import matplotlib.pyplot as plt

OURS, PEER, OTHER = "#1b9e77", "#d95f02", "#7570b3"
SIZE_CODECS = ["wcx", "pcodec -12, tensors", "rANS 32x16, order 0, tensors", "ZipNN, tensors", "zstd -19"]
COLOURS = {"wcx": OURS, "avx2": OURS, "zstd -19": PEER}
SHADES = ["#7570b3", "#a6761d", "#e7298a", "#66a61e"]


def table(text, first_cells):
    """Returns the first table whose header begins with these cells: column names, and rows of cells."""
    lines = text.split("\n")
    for i, line in enumerate(lines):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and cells[: len(first_cells)] == first_cells:
            rows = []
            for row in lines[i + 2 :]:
                if not row.startswith("|"):
                    break
                rows.append([cell.strip().replace("*", "") for cell in row.strip().strip("|").split("|")])
            return cells, rows
    sys.exit(f"peer_charts.py: no table begins with {first_cells}")


def number(cell):
    return float(cell.split()[0].replace(",", ""))


def spread(cell):
    """Returns how far the slowest and the fastest round are from the median; 0 if the cell does not say."""
    found = re.search(r"\(([0-9.]+)[–-]([0-9.]+)\)", cell)
    median = number(cell)
    return (max(0, median - float(found[1])), max(0, float(found[2]) - median)) if found else (0, 0)


def colour(name, i):
    return COLOURS.get(name, SHADES[i % len(SHADES)])


def groups(axis, labels, series, spreads, title):
    """Draws bars in groups: series maps a name to a value for each label."""
    width = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        places = [at + (i - (len(series) - 1) / 2) * width for at in range(len(labels))]
        errors = list(zip(*spreads[name])) if spreads else None
        axis.bar(places, values, width * 0.92, label=name, color=colour(name, i), yerr=errors, error_kw={"linewidth": 0.8})
    axis.set_xticks(range(len(labels)), labels, fontsize=7)
    axis.set_title(title, loc="left", fontsize=8)
    axis.set_ylim(bottom=0)
    axis.grid(axis="y", linewidth=0.3)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7, frameon=False, ncols=2)


def draw_sizes(text, path):
    forms, rows = table(text, ["codec", "INT8, a scale a row"])
    sizes = {row[0]: [number(cell) for cell in row[1:]] for row in rows if "against" not in row[0]}
    originals = sizes["file as it is"]
    series = {codec: [100 * size / original for size, original in zip(sizes[codec], originals)] for codec in SIZE_CODECS}
    figure, axis = plt.subplots(figsize=(9, 3.4), layout="constrained")
    groups(axis, forms[1:], series, None, "size of the model, % of the original (less is better)")
    axis.set_ylim(0, 118)
    figure.savefig(path, metadata={"Date": None})


def draw_speeds(text, path):
    figure, (cpu, gpu) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained", width_ratios=[1.5, 1])
    names, rows = table(text, ["data", "portable", "avx2", "avx2-gather", "rANS 32x16"])
    columns = {name: names.index(name) for name in ("avx2", "rANS 32x16", "zstd -19")}
    series = {name: [number(row[at]) for row in rows] for name, at in columns.items()}
    spreads = {name: [spread(row[at]) for row in rows] for name, at in columns.items()}
    series["wcx (avx2)"], spreads["wcx (avx2)"] = series.pop("avx2"), spreads.pop("avx2")
    series = {"wcx (avx2)": series.pop("wcx (avx2)"), **series}
    COLOURS["wcx (avx2)"] = OURS
    labels = [row[0].replace(", ", ",\n", 1).replace("·e^(0.3 N) by row", ",\nby row") for row in rows]
    groups(cpu, labels, series, spreads, "decoding on one core, GB/s")
    names, rows = table(text, ["", "INT8, σ 33.6: GB/s"])
    labels = ["INT8, σ 33.6", "BF16, σ 0.02"]
    shown = [row for row in rows if row[0] == "wcx" or "128 KiB" in row[0] or "64 KiB" in row[0]]
    series = {row[0]: [number(row[1]), number(row[3])] for row in shown}
    spreads = {row[0]: [spread(row[1]), spread(row[3])] for row in shown}
    groups(gpu, labels, series, spreads, "decoding within the memory of an H100, GB/s")
    for axis in (cpu, gpu):
        axis.set_ylim(0, axis.get_ylim()[1] * 1.18)
    figure.savefig(path, metadata={"Date": None})


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__.splitlines()[0])
    with open(sys.argv[1], encoding="utf-8") as file:
        text = file.read()
    matplotlib.rcParams.update({"svg.fonttype": "none", "font.family": "DejaVu Sans", "svg.hashsalt": "wcx"})
    draw_sizes(text, sys.argv[2])
    draw_speeds(text, sys.argv[3])


if __name__ == "__main__":
    main()
