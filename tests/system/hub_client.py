# SPDX-License-Identifier: MIT
"""What hub_cache.bats does with a Hugging Face cache from Python.

    hub_client.py download REVISION             download org/tiny, print the snapshot
    hub_client.py load SNAPSHOT ORIGINAL        load every safetensors file, and compare it with the original's tensors
    hub_client.py keep_loading SNAPSHOT READY   load until SIGTERM; READY appears after the first time
    hub_client.py scan                          print repositories, revisions, files and bytes; fail on any warning
    hub_client.py delete REVISION               what `hf cache rm` does, in all releases
    hub_client.py share CACHE BLOB              make a blob a shared one, as huggingface_hub does with what comes through Xet
"""
import hashlib
import os
import signal
import sys
from pathlib import Path


def download(revision):
    from huggingface_hub import snapshot_download

    print(snapshot_download("org/tiny", revision=revision))


def load(snapshot, original):
    import ml_dtypes
    import numpy
    from safetensors import safe_open

    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        setattr(numpy, name, getattr(ml_dtypes, name))
    files = sorted(Path(original).glob("*.safetensors"))
    assert files
    for path in files:
        with safe_open(Path(snapshot) / path.name, "np") as got, safe_open(path, "np") as wanted:
            assert list(got.keys()) == list(wanted.keys())
            for name in wanted.keys():
                assert got.get_tensor(name).tobytes() == wanted.get_tensor(name).tobytes(), name


def keep_loading(snapshot, ready):
    names = sorted(Path(snapshot).glob("*.safetensors"))
    expected = {name: hashlib.sha256(name.read_bytes()).digest() for name in names}
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    signal.alarm(600)  # ends it if nobody does
    Path(ready).touch()
    while not stop:
        for name in names:
            assert hashlib.sha256(name.read_bytes()).digest() == expected[name], name


def scan():
    from huggingface_hub import scan_cache_dir

    info = scan_cache_dir()
    assert not info.warnings, info.warnings
    for repo in info.repos:
        print(repo.repo_id, len(repo.revisions), repo.nb_files, repo.size_on_disk)


def delete(revision):
    from huggingface_hub import scan_cache_dir

    scan_cache_dir().delete_revisions(revision).execute()


def share(cache, blob):
    from huggingface_hub.utils import _shared_blobs

    blob = Path(blob)
    assert _shared_blobs.publish_blob_to_shared_store(
        blob_path=str(blob), xet_hash=hashlib.sha256(b"xet" + blob.read_bytes()).hexdigest(), cache_dir=cache,
        expected_size=os.path.getsize(blob))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
