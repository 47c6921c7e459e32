"""Parts of a split share no video and lose no row."""

import argparse
import collections
import shutil
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.cli.argument_types import shares
from pipelines.snapshots import records, split, verify
from pipelines.sources.clip_request import ClipRequest, reject
from protos.v1.manifest_pb2 import Manifest
from protos.video_id import split_extension

VIDEOS = [f"film {number}" for number in range(10)]


def request(video_id):
    return ClipRequest("id", video_id, 0, 1, "", (), "a.csv:1")


@given(st.text(), st.sampled_from([(0.9, 0.1), (0.5, 0.25, 0.25)]), st.integers(0, 9))
def test_every_row_belongs_to_one_part(video_id, parts, seed):
    splits = [*split.splits(parts, seed)]
    for row in (
        request(video_id),
        reject("read", "row_columns", "two", source_row="a.csv:1", video_id=video_id),
    ):
        assert sum(split.has(row, one) for one in splits) == 1
    same = unicodedata.normalize("NFD", video_id) + ".MP4"
    if video_id and not split_extension(video_id)[1]:
        assert split.part_of(same, splits[0]) == split.part_of(video_id, splits[0])


def test_parts_follow_shares_and_seeds():
    drawn = []
    for seed in range(2):
        some = next(split.splits((0.8, 0.15, 0.05), seed))
        drawn.append([split.part_of(f"video{number}", some) for number in range(20_000)])
        counts = collections.Counter(drawn[-1])
        assert counts["train"] == pytest.approx(16_000, rel=0.03)
        assert counts["validation"] == pytest.approx(3000, rel=0.1)
        assert counts["test"] == pytest.approx(1000, rel=0.15)
    same = sum(first == second for first, second in zip(*drawn, strict=True))
    assert same / 20_000 == pytest.approx(0.8**2 + 0.15**2 + 0.05**2, abs=0.02)


def test_parts_are_stable_between_releases():
    some = next(split.splits((0.5, 0.5), 7))
    drawn = "".join(split.part_of(f"video{number}", some)[1] for number in range(20))
    assert drawn == "ereerrrereeererrrrre"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0.9/0.2", "the shares 0.9/0.2 add up to 1.1"),
        ("0.9", "is not two or three shares"),
        ("90/10", "is not two or three shares between 0 and 1"),
        ("1/0", "is not two or three"),
        ("0.25/0.25/0.25/0.25", "is not two or three"),
        ("0.9/-0.1/0.2", "is not two or three"),
        ("0.0/0.5/0.5", "a share of 0"),
        ("nan/nan", "is not two or three"),
    ],
)
def test_invalid_shares_are_refused(text, told):
    with pytest.raises(argparse.ArgumentTypeError, match=told):
        shares(text)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, make_video):
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "videos").mkdir()
    first = make_video(folder / "videos" / f"{VIDEOS[0]}.mp4", seconds=2)
    for video in VIDEOS[1:]:
        shutil.copy(first, folder / "videos" / f"{video}.mp4")
    rows = [f"{video},{start},{start + 1},a man" for video in VIDEOS for start in (0, 1)]
    rows += ["missing 1,0,1,a man", "missing 2,0,1,a man", "film 1,x,1,a man", "a/b,0,1,a man", "x"]
    (folder / "rows.csv").write_text("\n".join(["video,start,end,caption", *rows]))
    return folder


def build(cli, inputs, out, *more):
    return cli(
        *("build", "generic", "--annotations", inputs / "rows.csv"),
        *("--videos", inputs / "videos", "--out", out),
        *("--frames", 2, "--short-side", 24, "--shards", 2, *more),
    )


@pytest.fixture(scope="module")
def built(cli, inputs):
    done = build(cli, inputs, inputs / "out", "--split", "0.6/0.4", "--split-seed", 3)
    assert done.returncode == 0, done.stderr
    return inputs / "out", done


def manifests(folder) -> list[Manifest]:
    return [verify.read_manifest(str(folder / part)) for part in ("train", "test")]


def test_two_snapshots_share_no_video(built, cli):
    folder, done = built
    ids: list[set[str]] = []
    lines: list[str] = []
    for part, manifest in zip(("train", "test"), manifests(folder), strict=True):
        where = str(folder / part)
        assert not verify.faults(where, manifest)
        clips = [*records.read(where, manifest, records.evenly_spaced(manifest, 100))]
        rejects = [*records.rejects(where, manifest)]
        ids.append({clip.video_id for clip in clips} | {one.video_id for one in rejects} - {""})
        lines += [clip.source_row for clip in clips] + [one.source_row for one in rejects]
        assert manifest.config.split.part == part
        assert f"records + {len(rejects)} rejects" in done.stdout
    assert ids[0] and ids[1] and not ids[0] & ids[1]
    assert set(VIDEOS) <= ids[0] | ids[1]
    assert sorted(lines) == sorted(f"rows.csv:{line}" for line in range(2, 27))
    assert sum(manifest.counts.rows for manifest in manifests(folder)) == 25


def test_only_the_same_command_accepts_a_finished_split(built, cli, inputs):
    folder, _ = built
    done = build(cli, inputs, folder, "--split", "0.6/0.4", "--split-seed", 3)
    assert done.returncode == 0 and done.stdout.count("is already complete") == 2
    for more in (("--split", "0.6/0.4"), ("--split", "0.5/0.5", "--split-seed", 3)):
        done = build(cli, inputs, folder, *more)
        assert done.returncode == 1 and "with another configuration" in done.stderr
    done = build(cli, inputs, folder / "train", "--split", "0.6/0.4")
    assert done.returncode == 1 and "already contains a snapshot" in done.stderr
    done = build(cli, inputs, folder, "--split-seed", 3)
    assert done.returncode == 2 and "--split-seed has no effect" in done.stderr


def test_a_retry_without_other_videos_gives_the_same_parts(built, cli, inputs):
    folder, _ = built
    more = ("--split", "0.6/0.4", "--split-seed", 3)
    retry = ("--retry-rejects", folder, "--data-version", "1.1.0")
    done = build(cli, inputs, inputs / "retried", *more, *retry)
    assert done.returncode == 0, done.stderr
    assert [m.counts for m in manifests(inputs / "retried")] == [
        m.counts for m in manifests(folder)
    ]


def test_commands_show_the_part(built, cli, tmp_path):
    folder, _ = built
    told = "test of train 0.6, test 0.4, by video, seed 3"
    done = cli("verify", folder / "test", "--workers", 1)
    assert f"({told}) is sound" in done.stdout
    done = cli("describe", folder / "test", "--out", tmp_path / "card.html")
    assert done.returncode == 0 and told in (tmp_path / "card.html").read_text()
    done = cli("diff", folder / "train", folder / "test")
    assert f"option split: train of train 0.6, test 0.4, by video, seed 3 → {told}" in done.stdout


def test_verify_finds_a_record_of_another_part(built):
    folder, _ = built
    train, _ = manifests(folder)
    train.config.split.part = "test"
    faults = verify.faults(str(folder / "train"), train)
    assert any("belongs to train, not test" in fault for fault in faults)
