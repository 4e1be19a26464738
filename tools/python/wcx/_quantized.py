# SPDX-License-Identifier: MIT
"""Linear layers of compressed-tensors models (INT8 of wcx quantize): their stored tensors, and the weights made of them.

transformers loads such a model with the stored tensors as parameters, and compressed-tensors turns all of them into floats at
the first forward.  Here a layer's weight is made just before its own forward, of stored tensors that have just been decoded,
with the same arithmetic.
"""
import math
import weakref
from typing import Any, Dict, Optional

_WEIGHTS = ("weight", "weight_packed")
_FLIP_SIGNS = -0x7F7F7F80  # 0x80808080: from values plus 128 in bytes to values, four at a time


def _config_of(model) -> Optional[dict]:
    """Returns the quantization_config of a model that has one, as a dict."""
    config = getattr(getattr(model, "config", None), "quantization_config", None)
    return config if config is None or isinstance(config, dict) else config.to_dict()


def lay_out(model) -> Dict[int, "Quantized"]:
    """Gives a quantised model the parameters that its files have, without memory.  Returns its quantised layers, by id.

    Raises ValueError for models that are quantised in other ways than those of compressed-tensors, ImportError if that is not
    installed.
    """
    if not any(hasattr(module, "quantization_scheme") for module in model.modules()):
        config = _config_of(model)
        if config is None:
            return {}
        if config.get("quant_method") != "compressed-tensors":
            raise ValueError(f"models quantised by {config.get('quant_method')} are not supported, those of compressed-tensors are")
        try:
            from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
        except ImportError as error:
            raise ImportError("models of compressed-tensors need it: pip install compressed-tensors") from error
        known = set(QuantizationConfig.model_fields)
        config = QuantizationConfig.model_validate({key: value for key, value in config.items() if key in known})
        apply_quantization_config(model, config)
        if config.quantization_status != "compressed":
            raise ValueError(f"quantization_status is {config.quantization_status}: only compressed models can be streamed")
    from compressed_tensors.compressors import compress_module

    if hasattr(model, "ct_decompress_hook"):  # which would make floats of all weights at once
        model.ct_decompress_hook.remove()
        del model.ct_decompress_hook
    quantized = {}
    for name, module in model.named_modules():
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is None or scheme.weights is None:
            continue
        if type(module).__name__ == "Embedding":
            raise ValueError(f"{name}: quantised embeddings are not supported")
        if "weight_packed" not in module._parameters and module._parameters["weight"].dtype.is_floating_point:
            compress_module(module)
        quantized[id(module)] = Quantized(name, module)
    return quantized


class Rounding:
    """Rounds the inputs of INT8 layers for each token, with the results of compressed-tensors and a third of its kernels.

    The host would otherwise take longer for these kernels than the GPU: they are small, and one of them waits.  Layers that
    follow each other with the same input share the result, unless the input has changed in between or torch does not tell
    (inference_mode).
    """

    def __init__(self, torch, module, device, dtype):
        self._torch, self._dtype = torch, dtype
        self._half = torch.tensor(127.5, dtype=dtype, device=device)
        self._zero = torch.tensor(0, dtype=dtype, device=device)
        self._eps = torch.finfo(dtype).eps
        self._last = (lambda: None, 0, None)  # weak reference to the input, its version, the result
        self.is_same = self._agrees(module, device)

    @staticmethod
    def is_for(scheme) -> bool:
        """Whether a scheme rounds inputs as wcx quantize says, and nothing else."""
        args = scheme.input_activations
        return (
            args is not None
            and (args.num_bits, args.type, args.symmetric, args.strategy, args.dynamic) == (8, "int", True, "token", True)
            and getattr(args, "scale_dtype", None) is None
            and scheme.output_activations is None
        )

    def _agrees(self, module, device) -> bool:
        """Whether the installed compressed-tensors gives the same bits for what is likely to differ."""
        from compressed_tensors.quantization.lifecycle.forward import forward_quantize

        torch = self._torch
        values = torch.linspace(-3, 3, 4096, device=device, dtype=torch.float64).view(1, 16, 256) ** 3
        values = values.roll(-7, 2) * torch.logspace(-9, 4, 16, device=device, dtype=torch.float64).view(1, 16, 1)
        values[0, 3] = 0
        values[0, 5, 100:] = 0
        values[0, 7, ::2] *= -1
        values = values.to(self._dtype)
        expected = forward_quantize(module, values, "input", module.quantization_scheme.input_activations)
        found = self._round(values)
        return found.dtype == expected.dtype and torch.equal(found.view(torch.uint8), expected.view(torch.uint8))

    def _round(self, values):
        torch = self._torch
        scale = torch.linalg.vector_norm(values, math.inf, -1, keepdim=True) / self._half
        scale.masked_fill_(scale == 0, self._eps)
        return torch.addcdiv(self._zero, values, scale).clamp_(-128, 127).round_().mul_(scale)

    def __call__(self, values):
        """Returns the rounded input, or None if compressed-tensors is to round it."""
        if values.dim() != 3 or values.dtype != self._dtype or not values.numel() or values.requires_grad:
            return None
        if values.is_inference():
            return self._round(values)
        before, version, rounded = self._last
        if before() is not values or version != values._version:
            rounded = self._round(values)
            self._last = (weakref.ref(values), values._version, rounded)
        return rounded


class Quantized:
    """A quantised linear layer.  tensors has its stored tensors, by attribute, as soon as Stream has set them.

    floats_bytes is what its weight takes as floats in the buffer that place gets; 0 if it is made in memory of its own.
    """

    def __init__(self, name: str, module):
        import torch
        from compressed_tensors.compressors import BaseCompressor

        self._torch, self.name, self.module = torch, name, module
        scheme = self._scheme = module.quantization_scheme
        self._compressor = BaseCompressor.get_value_from_registry(scheme.format.value)
        self._stored = dict(module._parameters)
        self._rounding: Optional[Rounding] = None
        self.tensors: Dict[str, Any] = {}
        weights = scheme.weights
        # The forms of wcx quantize, whose arithmetic is one multiplication.
        self._is_plain = (
            (weights.num_bits, weights.type, weights.symmetric) == (8, "int", True)
            and weights.strategy in ("channel", "tensor")
            and scheme.format.value in ("int-quantized", "naive-quantized", "pack-quantized")
            and "weight_global_scale" not in self._stored
        )
        self._shape = (module.out_features, module.in_features)
        self._dtype = self._stored["weight_scale"].dtype
        elems = module.out_features * module.in_features
        self.floats_bytes = elems * self._dtype.itemsize if self._is_plain else 0

    def converts(self, attribute: str) -> bool:
        """Whether a stored tensor is converted to the model's dtype when it is loaded, as transformers does with scales, and bias."""
        return attribute not in _WEIGHTS

    def place(self, buffer, roundings: dict):
        """Says where the weight will be, and makes it before each forward.  Returns the hooks.

        buffer: floats_bytes bytes that nothing else uses during the layer's forward.  roundings: those of the model, by dtype.
        """
        from compressed_tensors.quantization import QuantizationStatus

        parameters = self.module._parameters
        for attribute in ("weight_packed", "weight_shape"):
            parameters.pop(attribute, None)
        if "weight_shape" in self.tensors:
            self.tensors["weight_shape"] = self._torch.Size(self.tensors["weight_shape"].tolist())
        self.module.quantization_status = QuantizationStatus.DECOMPRESSED
        if self._is_plain:
            self._weight = buffer.view(self._dtype).view(self._shape)
            self._set_weight(self._weight)
            if Rounding.is_for(self._scheme):
                if self._dtype not in roundings:
                    roundings[self._dtype] = Rounding(self._torch, self.module, buffer.device, self._dtype)
                if roundings[self._dtype].is_same:
                    self._rounding = roundings[self._dtype]
            return [self.module.register_forward_pre_hook(lambda _, arguments: self._make_plain(arguments))]
        return [
            self.module.register_forward_pre_hook(lambda *_: self._make()),
            self.module.register_forward_hook(lambda *_: self._drop(), always_call=True),
        ]

    def _set_weight(self, tensor) -> None:
        self.module._parameters["weight"] = self._torch.nn.Parameter(tensor, requires_grad=False)

    def _make_plain(self, arguments):
        values = self.tensors.get("weight")
        if values is None:
            packed = self.tensors["weight_packed"]
            flipped = self._torch.bitwise_xor(packed, _FLIP_SIGNS)
            values = flipped.view(self._torch.int8)[:, : self._shape[1]]
        self._torch.mul(values, self.tensors["weight_scale"], out=self._weight)
        if self._rounding is None:
            return None
        rounded = self._rounding(arguments[0])
        self.module.quantization_enabled = rounded is None
        return None if rounded is None else (rounded, *arguments[1:])

    def _make(self) -> None:
        self._set_weight(self._compressor.decompress(dict(self.tensors), self._scheme)["weight"])

    def _drop(self) -> None:
        empty = self._torch.empty((1, 1), dtype=self._dtype, device=self.tensors["weight_scale"].device)
        self._set_weight(empty.expand(self._shape))

    def restore(self) -> None:
        """Undoes place; the layer has its stored parameters again, without memory."""
        from compressed_tensors.quantization import QuantizationStatus

        self.tensors.clear()
        self._rounding = None
        self.module.quantization_enabled = True
        self.module._parameters.pop("weight", None)
        self.module._parameters.update(self._stored)
        self.module.quantization_status = QuantizationStatus.COMPRESSED
