#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""loaders.py [options] - compares how fast frameworks load a model from a mount, raw files and a server that does no work.

Makes a model with the structure of a Llama, BF16 weights from N(0, 0.02) in four shards, and loads it from

  raw files          in the page cache
  null server        a FUSE server that answers from memory; with "push", it also pushes the files into the page cache
  wcxfs              the .wcx files in the page cache, nothing decoded

with

  load_file          safetensors.torch.load_file, shard by shard
  from_pretrained    transformers' AutoModelForCausalLM, which loads shards and tensors with several threads

into the GPU, or into main memory without one.  Each load has a fresh mount.  Rounds measure all in turn, after the tensors
of each were compared with those of the raw files.  Prints medians in GB/s of weights with the slowest and the fastest, and
the largest resident memory of the servers.  Needs torch, safetensors and transformers, and permission to mount.
"""
import argparse
import concurrent.futures
import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from safetensors.torch import load_file

import mount
import setting

sys.path.insert(0, setting.FIXTURES)
from safetensors_io import build_header, lay_out, to_bf16  # noqa: E402

HIDDEN, INTERMEDIATE, HEADS, VOCABULARY = 2048, 8192, 16, 32000
SHARDS = 4
SIGMA = 0.02
PUSH_THREADS = 4
STEP_ROWS = 256


def layer_shapes(number):
    prefix = f"model.layers.{number}."
    shapes = {f"self_attn.{name}_proj": [HIDDEN, HIDDEN] for name in "qkvo"}
    shapes |= {"mlp.gate_proj": [INTERMEDIATE, HIDDEN], "mlp.up_proj": [INTERMEDIATE, HIDDEN],
               "mlp.down_proj": [HIDDEN, INTERMEDIATE], "input_layernorm": [HIDDEN], "post_attention_layernorm": [HIDDEN]}
    return {f"{prefix}{name}.weight": shape for name, shape in shapes.items()}


def model_shapes(layers):
    shapes = {"model.embed_tokens.weight": [VOCABULARY, HIDDEN]}
    for number in range(layers):
        shapes |= layer_shapes(number)
    return shapes | {"model.norm.weight": [HIDDEN], "lm_head.weight": [VOCABULARY, HIDDEN]}


def write_shard(path, specs, seed):
    rng = np.random.default_rng(seed)
    with open(path, "wb") as file:
        file.write(build_header(lay_out(specs), {"format": "pt"}))
        for _, _, shape in specs:
            rows = shape[0] if len(shape) > 1 else 1
            cols = shape[-1]
            for row in range(0, rows, STEP_ROWS):
                values = rng.standard_normal((min(STEP_ROWS, rows - row), cols), dtype=np.float32)
                file.write(to_bf16(SIGMA * values).tobytes())


def make_model(folder, mib):
    """Makes the files of a model of about this size; returns the paths of its shards."""
    layer_bytes = 2 * sum(int(np.prod(shape)) for shape in layer_shapes(0).values())
    layers = max(1, round(((mib << 20) - 4 * VOCABULARY * HIDDEN) / layer_bytes))
    shapes = model_shapes(layers)
    names = [f"model-{i + 1:05}-of-{SHARDS:05}.safetensors" for i in range(SHARDS)]
    total = 2 * sum(int(np.prod(shape)) for shape in shapes.values())
    specs, index, done = [[] for _ in names], {}, 0
    for name, shape in shapes.items():
        shard = min(SHARDS - 1, done * SHARDS // total)
        specs[shard].append((name, "BF16", shape))
        index[name] = names[shard]
        done += 2 * int(np.prod(shape))
    os.mkdir(folder)
    paths = [os.path.join(folder, name) for name in names]
    with concurrent.futures.ProcessPoolExecutor(SHARDS) as pool:
        list(pool.map(write_shard, paths, specs, range(SHARDS)))
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": {"total_size": total}, "weight_map": index}, file)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
              "intermediate_size": INTERMEDIATE, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
              "num_hidden_layers": layers, "vocab_size": VOCABULARY, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file)
    return names, total


def pack_model(wcx, folder, store, names):
    os.mkdir(store)
    for name in os.listdir(folder):
        path, packed = os.path.join(folder, name), os.path.join(store, name)
        if name in names:
            subprocess.run([wcx, "pack", "-q", path, packed + ".wcx"], check=True)
        else:
            with open(path, "rb") as source, open(packed, "wb") as copy:
                copy.write(source.read())


def load_shards(folder, names, device):
    tensors = {}
    for name in names:
        loaded = load_file(os.path.join(folder, name), device=device)
        # On the CPU the tensors are views of a mapping whose pages were not read yet.
        tensors |= loaded if device != "cpu" else {key: tensor.clone() for key, tensor in loaded.items()}
    return tensors


def load_pretrained(folder, names, device):
    from transformers import AutoModelForCausalLM

    del names
    tensors = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map=device).state_dict()
    return tensors if device != "cpu" else {key: tensor.clone() for key, tensor in tensors.items()}


LOADERS = {"load_file": load_shards, "from_pretrained": load_pretrained}


class Subject:
    """A folder to load from, and its server, if it has one."""

    def __init__(self, name, folder, command, log):
        self.name, self.folder, self.command, self.log = name, folder, command, log

    @contextlib.contextmanager
    def fresh(self, packed):
        mount.bring_in(packed)
        if not self.command:
            yield None
            return
        with mount.mounted(self.command, self.folder, self.log) as process:
            yield process


def load(subject, loader, names, device, packed):
    """Returns seconds, tensors and the peak memory of the server, from a fresh mount."""
    with subject.fresh(packed) as process:
        start = time.perf_counter()
        tensors = LOADERS[loader](subject.folder, names, device)
        if device != "cpu":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        peak = mount.peak_mib(process) if process else 0
        gc.collect()
    return seconds, tensors, peak


def compare(expected, tensors, what):
    if expected.keys() != tensors.keys():
        raise mount.Failed(f"{what}: other tensors")
    for name, tensor in expected.items():
        if not torch.equal(tensor.view(torch.int16), tensors[name].view(torch.int16)):
            raise mount.Failed(f"{what}: tensor {name} differs")


def measure(subjects, args, names, device, packed):
    expected = load_shards(subjects[0].folder, names, device)
    rates, peaks = {}, {subject.name: 0 for subject in subjects[1:]}
    for number in range(args.rounds + 1):
        for loader in LOADERS:
            for subject in subjects:
                seconds, tensors, peak = load(subject, loader, names, device, packed)
                if number == 0:  # which also warms up
                    compare(expected, tensors, f"{subject.name}, {loader}")
                else:
                    total = sum(tensor.nbytes for tensor in tensors.values())
                    rates.setdefault((loader, subject.name), []).append(total / seconds / 1e9)
                if subject.command:
                    peaks[subject.name] = max(peaks[subject.name], peak)
                del tensors
    return rates, peaks


def report(subjects, rates, peaks):
    rows = []
    for loader in LOADERS:
        values = [rates[loader, subject.name] for subject in subjects]
        ours = statistics.median(values[-1])
        rows.append([loader] + [mount.cell(v) for v in values] + [f"{ours / statistics.median(v):.2f}" for v in values[:-1]])
    rows.append(["resident MiB, at most", "–"] + [str(peak) for peak in peaks.values()] + ["–"] * 3)
    head = ["loader"] + [subject.name for subject in subjects]
    return setting.markdown_table(head + ["wcxfs : raw", "wcxfs : null", "wcxfs : push"], rows)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=2048, help="size of the model (default: 2048)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--options", default="", metavar="OPT,...", help="options for wcxfs -o")
    parser.add_argument("--build", default="build", help="build directory with the programs (default: build)")
    parser.add_argument("--workdir", help="directory for generated files (default: a temporary one)")
    return parser.parse_args()


def run(args, workdir):
    origin = setting.origin()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    programs = {name: setting.program(None, args.build, name) for name in ("wcx", "wcxfs", "tests/bench/null_server")}
    folder, store, mountpoint, log = (os.path.join(workdir, name) for name in ("model", "store", "mnt", "log"))
    os.mkdir(mountpoint)
    names, total = make_model(folder, args.mib)
    pack_model(programs["wcx"], folder, store, names)
    null = [programs["tests/bench/null_server"], mountpoint, folder]
    ours = [programs["wcxfs"], store, mountpoint, "-f"] + (["-o", args.options] if args.options else [])
    subjects = [Subject("raw files", folder, None, log), Subject("null server", mountpoint, null + ["0"], log),
                Subject("null server, push", mountpoint, null + [str(PUSH_THREADS)], log),
                Subject("wcxfs", mountpoint, ours, log)]
    files = [os.path.join(folder, name) for name in names] + [os.path.join(store, name + ".wcx") for name in names]
    rates, peaks = measure(subjects, args, names, device, files)
    where = torch.cuda.get_device_name() if device == "cuda" else "main memory"
    print(origin)
    print(f"{total / 2**20:.0f} MiB of BF16 in {SHARDS} shards, into {where}; GB/s, median of {args.rounds} rounds "
          "(slowest–fastest); all tensors equal those of the raw files.\n")
    print(report(subjects, rates, peaks))


def main():
    mount.run_in_directory(parse_arguments(), run)


if __name__ == "__main__":
    main()
