# SPDX-License-Identifier: MIT
"""gpu_stream_check.py WCX [FORM...] - checks that models whose weights stay packed compute what the plain models do, bit by bit.

WCX is the packer; WCX_LIBRARY names libwcx.so.  Small Llama models with weights from N(0, 0.02), tied embeddings and not, in
BF16 and F32, and in both INT8 forms of wcx quantize if compressed-tensors is installed; with everything on the GPU, everything
on the host, and in between; logits of a batch, and 8 generated tokens.  FORM is bf16, f32, int8 or int8-weights (default: all).
Needs torch, transformers and a GPU; exits with 77 without one.
"""
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools", "python"))
import wcx  # noqa: E402

LAYERS, VOCABULARY = 6, 50000
FORMS = {
    "bf16": (torch.bfloat16, None),
    "f32": (torch.float32, None),
    "int8": (torch.bfloat16, "int-quantized"),
    "int8-weights": (torch.float16, "pack-quantized"),
}


def make_model(directory, dtype, int8, tied):
    torch.manual_seed(5)
    config = LlamaConfig(
        hidden_size=512, intermediate_size=1536, num_hidden_layers=LAYERS, num_attention_heads=8, num_key_value_heads=4,
        vocab_size=VOCABULARY, tie_word_embeddings=tied, dtype=dtype, initializer_range=0.02,
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(directory, max_shard_size="40MB")
    if int8:
        os.rename(directory, directory + "-floats")
        subprocess.run([sys.argv[1], "quantize", "-q", f"--format={int8}", directory + "-floats", directory], check=True)
        shutil.rmtree(directory + "-floats")
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, device_map={"": 0})
    for name in sorted(os.listdir(directory)):
        if name.endswith(".safetensors"):
            path = os.path.join(directory, name)
            subprocess.run([sys.argv[1], "pack", "-q", path, f"{path}.wcx"], check=True)
            os.unlink(path)
    return model.eval()


def run(model, ids):
    with torch.no_grad():
        logits = model(ids).logits
    with torch.inference_mode():
        tokens = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
    return logits, tokens


def empty_model(directory, dtype):
    with wcx.no_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory), dtype=dtype)
    return model.eval()


def check(directory, dtype, int8, tied):
    plain = make_model(directory, dtype, int8, tied)
    ids = torch.randint(1, VOCABULARY, (2, 21), device="cuda", generator=torch.Generator("cuda").manual_seed(1))
    expected = run(plain, ids)
    del plain
    seen = set()
    model = empty_model(directory, dtype)
    with wcx.stream(model, directory) as whole:
        smallest = whole.scratch.nbytes
        packed = whole.device_bytes - smallest
    # The output projection takes up to 70 % of the packed bytes, and has to fit beside two packed layers.
    for budget in (None, smallest + packed * 85 // 100, smallest + packed * 92 // 100, smallest + packed * 2):
        model = empty_model(directory, dtype)
        with wcx.stream(model, directory, gpu_budget=budget, reserve=0) as streamed:
            for _ in range(2):
                logits, tokens = run(model, ids)
                assert torch.equal(logits, expected[0]), f"{budget}: logits differ by {(logits - expected[0]).abs().max()}"
                assert torch.equal(tokens, expected[1]), (budget, "tokens")
            assert budget is None or streamed.device_bytes <= budget, (streamed.device_bytes, budget)
            seen.add((streamed.blocks_on_device, streamed.blocks_on_host))
    assert any(on_host > 1 for _, on_host in seen) and any(on_host == 0 for _, on_host in seen), seen
    try:
        wcx.stream(empty_model(directory, dtype), directory, gpu_budget=smallest, reserve=0)
        raise AssertionError("a budget that is too small was accepted")
    except ValueError as error:
        assert "gpu_budget" in str(error)
    print(f"{int8 or dtype}, {'tied' if tied else 'not tied'}: equal logits and tokens with blocks on GPU and host: {sorted(seen)}")


def check_two_models(first, second):
    """Two models that share scratch, and run in turn."""
    models = [empty_model(directory, torch.bfloat16) for directory in (first, second)]
    ids = torch.arange(1, 20, device="cuda").view(1, -1)
    alone = []
    for model, directory in zip(models, (first, second)):
        with wcx.stream(model, directory):
            alone.append(run(model, ids)[0])
    models = [empty_model(directory, torch.bfloat16) for directory in (first, second)]
    with wcx.stream(models[0], first) as one, wcx.stream(models[1], second, scratch=one.scratch):
        for _ in range(2):
            for model, expected in zip(models, alone):
                assert torch.equal(run(model, ids)[0], expected)
    print("two models take turns in one scratch")


def check_damage(directory):
    name = next(name for name in sorted(os.listdir(directory)) if name.endswith(".wcx"))
    path = os.path.join(directory, name)
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 4]))
    try:
        wcx.stream(empty_model(directory, torch.bfloat16), directory)
        raise AssertionError("damage was not found")
    except OSError as error:
        assert "damaged" in str(error) and name in str(error), str(error)
        print(error)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    if not torch.cuda.is_available():
        print("skipped: torch finds no GPU")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as work:
        directories = []
        forms = sys.argv[2:] or list(FORMS)
        if not importlib.util.find_spec("compressed_tensors"):
            forms = [form for form in forms if not form.startswith("int8")]
            print("INT8 models are skipped: compressed-tensors is not installed")
        for form in forms:
            for tied in (False,) if form.startswith("int8") else (False, True):
                directories.append(os.path.join(work, f"{form}-{tied}"))
                check(directories[-1], *FORMS[form], tied)
        of_bf16 = [name for name in directories if os.path.basename(name) in ("bf16-False", "bf16-True", "int8-False")]
        if of_bf16:
            check_two_models(of_bf16[0], of_bf16[-1])
        for directory in of_bf16:
            check_damage(directory)


if __name__ == "__main__":
    main()
