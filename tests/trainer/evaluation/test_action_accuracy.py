import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trainer.evaluation import action_accuracy


@hypothesis.given(
    st.lists(
        # Class d is never tested, and may be given all the same.
        st.tuples(st.sampled_from("abc"), st.sampled_from(["a", "b", "c", "d", None])),
        min_size=1,
    )
)
def test_accuracies_equal_counts_by_hand(rows):
    labels, predicted = map(list, zip(*rows, strict=True))
    found = action_accuracy.accuracy(labels, predicted, number=2)
    assert found["top1"] == pytest.approx(100 * sum(a == b for a, b in rows) / len(rows))
    shares = [
        np.mean([given == name for label, given in rows if label == name]) for name in set(labels)
    ]
    assert found["mean_class"] == pytest.approx(100 * np.mean(shares))
    assert (found["split"], found["videos"]) == (2, len(rows))
    assert found["missing"] == predicted.count(None)


@hypothesis.given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 4), st.integers(1, 5)),
        elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]),  # exact sums, frequent ties
    )
)
def test_views_are_averaged_and_the_first_of_equal_classes_wins(probabilities):
    classes = "abcde"[: probabilities.shape[1]]
    sums = [sum(column) for column in probabilities.T]
    assert (
        action_accuracy.best_class(probabilities, list(classes)) == classes[sums.index(max(sums))]
    )


def test_the_figure_of_several_splits_is_their_mean():
    splits = [
        action_accuracy.accuracy(["a", "b"], ["a", "a"], 1),
        action_accuracy.accuracy(["a"], ["a"], 2),
    ]
    found = action_accuracy.mean_of(splits)
    assert (found["top1"], found["mean_class"], found["splits"]) == (75, 75, splits)
