"""One program on 1 device, on 8, and on 8 of two processes: the same loss and gradients.

And nothing moves that must not. Runs in processes of their own, since the number of devices is
fixed when JAX starts.
"""

import dataclasses
import json
import os
import re
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from trainer.configs.config import ComputeConfig, Config, MeshConfig
from trainer.distributed.mesh import MeshError, make_mesh, on_own_devices, one_device, partition

# Prints the losses and gradients of a step, and its program's collectives.
PROGRAM = """
import json, re, sys
import jax, numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from trainer.distributed import multihost
from trainer.method import train_step
from trainer.method.run_scalars import run_scalars
from trainer.runs.tensor_shapes import by_name
from trainer.configs.overrides import override
from trainer.configs import PRESETS
from trainer.distributed.mesh import PER_CLIP, make_mesh
from trainer.data.types import Batch, Crops
from trainer.training.device_batch import on_devices

fsdp, microbatches, coordinator, count, number = sys.argv[1:]
if int(count) > 1:
    multihost.join(coordinator, int(count), int(number))

def whole(tree):
    return by_name(multihost_utils.process_allgather(tree, tiled=True))

config = override(PRESETS["tiny"], [
    "batch=32", "cut_and_paste.pair_group=2", "cut_and_paste.from_step=0", "video.width=64",
    "video.frames=8", "video.layers=1", "video.grouping_after=1", "optimizer.name=sgd",
    f"optimizer.learning_rate={2**20}", "optimizer.momentum=0", "optimizer.warmup_share=0",
    "optimizer.clip_norm=1e9",
    "text.vocabulary=40", "text.width=32", "loss.learn_temperatures=true",
    "video.heads=8", "text.heads=8",  # each device has one at most
    f"mesh.fsdp={fsdp}", f"compute.microbatches={microbatches}",
])
mesh = make_mesh(config)
rng = np.random.default_rng(0)
b, k, l = config.batch, 2, config.text.tokens
valid = rng.random((b, k)) < 0.7
batch = Batch(
    rng.integers(0, 256, (b, 8, 60, 60, 3), np.uint8),
    rng.integers(0, 40, (b, l), np.int32), np.ones((b, l), bool),
    rng.integers(0, 40, (b, k, l), np.int32), np.ones((b, k, l), bool),
    valid, np.arange(b, dtype=np.int32),
)
per_clip = NamedSharding(mesh, PER_CLIP)
batch = jax.tree.map(
    lambda x: jax.make_array_from_callback(x.shape, per_clip, lambda rows: x[rows]), batch
)
state = train_step.init_state(config, mesh)

before = whole(state.params)
scalars = run_scalars(config, 10)
compiled = train_step.train_step.lower(state, batch, scalars, config=config, mesh=mesh).compile()
found = re.findall(
    r"= (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\\(",
    compiled.as_text(),
)
after, measured = compiled(state, batch, scalars)
changed = whole(after.params)
# Clips that show their row, left to the devices to scale.
ours = np.arange(b).reshape(int(count), -1)[int(number)]
crops = Crops(tuple(np.full((1, 4, 4, 3), row, np.uint8) for row in ours),
              np.full(ours.shape, 4, np.int32), np.zeros(ours.shape, bool))
scaled = on_devices(Batch(crops, ours, ours, ours, ours, ours, ours), mesh, resolution=4).frames
rows = multihost_utils.process_allgather(scaled, tiled=True)

told = json.dumps({
    "rows": rows[:, 0, 0, 0, 0].tolist(),
    "devices": len(jax.devices()),
    "parts": {name: float(value) for name, value in measured.items()},
    # The optimizer subtracts the gradient and does nothing else; so many times it that the
    # parameter's own rounding is not part of the error.
    "gradient": {name: ((np.float64(leaf) - np.float64(changed[name])) / 2**20).ravel().tolist()
                 for name, leaf in before.items()},
    "collectives": [shape + " " + kind for shape, kind in found],
    "shard_bytes": sum(leaf.addressable_shards[0].data.nbytes
                       for leaf in jax.tree.leaves(after.params)),
})
if multihost.is_first():  # the first ends only after the others, whose output nobody reads yet
    print(told)
"""


def run(devices, fsdp, microbatches, processes=1):
    """Return the results of a step on devices split evenly among processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    count = devices // processes
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"
    arguments = [str(fsdp), str(microbatches), coordinator, str(processes)]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments, str(number)],
            env=os.environ | {"XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    try:
        ended = [(*child.communicate(timeout=280), child.returncode) for child in children]
    finally:
        for child in children:
            child.kill()
            child.communicate()
    assert [status for *_, status in ended] == [0] * processes, ended[0][1][-3000:]
    return json.loads(ended[0][0].splitlines()[-1])


@pytest.fixture(scope="module")
def alone():
    return run(1, 1, 1)


@pytest.fixture(
    scope="module",
    params=[(8, 4, 1, 1), (8, 8, 2, 2)],
    ids=["2 copies on 4 devices each", "a copy on both processes' 4 devices, in 2 parts"],
)
def spread(request):
    return request.param, run(*request.param)


# What is the same for all that a softmax chooses among does not change it: these have no gradient,
# but of rounding.
WITHOUT_EFFECT = (
    "attention.key.bias",
    "grouping_1.query.bias",
    "grouping_1.norm_groups.bias",
)


def test_losses_and_every_gradient_are_those_of_one_device(alone, spread):
    _, many = spread
    assert many["devices"] == 8
    for name, value in alone["parts"].items():
        assert many["parts"][name] == pytest.approx(value, rel=1e-5, nan_ok=True), name
    assert many["gradient"].keys() == alone["gradient"].keys()
    for name, gradient in alone["gradient"].items():
        scale = np.abs(gradient).max()
        difference = np.abs(np.subtract(many["gradient"][name], gradient)).max()
        if any(name.endswith(ending) for ending in WITHOUT_EFFECT):
            assert scale + difference < 3e-8, (name, difference, scale)
        else:
            assert difference < 5e-6 * scale, (name, difference, scale)


def test_clips_that_devices_scale_stay_in_their_rows(spread):
    _, many = spread
    assert many["rows"] == list(range(32))


def test_no_pixel_and_no_video_token_leaves_its_device(spread):
    _, many = spread
    assert many["collectives"]
    for shape in re.findall(r"\[([\d,]+)\]", " ".join(many["collectives"])):
        sizes = [int(size) for size in shape.split(",")]
        # A device's frames are [4, 8, 60, 60, 3], its tokens [4, 100, 64] or [4, 4, 25, 64].
        assert not {60, 3600} & set(sizes), many["collectives"]
        assert len(sizes) < 3 or not {25, 100} & set(sizes), many["collectives"]


def test_parameters_are_cut_up_over_the_devices_that_share_them(alone, spread):
    (_, fsdp, *_), many = spread
    # Norms, biases and temperatures are on all.
    assert many["shard_bytes"] < 1.2 * alone["shard_bytes"] / fsdp


@dataclasses.dataclass(frozen=True)
class Chip:
    process_index: int
    id: int
    platform: str = "cpu"


def test_each_processs_devices_are_side_by_side_however_jax_lists_them():
    # Of two hosts with 2×2 chips each, listed row by row over both: as JAX lists some slices.
    places = [(0, 0), (0, 1), (1, 2), (1, 3), (0, 4), (0, 5), (1, 6), (1, 7)]
    listed = [Chip(*place) for place in places]
    mesh = make_mesh(Config(mesh=MeshConfig(fsdp=2)), listed)
    assert mesh.devices.shape == (4, 2)
    assert [device.id for device in mesh.devices.flat] == [0, 1, 4, 5, 2, 3, 6, 7]
    shuffled = [listed[place] for place in np.random.default_rng(0).permutation(8)]
    assert make_mesh(Config(mesh=MeshConfig(fsdp=2)), shuffled).devices.tolist() == (
        mesh.devices.tolist()
    )


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"mesh": MeshConfig(fsdp=2)}, "mesh.fsdp=2 does not divide the number of devices, 1"),
        (
            {"compute": ComputeConfig(microbatches=3)},
            "batch 1024 must be divisible by 1 devices × compute.microbatches 3 × cut_and_paste.pa",
        ),
        (
            {"compute": ComputeConfig(attention="pallas")},
            "compute.attention=pallas requires TPUs, but the devices are CPUs: use ",
        ),
    ],
)
def test_unsuitable_devices_are_refused(settings, told):
    with pytest.raises(MeshError, match=told):
        make_mesh(Config(**settings))


def test_a_parameter_without_a_rule_is_refused():
    with pytest.raises(MeshError, match=r"video\.new\.thing matches no rule"):
        partition("video.new.thing", (4, 4), one_device())


def test_parameters_are_gathered_by_one_program(caplog):
    params = {"kernel": np.arange(12.0, dtype=np.float32).reshape(3, 4)}
    with jax.log_compiles():
        first = on_own_devices(params, one_device())
        assert "Compiling jit(_identity)" in caplog.text
        caplog.clear()
        again = on_own_devices(params, one_device())
    assert "Compiling" not in caplog.text
    np.testing.assert_array_equal(first["kernel"], params["kernel"])
    np.testing.assert_array_equal(again["kernel"], params["kernel"])
