# SPDX-License-Identifier: MIT
"""stream_models.py [TEST...] - models of torch whose weights stay packed compute what transformers computes, on the CPU.

Environment: WCX, WCX_LIBRARY (libwcx.so), FIXTURES, and WCX_TEST_DIR (a folder to work in).  Needs torch, transformers and
compressed-tensors.  Models are Llamas of two layers with random weights, see small_llama.py; tests/gpu/gpu_stream_check.py has
larger ones, on a GPU.
"""
import contextlib
import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys
import unittest

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from compressed_tensors.quantization.utils import calculate_qparams
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import wcx
from wcx._quantized import Rounding

WORK = pathlib.Path(os.environ["WCX_TEST_DIR"])
WCX = os.environ["WCX"]
IDS = torch.arange(1, 41).view(2, -1)
LLAMA = WORK / "llama"
FORMS = {
    "int8": (),
    "int8-tensor": ("--strategy=tensor",),
    "int8-weights": ("--format=pack-quantized",),
    "int8-f32-scales": ("--dtype=F32",),
}


def pack(directory):
    """Packs a model's directory.  Returns the new one."""
    packed = WORK / f"{directory.name}-packed"
    packed.mkdir()
    for path in directory.iterdir():
        if path.suffix == ".safetensors":
            subprocess.run([WCX, "pack", "-q", path, packed / f"{path.name}.wcx"], check=True)
        elif path.is_file():
            shutil.copy(path, packed)
    return packed


def quantized(form):
    """Returns the directories of a model that wcx quantize has made, and of its packed files."""
    directory = WORK / form
    if not directory.exists():
        subprocess.run([WCX, "quantize", "-q", *FORMS[form], LLAMA, directory], check=True)
        pack(directory)
    return directory, WORK / f"{form}-packed"


def four_bits():
    """Makes a model with INT4 groups, whose form is compressed-tensors' own."""
    directory = WORK / "int4"
    torch.manual_seed(4)
    model = LlamaForCausalLM(LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=101,
        dtype=torch.bfloat16, initializer_range=0.1, tie_word_embeddings=False,
    )).to(torch.bfloat16)
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
    apply_quantization_config(model, QuantizationConfig.model_validate({
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": ["lm_head"], "format": "pack-quantized",
        "quantization_status": "initialized",
    }))
    for module in model.modules():
        if hasattr(module, "quantization_scheme"):
            groups = module.weight.unflatten(-1, (-1, 32))
            scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), module.quantization_scheme.weights)
            module.weight_scale.data, module.weight_zero_point.data = scale, zero
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(directory)
    compressor.update_config(directory)
    return directory, pack(directory)


def empty_model(directory):
    with wcx.no_weights():
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory), dtype=torch.bfloat16).eval()


def run(model, mode=torch.no_grad):
    with mode():
        logits = model(IDS).logits
    return logits, model.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=4, do_sample=False, pad_token_id=0)


def damage(path):
    """Changes a bit in the middle of a packed file, which is in a tile."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


class Models(unittest.TestCase):
    def check(self, directory, packed):
        plain = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).eval()
        expected = run(plain)
        model = empty_model(packed)
        for mode in (torch.no_grad, torch.inference_mode):
            with wcx.stream(model, packed, device="cpu") as stream:
                for found in (run(model, mode), run(model, mode)):
                    for a, b in zip(found, expected):
                        self.assertTrue(torch.equal(a, b), f"{directory.name}: {(a - b).abs().max()}")
                self.assertEqual((stream.blocks_on_device, stream.blocks_on_host), (2, 0))
            self.assertTrue(all(parameter.device.type == "meta" for parameter in model.parameters()))

    def test_floats(self):
        self.check(LLAMA, pack(LLAMA))

    def test_int8_forms_of_wcx_quantize(self):
        for form in FORMS:
            with self.subTest(form):
                self.check(*quantized(form))

    def test_int4_groups(self):
        self.check(*four_bits())

    def test_scratch_holds_one_layer_and_one_weight_of_floats(self):
        with wcx.stream(empty_model(quantized("int8")[1]), quantized("int8")[1], device="cpu") as stream:
            layer = 4 * 1024 + 3 * 1536  # 30 x 30 and 30 x 43 bytes, in multiples of 256, and two norms
            self.assertLessEqual(stream.scratch.nbytes, layer + 2 * 256 + 2 * 30 * 43)

    def test_damage_is_named_and_nothing_is_computed(self):
        for form in ("int8", "int8-weights"):
            packed = WORK / f"{form}-damaged"
            shutil.copytree(quantized(form)[1], packed)
            name = sorted(path.name for path in packed.glob("*.wcx"))[1]
            damage(packed / name)
            model = empty_model(packed)
            with self.assertRaises(OSError) as caught, wcx.stream(model, packed, device="cpu"):
                run(model)
            self.assertEqual(caught.exception.errno, errno.EBADMSG)
            self.assertRegex(str(caught.exception), f"{name}: tensor `model.layers.*offset [0-9]+.*damaged")

    def test_what_is_refused(self):
        _, packed = quantized("int8")
        model = empty_model(packed)
        with self.assertRaisesRegex(ValueError, "gpu_budget"):
            wcx.stream(model, packed, gpu_budget="1GiB", device="cpu")
        model.config.quantization_config = {"quant_method": "gptq"}
        with self.assertRaisesRegex(ValueError, "gptq"):
            wcx.stream(model, packed, device="cpu")
        incomplete = WORK / "incomplete"
        shutil.copytree(packed, incomplete)
        index = json.loads((packed / "model.safetensors.index.json").read_text())
        index["weight_map"] = {k: v for k, v in index["weight_map"].items() if "-00003-" not in v}
        (incomplete / "model.safetensors.index.json").write_text(json.dumps(index))
        with self.assertRaisesRegex(KeyError, "has no tensor for parameter"):
            wcx.stream(empty_model(packed), incomplete, device="cpu")


class Inputs(unittest.TestCase):
    """Rounding of activations, which is that of compressed-tensors."""

    def rounding(self, dtype):
        with contextlib.redirect_stderr(None):
            model = empty_model(quantized("int8")[1])
        with wcx.stream(model, quantized("int8")[1], device="cpu") as stream:
            (layer, *_) = stream._quantized.values()
            return Rounding(torch, layer.module, "cpu", dtype)

    def test_all_dtypes_agree(self):
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            self.assertTrue(self.rounding(dtype).is_same, dtype)

    def test_an_input_is_rounded_once_until_it_changes(self):
        rounding = self.rounding(torch.float32)
        values = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(1))
        first = rounding(values)
        self.assertIs(rounding(values), first)
        values[0, 0] *= 2
        self.assertTrue(torch.equal(rounding(values)[0, 0], 2 * first[0, 0]))
        with torch.inference_mode():
            values = values + 1
            first = rounding(values)
            values[0, 0] *= 2
            self.assertTrue(torch.equal(rounding(values)[0, 0], 2 * first[0, 0]))


if __name__ == "__main__":
    subprocess.run(
        [sys.executable, os.path.join(os.environ["FIXTURES"], "small_llama.py"), LLAMA, "--dtype", "BF16", "--shards", "3"],
        check=True, stdout=subprocess.DEVNULL,
    )
    unittest.main(verbosity=2)
