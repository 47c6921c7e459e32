"""Croissant descriptions: their files, fields, splits and lineage, without a Croissant reader."""

import hashlib
import json

import pytest

from pipelines.cli.main import main
from pipelines.snapshots import verify
from pipelines.snapshots.croissant import documents
from pipelines.snapshots.croissant.documents import UNSTATED, About
from pipelines.snapshots.export import parquet, webdataset
from pipelines.snapshots.fields import FIELDS
from protos.v1.manifest_pb2 import AnnotationFile, FileEntry, Reject, Split


@pytest.fixture
def written(tmp_path, make_clip, write_snapshot):
    clips = [make_clip(f"vi.deo{i}", caption=f"ein Schäfer{i}", grey=9 * i) for i in range(5)]
    reject = Reject(stage="decode", reason="video_missing", video_id="gone")
    folder = tmp_path / "snapshot"
    manifest = write_snapshot(folder, clips, rejects=(reject, reject), shards=4)
    manifest.annotations.append(AnnotationFile(name="rows.csv", bytes=9, sha256="ab" * 32))
    manifest.config.split.CopyFrom(Split(part="validation"))
    return folder, manifest


def check_files(folder, document):
    """Check size and hash of each file that is described, and return their names."""
    names = set()
    for one in document["distribution"]:
        if one["@type"] == "cr:FileObject":
            data = (folder / one["contentUrl"]).read_bytes()
            assert one["contentSize"] == f"{len(data)} B"
            assert one["sha256"] == hashlib.sha256(data).hexdigest()
            names.add(one["contentUrl"])
    return names


def check_references(document):
    """Check that ids are unique, and that each reference is to one of them."""
    ids = []

    def walk(node, in_object=False):
        if isinstance(node, dict):
            ids.extend([node["@id"]] if "@type" in node and "@id" in node else [])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk({key: value for key, value in document.items() if key != "@context"})
    assert len(ids) == len(set(ids))
    for record_set in document["recordSet"]:
        for field in record_set["field"]:
            sources = [part.get("source") for part in field.get("subField", [field])]
            assert all(source["fileSet"]["@id"] in ids for source in sources if source)


@pytest.mark.parametrize("form", ["snapshot", "webdataset", "parquet"])
def test_a_description_lists_files_fields_split_and_lineage(written, tmp_path, form):
    folder, manifest = written
    out, about = folder, About("Mine", "https://example.org/terms")
    if form == "snapshot":
        document = json.loads(documents.of_snapshot(str(folder), manifest, about))
    else:
        out = tmp_path / "out"
        if form == "webdataset":
            webdataset.write(str(folder), manifest, str(out), about)
        else:
            splits = [parquet.Split("validation", str(folder), manifest)]
            parquet.write(splits, str(out), about)
        document = json.loads((out / documents.NAME).read_bytes())
    described = check_files(out, document)
    assert described | {documents.NAME, "README.md"} >= {path.name for path in out.iterdir()}
    check_references(document)

    assert "http://mlcommons.org/croissant/1.1" in document["conformsTo"]
    assert (document["name"], document["version"]) == ("Mine", "1.0.0")
    assert document["license"] == "https://example.org/terms"
    sets = {one["@id"]: one for one in document["recordSet"]}
    names = {field["name"] for field in sets["clips"]["field"]}
    assert names >= {field.name for field in FIELDS} - {"frames"}
    assert ("frames" in names) is (form != "webdataset")
    assert "split" in names
    assert sets["splits"]["data"] == [{"splits/name": "validation"}]

    origin = document["prov:wasDerivedFrom"]
    if form != "snapshot":
        digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
        assert origin[0]["identifier"] == f"manifest sha256:{digest}"
        assert document["prov:wasGeneratedBy"]["prov:wasAssociatedWith"][-1]["name"] == "svilm"
        origin = origin[0]["prov:wasDerivedFrom"]
    assert [(one["name"], one["sha256"]) for one in origin] == [("rows.csv", "ab" * 32)]
    assert "2 video_missing" in document["rai:dataCollectionMissingData"]
    assert "--frames 4" in document["rai:dataPreprocessingProtocol"]


def test_what_is_unknown_is_not_stated(written):
    folder, manifest = written
    manifest.config.ClearField("split")
    document = json.loads(documents.of_snapshot(str(folder), manifest, UNSTATED))
    assert document["name"] == "videocc"
    assert "license" not in document and "prov:wasRevisionOf" not in document
    assert [one["@id"] for one in document["recordSet"]] == ["clips"]
    manifest.removed_videos.extend(["a", "b"])
    document = json.loads(documents.of_snapshot(str(folder), manifest, UNSTATED))
    assert "2 videos" in document["prov:wasRevisionOf"]["description"]


def test_an_append_names_its_sources_and_the_earlier_version(written):
    folder, manifest = written
    manifest.increments.add(shards=3, annotations=1)
    manifest.increments.add(
        shards=1, dataset="webvid", previous_sha256="cd" * 32, source={"time_unit": "ms"}
    ).plan.CopyFrom(FileEntry(name="plan-i00001.json", bytes=2, sha256="ef" * 32))
    document = json.loads(documents.of_snapshot(str(folder), manifest, UNSTATED))
    assert document["name"] == "videocc, webvid"
    assert document["prov:wasRevisionOf"]["identifier"] == f"manifest sha256:{'cd' * 32}"
    assert "--time-unit ms" in document["rai:dataPreprocessingProtocol"]
    assert "plan-i00001.json" in [one.get("contentUrl") for one in document["distribution"]]


def test_describe_writes_into_the_snapshot_or_above(written, tmp_path, capsys):
    folder, _ = written
    inside, above = folder / "croissant.json", tmp_path / "mine.json"
    for out in (inside, above):
        assert main(["describe", str(folder), f"--out={out}", "--license=mit"]) == 0
        document = json.loads(out.read_bytes())
        assert len(check_files(out.parent, document)) == 14
        assert document["license"] == "mit"
    assert verify.faults(str(folder), verify.read_manifest(str(folder))) == []

    (tmp_path / "beside").mkdir()
    for out in (folder / "other.json", tmp_path / "beside" / "mine.json"):
        assert main(["describe", str(folder), f"--out={out}"]) == 2
        assert str(out.parent) in capsys.readouterr().err
        assert not out.exists()
    assert main(["describe", str(folder), f"--out={tmp_path / 'a.html'}", "--license=mit"]) == 2


def test_a_snapshot_without_records_is_described(tmp_path, write_snapshot):
    manifest = write_snapshot(tmp_path / "empty", [])
    webdataset.write(str(tmp_path / "empty"), manifest, str(tmp_path / "out"))
    document = json.loads((tmp_path / "out" / documents.NAME).read_bytes())
    assert len(check_files(tmp_path / "out", document)) == 6
    check_references(document)
