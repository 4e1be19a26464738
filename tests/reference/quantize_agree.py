#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""quantize_agree.py WCX - checks `wcx quantize` against the packages that read its output.

Quantises small Llamas of F32, F16 and BF16 in all ways, with rows of zeros, denormals, ties and the largest numbers; scales
and values must be, bit for bit, what compressed-tensors computes.  Then unmodified transformers load ordinary weights of
each form, and the logits must be those of the float model within the error of INT8.

Needs torch, transformers and compressed-tensors; exits with 77 (skipped) without one of them.
"""
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile
import types

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
sys.path[:0] = [str(FIXTURES), str(pathlib.Path(__file__).resolve().parent)]
try:
    import compressed_tensors  # noqa: F401
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

import int8_reference  # noqa: E402

LOGITS_DB_MIN = {"int-quantized": 28, "pack-quantized": 30}


def make(directory, *options):
    subprocess.run([sys.executable, FIXTURES / "small_llama.py", directory, *options], check=True)


def quantize(wcx, model, out, strategy, form, scales=None):
    options = ["--strategy", strategy, "--format", form] + (["--dtype", scales] if scales else [])
    subprocess.run([wcx, "quantize", "-q", *options, model, out], check=True)


def check_bits(wcx, work):
    checked = 0
    for dtype in "F32", "F16", "BF16":
        make(work / dtype, "--dtype", dtype, "--hard", "--shards", "2")
        for strategy, form in itertools.product(("channel", "tensor"), ("int-quantized", "pack-quantized")):
            for scales in (None, "F32", "F16", "BF16") if form == "int-quantized" else (None,):
                out = work / f"{dtype}-{strategy}-{form}-{scales}"
                quantize(wcx, work / dtype, out, strategy, form, scales)
                args = types.SimpleNamespace(torch=True, strategy=strategy, format=form, scales=scales)
                made = int8_reference.read_model(out)
                checked += int8_reference.check_tensors(int8_reference.read_model(work / dtype), made, args)
    print(f"{checked} tensors are what compressed-tensors makes of them")


def logits(directory, dtype):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, output_loading_info=True)
    assert not any(info.values()), (directory, info)
    tokens = torch.arange(40).reshape(2, 20) % 101
    with torch.no_grad():
        return model.eval()(tokens).logits.float()


def check_loading(wcx, work):
    transformers.logging.set_verbosity_error()
    for dtype, torch_dtype in ("F32", torch.float32), ("BF16", torch.bfloat16):
        model = work / f"plain-{dtype}"
        make(model, "--dtype", dtype, "--shards", "2")
        expected = logits(model, torch_dtype)
        for form in LOGITS_DB_MIN:
            for strategy in "channel", "tensor":
                out = work / f"plain-{dtype}-{form}-{strategy}"
                quantize(wcx, model, out, strategy, form)
                noise = (logits(out, torch_dtype) - expected).square().sum()
                sqnr = float(10 * torch.log10(expected.square().sum() / noise))
                print(f"{dtype} {form} {strategy}: logits differ by {-sqnr:.1f} dB")
                assert sqnr > LOGITS_DB_MIN[form]


def hidden_states(directory, inputs):
    model, info = transformers.AutoModel.from_pretrained(directory, output_loading_info=True)
    assert not any(info.values()), (directory, info)
    with torch.no_grad():
        states = model.eval()(**inputs).last_hidden_state
    return states * inputs["attention_mask"].unsqueeze(-1)


def check_trained_model(wcx, work, model):
    """The last hidden state and the sentence embedding of a BERT encoder."""
    texts = ["The quick brown fox jumps over the lazy dog.", "Weights are rounded to the nearest of 256 values."]
    inputs = transformers.AutoTokenizer.from_pretrained(model)(texts, padding=True, return_tensors="pt")
    expected = hidden_states(model, inputs)
    for form, least in ("int-quantized", 18), ("pack-quantized", 27):
        quantize(wcx, model, work / f"trained-{form}", "channel", form)
        states = hidden_states(work / f"trained-{form}", inputs)
        sqnr = float(10 * torch.log10(expected.square().sum() / (states - expected).square().sum()))
        cosine = float(torch.nn.functional.cosine_similarity(states.sum(1), expected.sum(1)).min())
        print(f"trained model, {form}: hidden states differ by {-sqnr:.1f} dB, embeddings by a cosine of {cosine:.4f}")
        assert sqnr > least and cosine > 0.99


def main():
    wcx = sys.argv[1]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        check_bits(wcx, pathlib.Path(work))
        check_loading(wcx, pathlib.Path(work))
        trained = pathlib.Path(os.environ.get("WCX_MODELS", "."), "..", "minilm")
        if (trained / "config.json").exists():
            check_trained_model(wcx, pathlib.Path(work), trained)


if __name__ == "__main__":
    main()
