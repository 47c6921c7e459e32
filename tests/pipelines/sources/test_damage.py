"""No row of a damaged file is lost: it is a clip, a reject, or the whole file is refused.

Each row has a unique mark. The result must contain the mark of every undamaged row, unless the
file is refused.
"""

import bz2
import gzip
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.planning import plan
from pipelines.sources.clip_request import AnnotationError, ClipRequest
from protos.v1.manifest_pb2 import Reject, SourceOptions

ROWS = 30


class Form(NamedTuple):
    """A source and its files, the first of which is damaged."""

    source: str
    name: str
    rows: Mapping[str, bytes]  # text of each row by its mark
    before: bytes
    between: bytes
    after: bytes
    others: Mapping[str, bytes] = {}
    lines: bool = True  # whether each row is a line

    def data(self) -> bytes:
        return self.before + self.between.join(self.rows.values()) + self.after


def _mark(number: int) -> str:
    return f"mark{number:03}xyz"  # also has the length of a YouTube id


def _form(
    source: str,
    name: str,
    row: Callable[[str], str],
    before: str = "",
    between: str = "\n",
    after: str = "\n",
    others: Mapping[str, bytes] | None = None,
) -> Form:
    marks = [_mark(number) + "_" * (11 - len(_mark(number))) for number in range(ROWS)]
    rows = {mark: row(mark).encode() for mark in marks}
    lines = between == "\n" and not before.startswith(("[", "{"))
    return Form(
        source, name, rows, before.encode(), between.encode(), after.encode(), others or {}, lines
    )


def _json(value: object) -> str:
    return json.dumps(value)


FORMS = [
    _form("videocc", "a.csv", lambda m: f"{m},0,1000000,a man of {m}"),
    _form(
        "activitynet",
        "a.json",
        lambda m: f'"v_{m}": ' + _json({"timestamps": [[0, 2.5]], "sentences": [f"a {m}"]}),
        *("{", ", ", "}"),
    ),
    _form(
        "howto100m",
        "a.json",
        lambda m: f'"{m}": ' + _json({"start": [0], "end": [2.5], "text": [f"a {m}"]}),
        *("{", ",\n", "}\n"),
    ),
    _form("howto100m", "bread_12345.csv", lambda m: f"0,1,{m}", "start,end,text\n"),
    _form("webvid", "a.csv", lambda m: f"{m},PT00H00M26S,a {m}", "videoid,duration,name\n"),
    _form(
        "msrvtt",
        "a.json",
        lambda m: _json({"image_id": m, "caption": "a man"}),
        *('{"annotations": [', ", ", "]}"),
    ),
    _form("msrvtt", "a.csv", lambda m: f"k,{m},a man", "key,video_id,sentence\n"),
    _form("msvd", "a.txt", lambda m: f"{m} a man"),
    _form(
        "msrvtt-qa",
        "a.json",
        lambda m: _json({"question": "what is it?", "answer": "a cat", "video_id": m}),
        *("[", ", ", "]"),
    ),
    _form(
        "msrvtt-qa",
        "a.jsonl",
        lambda m: _json({"question": "what is it?", "answer": "a cat", "video_id": m}),
    ),
    _form(
        "msvd-qa",
        "a.json",
        lambda m: _json({"question": "what is it?", "answer": "a", "video_id": int(m[4:7])}),
        *("[", ", ", "]"),
        others={
            "m.txt": "".join(f"{_mark(i)}_ vid{i}\n" for i in range(ROWS)).encode(),
        },
    ),
    _form("ucf101", "a.txt", lambda m: f"Run/{m}.avi 1", others={"c.txt": b"1 Run\n"}),
    _form("hmdb51", "Run_test_split1.txt", lambda m: f"{m}.avi 1"),
    _form(
        "hmdb51", "a.csv", lambda m: f"{m}.avi,run,1,1,2", "video_id,label,split1,split2,split3\n"
    ),
    _form(
        "activitynet-tal",
        "a.json",
        lambda m: (
            f'"{m}": '
            + _json(
                {"subset": "a", "duration": 3, "annotations": [{"label": "b", "segment": [0, 1]}]}
            )
        ),
        *('{"database": {', ", ", "}}"),
    ),
    _form("ava", "a.csv", lambda m: f"{m},0902,0.077,0.151,0.283,0.811,80,1"),
    _form("generic", "a.csv", lambda m: f"{m},0,1,a {m}", "video,start,end,caption\n"),
    _form("generic", "a.tsv", lambda m: f'{m}\t0\t1\t"a {m}"', "video\tstart\tend\tcaption\n"),
    _form("generic", "a.jsonl", lambda m: _json({"video": m, "end": 1, "caption": f"a {m}"})),
]
assert {form.source for form in FORMS} == set(plan.SOURCES)

# Bytes that often break readers of such files.
PIECES = [
    *(b'"', b"'", b"[", b"]", b"{", b"}", b",", b":", b"\\", b"\n", b"\r", b"\r\n", b"\0", b"\t"),
    *(b"NaN", b"-Infinity", b"1e400", b"9" * 5000, b"1e1000000000", b"[" * 2000, b'{"a":' * 300),
    *(b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\\ud83d", b"\xe2\x80\xa8", b"\x1a", b"null", b" "),
    *(b'"""', b'","', b"#", b"}{", b"}\n{", b'"a": 1, "a": 2', b"\n\n\n"),
]


@st.composite
def _damaged(draw: st.DrawFn, form: Form) -> bytes:
    data = form.data()
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        end = min(len(data), place + draw(st.integers(0, 60)))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=8))
        match draw(st.sampled_from(("insert", "overwrite", "delete", "cut", "repeat"))):
            case "insert":
                data = data[:place] + piece + data[place:]
            case "overwrite":
                data = data[:place] + piece + data[place + len(piece) :]
            case "delete":
                data = data[:place] + data[end:]
            case "cut":
                data = data[:place]
            case "repeat":
                data = data[:end] + data[place:]
    return data


def _read(form: Form, folder: Path, data: bytes, name: str = "") -> list[ClipRequest | Reject]:
    (folder / (name or form.name)).write_bytes(data)
    for other, whole in form.others.items():
        (folder / other).write_bytes(whole)
    paths = [str(folder / one) for one in (name or form.name, *form.others)]
    return [
        row
        for unit in plan.units(form.source, paths)
        for row in plan.read_rows(unit, form.source, SourceOptions())
    ]


def _vanished(form: Form, data: bytes, rows: list[ClipRequest | Reject]) -> list[str]:
    """Return the marks of undamaged rows that are missing from the result."""
    came = "\n".join(
        " ".join((row.video_id, row.caption))
        if isinstance(row, ClipRequest)
        else " ".join((row.video_id, row.row, row.message))
        for row in rows
    )
    whole = set(re.split(rb"[\r\n]", data)) if form.lines else None
    return [
        mark
        for mark, text in form.rows.items()
        if (text in whole if whole is not None else text in data) and mark not in came
    ]


@pytest.fixture(params=FORMS, ids=lambda form: f"{form.source}-{form.name}")
def form(request) -> Form:
    return request.param


def test_undamaged_files_are_read_completely(form, tmp_path):
    rows = _read(form, tmp_path, form.data())
    assert all(isinstance(row, ClipRequest) for row in rows), rows[0]
    assert len(rows) == ROWS and not _vanished(form, form.data(), rows)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_no_row_of_a_damaged_file_is_lost(form, tmp_path, data):
    damaged = data.draw(_damaged(form))
    try:
        rows = _read(form, tmp_path, damaged)
    except AnnotationError as error:
        assert "\n" not in str(error)
        return
    assert not _vanished(form, damaged, rows)


def _renamed(row: ClipRequest | Reject, old: str, new: str) -> ClipRequest:
    assert isinstance(row, ClipRequest)
    return row._replace(source_row=row.source_row.replace(old, new))


COMPRESS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_files_equal_plain_ones(form, tmp_path, suffix):
    compress = COMPRESS[suffix]
    rows = _read(form, tmp_path, form.data())
    name = f"{form.name}.{suffix}"
    middle = len(form.data()) // 2
    members = compress(form.data()[:middle]) + compress(form.data()[middle:])
    for data in (compress(form.data()), members):
        found = _read(form, tmp_path, data, name)
        assert [_renamed(row, name, form.name) for row in found] == rows


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("damage", ["cut", "cut at the end", "flip", "garbage", "half a member"])
def test_a_damaged_compressed_file_is_refused(tmp_path, suffix, damage):
    form = FORMS[0]
    whole = COMPRESS[suffix](form.data())
    middle = len(whole) // 2
    data = {
        "cut": whole[:middle],
        "cut at the end": whole[:-3],
        "flip": whole[:middle] + bytes([whole[middle] ^ 16]) + whole[middle + 1 :],
        "garbage": whole + b"garbage",
        "half a member": whole + whole[:middle],
    }[damage]
    with pytest.raises(
        AnnotationError, match=rf"^a\.csv\.{suffix} is damaged: .*: download it again"
    ):
        _read(form, tmp_path, data, f"a.csv.{suffix}")


def test_an_open_quote_before_a_line_that_is_not_utf8_loses_no_row(tmp_path):
    form = next(one for one in FORMS if one.source == "howto100m" and one.name.endswith(".csv"))
    data = b'start,end,text\n"0,1,mark000xyz_\n\x80,1,mark001xyz_\n0",1,mark002xyz_\n'
    assert len(_read(form, tmp_path, data)) == 3


def test_a_damaged_list_on_one_line_is_no_single_row(tmp_path):
    for form in (one for one in FORMS if one.source.endswith("-qa") and one.name == "a.json"):
        with pytest.raises(AnnotationError, match="neither a JSON list nor JSON Lines"):
            _read(form, tmp_path, b"{" + form.data())
        with pytest.raises(AnnotationError, match="neither a JSON list nor JSON Lines"):
            _read(form, tmp_path, b"\xef\xbb\xbf{" + form.data())
        with pytest.raises(AnnotationError, match="neither a JSON list nor JSON Lines"):
            _read(form, tmp_path, b"{" + form.data() + b" " * (4 << 20) + b"{}")
