"""Metadata for Hugging Face `datasets`: features, splits and the data set card."""

import json
import re
from collections.abc import Sequence
from typing import Any

from pipelines.formatting import format_bytes, printable
from pipelines.snapshots import fields
from pipelines.snapshots.croissant import lineage
from pipelines.snapshots.croissant.documents import About, Part
from pipelines.snapshots.fields import FIELDS, Field

NAME = "README.md"

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))
_SIZES += ((10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B"))
_SPDX_LIKE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")

_USE = """\
## Use

```python
from datasets import load_dataset

clips = load_dataset(FOLDER, split="{split}")
print(clips[0]["caption"], clips[0]["frames"])
```

`streaming=True` reads row group by row group. Any other reader of Parquet finds the files of the
frames in the column `frames`.
"""


def metadata(columns: Sequence[Field]) -> str:
    """Return the features as `datasets` reads them from the schema of a Parquet file."""
    features = {field.name: _feature(field) for field in columns}
    return json.dumps({"info": {"features": features}})


def _feature(field: Field) -> Any:
    if field.kind == fields.STRUCT:
        one: Any = {part.name: _feature(part) for part in field.parts}
    elif field.kind == fields.IMAGE:
        one = {"_type": "Image"}
    else:
        one = {"dtype": field.kind, "_type": "Value"}
    return [one] if field.repeated else one  # All versions of the library read a list.


def card(parts: Sequence[Part], about: About) -> bytes:
    """Return the data set card: metadata in YAML, and a description in Markdown.

    Args:
      parts: the splits.
      about: name and license of the data set.
    """
    name = about.name or lineage.sources([part.manifest for part in parts])
    sections = [
        _front_matter(parts, about, name),
        f"# {_text(name)}\n\n{_summary(parts)}",
        _USE.format(split=parts[0].name),
        _fields_table(),
        _origin(parts),
        _license(about),
    ]
    return "\n".join(sections).encode()


def _front_matter(parts: Sequence[Part], about: About, name: str) -> str:
    """Return the metadata. JSON values are YAML values, too, whatever their characters."""
    records = sum(part.manifest.counts.records for part in parts)
    size = next((label for maximum, label in _SIZES if records < maximum), "n>1B")
    found: dict[str, Any] = {
        **_license_fields(about.license),
        "pretty_name": printable(name),
        "size_categories": [size],
        "tags": ["video", "croissant"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": part.name, "path": f"{part.name}-*.parquet"} for part in parts
                ],
            }
        ],
        "dataset_info": {
            "features": [_yaml_feature(field) for field in FIELDS],
            "splits": [
                {
                    "name": part.name,
                    "num_bytes": part.bytes,
                    "num_examples": part.manifest.counts.records,
                }
                for part in parts
            ],
            "download_size": sum(entry.bytes for part in parts for entry in part.files),
            "dataset_size": sum(part.bytes for part in parts),
        },
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in found.items()]
    return "\n".join(["---", *lines, "---", ""])


def _license_fields(stated: str | None) -> dict[str, str]:
    """Return the metadata of a license: an identifier of the Hub, or "other" with its address.

    >>> _license_fields("CC-BY-4.0")
    {'license': 'cc-by-4.0'}
    >>> _license_fields("https://example.org/terms")
    {'license': 'other', 'license_name': 'other', 'license_link': 'https://example.org/terms'}
    >>> _license_fields("ask us first")
    {'license': 'other', 'license_name': 'ask us first'}
    """
    if stated is None:
        return {}
    if _SPDX_LIKE.fullmatch(stated):
        return {"license": stated.lower()}
    if stated.startswith(("https://", "http://")):
        return {"license": "other", "license_name": "other", "license_link": printable(stated)}
    return {"license": "other", "license_name": printable(stated)}


def _yaml_feature(field: Field) -> dict[str, Any]:
    parts = [_yaml_feature(part) for part in field.parts]
    kind = {"list" if field.repeated else "dtype": parts or field.kind}
    return {"name": field.name} | kind


def _summary(parts: Sequence[Part]) -> str:
    rows = [
        f"| {part.name} | {part.manifest.counts.records:,} | {len(part.files):,} "
        f"| {format_bytes(sum(entry.bytes for entry in part.files))} |"
        for part in parts
    ]
    lines = ["| split | clips | files | size |", "|---|---|---|---|", *rows]
    return "Captioned clips of videos, with their frames.\n\n" + "\n".join(lines) + "\n"


def _fields_table() -> str:
    lines = [f"| `{field.name}` | {_kind(field)} | {field.description} |" for field in FIELDS]
    return "\n".join(["## Fields", "", "| field | type | meaning |", "|---|---|---|", *lines, ""])


def _kind(field: Field) -> str:
    one = ", ".join(part.name for part in field.parts) or field.kind
    return f"list of {one}" if field.repeated else one


def _origin(parts: Sequence[Part]) -> str:
    manifests = [part.manifest for part in parts]
    lines = ["## Origin", "", lineage.collection(manifests), ""]
    lines += [
        "| split | version | sha256 of the inputs | sha256 of the build |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {part.name} | {_text(part.manifest.data_version)} "
        f"| `{_text(part.manifest.inputs_sha256)}` | `{_text(part.manifest.config_sha256)}` |"
        for part in parts
    ]
    lines += ["", lineage.missing(manifests)]
    lines += ["", "`croissant.json` has the files' hashes and the software.", "", "## Limits", ""]
    lines += [f"- {limit}" for limit in lineage.LIMITS]
    return "\n".join([*lines, ""])


def _license(about: About) -> str:
    stated = _text(about.license) if about.license else "Not stated."
    return f"## License\n\n{stated}\n"


def _text(text: str) -> str:
    r"""Return a text as Markdown of one line without markup.

    >>> print(_text("a *b* | c"))
    a \*b\* \| c
    """
    return re.sub(r"([\\`*_{}\[\]<>()#|!])", r"\\\1", printable(text))
