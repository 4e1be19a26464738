#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ratio_chart.py FIGURES.json CHART.svg - draws bits per weight of every matrix from the output of ratio.py --json.

Each row of the chart is a file: bits per weight on the left, and their difference from the order-0 limit on the right.
Matrices are in natural order.  Needs matplotlib.
"""
import json
import math
import re
import sys

import matplotlib
import matplotlib.pyplot as plt

LIMIT = "order-0 limit"
REACH = 0.4  # half the length of a dash, in tensors
STYLES = {  # style of the points by codec (dashes, squares, dots); later ones are on top
    "zstd -19": dict(color="#d95f02", linewidth=2.4, solid_capstyle="projecting"),
    "wcx, reference": dict(color="#7570b3", linewidth=1.6, solid_capstyle="butt"),
    LIMIT: dict(color="black", linewidth=0.8, solid_capstyle="butt"),
    "wcx": dict(color="#1b9e77", linewidth=3, solid_capstyle="round"),
}
DIFFERENCES = [-10, -1, -0.5, 0, 0.5, 1, 10]  # percent; linear up to 1, logarithmic beyond
TITLES = {
    "i8pc": "INT8, a scale a row", "i8pt": "INT8, one scale", "f8": "F8_E4M3",
    "bf16": "BF16", "f16": "F16", "f32": "F32",
}

def is_matrix(tensor):
    """Whether the tensor has weights that are not all equal."""
    return len(tensor["shape"]) == 2 and min(tensor["shape"]) > 1 and tensor["bits"][LIMIT] > 0


def natural(tensor):
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", tensor["name"])]


def label(name):
    """Shortens a name: begins it at the layer number, and removes parts common to all names."""
    return re.sub(r"^\D*\.(?=\d)|^embeddings\.|\.weight$", "", name)


def plot(axis, values, codec):
    """Draws all dashes as one path: markers would double the size of the file."""
    style = STYLES[codec]
    reach = REACH if style["solid_capstyle"] == "butt" else 0.06
    x = [at for i in range(len(values)) for at in (i - reach, i + reach, math.nan)]
    axis.plot(x, [at for value in values for at in (value, value, math.nan)], label=codec, **style)


def draw(axes, tensors, codecs, title):
    left, right = axes
    for codec in codecs:
        plot(left, [tensor["bits"][codec] for tensor in tensors], codec)
        if codec != LIMIT:
            plot(right, [100 * (tensor["bits"][codec] / tensor["bits"][LIMIT] - 1) for tensor in tensors], codec)
    right.axhline(0, **STYLES[LIMIT])
    left.set_title(f"{title}: bits per weight", loc="left", fontsize=8)
    right.set_title("against the limit, %", loc="left", fontsize=8)
    right.set_yscale("symlog", linthresh=1)
    right.set_ylim(-100, 100)
    right.set_yticks(DIFFERENCES, [f"{percent:+g}" if percent else "0" for percent in DIFFERENCES])
    right.minorticks_off()
    for axis in axes:
        axis.grid(axis="y", linewidth=0.3)
        axis.tick_params(labelsize=7)
        axis.tick_params(axis="x", bottom=axis.get_subplotspec().is_last_row())
        axis.set_xticks(range(len(tensors)), [label(tensor["name"]) for tensor in tensors], rotation=90, fontsize=6)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.splitlines()[0])
    with open(sys.argv[1]) as file:
        models = json.load(file)
    # Text stays text, no point is simplified away, and equal figures give equal files.
    matplotlib.rcParams.update({"svg.fonttype": "none", "font.family": "DejaVu Sans", "path.simplify": False,
                                "svg.hashsalt": "wcx"})
    figure, rows = plt.subplots(len(models), 2, sharex="col", squeeze=False, layout="constrained",
                                figsize=(12, 1.6 * len(models) + 1.6))
    for axes, model in zip(rows, models):
        tensors = sorted(filter(is_matrix, model["tensors"]), key=natural)
        draw(axes, tensors, [c for c in STYLES if c in tensors[0]["bits"]], TITLES.get(model["name"], model["name"]))
    handles, labels = rows[0][0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside upper center", ncols=len(labels), fontsize=8, handlelength=1)
    figure.savefig(sys.argv[2], metadata={"Date": None})


if __name__ == "__main__":
    main()
