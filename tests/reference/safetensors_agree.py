#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks that our parser of safetensors headers agrees with the Python package, on valid, odd and broken headers.

usage: safetensors_agree.py DRIVER [RANDOM_CASES]
DRIVER is the program built from safetensors_header.c.  Needs safetensors 0.8; exits with 77 (skipped) without it.

The only exception is intended: an unknown dtype is no error for us.
"""

import json
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import unicodedata

try:
    import safetensors
except ImportError:
    print("skipped: the Python package safetensors is not installed")
    sys.exit(77)

DTYPE_BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
              "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32,
              "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64}
ELEM_BYTES = {name: max(1, bits // 8) for name, bits in DTYPE_BITS.items()} | {"C64": 4}
INVALID_JSON = "invalid JSON in header: "
F32 = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


def with_length(text, data=b""):
    text = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(text)) + text + data


def ask_library(blob):
    """Returns the package's answer: a sorted list of (name, dtype, shape, data), or its error message."""
    try:
        tensors = safetensors.deserialize(blob)
    except safetensors.SafetensorError as error:
        return str(error).removeprefix("Error while deserializing: ")
    return sorted((name, view["dtype"], view["shape"], bytes(view["data"])) for name, view in tensors)


def ask_driver(driver, path, blob):
    """Returns our answer in the same form; also checks the output that only ours has."""
    with open(path, "wb") as file:
        file.write(blob)
    # The answer is UTF-8 for any name: decoding is strict.
    done = subprocess.run([driver, path], stdout=subprocess.PIPE, check=False)
    lines = done.stdout.decode().split("\n")
    assert done.returncode == (0 if lines[0] == "ok" else 1), f"exit status {done.returncode}: {lines}"
    if lines[0] != "ok":
        assert lines[0].startswith(path + ": ") and lines[1:] == [""], lines
        return lines[0].removeprefix(path + ": ")
    tensors = [json.loads(line) for line in lines[1:-1]]
    at = 8 + struct.unpack("<Q", blob[:8])[0]
    for tensor in tensors:
        assert tensor["offset"] == at, tensors
        assert tensor["elem_bytes"] == ELEM_BYTES.get(tensor["dtype"], 1), tensors
        at += tensor["bytes"]
    assert at == len(blob), tensors
    return sorted((t["name"], t["dtype"], t["shape"], blob[t["offset"]:t["offset"] + t["bytes"]]) for t in tensors)


def same(ours, theirs):
    if isinstance(theirs, str) and theirs.startswith(INVALID_JSON + "unknown variant `"):
        return True  # no error for us; unknown_dtype_pairs tests unknown dtypes
    if isinstance(ours, list) or isinstance(theirs, list):
        return ours == theirs
    if theirs.startswith(INVALID_JSON):
        return ours.startswith(INVALID_JSON)  # the rest is the text of the JSON parser
    # We add the tensor in parentheses where the library omits it, put its message in parentheses after how many bytes are missing, and replace the bytes
    # of control characters by "?".
    shown = "".join("?" * len(c.encode()) if unicodedata.category(c) == "Cc" else c for c in theirs)
    return re.sub(r"^truncated: [0-9]+ of [a-z ]*[0-9]+ bytes \((.*)\)$", r"\1", ours.split(" (data_offsets ")[0]) == shown


def agree(ours, blob):
    """Whether the library gives our answer at least once: it orders tensors with equal offsets at random."""
    return any(same(ours, ask_library(blob)) for _ in range(100))


def tensor(dtype="F32", shape="[1]", offsets="[0,4]", more=""):
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}{more}}}'


def odd_values():
    """Valid and invalid descriptions of a tensor.  Four bytes of data follow."""
    yield from (F32, '["F32",[1],[0,4]]', '["F32",[1],[0,4],1]', '["F32",[1]]', "[]", "{}", "null", "5", '"F32"')
    yield from ('{"shape":[1],"data_offsets":[0,4]}', '{"dtype":"F32","data_offsets":[0,4]}', '{"dtype":"F32","shape":[1]}')
    for dtype in ('{"F32":null}', '{"F32":{}}', '{"F32":[]}', '{"F32":null,"F32":null}', "{}", "17", "null", '["F32"]',
                  '"F32"x', r'"F32\u0000"', r'"\u0046\u0033\u0032"'):
        yield '{"dtype":%s,"shape":[1],"data_offsets":[0,4]}' % dtype
    for shape in ("[] {} null 1 [1.0] [1e0] [-1] [-0] [01] [\"1\"] [1,] [,1] [+1] [null] [[1]] [true] [0] [2]".split()
                  + ["[1 1]", "[1,1,1,1,1,1,1,1,1]", f"[{2**62}]", f"[{2**64}]", f"[{2**63},2]"]):
        yield tensor(shape=shape)
    for offsets in ("[0,4,5] [0] [] {\"0\":0,\"1\":4} [4,0] [0,-4] [0,4.0] [1,5] null".split()
                    + [f"[0,{2**64 - 1}]", f"[0,{2**64}]"]):
        yield tensor(offsets=offsets)
    yield from (tensor("F4", "[8]"), tensor("F4", "[7]"), tensor("F4", "[1]", "[0,1]"), tensor("F6_E2M3", "[4]", "[0,3]"))
    for more in ('"x":[1,{"y":null,"y":true}],"x":false', '"dtype":"F32"', '"shape":[1]', '"data_offsets":[0,4]'):
        yield tensor(more="," + more)
    for value in odd_json():
        yield tensor(more=',"x":' + value)
        yield '{"x":%s,%s' % (value, F32[1:])


def odd_json():
    """JSON values at the limits of the grammar."""
    yield from ("1e999", "-1e999", "0e99999999999", "1e99999999999999999999999", "1e-99999999999999999999", "9" * 400,
                "9" * 300, "0." + "0" * 400 + "1e500", "0." + "0" * 400 + "1e800", "1.7976931348623157e308", "1.9e308")
    yield from "01 - -x 1. .5 1e 1e+ 1E-5 0.0 -0.5e+3 00 +1 tru true TRUE nul nulll False".split()
    yield from ("'x'", "[1,]", "[1 2]", '{"a":1,}', "{a:1}", "{1:2}", '{"a" 1}', '{"a":}', "[}", "{]", '"\t"', '"\x7f"')
    yield from (r'"\t"', r'"\x"', r'"\u12g4"', r'"\ud800"', r'"\udc00"', r'"\ud83d\ude00"', r'"\ud800\u0041"',
                r'"\ud800\ud800"', r'"\ud800x"', r'"\uDBFF\uDFFF"')
    yield from ("[" * n + "1" + "]" * n for n in (1, 124, 125, 126, 127, 3000))
    yield from ('{"":' * n + "1" + "}" * n for n in (124, 125, 126))


def odd_texts():
    """Complete headers, for four bytes of data or none."""
    yield from ("", "{", "}", " ", "{}", "{} ", " \t\r\n{ } \n", "{}x", "{}{}", "null", "5", '"x"', "[]", "\ufeff{}", "{}\0",
                "\0{}", "\v{}", '{"a"', '{"a":', "{,}")
    for text in ('{"a":%s', '{"a":%s,', '{"a":%s,}', '{,"a":%s}', '{"a":5,"a":%s}', '{"a":%s,"a":5}', '{"__metadata__":%s}',
                 '{"a":%s,"__metadata__":{"x":"y"}}', r'{"\u005f_metadata__":{"x":"y"},"a":%s}',
                 '{"__metadata__":null,"__metadata__":null,"a":%s}'):
        yield text % F32
    for metadata in ("null", "{}", "[]", "5", '"x"', '{"a":"b"}', '{"a":"b","a":"c"}', '{"a":1}', '{"a":null}', '{"a":{}}',
                     '{"a":"b",}', '{"a"}', "nul"):
        yield '{"__metadata__":%s,"a":%s}' % (metadata, F32)
    f64, empty, end = tensor("F64"), tensor("U8", "[3,0,5]", "[0,0]"), tensor("U8", "[0]", "[4,4]")
    yield '{"a":%s "b":%s}' % (F32, F32)
    yield '{"a":%s,"b":%s}' % (F32, F32)
    yield '{"a":%s,"a":%s}' % (F32, f64)
    yield r'{"a":%s,"\u0061":%s}' % (f64, F32)
    yield '{"a":%s,"b":%s,"a":%s}' % (F32, F32, end)
    yield '{"b":%s,"a":%s,"c":%s}' % (end, F32, empty)
    yield '{"a":%s,"b":%s}' % (F32, tensor(offsets="[2,6]"))
    yield '{"a":%s,"b":%s}' % (F32, tensor(offsets="[5,9]"))
    yield '{"a":%s,"b":%s}' % (F32, tensor("U8", f"[0,{2**64 - 1}]", "[4,4]"))
    yield '{"a":%s,"b":%s}' % (F32, tensor("U8", f"[{2**63},2,0]", "[4,4]"))
    large = tensor("U8", f"[{2**61 - 1}]", f"[0,{2**61 - 1}]")
    yield '{"a":%s,"b":%s}' % (large, tensor("U8", "[1]", f"[{2**61 - 1},{2**61}]"))


def files_by_hand():
    """Cases at the limit of each rule of the format, of JSON and of UTF-8."""
    yield from (b"", b"1234567", b"\0" * 8, b"\xff" * 8, struct.pack("<Q", 3) + b"{}")
    yield from (struct.pack("<Q", n) + b"{}" for n in (100_000_000, 100_000_001, 2**63, 2**64 - 8))
    yield from (with_length('{"a":%s}' % value, b"1234") for value in odd_values())
    for name in ("", " ", r"\u0000", r"a\u0000b", r"\ud83d\ude00", r"\u00e9", "é", "\x7f", r"\n", r"\"", r"\/\b\f\r\t\\",
                 r"\u0085", "__metadata", "dtype"):
        yield with_length('{"%s":%s}' % (name, F32), b"1234")
        yield with_length('{"%s":%s}' % (name, tensor(offsets="[1,5]")), b"12345")
    yield with_length('{"%s":%s}' % ("x" * 5000, F32), b"1234")
    for text in odd_texts():
        yield with_length(text, b"1234")
        yield with_length(text)
    for raw in (b"\xff", b"\xc3", b"\xc0\x80", b"\xe2\x82", b"\xe2\x82x", b"\xf0\x90\x80x", b"\xf0\x8f\xbf\xbf",
                b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf4\x8f\xbf\xbf", b"\xf5aaa", b"\x80", b"\xe0\x9f\xbf",
                b"\xe0\xa0\x80", b"\xc2\x80", b"\xef\xbf\xbf", b"\xf0\x90"):
        yield with_length(b'{"' + raw)
        yield with_length(b'{"' + raw + b'":' + F32.encode() + b"}", b"1234")


def random_layout(rng):
    """Makes valid tensors, [name, dtype, shape, start, end]; returns them and the size of their data."""
    layout, at = [], 0
    for index in range(rng.choice((0, 1, 1, 2, 3, 8))):
        dtype = rng.choice(list(DTYPE_BITS))
        shape = [rng.choice((0, 1, 1, 2, 3, 4, 8)) for _ in range(rng.randrange(4))]
        bits = DTYPE_BITS[dtype]
        for dim in shape:
            bits *= dim
        if bits % 8:
            shape.append(8)
            bits *= 8
        name = rng.choice(("w", "layers.0.weight", "ü", "名", "\n", '"', "\\", "😀", "")) + str(index)
        layout.append([name, dtype, shape, at, at + bits // 8])
        at += bits // 8
    return layout, at


def dump(rng, layout):
    """Writes the layout as JSON, with random legal order, white space, escapes and additions."""
    items = []
    for name, dtype, shape, start, end in layout:
        fields = [("dtype", json.dumps(dtype)), ("shape", json.dumps(shape)), ("data_offsets", json.dumps([start, end]))]
        if rng.random() < 0.1:
            value = f"[{', '.join(text for _, text in fields)}]"
        else:
            rng.shuffle(fields)
            if rng.random() < 0.2:
                more = rng.choice(("null", "1e5", "-0.0", "[[], {}]", '{"dtype": 5}', str(2**63 - 1)))
                fields.insert(rng.randrange(4), ("more", more))
            value = "{%s}" % ", ".join(f'"{key}": {text}' for key, text in fields)
        items.append(json.dumps(name, ensure_ascii=rng.random() < 0.5) + ": " + value)
    if rng.random() < 0.3:
        items.append('"__metadata__": ' + rng.choice(("null", "{}", '{"format": "pt"}')))
    rng.shuffle(items)
    space = lambda: rng.choice(("", "", " ", "\n", "\t\r "))
    return space() + "{" + space() + ("," + space()).join(items) + space() + "}" + " " * rng.randrange(8)


def break_layout(rng, layout, data_bytes):
    """Changes a number, name or type, so that sizes or offsets may contradict each other; returns the size of the data."""
    numbers = (0, 1, 2, 7, 8, 2**31, 2**32, 2**60, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 1, data_bytes, data_bytes + 1)
    if not layout:
        return data_bytes + rng.randrange(2)
    entry = rng.choice(layout)
    kind = rng.randrange(7)
    if kind == 0:
        entry[1] = rng.choice(list(DTYPE_BITS))
    elif kind == 1:
        entry[2].insert(rng.randrange(len(entry[2]) + 1), rng.choice(numbers))
    elif kind in (2, 3):
        entry[kind + 1] = rng.choice(numbers)
    elif kind == 4:
        entry[0] = rng.choice(layout)[0]
    elif kind == 5:
        layout.remove(entry)
    else:
        data_bytes = max(0, data_bytes + rng.choice((-1, 1)))
    return data_bytes


def break_text(rng, text):
    """Deletes or doubles a few bytes of the text, or replaces them by tokens of JSON."""
    text = bytearray(text.encode())
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(text) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            del text[at:at + rng.choice((1, 1, 5))]
        elif kind == 1:
            text[at:at] = text[at:at + rng.choice((1, 10, 60))]
        elif kind == 2:
            text[at:at + 1] = rng.choice((b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"0", b"-", b".", b"e", b" ",
                                          b"\0", b"\\u00e9", b"null", b"\xc3"))
        else:
            text[at:at + 1] = bytes([rng.randrange(256)])
    return bytes(text)


def random_files(rng, count):
    for index in range(count):
        layout, data_bytes = random_layout(rng)
        if index % 3 == 1:
            data_bytes = break_layout(rng, layout, data_bytes)
        text = dump(rng, layout)
        yield with_length(break_text(rng, text) if index % 3 == 2 else text, rng.randbytes(data_bytes))


def unknown_dtype_pairs(rng, count):
    """Makes pairs of files: one for us, with an unknown dtype, and one for the library, with bytes instead."""
    for index in range(count):
        layout, data_bytes = random_layout(rng)
        if index % 2:
            data_bytes = break_layout(rng, layout, data_bytes)
        if not layout:
            continue
        entry = rng.choice(layout)
        if entry[4] - entry[3] >= 2**61:
            continue  # the library cannot represent its size, and reports that
        entry[1], entry[2] = "U8", [max(0, entry[4] - entry[3])]
        state = rng.getstate()
        plain = dump(rng, layout)
        entry[1], entry[2] = "F99", [rng.choice((0, 3, 2**63 - 1)) for _ in range(rng.randrange(4))]
        rng.setstate(state)
        unknown = dump(rng, layout)
        data = rng.randbytes(data_bytes)
        yield with_length(unknown, data), with_length(plain, data), entry[2]


def as_bytes(answer, shape):
    """Returns our answer with the unknown dtype replaced by that of the library's file."""
    if isinstance(answer, str):
        return answer
    return [(n, "U8", [len(data)], data) if (d, s) == ("F99", shape) else (n, d, s, data) for n, d, s, data in answer]


def main():
    driver = os.path.abspath(sys.argv[1])
    random_cases = int(sys.argv[2]) if len(sys.argv) > 2 else 1500
    rng = random.Random(1)
    accepted = refused = failures = 0
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x.safetensors")
        cases = [(blob, blob, None) for blob in files_by_hand()]
        cases += [(blob, blob, None) for blob in random_files(rng, random_cases)]
        cases += unknown_dtype_pairs(rng, random_cases // 5)
        for for_us, for_library, shape in cases:
            ours = as_bytes(ask_driver(driver, path, for_us), shape)
            accepted += isinstance(ours, list)
            refused += isinstance(ours, str)
            if agree(ours, for_library):
                continue
            failures += 1
            print(f"file    {for_us[:300]!r}\nours    {ours}\nlibrary {ask_library(for_library)}\n", file=sys.stderr)
    print(f"safetensors {safetensors.__version__}: {accepted} accepted, {refused} refused, {failures} disagreements")
    return 1 if failures or not accepted or not refused else 0


if __name__ == "__main__":
    sys.exit(main())
