"""Crops of a prepared set in object storage: how many a second, kept on this machine or read one by one.

    pip install s3fs "moto[s3,server]"
    OMP_NUM_THREADS=1 python benchmarks/storage.py

The storage is moto's S3 server on this very machine: a program in Python, which serves far less than a real one and
shares the processor with what is measured. So only the first two rates say something of training: what it costs that a
shard is in the folder of the cache and not in that of the set. The others are a lower limit.

A crop has 109 kB, as at 380 px in PNG, and is read at random, with its checksum, and not decoded.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import numpy as np

PORT, BUCKET = 5701, "benchmark-storage"
SIDE = 190  # px: noise of this side takes 109 kB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=int, default=2000, help="a shard has a thousand")
    options = parser.parse_args()
    address = f"http://127.0.0.1:{PORT}"
    os.environ |= {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(PORT)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_server(server)
        with tempfile.TemporaryDirectory() as name:
            measure(Path(name), options.crops)
    finally:
        server.kill()
        server.wait()


def wait_for_server(server: subprocess.Popen[bytes]) -> None:
    import urllib.request

    for _ in range(300):
        if server.poll() is not None:
            sys.exit('the server has ended; is it installed? pip install "moto[s3,server]"')
        try:
            urllib.request.urlopen(f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/", timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit("the server did not answer within 30 s")


def measure(folder: Path, count: int) -> None:
    import fsspec
    from sharpstudent.core.storage import Storage
    from sharpstudent.tasks.deepfake.dataset.manifest import Manifest
    from sharpstudent.tasks.deepfake.sources.manifest import open_manifest

    from tests.tasks.deepfake.prepared_set import store_set

    write(folder / "set", count)
    store_set(folder / "set")
    fsspec.filesystem("s3").mkdir(BUCKET)
    storage = Storage(f"s3://{BUCKET}/set")
    paths = [path for path in sorted((folder / "set").rglob("*")) if path.is_file()]
    size = sum(path.stat().st_size for path in paths) / 1e6
    start = time.perf_counter()
    for path in paths:
        storage.put(path, path.relative_to(folder / "set").as_posix())
    print(f"written to the storage: {size / (time.perf_counter() - start):,.0f} MB a second ({size:,.0f} MB)")
    rate_of("from shards in a folder", Manifest.open(folder / "set" / "manifest.arrow"), count)
    kept = open_manifest(storage.address, cache_folder=str(folder / "cache"), cache_gb=10)
    start = time.perf_counter()
    for first in range(0, count, 1000):
        kept.read_crop(first)
    print(f"fetched, verified and kept: {size / (time.perf_counter() - start):,.0f} MB a second")
    rate_of("from shards that are kept", kept, count)
    small = open_manifest(storage.address, cache_folder=str(folder / "small"), cache_gb=0.05)
    rate_of("from the storage, one by one", small, 200)


def write(root: Path, count: int) -> None:
    """A set of so many crops of noise, which PNG does not make smaller."""
    from tests.tasks.deepfake.prepared_set import SetFace, write_set

    rng = np.random.default_rng(0)
    points = rng.random((68, 2), np.float32) * SIDE
    faces = [
        SetFace(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8), points, "train", 0, "clip", "person", {})
        for _ in range(count)
    ]
    write_set(root, faces, shards=True, per_shard=1000)


def rate_of(what: str, manifest: Any, count: int) -> None:
    order = np.random.default_rng(1).integers(len(manifest), size=count).tolist()
    start, cpu = time.perf_counter(), time.process_time()
    for index in order:
        manifest.read_crop(index)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"{what}: {count / seconds:,.0f} crops a second, {cpu / count * 1e3:.2f} ms of CPU time each")


if __name__ == "__main__":
    main()
