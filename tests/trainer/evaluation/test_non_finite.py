"""Every metric and ranking refuses non-finite numbers and names them."""

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.ablation import summary
from trainer.configs.config import Config, VideoConfig
from trainer.evaluation import action_accuracy as action
from trainer.evaluation import (
    average_precision,
    ground_truth,
    grounding,
    moment_recall,
    retrieval,
    retrieval_files,
    temporal,
)
from trainer.evaluation import box_detection as ava
from trainer.evaluation import box_files as ava_files
from trainer.evaluation import segment_detection as localisation
from trainer.evaluation import segment_files as localisation_files
from trainer.finite import NonFiniteError, finite, finite_tensors
from trainer.inference import moments
from trainer.tasks.localisation import classifier, features, proposals, targets

VIDEO = VideoConfig(frames=4, resolution=32, patch=16, width=8, heads=1, layers=1, mlp_width=8,
                    grouping_after=(1,), group_tokens=2)  # fmt: skip
CONFIG = Config(video=VIDEO)
RNG = np.random.default_rng(0)
BOX = np.array([[0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 1.0, 1.0]])
SPANS = np.array([[0.0, 2.0], [1.0, 4.0]])
HALF = np.array([[True, True, False, False], [False, True, True, False]])
THING = ground_truth.TrueObject("ring", np.ones((4, 32, 32), bool))
ZERO, ONE = np.zeros(2, int), np.arange(2)


class Metric(NamedTuple):
    """A function and its arguments. Each floating-point array gets a non-finite value in turn."""

    name: str
    call: Callable[..., Any]
    floats: tuple[np.ndarray, ...]


def _unit(*shape: int) -> np.ndarray:
    x = RNG.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _localised(segment, score):
    found = [localisation_files.Found("run", float(score[0]), *map(float, segment[0]))]
    action_of = localisation_files.Action("run", 0.0, 2.0)
    videos = {"a": localisation_files.Video(9.0, [action_of], "validation")}
    return localisation_files.figures(
        {"a": found}, localisation_files.Truth("official", videos, frozenset({"run"}))
    )


def _detected(box, score, true):
    keyframes = [("a", 902)]
    return ava_files.figures(
        ava_files.Labelled(keyframes, ZERO, box, ONE + 3, score),
        ava_files.Labelled(keyframes, ZERO, true, ONE + 3, np.ones(2)),
    )


METRICS = [
    Metric("ranks", retrieval.ranks, (_unit(4, 4),)),
    Metric("ranks, optimistic", lambda s: retrieval.ranks(s, "optimistic"), (_unit(4, 4),)),
    Metric("recalls", retrieval.recalls, (np.array([1.0, 2.0, 7.0]),)),
    Metric("expected_recall_at_1", retrieval.expected_recall_at_1, (_unit(4, 4),)),
    Metric("zero_shot", retrieval.zero_shot, (_unit(4, 4),)),
    Metric("both_ways", lambda s: retrieval.both_ways(s, np.array([0, 0, 1, 2])), (_unit(4, 4),)),
    Metric(
        "retrieval's figures",
        lambda s: retrieval_files.figures(
            s, [retrieval_files.Caption("a", "x"), retrieval_files.Caption("b", "y")], ["a", "b"]
        ),
        (_unit(2, 2),),
    ),
    Metric("best_class", lambda p: action.best_class(p, ["run", "sit"]), (_unit(3, 2),)),
    Metric("descending_order", average_precision.descending_order, (RNG.normal(size=4),)),
    Metric("temporal_iou", localisation.temporal_iou, (SPANS, SPANS + 0.5)),
    Metric(
        "localisation's average precisions",
        lambda true, segment, score, at: localisation.average_precisions(
            localisation.Instances(ZERO, ZERO, true),
            localisation.Predictions(ZERO, ZERO, segment, score),
            1,
            at,
        ),
        (SPANS, SPANS, np.array([0.5, 0.6]), np.array([0.5, 0.75])),
    ),
    Metric("localisation's figures", _localised, (SPANS[:1], np.array([0.5]))),
    Metric("box_iou", ava.box_iou, (BOX, BOX)),
    Metric(
        "AVA's average precisions",
        lambda true, box, score: [
            ava.average_precisions(
                ava.Boxes(ZERO, ONE, true),
                ava.Detections(ZERO, ONE, box, score),
                2,
                style,
                np.array([], int),
                ZERO,
            )
            for style in ava.STYLES.values()
        ],
        (BOX, BOX, np.array([0.5, 0.6])),
    ),
    Metric("AVA's figures", _detected, (BOX, np.array([0.5, 0.6]), BOX)),
    Metric("own_side", lambda z: temporal.own_side(z, HALF), (RNG.normal(size=(2, 4, 3)),)),
    Metric(
        "window_accuracy",
        lambda z: temporal.window_accuracy(z, HALF),
        (RNG.normal(size=(2, 4, 3)),),
    ),
    Metric("similarity_matrix", temporal.similarity_matrix, (RNG.normal(size=(4, 3)),)),
    Metric("nearest_group", grounding.nearest_group, (_unit(2, 3), _unit(3))),
    Metric(
        "heat_map",
        lambda groups, share, noun: grounding.heat_map(
            groups, np.array([0, 1] * 4), share, noun, VIDEO
        ),
        (_unit(2, 3), RNG.uniform(size=8), _unit(3)),
    ),
    Metric(
        "pointed_token",
        lambda share: grounding.pointed_token(1, np.array([0, 1, 1]), share),
        (RNG.uniform(size=3),),
    ),
    Metric(
        "pointing",
        lambda groups, share, noun: grounding.pointing(
            groups, np.array([[0, 1] * 4]), share, [[THING]], [noun], grounding.View(CONFIG, 4)
        ),
        (_unit(1, 2, 3), RNG.uniform(size=(1, 8)), _unit(1, 3)),
    ),
    Metric(
        "overlaps", lambda found, true: moment_recall.overlaps([found], true), (SPANS, SPANS[:1])
    ),
    Metric(
        "find_by_cosine",
        lambda cosines: moments.find_by_cosine(cosines, np.array([[0, 2], [1, 3]])),
        (np.array([0.5, -0.25]),),
    ),
    Metric("moments' recalls", moment_recall.recalls, (RNG.uniform(size=(2, 5)),)),
    Metric("prior", moment_recall.prior, (SPANS, np.array([8.0, 9.0]))),
    Metric(
        "find",
        lambda windows, text: moments.find(windows, np.array([[0, 2], [1, 3]]), text),
        (_unit(2, 3), _unit(3)),
    ),
    Metric("boundaries", proposals.boundaries, (RNG.uniform(size=5),)),
    Metric(
        "proposals",
        proposals.proposals,
        (RNG.uniform(size=(4, 4, 2)), RNG.uniform(size=4), RNG.uniform(size=4)),
    ),
    Metric(
        "soft_nms",
        lambda segment, score: proposals.soft_nms(proposals.Proposals(segment, score)),
        (SPANS, np.array([0.5, 0.6])),
    ),
    Metric(
        "predictions",
        lambda segment, score, of_class: proposals.predictions(
            proposals.Proposals(segment, score), 8.0, of_class, ["run", "sit"]
        ),
        (SPANS, np.array([0.5, 0.6]), RNG.uniform(size=(2, 2))),
    ),
    Metric("averaged", classifier.averaged, (RNG.normal(size=(4, 2)), SPANS / 4)),
    Metric(
        "probabilities",
        lambda mean, weight, rows: classifier.probabilities(
            {"mean": mean, "scale": np.ones(2), "weight": weight, "bias": np.zeros(2)}, rows
        ),
        (np.zeros(2), RNG.normal(size=(2, 2)), RNG.normal(size=(3, 2))),
    ),
    Metric("interpolated", lambda x: features.interpolated(x, 4), (RNG.normal(size=(3, 2)),)),
    Metric("targets", lambda actions: targets.targets(actions, 4), (SPANS / 4,)),
    Metric("spread", lambda values: summary.spread(values.tolist()), (np.array([1.0, 2.0]),)),
]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
@given(st.data())
def test_a_number_that_is_not_finite_is_refused_wherever_it_is(metric, data):
    floats = [array.copy() for array in metric.floats]
    metric.call(*(array.copy() for array in floats))  # Unchanged arrays raise no error.
    spoilt = data.draw(st.integers(0, len(floats) - 1), label="argument")
    at = data.draw(st.integers(0, floats[spoilt].size - 1), label="place")
    floats[spoilt].flat[at] = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    with pytest.raises(NonFiniteError, match=r"is not finite|are not finite"):
        metric.call(*floats)


def test_every_public_metric_is_among_them():
    tried = {metric.name for metric in METRICS}
    of_metrics = (
        *(retrieval, action, localisation, ava, average_precision, temporal, moment_recall),
        moments,
    )
    public = {
        name
        for module in of_metrics
        for name, one in inspect.getmembers(module, inspect.isfunction)
        if one.__module__ == module.__name__ and not name.startswith("_")
    }
    takes_no_float = {"accuracy", "mean_of", "average_precision", "check_windows", "draw_masks",
                      "splice", "position_prior"}  # fmt: skip
    named_otherwise = {"average_precisions"}
    assert public - tried == takes_no_float | named_otherwise


def test_nan_does_not_make_perfect_retrieval():
    with pytest.raises(NonFiniteError, match=r"16 of 16 values are not finite"):
        retrieval.zero_shot(np.full((4, 4), np.nan))
    half = np.eye(4)[::-1].copy()
    half[2:] = np.nan
    with pytest.raises(NonFiniteError, match=r"8 of 16 .* first nan at \[2, 0\]"):
        retrieval.zero_shot(half)


@given(st.lists(st.sampled_from([0.0, 1.0, math.nan, math.inf]), min_size=1, max_size=6))
def test_non_finite_values_are_counted(values):
    wrong = [place for place, value in enumerate(values) if not math.isfinite(value)]
    if not wrong:
        assert finite("x", values).tolist() == values
        return
    are = "is" if len(wrong) == 1 else "are"
    with pytest.raises(NonFiniteError) as error:
        finite("x", values, [f"row {place}" for place in range(len(values))])
    assert str(error.value).startswith(f"x: {len(wrong)} of {len(values)} values {are} not finite")
    assert str(error.value).endswith(f"at [{wrong[0]}] (row {wrong[0]})")


def test_a_tensor_is_named():
    tensors = {"video.bias": np.zeros(3, np.float32), "video.scale": np.array(np.inf, np.float32)}
    with pytest.raises(NonFiniteError, match=r"model, tensor video.scale: 1 of 1 .* first inf$"):
        finite_tensors("model", tensors)
