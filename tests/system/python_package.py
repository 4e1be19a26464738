# SPDX-License-Identifier: MIT
"""python_package.py [TEST...] - tests of the Python package wcx, with torch and without it.

Environment: WCX (the packer), WCX_LIBRARY (libwcx.so), FIXTURES, WCX_TEST_DIR (a folder to work in) and, for tests against a
mount, WCX_TEST_STORE and WCX_TEST_MOUNT.
"""
import copy
import ctypes
import errno
import gc
import glob
import json
import os
import pathlib
import pickle
import random
import signal
import subprocess
import sys
import threading
import unittest
import unittest.mock
import warnings

import numpy as np

import wcx
from wcx._file import open_file
from wcx._gpu import Held
from wcx._library import library

try:
    import torch
except ImportError:
    torch = None
try:
    import ml_dtypes
except ImportError:
    ml_dtypes = None
import safetensors
import safetensors.numpy
from safetensors import safe_open as imported_before

WORK = pathlib.Path(os.environ["WCX_TEST_DIR"])
MOUNT = os.environ.get("WCX_TEST_MOUNT")
ORIGINAL, PACKED = WORK / "mixed.safetensors", WORK / "packed" / "mixed.safetensors.wcx"
SMALL = WORK / "small.safetensors"


def pack(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([os.environ["WCX"], "pack", "--force", "-q", source, target], check=True)


def make_files():
    """A checkpoint of all common dtypes and shapes (make_int8.py tells how), and one of the dtypes that it lacks."""
    make = os.path.join(os.environ["FIXTURES"], "make_int8.py")
    subprocess.run([sys.executable, make, ORIGINAL, "--mib", "6"], check=True, stdout=subprocess.DEVNULL)
    rng = np.random.default_rng(16)
    kinds = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F8_E5M2": 8, "U16": 16}
    kinds["I32"] = 32  # whose bytes are alike, so that they are coded by byte
    header, data = {"__metadata__": {"format": "pt", "note": "größer"}}, b""
    for name, bits in kinds.items():
        part = rng.normal(128, 20, 64 * 32 * bits // 8).clip(0, 255).astype(np.uint8).tobytes()
        header[name.lower()] = {"dtype": name, "shape": [64, 32], "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(header).encode()
    SMALL.write_bytes(len(text).to_bytes(8, "little") + text + data)
    pack(ORIGINAL, PACKED)
    pack(SMALL, WORK / "packed" / "small.safetensors.wcx")


def header_of(path):
    data = pathlib.Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), memoryview(data)[8 + size :]


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


class Loading(unittest.TestCase):
    def test_every_tensor_has_the_bytes_dtype_and_shape_of_the_original(self):
        for original, packed in ((ORIGINAL, PACKED), (SMALL, WORK / "packed" / "small.safetensors.wcx")):
            header, data = header_of(original)
            header.pop("__metadata__", None)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tensors = wcx.load_file(packed)
            self.assertEqual(set(tensors), set(header))
            for name, tensor in tensors.items():
                begin, end = header[name]["data_offsets"]
                self.assertEqual(tensor.tobytes(), bytes(data[begin:end]), name)
                if not header[name]["dtype"].startswith(("F4", "F6")):
                    self.assertEqual(list(tensor.shape), header[name]["shape"], name)

    def test_numpy_tensors_are_what_safetensors_returns(self):
        if ml_dtypes is None:
            self.skipTest("ml_dtypes is not installed")
        found, compared = wcx.load_file(PACKED), 0
        with safetensors.safe_open(ORIGINAL, "np") as file:
            for name in file.keys():
                try:
                    expected = file.get_tensor(name)
                except AttributeError:  # safetensors has F8 for torch only
                    continue
                self.assertTrue(same(found[name], expected), name)
                compared += 1
        self.assertGreater(compared, 20)

    def test_types_that_numpy_lacks_come_as_bytes_with_a_warning(self):
        with wcx.safe_open(WORK / "packed" / "small.safetensors.wcx", "np") as file:
            with self.assertWarnsRegex(UserWarning, "f6_e2m3: numpy has no type for F6_E2M3"):
                tensor = file.get_tensor("f6_e2m3")
        self.assertEqual((tensor.dtype, tensor.shape), (np.uint8, (64 * 32 * 6 // 8,)))

    def test_a_plain_file_is_passed_on_to_safetensors(self):
        plain = WORK / "plain.safetensors"
        safetensors.numpy.save_file({"a": np.random.default_rng(1).normal(size=(30, 40))}, plain)
        self.assertTrue(same(wcx.load_file(plain)["a"], safetensors.numpy.load_file(plain)["a"]))
        with wcx.safe_open(ORIGINAL, "np") as file:
            self.assertIsInstance(file, safetensors.safe_open)

    def test_a_missing_file_is_named(self):
        with self.assertRaises(FileNotFoundError) as caught:
            wcx.load_file(WORK / "nothing")
        self.assertIn("nothing", str(caught.exception))

    def test_a_directory_is_refused_as_one(self):
        with self.assertRaisesRegex(IsADirectoryError, "name a file in it"):
            wcx.load_file(WORK)

    def test_without_safetensors_other_files_are_refused_by_name(self):
        code = """
import sys
sys.modules["safetensors"] = None
import wcx
assert len(wcx.load_file(sys.argv[1])) > 20
for path, error, text in (("nothing", FileNotFoundError, "nothing"), (sys.argv[2], ImportError, "is not packed")):
    try:
        wcx.load_file(path)
        raise AssertionError(path)
    except error as caught:
        assert text in str(caught), caught
"""
        subprocess.run([sys.executable, "-W", "ignore", "-c", code, PACKED, ORIGINAL], check=True)

    def test_wrong_frameworks_and_devices_are_refused(self):
        with self.assertRaisesRegex(ValueError, "framework 'tensorflow' is not known"):
            wcx.safe_open(PACKED, "tensorflow")
        with self.assertRaisesRegex(ValueError, "numpy arrays are on the CPU"):
            wcx.safe_open(PACKED, "np", device="cuda")

    def test_eight_threads_load_from_one_file(self):
        expected, failures = wcx.load_file(PACKED), []

        def load(seed):
            with wcx.safe_open(PACKED, "np") as file:
                for name in random.Random(seed).sample(file.keys(), len(file.keys())):
                    if not same(file.get_tensor(name), expected[name]):
                        failures.append(name)

        threads = [threading.Thread(target=load, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])

    def test_damage_raises_with_file_tensor_and_offset_and_spares_other_tensors(self):
        damaged = WORK / "damaged.wcx"
        data = bytearray(PACKED.read_bytes())
        expected = wcx.load_file(PACKED)
        data[len(data) // 2] ^= 1
        damaged.write_bytes(data)
        with self.assertRaises(OSError) as caught:
            wcx.load_file(damaged)
        self.assertEqual(caught.exception.errno, errno.EBADMSG)
        self.assertRegex(str(caught.exception), r"damaged\.wcx: tensor `.+', tile \d+ \(offset \d+".replace("'", "."))
        failed = []
        with wcx.safe_open(damaged, "np") as file:
            for name in file.keys():
                try:
                    self.assertTrue(same(file.get_tensor(name), expected[name]))
                except OSError:
                    failed.append(name)
        self.assertTrue(1 <= len(failed) <= 2, failed)

    def test_what_is_closed_raises_and_is_freed_once(self):
        file, closed = wcx.File(PACKED), wcx.File(PACKED)
        for use in (copy.copy, copy.deepcopy, pickle.dumps):
            self.assertRaises(TypeError, use, file)
        self.assertEqual(file.bytes, ORIGINAL.stat().st_size)
        closed.close()
        closed.close()
        for use in (lambda: closed.bytes, lambda: closed.sha256, closed.metadata, lambda: closed.read(0, 1), closed.__enter__,
                    lambda: closed.load_host([(0, 1, 0)]), lambda: closed.load_host([])):
            self.assertRaisesRegex(ValueError, "mixed.* has been closed", use)

    def test_loaders_and_held_parts_that_are_closed_raise(self):
        loader, held = wcx.Loader.__new__(wcx.Loader), Held.__new__(Held)  # as after close(): they need a GPU
        loader._lock, loader._framework = threading.Lock(), unittest.mock.MagicMock()
        file, stream = wcx.File(PACKED), unittest.mock.MagicMock()
        for use in (lambda: loader.load(file, []), lambda: loader.load_ranges(file, []), lambda: loader.pin(file),
                    lambda: Held(loader, file, [], True), lambda: held.fetch(0, stream), lambda: held.decode(0, stream),
                    lambda: held.check(stream)):
            with unittest.mock.patch.object(loader, "device", None, create=True):
                self.assertRaisesRegex(ValueError, "has been closed", use)
        for one in (loader, held):
            one.close()
            self.assertRaises(TypeError, copy.copy, one)

    def test_a_loader_that_nobody_refers_to_is_freed(self):
        for kind, function in ((wcx.Loader, "wcx_loader_close"), (Held, "wcx_held_close"), (wcx.File, "wcx_file_close")):
            with unittest.mock.patch.object(library, function) as close:
                one = kind.__new__(kind)
                one._handle, one._process = ctypes.c_void_p(8), os.getpid()
                del one
                gc.collect()
                self.assertEqual(close.call_count, 1, kind)

    def test_a_forked_child_does_not_free_what_is_its_parents(self):
        for kind, function in ((wcx.Loader, "wcx_loader_close"), (Held, "wcx_held_close"), (wcx.File, "wcx_file_close")):
            with unittest.mock.patch.object(library, function) as close:
                one = kind.__new__(kind)
                one._handle, one._process = ctypes.c_void_p(8), os.getpid() + 1  # as in a child
                one.close()
                close.assert_not_called()

    def test_children_forked_while_threads_load_can_load_too(self):
        expected, stop = wcx.load_file(PACKED), threading.Event()

        def read():
            while not stop.is_set():
                file = open_file(PACKED)  # as load_file does
                file.read(0, file.bytes)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(20):
                child = os.fork()
                if child == 0:
                    signal.alarm(60)  # ends it, should it wait for a lock
                    open_file(PACKED).read(0, 1 << 20)
                    found = wcx.load_file(PACKED)
                    os._exit(not all(same(found[name], expected[name]) for name in expected))
                self.assertEqual(os.waitpid(child, 0)[1], 0)
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def test_numbers_that_do_not_fit_are_refused(self):
        file, buffer = wcx.File(PACKED), ctypes.create_string_buffer(8)
        address = ctypes.addressof(buffer)
        for use in (lambda: file.read(-8, 8), lambda: file.read(-(1 << 64), 8), lambda: file.load_host([(1 << 64, 8, address)]),
                    lambda: file.load_host([(0, -1, address)]), lambda: file.load_host([(0, 8, -1)]),
                    lambda: file.load_host([(0, 8, address)], threads=1 << 32)):
            self.assertRaisesRegex(ValueError, "out of range", use)
        file.load_host([(0, 8, address)])
        self.assertEqual(buffer.raw, file.read(0, 8))
        self.assertEqual(buffer.raw, file.read(np.uint64(0), np.int32(8)))
        self.assertRaises(TypeError, file.read, 0.5, 8)

    def test_null_bytes_in_paths_and_names_are_refused(self):
        self.assertRaisesRegex(ValueError, "null byte", wcx.File, f"{PACKED}\0junk")
        original = WORK / "nul.safetensors"
        safetensors.numpy.save_file({"a\0b": np.arange(4), "a\0c": np.arange(5)}, original)
        pack(original, WORK / "nul.wcx")
        with self.assertRaisesRegex(OSError, r"nul\.wcx: tensor a: U\+0000 in its name") as caught:
            wcx.File(WORK / "nul.wcx")
        self.assertEqual(caught.exception.errno, errno.ENOTSUP)

    def test_no_file_is_at_a_path_with_a_null_byte(self):
        self.assertIsNone(wcx.find_packed("a\0b.safetensors"))
        with wcx.accelerate():
            self.assertFalse(os.path.exists("a\0b.safetensors"))
            self.assertFalse(os.path.isfile("a\0b.safetensors"))

    def test_a_file_that_is_replaced_is_seen(self):
        path = WORK / "replaced.wcx"
        pack(SMALL, path)
        self.assertIn("u16", wcx.File(path).tensors)
        with wcx.safe_open(path, "np") as file:
            self.assertIn("u16", file.keys())
        pack(ORIGINAL, path)
        with wcx.safe_open(path, "np") as file:
            self.assertNotIn("u16", file.keys())


class SafeOpen(unittest.TestCase):
    def test_it_answers_as_safetensors_does(self):
        for original, packed in ((ORIGINAL, PACKED), (SMALL, WORK / "packed" / "small.safetensors.wcx")):
            with safetensors.safe_open(original, "np") as theirs, wcx.safe_open(packed, "np") as ours:
                self.assertEqual(ours.keys(), sorted(theirs.keys()))
                order = [[n for n in f.offset_keys() if 0 not in f.get_slice(n).get_shape()] for f in (ours, theirs)]
                self.assertEqual(order[0], order[1])
                self.assertEqual(ours.metadata(), theirs.metadata())
                for name in ours.keys():
                    a, b = ours.get_slice(name), theirs.get_slice(name)
                    self.assertEqual((a.get_shape(), a.get_dtype()), (list(b.get_shape()), b.get_dtype()))

    def test_misuse_raises_what_safetensors_raises(self):
        with wcx.safe_open(PACKED, "np") as file:
            with self.assertRaisesRegex(safetensors.SafetensorError, "File does not contain tensor nobody"):
                file.get_tensor("nobody")
        with self.assertRaisesRegex(safetensors.SafetensorError, "File is closed"):
            file.get_tensor("nobody")

    def test_tensors_describes_every_tensor(self):
        header, _ = header_of(ORIGINAL)
        header.pop("__metadata__", None)
        with wcx.safe_open(PACKED, "np") as file:
            described = {info.name: (info.dtype, list(info.shape), info.bytes) for info in file.tensors()}
        expected = {
            name: (its["dtype"], its["shape"], its["data_offsets"][1] - its["data_offsets"][0]) for name, its in header.items()
        }
        self.assertEqual(described, expected)

    def test_parts_are_those_of_the_whole_tensor(self):
        rng, indices = random.Random(7), 0
        with wcx.safe_open(PACKED, "np") as file:
            for name in file.keys():
                whole, part_of = file.get_tensor(name), file.get_slice(name)
                if whole.nbytes > 1 << 20:
                    tries = 4
                else:
                    tries = 12
                for _ in range(tries):
                    key = tuple(self.random_index(rng, size) for size in whole.shape[: rng.randint(0, whole.ndim)])
                    if rng.random() < 0.3:
                        key += (Ellipsis,)
                    key = key[0] if len(key) == 1 else key
                    try:
                        expected = whole[key]
                    except IndexError:
                        with self.assertRaises(IndexError):
                            part_of[key]
                        continue
                    self.assertTrue(same(part_of[key], expected), f"{name}[{key}]")
                    indices += 1
        self.assertGreater(indices, 100)

    @staticmethod
    def random_index(rng, size):
        def bound():
            return rng.choice([None, rng.randint(-size - 2, size + 2)])

        return rng.choice([rng.randint(-size - 1, size), slice(bound(), bound()), slice(bound(), bound(), rng.randint(1, 5))])

    def test_other_indices_are_refused(self):
        with wcx.safe_open(PACKED, "np") as file:
            name = next(info.name for info in file.tensors() if len(info.shape) == 2 and 0 not in info.shape)
            part_of = file.get_slice(name)
            for key, error in (
                ([0, 1], TypeError),
                (None, TypeError),
                (True, TypeError),
                ((0, 0, 0), IndexError),
                ((..., ...), IndexError),
                (slice(None, None, -1), ValueError),
            ):
                with self.assertRaises(error, msg=str(key)):
                    part_of[key]

    def test_a_slice_outlives_its_file(self):
        expected = wcx.load_file(PACKED)
        with wcx.safe_open(PACKED, "np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
        self.assertTrue(all(same(slices[name][...], expected[name]) for name in expected))


class Paths(unittest.TestCase):
    def test_a_packed_file_is_found_by_its_former_name_and_through_links(self):
        directory = WORK / "cache"
        (directory / "blobs").mkdir(parents=True)
        (directory / "snapshots").mkdir()
        blob = directory / "blobs" / "0123abcd"
        os.link(PACKED, f"{blob}.wcx")
        link = directory / "snapshots" / "model.safetensors"
        link.symlink_to("../blobs/0123abcd")
        for path in (blob, str(link), os.fsencode(link), f"{blob}.wcx"):
            self.assertEqual(wcx.find_packed(path), f"{blob}.wcx")
        self.assertIsNone(wcx.find_packed(ORIGINAL))
        self.assertIsNone(wcx.find_packed(WORK / "nothing"))
        self.assertIsNone(wcx.find_packed(directory))

    def test_fifos_and_other_files_named_wcx_are_not_opened(self):
        os.mkfifo(WORK / "pipe.wcx")
        (WORK / "text.wcx").write_text("no packed file")
        self.assertIsNone(wcx.find_packed(WORK / "pipe"))
        self.assertIsNone(wcx.find_packed(WORK / "pipe.wcx"))
        self.assertIsNone(wcx.find_packed(WORK / "text"))

    @unittest.skipUnless(MOUNT, "needs a mount")
    def test_the_packed_file_behind_a_mount_is_found(self):
        shown = os.path.join(MOUNT, "mixed.safetensors")
        try:
            os.getxattr(shown, "user.wcx.sha256")
        except OSError:
            self.skipTest("this wcxfs does not tell the SHA-256")
        self.assertEqual(wcx.find_packed(shown), os.path.join(os.environ["WCX_TEST_STORE"], "mixed.safetensors.wcx"))
        found, expected = wcx.load_file(shown), wcx.load_file(PACKED)
        self.assertTrue(all(same(found[name], expected[name]) for name in expected))
        self.assertIsNone(wcx.find_packed(os.path.join(MOUNT, "plain")))


class Directories(unittest.TestCase):
    def test_a_sharded_model_is_one_call(self):
        directory = WORK / "sharded"
        directory.mkdir()
        tensors = wcx.load_file(PACKED)
        names = [name for name in sorted(tensors) if tensors[name].dtype.kind in "iuf"]
        weight_map = {}
        for i in range(3):
            shard = f"model-{i + 1:05}-of-00003.safetensors"
            part = {name: tensors[name] for name in names[i::3]}
            safetensors.numpy.save_file(part, directory / shard)
            weight_map.update(dict.fromkeys(part, shard))
            if i != 1:  # one shard stays as it is
                pack(directory / shard, directory / f"{shard}.wcx")
                (directory / shard).unlink()
        index = directory / "model.safetensors.index.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        found = wcx.load_directory(directory)
        self.assertEqual(list(found), list(weight_map))
        self.assertTrue(all(same(found[name], tensors[name]) for name in names))
        index.write_text(json.dumps({"weight_map": {**weight_map, "ghost": "model-00001-of-00003.safetensors"}}))
        with self.assertRaisesRegex(ValueError, "has no tensor 'ghost'"):
            wcx.load_directory(directory)
        index.write_text(json.dumps({"weight_map": {"a": "../mixed.safetensors"}}))
        with self.assertRaisesRegex(ValueError, "not a name in the directory"):
            wcx.load_directory(directory)

    def test_an_index_is_utf_8_whatever_the_locale_is(self):
        directory = WORK / "größe"
        directory.mkdir()
        safetensors.numpy.save_file({"größe": np.arange(9)}, WORK / "one.safetensors")
        pack(WORK / "one.safetensors", directory / "model.safetensors.wcx")
        text = json.dumps({"weight_map": {"größe": "model.safetensors"}}, ensure_ascii=False)
        (directory / "model.safetensors.index.json").write_text(text, encoding="utf-8")
        code = "import sys, wcx; assert wcx.load_directory(sys.argv[1])['gr\\xf6\\xdfe'][8] == 8"
        environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
        subprocess.run([sys.executable, "-W", "ignore", "-c", code, directory], env=environment, check=True)

    def test_a_directory_with_one_file_needs_no_index(self):
        directory = WORK / "single"
        directory.mkdir()
        with self.assertRaises(FileNotFoundError):
            wcx.load_directory(directory)
        os.link(PACKED, directory / "model.safetensors.wcx")
        self.assertEqual(set(wcx.load_directory(directory)), set(wcx.load_file(PACKED)))


class Accelerate(unittest.TestCase):
    def test_safetensors_loads_packed_files_until_it_is_undone(self):
        name = WORK / "packed" / "mixed.safetensors"
        before = (safetensors.safe_open, os.path.isfile, os.path.exists, glob.glob)
        expected = wcx.load_file(PACKED)
        with wcx.accelerate():
            found = safetensors.numpy.load_file(name)
            self.assertTrue(all(same(found[key], expected[key]) for key in expected))
            with imported_before(name, framework="np") as file:
                self.assertIsInstance(file, wcx.safe_open)
            self.assertTrue(os.path.isfile(name) and os.path.exists(str(name)))
            self.assertFalse(os.path.isfile(WORK / "packed" / "other.safetensors") or os.path.isfile(WORK / "nothing"))
            self.assertEqual(glob.glob(f"{WORK}/packed/mi*.safetensors"), [str(name)])
            with safetensors.safe_open(ORIGINAL, framework="np") as file:
                self.assertIs(type(file), before[0])
        self.assertEqual((safetensors.safe_open, os.path.isfile, os.path.exists, glob.glob), before)
        self.assertIs(imported_before, before[0])
        with self.assertRaises(FileNotFoundError):
            safetensors.numpy.load_file(name)

    def test_it_may_be_nested_and_undone_twice(self):
        before = safetensors.safe_open
        outer, inner = wcx.accelerate(), wcx.accelerate()
        outer.undo()
        outer.undo()
        self.assertIsNot(safetensors.safe_open, before)
        inner.undo()
        self.assertIs(safetensors.safe_open, before)

    def test_modules_imported_meanwhile_are_restored(self):
        module = WORK / "imported_meanwhile.py"
        module.write_text("from safetensors import safe_open\n")
        sys.path.insert(0, str(WORK))
        before = safetensors.safe_open
        with wcx.accelerate():
            import imported_meanwhile

            self.assertIsNot(imported_meanwhile.safe_open, before)
        self.assertIs(imported_meanwhile.safe_open, before)

    def test_a_loader_that_lists_a_directory_and_opens_each_file_finds_packed_ones(self):
        expected, before = wcx.load_file(PACKED), safetensors.safe_open
        for _ in range(2):  # vLLM allows itself to call plugins again
            wcx._accelerate.vllm_plugin()
        try:  # as vLLM's default loader does
            found = {}
            for path in sorted(glob.glob(os.path.join(WORK / "packed", "mixed*.safetensors"))):
                with safetensors.safe_open(path, framework="np") as file:
                    found.update((name, file.get_tensor(name)) for name in file.keys())
        finally:
            wcx._accelerate._plugin.undo()
        self.assertIs(safetensors.safe_open, before)
        self.assertTrue(all(same(found[name], expected[name]) for name in expected))


@unittest.skipUnless(torch, "torch is not installed")
class WithTorch(unittest.TestCase):
    def test_every_tensor_is_what_safetensors_returns(self):
        from safetensors.torch import load_file

        for original, packed in ((ORIGINAL, PACKED), (SMALL, WORK / "packed" / "small.safetensors.wcx")):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = wcx.load_file(packed, framework="pt")
            with safetensors.safe_open(original, "pt") as file:
                for name in file.keys():
                    try:
                        expected = file.get_tensor(name)
                    except Exception:  # a type that torch or safetensors lack
                        self.assertEqual((found[name].dtype, found[name].ndim), (torch.uint8, 1), name)
                        continue
                    self.assertEqual((found[name].dtype, found[name].shape), (expected.dtype, expected.shape), name)
                    a, b = (t.contiguous().view(torch.uint8) if t.ndim else t.reshape(1).view(torch.uint8)
                            for t in (found[name], expected))
                    self.assertTrue(torch.equal(a, b), name)
        with wcx.accelerate():
            self.assertEqual(set(load_file(WORK / "packed" / "mixed.safetensors")), set(wcx.load_file(PACKED)))

    def test_parts_and_the_meta_device(self):
        with wcx.safe_open(PACKED, "pt") as file, wcx.safe_open(PACKED, "pt", device="meta") as meta:
            for info in file.tensors():
                if len(info.shape) == 2 and 0 not in info.shape:
                    whole, part = file.get_tensor(info.name), file.get_slice(info.name)[1:, ::2]
                    self.assertTrue(part.is_contiguous())
                    self.assertEqual(part.view(torch.uint8).tolist(), whole[1:, ::2].contiguous().view(torch.uint8).tolist())
                    self.assertEqual(meta.get_tensor(info.name).device.type, "meta")
                    return
        self.fail("no matrix")

    def test_a_gpu_that_is_not_there_is_an_error(self):
        if torch.cuda.is_available():
            self.skipTest("there is a GPU")
        with self.assertRaises((OSError, RuntimeError, AssertionError)):
            wcx.load_file(PACKED, device="cuda")

    def test_unmodified_transformers_loads_a_directory_of_packed_files(self):
        try:
            from transformers import LlamaConfig, LlamaForCausalLM
        except ImportError:
            self.skipTest("transformers is not installed")
        torch.manual_seed(3)
        config = LlamaConfig(hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4, vocab_size=500)
        model = LlamaForCausalLM(config)
        directory = WORK / "llama"
        model.save_pretrained(directory, max_shard_size="150kB")
        shards = sorted(directory.glob("*.safetensors"))
        self.assertGreater(len(shards), 1)
        for shard in shards:
            pack(shard, pathlib.Path(f"{shard}.wcx"))
            shard.unlink()
        with wcx.accelerate():
            loaded = LlamaForCausalLM.from_pretrained(directory)
        for (name, a), (_, b) in zip(model.state_dict().items(), loaded.state_dict().items()):
            self.assertTrue(torch.equal(a, b), name)


if __name__ == "__main__":
    make_files()
    unittest.main(argv=[sys.argv[0], *sys.argv[1:]], verbosity=2)
