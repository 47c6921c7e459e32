import hypothesis
import pytest
from hypothesis import strategies as st

from trainer.evaluation import qa_accuracy

answers = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=30)


@hypothesis.given(answers, st.integers(0, 6))
def test_the_vocabulary_is_cut_by_count_then_by_first_occurrence(answers, most):
    distinct = list(dict.fromkeys(answers))
    expected = sorted(distinct, key=lambda a: (-answers.count(a), answers.index(a)))
    assert qa_accuracy.vocabulary(answers, most) == expected[:most]
    assert qa_accuracy.vocabulary(answers) == expected


@hypothesis.given(
    st.lists(
        st.tuples(
            st.sampled_from(["What is it?", "what?", "who sings", "how many", ""]),
            st.sampled_from("abc"),
            st.sampled_from(["a", "b", "c", "A", None]),
        ),
        min_size=1,
    )
)
def test_accuracy_is_of_all_questions_and_of_each_type(rows):
    found = qa_accuracy.accuracy(*map(list, zip(*rows, strict=True)))
    assert found["questions"] == len(rows)
    assert found["accuracy"] == pytest.approx(100 * sum(a == p for _, a, p in rows) / len(rows))
    assert found["unanswered"] == sum(p is None for *_, p in rows)
    first_words = {(q.lower().split() or [""])[0] for q, *_ in rows}
    assert found["types"].keys() == first_words
    for kind, part in found["types"].items():
        right = [a == p for q, a, p in rows if (q.lower().split() or [""])[0] == kind]
        assert part["questions"] == len(right)
        assert part["accuracy"] == pytest.approx(100 * sum(right) / len(right))
    # Frequent types first.
    counts = [part["questions"] for part in found["types"].values()]
    assert counts == sorted(counts, reverse=True)
