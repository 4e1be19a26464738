#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""train_family.py MODEL_DIR OUT_DIR - fine-tunes a real model, for family.py: a base, four fine-tunes, eight checkpoints.

MODEL_DIR is a BERT-like sentence encoder as transformers loads it.  Writes OUT_DIR/base/model.safetensors (the weights as
BF16), OUT_DIR/lr-1e-5/model.safetensors and so on, one fine-tune for each learning rate, and
OUT_DIR/run/checkpoint-N/model.safetensors, eight checkpoints of one more run.  Runs that are complete are not made again.

Training: weights in BF16, their masters in FP32, AdamW (weight decay 0.01), gradients clipped to 1, linear warm-up and linear
decay; contrastive loss with dropout (temperature 0.05): of all second halves of the batch's texts, find the one that belongs
to a first half.  On a GPU the arithmetic is BF16 too; on a CPU it is FP32, which is faster there, between weights that are BF16.
The same program, texts and kind of device make the same files again.

Texts, one line each, are whatever a Debian machine with Python holds: the one-line descriptions of all packages known to APT,
the first lines of docstrings in Python's library and installed packages, and lines of manual pages.  --write-texts keeps them
in a file, from which --texts-from trains on another machine.

Needs torch and transformers.
"""
import argparse
import glob
import gzip
import lzma
import os
import random
import re
import subprocess
import sysconfig
import time

import torch
import transformers
from safetensors.torch import load_file, save_file

RATES = ["1e-5", "2e-5", "5e-5", "1e-4"]
CHECKPOINTS = 8
RUNS = [*(f"lr-{rate}" for rate in RATES), "run"]
WEIGHT_DECAY, CLIP, TEMPERATURE = 0.01, 1.0, 0.05
MIN_WORDS, MAX_WORDS = 6, 30


def package_lines():
    listing = subprocess.run(["apt-cache", "dumpavail"], stdout=subprocess.PIPE, text=True, check=False).stdout
    return re.findall(r"^Description: (.*)", listing, re.M)


def docstring_lines():
    lines = []
    for kind in ("stdlib", "purelib"):
        for path in glob.glob(os.path.join(sysconfig.get_path(kind), "**", "*.py"), recursive=True):
            with open(path, errors="ignore") as file:
                lines += re.findall(r'^\s+r?"""([A-Z][^"\n]*)', file.read(), re.M)
    return lines


def manual_lines():
    lines = []
    for path in glob.glob("/usr/share/man/man[1-8]/*.gz"):
        try:
            with gzip.open(path, "rt", errors="ignore") as file:
                lines += [line for line in file if line[0].isalpha() and "\\" not in line]
        except OSError:  # a dangling link
            pass
    return lines


def find_texts(limit):
    """Returns the texts of this machine in an order that depends only on them, and how many came from where."""
    sources = {"package descriptions": package_lines, "docstrings": docstring_lines, "manual pages": manual_lines}
    texts, counts = {}, {}
    for name, find in sources.items():
        found = sorted({text.strip() for text in find() if MIN_WORDS <= len(text.split()) <= MAX_WORDS})
        random.Random(1).shuffle(found)
        counts[name] = len(found[:limit])
        texts.update(dict.fromkeys(found[:limit]))
    texts = list(texts)
    random.Random(2).shuffle(texts)
    return texts, counts


def get_texts(args):
    if args.texts_from:
        with lzma.open(args.texts_from, "rt", encoding="utf-8", newline="\n") as file:
            texts = file.read().splitlines()
        print(f"{len(texts)} texts", flush=True)
        return texts
    texts, counts = find_texts(args.texts)
    print(f"{len(texts)} texts:", ", ".join(f"{count} {name}" for name, count in counts.items()), flush=True)
    return texts


def write_texts(path, texts):
    with lzma.open(path, "wt", preset=9, encoding="utf-8", newline="\n") as file:
        file.writelines(f"{text}\n" for text in texts)


class Trainer:
    """One run: the model's parameters hold BF16 values, the optimizer's hold FP32 masters."""

    def __init__(self, args, base, texts, rate, steps, seed):
        self.args, self.texts, self.base, self.rate, self.steps = args, texts, base, rate, steps
        torch.manual_seed(seed)
        self.random = random.Random(seed)
        self.device = torch.device(args.device)
        self.dtype = torch.float32 if self.device.type == "cpu" else torch.bfloat16
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
        self.model = transformers.AutoModel.from_pretrained(args.model, dtype=self.dtype, attn_implementation="eager")
        self.model = self.model.to(self.device).train()
        self.parameters = dict(self.model.named_parameters())
        self.masters = {name: base[name].to(self.device, torch.float32) for name in self.parameters}
        self.copy_masters()
        self.optimizer = torch.optim.AdamW(self.masters.values(), lr=rate, weight_decay=WEIGHT_DECAY, fused=True)

    @torch.no_grad()
    def copy_masters(self):
        for name, parameter in self.parameters.items():
            parameter.copy_(self.masters[name].to(torch.bfloat16))

    def loss(self):
        texts = [text.split() for text in self.random.sample(self.texts, self.args.batch)]
        halves = [" ".join(words[: len(words) // 2]) for words in texts] + [" ".join(words[len(words) // 2 :]) for words in texts]
        tokens = self.tokenizer(halves, padding=True, truncation=True, max_length=self.args.tokens, return_tensors="pt")
        tokens = tokens.to(self.device)
        mask = tokens["attention_mask"].unsqueeze(-1)
        hidden = self.model(**tokens).last_hidden_state.float()
        means = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
        scores = means[: len(texts)] @ means[len(texts) :].T / TEMPERATURE
        return torch.nn.functional.cross_entropy(scores, torch.arange(len(texts), device=self.device))

    def step(self, number):
        warm_up = min(self.args.warm_up, self.steps // 2)
        share = min((number + 1) / (warm_up + 1), (self.steps - number) / (self.steps - warm_up))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * share
        loss = self.loss()
        self.model.zero_grad()
        loss.backward()
        for name, parameter in self.parameters.items():  # those without a gradient, such as an unused pooler, stay as they are
            self.masters[name].grad = None if parameter.grad is None else parameter.grad.float()
        torch.nn.utils.clip_grad_norm_(self.masters.values(), CLIP)
        self.optimizer.step()
        self.copy_masters()
        return loss.detach()

    def save(self, directory):
        weights = {name: self.masters[name].to("cpu", torch.bfloat16) if name in self.masters else tensor
                   for name, tensor in self.base.items()}
        write(weights, directory)


def write(tensors, directory):
    """Writes under another name first: a file that is there is complete."""
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, "model.safetensors")
    save_file(tensors, path + ".part", metadata={"format": "pt"})
    os.rename(path + ".part", path)


def is_there(directory):
    return os.path.exists(os.path.join(directory, "model.safetensors"))


def train(trainer, name, save_at):
    """Saves at these steps; save_at maps a number of steps to a directory."""
    start, losses = time.monotonic(), []
    for number in range(trainer.steps):
        losses.append(trainer.step(number))
        if number + 1 in save_at:
            trainer.save(save_at[number + 1])
            last, first = (torch.stack(some).mean().item() for some in (losses[-50:], losses[:50]))
            print(f"{name}: {number + 1} steps, {time.monotonic() - start:.0f} s, loss {last:.4f} (first 50 steps {first:.4f})",
                  flush=True)


def plan(args, name):
    """Returns the learning rate of a run, its steps, and at how many steps it saves to which directory."""
    if name != "run":
        return float(name.removeprefix("lr-")), args.steps, {args.steps: os.path.join(args.out, name)}
    save_at = [args.run_steps * (i + 1) // CHECKPOINTS for i in range(CHECKPOINTS)]
    return float(args.run_rate), args.run_steps, {n: os.path.join(args.out, name, f"checkpoint-{n}") for n in save_at}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL_DIR")
    parser.add_argument("out", metavar="OUT_DIR")
    parser.add_argument("--steps", type=int, default=600, help="steps of each fine-tune (default: 600)")
    parser.add_argument("--run-steps", type=int, default=1200, help="steps of the run with checkpoints (default: 1200)")
    parser.add_argument("--warm-up", type=int, default=50, help="steps of warm-up (default: 50)")
    parser.add_argument("--batch", type=int, default=64, help="texts of a step (default: 64)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of half a text at most (default: 64)")
    parser.add_argument("--texts", type=int, default=50000, help="texts of each source at most (default: 50000)")
    parser.add_argument("--texts-from", metavar="FILE.xz", help="train on the lines of this file")
    parser.add_argument("--write-texts", metavar="FILE.xz", help="only write the texts to this file")
    parser.add_argument("--run-rate", default="2e-5", help="the learning rate of the run with checkpoints (default: 2e-5)")
    parser.add_argument("--only", metavar="NAME,...", type=lambda text: text.split(","), default=[*RUNS],
                        help=f"make only these runs (default: {','.join(RUNS)})")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: cuda if it is there")
    parser.add_argument("--threads", type=int, help="threads of torch on a CPU (default: torch's choice)")
    return parser.parse_args()


def main():
    args = parse_arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats its results only so
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    texts = get_texts(args)
    if args.write_texts:
        write_texts(args.write_texts, texts)
        return
    base = {name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
            for name, tensor in load_file(os.path.join(args.model, "model.safetensors")).items()}
    if not is_there(os.path.join(args.out, "base")):
        write(base, os.path.join(args.out, "base"))
    for seed, name in enumerate(RUNS):
        rate, steps, save_at = plan(args, name)
        if name in args.only and not all(map(is_there, save_at.values())):
            train(Trainer(args, base, texts, rate, steps, seed), name, save_at)


if __name__ == "__main__":
    main()
