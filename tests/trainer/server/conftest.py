"""A service over a small snapshot, whose texts try to break the page."""

import dataclasses
import threading

import av
import numpy as np
import pytest
import uvicorn

from protos import contract
from protos.v1 import clip_pb2
from trainer.data.snapshot import Snapshot
from trainer.index import build
from trainer.index.index import Index
from trainer.runs import checkpoint
from trainer.server import listen
from trainer.server.app import create
from trainer.server.gate import Gate
from trainer.server.library import Library
from trainer.server.metrics import Metrics
from trainer.server.protection import Rules
from trainer.server.routes import Service
from trainer.server.videos import Videos

HOSTILE = "A red ring <img src=x onerror=alert(1)> & a blue disc"
VIDEO_S = 8


def annotate(clip, number):
    noun = ("red ring", "blue disc")[number % 2]
    prompts = [template.format(noun) for template in contract.PROMPT_TEMPLATES]
    del clip.noun_chunks[:]
    clip.caption = f"A {noun} number {number}"
    clip.noun_chunks.append(clip_pb2.NounChunk(text=noun, start=2, end=11, prompts=prompts))
    clip.labels.append(("rising", "falling")[number % 2])
    clip.end_us = clip.start_us + 500_000 * (1 + number % 3)
    if number == 1:
        clip.caption = HOSTILE
        clip.video_id = "../../../etc/passwd"
        clip.labels.append("<b>bold</b>")


def no_progress(done, total):
    pass


@pytest.fixture(scope="session")
def written(write_snapshot_at, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "snapshot"
    return write_snapshot_at(folder, clips=30, frames=4, height=32, width=48, annotate=annotate)


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Return a folder with the video of the first three clips but one."""
    folder = tmp_path_factory.mktemp("videos")
    with av.open(str(folder / "video-00000.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(5 * VIDEO_S):
            pixels = np.full((48, 64, 3), 6 * number, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        file.mux(stream.encode())
    (folder / "passwd").write_text("secret")
    return folder


@pytest.fixture(scope="session")
def library(written, untrained_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("indices") / "served"
    run, snapshot = checkpoint.load(untrained_run), Snapshot.open(written.folder)
    assert build.build(run, [snapshot], out, no_progress, shard_clips=8)
    return Library(Index.open(out, run))


@pytest.fixture
def service(library, videos):
    metrics = Metrics()
    return Service((library,), Videos(str(videos)), Gate(metrics), metrics)


@pytest.fixture
def two_runs(service, library):
    return dataclasses.replace(service, libraries=(library, Library(library.index)))


@pytest.fixture
def serve():
    """Return a function that serves a service: (service, rules) -> address of the page."""
    running = []

    def start(service, **rules):
        listening = listen.bind("127.0.0.1", 0)
        server = uvicorn.Server(listen.configured(create(service, Rules(**rules))))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        running.append((server, thread, listening))
        return listen.address_of(listening, "127.0.0.1")

    yield start
    for server, thread, listening in running:
        server.should_exit = True
        thread.join(60)
        listening.close()
        assert not thread.is_alive()
