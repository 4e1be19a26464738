#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""model_forms.py MODEL.safetensors OUT_DIR - one F32 model in the six forms in which weights are commonly stored.

  f32.safetensors    as it is
  bf16.safetensors   every F32 tensor converted; f16.safetensors likewise
  i8pc.safetensors   matrices as symmetric INT8 with one F16 scale per output channel (row), everything else F16
  i8pt.safetensors   the same with one scale per tensor
  f8.safetensors     matrices as F8_E4M3 with one F32 scale per tensor, everything else F16

Needs numpy, ml_dtypes and safetensors.  A form that is there already is not made again.
"""
import pathlib
import sys

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file, save_file

INT8_MAX, E4M3_MAX = np.float32(127), np.float32(448)


def int8(name, weights, axis):
    largest = np.abs(weights).max(axis=axis, keepdims=True)
    scale = np.maximum(largest / INT8_MAX, np.float32(1e-12))
    quantised = np.clip(np.rint(weights / scale), -128, 127).astype(np.int8)
    return {name: quantised, name + "_scale": scale.astype(np.float16).reshape((-1, 1) if axis else 1)}


def fp8(name, weights):
    scale = np.abs(weights).max() / E4M3_MAX
    return {name: (weights / scale).astype(ml_dtypes.float8_e4m3fn), name + "_scale": np.array([scale], np.float32)}


def cast(dtype):
    return lambda name, weights: {name: weights.astype(dtype)}


# form: what becomes of matrices, and of all other floats
FORMS = {
    "f32": (cast(np.float32), cast(np.float32)),
    "bf16": (cast(ml_dtypes.bfloat16), cast(ml_dtypes.bfloat16)),
    "f16": (cast(np.float16), cast(np.float16)),
    "i8pc": (lambda name, w: int8(name, w, 1), cast(np.float16)),
    "i8pt": (lambda name, w: int8(name, w, None), cast(np.float16)),
    "f8": (fp8, cast(np.float16)),
}


def convert(tensors, matrix, other):
    converted = {}
    for name, weights in tensors.items():
        if weights.dtype != np.float32:
            converted[name] = weights
        else:
            converted.update((matrix if weights.ndim == 2 else other)(name, weights))
    return converted


def main():
    model, out_dir = sys.argv[1], pathlib.Path(sys.argv[2])
    missing = {form: how for form, how in FORMS.items() if not (out_dir / f"{form}.safetensors").exists()}
    tensors = load_file(model) if missing else {}
    out_dir.mkdir(parents=True, exist_ok=True)
    for form, (matrix, other) in missing.items():
        part = out_dir / f"{form}.part"
        save_file(convert(tensors, matrix, other), part, metadata={"format": "pt"})
        part.rename(out_dir / f"{form}.safetensors")


if __name__ == "__main__":
    main()
