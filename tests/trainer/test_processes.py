"""Two processes as one run: the losses of one process, also when they are killed on the way."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from trainer import metrics
from trainer.configs.config import Config, CutAndPasteConfig, InputConfig, TextConfig, VideoConfig

CONFIG = Config(
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
    batch=8,
    epochs=4,
    seed=5,
    log_every=1,
    checkpoint_every=3,
)

TRAIN = """
import sys
from trainer import loop, processes
from trainer.configs.config import Config
settings, snapshot, run, coordinator, count, number = sys.argv[1:]
if int(count) > 1:
    processes.join(coordinator, int(count), int(number))
loop.pretrain(Config.from_json(settings), snapshot, run)
"""


def start(snapshot, run, count):
    """`count` processes with 4 devices among them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={4 // count}",
    }
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-c", TRAIN, CONFIG.to_json(), snapshot, run),
                *(coordinator, str(count), str(number)),
            ],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]


def finish(children):
    for child in children:
        _, errors = child.communicate(timeout=300)
        assert child.returncode == 0, errors[-3000:]


def losses(run):
    return {record["step"]: record["loss"] for record in metrics.read(run)}


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory, write_snapshot_at):
    folder = tmp_path_factory.mktemp("data") / "snapshot"
    return write_snapshot_at(folder, clips=24, frames=4, height=18, width=24).folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory, snapshot):
    run = tmp_path_factory.mktemp("runs") / "alone"
    finish(start(snapshot, run, 1))
    return losses(run)


def test_two_processes_train_as_one_and_one_goes_on_where_they_were_killed(
    snapshot, alone, tmp_path
):
    assert list(alone) == list(range(1, 13))
    run = tmp_path / "run"
    children = start(snapshot, run, 2)
    until = time.monotonic() + 300
    while not (run / "checkpoints" / "3").exists() and time.monotonic() < until:
        time.sleep(0.01)
    for child in children:
        child.kill()
        child.communicate()
    assert [child.returncode for child in children] == [-signal.SIGKILL] * 2
    together = losses(run)
    assert 3 <= len(together) < 12
    assert together == pytest.approx({step: alone[step] for step in together}, rel=1e-5)
    finish(start(snapshot, run, 1))
    assert losses(run) == pytest.approx(alone, rel=1e-5)
