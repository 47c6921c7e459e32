"""Annotation files of every source: each row becomes a clip or a typed reject."""

import functools
import io
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipelines.decoding.spans import TO_THE_END
from pipelines.planning import filters, plan
from pipelines.snapshots import snapshot
from pipelines.sources.clip_request import (
    AnnotationError,
    ClipRequest,
    from_json,
    row_order,
    to_json,
)
from pipelines.sources.reject_reasons import REASONS
from protos import contract
from protos.v1.clip_pb2 import Box, Clip, Question, Segment
from protos.v1.manifest_pb2 import BuildConfig, Filters, Reject, SourceOptions
from tests.fuzz import mutate
from tests.fuzz.engine import Target
from tests.fuzz.folder import written

_NEXT_FILE = b"\x1e"  # separator between an input's files
_FILTERS = Filters(min_clip_us=1, max_caption_words=50, min_ascii_share=0.5)

Rows = Callable[[Sequence[bytes]], int | None]


class Form(NamedTuple):
    """Files of one source, as published."""

    source: str
    files: dict[str, bytes]  # name -> valid content
    options: SourceOptions
    mutate: mutate.Mutation
    rows: Rows = lambda files: None  # expected number of rows, if known


def targets() -> list[Target]:
    """Return one target per format."""
    return [
        Target(
            f"{form.source} {' '.join(form.files)}".replace("/", " "),
            [_NEXT_FILE.join(form.files.values())],
            functools.partial(_check, form),
            functools.partial(_mutated, form),
        )
        for form in forms()
    ]


def _mutated(form: Form, data: bytes, draw) -> bytes:
    files = data.split(_NEXT_FILE, len(form.files) - 1)
    at = draw.randrange(len(files))
    files[at] = form.mutate(files[at], draw)
    return _NEXT_FILE.join(files)


def _check(form: Form, data: bytes) -> None:
    found = data.split(_NEXT_FILE, len(form.files) - 1)
    if len(found) != len(form.files):
        return
    paths = [*map(str, written(dict(zip(form.files, found, strict=True))))]
    if len(data) % 8 == 0:
        try:
            plan.survey(form.source, tuple(paths), form.options)
        except (plan.PlanError, AnnotationError) as error:
            assert "\n" not in str(error), "a message of several lines"
    try:
        rows = [
            row
            for unit in plan.units(form.source, paths)
            for row in plan.read_rows(unit, form.source, form.options)
        ]
    except AnnotationError as error:  # The build fails, so no row is silently lost.
        assert "\n" not in str(error), "a message of several lines"
        return
    _sound(rows)
    wanted = form.rows(found)
    if wanted is not None:
        assert len(rows) >= wanted, f"{len(rows)} outcomes of {wanted} rows"


def _sound(rows: list[ClipRequest | Reject]) -> None:
    places = set()
    for row in rows:
        assert row.source_row not in places, f"two rows are {row.source_row}"
        places.add(row.source_row)
        row_order(row.source_row)
        kept = filters.keep(row, _FILTERS, frozenset())
        if isinstance(row, Reject):
            assert row.reason in REASONS
            assert "\n" not in row.message, "a message of several lines"
            Reject.FromString(row.SerializeToString())
            json.loads(snapshot.to_json(row))
        else:
            assert isinstance(row, ClipRequest)
            assert from_json(to_json(row).encode()) == row
            _record(row)
        if isinstance(kept, Reject):
            snapshot.to_json(kept)


def _record(row: ClipRequest) -> None:
    """Check that a clip fits a record and the contract."""
    clip = Clip(
        clip_id=row.clip_id,
        video_id=row.video_id,
        start_us=row.start_us,
        end_us=row.start_us + 1 if row.end_us == TO_THE_END else row.end_us,
        caption=row.caption,
        labels=row.labels,
        source_row=row.source_row,
        caption_cut_from=row.caption_cut_from,
        captions=row.captions,
        questions=[Question(**one._asdict()) for one in row.questions],
        segments=[Segment(**one._asdict()) for one in row.segments],
        boxes=[Box(**one._asdict()) for one in row.boxes],
        video_duration_us=row.video_duration_us,
    )
    contract.check_clip(clip, BuildConfig())


# --- Number of rows, counted independently of the reader ---


def _lines(header: int) -> Rows:
    """Return a counter of non-blank lines without the header; a quoted field may span lines."""

    def count(files: Sequence[bytes]) -> int | None:
        text = files[0].removeprefix(b"\xef\xbb\xbf")
        if b'"' in text or b"\r" in text:
            return None
        return max(0, sum(bool(line.strip()) for line in text.split(b"\n")) - header)

    return count


def _entries(files: Sequence[bytes]) -> int | None:
    """Return the number of entries of a JSON object, or 1 for invalid JSON. Each gives a row."""
    try:
        value = json.loads(files[0], parse_constant=_refuse, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return 1 if files[0].strip() else None
    if not isinstance(value, list) or not files[0].lstrip().startswith(b"{"):
        return None
    return len(value)


def _refuse(constant: str) -> None:
    raise ValueError(constant)


# --- Formats ---


def forms() -> list[Form]:
    """Return every source in every format of its files."""
    csv = (
        b"https://www.youtube.com/watch?v=dQw4w9WgXcQ,0,9000000,a man sings, badly\n"
        b'youtu.be/abcdefghijk,1e6,2.5e6,"two ""red"" cats, running"\n'
        b"AAAAAAAAAAA,5000000,9000000,caf\xc3\xa9 \xf0\x9f\x90\x88\n"
    )
    activitynet = {
        "v_bXdq2zI1Ms0": {
            "duration": 73.1,
            "timestamps": [[0, 10.23], [5, 80]],
            "sentences": ["A man.", " He sings."],
        },
        "v_abcdefghijk": {"duration": 9, "timestamps": [[1, 2]], "sentences": ["A cat."]},
    }
    howto = {
        "nVbIUDjzWY4": {"start": [0.41, 3.9], "end": [3.91, 7], "text": ["check pic", "tonight"]},
        "abcdefghijk": {"start": [1], "end": [2], "text": ["a cat"]},
    }
    msrvtt = {
        "videos": [{"video_id": "video0", "split": "train"}, {"video_id": "video1"}],
        "sentences": [
            {"video_id": "video0", "caption": "a car is shown", "sen_id": 0},
            {"video_id": "video0", "caption": "a red car", "sen_id": 1},
            {"video_id": "video1", "caption": "a cat", "sen_id": 2},
        ],
    }
    asked = [
        {"answer": "couch", "category_id": 14, "id": 0, "question": "what is it?", "video_id": 1},
        {"answer": "cat", "category_id": 1, "id": 1, "question": "who sits?", "video_id": 2},
    ]
    asked_lines = b"\n".join(_json(one | {"video_id": f"video{one['video_id']}"}) for one in asked)
    segments = {
        "database": {
            "sJFgo9H6zNo": {
                "subset": "training",
                "duration": 140.29,
                "annotations": [{"label": "Fixing bicycle", "segment": [0.01, 70.15]}],
            },
            "abcdefghijk": {"subset": "validation", "duration": 9, "annotations": []},
        }
    }
    boxes = (
        b"-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,80,1\n"
        b"-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,9,1\n-5KQ66BBWC4,0903,0.1,0.1,0.2,0.8,12,0\n"
    )
    generic = b'video,start,end,caption,labels\na,0,1.5,a cat,x;y\nb-c.d,2,3,"a dog, two",\n'
    columns = {"video": "id", "caption": "text"}
    plain = SourceOptions()
    text, tree, any_bytes = mutate.lines, mutate.json_text, mutate.raw
    return [
        Form("videocc", {"a.csv": csv}, plain, text),
        Form("activitynet", {"a.json": _json(activitynet)}, plain, tree,
             _entries),
        Form("activitynet", {"paragraphs.json": _json(activitynet)},
             SourceOptions(paragraphs=True), tree),
        Form("howto100m", {"a.json": _json(howto)}, SourceOptions(widen_to_us=4_000_000), tree,
             _entries),
        Form("howto100m", {"nVbIUDjzWY4.csv": b"start,end,text\n0.4,3.9,check pic\n4,5,\"a, b\"\n"},
             plain, text, _lines(header=1)),
        Form("webvid", {"a.csv": b"videoid,contentUrl,duration,page_dir,name\n"
                        b"21179416,https://a/b.mp4,PT00H00M11S,006001_006050,\"A cat, asleep\"\n"
                        b"7,,PT1M,p,Sea\n"}, plain, text, _lines(header=1)),
        Form("msrvtt", {"a.json": _json(msrvtt), "list.csv": b"key,video_id\nret0,video0\n"},
             plain, _either),
        Form("msrvtt", {"test.csv": b"key,vid_key,video_id,sentence\nret0,msr9770,video9770,"
                        b"a person is connecting something\n"}, plain, text, _lines(header=1)),
        Form("msrvtt", {"frozen.json": _json({"annotations": [
            {"image_id": "video0", "caption": "a cat"}], "videos": []})}, plain, tree),
        Form("msvd", {"a.txt": b"# note\n-4wsuPCjDBc_5_15 a squirrel eats\n"
                      b"-4wsuPCjDBc_5_15 it's brown\nabc_1_2 a cat\n",
                      "list.txt": b"-4wsuPCjDBc_5_15\nabc_1_2\n"}, plain, text),
        Form("msrvtt-qa", {"a.json": _json(asked)}, plain, tree),
        Form("msrvtt-qa", {"a.jsonl": asked_lines}, plain, tree),
        Form("msvd-qa", {"a.json": _json(asked), "map.txt": b"-4wsuPCjDBc_5_15 vid1\nb_1_2 vid2\n"},
             plain, _either),
        Form("ucf101", {"list.txt": b"ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\n"
                        b"Archery/v_Archery_g01_c01.avi 2\r\n",
                        "classInd.txt": b"1 ApplyEyeMakeup\r\n2 Archery\r\n"}, plain, text),
        Form("hmdb51", {"brush_hair_test_split1.txt":
                        b"April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1\n(a)_#1&b.avi 2\nc.avi 0\n"},
             plain, text, _lines(header=0)),
        Form("hmdb51", {"a.csv": b"video_id,label,split1,split2,split3\na.avi,run_test,1,1,2\n"},
             SourceOptions(subset="train", fold=2), text, _lines(header=1)),
        Form("activitynet-tal", {"a.json": _json(segments),
                                 "info.csv": b"video,subset\nv_sJFgo9H6zNo,training\n"},
             SourceOptions(window_us=20_000_000), _either),
        Form("activitynet-tal", {"alone.json": _json(segments)}, plain, tree),
        Form("ava", {"a.csv": boxes, "excluded.csv": b"-5KQ66BBWC4,0904\n",
                     "found.csv": b"-5KQ66BBWC4,0902,0.1,0.2,0.3,0.8,,0.93\n"},
             SourceOptions(cut_at_us=900_000_000), text),
        Form("generic", {"a.csv": generic}, plain, text, _lines(header=1)),
        Form("generic", {"a.tsv": generic.replace(b",", b"\t")},
             SourceOptions(time_unit="ms", keep_empty_captions=True), text, _lines(header=1)),
        Form("generic", {"a.jsonl": _json({"id": "a", "start": 0, "end": 1.5, "text": "a cat",
                                           "labels": ["x"]}) + b"\n" +
                         _json({"id": "b", "start": "1", "end": "2", "text": "a dog"}) + b"\n"},
             SourceOptions(columns=columns), tree, _lines(header=0)),
        Form("generic", {"a.parquet": _parquet()}, plain, any_bytes),
    ]  # fmt: skip


def _either(data: bytes, draw) -> bytes:
    """Mutate a JSON file as JSON, others as lines."""
    return (mutate.json_text if data.lstrip()[:1] in (b"{", b"[") else mutate.lines)(data, draw)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _parquet() -> bytes:
    import datetime

    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table(
        {
            "video": ["a", "b", "c"],
            "start": [0.0, 1.0, None],
            "end": [1.5, 2.5, 3.0],
            "caption": ["a cat", "two dogs", "é"],
            "labels": [["x", "y"], [], None],
            "when": [datetime.datetime(2020, 1, 1)] * 3,
        }
    )
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file, compression="none")
    return file.getvalue()
