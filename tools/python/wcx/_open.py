# SPDX-License-Identifier: MIT
"""safe_open and load_file, as safetensors has them, for packed files."""
import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Optional, Tuple

from ._file import PATH, File, Tensor, find_packed, open_file
from ._frameworks import Numpy, framework_of
from ._gpu import loader_for


def _device_kind(device) -> Tuple[str, Any]:
    """Returns ("cpu" | "cuda" | "meta" | "other", the device as the framework takes it)."""
    if device is None:
        return "cpu", "cpu"
    if isinstance(device, int):
        return "cuda", f"cuda:{device}"
    name = str(device)
    kind = name.split(":")[0]
    return (kind if kind in ("cpu", "cuda", "meta") else "other"), device


class Reader:
    """Loads tensors and parts of them from an open file, for one framework and device."""

    def __init__(self, file: File, framework: str, device):
        self.file = file
        self.framework = framework_of(framework)
        self.kind, self.device = _device_kind(device)
        if self.kind != "cpu" and isinstance(self.framework, Numpy):
            raise ValueError(f"{device}: numpy arrays are on the CPU")

    def load(self, parts) -> List[Any]:
        """Returns a tensor for each of (dtype, shape, offset, bytes), all loaded by one call."""
        first_device = "cpu" if self.kind == "other" else self.device
        tensors = [self.framework.empty(dtype, shape, first_device) for dtype, shape, _, _ in parts]
        if self.kind == "meta":
            return tensors
        ranges = [
            (offset, size, self.framework.address(tensor)) for tensor, (_, _, offset, size) in zip(tensors, parts) if size
        ]
        if self.kind == "cuda":
            loader_for(self.device).load_ranges(self.file, ranges)
        else:
            self.file.load_host(ranges)
        return [tensor.to(self.device) for tensor in tensors] if self.kind == "other" else tensors

    def load_whole(self, infos) -> List[Any]:
        return self.load([(*self.framework.storage(info), info.offset, info.bytes) for info in infos])


class Slice:
    """A tensor of a file of which parts can be loaded, by indexing with integers, slices and an ellipsis.

    Only the tiles that hold the rows of the part are decoded.  It stays usable when safe_open has been left.
    """

    def __init__(self, reader: Reader, info: Tensor):
        self._reader, self._info = reader, info

    def get_shape(self) -> List[int]:
        """Returns the shape as the header has it."""
        return list(self._info.shape)

    def get_dtype(self) -> str:
        """Returns the dtype's name in the header ("BF16")."""
        return self._info.dtype

    def _expand(self, key, dims: int) -> tuple:
        """Returns one integer or slice for each dimension."""
        key = key if isinstance(key, tuple) else (key,)
        if sum(part is Ellipsis for part in key) > 1:
            raise IndexError(f"{self._info.name}: more than one ellipsis")
        for part in key:
            if part is not Ellipsis and not isinstance(part, slice) and not hasattr(part, "__index__") or isinstance(part, bool):
                raise TypeError(f"{self._info.name}: index {part!r}: only integers, slices and an ellipsis are possible")
        given = sum(part is not Ellipsis for part in key)
        if given > dims:
            raise IndexError(f"{self._info.name}: {given} indices for {dims} dimensions")
        at = next((i for i, part in enumerate(key) if part is Ellipsis), len(key))
        return key[:at] + (slice(None),) * (dims - given) + key[at + 1 :]

    def __getitem__(self, key) -> Any:
        dtype, shape = self._reader.framework.storage(self._info)
        key, dims = list(self._expand(key, len(shape))), list(shape)
        elem_bytes = dtype.itemsize
        offset = self._info.offset
        stride = elem_bytes
        for size in dims:
            stride *= size
        while key and not isinstance(key[0], slice):  # a leading integer leaves one row
            size, index = dims.pop(0), key.pop(0).__index__()
            if not -size <= index < size:
                raise IndexError(f"{self._info.name}: index {index} is out of range for a dimension of {size}")
            stride //= size
            offset += index % size * stride
        first, step = 0, 1
        if dims:
            first, stop, step = key.pop(0).indices(dims[0])
            if step < 0:
                raise ValueError(f"{self._info.name}: a step must be greater than zero")
            count = len(range(first, stop, step))
            last = first + (count - 1) * step + 1 if count else first
            stride = stride // dims[0] if dims[0] else 0
            offset += first * stride
            dims[0] = last - first
            stride *= dims[0]
        (part,) = self._reader.load([(dtype, tuple(dims), offset, stride)])
        rest = (slice(None, None, step), *key) if dims else ()
        if any(not isinstance(i, slice) or i.indices(size) != (0, size, 1) for i, size in zip(rest, dims)):
            part = self._reader.framework.owned(part[rest])
        return part


class safe_open:
    """Opens a packed file, with the interface of safetensors.safe_open.

    filename may be a packed file, a file that a mount shows, or the name that a packed file had before (see find_packed);
    any other file is passed on to safetensors, whose object is then returned.  framework is "np" or "pt", device "cpu",
    "cuda", "cuda:N", N, or another device of torch.  backend is accepted and has no effect on packed files.

    Tensors are decoded when they are asked for: on the CPU by all cores straight into their memory, past FUSE; or on the
    GPU.  A damaged tile raises OSError with file, tensor and offset, and no tensor is handed out.
    """

    _reader: Optional[Reader]

    def __new__(cls, filename: PATH, framework: str, device="cpu", **options):
        packed = find_packed(filename)
        if packed is None:
            original = _safetensors(filename)
            return getattr(original, "_wcx_original", original)(filename, framework, device=device, **options)
        self = super().__new__(cls)
        self._reader = Reader(open_file(packed), framework, device)
        return self

    def __enter__(self) -> "safe_open":
        return self

    def __exit__(self, *exception) -> None:
        self._reader = None

    def _open(self) -> Reader:
        if self._reader is None:
            raise _error("File is closed")
        return self._reader

    def _info(self, name: str) -> Tensor:
        info = self._open().file.tensors.get(name)
        if info is None:
            raise _error(f"File does not contain tensor {name}")
        return info

    def keys(self) -> List[str]:
        """Returns the names of the tensors, sorted."""
        return sorted(self._open().file.tensors)

    def offset_keys(self) -> List[str]:
        """Returns the names of the tensors in the order of their data."""
        return list(self._open().file.tensors)

    def metadata(self) -> Optional[Dict[str, str]]:
        """Returns the header's __metadata__, or None."""
        return self._open().file.metadata()

    def tensors(self) -> List[Tensor]:
        """Returns the tensors' names, dtypes, shapes, offsets and sizes, in the order of their data."""
        return list(self._open().file.tensors.values())

    def get_tensor(self, name: str) -> Any:
        """Returns one tensor."""
        return self._open().load_whole([self._info(name)])[0]

    def get_tensors(self) -> Dict[str, Any]:
        """Returns all tensors, by name, loaded by one call."""
        reader = self._open()
        return dict(zip(reader.file.tensors, reader.load_whole(reader.file.tensors.values())))

    def get_slice(self, name: str) -> Slice:
        """Returns a Slice, of which parts can be loaded."""
        return Slice(self._open(), self._info(name))


def _safetensors(filename: PATH):
    """Returns safetensors.safe_open, for a file that is not packed."""
    if os.path.isdir(filename):  # of which safetensors says "No such device"
        raise IsADirectoryError(errno.EISDIR, "Is a directory; name a file in it", os.fsdecode(filename))
    try:
        from safetensors import safe_open as original
    except ImportError as error:
        os.stat(filename)  # raises FileNotFoundError
        raise ImportError(f"{os.fsdecode(filename)} is not packed: safetensors is needed to load it, and not installed") from error
    return original


def _error(text: str) -> Exception:
    """The exception that safetensors raises for misuse, where it is installed."""
    try:
        from safetensors import SafetensorError
    except ImportError:
        return ValueError(text)
    return SafetensorError(text)


def _default_framework(device) -> str:
    return "np" if _device_kind(device)[0] == "cpu" else "pt"


def load_file(path: PATH, device="cpu", framework: Optional[str] = None) -> Dict[str, Any]:
    """Returns all tensors of a file, by name.

    path is what safe_open takes.  framework is "np" (the default on the CPU) or "pt" (the default on other devices).
    """
    with safe_open(path, framework or _default_framework(device), device) as file:
        if isinstance(file, safe_open):
            return file.get_tensors()
        return {name: file.get_tensor(name) for name in file.keys()}


def _open_ahead(path: str) -> None:
    """Opens a packed file, so that load_file finds it open.  Errors are left to that."""
    try:
        packed = find_packed(path)
        if packed is not None:
            open_file(packed)
    except (OSError, ValueError):
        pass


def load_directory(path: PATH, device="cpu", framework: Optional[str] = None) -> Dict[str, Any]:
    """Returns all tensors of a model directory, by name.

    Loads what *.safetensors.index.json lists, or the one safetensors file in the directory; they may be packed.  Shards are
    loaded one after the other, by all threads; to a GPU, by one loader, which later calls share.  Raises
    ValueError if a tensor is not where the index says, FileNotFoundError if there is no model.
    """
    directory = os.fsdecode(path)
    names = sorted(os.listdir(directory))
    indices = [name for name in names if name.endswith(".safetensors.index.json")]
    if len(indices) > 1:
        raise ValueError(f"{directory}: more than one index: {', '.join(indices)}")
    if indices:
        with open(os.path.join(directory, indices[0]), "rb") as file:
            weight_map = json.load(file)["weight_map"]
    else:
        weight_map = None
    if weight_map is None:
        shards = sorted({name.removesuffix(".wcx") for name in names if name.removesuffix(".wcx").endswith(".safetensors")})
        if not shards:
            raise FileNotFoundError(f"{directory}: no safetensors file")
        if len(shards) > 1:
            raise ValueError(f"{directory}: several safetensors files and no index: {', '.join(shards)}")
    else:
        shards = sorted(set(weight_map.values()))
        outside = [name for name in shards if os.path.basename(name) != name]
        if outside:
            raise ValueError(f"{directory}: the index names {outside[0]!r}, which is not a name in the directory")
    tensors: Dict[str, Any] = {}
    paths = [os.path.join(directory, shard) for shard in shards]
    with ThreadPoolExecutor(1) as opener:  # opens a shard while the one before it is loaded
        for path, following in zip(paths, paths[1:] + [None]):
            if following is not None:
                opener.submit(_open_ahead, following)
            tensors.update(load_file(path, device, framework))
    if weight_map is not None:
        missing = sorted(set(weight_map) - set(tensors))
        if missing:
            raise ValueError(f"{directory}: {weight_map[missing[0]]} has no tensor {missing[0]!r}, which the index names")
        tensors = {name: tensors[name] for name in weight_map}
    return tensors
