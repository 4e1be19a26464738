# SPDX-License-Identifier: MIT
"""gpu_stream_check.py WCX - checks that models whose weights stay packed compute what the plain models do, bit by bit.

WCX is the packer; WCX_LIBRARY names libwcx.so.  Small Llama models with weights from N(0, 0.02), tied embeddings and not, in
BF16 and F32, with everything on the GPU, everything on the host, and in between; logits of a batch, and 8 generated tokens.
Needs torch, transformers and a GPU; exits with 77 without one.
"""
import os
import subprocess
import sys
import tempfile

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools", "python"))
import wcx  # noqa: E402

LAYERS, VOCABULARY = 6, 50000


def make_model(directory, dtype, tied):
    torch.manual_seed(5)
    config = LlamaConfig(
        hidden_size=512, intermediate_size=1536, num_hidden_layers=LAYERS, num_attention_heads=8, num_key_value_heads=4,
        vocab_size=VOCABULARY, tie_word_embeddings=tied, dtype=dtype, initializer_range=0.02,
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(directory, max_shard_size="40MB")
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
    for name in sorted(os.listdir(directory)):
        if name.endswith(".safetensors"):
            path = os.path.join(directory, name)
            subprocess.run([sys.argv[1], "pack", "-q", path, f"{path}.wcx"], check=True)
            os.unlink(path)
    return model.cuda().eval()


def run(model, ids):
    with torch.inference_mode():
        logits = model(ids).logits
        tokens = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
    return logits, tokens


def empty_model(directory, dtype):
    with wcx.no_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory), dtype=dtype)
    return model.eval()


def check(directory, dtype, tied):
    plain = make_model(directory, dtype, tied)
    ids = torch.randint(1, VOCABULARY, (2, 21), device="cuda", generator=torch.Generator("cuda").manual_seed(1))
    expected = run(plain, ids)
    del plain
    seen = set()
    model = empty_model(directory, dtype)
    with wcx.stream(model, directory) as whole:
        smallest = whole.scratch.nbytes
        packed = whole.device_bytes - smallest
    # The output projection takes half of the packed bytes, and has to fit beside two packed layers.
    for budget in (None, smallest + packed * 75 // 100, smallest + packed * 9 // 10, smallest + packed * 2):
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
    print(f"{dtype}, {'tied' if tied else 'not tied'}: equal logits and tokens with blocks on GPU and host: {sorted(seen)}")


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
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if not torch.cuda.is_available():
        print("skipped: torch finds no GPU")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as work:
        directories = []
        for dtype in (torch.bfloat16, torch.float32):
            for tied in (False, True):
                directories.append(os.path.join(work, f"{len(directories)}"))
                check(directories[-1], dtype, tied)
        check_two_models(directories[0], directories[1])
        check_damage(directories[0])


if __name__ == "__main__":
    main()
