#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""gaussian_set.py OUTDIR [SEED] - five 2048 x 2048 INT8 tensors of stated distributions, a file each.

  gaussian_channel        N(0, 1), symmetric INT8 with a scale a row
  gaussian_tensor         N(0, 1), one scale
  gaussian_varied_tensor  N(0, w), one width w a row with ln w from N(0, 0.3), one scale
  student_channel         Student's t with 5 degrees, a scale a row
  student_tensor          Student's t with 5 degrees, one scale

Each file holds `weight` (I8) and `weight_scale` (F16).
"""
import os
import sys

from make_int8 import ROW_SPREAD, Plan, gaussian, rows_of, student, tensor_scale
from quantize_int8 import channel_scales, quantize

SIDE = 2048
SET = {
    "gaussian_channel": (gaussian, 0, True),
    "gaussian_tensor": (gaussian, 0, False),
    "gaussian_varied_tensor": (gaussian, ROW_SPREAD, False),
    "student_channel": (student, 0, True),
    "student_tensor": (student, 0, False),
}


def plan_one(name, seed):
    draw, spread, per_channel = SET[name]

    def make(rng):
        weights = rows_of(rng, SIDE, SIDE, draw, spread)
        scale = channel_scales(weights) if per_channel else tensor_scale(weights)
        return scale, quantize(weights, scale)

    plan = Plan(seed)
    specs = [("weight_scale", "F16", [SIDE, 1] if per_channel else [1]), ("weight", "I8", [SIDE, SIDE])]
    plan.add_group(specs, make, key=name)
    return plan


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__.splitlines()[0])
    seed = int(sys.argv[2]) if len(sys.argv) == 3 else 1
    os.makedirs(sys.argv[1], exist_ok=True)
    for name in SET:
        plan_one(name, seed).write(os.path.join(sys.argv[1], name + ".safetensors"))


if __name__ == "__main__":
    main()
