"""Shapes in the benchmarks' formats: the sources read what the scenes show."""

from typing import Any

import numpy as np
import pytest

from pipelines.building import shard
from pipelines.building.nouns import NounParser, default_model
from pipelines.planning.plan import Plan, read_rows
from pipelines.planning.video_lookup import VideoLookup
from pipelines.shapes import corpus, grammar, render
from pipelines.shapes.draws import Split
from pipelines.shapes.scene import sample_actions, sample_clips, sample_untrimmed
from pipelines.shapes.tasks import actions
from pipelines.sources.clip_request import ClipRequest
from protos import contract, tfrecord
from protos.v1.clip_pb2 import FRAME_ENCODING_JPEG, Clip
from protos.v1.manifest_pb2 import BuildConfig, SourceOptions

TRAIN, TEST = 30, 12


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    out = tmp_path_factory.mktemp("shapes")
    corpus.write(out, train_clips=TRAIN, test_clips=TEST, workers=2, tasks=True)
    return out


def read(shapes, source, *files, **options) -> list[Any]:
    paths = [str(shapes / "tasks" / file) for file in files]
    return list(read_rows(paths, source, SourceOptions(**options)))


def kept(rows) -> list[Any]:
    assert {row.reason for row in rows if not isinstance(row, ClipRequest)} <= {"other_split"}
    return [row for row in rows if isinstance(row, ClipRequest)]


def scenes():
    return [*sample_clips("train", TRAIN, 0), *sample_clips("test", TEST, 0)]


def test_the_same_options_give_the_same_files(shapes, tmp_path):
    corpus.write(tmp_path, train_clips=TRAIN, test_clips=TEST, workers=1, tasks=True)
    files = {p.relative_to(shapes): p for p in shapes.rglob("*") if p.is_file()}
    again = {p.relative_to(tmp_path): p for p in tmp_path.rglob("*") if p.is_file()}
    assert files.keys() == again.keys()
    assert all(path.read_bytes() == again[name].read_bytes() for name, path in files.items())


def test_sentences(shapes):
    train = kept(read(shapes, "msrvtt", "msrvtt/MSRVTT_data.json", "msrvtt/MSRVTT_train.csv"))
    test = kept(read(shapes, "msrvtt", "msrvtt/MSRVTT_JSFUSION_test.csv"))
    assert [row.video_id for row in train] == [f"video{i}" for i in range(TRAIN)]
    assert [row.video_id for row in test] == [f"video{i}" for i in range(TRAIN, TRAIN + TEST)]
    assert [row.caption for row in train + test] == [clip.caption for clip in scenes()]
    theirs = read(shapes, "msrvtt", "msrvtt/MSR_VTT.json", "msrvtt/train_list_jsfusion.txt")
    msvd = read(shapes, "msvd", "msvd/AllVideoDescriptions.txt", "msvd/train_list.txt")
    for others in (theirs, msvd):
        assert [row.captions for row in kept(others)] == [row.captions for row in train]
    for row, clip in zip(train, scenes(), strict=False):
        assert len(row.captions) == 4
        for caption in row.captions:  # Each names both objects and their motions.
            for thing in clip.things:
                for slot in grammar.SLOTS:
                    concept = getattr(thing.concepts, slot)
                    assert any(word in caption for word in grammar.WORDS[slot][concept])


def test_questions_are_answered_by_the_scene(shapes):
    files = [f"msrvtt_qa/{split}_qa.json" for split in ("train", "val", "test")]
    asked = [row for file in files for row in read(shapes, "msrvtt-qa", file)]
    assert [row.video_id for row in asked] == [f"video{i}" for i in range(TRAIN + TEST)]
    msvd = [
        row
        for split in ("train", "val", "test")
        for row in read(
            shapes, "msvd-qa", f"msvd_qa/{split}_qa.json", "msvd_qa/youtube_mapping.txt"
        )
    ]
    assert [(row.video_id, row.questions) for row in msvd] == [
        (row.video_id, row.questions) for row in asked
    ]
    questions = [question for row in asked for question in row.questions]
    assert [question.question_id for question in questions] == [*map(str, range(len(questions)))]
    assert {question.type for question in questions} == {"what", "which", "how", "where"}
    concepts = {word for words in grammar.WORDS.values() for word in words}
    usual = concepts | {"zero", "one", "two", "left", "right"}
    rare = [question for question in questions if question.answer not in usual]
    assert 0 < len(rare) < 0.1 * len(questions)
    for row, clip in zip(asked, scenes(), strict=True):
        motions = [thing.concepts.motion for thing in clip.things]
        for question in row.questions:
            if question.text.startswith("how many"):
                word = question.text.removesuffix("?").split()[-1]
                (motion,) = (m for m, words in grammar.MOTIONS.items() if word in words)
                assert question.answer == ("zero", "one", "two")[motions.count(motion)]
            if question.text.startswith("what colour"):
                kind = question.text.removesuffix("?").split()[-1]
                (thing,) = (t for t in clip.things if t.words.kind == kind)
                assert question.answer in (thing.concepts.colour, thing.words.colour)


def test_three_splits_of_actions(shapes):
    clips = sample_actions((TRAIN + TEST) // 4, 0)
    for split in (1, 2, 3):
        parts = []
        for part in ("train", "test"):
            file = f"ucf101/{part}list0{split}.txt"
            if (shapes / "tasks" / file).stat().st_size:
                parts.append(kept(read(shapes, "ucf101", file, "ucf101/classInd.txt")))
        rows = [row for part in parts for row in part]
        assert sorted(row.video_id for row in rows) == sorted(
            actions.path(clip).split("/")[1].removesuffix(".mp4") for clip in clips
        )
        table = read(shapes, "hmdb51", "hmdb51/hmdb51.csv", subset="train", fold=split)
        assert {row.video_id for row in kept(table)} <= {row.video_id for row in parts[0]}
        texts = [f"hmdb51/{name}_test_split{split}.txt" for name in actions.CLASSES]
        listed = [
            row
            for file in texts
            for row in kept(read(shapes, "hmdb51", file, subset="train", fold=split))
        ]
        assert {row.video_id: row.labels for row in listed} == {
            row.video_id: row.labels for row in kept(table)
        }
    for clip in clips:
        assert clip.things[0].concepts.motion == clip.things[1].concepts.motion


def test_untrimmed_videos_have_segments_and_background(shapes):
    videos = [*sample_untrimmed("train", 5, 0), *sample_untrimmed("test", 2, 0)]
    rows = read(shapes, "activitynet-tal", "activitynet/activity_net.v1-3.json", window_us=10**6)
    by_video = {row.video_id: row for row in rows}
    assert [*by_video] == [video.video_id for video in videos]
    for video in videos:
        row = by_video[video.video_id]
        assert row.video_duration_us == video.end_us
        happens = sum(one.end_us - one.start_us for one in row.segments)
        assert len(row.segments) == 3
        assert 0.2 < happens / video.end_us < 0.8
        assert all(
            one.label != other.label or one.end_us < other.start_us
            for one, other in zip(row.segments, row.segments[1:], strict=False)
        )
        for piece in video.pieces:
            seen = np.array(render.boxes(piece.clip), dtype=object)
            if not piece.motion:  # The objects stand still or are absent.
                assert all(len({str(box) for box in of_thing}) == 1 for of_thing in seen)
    theirs = read(
        shapes,
        "activitynet-tal",
        "activitynet/anet_anno_action.json",
        "activitynet/video_info_new.csv",
        window_us=10**6,
    )
    assert [(r.clip_id, r.segments) for r in theirs] == [(r.clip_id, r.segments) for r in rows]


def test_each_motion_of_an_untrimmed_video_has_a_sentence(shapes):
    splits: tuple[tuple[Split, str, int], ...]
    splits = (("train", "train", TRAIN), ("test", "val_1", TEST))
    for split, name, count in splits:
        videos = sample_untrimmed(split, -(-count // 6), 0)
        rows = kept(read(shapes, "activitynet", f"activitynet_captions/{name}.json"))
        pieces = [(v.video_id, one) for v in videos for one in v.pieces if one.motion]
        for row, (video_id, piece) in zip(rows, pieces, strict=True):
            assert (row.video_id, row.start_us, row.end_us) == (
                video_id,
                piece.start_us,
                piece.end_us,
            )
            for thing in piece.clip.things:
                for slot in grammar.SLOTS:
                    concept = getattr(thing.concepts, slot)
                    assert any(word in row.caption for word in grammar.WORDS[slot][concept])


def test_keyframes_have_the_drawn_boxes(shapes):
    names = ("v2.2", "excluded_timestamps_v2.2", "predicted_boxes")
    files = [f"ava/ava_train_{name}.csv" for name in names]
    rows = read(shapes, "ava", *files, window_us=2_000_000)
    assert {row.reason for row in rows if not isinstance(row, ClipRequest)} <= {"excluded_time"}
    clips = {(clip.video_id, clip.start_us): clip for clip in sample_clips("train", TRAIN, 0)}
    assert TRAIN - 2 <= len(rows) <= TRAIN  # An empty keyframe has no row.
    motions = [*grammar.MOTIONS]
    for row in rows:
        if isinstance(row, ClipRequest):
            clip = clips[row.video_id, row.start_us]
            assert row.end_us == clip.end_us
            truth = [box for box in row.boxes if not box.score]
            assert len(truth) == 2
            for box in truth:
                thing = int(box.person_id)
                assert box.labels == (str(motions.index(clip.things[thing].concepts.motion) + 1),)
                drawn = render.boxes(clip)[thing][clip.format.frames // 2]
                assert drawn and np.allclose(np.array(box[1:5]) * 64, drawn, atol=0.04)
    found = [box for row in rows if isinstance(row, ClipRequest) for box in row.boxes if box.score]
    assert len(found) > TRAIN


@pytest.mark.parametrize(
    ("source", "videos", "files", "options"),
    [
        ("msvd", "tasks/videos", ["msvd/AllVideoDescriptions.txt", "msvd/test_list.txt"], {}),
        ("msrvtt-qa", "tasks/videos", ["msrvtt_qa/test_qa.json"], {}),
        (
            "activitynet-tal",
            "tasks/untrimmed/v_{video_id}.{ext}",
            ["activitynet/activity_net.v1-3.json"],
            {"subset": "validation", "window_us": 2_000_000},
        ),
        (
            "ava",
            "test/videos",
            ["ava/ava_val_v2.2.csv", "ava/ava_val_predicted_boxes.csv"],
            {"window_us": 2_000_000},
        ),
    ],
)
def test_records_have_the_scenes_annotations(shapes, tmp_path, source, videos, files, options):
    rows = kept(read(shapes, source, *files, **options))
    config = BuildConfig(
        frames_per_clip=4,
        short_side=32,
        frame_encoding=FRAME_ENCODING_JPEG,
        jpeg_quality=90,
        num_shards=1,
    )
    folders = str(shapes / videos), str(tmp_path)
    model = default_model()
    plan = Plan(source, (), (), *folders, "1.0.0", config, {}, model, "pyav", 60.0)
    parser = NounParser(model, ())
    outcome = shard.build_shard(0, rows, plan, parser, VideoLookup(plan.videos))
    assert (outcome.entry.records, outcome.rejects) == (len(rows), {})
    written = tfrecord_clips(tmp_path / outcome.entry.data.name)
    assert {clip.clip_id for clip in written} == {row.clip_id for row in rows}
    by_id = {row.clip_id: row for row in rows}
    for clip in written:
        contract.check_clip(clip, config)
        row = by_id[clip.clip_id]
        assert abs(clip.end_us - (row.end_us or 2_000_000)) < 200_000
        assert tuple(clip.captions) == row.captions
        assert [q.text + q.answer for q in clip.questions] == [
            question.text + question.answer for question in row.questions
        ]
        assert [(one.start_us, one.end_us, one.label) for one in clip.segments] == [*row.segments]
        assert [(box.time_us, tuple(box.labels), box.person_id) for box in clip.boxes] == [
            (box.time_us, box.labels, box.person_id) for box in row.boxes
        ]
        assert clip.video_duration_us == row.video_duration_us


def tfrecord_clips(path):
    data = path.read_bytes()
    clips = []
    while data:
        length = int.from_bytes(data[:8], "little") + 16
        clips.append(Clip.FromString(tfrecord.unframe(data[:length])))
        data = data[length:]
    return clips


def test_a_command_builds_a_split_from_folders_of_classes(shapes, cli, tmp_path):
    done = cli(
        *("build", "hmdb51", "--annotations", shapes / "tasks/hmdb51/hmdb51.csv"),
        *("--subset", "train", "--fold", 1, "--frames", 4, "--short-side", 32, "--shards", 1),
        *("--videos", shapes / "tasks/actions/{label}/{video_id}.{ext}", "--max-clip", 1.5),
        *("--out", tmp_path / "out"),
    )
    # The files' lengths are known only after decoding.
    assert "clip_too_long 2" in done.stderr
    assert "other_split 8" in done.stderr
    done = cli(
        *("build", "hmdb51", "--annotations", shapes / "tasks/hmdb51/hmdb51.csv"),
        *("--subset", "validation", "--videos", shapes / "tasks/actions", "--out", tmp_path),
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--subset validation does not exist in hmdb51: choose train or test" in done.stderr
