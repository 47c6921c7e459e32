"""Plans for GPUs that are not there; CUDA's compiler compiles them. `make fit` installs it."""

import pytest

from trainer.cli.main import main
from trainer.configs import PRESETS
from trainer.configs.overrides import override
from trainer.distributed import gpus
from trainer.distributed.hardware import has_cuda
from trainer.plan.plan import make_plan

pytestmark = pytest.mark.skipif(
    not has_cuda(), reason="JAX's plugin for CUDA is not installed: `make fit` does it"
)

# The preset's step with fewer frames and layers, and a small vocabulary: sooner compiled.
SETTINGS = (
    "batch=16",
    "cut_and_paste.pair_group=2",
    "input.jitter_probability=0",
    "video.frames=8",
    "video.layers=1",
    "video.grouping_after=1",
    "text.layers=1",
    "text.vocabulary=512",
)


@pytest.fixture(scope="module")
def planned():
    return make_plan(override(PRESETS["small"], SETTINGS), "h100:2", clips=320)


@pytest.mark.timeout(900)
def test_the_step_compiles_for_gpus_that_are_not_there(planned):
    assert (planned.devices, planned.chip.name, planned.attention) == (2, "H100", "cudnn")
    assert planned.memory.available == int(gpus.GPUS["h100"].memory * gpus.memory_fraction())
    tokens = 4 * 196 + 32
    assert planned.memory.kernels == 8 * tokens * 384 * 4
    assert planned.memory.kernels < planned.memory.needed < 2**30
    assert planned.hours == pytest.approx(200 * planned.roofline.step / 3600)
    assert 0 < planned.utilisation < 1
    assert planned.counted_flops is None
    # Layers are computed again once, and cuDNN's kernels are counted.
    assert 1.2 < planned.executed_flops / planned.flops < 1.5


def test_no_pixel_and_no_video_token_crosses_gpus(planned):
    assert planned.crossings
    assert planned.keeps_video, [one for one in planned.crossings if one.content == "unexplained"]


@pytest.mark.timeout(900)
def test_a_plan_that_does_not_fit_gives_its_size(capsys, monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.01")
    settings = [f"--set={setting}" for setting in SETTINGS]
    assert main(["plan", "--preset=small", "--topology=a10:1", *settings]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "a10:1: a step of batch 16 on 1 devices takes 0." in line
    assert "a device has 0.22: use --search" in line
