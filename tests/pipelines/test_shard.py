"""A shard that fails too often ends the run."""

import dataclasses

import pytest

from pipelines import shard
from pipelines.clip_request import ClipRequest, clip_id
from pipelines.nouns import NounParser, default_model
from pipelines.plan import Plan, build_config
from protos import contract


@pytest.fixture(scope="module")
def parser():
    return NounParser(default_model(), contract.PROMPT_TEMPLATES)


@pytest.fixture
def planned(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "out").mkdir()
    config = build_config(4, 24, 90, contract.PROMPT_TEMPLATES, 1)
    where = str(tmp_path / "videos"), str(tmp_path / "out")
    return Plan("videocc", (), (), *where, "1.0.0", config, {}, default_model(), 60.0)


def rows(count):
    return [
        ClipRequest(
            clip_id(f"video{i}", 0, 9, "a man"), f"video{i}", 0, 9, "a man", (), f"rows.csv:{i}"
        )
        for i in range(count)
    ]


def test_too_many_failures_stop_the_run_and_say_why(planned, parser, tmp_path):
    strict = dataclasses.replace(planned, most_failures=0.5)
    with pytest.raises(shard.HopelessError, match=r"100 of the first 100 rows.*video_missing"):
        shard.build_shard(0, rows(150), strict, parser)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(("count", "most"), [(99, 0.5), (150, 1.0)])
def test_few_rows_or_a_greater_share_do_not(planned, parser, count, most):
    lenient = dataclasses.replace(planned, most_failures=most)
    outcome = shard.build_shard(0, rows(count), lenient, parser)
    assert outcome.rejects == {"video_missing": count}
