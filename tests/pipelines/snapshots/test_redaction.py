"""After `remove`, neither the new version nor later ones contain a trace of a removed video."""

import collections
import dataclasses
import json
import os
import pathlib
import re
import tempfile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.building import graph, row_spill, shard
from pipelines.building.nouns import NounParser, default_model
from pipelines.planning import plan
from pipelines.planning.video_lookup import VideoLookup
from pipelines.snapshots import records, redaction, remove, verify
from pipelines.sources import SOURCES
from protos import contract
from protos.v1.clip_pb2 import FRAME_ENCODING_JPEG
from protos.v1.manifest_pb2 import BuildConfig, Filters, Reject, SourceOptions

SHARDS = 2
SECRET = re.compile(rb"zq[a-z]+")
GONE, KEPT, LATE = "-4wsuPCjDBc", "dQw4w9WgXcQ", "aaaaaaaaaaa"
LONG = "zqlong " * 9  # for a caption that a filter drops


def table(head, rows, mark=","):
    return "".join(f"{mark.join(map(str, row))}\n" for row in ([head] if head else []) + rows)


def of_both(rows_of):
    return [
        row for video in (GONE, KEPT) for row in rows_of(video, "zqgone" if video == GONE else "ok")
    ]


def spans(video, word):
    """Return spans for a record and for rejects by filter, plan, duplicate and end of the video."""
    long = LONG if video == GONE else "a b c d e f g h i"
    good = (video, 0, 1, f"a {word}")
    return [good, (video, 0, 1, long), (video, 3, 2, word), good, (video, 8, 9, f"{word} end")]


def videocc():
    def rows(video, word):
        scaled = [(v, a * 10**6, b * 10**6, c) for v, a, b, c in spans(video, word)]
        return [*scaled, (f"https://youtu.be/{video}?t=3", "soon", 9, word)]

    broken = f'{GONE},1\n"{GONE},0,1,zqquote\n'
    return {"rows.csv": table(None, of_both(rows)) + broken}


def generic(mark=","):
    def rows(video, word):
        long = "zqcut " * 200 if video == GONE else "cut " * 200
        return [(c, a, b, v) for v, a, b, c in [*spans(video, word), (video, "soon", 2, long)]]

    return table(("caption", "start", "end", "video"), of_both(rows), mark) + f"zqbad{mark}{GONE}\n"


def json_lines():
    rows = of_both(spans)
    fields: list[dict[str, str | int]] = [
        dict(zip(("video", "start", "end", "caption"), row, strict=True)) for row in rows
    ]
    fields.append({"video": GONE, "text": "zqother"})
    fields.append({"text": "zqlast " * 200, "video": GONE, "end": 1})
    return "".join(f"{json.dumps(one)}\n" for one in fields)


def narration():
    entries: dict[str, Any] = {}
    for video in (GONE, KEPT):
        _, starts, ends, texts = zip(
            *spans(video, "zqgone" if video == GONE else "ok"), strict=True
        )
        entries[video] = {"start": starts, "end": ends, "text": texts}
    return {"raw_caption.json": json.dumps(entries)}


def narration_csv():
    files = {}
    for video in (GONE, KEPT):
        rows = [row[1:] for row in spans(video, "zqgone" if video == GONE else "ok")]
        files[f"{video}.csv"] = table(("start", "end", "text"), [*rows, ("x",)])
    return files


def activitynet():
    entries: dict[str, Any] = {}
    for video in (GONE, KEPT):
        _, starts, ends, texts = zip(
            *spans(video, "zqgone" if video == GONE else "ok"), strict=True
        )
        times = [*zip(starts, ends, strict=True)]
        entries[f"v_{video}"] = {"duration": 4, "timestamps": times, "sentences": texts}
    entries[f"v_{GONE}"]["timestamps"][2] = [0]
    return {"val_1.json": json.dumps(entries)}


def msrvtt():
    said = [(GONE, "a zqgone"), (KEPT, "a cat"), (GONE, ""), (GONE, "zqnul\0"), (LATE, "zq")]
    return {
        "data.json": json.dumps(
            {
                "videos": [{"video_id": v, "split": "test"} for v in (GONE, KEPT, LATE)],
                "sentences": [{"video_id": v, "caption": c} for v, c in said],
            }
        ),
        "list.txt": f"{GONE}\n{KEPT}\n",
    }


def questions(number=False):
    entries = [
        {"video_id": GONE, "question": "who zqasks?", "answer": "zqman", "id": 0},
        {"video_id": KEPT, "question": "who sings?", "answer": "man", "id": 1},
        {"video_id": GONE, "question": "", "answer": "zqempty", "id": 2},
        {"video_id": GONE, "question": "q" * 2000, "answer": "zqlong", "id": 3},
    ]
    if number:
        names = {GONE: 1, KEPT: 2}
        entries = [{**one, "video_id": names[one["video_id"]]} for one in entries]
    return json.dumps(entries)


def windows():
    segments = [{"label": "zqlabel", "segment": [0, 1]}, {"label": "zqbad", "segment": [2]}]
    others = [{"label": "run", "segment": [0, 1]}]
    entry = {"subset": "validation", "duration": 2}
    of = {GONE: {**entry, "annotations": segments}, KEPT: {**entry, "annotations": others}}
    return json.dumps({"database": of})


BOXES = f"{GONE},0001,0.1,0.1,0.5,0.5,12,0\n{GONE},0001,0.1,0.1,0.5,0.5,zqact,0\n"
CASES = {
    "videocc": videocc,
    "generic": lambda: {"rows.csv": generic()},
    "generic tsv": lambda: {"rows.tsv": generic("\t")},
    "generic jsonl": lambda: {"rows.jsonl": json_lines()},
    "generic of the video": lambda: {
        f"{video}.csv": table(("caption", "start", "end", "video"), [(word, 0, 1, video), (word,)])
        for video, word in ((GONE, "a zqgone"), (KEPT, "a cat"))
    },
    "howto100m": narration,
    "howto100m csv": narration_csv,
    "activitynet": activitynet,
    "activitynet-tal": lambda: {"anet.json": windows()},
    "msrvtt": msrvtt,
    "msrvtt test": lambda: {
        "test.csv": f"key,video_id,sentence\nr0,{GONE},zqgone\nr1,{KEPT},a cat\nr2,{GONE},\n"
    },
    "msvd": lambda: {"all.txt": f"{GONE} a zqgone\n{KEPT} a cat\n{GONE} \n"},
    "msrvtt-qa": lambda: {"qa.json": questions()},
    "msvd-qa": lambda: {
        "qa.json": questions(number=True),
        "youtube_mapping.txt": f"{GONE} vid1\n{KEPT} vid2\n",
    },
    "ucf101": lambda: {
        "list.txt": f"zqclass/{GONE}.avi 1\nRun/{KEPT}.avi 2\nzqother/{GONE}.avi 7\n",
        "classInd.txt": "1 zqclass\n2 Run\n3 zqother\n",
    },
    "hmdb51": lambda: {
        "hmdb51.csv": "video_id,label,split1,split2,split3\n"
        f"{GONE}.avi,zqhair_test,1,1,2\n{KEPT}.avi,run_test,1,1,2\n{GONE}.avi,zqfew_test,9\n"
    },
    "webvid": lambda: {
        "results.csv": "videoid,duration,name\n"
        f"{GONE},PT00H00M01S,a zqgone\n{KEPT},PT00H00M01S,a cat\n{GONE},soon,zqsoon\n"
    },
    "ava": lambda: {"ava.csv": BOXES + f"{KEPT},0001,0.1,0.1,0.5,0.5,12,0\n"},
}


@pytest.fixture(scope="module")
def parser():
    return NounParser(default_model(), contract.PROMPT_TEMPLATES)


@pytest.fixture(scope="module")
def videos(tmp_path_factory, make_video):
    folder = tmp_path_factory.mktemp("videos")
    make_video(folder / f"{KEPT}.mp4", seconds=2)
    os.link(folder / f"{KEPT}.mp4", folder / f"{GONE}.mp4")
    return folder


@pytest.fixture
def made(tmp_path, videos, parser):
    """Return made(source, files, …), which builds a snapshot without Beam, and its next version."""

    def make(source, files, gone_is_there=True):
        paths = []
        for name, text in files.items():
            paths.append(str(tmp_path / name))
            (tmp_path / name).write_text(text)
        folder = tmp_path / "videos"
        folder.mkdir()
        for video in (KEPT, GONE) if gone_is_there else (KEPT,):
            os.link(videos / f"{video}.mp4", folder / f"{video}.mp4")
        options = SourceOptions()
        survey = plan.survey(source, tuple(paths), options)
        planned = plan.Plan(
            source=source,
            annotations=survey.paths,
            annotation_files=survey.files,
            videos=str(folder),
            out=str(tmp_path / "1.0.0"),
            data_version="1.0.0",
            config=BuildConfig(
                frames_per_clip=2,
                short_side=16,
                frame_encoding=FRAME_ENCODING_JPEG,
                jpeg_quality=90,
                prompt_templates=contract.PROMPT_TEMPLATES,
                num_shards=SHARDS,
                source=options,
                filters=Filters(max_caption_words=8),
            ),
            versions={"ffmpeg": "7"},
            spacy_model=default_model(),
            decoder="pyav",
            decode_seconds=60.0,
        )
        (tmp_path / "1.0.0").mkdir()
        built(planned, parser)
        return planned

    return make


def built(planned, parser):
    """Run the steps of the Beam graph in this process."""
    places, rejects, rows = collections.defaultdict(list), [], 0
    one: Any
    for one in graph._PlanRows(planned).process(planned.annotations):
        match getattr(one, "tag", None):
            case "rejects":
                rejects.append(one.value)
            case "counts":
                rows += one.value
            case _:
                places[one[0]].append(one[1])
    outcomes = [
        shard.build_shard(
            number,
            row_spill.requests(planned.out, places[number]),
            planned,
            parser,
            VideoLookup(planned.videos),
        )
        for number in range(SHARDS)
    ]
    graph.write_manifest(planned, rows, rejects, outcomes)
    row_spill.remove(planned.out)


def left(folder):
    """Return the secrets and ids in a version's bytes, except in the list of removed ids."""
    found = set()
    for path in folder.iterdir():
        data = path.read_bytes()
        if path.name == contract.MANIFEST_NAME:
            fields = json.loads(data)
            assert GONE in fields.pop("removed_videos")
            data = json.dumps(fields).encode()
        found |= {f"{path.name}: {secret}" for secret in SECRET.findall(data)}
        found |= {path.name} if GONE.encode() in data or GONE in path.name else set()
    return found


@pytest.mark.parametrize("there", [True, False], ids=["a record", "only rejects"])
@pytest.mark.parametrize("case", CASES)
def test_no_version_contains_a_removed_video(made, parser, videos, tmp_path, case, there):
    planned = made(case.split()[0], CASES[case](), there)
    old = verify.read_manifest(planned.out)
    assert verify.faults(planned.out, old) == []
    seen = {v.video_id for one in records.summaries(planned.out, old) for v in one.videos}
    assert seen == ({KEPT, GONE} if there else {KEPT})

    out = tmp_path / "2.0.0"
    done = remove.remove(planned.out, old, {GONE}, str(out), "2.0.0")
    assert done.unknown == []
    assert done.records == old.counts.records - 1 if there else done.records == 0
    new = verify.read_manifest(str(out))
    assert verify.faults(str(out), new) == []
    assert left(out) == set()
    assert new.counts.rows == old.counts.rows
    assert list(new.removed_videos) == [GONE]

    # The video and another one have arrived, and failed rows are retried.
    for name in (GONE, LATE):
        if not (tmp_path / "videos" / f"{name}.mp4").exists():
            os.link(videos / f"{KEPT}.mp4", tmp_path / "videos" / f"{name}.mp4")
    again = dataclasses.replace(
        planned,
        out=str(tmp_path / "2.1.0"),
        data_version="2.1.0",
        previous=str(out),
        removed=redaction.removed_videos(str(out), new),
    )
    plan.check_previous(again, new)
    (tmp_path / "2.1.0").mkdir()
    built(again, parser)
    later = verify.read_manifest(again.out)
    assert verify.faults(again.out, later) == []
    assert left(tmp_path / "2.1.0") == set()
    assert later.counts.rows == old.counts.rows
    assert list(later.removed_videos) == [GONE]
    assert plan.complete(again) == later


def test_every_source_is_tested():
    assert {case.split()[0] for case in CASES} == set(SOURCES)


@given(
    st.lists(st.text("ab-_", min_size=1, max_size=5), min_size=2, max_size=10, unique=True),
    st.data(),
)
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_ids_with_a_common_prefix_are_distinct(make_clip, write_snapshot, names, data):
    gone = set(data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=len(names) - 1)))
    clips = [make_clip(name, caption=f"a zq{i}q") for i, name in enumerate(names)]
    for clip in clips:
        clip.source_row = f"rows.csv:{clip.source_row.rpartition(':')[2]}"
    rows = (Reject(reason="span_empty", source_row="r.csv:1", row=f"{n}x,zqx") for n in names)
    with tempfile.TemporaryDirectory() as folder:
        old, new = pathlib.Path(folder) / "old", pathlib.Path(folder) / "new"
        manifest = write_snapshot(old, clips, plan_rejects=tuple(rows))
        remove.remove(str(old), manifest, gone, str(new), "2.0.0")
        version = verify.read_manifest(str(new))
        assert verify.faults(str(new), version) == []
        places = records.evenly_spaced(version, 99)
        kept = {clip.video_id for clip in records.read(str(new), version, places)}
        assert kept == set(names) - gone
        data = b"".join(path.read_bytes() for path in new.iterdir())
        for i, name in enumerate(names):
            assert (f"zq{i}q".encode() in data) == (name not in gone)
        rejects = [one.row for one in records.rejects(str(new), version) if one.row]
        whole = {f"{n}x" for n in names} - gone  # unless another removed id equals it
        assert {row.partition(",")[0] for row in rejects} == whole


def test_the_command_reports_unknown_ids(made, cli, tmp_path):
    planned = made("videocc", videocc())
    (tmp_path / "gone.txt").write_text(f"{GONE}\n{GONE}.txt\n")
    words = ["remove", planned.out, "--videos", tmp_path / "gone.txt", "--out", tmp_path / "new"]
    done = cli(*words)
    assert done.returncode == 0
    assert "1 videos are not in the snapshot: '-4wsuPCjDBc.txt'" in done.stderr
    version = verify.read_manifest(str(tmp_path / "new"))
    assert list(version.removed_videos) == [GONE, f"{GONE}.txt"]


def test_excluded_videos_leave_no_caption(made, parser, tmp_path):
    planned = made("videocc", videocc())
    (tmp_path / "other").mkdir()
    without = dataclasses.replace(planned, out=str(tmp_path / "other"), excluded=frozenset({GONE}))
    built(without, parser)
    manifest = verify.read_manifest(without.out)
    rejects = [one for one in records.rejects(without.out, manifest) if one.video_id == GONE]
    assert rejects and not any(SECRET.search(str(one).encode()) for one in rejects)


def test_an_id_only_in_another_videos_reject_is_unknown(tmp_path, make_clip, write_snapshot):
    rejects = (Reject(reason="span_empty", source_row="r.csv:1", video_id="a.txt", row="a.txt,x"),)
    clips = [make_clip("a.txt"), make_clip("b"), make_clip("c")]
    manifest = write_snapshot(tmp_path / "old", clips, plan_rejects=rejects)
    done = remove.remove(
        str(tmp_path / "old"), manifest, {"a", "b"}, str(tmp_path / "new"), "2.0.0"
    )
    assert done == remove.Removal(1, ["a"])


@pytest.mark.parametrize("listed", [f"{GONE}.mp4", f"{GONE}.WEBM"])
def test_a_build_excludes_removed_videos_in_every_spelling(made, parser, tmp_path, listed):
    planned = made("videocc", videocc())
    (tmp_path / "other").mkdir()
    without = dataclasses.replace(planned, out=str(tmp_path / "other"), removed=frozenset({listed}))
    built(without, parser)
    manifest = verify.read_manifest(without.out)
    assert verify.faults(without.out, manifest) == []
    assert {v.video_id for s in records.summaries(without.out, manifest) for v in s.videos} == {
        KEPT
    }
    assert not any(SECRET.search(path.read_bytes()) for path in (tmp_path / "other").iterdir())
