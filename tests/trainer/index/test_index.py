import dataclasses
import threading

import jax
import numpy as np
import pytest

import svilm
from protos import contract
from tests.trainer.index.conftest import LABELS
from trainer.configs.overrides import override
from trainer.data.snapshot import Snapshot
from trainer.finite import NonFiniteError
from trainer.index.files import SearchIndexError
from trainer.index.index import MAX_RANK, Index, find_index
from trainer.index.queries import Filters, QueryError
from trainer.inference import api
from trainer.inference.encoder import Encoder, embed_clips


@pytest.fixture(scope="module")
def index(built):
    return svilm.load(built)


@pytest.fixture(scope="module")
def encoder(run):
    return Encoder(run.config, run.tokenizer, run.params)


def rows(hits):
    return [hit.row for hit in hits]


def test_a_text_finds_what_the_search_of_a_snapshot_finds(index, encoder, first, second):
    embedded = [
        embed_clips(Snapshot.open(one.folder), encoder, lambda *_: None)[1].clip
        for one in (first, second)
    ]
    scores = encoder.similarity(["red ring"], np.concatenate(embedded))[0]
    hits = index.search("red ring", top=13)
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True), abs=1e-3)
    for hit in hits:
        assert hit.score == pytest.approx(scores[hit.row], abs=1e-3)
        clip = (first.clips + second.clips)[hit.row]
        assert (hit.clip_id, hit.video_id, hit.start_us, hit.end_us, hit.caption) == (
            clip.clip_id, clip.video_id, clip.start_us, clip.end_us, clip.caption
        )  # fmt: skip
        assert set(hit.labels) == set(clip.labels)
        assert hit.dataset == ("test" if hit.row < 11 else "other")
        assert hit.record == hit.row % 11
    assert index.search("red ring", top=5) == hits[:5]
    assert index.search("red ring", top=5, offset=3) == hits[3:8]
    assert index.search("red ring", top=5, offset=13) == []


def test_several_texts_are_averaged_and_subtracted(index, encoder):
    texts = ["red ring", "blue disc", "a star"]
    red, blue, star = encoder.texts(texts)
    wanted = (red + blue) / 2 - star
    wanted /= np.linalg.norm(wanted)
    hits = index.search(texts[:2], minus=texts[2], top=13)
    cosines = index.clips(range(13)) @ wanted
    assert [hit.score for hit in hits] == pytest.approx(sorted(cosines, reverse=True), abs=1e-5)
    with pytest.raises(QueryError, match="the same"):
        index.search("red ring", minus=["red ring"])


def test_clips_like_a_clip(index):
    hits = index.search(like="video-00001_3000000_3900000", top=13)
    assert len(hits) == 12 and 3 not in rows(hits)
    assert index.search(like=index.clips([3])[0], top=13)[0].row == 3
    both = index.search("red ring", like="video-00001_3000000_3900000", top=13)
    assert 3 not in rows(both)
    for like, error in (
        ("no clip", QueryError),
        (np.zeros(3, np.float32), QueryError),
        (np.zeros(16, np.float32), QueryError),
        (np.full(16, np.nan, np.float32), NonFiniteError),
    ):
        with pytest.raises(error):
            index.search(like=like)


def test_nouns_are_scored_and_located(index, encoder, run, first):
    model = api.Model(run)
    hits = index.search("a clip", nouns=["red ring", "disc"], top=3)
    (prompted,) = encoder.texts([contract.PROMPT_TEMPLATES[0].format("red ring")])
    for hit, found in zip(hits, index.ground(hits, ["red ring", "disc"]), strict=True):
        assert [one.noun for one in hit.nouns] == ["red ring", "disc"]
        assert hit.nouns[0].score == pytest.approx(
            float((index.groups(hit.row) @ prompted).max()), abs=1e-6
        )
        assert len(found.heat) == 2
        np.testing.assert_allclose(found.heat[0], model.ground(found.frames, "red ring"), atol=1e-5)
    alone = index.search(nouns="red ring", top=13)
    assert alone[0].score == pytest.approx(
        float((index.clips(range(13)) @ prompted).max()), abs=1e-5
    )


def matching(index, **filters):
    return sorted(rows(index.search("ring", filters=Filters(**filters), top=13)))


def test_filters(index, first, second):
    clips = [*first.clips, *second.clips]
    assert matching(index, datasets=("other",)) == [11, 12]
    assert matching(index, videos=("video-00000",)) == [0, 1, 2, 11, 12]
    assert matching(index, videos=("video-00000",), datasets=("test",)) == [0, 1, 2]
    for label in LABELS:
        wanted = [row for row, clip in enumerate(clips) if label in clip.labels]
        assert matching(index, labels=(label,)) == wanted
    assert matching(index, labels=LABELS) == list(range(13))
    assert matching(index, min_us=400_000, max_us=600_000) == [3, 4, 5]
    assert matching(index, max_us=100_000) == [0, 11]
    assert matching(index, min_us=10_000_000) == []
    assert matching(index, videos=("video-00003",), datasets=("other",)) == []
    scores = [hit.score for hit in index.search("ring", top=13)]
    assert len(matching(index, min_score=scores[4])) == 5
    assert matching(index, min_score=1.0) == []


@pytest.mark.parametrize("field", ["datasets", "videos", "labels"])
def test_a_filter_of_what_the_index_lacks(index, field):
    with pytest.raises(QueryError, match=r"has no .*'absent'"):
        matching(index, **{field: ("absent",)})


@pytest.mark.parametrize("fields", [{"min_us": 2, "max_us": 1}, {"min_score": float("nan")}])
def test_filters_that_mean_nothing(fields):
    with pytest.raises(QueryError):
        Filters(**fields)


def test_one_clip_of_each_video(index):
    every = index.search("ring", top=13)
    wanted, seen = [], set()
    for hit in every:
        if (hit.dataset, hit.video_id) not in seen:
            wanted.append(hit)
            seen.add((hit.dataset, hit.video_id))
    assert len(wanted) == 5
    assert index.search("ring", top=13, each_video=True) == wanted
    assert index.search("ring", top=2, offset=1, each_video=True) == wanted[1:3]


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"text": " "},
        {"text": ["ring", ""]},
        {"minus": "ring"},
        {"text": "ring", "top": 0},
        {"text": "ring", "offset": -1},
        {"text": "ring", "top": 2, "offset": MAX_RANK - 1},
    ],
)
def test_queries_that_cannot_be_answered(index, query):
    with pytest.raises(QueryError):
        index.search(**query)


def test_hostile_texts_come_back_as_they_are(build, tmp_path, write_snapshot_at):
    hostile = "<script>alert(1)</script>\x1b[2J\u202e\"'; DROP TABLE \ud7ff"

    def annotate(clip, number):
        clip.caption = hostile
        clip.video_id = f"../../{hostile}{number}"
        clip.clip_id = f"{hostile}_{number}"
        clip.labels.append(hostile)

    written = write_snapshot_at(
        tmp_path / "snapshot", clips=2, height=18, width=24, annotate=annotate
    )
    assert build(tmp_path / "out", written.folder)
    index = Index.open(tmp_path / "out")
    (hit,) = index.search("ring", filters=Filters(labels=(hostile,), videos=(f"../../{hostile}1",)))
    assert (hit.caption, hit.clip_id) == (hostile, f"{hostile}_1")
    (other,) = index.search(like=hit.clip_id)
    assert other.clip_id == f"{hostile}_0"
    assert index.search(hostile)


def test_a_run_is_read_where_the_index_says_unless_it_changed(built, run, tmp_path):
    index = Index.open(built)
    assert index.run.step == 0
    assert "13 clips of 5 videos, float16, exact, run" in repr(index)
    params = jax.tree.map(lambda values: values * 2, run.params)
    with pytest.raises(SearchIndexError, match="parameters_sha256"):
        Index.open(built, run._replace(params=params))


def test_an_index_beside_a_snapshot_is_found(built, run, first, write_snapshot):
    other = run._replace(config=override(run.config, ["video.norm_eps=0.5"]))
    snapshot = Snapshot.open(first.folder)
    beside = run._replace(folder=built.parent / "run")
    assert find_index(beside, snapshot) == built
    assert find_index(beside._replace(config=other.config), snapshot) is None
    assert find_index(beside, Snapshot.open(write_snapshot(clips=4).folder)) is None


def test_threads_get_the_same_results(built):
    index, found = Index.open(built), []
    threads = [
        threading.Thread(target=lambda: found.append(index.search("ring", nouns="disc")))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and all(one == found[0] for one in found)
    assert dataclasses.asdict(found[0][0])["nouns"][0][0] == "disc"


def test_a_run_still_loads_as_a_model(untrained_run):
    assert isinstance(svilm.load(untrained_run), api.Model)
