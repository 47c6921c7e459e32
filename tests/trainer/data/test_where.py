import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.where import WhereError, holds, names

COLUMNS = {
    "score": np.array([0.1, 0.3, 0.5, np.nan], np.float32),
    "cluster": np.array([7, 2, 7, 2], np.int64),
}


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("score > 0.3", [2]),
        ("score >= 0.3", [1, 2]),  # 0.3 is compared as a float32
        ("not score > 0.3", [0, 1]),  # a missing value is neither
        ("score != 0.5", [0, 1]),
        ("score is None", [3]),
        ("score is not None and cluster != 7", [1]),
        ("cluster == 7 or score is None", [0, 2, 3]),
        ("not (cluster == 7 or score < 0.2)", [1]),
        ("score < 1 or cluster == 2", [0, 1, 2, 3]),
        ("0.2 < score <= 0.5", [1, 2]),
        ("-1 < cluster", [0, 1, 2, 3]),
        ("cluster > score", [0, 1, 2]),
        ("cluster is None", []),
    ],
)
def test_records_are_kept_where_it_is_true(expression, kept):
    assert np.flatnonzero(holds(expression, COLUMNS)).tolist() == kept
    assert set(names(expression)) <= set(COLUMNS)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("__import__('os').system('true') > 1", "is no column and no number"),
        ("score", "is no comparison"),
        ("score > 'a'", "is no column and no number"),
        ("score > True", "is no column and no number"),
        ("score + 1 > 2", "is no column and no number"),
        ("score in cluster", "`in` is not a comparison"),
        ("score is 3", "compares a column with None"),
        ("1 < 2", "is compared with no column"),
        ("score > 1e400", "too large"),
        (f"cluster > {2**64}", "too large"),
        ("score >", "not understood"),
        ("score = 3", "not understood"),
        ("", "not understood"),
        ("score > 1\x00", "not understood"),
        ("(" * 3000 + "score > 1" + ")" * 3000, "not understood"),
        ("not " * 1500 + "score > 1", "not understood"),
        ("score > 1 and " * 1000 + "score > 1", "has 14,"),
        ("[x for x in score] > 1", "is no column and no number"),
        ("(lambda: 1) == score", "is no column and no number"),
        ("score > (x := 1)", "is no column and no number"),
    ],
)
def test_all_else_is_refused(expression, message):
    with pytest.raises(WhereError, match=message):
        names(expression)


@given(st.text(max_size=30))
def test_no_text_is_evaluated_or_crashes(text):
    with contextlib.suppress(WhereError):
        names(text)
