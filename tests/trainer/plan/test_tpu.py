"""Plans for TPU slices that are not there; libtpu compiles them. `make fit` installs it."""

import pytest

from trainer.configs import PRESETS
from trainer.configs.overrides import override
from trainer.distributed.hardware import has_libtpu
from trainer.plan.plan import DoesNotFit, make_plan
from trainer.plan.search import search

pytestmark = pytest.mark.skipif(
    not has_libtpu(), reason="libtpu is not installed: `make fit` does it, and runs these"
)

# The paper's step with short sequences, few layers and a small vocabulary: seconds to compile.
SETTINGS = (
    "batch=32",
    "cut_and_paste.pair_group=2",
    "input.jitter_probability=0",
    "video.frames=8",
    "video.resolution=192",
    "video.layers=1",
    "video.grouping_after=1",
    "text.layers=1",
    "text.vocabulary=512",
)
SMALL = override(PRESETS["paper"], SETTINGS)


@pytest.fixture(scope="module")
def planned():
    return make_plan(SMALL, "v5e:2x4", clips=320)


def test_the_step_compiles_for_a_slice_that_is_not_there(planned):
    assert (planned.devices, planned.chip.name, planned.attention) == (8, "v5e", "pallas")
    assert 0 < planned.memory.needed < planned.memory.available == int(15.75 * 2**30)
    assert planned.memory.spare > 0
    assert planned.hours == pytest.approx(100 * planned.roofline.step / 3600)
    assert 0 < planned.utilisation < 1


def test_no_pixel_and_no_video_token_crosses_chips(planned):
    assert planned.crossings
    assert planned.keeps_video, [one for one in planned.crossings if one.content == "unexplained"]


def test_the_compilers_count_with_that_of_the_kernels_is_ours(planned):
    assert planned.kernel_flops > 0
    # Layers are computed again once; elementwise operations count too.
    assert 1.2 < planned.counted_flops / planned.flops < 1.45
    assert planned.counted_flops == pytest.approx(planned.executed_flops, rel=0.1)


def test_a_plan_that_does_not_fit_gives_its_size():
    with pytest.raises(
        DoesNotFit, match=r"v5e:2x2: .*needs \d+\.\d\d GiB, but a device has 15\.75"
    ):
        make_plan(override(SMALL, ["batch=4096", "compute.remat=none"]), "v5e:2x2")


def test_the_search_finds_a_policy(planned):
    told = []
    found = search(override(SMALL, ["batch=64"]), "v5e:2x2", None, 2**30, told.append)
    assert found.config.compute.remat == "none"
    assert told == []
