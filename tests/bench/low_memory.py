#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""low_memory.py [options] - a model that is larger than the GPU memory that it may have: seconds a token, by way.

Makes a model with the shape of Llama-3.1-8B (BF16 weights from N(0, 0.02), four shards or so), packs it, and generates tokens
with

  plain             everything decoded in the GPU's memory: what all others are compared with
  wcx, budget       wcx.stream with --budget (4 GiB)
  wcx, resident     wcx.stream, all packed bytes on the GPU
  accelerate, CPU   dispatch_model, weights that do not fit in --budget offloaded to the host's memory
  accelerate, disk  the same, offloaded to files

The logits of the prompt must be those of the plain model, bit by bit.  Prints seconds a token (median, fastest, slowest) and
the peak of the GPU memory that the process and its libraries took beyond the bare CUDA context, as the driver tells.

Needs torch, transformers, accelerate, a GPU, and --work with room for twice the model.
"""
import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BUILD = os.environ.get("WCX_BUILD", os.path.join(ROOT, "build"))
os.environ.setdefault("WCX_LIBRARY", os.path.join(BUILD, "libwcx.so"))
sys.path.insert(0, os.path.join(ROOT, "tools", "python"))
import wcx  # noqa: E402

SIGMA = 0.02
PROMPT = 32


def make_model(directory, layers):
    """Writes config, shards and index; the weights are made on the GPU, a layer at a time."""
    config = LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=layers, num_attention_heads=32, num_key_value_heads=8,
        vocab_size=128256, rope_theta=500000.0, max_position_embeddings=131072, dtype=torch.bfloat16,
        tie_word_embeddings=False, architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(directory)
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in AutoModelForCausalLM.from_config(config).named_parameters()}
    generator = torch.Generator("cuda").manual_seed(8)
    groups = {}
    for name in shapes:
        part = name.split(".")
        groups.setdefault(int(part[2]) * 4 // layers if part[1] == "layers" else 4, []).append(name)
    weight_map = {}
    for number, names in sorted(groups.items()):
        shard = f"model-{number + 1:05}-of-{len(groups):05}.safetensors"
        tensors = {}
        for name in names:
            tensor = torch.empty(shapes[name], dtype=torch.bfloat16, device="cuda")
            tensors[name] = (tensor.fill_(1) if len(shapes[name]) == 1 else tensor.normal_(0, SIGMA, generator=generator)).cpu()
        save_file(tensors, os.path.join(directory, shard), metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(names, shard))
    with open(os.path.join(directory, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": {}, "weight_map": weight_map}, file)
    return config


class Peak:
    """Watches how much GPU memory is taken, beyond what was when it was made."""

    def __init__(self):
        gc.collect()
        torch.cuda.empty_cache()
        self.base, self.most, self.on = self.taken(), 0, True
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    @staticmethod
    def taken():
        free, total = torch.cuda.mem_get_info()
        return total - free

    def watch(self):
        while self.on:
            self.most = max(self.most, self.taken() - self.base)
            time.sleep(0.002)

    def stop(self):
        self.on = False
        self.thread.join()
        return self.most


def generate(model, ids, tokens):
    """Returns the prompt's logits and the seconds of each token, one forward each, with the cache of transformers."""
    seconds = []
    with torch.inference_mode():
        out = model(ids, use_cache=True)
        logits = out.logits.float().cpu()
        for _ in range(tokens):
            torch.cuda.synchronize()
            start = time.perf_counter()
            token = out.logits[:, -1:].argmax(-1)
            out = model(token.to(ids.device), past_key_values=out.past_key_values, use_cache=True)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return logits, seconds


def empty_model(config):
    with wcx.no_weights():
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def plain(args, original, packed, config):
    return AutoModelForCausalLM.from_pretrained(original, dtype=torch.bfloat16, device_map={"": 0}).eval(), None


def wcx_budget(args, original, packed, config):
    model = empty_model(config)
    return model, wcx.stream(model, packed, gpu_budget=args.budget)


def wcx_resident(args, original, packed, config):
    model = empty_model(config)
    return model, wcx.stream(model, packed)


def accelerate(args, original, packed, config, **options):
    model = AutoModelForCausalLM.from_pretrained(
        original, dtype=torch.bfloat16, device_map="auto", max_memory={0: args.budget, "cpu": options.pop("cpu")}, **options
    )
    return model.eval(), None


def accelerate_cpu(*args):
    return accelerate(*args, cpu="300GiB")


def accelerate_disk(args, *rest):
    return accelerate(args, *rest, cpu="0GiB", offload_folder=os.path.join(args.work, "offload"))


WAYS = {
    "plain": plain,
    "wcx, budget": wcx_budget,
    "wcx, resident": wcx_resident,
    "accelerate, CPU": accelerate_cpu,
    "accelerate, disk": accelerate_disk,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=15)
    parser.add_argument("--slow-tokens", type=int, default=4, help="for accelerate")
    parser.add_argument("--budget", default="4GiB")
    parser.add_argument("--ways", default=",".join(name.replace(", ", "_") for name in WAYS))
    parser.add_argument("--work", default=None)
    args = parser.parse_args()
    args.work = tempfile.mkdtemp(dir=args.work)
    original, packed = os.path.join(args.work, "original"), os.path.join(args.work, "packed")
    os.mkdir(original)
    os.mkdir(packed)
    try:
        start = time.perf_counter()
        config = make_model(original, args.layers)
        sizes = [0, 0]
        made = time.perf_counter()
        for name in sorted(os.listdir(original)):
            source = os.path.join(original, name)
            if name.endswith(".safetensors"):
                target = os.path.join(packed, f"{name}.wcx")
                subprocess.run([os.path.join(BUILD, "wcx"), "pack", "-q", source, target], check=True)
                sizes = [sizes[0] + os.path.getsize(source), sizes[1] + os.path.getsize(target)]
            else:
                shutil.copy(source, packed)
        print(f"{torch.cuda.get_device_name()}, {len(os.sched_getaffinity(0))} cores: {sizes[0] / 1e9:.2f} GB, packed "
              f"{sizes[1] / 1e9:.2f} GB; made in {made - start:.0f} s, packed in {time.perf_counter() - made:.0f} s", flush=True)
        ids = torch.randint(1, 128000, (1, PROMPT), device="cuda", generator=torch.Generator("cuda").manual_seed(2))
        expected = None
        for way, load in WAYS.items():
            if way.replace(", ", "_") not in args.ways.split(","):
                continue
            peak = Peak()
            start = time.perf_counter()
            model, handle = load(args, original, packed, config)
            loaded = time.perf_counter() - start
            slow = way.startswith("accelerate")
            logits, seconds = generate(model, ids, args.slow_tokens if slow else args.tokens)
            most = peak.stop()
            same = "" if expected is None else ", same logits" if torch.equal(logits, expected) else ", OTHER LOGITS"
            expected = logits if expected is None else expected
            seconds = sorted(seconds[1:])
            detail = f", {handle.blocks_on_device} blocks on the GPU and {handle.blocks_on_host} on the host" if handle else ""
            print(f"  {way:18s} {statistics.median(seconds):7.4f} s a token ({seconds[0]:.4f} to {seconds[-1]:.4f}), peak "
                  f"{most / 2**30:.2f} GiB, loaded in {loaded:.1f} s{same}{detail}", flush=True)
            if handle:
                handle.close()
            del model, handle
            gc.collect()
            torch.cuda.empty_cache()
    finally:
        shutil.rmtree(args.work)


if __name__ == "__main__":
    main()
