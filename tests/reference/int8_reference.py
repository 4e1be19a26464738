#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""int8_reference.py MODEL_DIR OUT_DIR [--strategy S] [--format F] [--scales DTYPE] [--torch] - checks what `wcx quantize` made.

Compares every tensor of OUT_DIR with what plain numpy code makes of MODEL_DIR, bit for bit; with --torch the package
compressed-tensors does that instead (exit code 77 without it).  Also checks the index, config.json and the copied files.
Prints how many tensors were quantised, and how many stayed.
"""
import argparse
import json
import pathlib
import sys

import numpy as np

from safetensors_io import from_bf16, read_header, to_bf16

EPSILON = {"F32": 2.0**-23, "F16": 2.0**-10, "BF16": 2.0**-7}
FLOATS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def round_to(dtype, values):
    """The nearest number of a dtype, as F32."""
    with np.errstate(over="ignore", under="ignore"):
        if dtype == "BF16":
            return from_bf16(to_bf16(values))
        return values.astype(np.float16).astype(np.float32) if dtype == "F16" else values


def widen(dtype, data):
    return from_bf16(data) if dtype == "BF16" else data.astype(np.float32)


def encode(dtype, values):
    return to_bf16(values) if dtype == "BF16" else values.astype(FLOATS[dtype])


def numpy_quantise(dtype, data, strategy, scales_dtype):
    """Returns scales in their dtype's bits, and I8 values."""
    computed = dtype if scales_dtype == dtype else "F32"
    weights = widen(dtype, data)
    amax = np.abs(weights).max(axis=1 if strategy == "channel" else None, keepdims=True)
    with np.errstate(all="ignore"):
        scales = round_to(computed, amax / np.float32(127.5))
        if scales_dtype == "F16":
            scales = np.minimum(scales, np.float32(65504))
        scales = round_to(scales_dtype, scales)
        scales[scales == 0] = EPSILON[scales_dtype]
        quotients = round_to(computed, weights / scales)
    values = np.rint(np.clip(quotients, -128, 127)).astype(np.int8)
    return encode(scales_dtype, scales.reshape((-1, 1) if strategy == "channel" else 1)), values


def torch_quantise(dtype, data, strategy, scales_dtype):
    """The same by compressed-tensors: of weights in F32 where the scales' dtype is another."""
    import torch
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import quantize
    from compressed_tensors.quantization.utils import calculate_qparams

    dtypes = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    bits = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.uint16}
    weights = torch.from_numpy(np.array(data)).view(dtypes[dtype])
    options = {}
    if scales_dtype != dtype:
        weights = weights.float()
        options = {"scale_dtype": dtypes[scales_dtype]}
    args = QuantizationArgs(num_bits=8, strategy=strategy, **options)
    if strategy == "channel":
        low, high = weights.amin(1, keepdim=True), weights.amax(1, keepdim=True)
    else:
        low, high = torch.aminmax(weights)
    scales, zeros = calculate_qparams(low, high, args)
    values = quantize(weights, scales, zeros, args, dtype=torch.int8)
    return scales.to(dtypes[scales_dtype]).view(bits[scales_dtype]).numpy(), values.numpy()


def torch_pack(values):
    import torch
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    return pack_to_int32(torch.from_numpy(values), 8).numpy()


def numpy_pack(values):
    unsigned = (values.astype(np.int16) + 128).astype(np.uint32)
    unsigned = np.pad(unsigned, [(0, 0), (0, -values.shape[1] % 4)])
    return sum(unsigned[:, i::4] << np.uint32(8 * i) for i in range(4)).astype("<u4").view("<i4")


def read_model(directory):
    """Returns name -> (dtype, shape, bytes, file) of a model."""
    tensors = {}
    index = directory / "model.safetensors.index.json"
    files = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else ["model.safetensors"]
    for path in (directory / name for name in sorted(files)):
        with open(path, "rb") as file:
            entries, metadata, offset = read_header(file)
            assert metadata and metadata["format"] == "pt", path
            data = np.fromfile(path, np.uint8, offset=offset)
        assert sum(t.end - t.begin for t in entries) == len(data), path
        for t in entries:
            assert t.name not in tensors, t.name
            tensors[t.name] = (t.dtype, t.shape, data[t.begin : t.end].tobytes(), path.name)
    return tensors


def expect(made, name, dtype, array):
    assert name in made, f"{name} is missing"
    found_dtype, shape, data, _ = made.pop(name)
    assert (found_dtype, shape) == (dtype, list(array.shape)), (name, found_dtype, shape, dtype, array.shape)
    assert data == np.ascontiguousarray(array).tobytes(), f"{name} differs"


def check_tensors(model, made, args):
    quantise, pack = (torch_quantise, torch_pack) if args.torch else (numpy_quantise, numpy_pack)
    quantised = 0
    for name, (dtype, shape, data, _) in model.items():
        if name in made and made[name][0] == dtype:
            assert made.pop(name)[1:3] == (shape, data), f"{name} differs"
            continue
        quantised += 1
        scales_dtype = args.scales or dtype
        scales, values = quantise(dtype, np.frombuffer(data, FLOATS[dtype]).reshape(shape), args.strategy, scales_dtype)
        expect(made, name + "_scale", scales_dtype, scales)
        if args.format == "int-quantized":
            expect(made, name, "I8", values)
        else:
            expect(made, name + "_packed", "I32", pack(values))
            expect(made, name + "_shape", "I64", np.array(shape, "<i8"))
    assert not made, f"more tensors than expected: {sorted(made)}"
    return quantised


def check_index(model_dir, out_dir, made):
    path = out_dir / "model.safetensors.index.json"
    if not (model_dir / path.name).exists():
        assert not path.exists()
        return
    index = json.loads(path.read_text())
    original = json.loads((model_dir / path.name).read_text())
    assert index["weight_map"] == {name: file for name, (_, _, _, file) in made.items()}
    assert index["metadata"] == original["metadata"] | {"total_size": sum(len(data) for _, _, data, _ in made.values())}


def check_config(model_dir, out_dir, args):
    config = json.loads((out_dir / "config.json").read_text())
    quantization = config.pop("quantization_config")
    assert config == json.loads((model_dir / "config.json").read_text())
    assert quantization["quant_method"] == "compressed-tensors" and quantization["quantization_status"] == "compressed"
    assert quantization["format"] == args.format
    group = quantization["config_groups"]["group_0"]
    assert group["targets"] == ["Linear"]
    assert (group["input_activations"] is None) == (args.format == "pack-quantized")
    assert group["weights"]["strategy"] == args.strategy
    return quantization["ignore"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--strategy", default="channel")
    parser.add_argument("--format", default="int-quantized")
    parser.add_argument("--scales")
    parser.add_argument("--torch", action="store_true")
    args = parser.parse_args()
    if args.torch:
        try:
            import compressed_tensors  # noqa: F401
            import torch  # noqa: F401
        except ImportError as error:
            print(f"skipped: {error}")
            sys.exit(77)
    model, made = read_model(args.model), read_model(args.out)
    check_index(args.model, args.out, dict(made))
    ignore = check_config(args.model, args.out, args)
    quantised = check_tensors(model, made, args)
    for name in ignore:
        assert f"{name}.weight_scale" not in made, name
    print(f"{quantised} quantised, {len(model) - quantised} the same")


if __name__ == "__main__":
    main()
