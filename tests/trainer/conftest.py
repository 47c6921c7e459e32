"""Snapshots for the trainer's tests, written from the schemas without the other stage."""

import dataclasses
import hashlib
import json
import pathlib

import numpy as np
import pytest
import simplejpeg
from google.protobuf import json_format
from PIL import Image

from protos import contract, tfrecord
from protos.v1 import clip_pb2, manifest_pb2
from tests.forks import Forks
from tests.trainer import plain_step
from trainer.configs.config import (
    Config,
    CutAndPasteConfig,
    InputConfig,
    TextConfig,
    VideoConfig,
)
from trainer.configs.overrides import override
from trainer.data.tokenizer import Tokenizer
from trainer.distributed.mesh import one_device
from trainer.method.train_step import init_state
from trainer.runs.checkpoint import Checkpoints
from trainer.training import loop

COLOURS = ("red", "green", "blue", "violet", "amber")
KINDS = ("ring", "disc", "cross", "star")


IMPORTS = """
from trainer.cli import main
from trainer.data import decode, zero_copy
from trainer.inference import api
from trainer.training import loop
"""


@pytest.fixture(scope="session")
def forks():
    """Return a process that has imported all that training needs."""
    forks = Forks(IMPORTS)
    yield forks
    forks.close()


@pytest.fixture(scope="module")
def step_without_model():
    """Give the loop's pre-training a step that compiles in a second."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "Pretraining", plain_step.Pretraining)
        yield


@dataclasses.dataclass(frozen=True)
class Written:
    """A snapshot folder and the clips that went into it, in record order."""

    folder: pathlib.Path
    clips: list[clip_pb2.Clip]

    @property
    def manifest(self):
        return self.folder / "manifest.json"

    def edit_manifest(self, **fields):
        values = json.loads(self.manifest.read_text())
        self.manifest.write_text(json.dumps(values | fields))


def smooth_frames(rng, frames, height, width):
    """Return blurred noise, uint8 [frames, height, width, 3], that differs between frames."""
    coarse = rng.integers(0, 256, (frames, height // 8 + 2, width // 8 + 2, 3), np.uint8)
    return np.stack(
        [
            np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
            for image in coarse
        ]
    )


def make_clip(rng, number, frames, height, width):
    nouns = [f"{rng.choice(COLOURS)} {rng.choice(KINDS)}" for _ in range(int(rng.integers(0, 5)))]
    caption, chunks = "Look:", []
    for noun in nouns:
        start = len(caption) + 1
        caption += f" {noun}"
        prompts = [template.format(noun) for template in contract.PROMPT_TEMPLATES]
        chunks.append(
            clip_pb2.NounChunk(text=noun, start=start, end=start + len(noun), prompts=prompts)
        )
    # The first span starts at 0, which proto3 does not write.
    start_us = number * 1_000_000
    return clip_pb2.Clip(
        clip_id=f"video-{number // 3:05d}_{start_us}_{start_us + 900_000}",
        video_id=f"video-{number // 3:05d}",
        start_us=start_us,
        end_us=start_us + 900_000,
        caption=caption,
        noun_chunks=chunks,
        frames=[
            simplejpeg.encode_jpeg(
                np.ascontiguousarray(frame), quality=95, colorspace="RGB", colorsubsampling="420"
            )
            for frame in smooth_frames(rng, frames, height, width)
        ],
        frame_time_us=[start_us + i * 900_000 // frames for i in range(frames)],
        frame_encoding=clip_pb2.FRAME_ENCODING_JPEG,
        height=height,
        width=width,
    )


def file_entry(path):
    data = path.read_bytes()
    return manifest_pb2.FileEntry(
        name=path.name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
    )


def summary_of(clips):
    """Return a shard's summary. A video's file is represented by its id and frames."""
    files = {}
    for clip in clips:
        file = files.setdefault(clip.video_id, hashlib.sha256(clip.video_id.encode()))
        file.update(b"".join(clip.frames))
    return {
        "videos": [{"video_id": name, "sha256": file.hexdigest()} for name, file in files.items()]
    }


def write_clips(folder, clips, frames, short_side, shards):
    manifest = manifest_pb2.Manifest(
        schema_version=contract.SCHEMA_VERSION,
        data_version="1.0.0",
        dataset="test",
        config=manifest_pb2.BuildConfig(
            frames_per_clip=frames,
            short_side=short_side,
            frame_encoding=clip_pb2.FRAME_ENCODING_JPEG,
            jpeg_quality=95,
            prompt_templates=contract.PROMPT_TEMPLATES,
            num_shards=shards,
        ),
        counts=manifest_pb2.Counts(rows=len(clips), records=len(clips)),
    )
    folder.mkdir()
    for shard, members in enumerate(np.array_split(np.arange(len(clips)), shards)):
        stem, index, offset = contract.shard_name(shard, shards), manifest_pb2.ShardIndex(), 0
        with open(folder / f"{stem}.tfrecord", "wb") as data:
            for member in members:
                framed = tfrecord.frame(clips[member].SerializeToString())
                data.write(framed)
                index.records.add(offset=offset, length=len(framed), clip_id=clips[member].clip_id)
                offset += len(framed)
        (folder / f"{stem}.index").write_bytes(index.SerializeToString())
        (folder / f"{stem}.json").write_text(json.dumps(summary_of([clips[m] for m in members])))
        manifest.shards.add(
            records=len(members),
            data=file_entry(folder / f"{stem}.tfrecord"),
            index=file_entry(folder / f"{stem}.index"),
            summary=file_entry(folder / f"{stem}.json"),
        )
    (folder / "manifest.json").write_text(json_format.MessageToJson(manifest))
    return Written(folder, clips)


@pytest.fixture(scope="session")
def write_snapshot_at():
    """Writes a snapshot: (folder, clips, frames, height, width, shards, annotate) -> Written.

    `annotate` is given each clip and its number, to add to it.
    """

    def write(folder, *, clips=11, frames=4, height=32, width=32, shards=3, annotate=None):
        rng = np.random.default_rng(clips)
        made = [make_clip(rng, number, frames, height, width) for number in range(clips)]
        for number, clip in enumerate(made):
            if annotate:
                annotate(clip, number)
        return write_clips(folder, made, frames, min(height, width), shards)

    return write


@pytest.fixture
def write_snapshot(write_snapshot_at, tmp_path):
    """Writes a snapshot into the test's folder: (name, …) -> Written."""

    def write(name="snapshot", **sizes):
        return write_snapshot_at(tmp_path / name, **sizes)

    return write


@pytest.fixture
def small_config():
    """Clips of 4 frames of 32² pixels, taken as they are, in batches of 4; 2 steps an epoch."""
    return Config(
        video=VideoConfig(
            frames=4, resolution=32, patch=16, width=32, layers=1, heads=2, grouping_after=(1,)
        ),
        text=TextConfig(vocabulary=120, tokens=12, width=32, layers=1, heads=2),
        input=InputConfig(nouns=2, short_side=32, scale=(1.0, 1.0), flip=True),
        cut_and_paste=CutAndPasteConfig(pair_group=2),
        batch=4,
        epochs=3,
        seed=7,
    )


@pytest.fixture(scope="session")
def noisy_config():
    """A configuration with all randomness on: 24 clips make 6 batches per epoch, 18 steps."""
    return Config(
        video=VideoConfig(
            frames=4,
            resolution=16,
            patch=8,
            width=16,
            layers=1,
            heads=2,
            mlp_width=32,
            group_tokens=4,
            grouping_after=(1,),
        ),
        text=TextConfig(
            vocabulary=200, tokens=12, positions=12, width=16, layers=1, heads=2, mlp_width=32
        ),
        joint_width=16,
        input=InputConfig(short_side=18, scale=(1.0, 1.3)),
        cut_and_paste=CutAndPasteConfig(pair_group=2),
        batch=4,
        epochs=3,
        seed=5,
        log_every=1,
        checkpoint_every=4,
    )


@pytest.fixture(scope="session")
def untrained_run(noisy_config, tmp_path_factory):
    """The folder of a run whose only checkpoint, of step 0, has fresh parameters."""
    tokenizer = make_tokenizer()
    config = override(noisy_config, [f"text.vocabulary={len(tokenizer.pieces)}"])
    run = tmp_path_factory.mktemp("runs") / "untrained"
    run.mkdir()
    (run / "config.json").write_text(config.to_json())
    tokenizer.save(run / "vocab.txt")
    with Checkpoints(run / "checkpoints", config) as checkpoints:
        checkpoints.save(init_state(config, one_device()))
    return run


@pytest.fixture
def tokenizer():
    return make_tokenizer()


def make_tokenizer():
    texts = [f"Look: {colour} {kind}" for colour in COLOURS for kind in KINDS]
    texts += [template.format("ring") for template in contract.PROMPT_TEMPLATES]
    return Tokenizer.train(texts, size=120)
