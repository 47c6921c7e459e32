import numpy as np
import pytest

from trainer.inference import near_duplicates
from trainer.inference.near_duplicates import (
    ColumnRows,
    NearDuplicatesError,
    find_nearest,
    some_pairs,
)


def ignored(done, total):
    assert 0 < done <= total


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def brute_force(rows, found):
    """Return the highest cosine of each row with a row of its cluster that is ranked before it."""
    points, expected = unit(rows.astype(np.float64)), np.full(len(rows), -1.0)
    for cluster in range(found.clusters):
        (members,) = np.nonzero(found.cluster == cluster)
        # Of the clusters that k-means left, the centroid is only needed up to its length.
        cosines = points[members] @ points[members].T
        for place, record in enumerate(members):
            if found.record[record] >= 0:
                expected[record] = cosines[place, members == found.record[record]][0]
    return expected


@pytest.mark.parametrize("clusters", [1, 5])
def test_pairs_within_a_cluster_are_those_of_brute_force(clusters, monkeypatch):
    monkeypatch.setattr(near_duplicates, "_BLOCK", 7)  # several blocks per cluster
    rng = np.random.default_rng(clusters)
    rows = rng.normal(size=(60, 6)).astype(np.float32)
    found = find_nearest(ColumnRows(rows), clusters, 3, ignored)
    assert len(np.unique(found.cluster)) == clusters == found.clusters
    np.testing.assert_allclose(found.cosine, brute_force(rows, found), atol=1e-6)
    points = unit(rows.astype(np.float64))
    for threshold in (0.5, 0.8, 0.9):
        # Each pair above the threshold has one clip that is removed, and no other clip is.
        removed = set(found.duplicates(threshold).tolist())
        same = found.cluster[:, None] == found.cluster[None]
        above = np.argwhere(np.triu(same & (points @ points.T > threshold), 1))
        assert {record for record in removed} <= set(above.ravel().tolist())
        assert all(removed & set(pair) for pair in above.tolist())
        assert len(removed) < len(rows) and (len(above) == 0) == (not removed)
        duplicate_of = found.duplicate_of(threshold)
        assert set(np.flatnonzero(duplicate_of >= 0)) == removed
        for record in removed:  # its chain ends at a clip that is kept
            while duplicate_of[record] >= 0:
                record = duplicate_of[record]
            assert record not in removed


def test_the_clip_farthest_from_the_centroid_is_kept():
    rows = np.array([[1, 0], [1, 0.02], [1, 0.04], [1, 1]], np.float32)
    found = find_nearest(ColumnRows(rows), 1, 0, ignored)
    # The centroid is towards the last row, so of the three alike the first is farthest.
    assert found.duplicates(0.99).tolist() == [1, 2]
    assert found.duplicate_of(0.99).tolist() == [-1, 0, 1, -1]


@pytest.mark.parametrize("clusters", [1, 4])
def test_planted_duplicates_are_found(clusters):
    rng = np.random.default_rng(0)
    originals = rng.normal(size=(50, 32)).astype(np.float32)
    copies = originals[:20] + rng.normal(scale=0.01, size=(20, 32)).astype(np.float32)
    rows = np.concatenate([originals, copies * 7])  # lengths do not matter
    found = find_nearest(ColumnRows(rows), clusters, 1, ignored)
    removed = found.duplicates(0.95)
    assert len(removed) == 20
    pairs = {frozenset((record, int(found.record[record]))) for record in removed.tolist()}
    assert pairs == {frozenset((number, 50 + number)) for number in range(20)}
    shown = some_pairs(found, 0.95, 5)
    assert len(shown) == 5 and np.all(np.diff(found.cosine[shown]) >= 0)
    assert found.cosine[shown[0]] == found.cosine[removed].min()
    assert len(some_pairs(found, 0.9999999, 5)) == 0
    counts = {one["threshold"]: one["removed"] for one in near_duplicates.describe(found, 0.97)}
    assert counts[0.97] == 20 and sorted(counts.values(), reverse=True) == list(counts.values())


def test_the_seed_decides_all():
    rows = ColumnRows(np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32))
    first, again, other = (find_nearest(rows, 6, seed, ignored) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.cluster, other.cluster)


def test_equal_rows_are_one_group():
    found = find_nearest(ColumnRows(np.ones((9, 3), np.float32)), 3, 0, ignored)
    assert found.duplicates(0.95).tolist() == list(range(1, 9))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 3e38])
def test_rows_without_a_cosine_are_refused(value):
    rows = np.ones((5, 3), np.float32)
    rows[3] = value
    with pytest.raises(NearDuplicatesError, match="embedding of record 3 has length"):
        find_nearest(ColumnRows(rows), 1, 0, ignored)
    with pytest.raises(NearDuplicatesError, match="5 clips cannot be divided into 6"):
        find_nearest(ColumnRows(rows), 6, 0, ignored)
