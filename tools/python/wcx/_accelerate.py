# SPDX-License-Identifier: MIT
"""Lets unmodified programs of this process load packed files past the mount."""
import glob
import os
import sys
import threading
from typing import Any, List, Tuple

from ._file import find_packed
from ._frameworks import is_known
from ._open import safe_open as _wcx_safe_open

SUFFIX = ".safetensors"

_lock = threading.RLock()  # protects what follows
_users = 0
_plugin = None  # what vllm_plugin has started
_replaced: List[Tuple[Any, Any]] = []  # (before, now)


def _make_safe_open(original):
    """Returns a class that opens packed files our way, and all others with safetensors' own class."""

    class safe_open(_wcx_safe_open):
        __doc__ = original.__doc__
        _wcx_original = original

        def __new__(cls, filename, framework="pt", device="cpu", **options):
            if is_known(framework) and find_packed(filename) is not None:
                return _wcx_safe_open.__new__(cls, filename, framework, device, **options)
            return original(filename, framework, device=device, **options)

    return safe_open


def _packed_beside(path) -> bool:
    """Whether path names a safetensors file that is not there, but packed beside itself."""
    if not isinstance(path, (str, os.PathLike)):
        return False
    name = os.fspath(path)
    return isinstance(name, str) and name.endswith(SUFFIX) and find_packed(name) is not None


def _make_exists(original):
    def exists(path):
        return original(path) or _packed_beside(path)

    return exists


def _make_glob(original):
    def find(pathname, **options):
        found = original(pathname, **options)
        if isinstance(pathname, str) and pathname.endswith(SUFFIX):
            packed = (name.removesuffix(".wcx") for name in original(pathname + ".wcx", **options))
            found += [name for name in packed if name not in found]
        return found

    return find


def _replace_everywhere(before, now) -> None:
    """Replaces an object in the modules that hold it under a name of their own."""
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is before:
                setattr(module, name, now)


def _start() -> None:
    import safetensors

    objects = [(safetensors.safe_open, _make_safe_open(safetensors.safe_open))]
    objects += [(getattr(os.path, name), _make_exists(getattr(os.path, name))) for name in ("isfile", "exists")]
    objects += [(glob.glob, _make_glob(glob.glob))]
    for before, now in objects:
        _replaced.append((before, now))
        _replace_everywhere(before, now)


def _stop() -> None:
    while _replaced:
        before, now = _replaced.pop()
        _replace_everywhere(now, before)


class accelerate:
    """From now on, safetensors loads packed files past the mount: decoded by all cores, or on the GPU.

        wcx.accelerate()                      # until the process ends, or undo() is called
        with wcx.accelerate():                # until the block ends
            model = AutoModel.from_pretrained("/mnt/models/llama")

    In this process it replaces safetensors.safe_open, also where modules have imported it, and what builds on it: load_file,
    transformers, diffusers, accelerate, vLLM.  Paths may lead into a mount, or to a directory of NAME.safetensors.wcx files,
    in which os.path.isfile, os.path.exists and glob.glob show the NAME.safetensors that is asked for.  Other files, and
    frameworks other than numpy and torch, are loaded as before.

    Needs safetensors.  May be nested; the last one to end restores everything.
    """

    def __init__(self):
        global _users

        self._active = True
        with _lock:
            if _users == 0:
                _start()
            _users += 1

    def undo(self) -> None:
        """Restores what was replaced, if nobody else accelerates.  Calling it again does nothing."""
        global _users

        with _lock:
            if not self._active:
                return
            self._active = False
            _users -= 1
            if _users == 0:
                _stop()

    def __enter__(self) -> "accelerate":
        return self

    def __exit__(self, *exception) -> None:
        self.undo()


def vllm_plugin() -> None:
    """Entry point of vllm.general_plugins: vLLM calls it in each of its processes, perhaps more than once."""
    global _plugin

    if _plugin is None or not _plugin._active:
        _plugin = accelerate()
