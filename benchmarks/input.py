"""The speed of the trainer's input, as ratios of alternate measurements in one run.

input_vs_decode             frames/s of the whole input pipeline, with a global shuffle, over those
                            of bare decode_jpeg of the same whole frames on as many threads.
                            `ratio`: crops are scaled on the device, which is not measured here.
                            `ratio_all_on_host`: all is done on the host. The minimum time of each
                            counts, because other load on the machine only makes them slower
step_with_input_vs_without  seconds per training step with batches from a snapshot, over those with
                            one repeated batch. Here the same processors decode and train. If the
                            step keeps them busy, the minimum of the ratio is `bound`, 1 + the
                            input's CPU time over the step's
index                       time and memory to open 136 million clips in 20,000 shards, and time to
                            the first batch, against the time to decode its frames alone

It writes its keys of benchmarks/results/trainer.json, and leaves those of other benchmarks
unchanged.

    python benchmarks/input.py
    python benchmarks/input.py --only input_vs_decode
"""

import argparse
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import simplejpeg
from google.protobuf import json_format
from trainer_figures import CONFIG, THREADS, keep

from protos import contract, tfrecord
from protos.v1 import clip_pb2, manifest_pb2
from trainer.cli.main import start_with_malloc_tuned
from trainer.configs.config import Config
from trainer.configs.tiny import CONFIG as TINY
from trainer.data import order
from trainer.data.batches import train_batches
from trainer.data.mixture import Mixture
from trainer.data.prefetch import prefetch
from trainer.data.snapshot import Snapshot
from trainer.data.tokenizer import Tokenizer
from trainer.data.types import Batch
from trainer.distributed.mesh import make_mesh
from trainer.method.run_scalars import run_scalars
from trainer.method.train_step import init_state, train_step
from trainer.training.device_batch import on_devices

_CAPTION = "a long street with many people on bicycles"


class _Took(NamedTuple):
    wall: float  # seconds
    cpu: float  # seconds of the whole process


def _took(run: Callable[[], Any]) -> _Took:
    wall, cpu = time.monotonic(), time.process_time()
    run()
    return _Took(time.monotonic() - wall, time.process_time() - cpu)


def input_vs_decode(folder: pathlib.Path) -> dict[str, Any]:
    """Measure the paper's input: 32 frames of 224² from 256×455, scaled by U(0.9, 1.33)."""
    snapshot = write_snapshot(
        folder / "films", clips=64, frames=32, height=256, width=455, distinct=16
    )
    jpegs = _jpegs(snapshot, range(16))
    # Frames per measurement, the same number for all. Longer measurements are disturbed more.
    count = 8 * 16 * 32
    decode = _decoding(jpegs, times=count // len(jpegs))

    def reading(where: Any) -> Callable[[], _Took]:
        config = dataclasses.replace(Config(), batch=16, epochs=1000)
        config = dataclasses.replace(
            config, input=dataclasses.replace(config.input, scale_on=where)
        )

        def read() -> _Took:
            batches = train_batches(Mixture([snapshot]), tokenizer(), config)
            # Two batches are in progress at once and end almost together, so the clock starts and
            # stops after a pair.
            _exhaust(batches, 2)
            took = _took(lambda: _exhaust(batches, 8))
            batches.close()
            return took

        return read

    runs = (lambda: _took(decode), reading("device"), reading("host"))
    for run in runs:  # The first run builds the TensorFlow graphs.
        run()
    rounds = [[run() for run in runs] for _ in range(6)]
    # Seconds per frame, the minimum of all rounds.
    bare, scaled_later, all_on_host = (
        _Took(*(min(clock) / count for clock in zip(*times, strict=True)))
        for times in zip(*rounds, strict=True)
    )
    return {
        "ratio": bare.wall / scaled_later.wall,
        "ratio_all_on_host": bare.wall / all_on_host.wall,
        "ratio_of_cpu_time": bare.cpu / scaled_later.cpu,
        "ratio_of_cpu_time_all_on_host": bare.cpu / all_on_host.cpu,
        "frames_per_second": {
            "decode": 1 / bare.wall,
            "input": 1 / scaled_later.wall,
            "input_all_on_host": 1 / all_on_host.wall,
        },
        "bytes_per_frame": round(statistics.mean(map(len, jpegs))),
    }


def _exhaust(batches: Iterator[Any], count: int) -> None:
    for _ in itertools.islice(batches, count):
        pass


def _jpegs(snapshot: Snapshot, records: Iterable[int]) -> list[bytes]:
    return [
        frame
        for record in snapshot.read(list(records))
        for frame in clip_pb2.Clip.FromString(record).frames
    ]


def _decoding(jpegs: list[bytes], times: int = 1) -> Callable[[], None]:
    """Return a function that only decodes whole frames, with the trainer's decoder and threads."""
    from trainer.data.cpu_tensorflow import tf

    def decoded(jpeg: Any) -> Any:
        image = tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.shape(image)

    options = tf.data.Options()
    options.autotune.enabled = False
    bare = (
        tf.data.Dataset.from_tensor_slices(tf.constant(jpegs))
        .repeat(times)
        .map(decoded, num_parallel_calls=THREADS)
        .batch(256)
        .with_options(options)
    )

    def decode() -> None:
        for _ in bare:
            pass

    return decode


def step_with_input_vs_without(folder: pathlib.Path) -> dict[str, Any]:
    """Measure steps of width 384, 6 layers and 816 tokens, on 8 of a record's 32 frames."""
    snapshot = write_snapshot(
        folder / "some", clips=16, frames=32, height=256, width=455, distinct=4
    )
    config = dataclasses.replace(CONFIG, epochs=1000)
    mesh = make_mesh(config)

    def read() -> Generator[Batch, None, None]:
        return prefetch(
            train_batches(Mixture([snapshot]), tokenizer(), config),
            lambda made: on_devices(made[1], mesh, config.video.resolution),
        )

    batches = read()
    state, scalars = init_state(config, mesh), run_scalars(config, 1000)
    again = next(batches)

    def step(batch: Batch) -> None:
        nonlocal state
        state, figures = train_step(state, batch, scalars, config=config, mesh=mesh)
        jax.block_until_ready(figures["loss"])

    def two(batches: Iterator[Batch]) -> None:
        for batch in itertools.islice(batches, 2):
            step(batch)

    step(again)
    turns = [
        (_took(lambda: two(batches)), _took(lambda: two(itertools.repeat(again)))) for _ in range(5)
    ]
    batches.close()
    alone = read()
    input_alone = _took(lambda: [next(alone) for _ in range(20)]).cpu / 20
    alone.close()
    of_step = min(without.cpu for _, without in turns) / 2
    return {
        "ratio": statistics.median(of_input.wall / without.wall for of_input, without in turns),
        "bound": 1 + input_alone / of_step,
        "step_seconds": min(without.wall for _, without in turns) / 2,
        "step_cpu_seconds": of_step,
        "input_cpu_seconds": input_alone,
        "ratios": [of_input.wall / without.wall for of_input, without in turns],
        "batch": config.batch,
    }


def index(folder: pathlib.Path) -> dict[str, Any]:
    """Measure the opening of one shard of 6,800 clips under 20,000 names, in a new process."""
    snapshot = write_snapshot(
        folder / "index", clips=6_800, frames=12, height=64, width=64, names=20_000, distinct=32
    )
    command = [sys.executable, __file__, "--open", snapshot.folder]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"clips": len(snapshot), "shards": 20_000, **json.loads(done.stdout)}


def open_index(folder: str) -> dict[str, Any]:
    """Open a snapshot, read the first batch of 1,024 clips, and return the time and memory."""
    from trainer.data.cpu_tensorflow import tf

    tf.constant(0)  # The measurement excludes the start of TensorFlow and of JAX.
    jax.devices()
    config = dataclasses.replace(TINY, batch=1024)
    before = _peak_megabytes()
    began = time.monotonic()
    snapshot = Snapshot.open(folder)
    opened, after = time.monotonic(), _peak_megabytes()
    batches = train_batches(Mixture([snapshot]), tokenizer(), config)
    _, batch, _ = next(batches)
    read = time.monotonic()
    batches.close()
    peak = _peak_megabytes()
    _, records = order.batch_records(config.seed, 0, config.batch, Mixture([snapshot]).sources)
    decode = _decoding(_jpegs(snapshot, records.tolist()))
    return {
        "open_seconds": opened - began,
        "open_megabytes": after - before,
        "first_batch": len(batch.index),
        "first_batch_seconds": read - opened,
        "decode_seconds": min(_took(decode).wall for _ in range(2)),
        "peak_megabytes": peak,
    }


def _peak_megabytes() -> float:
    # getrusage would return at least the peak of the parent process.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.findall(r"^VmHWM:\s*(\d+) kB$", status, re.M)[0]) / 1e3


def tokenizer() -> Tokenizer:
    """Return a tokenizer of the clips' caption and its prompts."""
    prompts = [template.format(_CAPTION) for template in contract.PROMPT_TEMPLATES]
    return Tokenizer.train([_CAPTION, *prompts], size=200)


# --- the snapshot for the measurements ---


def write_snapshot(
    folder: pathlib.Path,
    *,
    clips: int,
    frames: int,
    height: int,
    width: int,
    names: int = 1,
    distinct: int | None = None,
) -> Snapshot:
    """Write a snapshot of one shard of clips, linked under `names` shard names.

    Args:
      folder: the snapshot's folder, which is created.
      clips: number of clips in the shard.
      frames: number of frames per clip.
      height: pixels.
      width: pixels.
      names: number of shards in the manifest, all of which are this one.
      distinct: number of clips with different frames; None: all.
    """
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    films = [_film(rng, frames, height, width) for _ in range(distinct or clips)]
    nouns = [
        clip_pb2.NounChunk(
            text=noun,
            start=_CAPTION.index(noun),
            end=_CAPTION.index(noun) + len(noun),
            prompts=[template.format(noun) for template in contract.PROMPT_TEMPLATES],
        )
        for noun in ("long street", "people", "bicycles")
    ]
    entries, offset = manifest_pb2.ShardIndex(), 0
    with open(folder / "data", "wb") as shard:
        for number in range(clips):
            clip = clip_pb2.Clip(
                clip_id=f"video-{number:06d}_0_10000000",
                video_id=f"video-{number:06d}",
                end_us=10_000_000,
                caption=_CAPTION,
                noun_chunks=nouns,
                frames=films[number % len(films)],
                frame_time_us=[10_000_000 * i // frames for i in range(frames)],
                frame_encoding=clip_pb2.FRAME_ENCODING_JPEG,
                height=height,
                width=width,
            )
            framed = tfrecord.frame(clip.SerializeToString())
            shard.write(framed)
            entries.records.add(offset=offset, length=len(framed), clip_id=clip.clip_id)
            offset += len(framed)
    (folder / "index").write_bytes(entries.SerializeToString())
    manifest = manifest_pb2.Manifest(
        schema_version=contract.SCHEMA_VERSION,
        data_version="1.0.0",
        dataset="benchmark",
        config=manifest_pb2.BuildConfig(
            frames_per_clip=frames,
            short_side=min(height, width),
            frame_encoding=clip_pb2.FRAME_ENCODING_JPEG,
            jpeg_quality=_QUALITY,
            prompt_templates=contract.PROMPT_TEMPLATES,
            num_shards=names,
        ),
        counts=manifest_pb2.Counts(rows=clips * names, records=clips * names),
    )
    files = {}
    for kind in ("data", "index"):
        data = (folder / kind).read_bytes()
        files[kind] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    for number in range(names):
        stem = contract.shard_name(number, names)
        shard_files = {"data": f"{stem}.tfrecord", "index": f"{stem}.index"}
        for kind, name in shard_files.items():
            os.link(folder / kind, folder / name)
        manifest.shards.add(
            records=clips,
            **{
                kind: manifest_pb2.FileEntry(name=name, **files[kind])
                for kind, name in shard_files.items()
            },
        )
    (folder / contract.MANIFEST_NAME).write_text(json_format.MessageToJson(manifest))
    return Snapshot.open(folder)


_QUALITY = 95  # the JPEG quality of svilm-pipelines build


def _film(rng: np.random.Generator, frames: int, height: int, width: int) -> list[bytes]:
    """Return JPEG frames of a camera pan over a scene with a natural 1/f spectrum and noise."""
    tall, wide = height + frames, width + 2 * frames
    frequency = np.hypot(np.fft.fftfreq(tall)[:, None], np.fft.rfftfreq(wide)[None])
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((3, tall, wide))) / frequency
    layers = np.fft.irfft2(spectrum, (tall, wide))
    layers /= layers.std(axis=(1, 2), keepdims=True)
    light, red, blue = layers
    scene = 110 + 50 * light[..., None] + 15 * np.stack([red, -0.4 * (red + blue), blue], -1)
    films = []
    for frame in range(frames):
        view = scene[frame : frame + height, 2 * frame : 2 * frame + width]
        noisy = view + 2 * rng.standard_normal((height, width, 1))
        pixels = np.ascontiguousarray(np.clip(noisy, 0, 255).astype(np.uint8))
        films.append(
            simplejpeg.encode_jpeg(
                pixels, quality=_QUALITY, colorspace="RGB", colorsubsampling="420", fastdct=False
            )
        )
    return films


_BENCHMARKS = {
    "input_vs_decode": input_vs_decode,
    "step_with_input_vs_without": step_with_input_vs_without,
    "index": index,
}


def main() -> int:
    """Run the benchmarks and return 0."""
    parser = argparse.ArgumentParser(
        description="Ratios of speeds of the trainer; writes benchmarks/results/trainer.json."
    )
    parser.add_argument(
        "--only", choices=_BENCHMARKS, metavar="KEY", help="one of %(choices)s (default: all)"
    )
    parser.add_argument("--open", metavar="DIR", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open:
        print(json.dumps(open_index(arguments.open)))
        return 0
    start_with_malloc_tuned()  # svilm-train does the same.
    for key in [arguments.only] if arguments.only else _BENCHMARKS:
        with tempfile.TemporaryDirectory() as folder:
            measured = _BENCHMARKS[key](pathlib.Path(folder))
        keep(key, measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
