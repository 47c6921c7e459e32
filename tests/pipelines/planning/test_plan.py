import hashlib

import pytest

from pipelines.planning import plan
from pipelines.snapshots.snapshot import shard_of
from pipelines.sources import SOURCES
from protos.v1.manifest_pb2 import SourceOptions

ROW = "dQw4w9WgXcQ,0,1,a man\n"


def survey(tmp_path, data, name="rows.csv"):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return plan.survey("videocc", (str(path),), SourceOptions())


def test_a_file_is_identified_by_its_bytes(tmp_path):
    found = survey(tmp_path, ROW * 7)
    (file,) = found.files
    assert (file.name, file.bytes, found.rows) == ("rows.csv", 7 * len(ROW), 7)
    assert file.sha256 == hashlib.sha256(ROW.encode() * 7).hexdigest()


@pytest.mark.parametrize("data", ["", "\n\n", "url,start,end,caption\n"])
def test_a_file_without_rows_is_refused(tmp_path, data):
    with pytest.raises(plan.PlanError, match="has no rows: videocc requires a CSV file"):
        survey(tmp_path, data)


@pytest.mark.parametrize(
    "data",
    [
        '{"v_bXdq2zI1Ms0": {"duration": 73.1, "timestamps": [[0, 10.23]], "sentences": ["a"]}}',
        '{\n "a": {\n  "text": [\n   "b"\n  ]\n }\n}\n',
        "video_id,category_1,category_2,rank,task_id\nnVbIUDjzWY4,Cars,Motorcycles,27,52907\n",
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20,
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path, data):
    with pytest.raises(plan.PlanError, match="is not in the format of videocc") as error:
        survey(tmp_path, data)
    assert "\n" not in str(error.value) and "start µs, end µs, caption" in str(error.value)


def test_a_good_row_among_bad_ones_is_enough(tmp_path):
    assert survey(tmp_path, "x\n" * 50 + ROW).rows == 51


def test_row_counts_are_extrapolated_from_the_first_rows(tmp_path):
    assert survey(tmp_path, ROW * 300_000).rows == pytest.approx(300_000, rel=0.1)


def test_a_folder_expands_to_its_files(tmp_path):
    for name in ("b.csv", "a.csv"):
        (tmp_path / name).write_text(ROW)
    found = plan.survey("videocc", (str(tmp_path),), SourceOptions())
    assert [file.name for file in found.files] == ["a.csv", "b.csv"]
    assert found.paths == (str(tmp_path / "a.csv"), str(tmp_path / "b.csv"))
    (tmp_path / "c").mkdir()
    with pytest.raises(plan.PlanError, match="is an empty folder"):
        plan.survey("videocc", (str(tmp_path / "c"),), SourceOptions())


def test_hidden_files_and_backups_in_a_folder_are_skipped(tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("a.csv", ".3.csv", "4.csv~", "#5.csv#", "a.csv.bak", "more/6.csv"):
        (tmp_path / name).write_text(ROW)
    found = plan.survey("videocc", (str(tmp_path),), SourceOptions())
    assert [file.name for file in found.files] == ["a.csv"]
    (skipped,) = (caution for caution in found.cautions if "skipped" in caution)
    assert skipped == (
        f"--annotations {str(tmp_path)!r}: skipped in this folder: "
        "'#5.csv#', '.3.csv', '4.csv~', 'a.csv.bak', 'more'"
    )
    named = plan.survey("videocc", (str(tmp_path / ".3.csv"),), SourceOptions())
    assert [file.name for file in named.files] == [".3.csv"]
    (tmp_path / "a.csv").unlink()
    with pytest.raises(plan.PlanError, match="'more': no file is left"):
        plan.survey("videocc", (str(tmp_path),), SourceOptions())


def test_file_names_identify_rows(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.csv").write_text(ROW)
    paths = tuple(str(tmp_path / folder / "rows.csv") for folder in ("a", "b"))
    with pytest.raises(plan.PlanError, match=r"two annotation files are named 'rows\.csv'"):
        plan.survey("videocc", paths, SourceOptions())


def test_every_shard_gets_its_share_of_videos():
    counts = [0] * 16
    for i in range(16_000):
        counts[shard_of(f"video{i}", 16)] += 1
    assert sum(counts) == 16_000
    assert all(850 < count < 1150 for count in counts), counts


@pytest.mark.parametrize(
    "source",
    ["msrvtt", "msvd", "msrvtt-qa", "msvd-qa", "ucf101", "hmdb51", "activitynet-tal", "ava"],
)
@pytest.mark.parametrize(
    "data", [b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, b'{"a": [1]}', b""]
)
def test_a_file_of_another_benchmark_is_refused(tmp_path, source, data):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(plan.PlanError) as error:
        plan.survey(source, (str(tmp_path / "a"),), SourceOptions())
    assert "\n" not in str(error.value) and SOURCES[source].FORM in str(error.value)


def test_combined_files_have_one_row_count(tmp_path, monkeypatch):
    (tmp_path / "all.json").write_text(
        '{"videos": [], "sentences": [{"video_id": "video1", "caption": "a"}, '
        '{"video_id": "video2", "caption": "b"}]}'
    )
    (tmp_path / "list.csv").write_text("video_id\nvideo2\nvideo3\n")
    paths = (str(tmp_path / "all.json"), str(tmp_path / "list.csv"))
    found = plan.survey("msrvtt", paths, SourceOptions())
    assert [file.name for file in found.files] == ["all.json", "list.csv"]
    assert found.rows == 3
    monkeypatch.setattr(plan, "_WHOLE_BYTES", 30)
    with pytest.raises(
        plan.PlanError, match=r"'all.json' has \d+ bytes, more than the maximum 30 of msrvtt"
    ):
        plan.survey("msrvtt", paths, SourceOptions())
    with pytest.raises(plan.PlanError, match=r"no\.json.*check that it exists"):
        plan.survey("msrvtt", (str(tmp_path / "no.json"),), SourceOptions())
