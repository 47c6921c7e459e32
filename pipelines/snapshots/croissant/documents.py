"""Croissant descriptions as JSON-LD: of a snapshot, and of its WebDataset and Parquet exports.

The JSON-LD lists the files with size and sha256, the fields of the records, the splits, the lineage
in PROV-O (annotation files, snapshot, software), and what is known for responsible AI.
"""

import glob
import json
import os
from collections.abc import Sequence
from typing import NamedTuple

from pipelines.snapshots import snapshot
from pipelines.snapshots.croissant import lineage, record_sets
from pipelines.snapshots.croissant.record_sets import Json
from pipelines.snapshots.fields import FIELDS, Field
from pipelines.storage import storage
from protos import contract
from protos.v1.clip_pb2 import FRAME_ENCODING_JPEG, FRAME_ENCODING_PNG
from protos.v1.manifest_pb2 import FileEntry, Manifest

NAME = snapshot.CROISSANT_NAME

_TERMS = (
    *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field"),
    *("fileProperty", "fileObject", "fileSet", "format", "includes", "isArray", "isLiveDataset"),
    *("jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex"),
    *("repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
)
_CONTEXT: Json = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "description": {"@container": "@language"},
    "name": {"@container": "@language"},
    **{name: f"cr:{name}" for name in _TERMS},
}
_CONFORMS_TO = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
_JSON, _TAR, _PARQUET = "application/json", "application/x-tar", "application/x-parquet"
_BYTES = "application/octet-stream"
_FRAMES = {FRAME_ENCODING_JPEG: ("image/jpeg", "jpg"), FRAME_ENCODING_PNG: ("image/png", "png")}


class About(NamedTuple):
    """Statements of the publisher about a data set."""

    name: str | None = None  # None: the name of the source
    license: str | None = None  # an identifier such as cc-by-4.0, or an address

    def stated(self) -> dict[str, str]:
        """Return what is stated, by name."""
        return {name: value for name, value in self._asdict().items() if value is not None}


UNSTATED = About()


class Part(NamedTuple):
    """A split of an export: its snapshot and its files."""

    name: str
    folder: str
    manifest: Manifest
    files: Sequence[FileEntry]
    bytes: int = 0  # of the rows in memory


def of_parquet(parts: Sequence[Part], about: About) -> bytes:
    """Return the description of a Parquet export."""
    files = [entry for part in parts for entry in part.files]
    names = [part.name for part in parts]
    distribution = [
        *(_object(entry, _PARQUET) for entry in files),
        _file_set("shards", _PARQUET, "*.parquet"),
    ]
    split = record_sets.of_names("shards")
    sets = [record_sets.of_columns("shards", FIELDS, split), record_sets.of_splits(names)]
    provenance = lineage.of_export(
        [(part.folder, part.manifest) for part in parts], ("svilm", "pyarrow", "pillow")
    )
    manifests = [part.manifest for part in parts]
    return _document(manifests, about, "as Parquet", distribution, sets, provenance)


def of_webdataset(part: Part, columns: Sequence[Field], about: About) -> bytes:
    """Return the description of a WebDataset export: of its tar files and of its tables.

    Args:
      part: the snapshot, its split, and the files, tar files before tables.
      columns: the fields in the tables.
      about: name and license of the data set.
    """
    shards = part.manifest.shards
    tars, tables = part.files[: len(shards)], part.files[len(shards) :]
    # mlcroissant cannot read a tar file without members.
    held = [entry for entry, shard in zip(tars, shards, strict=True) if shard.records]
    encoding = part.manifest.config.frame_encoding
    kind, suffix = _FRAMES.get(encoding, (_BYTES, "npy"))
    distribution = [
        *(_object(entry, _TAR) for entry in tars),
        *(_object(entry, _PARQUET) for entry in tables),
        _file_set("samples", _PARQUET, "*.parquet"),
        _file_set("frame-files", kind, f"*.{suffix}", held),
    ]
    split = {"value": part.name} if part.name else None
    sets = [record_sets.of_columns("samples", columns, split)]
    if encoding in _FRAMES:
        sets.append(record_sets.of_files("frames", "frame-files", suffix))
    sets += [record_sets.of_splits([part.name])] if part.name else []
    provenance = lineage.of_export([(part.folder, part.manifest)], ("svilm", "pyarrow", "numpy"))
    return _document([part.manifest], about, "as WebDataset", distribution, sets, provenance)


def of_snapshot(folder: str, manifest: Manifest, about: About, beginning: str = "") -> bytes:
    """Return the description of a snapshot's own files.

    Args:
      folder: folder of the snapshot.
      manifest: its manifest.
      about: name and license of the data set.
      beginning: path of the folder from the description's, with a slash at its end; or empty.

    Raises:
      OSError: the manifest cannot be read.
    """
    path = os.path.join(folder, contract.MANIFEST_NAME)
    own = FileEntry(
        name=contract.MANIFEST_NAME, bytes=storage.size(path), sha256=storage.sha256(path)
    )
    entries = [one for shard in manifest.shards for one in (shard.data, shard.index, shard.summary)]
    entries += [manifest.plan, *(one.plan for one in manifest.increments[1:]), own]
    distribution = [
        *(_object(entry, _kind(entry), beginning) for entry in entries),
        _file_set("shards", _BYTES, f"{glob.escape(beginning)}*.tfrecord"),
    ]
    part = manifest.config.split.part
    sets = [record_sets.of_columns("shards", FIELDS, {"value": part} if part else None)]
    sets += [record_sets.of_splits([part])] if part else []
    form = "as TFRecords of svilm.v1.Clip messages (protos/v1/clip.proto)"
    provenance = lineage.of_snapshot(manifest)
    return _document([manifest], about, form, distribution, sets, provenance)


def _document(
    manifests: Sequence[Manifest],
    about: About,
    form: str,
    distribution: list[Json],
    sets: list[Json],
    provenance: Json,
) -> bytes:
    records = sum(manifest.counts.records for manifest in manifests)
    sources = lineage.sources(manifests)
    described = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": about.name or sources,
        "description": f"{records:,} captioned clips of {sources}, with "
        f"{manifests[0].config.frames_per_clip} frames each, {form}.",
        "conformsTo": _CONFORMS_TO,
        "version": manifests[0].data_version,
        **({"license": about.license} if about.license else {}),
        "distribution": distribution,
        "recordSet": sets,
        **provenance,
        **lineage.responsible(manifests),
    }
    return json.dumps(described, indent=2, ensure_ascii=False).encode() + b"\n"


def _kind(entry: FileEntry) -> str:
    return _JSON if entry.name.endswith(".json") else _BYTES


def _object(entry: FileEntry, kind: str, beginning: str = "") -> Json:
    return {
        "@type": "cr:FileObject",
        "@id": entry.name,
        "name": entry.name,
        "contentUrl": beginning + entry.name,
        "contentSize": f"{entry.bytes} B",
        "encodingFormat": kind,
        "sha256": entry.sha256,
    }


def _file_set(name: str, kind: str, pattern: str, archives: Sequence[FileEntry] = ()) -> Json:
    """Return a set of files in archives, or of files in the folder of the description."""
    within = {"containedIn": [{"@id": entry.name} for entry in archives]} if archives else {}
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "encodingFormat": kind,
        "includes": pattern,
        **within,
    }
