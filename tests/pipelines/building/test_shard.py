"""Building a shard: failures, duplicates, spans past the end, frames and labels."""

import dataclasses
import itertools

import numpy as np
import pytest

from pipelines.building import shard
from pipelines.building.nouns import NounParser, default_model
from pipelines.decoding import video
from pipelines.planning.plan import Plan
from pipelines.planning.video_lookup import VideoLookup
from pipelines.snapshots import snapshot
from pipelines.snapshots.card import pictures
from pipelines.sources.clip_request import Box, ClipRequest, Question, Segment, clip_id, lacking
from protos import contract, tfrecord
from protos.v1.clip_pb2 import FRAME_ENCODING_JPEG, FRAME_ENCODING_PNG, FRAME_ENCODING_RAW, Clip
from protos.v1.manifest_pb2 import BuildConfig, Filters, ShardSummary


@pytest.fixture(scope="module")
def parser():
    return NounParser(default_model(), contract.PROMPT_TEMPLATES)


@pytest.fixture
def planned(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "out").mkdir()
    config = BuildConfig(
        frames_per_clip=4,
        short_side=24,
        frame_encoding=FRAME_ENCODING_JPEG,
        jpeg_quality=90,
        prompt_templates=contract.PROMPT_TEMPLATES,
        num_shards=1,
    )
    where = str(tmp_path / "videos"), str(tmp_path / "out")
    return Plan("videocc", (), (), *where, "1.0.0", config, {}, default_model(), "pyav", 60.0)


def with_config(plan, **choices):
    config = BuildConfig()
    config.CopyFrom(plan.config)
    config.MergeFrom(BuildConfig(**choices))
    return dataclasses.replace(plan, config=config)


def row(video_id, end_us=9, number=0):
    name = clip_id(video_id, 0, end_us, "a man")
    return ClipRequest(name, video_id, 0, end_us, "a man", (), f"rows.csv:{number}")


def rows(count):
    return [row(f"video{i}", number=i) for i in range(count)]


def build(plan, parser, requests):
    return shard.build_shard(0, requests, plan, parser, VideoLookup(plan.videos))


def only_record(tmp_path):
    (path,) = (tmp_path / "out").glob("*.tfrecord")
    return Clip.FromString(tfrecord.unframe(path.read_bytes()))


def test_too_many_failures_stop_the_run(planned, parser, tmp_path):
    strict = dataclasses.replace(planned, max_failures=0.5)
    with pytest.raises(
        shard.TooManyFailuresError, match=r"100 of the first 100 rows.*video_missing"
    ):
        build(strict, parser, rows(150))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(("count", "maximum"), [(99, 0.5), (150, 1.0)])
def test_few_failures_do_not_stop_the_run(planned, parser, count, maximum):
    lenient = dataclasses.replace(planned, max_failures=maximum)
    outcome = build(lenient, parser, rows(count))
    assert outcome.rejects == {"video_missing": count}


def test_ids_with_a_common_prefix(planned, parser, tmp_path, make_video):
    film = make_video(tmp_path / "videos" / "s1.mp4", seconds=1)
    ids = ("s1", "s1-a", "s10", "s1_5", "s1_00", "s1A", "s2")
    for video_id in ids[1:]:
        (tmp_path / "videos" / f"{video_id}.mp4").hardlink_to(film)
    clips = [
        ClipRequest(
            clip_id(video_id, start, start + 400_000, "a man"),
            *(video_id, start, start + 400_000, "a man", (), f"rows.csv:{i}"),
        )
        for i, (video_id, start) in enumerate(itertools.product(ids, (0, 60_000, 500_000)))
    ]
    outcome = build(planned, parser, clips)
    assert (outcome.entry.records, outcome.rejects) == (len(clips), {})
    index = snapshot.read_index(str(tmp_path / "out" / outcome.entry.index.name))
    found = [entry.clip_id for entry in index.records]
    assert found == sorted(clip.clip_id for clip in clips)


@pytest.mark.parametrize(
    ("past_end", "shortest_us", "end_us", "is_record"),
    [
        (0.5, 0, 2_000_000, True),
        (0.5, 0, 2_000_002, False),
        (0.1, 0, 2_000_000, False),
        (0.0, 0, 1_200_000, False),
        (1.0, 0, 9_000_000, True),
        (0.5, 1_000_000, 2_000_000, True),
        (0.5, 1_000_001, 2_000_000, False),
    ],
)
def test_a_video_of_one_second(
    planned, parser, tmp_path, make_video, past_end, shortest_us, end_us, is_record
):
    make_video(tmp_path / "videos" / "a.mp4", seconds=1)
    plan = with_config(
        planned, filters=Filters(min_clip_us=shortest_us), max_past_end_share=past_end
    )
    outcome = build(plan, parser, [row("a", end_us)])
    assert (outcome.entry.records, outcome.rejects) == (
        (1, {}) if is_record else (0, {"span_past_end": 1})
    )
    if is_record:
        clip = only_record(tmp_path)
        contract.check_clip(clip, plan.config)
        assert (clip.end_us, clip.end_cut_from_us) == (1_000_000, end_us)
        assert clip.frame_time_us[:] == [125_000, 375_000, 625_000, 875_000]
        assert clip.clip_id == row("a", end_us).clip_id


def test_a_span_within_its_video_is_not_cut(planned, parser, tmp_path, make_video):
    make_video(tmp_path / "videos" / "a.mp4", seconds=1)
    build(with_config(planned, max_past_end_share=0.5), parser, [row("a", 1_000_000)])
    clip = only_record(tmp_path)
    assert (clip.end_us, clip.end_cut_from_us) == (1_000_000, 0)


@pytest.mark.parametrize(("minimum", "is_record"), [(0, True), (5.9, True), (6.1, False)])
def test_static_clips_are_dropped(planned, parser, tmp_path, make_video, minimum, is_record):
    make_video(tmp_path / "videos" / "a.mp4", seconds=1)  # six greys between successive frames
    make_video(tmp_path / "videos" / "b.mp4", seconds=1, filters="geq=lum=80")
    plan = with_config(planned, filters=Filters(min_motion=minimum))
    outcome = build(plan, parser, [row("a", 960_000), row("b", 960_000, number=1)])
    static = (not is_record) + (minimum > 0)
    assert outcome.rejects == ({"clip_static": static} if static else {})
    assert outcome.entry.records == 2 - static


def test_png_and_raw_records_have_the_decoders_pixels(planned, parser, tmp_path, make_video):
    path = make_video(tmp_path / "videos" / "v.mp4", filters="noise=alls=60:allf=t")
    (_, frames), *_ = video.decode(
        str(path), [(0, 1_000_000)], frames=4, short_side=24, decoder="pyav"
    )
    assert isinstance(frames, video.Frames)
    assert frames.pixels.shape == (4, 24, 32, 3) and frames.pixels.std() > 10
    for encoding in (FRAME_ENCODING_PNG, FRAME_ENCODING_RAW):
        for square, pixels in ((False, frames.pixels), (True, frames.pixels[:, :, 4:28])):
            plan = with_config(planned, frame_encoding=encoding, square=square)
            build(plan, parser, [row("v", 1_000_000)])
            clip = only_record(tmp_path)
            contract.check_clip(clip, plan.config)
            drawn = pictures.small(clip, range(4), clip.width, clip.height)
            np.testing.assert_array_equal([np.asarray(image) for image in drawn], pixels)


def labelled(label, number, caption="a man"):
    name = clip_id("1", 0, 960_000, caption)
    return ClipRequest(name, "1", 0, 960_000, caption, (label,), f"rows.csv:{number}")


def in_folders_of_labels(planned, tmp_path, make_video, **filters):
    for label, look in filters.items():
        (tmp_path / "videos" / label).mkdir()
        make_video(tmp_path / "videos" / label / "1.mp4", seconds=1, filters=look)
    template = f"{tmp_path}/videos/{{label}}/{{video_id}}.{{ext}}"
    return dataclasses.replace(planned, videos=template)


@pytest.mark.parametrize("captions", [("runs", "jumps"), ("jumps", "runs"), ("", "")])
def test_an_id_in_two_label_folders_is_ambiguous(planned, parser, tmp_path, make_video, captions):
    plan = in_folders_of_labels(planned, tmp_path, make_video, run="geq=lum=80", jump="geq=lum=160")
    requests = [labelled("run", 9, captions[0]), labelled("jump", 10, captions[1])]
    outcome = build(plan, parser, requests[::-1])
    assert (outcome.entry.records, outcome.rejects) == (1, {"video_ambiguous": 1})
    assert only_record(tmp_path).labels == ["run"]
    (path,) = (tmp_path / "out").glob("*.json")
    (reject,) = snapshot.read_json(str(path), ShardSummary).rejects
    assert (reject.source_row, reject.video_id, reject.stage) == ("rows.csv:10", "1", "decode")
    assert reject.message == (
        "'jump/1.mp4' and 'run/1.mp4' have one id: give each file its own, and its rows"
    )
    again = build(plan, parser, requests)
    assert again.reused and again.entry == outcome.entry


def test_a_label_without_a_file_is_rejected(planned, parser, tmp_path, make_video):
    plan = in_folders_of_labels(planned, tmp_path, make_video, run="null")
    outcome = build(plan, parser, [labelled("jump", 0), labelled("run", 1)])
    assert (outcome.entry.records, outcome.rejects) == (1, {"video_missing": 1})
    assert only_record(tmp_path).labels == ["run"]


def test_labels_linked_to_one_file_are_one_video(planned, parser, tmp_path, make_video):
    plan = in_folders_of_labels(planned, tmp_path, make_video, run="null")
    (tmp_path / "videos" / "jump").symlink_to("run")
    outcome = build(plan, parser, [labelled("jump", 0, "jumps"), labelled("run", 1, "runs")])
    assert (outcome.entry.records, outcome.rejects) == (2, {})


QUESTIONS = (Question("0", "what?", "a cat", "what"), Question("1", "who?", "a man", "who"))


@pytest.mark.parametrize(
    ("fields", "lost"),
    [
        ({"labels": ("run", "jump")}, "1 of its labels"),
        ({"captions": ("", "a", "b")}, "2 of its captions"),
        ({"questions": QUESTIONS}, "2 of its questions"),
        ({"segments": (Segment(0, 1, "run"),)}, "1 of its segments"),
        ({"boxes": (Box(0, 0, 0, 1, 1, ("run",), "1"),)}, "1 of its boxes"),
        ({"labels": ()}, ""),
        ({}, ""),
    ],
)
def test_a_duplicate_reports_its_lost_annotations(
    planned, parser, tmp_path, make_video, fields, lost
):
    make_video(tmp_path / "videos" / "1.mp4", seconds=1)
    first, second = labelled("run", 0, ""), labelled("run", 1, "")._replace(**fields)
    outcome = build(planned, parser, [first, second])
    reason = "duplicate_differs" if lost else "duplicate"
    assert (outcome.entry.records, outcome.rejects) == (1, {reason: 1})
    (path,) = (tmp_path / "out").glob("*.json")
    (reject,) = snapshot.read_json(str(path), ShardSummary).rejects
    same = "the same clip as rows.csv:0"
    assert reject.message == (f"{lost} are lost: {same}" if lost else same)


def test_a_duplicate_whose_questions_have_other_ids_loses_nothing():
    kept = labelled("run", 0)._replace(questions=QUESTIONS)
    other = kept._replace(questions=(QUESTIONS[0]._replace(question_id="7"),))
    assert (lacking(kept, other), lacking(other, kept)) == ("", "1 of its questions")
