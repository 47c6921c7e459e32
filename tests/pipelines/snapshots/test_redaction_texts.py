"""Texts of rejects that contain a removed video's id in any spelling."""

import csv
import io
import json
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.snapshots.redaction import Redaction
from pipelines.sources.reject_reasons import REMOVED
from protos.v1.manifest_pb2 import Reject

KEPT = "dQw4w9WgXcQ"
NAMES = st.text("ab1.-_ é\"'\\\\(#&%", min_size=1, max_size=12).filter(
    lambda name: name.strip() == name and name not in (".", "..")
)


def texts_of(video):
    """Return a row and a message with an id, as the sources write them."""
    line = io.StringIO()
    csv.writer(line).writerow(["a zqsecret", video, 0, 1])
    fields = {"video": video, "caption": "a zqsecret"}
    return [
        line.getvalue().strip(),
        f"{video}\tzqsecret",
        f"Run/{video}.avi 1 zqsecret",
        f"https://youtu.be/{quote(video)}?t=3,zqsecret",
        json.dumps(fields),
        json.dumps(fields, ensure_ascii=False),
        f"{video!r} is no id, zqsecret",
    ]


@given(st.lists(NAMES, min_size=2, max_size=8, unique=True), st.data())
@settings(deadline=None, max_examples=300)
def test_a_rejects_text_with_a_removed_id_is_dropped(names, data):
    gone = set(data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True)))
    down = Redaction(gone)
    for name in names:
        for text in texts_of(name):
            for fields in ({"row": text}, {"message": text}):
                kept = down.scrubbed(Reject(reason="row_columns", source_row="zz.csv:1", **fields))
                if name in gone:
                    assert "zqsecret" not in str(kept) and name not in kept.row
                assert kept.reason == "row_columns"
        one = Reject(reason="span_empty", video_id=name, source_row="zz.csv:1", row="zqsecret")
        assert (down.scrubbed(one).reason == REMOVED) == (name in gone)
        assert ("zqsecret" in str(down.scrubbed(one))) == (name not in gone)


@pytest.mark.parametrize(
    ("video_id", "text"),
    [
        *(
            (KEPT, text)
            for text in (
                f"https://x.y/?u=https%3A%2F%2Fyoutube.com%2Fwatch%3Fv%3D{KEPT},zq",
                f"https%253A%252F%252Fyoutu.be%252F{KEPT}",
                json.dumps({"text": f"one\n{KEPT}\tzq"}),
                f"yt_{KEPT}.mp4",
                f"{KEPT}_5_15",
                f"video{KEPT}zq",
                quote("".join(f"%{ord(letter):02X}" for letter in KEPT)),
            )
        ),
        (f"{KEPT}.mp4", f"https://youtu.be/{KEPT}"),
        (KEPT, f"{KEPT}.webm"),
        ("good", json.dumps({"text": "one\ngood"})),
        ("good", "x%2Fgood%3Fzq"),
        ("good", json.dumps(json.dumps({"text": "one\ngood"}))),
        ("good.mp4", "videos/good,zq"),
        ("Caf\u00e9", "Cafe\u0301,zq"),
        ("Cafe\u0301", "Caf\u00e9,zq"),
        ("Caf\u00e9", json.dumps("Cafe\u0301.mp4")),
        ("Cafe\u0301.mp4", "https://x.y/caf/Caf%c3%a9"),
        ("a bc", "https://x.y/?v=a+bc&t=1"),
        ("\U0001f600 bear", json.dumps("\U0001f600 bear")),
    ],
)
def test_ids_are_found_in_every_spelling(video_id, text):
    assert Redaction([video_id, "never"]).named_in(text) == {video_id}


@pytest.mark.parametrize("text", ["goods,zq", "a-good", "x%2Fgoods", "one\\tgoods", "v_goo"])
def test_a_short_id_matches_only_whole_words(text):
    assert Redaction(["good"]).named_in(text) == set()
