import numpy as np
import pytest

from trainer.configs.config import InputConfig
from trainer.data import columns, order
from trainer.data.annotations import text_records
from trainer.data.columns import ColumnError
from trainer.data.mixture import Mixture, MixtureError
from trainer.data.selection import Selection, select
from trainer.data.snapshot import Snapshot


@pytest.fixture
def snapshots(write_snapshot):
    """Snapshots of 6 and 5 clips."""
    return [
        Snapshot.open(write_snapshot(name, clips=clips).folder)
        for name, clips in (("a", 6), ("b", 5))
    ]


@pytest.fixture
def column(tmp_path):
    def write(snapshot, name, values, dtype=np.float32, missing="unknown"):
        path = tmp_path / f"{name}-{len(snapshot)}.safetensors"
        columns.write(path, snapshot, name, np.array(values, dtype), {}, missing)
        return columns.read(path)

    return write


def chosen(mixture):
    """The records that the mixture samples, which must be fewer than all."""
    found = mixture.chosen()
    assert found is not None
    return found


def test_nothing_is_selected_by_default(snapshots):
    mixture = Mixture(snapshots, (), select(snapshots, [], InputConfig()))
    assert mixture.selections == (Selection(), Selection())
    assert mixture.sources == (order.Source(6, 6), order.Source(5, 5))
    assert mixture.chosen() is None


def test_one_expression_for_all_snapshots_or_one_each(snapshots, column):
    of_a = column(snapshots[0], "score", [0, 1, 2, 3, 4, np.nan])
    of_b = column(snapshots[1], "score", [9, 9, 0, 0, 9])
    for given, kept in (
        (("score > 2",), [[3, 4], [0, 1, 4]]),
        (("score < 2", "score == 0"), [[0, 1], [2, 3]]),
    ):
        selections = select(snapshots, [of_b, of_a], InputConfig(where=given))
        assert [np.asarray(one.kept).tolist() for one in selections] == kept
        assert selections[0].hashes() == {"score": of_a.values_sha256}
        mixture = Mixture(snapshots, (1.0, 0.5), selections)
        assert chosen(mixture).tolist() == [*kept[0], *(6 + record for record in kept[1])]
        assert (
            text_records(mixture, 2).tolist()
            == chosen(mixture)[[0, len(chosen(mixture)) // 2]].tolist()
        )
        assert [source.visits for source in mixture.sources] == [2, round(len(kept[1]) / 2)]
    selections = select(snapshots, [of_a], InputConfig(where=("score > 2", "")))
    assert chosen(Mixture(snapshots, (), selections)).tolist() == [3, 4, 6, 7, 8, 9, 10]
    with pytest.raises(MixtureError, match="has 2 clips, and its weight samples none"):
        Mixture(snapshots, (0.1, 1.0), selections)


def test_weights_give_the_kept_clips_their_share_of_visits(snapshots, column):
    score = column(snapshots[0], "score", [1, 2, 3, 4, 10, np.nan])
    cluster = column(snapshots[0], "cluster", [0, 0, 0, 0, 1, 1], np.int64)
    config = InputConfig(where=("cluster == 0", ""), weights_column=("score", ""))
    mixture = Mixture(snapshots, (5.0, 1.0), select(snapshots, [score, cluster], config))
    assert [source.visits for source in mixture.sources] == [20, 5]
    records = order.records_at(3, 0, np.arange(25), mixture.sources)
    assert np.bincount(records, minlength=11).tolist() == [2, 4, 6, 8, 0, 0, 1, 1, 1, 1, 1]
    assert chosen(mixture).tolist() == [0, 1, 2, 3, *range(6, 11)]


@pytest.mark.parametrize(
    ("where", "weights", "message"),
    [
        (("size > 1",), (), r"there is no column size of .*given: score, vector"),
        (("score > 9",), (), "keeps none of its clips"),
        (("vector > 1",), (), "has a vector per clip"),
        (("score > 1", "", ""), (), "input.where has 3 for 2 snapshots"),
        (("score > 1",), (), "there is no column score of .*b: give its file"),
        (("score > 1", ""), (), "names vector: leave the column out"),
        ((), ("score", ""), r"weight nan of column score for clip video-00001_5"),
        (("score < 0", ""), ("score", ""), "weight -1 of column score"),
        (("score == 0", ""), ("score", ""), "is 0 for all clips that are kept"),
    ],
)
def test_what_cannot_select_is_refused(snapshots, column, where, weights, message):
    score = column(snapshots[0], "score", [0, 1, 2, 3, -1, np.nan])
    vector = column(snapshots[0], "vector", np.ones((6, 2)))
    if "nan" in message:
        score = column(snapshots[0], "score", [0, 1, 2, 3, 1, np.nan])
    with pytest.raises(ColumnError, match=message):
        select(snapshots, [score, vector], InputConfig(where=where, weights_column=weights))


def test_columns_of_other_snapshots_and_twice_are_refused(snapshots, column):
    score = column(snapshots[0], "score", np.arange(6))
    config = InputConfig(where=("score > 1",))
    with pytest.raises(ColumnError, match="is a column of another snapshot"):
        select(snapshots[1:], [score], config)
    with pytest.raises(ColumnError, match="are both a column score of one snapshot"):
        select(snapshots[:1], [score, score._replace(path="other")], config)
