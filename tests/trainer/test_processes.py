"""Two processes as one run: the losses of one process, stopped and killed on the way as well.

All begin with published weights and another run's, which every process reads.
"""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from trainer import loop, metrics
from trainer.configs.overrides import override
from trainer.weights.start import Start

VIVIT = pathlib.Path(__file__).parents[1] / "data" / "parity" / "vivit"

SETTINGS = ["average_decay=0.9", "evaluate_every=1", "evaluate_clips=4"]

TRAIN = """
import pathlib, sys, time
from trainer import loop, objective, processes
from trainer.configs.config import Config
from trainer.weights.start import Start
settings, snapshot, run, video, earlier, coordinator, count, number, pause, tests = sys.argv[1:]
if int(count) > 1:
    processes.join(coordinator, int(count), int(number))
stream = objective.train_batches
def slow_stream(*arguments, **more):  # so that there is time for a signal
    for one in stream(*arguments, **more):
        time.sleep(float(pause))
        yield one
objective.train_batches = slow_stream
start = Start(video=pathlib.Path(video), run=pathlib.Path(earlier))
monitoring = loop.Monitoring(eval_snapshot=tests or None)
ends = loop.pretrain(
    Config.from_json(settings), snapshot, run, start=start, monitoring=monitoring
)
sys.exit(0 if ends else 75)
"""


@pytest.fixture(scope="module")
def config(noisy_config):
    like_vivit = ["video.layers=2", "video.grouping_after=2"]
    config = override(noisy_config, ["batch=8", "checkpoint_every=3", *SETTINGS, *like_vivit])
    return Start(video=VIVIT).configure(config)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory, write_snapshot_at):
    folder = tmp_path_factory.mktemp("data") / "snapshot"
    return write_snapshot_at(folder, clips=24, frames=4, height=36, width=36).folder


@pytest.fixture(scope="module")
def begin_with(tmp_path_factory, config, snapshot):
    """Folders of published weights, and of a run with another seed."""
    run = tmp_path_factory.mktemp("runs") / "earlier"
    loop.pretrain(override(config, ["seed=9", "max_steps=1"]), snapshot, run)
    return VIVIT, run


def start(config, snapshot, run, begin_with, count, pause=0.0, tests=""):
    """`count` processes with 4 devices among them.

    Each waits `pause` seconds before a step, and measures retrieval on the snapshot `tests`.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={4 // count}"
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-c", TRAIN, config.to_json(), snapshot, run, *begin_with),
                *(coordinator, str(count), str(number), str(pause), tests),
            ],
            env=os.environ | {"XLA_FLAGS": flags},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]


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
    return {record["step"]: record["loss"] for record in metrics.read(run)}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, config, snapshot, begin_with):
    run = tmp_path_factory.mktemp("runs") / "alone"
    finish(start(config, snapshot, run, begin_with, 1))
    return losses(run)


def wait_for(path):
    until = time.monotonic() + 300
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)


@pytest.mark.timeout(900)
def test_two_processes_train_as_one_and_go_on_where_they_were_stopped_or_killed(
    config, snapshot, alone, begin_with, tmp_path
):
    assert list(alone) == list(range(1, 10))
    run = tmp_path / "run"
    children = start(config, snapshot, run, begin_with, 2, pause=1.0, tests=snapshot)
    wait_for(run / "tensorboard")  # training begins
    children[1].send_signal(signal.SIGTERM)  # the one that neither writes nor coordinates
    finish(children, status=75)
    # Both stopped at one step, and it is saved.
    stopped = max(losses(run))
    assert all(0 <= record["t2v_R@1"] <= 100 for record in metrics.read(run))
    assert stopped < 6
    assert max(int(path.name) for path in (run / "checkpoints").iterdir()) == stopped

    children = start(config, snapshot, run, begin_with, 2)
    due = stopped - stopped % 3 + 3
    wait_for(run / "checkpoints" / str(due))
    kill(children)
    assert [child.returncode for child in children] == [-signal.SIGKILL] * 2
    together = losses(run)
    assert due <= len(together) < 9
    assert together == pytest.approx({step: alone[step] for step in together}, rel=1e-5)

    finish(start(config, snapshot, run, begin_with, 1))
    assert losses(run) == pytest.approx(alone, rel=1e-5)
