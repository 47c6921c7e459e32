"""The analytic count, compared with the compiler's for the same step with unrolled layers."""

import pytest

from trainer.configs import PRESETS
from trainer.configs.overrides import override
from trainer.distributed.flops import clip_flops, step_flops
from trainer.distributed.mesh import one_device
from trainer.method.run_scalars import run_scalars
from trainer.method.train_step import batch_shapes, state_shapes, train_step
from trainer.plan.jaxpr_flops import executed_flops

# Wide enough for matrix products to outweigh all else, whose FLOPs the compiler counts too.
WIDE = (
    "batch=8",
    "optimizer.name=sgd",
    "input.jitter_probability=0",
    "video.width=256",
    "video.mlp_width=1024",
    "video.grouping_after=1,3",
)


@pytest.mark.parametrize(
    "settings",
    [(), ("video.layers=5", "video.grouping_after=2,3,5", "text.layers=4", "video.frames=6")],
    ids=["", "deeper, with fewer frames"],
)
def test_the_compiler_counts_as_many_flops(settings):
    config, mesh = override(PRESETS["tiny"], [*WIDE, *settings]), one_device()
    lowered = train_step.lower(
        state_shapes(config, mesh),
        batch_shapes(config, mesh),
        run_scalars(config, 10),
        config=config,
        mesh=mesh,
    )
    counted = (lowered.cost_analysis() or {})["flops"]
    assert 1.0 <= counted / step_flops(config) < 1.03


@pytest.mark.parametrize("locked", [("video",), ("text",), ("video", "text")], ids="+".join)
def test_the_gradients_of_locked_encoders_do_not_count(locked):
    settings = [f"optimizer.{name}_rates.factor=0" for name in locked]
    whole, config = (override(PRESETS["tiny"], [*WIDE, *more]) for more in ((), settings))
    mesh = one_device()
    traced = train_step.trace(
        state_shapes(config, mesh),
        batch_shapes(config, mesh),
        run_scalars(config, 10),
        config=config,
        mesh=mesh,
    )
    assert executed_flops(traced.jaxpr) == pytest.approx(step_flops(config), rel=0.01)
    assert step_flops(config) < step_flops(whole)


def test_the_flops_of_a_paper_clip_are_its_encoders():
    # ViT-B/16×2 and BERT-base alone, without group tokens and grouping blocks, take 2.75 TFLOP.
    config = PRESETS["paper"]
    assert clip_flops(config) == pytest.approx(2.75e12, rel=0.05)
    assert step_flops(config) * (3_300_000 // 1024) * 10 == pytest.approx(9.1e19, rel=0.05)
