import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.configs import PRESETS
from trainer.configs.config import Config, CutAndPasteConfig
from trainer.configs.overrides import override
from trainer.runs.run_folder import _scheduled_as
from trainer.training import run_length


def test_the_demo_begins_to_splice_where_it_always_did():
    tiny = PRESETS["tiny"]
    assert tiny.max_steps == 520
    assert tiny.cut_and_paste.first_step(520) == 220
    # Even the longest run has spliced steps.
    assert [tiny.cut_and_paste.first_step(steps) for steps in (1, 2, 10, 60)] == [0, 1, 4, 25]


@given(share=st.floats(0, 1, exclude_max=True), steps=st.integers(1, 10_000))
def test_a_share_is_never_outlasted(share, steps):
    first = CutAndPasteConfig(from_share=share).first_step(steps)
    assert 0 <= first < steps
    assert abs(first - share * steps) <= 1


@pytest.mark.parametrize("settings", [(), ("cut_and_paste.from_step=7",)])
def test_a_configuration_of_an_earlier_release_is_read_and_continued(settings):
    old = json.loads(override(PRESETS["tiny"], settings).to_json())
    del old["cut_and_paste"]["from_share"]
    old["cut_and_paste"]["from_step"] = old["cut_and_paste"]["from_step"] or 220
    started = Config.from_json(json.dumps(old))
    now = override(PRESETS["tiny"], settings)
    assert started.cut_and_paste.first_step(520) == now.cut_and_paste.first_step(520)
    assert _scheduled_as(started, now, 520) == started
    other = dataclasses.replace(
        started, cut_and_paste=dataclasses.replace(started.cut_and_paste, from_step=8)
    )
    assert _scheduled_as(other, now, 520) == now


@pytest.mark.parametrize(
    ("settings", "steps", "said"),
    [
        ("cut_and_paste.from_step=220", 60, "no clips are spliced, and the temporal loss is not"),
        (
            "cut_and_paste.from_step=60",
            60,
            "cut_and_paste.from_step=60; set cut_and_paste.from_step=none",
        ),
        ("cut_and_paste.from_step=60 loss.temporal_weight=0", 60, "no clips are spliced: cut"),
        ("checkpoint_every=60", 60, "no checkpoint before the end: checkpoint_every=60"),
        ("checkpoint_every=9 checkpoint_keep_every=63", 60, "checkpoint_keep_every=63"),
        ("optimizer.warmup_share=0.008", 60, "no warm-up: optimizer.warmup_share=0.008 of 60"),
        ("spike.loss_factor=2", 60, "spikes are not detected: spike.from_step=100"),
        ("evaluate_every=60", 60, "retrieval is evaluated only at the end: evaluate_every=60"),
        ("seed=1", 5, "no trace of steps 6 to 8"),
    ],
)
def test_left_out_actions_are_reported(settings, steps, said):
    quiet = ("checkpoint_every=1", "evaluate_every=1", "optimizer.warmup_share=0.5")
    config = override(PRESETS["tiny"], [*quiet, *settings.split()])
    (line,) = run_length.find_left_out(config, steps, evaluates=True, profile=(4, 8))
    assert said in line


def test_planned_actions_are_not_reported():
    assert run_length.find_left_out(PRESETS["tiny"], 520) == []
    assert run_length.find_left_out(PRESETS["paper"], 30_000, evaluates=True, profile=(9, 12)) == []
