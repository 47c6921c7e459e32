"""Tags of versions, as the trainer reads them, and versions that were appended to."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from google.protobuf import json_format

from protos import contract
from protos.v1.manifest_pb2 import Manifest
from trainer.data.folder import open_folder, write_file
from trainer.data.snapshot import Snapshot, SnapshotError


def tag(corpus, name, number, version, sha256=None, schema="1.5"):
    """Write a tag's movement to a version, which may be empty."""
    if sha256 is None and version:
        sha256 = hashlib.sha256((corpus / version / "manifest.json").read_bytes()).hexdigest()
    (corpus / "tags").mkdir(exist_ok=True)
    move = {"schema_version": schema, "folder": version, "manifest_sha256": sha256 or ""}
    (corpus / "tags" / f"{name}.{number:06d}.json").write_text(json.dumps(move))


def test_a_tag_is_its_last_versions_folder(tmp_path, write_snapshot):
    write_snapshot("1.0.0", clips=4)
    write_snapshot("1.1.0", clips=5)
    tag(tmp_path, "latest", 1, "1.0.0")
    assert Snapshot.open(f"{tmp_path}@latest").folder == f"{tmp_path}/1.0.0"
    tag(tmp_path, "latest", 2, "1.1.0")
    opened = Snapshot.open(tmp_path.with_name(f"{tmp_path.name}@latest"))
    assert (opened.folder, len(opened)) == (f"{tmp_path}/1.1.0", 5)
    shutil.copytree(tmp_path / "1.0.0", tmp_path / "one@latest")  # a folder's own name
    assert Snapshot.open(tmp_path / "one@latest").folder == f"{tmp_path}/one@latest"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (dict(version=""), "was deleted"),
        (dict(version="1.0.0", sha256="0" * 64), "not 000000000000…"),
        (dict(version="../1.0.0", sha256="0" * 64), "not a folder beside"),
        (dict(version="1.0.0", schema="2.0"), "schema version 2.0"),
        (dict(version="2.0.0", sha256="0" * 64), "2.0.0 does not exist"),
    ],
)
def test_a_tag_that_leads_to_no_version_is_refused(tmp_path, write_snapshot, given, told):
    write_snapshot("1.0.0", clips=4)
    tag(tmp_path, "latest", 1, **given)
    with pytest.raises(SnapshotError, match=told):
        Snapshot.open(f"{tmp_path}@latest")
    with pytest.raises(SnapshotError, match=r"no tag 'paper'.*latest"):
        Snapshot.open(f"{tmp_path}@paper")
    with pytest.raises(SnapshotError, match="does not exist"):
        Snapshot.open(f"{tmp_path}@../1.0.0")


def test_a_tag_in_a_bucket(tmp_path, write_snapshot, lab):
    write_snapshot("1.0.0", clips=3, shards=1)
    tag(tmp_path, "latest", 1, "1.0.0")
    for path in (*tmp_path.glob("1.0.0/*"), *tmp_path.glob("tags/*")):
        write_file(f"{lab}/shapes/{path.relative_to(tmp_path)}", path.read_bytes())
    opened = Snapshot.open(f"{lab}/shapes@latest")
    assert opened.folder == f"{lab}/shapes/1.0.0" and len(opened.read([0, 2])) == 2
    assert open_folder(f"{lab}/shapes/tags").sizes()
    with pytest.raises(SnapshotError, match="no tag 'latest'"):
        Snapshot.open(f"{lab}/other@latest")


def test_records_of_an_appended_version_follow_those_of_the_earlier(tmp_path, write_snapshot):
    old, more = write_snapshot("1.0.0", clips=5), write_snapshot("more", clips=4, shards=2)
    manifest = contract.parse_json((old.folder / "manifest.json").read_bytes(), Manifest)
    added = contract.parse_json((more.folder / "manifest.json").read_bytes(), Manifest)
    grown = tmp_path / "1.1.0"
    shutil.copytree(old.folder, grown)
    manifest.increments.add(shards=3)
    manifest.increments.add(shards=2)
    for number, shard in enumerate(added.shards):
        for entry in (shard.data, shard.index, shard.summary):
            suffix = entry.name.rpartition(".")[2]
            name = f"{contract.shard_name(number, 2, increment=1)}.{suffix}"
            shutil.copy(more.folder / entry.name, grown / name)
            entry.name = name
        manifest.shards.append(shard)
    manifest.config.num_shards = 5
    manifest.counts.rows = manifest.counts.records = 9
    manifest.schema_version = contract.INCREMENTS_VERSION
    (grown / "manifest.json").write_text(json_format.MessageToJson(manifest))
    before, new = Snapshot.open(old.folder), Snapshot.open(more.folder)
    after = Snapshot.open(grown)
    assert after.read(range(5)) == before.read(range(5))
    assert after.read(np.arange(5, 9)) == new.read(range(4))
    assert [*after.videos()] == [*before.videos(), *new.videos()]
