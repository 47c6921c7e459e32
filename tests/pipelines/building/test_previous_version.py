"""New versions that decode only the failed rows of the previous version."""

import dataclasses

import pytest

from pipelines.building import shard
from pipelines.building.graph import write_manifest
from pipelines.building.nouns import NounParser, default_model
from pipelines.planning import plan
from pipelines.planning.plan import Plan
from pipelines.planning.video_lookup import VideoLookup
from pipelines.snapshots import redaction, snapshot, verify
from pipelines.snapshots.remove import remove
from pipelines.snapshots.snapshot import shard_of
from pipelines.sources.clip_request import ClipRequest, clip_id
from pipelines.sources.reject_reasons import REMOVED
from protos import contract
from protos.v1.clip_pb2 import FRAME_ENCODING_JPEG
from protos.v1.manifest_pb2 import BuildConfig

SHARDS = 3


@pytest.fixture(scope="module")
def parser():
    return NounParser(default_model(), contract.PROMPT_TEMPLATES)


def ids(wanted):
    """Return two video ids of the same shard."""
    return [f"video{i}" for i in range(99) if shard_of(f"video{i}", SHARDS) == wanted][:2]


HERE, LATE = ids(0)
ALONE = ids(1)[0]


@pytest.fixture
def setting(tmp_path, make_video, parser):
    """Return a build of three videos with two rows each, one of which is missing at first."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for video_id in (HERE, ALONE):
        make_video(videos / f"{video_id}.mp4", seconds=1)
    rows = [
        ClipRequest(
            clip_id(video_id, start, start + 400_000, "a man"),
            *(video_id, start, start + 400_000, "a man", (), f"rows.csv:{i}"),
        )
        for i, (video_id, start) in enumerate(
            (video_id, start) for video_id in (HERE, LATE, ALONE) for start in (0, 500_000)
        )
    ]
    planned = Plan(
        source="videocc",
        annotations=(),
        annotation_files=(),
        videos=str(videos),
        out=str(tmp_path / "1.0.0"),
        data_version="1.0.0",
        config=BuildConfig(
            frames_per_clip=4,
            short_side=24,
            frame_encoding=FRAME_ENCODING_JPEG,
            jpeg_quality=90,
            prompt_templates=contract.PROMPT_TEMPLATES,
            num_shards=SHARDS,
        ),
        versions={"ffmpeg": "7"},
        spacy_model=default_model(),
        decoder="pyav",
        decode_seconds=60.0,
    )

    past_end = ClipRequest("z", HERE, 5_000_000, 6_000_000, "a man", (), "rows.csv:99")

    def build(version, previous="", more=False):
        wanted = [*rows, past_end] if more else rows
        out = tmp_path / version
        out.mkdir()
        new = dataclasses.replace(planned, out=str(out), data_version=version)
        if previous:
            old = str(tmp_path / previous)
            removed = redaction.removed_videos(old, verify.read_manifest(old))
            new = dataclasses.replace(new, previous=old, removed=removed)
        outcomes = [
            shard.build_shard(
                number,
                [row for row in wanted if shard_of(row.video_id, SHARDS) == number],
                new,
                parser,
                VideoLookup(str(videos)),
            )
            for number in range(SHARDS)
        ]
        write_manifest(new, len(wanted), [], outcomes)
        return out

    return build, videos


def shards(folder):
    return {path.name: path.read_bytes() for path in folder.glob("shard-*")}


def test_only_failed_rows_are_decoded(setting, tmp_path, make_video):
    build, videos = setting
    old = build("1.0.0")
    assert verify.read_manifest(str(old)).counts.rejects == {"video_missing": 2}
    make_video(videos / f"{LATE}.mp4", seconds=1)
    fresh = build("9.0.0")
    (videos / f"{HERE}.mp4").write_bytes(b"not looked at")
    (videos / f"{ALONE}.mp4").unlink()
    new = build("1.1.0", previous="1.0.0")
    manifest = verify.read_manifest(str(new))
    assert verify.faults(str(new), manifest) == []
    assert (manifest.counts.records, dict(manifest.counts.rejects)) == (6, {})
    for name, data in shards(fresh).items():
        if not name.endswith(".json"):
            assert (new / name).read_bytes() == data, name
    assert (new / "shard-00001-of-00003.tfrecord").samefile(old / "shard-00001-of-00003.tfrecord")


def test_an_unchanged_input_gives_the_same_bytes(setting):
    build, _ = setting
    old = build("1.0.0")
    assert shards(build("1.1.0", previous="1.0.0")) == shards(old)


def test_removed_videos_stay_removed(setting, tmp_path, make_video):
    build, videos = setting
    old = build("1.0.0", more=True)
    manifest = verify.read_manifest(str(old))
    remove(str(old), manifest, {HERE}, str(tmp_path / "2.0.0"), "2.0.0")
    make_video(videos / f"{LATE}.mp4", seconds=1)
    new = build("2.1.0", previous="2.0.0", more=True)
    assert dict(verify.read_manifest(str(new)).counts.rejects) == {REMOVED: 3}


def test_another_configuration_is_refused(setting, tmp_path):
    build, _ = setting
    manifest = verify.read_manifest(str(build("1.0.0")))
    new = Plan(
        *("videocc", (), (), "", "", "1.1.0", manifest.config, {"ffmpeg": "8"}, "", "pyav", 1.0),
        previous="1.0.0",
    )
    with pytest.raises(plan.PlanError, match="another software"):
        plan.check_previous(new, manifest)
    same = dataclasses.replace(new, versions={"ffmpeg": "7"})
    plan.check_previous(same, manifest)
    manifest.data_version = "1.9.0"
    plan.check_previous(dataclasses.replace(same, data_version="1.10.0"), manifest)
    for version in ("1.9.0", "1.8.9", "0.10.0"):
        with pytest.raises(plan.PlanError, match="higher --data-version"):
            plan.check_previous(dataclasses.replace(same, data_version=version), manifest)


def test_the_previous_version_must_be_complete(tmp_path, setting):
    build, _ = setting
    (tmp_path / "0.0.0").mkdir()
    with pytest.raises(snapshot.SnapshotError, match="is not a snapshot"):
        build("1.0.0", previous="0.0.0")
