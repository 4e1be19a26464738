# SPDX-License-Identifier: MIT
"""Loads losslessly compressed safetensors files (.wcx), as numpy arrays or torch tensors.

    import wcx

    tensors = wcx.load_file("model.safetensors.wcx")                       # numpy, decoded by all cores
    tensors = wcx.load_file("model.safetensors.wcx", device="cuda")        # torch, decoded on the GPU
    with wcx.safe_open("model.safetensors.wcx", framework="pt") as file:   # the interface of safetensors.safe_open
        rows = file.get_slice("embeddings.weight")[1000:1100]              # decodes only the tiles of these rows
    wcx.accelerate()                                                       # unmodified transformers & co. do so too

Paths may be packed files, files that a wcxfs mount shows, or plain safetensors files, which safetensors then loads.  Errors
of files are OSError with file, tensor and offset; what safetensors raises for misuse is raised here, too.

All functions may be called from any thread.
"""
from ._accelerate import accelerate
from ._file import File, Tensor, find_packed
from ._gpu import Held, Loader
from ._open import Slice, load_directory, load_file, safe_open
from ._stream import Stream, no_weights, stream
from ._version import __version__

__all__ = [
    "File",
    "Held",
    "Loader",
    "Slice",
    "Stream",
    "Tensor",
    "__version__",
    "accelerate",
    "find_packed",
    "load_directory",
    "load_file",
    "no_weights",
    "safe_open",
    "stream",
]
