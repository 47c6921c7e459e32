"""Record sets of a Croissant description: the fields of the records, and their source."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipelines.snapshots import fields
from pipelines.snapshots.fields import Field

Json = dict[str, Any]

CLIPS, SPLITS = "clips", "splits"
_TYPES = {
    fields.STRING: "sc:Text",
    fields.INT64: "cr:Int64",
    fields.INT32: "cr:Int32",
    fields.FLOAT32: "cr:Float32",
    fields.IMAGE: "sc:ImageObject",
}


def of_columns(files: str, columns: Iterable[Field], split: Json | None = None) -> Json:
    """Return the record set of clips whose fields are columns of the file set `files`.

    Args:
      files: id of the file set.
      columns: the fields.
      split: what the field of the split has: its source, or its value; None: no such field.
    """

    def source(path: Sequence[str]) -> Json:
        column, *rest = path
        found: Json = {"fileSet": {"@id": files}, "extract": {"column": column}}
        return found | ({"transform": {"jsonPath": rest[0]}} if rest else {})

    found = [_field(CLIPS, field, source) for field in columns]
    if split is not None:
        found.append(_plain(CLIPS, "split", "sc:Text", "Split of the clip.", split))
    return _record_set(CLIPS, "Clips.", found) | {"key": {"@id": f"{CLIPS}/clip_id"}}


def of_names(files: str) -> Json:
    """Return the source of the split that begins the names of Parquet files."""
    regex = r"^(\w+)-(?:i\d+-)?\d+-of-\d+\.parquet$"
    return {"source": _source(files, "filename", {"regex": regex})}


def of_files(name: str, files: str, suffix: str) -> Json:
    """Return the record set of frames that are files, named by key, number and suffix."""

    def named(part: str, description: str, regex: str) -> Json:
        source = _source(files, "filename", {"regex": regex})
        return _plain(name, part, "sc:Text", description, {"source": source})

    image = _plain(name, "image", "sc:ImageObject", "Frame.", {"source": _source(files, "content")})
    key = named("key", "Key of the sample.", rf"^([^.]*)\.\d+\.{suffix}$")
    number = named("number", "Number of the frame.", rf"^[^.]*\.(\d+)\.{suffix}$")
    return _record_set(name, "Frames.", [key, number, image])


def of_splits(parts: Sequence[str]) -> Json:
    """Return the record set of the splits, which has the data itself."""
    field = {"@type": "cr:Field", "@id": f"{SPLITS}/name", "name": "name", "dataType": "sc:Text"}
    return _record_set(SPLITS, "Splits of the data set.", [field]) | {
        "dataType": "cr:Split",
        "key": {"@id": f"{SPLITS}/name"},
        "data": [{f"{SPLITS}/name": part} for part in parts],
    }


def _field(
    parent: str, field: Field, source: Callable[[Sequence[str]], Json], path: Sequence[str] = ()
) -> Json:
    own = (*path, field.name)
    found: Json = {
        "@type": "cr:Field",
        "@id": f"{parent}/{field.name}",
        "name": field.name,
        "description": field.description,
    }
    if field.repeated:
        found |= {"isArray": True, "arrayShape": "-1"}
    if field.kind == fields.STRUCT:
        parts = [_field(found["@id"], part, source, own) for part in field.parts]
        return found | {"subField": parts}
    if field.kind == fields.IMAGE:
        # mlcroissant decodes a list of images only if it is also declared in the older way.
        found["repeated"] = True
        own = (*own, "bytes")
    return found | {"dataType": _TYPES[field.kind], "source": source(own)}


def _plain(parent: str, name: str, kind: str, description: str, origin: Json) -> Json:
    return {
        "@type": "cr:Field",
        "@id": f"{parent}/{name}",
        "name": name,
        "description": description,
        "dataType": kind,
        **origin,
    }


def _source(files: str, file_property: str, transform: Any = None) -> Json:
    found: Json = {"fileSet": {"@id": files}, "extract": {"fileProperty": file_property}}
    return found | ({"transform": transform} if transform else {})


def _record_set(name: str, description: str, found: list[Json]) -> Json:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": description,
        "field": found,
    }
