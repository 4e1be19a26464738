#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""quantize_int8.py MODEL.safetensors OUT.safetensors - quantise a trained model's matrices to INT8.

Every 2-D tensor NAME of F32, F16 or BF16 becomes NAME, symmetric I8 per output channel (row), and NAME_scale, F16
[rows, 1], as compressed-tensors has it: weight = NAME * NAME_scale.  Other floats become F16; integers, masks and
8-bit floats stay.  Wide elements come first in OUT, as safetensors itself orders them, so that all are aligned.
Works a block of rows at a time; needs numpy only.
"""
import sys

import numpy as np

from safetensors_io import ELEM_BYTES, build_header, from_bf16, lay_out, read_header

FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
BLOCK_ELEMENTS = 4 << 20
SCALE_MIN = 2.0**-24  # the smallest positive F16


def channel_scales(weights):
    """One F16 scale a row, with which the row's largest magnitude becomes 127."""
    largest = np.abs(weights).max(axis=1, keepdims=True, initial=0)
    return np.maximum(largest / np.float32(127), np.float32(SCALE_MIN)).astype("<f2")


def quantize(weights, scales):
    """The nearest I8 for each weight, with the scales as they are stored."""
    return np.clip(np.rint(weights / scales.astype(np.float32)), -127, 127).astype(np.int8)


class Model:
    """A safetensors file to read from."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.tensors, self.metadata, self.data_offset = read_header(file)
        self.data = np.memmap(path, np.uint8, "r")[self.data_offset :]

    def raw(self, tensor):
        return self.data[tensor.begin : tensor.end]

    def float_blocks(self, tensor):
        """The tensor's values as arrays of (some rows, columns); a tensor that is no matrix is one column."""
        shape = tensor.shape if len(tensor.shape) == 2 else [-1, 1]
        values = np.frombuffer(self.raw(tensor), FLOATS[tensor.dtype]).reshape(shape) if tensor.end > tensor.begin else None
        rows_a_block = max(1, BLOCK_ELEMENTS // max(1, shape[1]))
        for y in range(0, 0 if values is None else len(values), rows_a_block):
            block = values[y : y + rows_a_block]
            yield from_bf16(block) if tensor.dtype == "BF16" else block


def is_matrix(tensor):
    return len(tensor.shape) == 2 and tensor.dtype in ("F32", "F16", "BF16")


def plan_outputs(model):
    """(name, dtype, shape, source tensor, function that yields its data), wide elements first."""
    outputs = []
    for t in model.tensors:
        if is_matrix(t):
            outputs.append((t.name + "_scale", "F16", [t.shape[0], 1], t, scale_blocks))
            outputs.append((t.name, "I8", t.shape, t, int8_blocks))
        elif t.dtype in FLOATS:
            outputs.append((t.name, "F16", t.shape, t, half_blocks))
        else:
            outputs.append((t.name, t.dtype, t.shape, t, lambda model, tensor: [model.raw(tensor)]))
    names = [name for name, *_ in outputs]
    if len(set(names)) != len(names):
        sys.exit("quantize_int8: the model has a tensor with the name of a scale already")
    return sorted(outputs, key=lambda output: -ELEM_BYTES[output[1]])


def scale_blocks(model, tensor):
    return (channel_scales(block.astype(np.float32)) for block in model.float_blocks(tensor))


def int8_blocks(model, tensor):
    for block in model.float_blocks(tensor):
        weights = block.astype(np.float32)
        yield quantize(weights, channel_scales(weights))


def half_blocks(model, tensor):
    with np.errstate(over="ignore"):  # what F16 cannot hold becomes infinite, as in any conversion of a model
        yield from (block.astype("<f2") for block in model.float_blocks(tensor))


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.splitlines()[0])
    model = Model(sys.argv[1])
    outputs = plan_outputs(model)
    with open(sys.argv[2], "wb") as out:
        out.write(build_header(lay_out(output[:3] for output in outputs), model.metadata))
        for _, _, _, tensor, blocks in outputs:
            for block in blocks(model, tensor):
                out.write(np.ascontiguousarray(block))


if __name__ == "__main__":
    main()
