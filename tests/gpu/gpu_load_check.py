# SPDX-License-Identifier: MIT
"""gpu_load_check.py PACKED[,BASE] ORIGINAL [...] - checks that libwcx loads files correctly into GPU memory.

Loads each packed file as a whole, tensor by tensor, in parts, to odd addresses, behind work in a stream, pinned, and after
damage, and compares with the bytes of the original.  Of a file that is packed against a base, which is beside it, also with
the base damaged and missing.  Needs torch and a GPU; WCX_LIBRARY names libwcx.so.  Exits with 77 without one.
"""
import os
import random
import shutil
import sys
import tempfile

import numpy as np
import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools", "python"))
from wcx import File, Loader, safe_open  # noqa: E402

GUARD = 64


def original_bytes(path):
    return np.fromfile(path, dtype=np.uint8)


def load_ranges(loader, file, ranges, shifts):
    """Loads ranges into one buffer, each `shift` bytes behind a multiple of 256.  Checks the bytes between them."""
    starts, end = [], GUARD
    for (offset, size), shift in zip(ranges, shifts):
        starts.append((end + 255) // 256 * 256 + shift)
        end = starts[-1] + size + GUARD
    buffer = torch.full((end,), 0xA5, dtype=torch.uint8, device=loader.device)
    loader.load_ranges(file, [(o, n, buffer.data_ptr() + s) for (o, n), s in zip(ranges, starts)])
    host = buffer.cpu().numpy()
    untouched = np.ones(end, dtype=bool)
    parts = []
    for (_, size), start in zip(ranges, starts):
        parts.append(host[start : start + size])
        untouched[start : start + size] = False
    assert (host[untouched] == 0xA5).all(), "bytes outside the targets were written"
    return parts


def check_ranges(loader, file, original, ranges, shifts, what):
    for (offset, size), part in zip(ranges, load_ranges(loader, file, ranges, shifts)):
        assert np.array_equal(part, original[offset : offset + size]), f"{what}: offset {offset}, {size} bytes"


def check_file(loader, packed, original_path, pinned):
    original = original_bytes(original_path)
    rng = random.Random(1)
    with File(packed) as file:
        if pinned:
            loader.pin(file)
        every = [(info.offset, info.bytes) for info in file.tensors.values()]
        check_ranges(loader, file, original, [(0, len(original))], [0], "whole file")
        check_ranges(loader, file, original, every, [0] * len(every), "every tensor")
        shuffled = rng.sample(every, len(every))
        check_ranges(loader, file, original, shuffled, [rng.randrange(16) for _ in shuffled], "odd addresses")
        for _ in range(10):
            cuts = sorted(rng.randrange(len(original) + 1) for _ in range(rng.randrange(2, 9)))
            parts = [(a, b - a) for a, b in zip(cuts[::2], cuts[1::2])]
            check_ranges(loader, file, original, parts, [rng.randrange(16) for _ in parts], "parts")
        for _ in range(10):
            # Short ranges close together: several in a tile, in a row of tiles, or in two rows of tiles.
            at, parts = rng.randrange(len(original) // 2), []
            for _ in range(rng.randrange(3, 40)):
                size = min(rng.randrange(1, 3000), len(original) - at)
                parts.append((at, size))
                at = min(at + size + rng.randrange(1, 200000), len(original))
            check_ranges(loader, file, original, parts, [rng.randrange(16) for _ in parts], "short parts")
        for bad in ([(len(original) - 1, 2)], [(0, 10), (9, 5)]):
            try:
                load_ranges(loader, file, bad, [0] * len(bad))
                raise AssertionError(f"{bad} was accepted")
            except OSError as error:
                assert packed in str(error)
    print(f"{packed}{', pinned' if pinned else ''}: whole, {len(every)} tensors, and parts of it are correct")


def check_stream(loader, packed):
    """Work that is in the stream before the load must run before it, and work submitted later after it."""
    with File(packed) as file:
        reference = loader.load(file)
        stream = torch.cuda.Stream(loader.device)
        with torch.cuda.stream(stream):
            tensors, ranges = {}, []
            for name, info in file.tensors.items():
                tensors[name] = torch.empty(max(info.bytes, 1), dtype=torch.uint8, device=loader.device)
                ranges.append((info.offset, info.bytes, tensors[name].data_ptr()))
            torch.cuda._sleep(200_000_000)
            for tensor in tensors.values():
                tensor.fill_(0xA5)
            loader.load_ranges(file, ranges)
            copies = {name: tensor.clone() for name, tensor in tensors.items()}
        torch.cuda.synchronize()
        for name, info in file.tensors.items():
            expected = reference[name].contiguous().view(-1).view(torch.uint8)
            assert torch.equal(copies[name][: info.bytes], expected), name
    print(f"{packed}: loading keeps the order of the stream")


def check_safe_open(loader, packed, original_path):
    """Tensors and random rows of them, on the GPU, against safetensors on the CPU."""
    rng = random.Random(3)
    with safe_open(packed, "pt", device=str(loader.device)) as ours, safe_open(original_path, "pt") as theirs:
        parts = 0
        for info in ours.tensors():
            try:
                expected = theirs.get_tensor(info.name)
            except Exception:  # a type that torch or safetensors lack
                continue
            found = [ours.get_tensor(info.name)]
            wanted = [expected]
            if expected.ndim and expected.shape[0] > 1:
                a, b = sorted(rng.sample(range(expected.shape[0] + 1), 2))
                found.append(ours.get_slice(info.name)[a:b])
                wanted.append(expected[a:b])
                parts += 1
            for a, b in zip(found, wanted):
                assert (a.dtype, a.shape, a.device) == (b.dtype, b.shape, loader.device), info.name
                assert torch.equal(a.cpu().reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8)), info.name
    print(f"{packed}: safe_open gives the right tensors and {parts} parts on {loader.device}")


def copy_to(folder, name, packed, base):
    """Copies a packed file, and its base, if it has one, and returns the path of the copy."""
    if base:
        shutil.copy(base, folder)
    return shutil.copyfile(packed, os.path.join(folder, name))


def flip(path, at, bit):
    with open(path, "r+b") as damaged:
        damaged.seek(at)
        value = damaged.read(1)[0]
        damaged.seek(at)
        damaged.write(bytes([value ^ bit]))


def check_base(loader, packed, original_path, base):
    """Flips one bit of the base in turn, and takes it away: loads fail and name both files; other tensors are loaded."""
    original = original_bytes(original_path)
    rng = random.Random(4)
    with tempfile.TemporaryDirectory() as folder:
        path = copy_to(folder, "tuned.wcx", packed, base)
        base = os.path.join(folder, os.path.basename(base))
        size, named, loaded = os.path.getsize(base), 0, 0
        for _ in range(20):
            at, bit = rng.randrange(192, size * 9 // 10), 1 << rng.randrange(8)
            flip(base, at, bit)
            with File(path) as file:
                for info in file.tensors.values():
                    try:
                        check_ranges(loader, file, original, [(info.offset, info.bytes)], [0], "with a damaged base")
                        loaded += 1
                    except OSError as error:
                        text = str(error)
                        named += path in text and base in text and "damaged" in text and f"tensor `{info.name}`" in text
            flip(base, at, bit)
        assert named >= 10, f"only {named} errors name both files and the tensor"
        with File(path) as file:
            check_ranges(loader, file, original, [(0, len(original))], [0], "after damage of the base")
        os.rename(base, os.path.join(folder, "away"))
        with open(os.path.join(folder, "away"), "r+b") as away:
            away.truncate(100)
        try:
            with File(path) as file:
                load_ranges(loader, file, [(0, len(original))], [0])
            raise AssertionError("loaded without its base")
        except OSError as error:
            assert path in str(error) and "base " in str(error) and "offset" in str(error), str(error)
    print(f"{packed}: damage in its base is reported, in {named} of 20 cases, {loaded} tensors were loaded then, "
          "and so is its absence")


def check_damage(loader, packed, original_path, base):
    """Flips one bit behind the superblock: opening fails if it is in the index; otherwise loading fails and names the tile."""
    original = original_bytes(original_path)
    rng = random.Random(2)
    with tempfile.TemporaryDirectory() as folder:
        path = copy_to(folder, "damaged.wcx", packed, base)
        size = os.path.getsize(path)
        named = 0
        for _ in range(20):
            at, bit = rng.randrange(128, size * 9 // 10), 1 << rng.randrange(8)
            flip(path, at, bit)
            try:
                with File(path) as file:
                    load_ranges(loader, file, [(0, len(original))], [0])
                print(f"{packed}: a flipped bit at {at} changes nothing: padding")
            except OSError as error:
                assert path in str(error), str(error)
                named += "damaged" in str(error) and "tile" in str(error) and "offset" in str(error)
            flip(path, at, bit)
        assert named >= 10, f"only {named} errors name a tile"
        with File(path) as file:  # the loader stays usable
            check_ranges(loader, file, original, [(0, len(original))], [0], "after damage")
    print(f"{packed}: damage is reported, in {named} of 20 cases with tile and offset, and the loader stays usable")


def check_pinned(loader, packed, original_path, base):
    """A pinned file is a copy: it may be overwritten or truncated.  A damaged file is not pinned, and the error names why."""
    original = original_bytes(original_path)
    with tempfile.TemporaryDirectory() as folder:
        path = copy_to(folder, "pinned.wcx", packed, base)
        size = os.path.getsize(path)
        with File(path) as file:
            file.pin(loader.device)
            with open(path, "r+b") as changed:
                changed.write(os.urandom(size // 2))
            check_ranges(loader, file, original, [(0, len(original))], [0], "pinned, then overwritten")
            os.truncate(path, 100)
            check_ranges(loader, file, original, [(0, len(original))], [0], "pinned, then truncated")
        shutil.copyfile(packed, path)
        with File(path) as file:
            with open(path, "r+b") as damaged:
                damaged.seek(size // 2)
                damaged.write(os.urandom(4096))
            try:
                file.pin(loader.device)
                raise AssertionError("a damaged file was pinned")
            except OSError as error:
                assert path in str(error) and "damaged" in str(error) and "offset" in str(error), str(error)
            first = next(iter(file.tensors.values()))
            check_ranges(loader, file, original, [(first.offset, min(first.bytes, 1000))], [0], "not pinned")
    print(f"{packed}: a pinned file may change, and a damaged one is not pinned")


def main():
    files = sys.argv[1:]
    if not files or len(files) % 2:
        sys.exit(__doc__)
    if not torch.cuda.is_available():
        print("skipped: torch finds no GPU")
        sys.exit(77)
    for threads in (0, 1):
        loader = Loader("cuda", threads)
        for names, original in zip(files[::2], files[1::2]):
            packed, _, base = names.partition(",")
            check_file(loader, packed, original, False)
            check_file(loader, packed, original, True)
            check_pinned(loader, packed, original, base)
            check_stream(loader, packed)
            check_safe_open(loader, packed, original)
            check_damage(loader, packed, original, base)
            if base:
                check_base(loader, packed, original, base)
        loader.close()
    try:
        Loader(torch.device("cuda", 99))
        raise AssertionError("GPU 99 exists")
    except OSError as error:
        print(error)


if __name__ == "__main__":
    main()
