# SPDX-License-Identifier: MIT
"""Runs models of torch whose weights stay packed: in the GPU's memory, or in the host's.

A *block* is a module whose weights are needed together: an element of the model's longest list of layers, or the output
projection.  All blocks are decoded into one *scratch* buffer on the GPU, one after the other, each just before its forward.
What fits stays on the GPU, packed; the rest is copied there, packed, from pinned memory of the host, ahead of its use, to two
or more *slots*.  Embeddings stay decoded in the host's memory, from which the rows of a batch are taken.

Models on the CPU do without copies: blocks are decoded straight from their files, which the page cache holds packed.
"""
import contextlib
import json
import math
import os
import re
from typing import Any, Dict, List, Optional, Set, Tuple, Union

from ._file import File, PATH, Tensor, find_packed, open_file
from ._frameworks import Torch
from ._gpu import Held, Loader, cuda_device
from ._quantized import lay_out

ALIGN = 256
SLOTS = 2
LOADER_THREADS = 8  # each takes 26 MiB of the GPU's memory while packed bytes are read, which more would not do much faster
LARGE = 1 << 20  # from this size on, tensors of quantised layers other than the weights stay packed, too
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


def parse_bytes(size: Union[int, str]) -> int:
    """Returns a number of bytes: 4294967296, "4GiB" or "4.3 GB"."""
    if isinstance(size, int):
        return size
    match = re.fullmatch(r"\s*([0-9.]+)\s*([a-zA-Z]*)\s*", size)
    unit = _UNITS.get(match.group(2).upper()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{size!r}: not a size such as 4GiB")
    return int(float(match.group(1)) * unit)


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


@contextlib.contextmanager
def no_weights():
    """While this context lasts, new modules get parameters without memory (on the meta device), and their usual buffers.

        with wcx.no_weights():
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory), dtype=torch.bfloat16)
    """
    import torch

    before = torch.nn.Module.register_parameter

    def register(module, name, parameter):
        before(module, name, parameter)
        if parameter is not None and parameter.device.type != "meta":
            kept = module._parameters[name]
            module._parameters[name] = torch.nn.Parameter(kept.to("meta"), requires_grad=kept.requires_grad)

    torch.nn.Module.register_parameter = register
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = before


def _open_files(path: str) -> Dict[str, Tuple[File, Tensor]]:
    """Returns the tensors of a packed file, or of all packed shards of a directory, by name."""
    if os.path.isdir(path):
        names = sorted(os.listdir(path))
        indices = [name for name in names if name.endswith(".safetensors.index.json")]
        if indices:
            with open(os.path.join(path, indices[0]), "rb") as index:
                names = sorted(set(json.load(index)["weight_map"].values()))
        else:
            names = sorted({n.removesuffix(".wcx") for n in names if n.removesuffix(".wcx").endswith(".safetensors")})
        shards = [os.path.join(path, name) for name in names]
    else:
        shards = [path]
    tensors: Dict[str, Tuple[File, Tensor]] = {}
    for shard in shards:
        packed = find_packed(shard)
        if packed is None:
            raise FileNotFoundError(f"{shard}: neither packed, nor shown by a mount whose store can be read")
        file = open_file(packed)
        tensors.update((name, (file, info)) for name, info in file.tensors.items())
    if not tensors:
        raise FileNotFoundError(f"{path}: no packed safetensors file")
    return tensors


def _spread(index: int) -> float:
    """Returns the index with its bits reversed, as a fraction: the first of a list sorted by it are far apart."""
    return int(f"{index:032b}"[::-1], 2) / 2**32


class _InFile:
    """A part of a file that is decoded on the CPU, with the interface of Held."""

    on_device, nbytes = True, 0

    def __init__(self, file: File, ranges):
        self._file, self._ranges = file, ranges

    def decode(self, base: int, stream, place: int = 0) -> None:
        """Decodes to base by all cores.  Raises OSError for damage."""
        self._file.load_host([(offset, size, base + dst) for offset, size, dst in self._ranges])

    def check(self, stream) -> None:
        """Does nothing: decode has checked."""

    def close(self) -> None:
        """Does nothing: the file stays open for others."""


class _Block:
    """A module, its parameters with their places in scratch, and its packed bytes: one held part for each file."""

    def __init__(self, name: str, module):
        self.name, self.module = name, module
        self.parameters: List[Tuple[Any, str, File, Tensor, int]] = []  # (module, attribute, file, tensor, place)
        self.nbytes = 0  # decoded, in scratch
        self.floats_bytes = 0  # what the largest weight takes that is made of quantised ones, behind nbytes in scratch
        self.held: List[Any] = []  # Held or _InFile
        self.is_checked = False

    def add(self, module, attribute: str, file: File, info: Tensor) -> None:
        self.parameters.append((module, attribute, file, info, self.nbytes))
        self.nbytes += _aligned(info.bytes)

    def packed_estimate(self) -> int:
        """About how much the packed bytes take: as much of each file as of its tensors."""
        ratio: Dict[File, float] = {}
        for _, _, file, info, _ in self.parameters:
            ratio.setdefault(file, os.path.getsize(file.path) / max(1, file.bytes))
        return sum(_aligned(int(info.bytes * ratio[file])) for _, _, file, info, _ in self.parameters)

    def hold(self, loader, on_device: bool) -> None:
        ranges: Dict[File, list] = {}
        for _, _, file, info, place in self.parameters:
            ranges.setdefault(file, []).append((info.offset, info.bytes, place))
        if loader is None:
            self.held = [_InFile(file, its) for file, its in ranges.items()]
        else:
            self.held = [Held(loader, file, its, on_device) for file, its in ranges.items()]

    @property
    def held_bytes(self) -> int:
        return sum(_aligned(held.nbytes) for held in self.held)

    @property
    def on_device(self) -> bool:
        return all(held.on_device for held in self.held)


class _Slot:
    """A place on the GPU for the packed bytes of a block."""

    def __init__(self, torch, nbytes: int, device):
        self.memory = torch.empty(nbytes, dtype=torch.uint8, device=device)
        self.block: Optional[_Block] = None  # whose bytes are here, or on their way
        self.fetched, self.used = torch.cuda.Event(), torch.cuda.Event()


class Stream:
    """A model whose weights are packed.  stream() makes it; close() ends it, after which the model has no weights.

    Attributes: blocks_on_device and blocks_on_host (how many), device_bytes (packed bytes, scratch, slots and small
    parameters on the GPU), host_bytes (packed bytes and embeddings in the host's memory), scratch (the buffer).
    """

    def __init__(self, model, path: PATH, gpu_budget, device, reserve, scratch):
        import torch

        self._torch, self._framework = torch, Torch()
        self.model, self.device = model, torch.device(device)
        self._on_cpu = self.device.type == "cpu"
        if not self._on_cpu:
            self.device = cuda_device(device)
        elif gpu_budget is not None:
            raise ValueError("gpu_budget: the model is to run on the CPU")
        self._path = os.fsdecode(path)
        self._hooks: List[Any] = []
        self._slots: List[_Slot] = []
        self._loader = None if self._on_cpu else Loader(self.device, min(LOADER_THREADS, len(os.sched_getaffinity(0))))
        budget = None if gpu_budget is None else parse_bytes(gpu_budget) - parse_bytes(reserve)
        self._refuse_buffers()
        files = _open_files(self._path)
        self._quantized = lay_out(model)
        blocks, embeddings, others = self._sort_parameters(files)
        self._copy_stream: Any = None if self._on_cpu else torch.cuda.Stream(self.device)
        self.device_bytes = self.host_bytes = 0
        self._load_others(others)
        needed = max((block.nbytes + block.floats_bytes for block in blocks), default=0)
        needed = max([needed] + [quantized.floats_bytes for quantized in self._quantized.values()])
        if scratch is None:
            scratch = torch.empty(max(needed, ALIGN), dtype=torch.uint8, device=self.device)
        elif scratch.nbytes < needed or scratch.data_ptr() % ALIGN or scratch.device != self.device:
            raise ValueError(f"scratch: {needed} bytes on {self.device}, at a multiple of {ALIGN}, are needed")
        self.scratch = scratch
        self.device_bytes += scratch.nbytes
        self._hold(blocks, budget)
        self._load_embeddings(embeddings)
        self._blocks = blocks
        self._host_blocks = [block for block in blocks if not block.on_device]
        if self._loader is not None:
            torch.cuda.synchronize(self.device)
            self._loader.close()  # its memory is free for the slots
        self._make_slots()
        for block in blocks:
            self._place(block)
        self._place_quantized()

    # --- which parameter belongs where ---

    def _refuse_buffers(self) -> None:
        for name, buffer in self.model.named_buffers():
            if buffer.device.type == "meta":
                raise ValueError(f"buffer {name} has no memory: make the model within wcx.no_weights()")
        for module in self.model.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = buffer.to(self.device)

    def _find(self, tensors, name: str) -> Tuple[File, Tensor]:
        prefix = getattr(self.model, "base_model_prefix", "") + "."
        for candidate in (name, name.removeprefix(prefix), prefix + name):
            if candidate in tensors:
                return tensors[candidate]
        raise KeyError(f"{self._path} has no tensor for parameter {name}")

    def _sort_parameters(self, tensors):
        """Returns blocks, [(embedding module, File, Tensor)], and [(module, attribute, File, Tensor)] of the rest."""
        torch = self._torch
        lists = [(name, module) for name, module in self.model.named_modules() if isinstance(module, torch.nn.ModuleList)]
        layers_name, layers = max(
            lists, key=lambda item: sum(p.numel() for p in item[1].parameters()), default=("", torch.nn.ModuleList())
        )
        blocks = [_Block(f"{layers_name}.{i}", layer) for i, layer in enumerate(layers)]
        owner = {id(module): block for block in blocks for module in block.module.modules()}
        embeddings, others = [], []
        tied = self._tied_names()
        for module_name, module in self.model.named_modules():
            for attribute, parameter in module._parameters.items():
                if parameter is None:
                    continue
                name = f"{module_name}.{attribute}" if module_name else attribute
                file, info = self._find(tensors, tied.get(name, name) if name not in tensors else name)
                quantized = self._quantized.get(id(module))
                converts = quantized is not None and quantized.converts(attribute) and info.bytes < LARGE
                self._check(name, parameter, info, converts)
                if converts:
                    others.append((module, attribute, file, info))
                    continue
                if id(module) in owner:
                    owner[id(module)].add(module, attribute, file, info)
                elif isinstance(module, torch.nn.Embedding):
                    embeddings.append((module, file, info))
                elif info.bytes >= 16 << 20:
                    blocks.append(_Block(module_name, module))
                    owner[id(module)] = blocks[-1]
                    blocks[-1].add(module, attribute, file, info)
                else:
                    others.append((module, attribute, file, info))
        for key, quantized in self._quantized.items():
            if key in owner:
                owner[key].floats_bytes = max(owner[key].floats_bytes, quantized.floats_bytes)
        return [block for block in blocks if block.parameters], embeddings, others

    def _tied_names(self) -> Dict[str, str]:
        """Returns, for parameters that are the same as another one, the name of that one."""
        tied: Dict[str, str] = {}
        keys = getattr(self.model, "_tied_weights_keys", None) or {}
        if isinstance(keys, dict):
            tied.update(keys)
        embedding = getattr(self.model, "get_input_embeddings", lambda: None)()
        names = {id(module): name for name, module in self.model.named_modules()}
        if embedding is not None and getattr(getattr(self.model, "config", None), "tie_word_embeddings", False):
            tied.setdefault("lm_head.weight", f"{names[id(embedding)]}.weight")
        return tied

    def _check(self, name: str, parameter, info: Tensor, converts: bool) -> None:
        dtype, shape = self._framework.storage(info)
        if tuple(parameter.shape) != tuple(shape):
            raise ValueError(f"{self._path}: tensor {info.name} is {list(shape)}, parameter {name} {list(parameter.shape)}")
        if parameter.dtype != dtype and not converts:
            raise ValueError(
                f"{self._path}: tensor {info.name} is {info.dtype}, parameter {name} {parameter.dtype}: make the model with"
                f" the dtype of its file"
            )

    # --- memory ---

    def _set(self, module, attribute: str, tensor) -> None:
        if id(module) in self._quantized:
            self._quantized[id(module)].tensors[attribute] = tensor
        module._parameters[attribute] = self._torch.nn.Parameter(tensor, requires_grad=False)

    def _load_others(self, others) -> None:
        ranges: Dict[File, list] = {}
        tensors = []
        for module, attribute, file, info in others:
            tensors.append(self._framework.empty(*self._framework.storage(info), self.device))
            ranges.setdefault(file, []).append((info.offset, info.bytes, tensors[-1].data_ptr()))
        for file, its in ranges.items():
            file.load_host(its) if self._loader is None else self._loader.load_ranges(file, its)
        for (module, attribute, _, _), tensor in zip(others, tensors):
            if id(module) in self._quantized:
                tensor = tensor.to(module._parameters[attribute].dtype)
            self._set(module, attribute, tensor)
            self.device_bytes += tensor.nbytes

    def _hold(self, blocks: List[_Block], budget: Optional[int]) -> None:
        """Holds blocks on the GPU, the largest first, as long as they and slots for the others fit, and the rest on the host."""
        if budget is not None and self.device_bytes > budget:
            raise ValueError(f"gpu_budget: {self.device_bytes} bytes are needed for scratch and small parameters alone")
        # A held part is a little larger than its share of the file: it has control data, and small tensors unpacked.
        packed = {block: block.packed_estimate() * 101 // 100 for block in blocks}
        # The largest first; those of about the same size in an order that spreads them, so that copies and computing overlap.
        step = {block: round(math.log(max(1, packed[block]), 1.1)) for block in blocks}
        by_size = sorted(blocks, key=lambda block: (-step[block], _spread(blocks.index(block))))
        wanted: Set[_Block] = set()
        left: List[_Block] = []
        used = self.device_bytes
        if budget is None or used + sum(packed.values()) <= budget:
            wanted = set(blocks)
        else:
            for i, block in enumerate(by_size):
                slot = max(packed[other] for other in left + by_size[i + 1 :]) if left + by_size[i + 1 :] else 0
                if used + packed[block] + SLOTS * slot <= budget:
                    wanted.add(block)
                    used += packed[block]
                else:
                    left.append(block)
            used += SLOTS * max((packed[block] for block in left), default=0)
            if used > budget:
                raise ValueError(f"gpu_budget: at least {used} bytes and what is reserved are needed")
        for block in blocks:
            block.hold(self._loader, block in wanted)
            if block in wanted:
                self.device_bytes += block.held_bytes
            else:
                self.host_bytes += block.held_bytes
        self.blocks_on_device, self.blocks_on_host = len(wanted), len(blocks) - len(wanted)

    def _load_embeddings(self, embeddings) -> None:
        torch = self._torch
        for module, file, info in embeddings:
            dtype, shape = self._framework.storage(info)
            rows = torch.empty(shape, dtype=dtype)
            file.load_host([(info.offset, info.bytes, rows.data_ptr())])
            self.host_bytes += rows.nbytes
            # The parameter says where the model is; its content is set for each forward.
            self._set(module, "weight", torch.empty((1, 1), dtype=dtype, device=self.device).expand(shape))
            self._hook_embedding(module, rows)

    def _make_slots(self) -> None:
        if not self._host_blocks:
            return
        nbytes = max(block.held_bytes for block in self._host_blocks)
        self._slots = [_Slot(self._torch, nbytes, self.device) for _ in range(min(SLOTS, len(self._host_blocks)))]
        self.device_bytes += nbytes * len(self._slots)
        for slot, block in zip(self._slots, self._host_blocks):
            self._fetch(slot, block)

    def _place(self, block: _Block) -> None:
        """Makes the block's parameters views of scratch, and decodes before each forward of its module."""
        for module, attribute, _, info, place in block.parameters:
            dtype, shape = self._framework.storage(info)
            self._set(module, attribute, self.scratch[place : place + info.bytes].view(dtype).view(shape))
        self._hooks.append(block.module.register_forward_pre_hook(lambda *_, block=block: self._decode(block)))

    def _place_quantized(self) -> None:
        """Makes the weights of quantised layers behind the decoded bytes of their block."""
        roundings: dict = {}
        behind = {id(module): block.nbytes for block in self._blocks for module, *_ in block.parameters}
        for key, quantized in self._quantized.items():
            start = behind.get(key, 0)
            self._hooks += quantized.place(self.scratch[start : start + quantized.floats_bytes], roundings)

    # --- what happens at a forward ---

    def _hook_embedding(self, module, rows) -> None:
        state = {}

        def before(module, arguments):
            ids = arguments[0]
            found = rows[ids.reshape(-1).cpu()]
            state["weight"], state["padding"] = module._parameters["weight"], module.padding_idx
            self._set(module, "weight", found.to(self.device))
            module.padding_idx = None
            return (self._torch.arange(len(found), device=self.device).view(ids.shape), *arguments[1:])

        def after(module, arguments, result):
            module._parameters["weight"], module.padding_idx = state["weight"], state["padding"]
            return result

        self._hooks.append(module.register_forward_pre_hook(before))
        self._hooks.append(module.register_forward_hook(after, always_call=True))

    def _fetch(self, slot: _Slot, block: _Block) -> None:
        """Copies a block's packed bytes to a slot, as soon as what is there has been decoded."""
        self._copy_stream.wait_event(slot.used)
        place = slot.memory.data_ptr()
        for held in block.held:
            held.fetch(place, self._copy_stream)
            place += _aligned(held.nbytes)
        slot.fetched.record(self._copy_stream)
        slot.block = block

    def _slot_of(self, block: _Block) -> _Slot:
        for slot in self._slots:
            if slot.block is block:
                return slot
        # Out of order: it has to be waited for.  The slots of the blocks that follow are kept.
        self._fetch(self._slots[0], block)
        return self._slots[0]

    def _decode(self, block: _Block) -> None:
        stream: Any = None if self._on_cpu else self._torch.cuda.current_stream(self.device)
        base = self.scratch.data_ptr()
        if block.on_device:
            for held in block.held:
                held.decode(base, stream)
        else:
            slot = self._slot_of(block)
            stream.wait_event(slot.fetched)
            place = slot.memory.data_ptr()
            for held in block.held:
                held.decode(base, stream, place)
                place += _aligned(held.nbytes)
            slot.used.record(stream)
            waiting = {other.block for other in self._slots}
            at = self._host_blocks.index(block)
            following = self._host_blocks[at + 1 :] + self._host_blocks[: at + 1]
            self._fetch(slot, next((other for other in following if other not in waiting), block))
        if not block.is_checked:
            for held in block.held:
                held.check(stream)
            block.is_checked = True

    def close(self) -> None:
        """Removes the hooks and frees all memory; the model's parameters are without memory again."""
        torch = self._torch
        if not self._on_cpu:
            torch.cuda.synchronize(self.device)
        for hook in self._hooks:
            hook.remove()
        for quantized in self._quantized.values():
            quantized.restore()
        for module in self.model.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    module._parameters[name] = torch.nn.Parameter(parameter.to("meta"), requires_grad=False)
        for block in self._blocks:
            for held in block.held:
                held.close()
        self._hooks, self._slots, self._blocks, self._quantized, self.scratch = [], [], [], {}, None

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def stream(model, path: PATH, gpu_budget=None, device="cuda", reserve="512MiB", scratch=None) -> Stream:
    """Gives a model without weights those of packed files, which stay packed, and decodes them layer by layer as it runs.

        with wcx.no_weights():
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        wcx.stream(model, "llama-8b", gpu_budget="4GiB")
        model.generate(...)

    model: a torch module whose parameters are on the meta device, in the dtype of its files, for inference.  If its config says
    that compressed-tensors has quantised it, its layers are first given the parameters of the files.  path: a packed file or a
    directory of packed shards.  gpu_budget: memory of the GPU for everything, in bytes or as "4GiB"; reserve of it is left to
    torch's own kernels, activations and the key-value cache.  None: all packed bytes stay on the GPU.  device: a GPU, or "cpu",
    where blocks are decoded from their files by all cores.  scratch: the scratch of another Stream, for several models that run
    in turn.

    The results are bit by bit those of the model loaded whole.  Raises OSError for damage, with file, tensor and offset;
    ValueError if the budget is too small, a parameter and its tensor differ, or the model is quantised in another way; KeyError
    for a missing tensor; ImportError if compressed-tensors is needed and not installed.
    """
    return Stream(model, path, gpu_budget, device, reserve, scratch)
