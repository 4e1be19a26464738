#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""low_memory.py [options] - a model that is larger than the GPU memory that it may have: seconds a token, by way.

Makes a model with the shape of Llama-3.1-8B (BF16 weights from N(0, 0.02), a shard for four layers), with --form=int8 or
--form=int8-weights quantises it with wcx quantize (W8A8 or W8A16), packs it, and generates tokens with

  wcx, budget       wcx.stream with --budget (4 GiB)
  wcx, resident     wcx.stream, all packed bytes on the GPU
  plain             everything decoded in the GPU's memory
  accelerate, CPU   weights that do not fit in --budget offloaded to the host's memory
  accelerate, disk  the same, offloaded to files
  several           --several models, which share one scratch buffer and of which each keeps packed what fits in --budget, and
                    --several-resident models that are packed on the GPU as a whole; each token is that of another model

transformers 5.17 fails to offload models of compressed-tensors, so for accelerate INT8 models are first turned into floats on the
CPU.  The logits of the prompt must be the same bits in all ways.  Prints seconds a token (median, fastest, slowest) and
the peak of the GPU memory that the process and its libraries took beyond the bare CUDA context, as the driver tells.

Needs torch, transformers, accelerate, a GPU, and --work with room for twice the model; for INT8 compressed-tensors.
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
from concurrent.futures import ThreadPoolExecutor

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BUILD = os.environ.get("WCX_BUILD", os.path.join(ROOT, "build"))
os.environ.setdefault("WCX_LIBRARY", os.path.join(BUILD, "libwcx.so"))
sys.path.insert(0, os.path.join(ROOT, "tools", "python"))
import wcx  # noqa: E402

SIGMA = 0.02
PROMPT = 32


def write_shard(path, tensors):
    """Writes BF16 tensors; safetensors' own function holds the interpreter's lock, and shards are written side by side."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb", buffering=0) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            bytes_left = memoryview(tensor.view(torch.uint8).flatten().numpy())
            while bytes_left:
                bytes_left = bytes_left[file.write(bytes_left) :]


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
        groups.setdefault(int(part[2]) // 4 if part[1] == "layers" else (layers + 3) // 4, []).append(name)
    weight_map = {}
    with ThreadPoolExecutor(8) as pool:
        writing = []
        for number, names in sorted(groups.items()):
            shard = f"model-{number + 1:05}-of-{len(groups):05}.safetensors"
            tensors = {}
            for name in names:
                tensor = torch.empty(shapes[name], dtype=torch.bfloat16, device="cuda")
                tensor = tensor.fill_(1) if len(shapes[name]) == 1 else tensor.normal_(0, SIGMA, generator=generator)
                tensors[name] = tensor.cpu()
            writing.append(pool.submit(write_shard, os.path.join(directory, shard), tensors))
            weight_map.update(dict.fromkeys(names, shard))
        for job in writing:
            job.result()
    with open(os.path.join(directory, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": {}, "weight_map": weight_map}, file)


class Peak:
    """Watches how much GPU memory is taken, beyond what was before any tensor was made."""

    base = 0

    def __init__(self):
        gc.collect()
        torch._C._cuda_clearCublasWorkspaces()  # which would keep the segment of another model's tensors
        torch.cuda.empty_cache()
        self.most, self.on = 0, True
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

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.on = False
        self.thread.join()


def generate(model, ids, tokens):
    """Returns the prompt's logits and the seconds of each token, one forward each, with the cache of transformers."""
    seconds = []
    with torch.no_grad():
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
    memory = {0: args.budget, "cpu": options.pop("cpu")}
    if args.form == "bf16":
        return AutoModelForCausalLM.from_pretrained(
            original, dtype=torch.bfloat16, device_map="auto", max_memory=memory, **options
        ).eval(), None
    from accelerate import dispatch_model, infer_auto_device_map
    from compressed_tensors.compressors import decompress_module

    model = AutoModelForCausalLM.from_pretrained(original, dtype=torch.bfloat16).eval()
    model.ct_decompress_hook.remove()
    del model.ct_decompress_hook
    for module in model.modules():
        decompress_module(module)
    device_map = infer_auto_device_map(model, max_memory=memory, no_split_module_classes=model._no_split_modules)
    return dispatch_model(model, device_map, offload_dir=options.get("offload_folder")), None


def accelerate_cpu(*args):
    return accelerate(*args, cpu="300GiB")


def accelerate_disk(args, *rest):
    return accelerate(args, *rest, cpu="0GiB", offload_folder=os.path.join(args.work, "offload"))


def one_token(model, state):
    """Makes a token; state has the tokens' ids and the cache.  Returns the seconds."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.no_grad():
        out = model(state["ids"], past_key_values=state.get("cache"), use_cache=True)
    state["ids"], state["cache"] = out.logits[:, -1:].argmax(-1), out.past_key_values
    torch.cuda.synchronize()
    return time.perf_counter() - start


def several(count, budget, packed, config, ids):
    """Prints what several models take together, and seconds a token where each is another model's, and where it is the same's."""
    models = []
    with Peak() as peak:
        start = time.perf_counter()
        for _ in range(count):
            model, scratch = empty_model(config), models[0][1].scratch if models else None
            models.append((model, wcx.stream(model, packed, gpu_budget=budget, scratch=scratch), {"ids": ids}))
        loaded = time.perf_counter() - start
        for _ in range(2):  # the prompt, and a token
            for model, _, state in models:
                one_token(model, state)
        in_turn = sorted(one_token(model, state) for _ in range(2) for model, _, state in models)
        alone = sorted(one_token(models[-1][0], models[-1][2]) for _ in range(7))[1:]
    host = sum(handle.host_bytes for _, handle, _ in models)
    print(f"  {count} models, {budget or 'everything'} of each on the GPU: peak {peak.most / 2**30:.2f} GiB, "
          f"{host / 1e9:.1f} GB of the host, loaded in {loaded:.1f} s; in turn {statistics.median(in_turn):.4f} s a token "
          f"({in_turn[0]:.4f} to {in_turn[-1]:.4f}), one alone {statistics.median(alone):.4f} "
          f"({alone[0]:.4f} to {alone[-1]:.4f})", flush=True)
    for _, handle, _ in models:
        handle.close()


FORMS = {"int8": "int-quantized", "int8-weights": "pack-quantized"}
WAYS = {
    "wcx, budget": wcx_budget,
    "wcx, resident": wcx_resident,
    "plain": plain,
    "accelerate, CPU": accelerate_cpu,
    "accelerate, disk": accelerate_disk,
}


def measure(args, way, load, paths, ids, expected):
    """Prints a way's line.  Returns the logits with which others are compared."""
    with Peak() as peak:
        start = time.perf_counter()
        model, handle = load(args, *paths)
        loaded = time.perf_counter() - start
        logits, seconds = generate(model, ids, args.slow_tokens if way.startswith("accelerate") else args.tokens)
    same = "" if expected is None else ", same logits" if torch.equal(logits, expected) else ", OTHER LOGITS"
    seconds = sorted(seconds[1:])
    detail = (f", {handle.blocks_on_device} blocks on the GPU and {handle.blocks_on_host} on the host, "
              f"{handle.device_bytes / 2**30:.2f} GiB and {handle.host_bytes / 2**30:.2f}") if handle else ""
    print(f"  {way:18s} {statistics.median(seconds):7.4f} s a token ({seconds[0]:.4f} to {seconds[-1]:.4f}), peak "
          f"{peak.most / 2**30:.2f} GiB, loaded in {loaded:.1f} s{same}{detail}", flush=True)
    if handle:
        handle.close()
    return logits if expected is None else expected


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=15)
    parser.add_argument("--slow-tokens", type=int, default=4, help="for accelerate")
    parser.add_argument("--budget", default="4GiB")
    parser.add_argument("--form", default="bf16", choices=["bf16", *FORMS])
    parser.add_argument("--several", type=int, default=0, metavar="N")
    parser.add_argument("--several-resident", type=int, default=0, metavar="N")
    parser.add_argument("--ways", default=",".join(name.replace(", ", "_") for name in WAYS))
    parser.add_argument("--work", default=None)
    args = parser.parse_args()
    args.work = tempfile.mkdtemp(dir=args.work)
    original, packed = os.path.join(args.work, "original"), os.path.join(args.work, "packed")
    os.mkdir(original)
    os.mkdir(packed)
    torch.cuda.init()
    Peak.base = Peak.taken()
    try:
        start = time.perf_counter()
        make_model(original, args.layers)
        made = time.perf_counter()
        if args.form in FORMS:
            floats, original = original, os.path.join(args.work, args.form)
            subprocess.run([os.path.join(BUILD, "wcx"), "quantize", "-q", f"--format={FORMS[args.form]}", floats, original], check=True)
            shutil.rmtree(floats)
        quantised = time.perf_counter()
        config = AutoConfig.from_pretrained(original)
        sizes = [0, 0]
        for name in sorted(os.listdir(original)):
            source = os.path.join(original, name)
            if name.endswith(".safetensors"):
                target = os.path.join(packed, f"{name}.wcx")
                subprocess.run([os.path.join(BUILD, "wcx"), "pack", "-q", source, target], check=True)
                sizes = [sizes[0] + os.path.getsize(source), sizes[1] + os.path.getsize(target)]
            elif os.path.isfile(source):
                shutil.copy(source, packed)
        print(f"{torch.cuda.get_device_name()}, {len(os.sched_getaffinity(0))} cores: {sizes[0] / 1e9:.2f} GB, packed "
              f"{sizes[1] / 1e9:.2f} GB; made in {made - start:.0f} s, quantised in {quantised - made:.0f} s, packed in "
              f"{time.perf_counter() - quantised:.0f} s", flush=True)
        ids = torch.randint(1, 128000, (1, PROMPT), device="cuda", generator=torch.Generator("cuda").manual_seed(2))
        expected = None
        for way, load in WAYS.items():
            if way.replace(", ", "_") not in args.ways.split(","):
                continue
            try:
                expected = measure(args, way, load, (original, packed, config), ids, expected)
            except Exception as error:  # the other ways are still of interest
                print(f"  {way:18s} failed: {type(error).__name__}: {str(error)[:200]}", flush=True)
            gc.collect()
            torch.cuda.empty_cache()
        shutil.rmtree(original)  # for the memory, if --work is in it
        for count, budget in ((args.several, args.budget), (args.several_resident, None)):
            if count:
                several(count, budget, packed, config, ids)
    finally:
        shutil.rmtree(args.work)


if __name__ == "__main__":
    main()
