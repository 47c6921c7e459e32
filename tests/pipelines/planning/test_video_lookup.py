import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.decoding.video_file import Failure, Video
from pipelines.planning import video_lookup
from pipelines.planning.video_lookup import VideoLookup
from pipelines.sources.clip_request import RowError
from pipelines.sources.reject_reasons import REASONS
from pipelines.storage import storage
from protos.video_id import EXTENSIONS, video_key


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    (tmp_path / "outside.mp4").write_bytes(b"secret")
    return folder


@pytest.fixture
def mapped(root, tmp_path):
    """Return mapped(rows), a lookup in `root` by a video map with these rows."""

    def lookup(*rows):
        (tmp_path / "map.csv").write_text("\n".join(("video_id,path", *rows)))
        return VideoLookup(str(root), str(tmp_path / "map.csv"))

    return lookup


def assert_fails(found, reason):
    assert isinstance(found, Failure) and found.reason == reason in REASONS, found


def test_in_a_folder(root, tmp_path):
    (root / "a.webm").write_bytes(b"12345")
    (root / "a.avi").write_bytes(b"1")
    (root / "link.mp4").symlink_to("a.webm")
    (root / "out.mp4").symlink_to(tmp_path / "outside.mp4")
    (root / "nowhere.mp4").symlink_to("gone.mp4")
    (root / "empty.mkv").touch()
    (root / "folder.mp4").mkdir()
    os.mkfifo(root / "pipe.mp4")
    lookup = VideoLookup(str(root))
    assert lookup.find("a") == Video(str(root / "a.webm"), 5)
    assert lookup.find("link") == Video(str(root / "a.webm"), 5)
    for video_id, reason in {
        "out": "video_outside_root",
        "nowhere": "video_missing",
        "missing": "video_missing",
        "empty": "video_empty",
        "folder": "video_not_a_file",
        "pipe": "video_not_a_file",
        "../outside": "video_outside_root",
    }.items():
        found = lookup.find(video_id)
        assert_fails(found, reason)
        assert isinstance(found, Failure) and str(tmp_path) not in found.message


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("v_{video_id}.{ext}", "v_a.mkv"),
        ("{video_id}/whole.{ext}", "a/whole.mkv"),
        ("{ext}/{video_id}", "mkv/a"),
        ("{video_id}", "a"),
    ],
)
def test_by_template(root, template, path):
    (root / path).parent.mkdir(exist_ok=True)
    (root / path).write_bytes(b"123")
    lookup = VideoLookup(f"{root}/{template}")
    assert lookup.find("a") == Video(str(root / path), 3)
    assert_fails(lookup.find("b"), "video_missing")


def test_extensions_are_tried_in_order(root):
    lookup = VideoLookup(f"{root}/v_{{video_id}}.{{ext}}")
    both = (*EXTENSIONS, *map(str.upper, EXTENSIONS))
    for extension in reversed(both):
        (root / f"v_a.{extension}").write_bytes(b"1")
        assert lookup.find("a") == Video(str(root / f"v_a.{extension}"), 1)
    assert lookup.find("b") == Failure("video_missing", "no v_b.{mp4,mkv,webm,m4v,mov,avi,…}")


@pytest.mark.parametrize("name", ["a.Mp4", "a.mKv", "a.MTS", "a.m2ts", "a.M2ts", "a.M4V", "a.WebM"])
@pytest.mark.parametrize("template", ["{video_id}.{ext}", "{label}/{video_id}.{ext}"])
def test_extensions_in_any_case(root, template, name):
    folder = root / ("b" if "label" in template else "")
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"12")
    lookup = VideoLookup(f"{root}/{template}")
    for video_id in ("a", name):
        assert lookup.find(video_id, "b") == Video(str(folder / name), 2)
        assert_fails(lookup.find(video_id.upper(), "b"), "video_missing")
    (folder / "a.mp4").write_bytes(b"123")
    assert VideoLookup(f"{root}/{template}").find("a", "b") == Video(str(folder / "a.mp4"), 3)


TEMPLATES = st.sampled_from(
    [
        video_lookup.IN_A_FOLDER,
        "v_{video_id}.{ext}",
        "{video_id}/whole.{ext}",
        "{ext}/{video_id}",
        "{video_id}{ext}",
        "a+b/{video_id}_{video_id}.mp4",
        "{ext}.{video_id}.{ext}",
        "{label}/{video_id}.{ext}",
    ]
)


@given(TEMPLATES, st.text().filter(lambda text: "{" not in text), st.data())
def test_a_templates_path_gives_back_the_id(template, video_id, data):
    extension = data.draw(st.sampled_from(EXTENSIONS).map(str))
    extension = data.draw(st.sampled_from([extension, extension.upper(), extension.title()]))
    videos = f"gs://lab/videos/{template}"
    label = data.draw(st.text().filter(lambda text: not set(text) & set("/{")))
    path = VideoLookup(videos)._path(video_id, label, extension)
    match = video_lookup._form(video_lookup.split(videos)[1]).fullmatch(path)
    assert match
    own = match.groupdict().get("ext", extension)
    assert VideoLookup(videos)._path(match["video_id"], label, own) == path
    if template != "{video_id}{ext}":  # "amts" may be a video of "a" or of "am"
        assert match["video_id"] == video_id


@pytest.mark.parametrize("template", ["v_{video_id}.{ext}", "{video_id}"])
def test_a_listing_finds_the_same_files_as_the_store(lab, template):
    """The result includes paths that are no files or lie elsewhere."""
    root = f"{lab}/{len(template)}"
    paths = [
        "v_a.mp4",
        "v_a.mkv",
        "v_b.avi",
        "v_c.MP4",
        "v_i.Mp4",
        "v_j.m2TS",
        "v_f.ts",
        "v_g.h.3GP",
        "v_.mp4",
        "w_a.mp4",
        "d/v_a.mp4",
        "v_e",
    ]
    for path in paths:
        with storage.NewFile(f"{root}/{path}") as file:
            file.write(path.encode())
    with storage.NewFile(f"{root}/v_empty.mp4"):
        pass
    asking = VideoLookup(f"{root}/{template}")
    found = list(video_lookup.listing(f"{root}/{template}"))
    among = asking.among({path: size for _, path, size in found})
    for video_id in (
        "a",
        "b",
        "c",
        "e",
        "f",
        "g.h",
        "f.ts",
        "f.mp4",
        "c.MP4",
        "empty",
        "",
        "../a",
        "v_a.mp4",
        "d/v_a.mp4",
        "x",
    ):
        assert among.find(video_id) == asking.find(video_id)
    known = {video_id: asking.find(video_id) for video_id, _, _ in found}
    assert known and all(
        failure.reason == "video_empty"
        for failure in known.values()
        if isinstance(failure, Failure)
    )


def test_an_id_cannot_leave_a_templates_folder(root):
    (root / "v_").mkdir()
    for template in ("v_/../{video_id}.mp4", "{video_id}.{ext}"):
        assert_fails(VideoLookup(f"{root}/{template}").find("../outside"), "video_outside_root")


@pytest.mark.parametrize("template", ["{ext}", "{id}.mp4", "{video_id}.{extension}", "{}"])
def test_invalid_templates_are_refused(template):
    with pytest.raises(ValueError, match=r"give \{video_id\}"):
        video_lookup.split(template)


def test_by_map(root, mapped):
    (root / "deep").mkdir()
    (root / "deep" / "film, part 1.ogv").write_bytes(b"12")
    lookup = mapped('a,"deep/film, part 1.ogv"', 'a,"deep/film, part 1.ogv"', "b,gone.mp4")
    assert lookup.find("a") == Video(str(root / "deep" / "film, part 1.ogv"), 2)
    assert_fails(lookup.find("b"), "video_missing")
    assert_fails(lookup.find("c"), "video_missing")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../outside.mp4", "video_outside_root"),
        ("/etc/passwd", "video_outside_root"),
        ("link", "video_outside_root"),
        ("", "video_not_a_file"),
        (".", "video_not_a_file"),
        ("a\0b", "video_missing"),
        ("x" * 5000, "video_missing"),
    ],
)
def test_a_map_cannot_leave_the_folder(root, tmp_path, mapped, path, reason):
    (root / "link").symlink_to(tmp_path / "outside.mp4")
    found = mapped(f"a,{path}").find("a")
    assert_fails(found, reason)
    assert isinstance(found, Failure) and len(found.message) < 200
    assert str(tmp_path) not in found.message


def test_videos_missing_from_a_map_are_found_in_the_folder(root, mapped):
    (root / "a.mp4").write_bytes(b"1")
    (root / "film.mp4").write_bytes(b"12")
    lookup = mapped("b,film.mp4", "c,gone.mp4")
    assert lookup.find("b") == Video(str(root / "film.mp4"), 2)
    assert lookup.find("a") == Video(str(root / "a.mp4"), 1)
    assert_fails(
        lookup.find("c"), "video_missing"
    )  # A wrong path is an error, without a fallback to the id.


@pytest.mark.parametrize(
    ("template", "video_id", "path"),
    [
        ("", "bikes.mp4", "bikes.mp4"),
        ("", "bikes.MOV", "bikes.MOV"),
        ("/v_{video_id}.{ext}", "my bikes.mp4", "v_my bikes.mp4"),
        ("/{video_id}.mp4", "bikes.mp4", "bikes.mp4"),
        ("/{video_id}", "bikes.mp4", "bikes.mp4"),
        ("/{video_id}", "bikes.mp4", "bikes"),
        ("", "v1.2", "v1.2.webm"),
        ("", "bikes.mp4", "bikes.mp4.mkv"),  # The id only looks like one with an extension.
    ],
)
def test_an_id_may_include_the_file_extension(root, template, video_id, path):
    (root / "bikes.avi").write_bytes(b"1234")
    (root / path).write_bytes(b"12")
    assert VideoLookup(f"{root}{template}").find(video_id) == Video(str(root / path), 2)


@pytest.mark.parametrize(("there", "asked"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_an_id_of_another_normalization_is_missing_with_a_hint(root, mapped, there, asked):
    name = "Bär füttert"
    (root / f"{unicodedata.normalize(there, name)}.mp4").write_bytes(b"1")
    for lookup in (VideoLookup(str(root)), mapped("b,film.mp4")):
        found = lookup.find(unicodedata.normalize(asked, name))
        assert_fails(found, "video_missing")
        assert isinstance(found, Failure)
        assert f"Unicode normalization alone: write the id in {there}" in found.message
        other = lookup.find("Bär")
        assert isinstance(other, Failure) and "Unicode" not in other.message


def test_a_map_accepts_every_spelling_of_an_id(root, mapped):
    for name in ("a.mp4", "other.mp4", "third.mp4"):
        (root / name).write_bytes(b"a")
    other, third = (Video(str(root / f"{name}.mp4"), 1) for name in ("other", "third"))
    assert {mapped("a,other.mp4").find(one) for one in ("a", "a.mp4", "a.MKV")} == {other}
    assert {mapped("a.mp4,other.mp4").find(one) for one in ("a", "a.mp4")} == {other}
    decomposed = mapped("u\u0308,other.mp4").find("\u00fc.mp4")
    assert decomposed == other
    both = mapped("a,other.mp4", "a.mp4,third.mp4")  # The exact spelling takes precedence.
    assert (both.find("a"), both.find("a.mp4")) == (other, third)
    assert_fails(both.find("a.mkv"), "video_ambiguous")


@pytest.mark.parametrize("name", ["a.mp4.mp4", "a.ts.mkv"])
def test_all_ids_of_one_file_have_one_key(root, name):
    (root / name).write_bytes(b"a")
    ids = [name[:length] for length in range(1, len(name) + 1)]
    found = [one for one in ids if isinstance(VideoLookup(str(root)).find(one), Video)]
    assert len(found) == 2 and len(set(map(video_key, found))) == 1


def test_two_files_with_one_id_are_ambiguous(root, mapped):
    (root / "a.mp4").write_bytes(b"1")
    (root / "b.mp4").write_bytes(b"2")
    found = mapped("a,b.mp4", "a,a.mp4").find("a")
    assert found == Failure("video_ambiguous", "2 files in the video map: 'a.mp4', 'b.mp4'")
    assert_fails(found, "video_ambiguous")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "no rows"),
        (b"video_id,path\n", "no rows"),
        (b"id,file\na,a.mp4\n", "line 2: no column 'video_id'; there are id, file"),
        (b"video_id,path\na,a.mp4\nb\n", "line 3: 1 columns where the header has 2"),
        (b"video_id,path\na,\xff.mp4\n", "line 2: byte 2 of the line is no UTF-8"),
    ],
)
def test_a_map_of_another_format_is_refused(tmp_path, data, told):
    (tmp_path / "map.csv").write_bytes(data)
    with pytest.raises(RowError, match=told):
        video_lookup.read_map(str(tmp_path / "map.csv"))


def test_a_class_may_be_a_folder(tmp_path):
    (tmp_path / "Jump").mkdir()
    (tmp_path / "Jump" / "(a)_#1.avi").write_bytes(b"a")
    (tmp_path / "b.avi").write_bytes(b"b")
    lookup = VideoLookup(f"{tmp_path}/{{label}}/{{video_id}}.{{ext}}")
    assert lookup.find("(a)_#1", "Jump") == Video(str(tmp_path / "Jump" / "(a)_#1.avi"), 1)
    for label in ("Run", "", "a\0b"):
        found = lookup.find("(a)_#1", label)
        assert isinstance(found, Failure) and found.reason == "video_missing"
    (tmp_path / "inner").mkdir()
    lookup = VideoLookup(f"{tmp_path}/inner/{{label}}/{{video_id}}.{{ext}}")
    found = lookup.find("b", "..")
    assert isinstance(found, Failure) and found.reason == "video_outside_root"
