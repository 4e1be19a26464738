#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""family_chart.py FIGURES.json CHART.svg - draws the figures of family.py --json.

Left: bytes of a store that holds the base, and then one checkpoint of a run after the other.  Right: bytes of each fine-tune
in percent of its original.  All axes begin at zero.  Needs matplotlib.
"""
import json
import re
import sys

import matplotlib
import matplotlib.pyplot as plt

BASE = "base"
COLOURS = {"wcx": "#1b9e77", "BitX (zstd -19)": "#d95f02", "wcx alone": "#66a61e", "ZipNN": "#7570b3", "zstd -19": "#a6761d"}
SHADES = ["#e7298a", "#e6ab02", "#666666", "#1f78b4"]
ALONE = ["wcx alone", "ZipNN", "zstd -19"]  # packed without a base
HIDDEN = ["BitX (zstd -1)", "BitX (zstd -3)"]  # as BitX (zstd -19), a little larger


def number_of(label):
    return int(re.search(r"\d+$", label)[0])


def draw_store(axis, sizes, originals, labels):
    """A line for each program: the base, then the sum after each checkpoint."""
    at = range(len(labels) + 1)
    lines = {"originals": originals, **sizes}
    for i, (name, of) in enumerate(lines.items()):
        total, points = 0, []
        for label in [BASE, *labels]:
            total += of[label]
            points.append(total / 1e6)
        style = "--" if name in ALONE or name == "originals" else "-"
        colour = "black" if name == "originals" else COLOURS.get(name, SHADES[i % len(SHADES)])
        axis.plot(at, points, style, color=colour, marker="o", markersize=2.5, linewidth=2.2 if name == "wcx" else 1.2, label=name)
    axis.set_xticks(at, [BASE] + [f"{number_of(label)}" for label in labels])
    axis.set_title("a store with the base and the checkpoints of a run, MB", loc="left", fontsize=8)
    axis.set_xlabel("up to the checkpoint of this step", fontsize=7)


def draw_rates(axis, sizes, originals, labels):
    shown = [name for name in sizes if name != "ZipNN"]
    width = 0.84 / len(shown)
    for i, name in enumerate(shown):
        places = [at + (i - (len(shown) - 1) / 2) * width for at in range(len(labels))]
        colour = COLOURS.get(name, SHADES[(list(sizes).index(name) + 1) % len(SHADES)])
        axis.bar(places, [100 * sizes[name][label] / originals[label] for label in labels], width * 0.92, color=colour)
    axis.set_xticks(range(len(labels)), [label.removeprefix("lr-") for label in labels])
    axis.set_title("a fine-tune, % of its original", loc="left", fontsize=8)
    axis.set_xlabel("learning rate", fontsize=7)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.splitlines()[0])
    with open(sys.argv[1], encoding="utf-8") as file:
        known = json.load(file)
    originals = {label: size for label, (size, _) in known["files"].items()}
    results = {name: {label: result["bytes"] for label, result in of.items()}
               for name, of in known["results"].items() if name not in HIDDEN}
    for name, sizes in results.items():  # who needs a base keeps it as the same program, or ZipNN, packs it alone
        sizes.setdefault(BASE, results["wcx alone" if name == "wcx" else "ZipNN"][BASE])
    runs = sorted((label for label in originals if label.startswith("run")), key=number_of)
    rates = sorted((label for label in originals if label.startswith("lr-")), key=lambda label: float(label[3:]))
    matplotlib.rcParams.update({"svg.fonttype": "none", "font.family": "DejaVu Sans", "svg.hashsalt": "wcx"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained", width_ratios=[1.15, 1])
    draw_store(left, results, originals, runs)
    draw_rates(right, results, originals, rates)
    for axis in (left, right):
        axis.set_ylim(bottom=0)
        axis.grid(axis="y", linewidth=0.3)
        axis.set_axisbelow(True)
        axis.tick_params(labelsize=7)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=7, frameon=False)
    figure.savefig(sys.argv[2], metadata={"Date": None})


if __name__ == "__main__":
    main()
