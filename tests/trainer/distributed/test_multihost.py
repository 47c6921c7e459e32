"""Several processes as one run, killed, stopped and resumed with more and fewer processes.

All begin with published weights and another run's, which every process reads, and train on two
snapshots together.
"""

import itertools
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time
from typing import NamedTuple

import pytest

from trainer.configs.overrides import override
from trainer.data import order
from trainer.data.mixture import Mixture
from trainer.data.snapshot import Snapshot
from trainer.exposure.exposure import exposure, listed
from trainer.training import loop, metric_writer
from trainer.training.initialization import Start

VIVIT = pathlib.Path(__file__).parents[2] / "data" / "parity" / "vivit"

SETTINGS = [
    "average_decay=0.9",
    "evaluate_every=1",
    "evaluate_clips=4",
    # 24 visits, 3 steps an epoch; no checkpoint but the sixth is between two epochs.
    "input.weights=0.5,1.5",
    "input.scale_on=device",
    "batch=8",
    "epochs=6",
    "checkpoint_every=2",
    # As the published weights have it.
    "video.layers=2",
    "video.grouping_after=2",
]
STEPS = 18

# Writes down each record that is read, and the clips of each step.
TRAIN = """
import json, pathlib, sys, time
import jax
from trainer.training import loop, objective
from trainer.configs.config import Config
from trainer.data.mixture import Mixture
from trainer.training.initialization import Start
settings, snapshots, run, video, earlier, coordinator, count, number, pause, tests, log = (
    sys.argv[1:]
)
if int(count) > 1:
    # As processes.join does, but the others' death is noticed in 20 s instead of 100.
    jax.distributed.initialize(
        coordinator, int(count), int(number), heartbeat_timeout_seconds=20
    )
lines = open(log, "a", buffering=1)
read, stream = Mixture.read, objective.train_batches
def told_read(mixture, records):
    lines.write(json.dumps({"records": records.tolist()}) + "\\n")
    return read(mixture, records)
def told_stream(*arguments, **more):
    for step, batch, clip_ids in stream(*arguments, **more):
        lines.write(json.dumps({"step": step, "clip_ids": clip_ids}) + "\\n")
        time.sleep(float(pause))  # so that there is time for a signal
        yield step, batch, clip_ids
Mixture.read, objective.train_batches = told_read, told_stream
start = Start(video=pathlib.Path(video), run=pathlib.Path(earlier))
monitoring = loop.Monitoring(eval_snapshot=tests or None, allow_seen=True)
ends = loop.pretrain(
    Config.from_json(settings), json.loads(snapshots), run, start=start, monitoring=monitoring
)
sys.exit(0 if ends else 75)
"""


class Told(NamedTuple):
    """Read the record of a process."""

    clips: dict[int, list[str]]  # of each step, counted from 0
    reads: list[list[int]]  # record numbers, a list a read


@pytest.fixture(scope="module")
def config(noisy_config):
    return Start(video=VIVIT).configure(override(noisy_config, SETTINGS))


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory, write_snapshot_at):
    data = tmp_path_factory.mktemp("data")
    return [
        write_snapshot_at(data / name, clips=clips, frames=4, height=36, width=36).folder
        for name, clips in (("many", 24), ("few", 8))
    ]


@pytest.fixture(scope="module")
def begin_with(tmp_path_factory, config, snapshots):
    """Folders with published weights, and a run with another seed."""
    run = tmp_path_factory.mktemp("runs") / "earlier"
    loop.pretrain(override(config, ["seed=9", "max_steps=1"]), snapshots, run)
    return VIVIT, run


@pytest.fixture(scope="module")
def start(config, snapshots, begin_with):
    """Starts `count` processes with 4 devices among them: their logs are RUN-NAME-0, ….

    Each waits `pause` seconds before a step, and measures retrieval on the snapshot `tests`.
    """

    def begin(run, count, name, pause=0.0, tests=""):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={4 // count}"
        folders = json.dumps([str(folder) for folder in snapshots])
        return [
            subprocess.Popen(
                [
                    *(sys.executable, "-c", TRAIN, config.to_json(), folders, run, *begin_with),
                    *(coordinator, str(count), str(number), str(pause), tests),
                    f"{run}-{name}-{number}",
                ],
                env=os.environ | {"XLA_FLAGS": flags},
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(count)
        ]

    return begin


def finish(children, status=0):
    try:
        for child in children:
            _, errors = child.communicate(timeout=300)
            assert child.returncode == status, errors[-3000:]
    finally:
        kill(children)


def kill(children):
    for child in children:
        child.kill()
        child.communicate()


def losses(run):
    return {record["step"]: record["loss"] for record in metric_writer.read(run)}


def told(run, name, count):
    """Read the record of each process."""
    answers = []
    for number in range(count):
        clips, reads = {}, []
        for line in pathlib.Path(f"{run}-{name}-{number}").read_text().splitlines():
            entry = json.loads(line)
            if "step" in entry:
                clips[entry["step"]] = entry["clip_ids"]
            else:
                reads.append(entry["records"])
        answers.append(Told(clips, reads))
    return answers


def last_checkpoint(run):
    return max(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdecimal())


def wait_for_step(run, name, step, children):
    """Wait until these children, and no earlier ones, have written the file."""
    until = time.monotonic() + 300
    while time.monotonic() < until and all(child.poll() is None for child in children):
        # Metrics of repeated steps are removed before the first batch is read.
        log = pathlib.Path(f"{run}-{name}-0")
        if log.exists() and '"step"' in log.read_text() and max(losses(run), default=0) >= step:
            return
        time.sleep(0.02)
    for child in children:
        child.kill()
    errors = [child.communicate()[1][-3000:] for child in children]
    pytest.fail(f"step {step} was not made: {errors}")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, start):
    """Losses by step, counted from 1, and clips by step, from 0, of an undisturbed run."""
    run = tmp_path_factory.mktemp("runs") / "alone"
    finish(start(run, 1, "whole"))
    return losses(run), told(run, "whole", 1)[0].clips


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_is_the_same_after_any_kill_and_resume(config, snapshots, alone, start, tmp_path):
    expected, clips = alone
    assert list(expected) == list(range(1, STEPS + 1)) and list(clips) == list(range(STEPS))
    mixture = Mixture([Snapshot.open(folder) for folder in snapshots], config.input.weights)

    def check(name, count, begun):
        """Check that the clips from step `begun` on are those of the undisturbed run."""
        answers = told(run, name, count)
        for step in set.intersection(*(set(answer.clips) for answer in answers)):
            whole = itertools.chain.from_iterable(answer.clips[step] for answer in answers)
            assert list(whole) == clips[step]
        if not begun:  # then the vocabulary was made, too
            return
        for host, answer in enumerate(answers):
            assert min(answer.clips) == begun
            rows = order.host_rows(config.batch, host, count)
            due = [
                order.batch_records(config.seed, step, config.batch, mixture.sources)[1][rows]
                for step in range(begun, min(begun + len(answer.reads), STEPS))
            ]
            assert sorted(answer.reads) == sorted(records.tolist() for records in due)

    run = tmp_path / "run"
    at = random.Random(config.seed).randrange(4, 8)
    children = start(run, 2, "killed", pause=0.3)
    wait_for_step(run, "killed", at, children)
    children[1].kill()
    finish(children[:1], status=-signal.SIGABRT)  # 134, in a shell: it has lost its peer
    kill(children)
    lost, saved = losses(run), last_checkpoint(run)
    assert at <= max(lost) < STEPS and saved <= max(lost)
    check("killed", 2, begun=0)
    assert lost == pytest.approx({step: expected[step] for step in lost}, rel=1e-5)

    # By as many, to the same bits; then one of them, which neither writes nor coordinates, is asked
    # to stop.
    children = start(run, 2, "same", pause=0.3, tests=snapshots[0])
    wait_for_step(run, "same", max(lost), children)
    children[1].send_signal(signal.SIGTERM)
    finish(children, status=75)
    check("same", 2, begun=saved)
    same = losses(run)
    assert {step: same[step] for step in lost} == lost
    assert last_checkpoint(run) == max(same) < STEPS - 2  # both stopped at one step, and saved it
    assert all(0 <= record["t2v_R@1"] <= 100 for record in metric_writer.read(run)[saved:])

    saved = max(same)
    children = start(run, 1, "fewer", pause=0.3)
    wait_for_step(run, "fewer", saved + 1, children)
    children[0].send_signal(signal.SIGTERM)
    finish(children, status=75)
    check("fewer", 1, begun=saved)

    saved = last_checkpoint(run)
    assert saved < STEPS
    finish(start(run, 4, "more"))
    check("more", 4, begun=saved)
    assert losses(run) == pytest.approx(expected, rel=1e-5)

    # Its exposure to all videos is the log of its clips, and that of the run that it started from.
    videos = {
        snapshot.clip(record).video_id
        for snapshot in mixture.snapshots
        for record in range(len(snapshot))
    }
    found = exposure(run, videos)
    assert not found.unknown and len(found.runs) == 2
    assert {(line["step"] - 1, line["row"]): line["clip_id"] for line in listed(found.runs[0])} == {
        (step, row): clip_id
        for step, of_step in clips.items()
        for row, clip_id in enumerate(of_step)
    }
