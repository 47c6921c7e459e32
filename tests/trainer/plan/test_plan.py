"""`svilm-train plan` for the devices that are here, and what it says of a program that leaks."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest
from jax.sharding import AbstractMesh

from trainer.cli.main import main
from trainer.configs import PRESETS
from trainer.configs.config import Config
from trainer.configs.overrides import override
from trainer.distributed.hardware import Chip
from trainer.distributed.mesh import AXES, one_device
from trainer.method.train_step import state_shapes
from trainer.plan import plan, search
from trainer.plan.collectives import FIGURES, PARAMETERS, TEXTS, UNEXPLAINED, crossings
from trainer.plan.hlo import Collective, Shape
from trainer.plan.plan import DoesNotFit, PlanError, make_plan
from trainer.plan.text import as_json, describe

SETTINGS = [
    "batch=8",
    "cut_and_paste.pair_group=2",
    "optimizer.name=sgd",  # compiles sooner
    "video.frames=4",
    "video.resolution=24",
    "video.width=64",
    "video.layers=1",
    "video.grouping_after=1",
    "text.layers=1",
    "text.width=64",
    "joint_width=32",
]
TOY = override(PRESETS["tiny"], SETTINGS)


@pytest.fixture(scope="module")
def planned():
    return make_plan(TOY, "here", clips=100)


def test_a_plan_for_here_is_of_the_step_that_trains(planned):
    assert (planned.devices, planned.steps) == (1, 20 * (100 // 8))
    state = jax.tree.leaves(state_shapes(TOY, one_device()))
    assert planned.memory.arguments > sum(leaf.size * leaf.dtype.itemsize for leaf in state)
    assert planned.memory.needed < 2**28 < planned.memory.available
    assert planned.executed_flops == pytest.approx(planned.flops, rel=0.01)
    assert planned.compiler_flops > planned.executed_flops
    assert planned.crossings == ()  # one device
    text = describe(planned)
    assert "unknown, as are the rates of 'cpu'" in text
    assert "240 steps in 20 epochs" in text


def test_the_roofline_is_the_slower_of_products_and_memory_then_the_links(planned, monkeypatch):
    monkeypatch.setattr(plan, "chip", lambda _: Chip("slow", None, 1e9, 1e12, 1.0))
    roofline = planned.roofline
    assert roofline.products == planned.executed_flops / 1e9 > roofline.memory
    assert roofline.step == roofline.products
    assert planned.utilisation == pytest.approx(1.0, rel=0.01)
    assert planned.hours == pytest.approx(planned.steps * roofline.step / 3600)
    monkeypatch.setattr(plan, "chip", lambda _: Chip("narrow", None, 1e15, 1e6, 1.0))
    assert planned.roofline.step == planned.bytes / 1e6
    assert as_json(planned)["hours"] == planned.hours


def test_a_step_on_two_devices_moves_parameters_texts_and_figures_only(tmp_path):
    out = tmp_path / "plan.json"
    done = subprocess.run(
        [
            pathlib.Path(sys.executable).with_name("svilm-train"),
            *("plan", "--preset=tiny", f"--out={out}"),
            *(f"--set={setting}" for setting in SETTINGS),
        ],
        env=os.environ
        | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "no pixel and no video token crosses devices" in done.stdout
    written = json.loads(out.read_text())
    assert written["devices"] == 2
    assert written["no_pixel_or_video_token_crosses"] is True
    assert {one["content"] for one in written["collectives"]} == {PARAMETERS, TEXTS, FIGURES}
    reduced = sum(one["bytes"] for one in written["collectives"] if one["content"] == PARAMETERS)
    parameters = sum(leaf.size * 4 for leaf in jax.tree.leaves(params_of(TOY)))
    assert reduced == pytest.approx(parameters, rel=0.01)  # each gradient, once
    assert Config.from_json(json.dumps(written["config"])) == TOY


def params_of(config):
    return state_shapes(config, one_device()).params


@pytest.mark.parametrize(
    ("shape", "content"),
    [
        (Shape("f32", (768, 6, 64)), PARAMETERS),
        (Shape("f32", (384, 768)), PARAMETERS),  # the same, as the compiler may write it
        (Shape("f32", (3136, 384)), PARAMETERS),
        (Shape("bf16", (1, 3136, 768)), UNEXPLAINED),  # one clip's tokens, and not their positions
        (Shape("bf16", (3136, 768)), UNEXPLAINED),
        (Shape("bf16", (32, 768)), UNEXPLAINED),  # group tokens
        (Shape("f32", (768, 12, 64)), UNEXPLAINED),  # a device with all of the tensor sends nothing
        (Shape("bf16", (1024, 2, 256)), TEXTS),
        (Shape("f32", (1024,)), FIGURES),
        (Shape("u32", (2, 16384)), FIGURES),  # 2048 flags, as they lie in a TPU's tiles
        (Shape("bf16", (16, 3168, 768)), UNEXPLAINED),
        (Shape("bf16", (1, 3168, 768)), UNEXPLAINED),
        (Shape("f32", (1024, 16, 768)), UNEXPLAINED),  # windows' mean tokens
        (Shape("bf16", (4, 768)), UNEXPLAINED),  # four video tokens
        (Shape("u8", (16, 32, 224, 224, 3)), UNEXPLAINED),
        (Shape("u8", (1, 1, 224, 224, 3)), UNEXPLAINED),
        (Shape("f32", (1024, 32, 256)), UNEXPLAINED),  # group tokens
    ],
)
def test_only_shapes_that_cannot_be_video_are_explained(shape, content):
    assert explained("all-gather", shape, fsdp=2) == content


def explained(kind, shape, fsdp):
    config = PRESETS["paper"]
    one = Collective(kind, (Shape("f32", ()), shape), devices=64, times=1)
    mesh = AbstractMesh((64 // fsdp, fsdp), AXES)
    (crossing,) = crossings([one], config, params_of(config), mesh)
    return crossing.content


@pytest.mark.parametrize("sizes", [(3136, 768), (768, 12, 64), (768, 6, 64)])
def test_a_sum_over_devices_may_be_a_gradient_and_a_copy_only_a_part(sizes):
    assert explained("all-reduce", Shape("f32", sizes), fsdp=2) == PARAMETERS
    part = sizes == (768, 6, 64)
    for kind in ("all-gather", "all-to-all", "collective-permute"):
        content = explained(kind, Shape("f32", sizes), fsdp=2)
        assert content == (PARAMETERS if part else UNEXPLAINED), kind
        assert explained(kind, Shape("f32", sizes), fsdp=1) == UNEXPLAINED, kind


def test_the_search_takes_the_first_policy_that_leaves_room(planned, monkeypatch):
    needs = {1: None, 2: planned.memory.available, 4: 2**30, 8: 2**20}

    def pretend(config, topology, clips):
        if needs[config.mesh.fsdp] is None:
            raise DoesNotFit(3 * 2**40, 2**30, topology)
        memory = dataclasses.replace(planned.memory, temporaries=needs[config.mesh.fsdp])
        return dataclasses.replace(planned, config=config, memory=memory)

    monkeypatch.setattr(search, "make_plan", pretend)
    monkeypatch.setattr(search, "POLICIES", [(f"mesh.fsdp={fsdp}",) for fsdp in needs])
    told = []
    found = search.search(TOY, "here", None, 2**30, told.append)
    assert found.config.mesh.fsdp == 4
    assert [line.partition(":")[0] for line in told] == ["mesh.fsdp=1", "mesh.fsdp=2"]
    with pytest.raises(
        PlanError, match=r"no policy fits here with 1048576\.00 GiB of headroom: .* 0\.0"
    ):
        search.search(TOY, "here", None, 2**50, told.append)


def test_all_policies_are_settings_of_the_papers_run():
    for settings in search.POLICIES:
        config = override(PRESETS["paper"], settings)
        assert config.compute.remat in settings[0]


def test_a_step_that_does_not_fit_says_how_much_it_takes(monkeypatch, capsys):
    class Small:  # in place of the step, which takes long to compile
        trace = jax.jit(
            lambda state, batch, scalars, config, mesh: state.params["project_text"]["bias"] * 2,
            static_argnames=("config", "mesh"),
        ).trace

    monkeypatch.setattr(plan, "train_step", Small)
    monkeypatch.setattr(plan, "usable_memory", lambda _: 2**4)
    settings = [f"--set={setting}" for setting in SETTINGS]
    assert main(["plan", "--preset=tiny", *settings]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "svilm-train: error: here: a step of batch 8 on 1 devices needs 0.00 GiB"
    )
    assert "a device has 0.00: use --search" in line


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["--set=batch=x"], 2, "--set: batch takes an integer"),
        (["--headroom=-1"], 2, "'-1' is not a number of GiB"),
        (["--set=mesh.fsdp=3"], 1, "mesh.fsdp=3 does not divide the number of devices, 1"),
        (
            ["--clips=640", "--set=epochs=1000000000000", "--set=max_steps=100000000000000"],
            1,
            "10,000,000,000,000 steps exceed the maximum of 2,147,483,647",
        ),
        (["--clips=3"], 1, "a batch of 64 clips cannot be drawn from 3 records"),
    ],
)
def test_a_plan_error_is_one_line(arguments, status, told, capsys):
    assert main(["plan", "--preset=tiny", *arguments]) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("svilm-train: error: ")
    assert told in line
