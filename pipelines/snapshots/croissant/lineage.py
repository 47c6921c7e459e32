"""The origin of a data set: lineage in PROV-O, and what is known for responsible AI."""

import collections
import importlib.metadata
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.snapshots import build_options
from pipelines.sources.reject_reasons import REASONS
from pipelines.storage import storage
from protos import contract
from protos.v1.manifest_pb2 import Manifest

Json = dict[str, Any]

LIMITS = (
    "A clip is reduced to a fixed number of frames, without sound.",
    "Captions are those of the annotation files. Their truth was not checked.",
    "Noun phrases were found by software, and some are wrong or missing.",
    "Near duplicates across videos are kept.",
)


def sources(manifests: Sequence[Manifest]) -> str:
    """Return the names of the data sets' sources."""
    names = [
        name
        for manifest in manifests
        for name in (manifest.dataset, *(one.dataset for one in manifest.increments[1:]))
    ]
    return ", ".join(dict.fromkeys(names))


def of_snapshot(manifest: Manifest) -> Json:
    """Return a snapshot's lineage in PROV-O: annotation files, build, and an earlier version."""
    found: Json = {
        "prov:wasDerivedFrom": [
            {
                "@type": "prov:Entity",
                "name": file.name,
                "contentSize": f"{file.bytes} B",
                "sha256": file.sha256,
            }
            for file in manifest.annotations
        ],
        "prov:wasGeneratedBy": {
            "@type": "prov:Activity",
            "name": f"svilm-pipelines {'append' if manifest.increments else 'build'}",
            "identifier": [
                f"inputs sha256:{manifest.inputs_sha256}",
                f"options and software sha256:{manifest.config_sha256}",
            ],
            "prov:wasAssociatedWith": _software(manifest.versions),
        },
    }
    if earlier := _earlier(manifest):
        found["prov:wasRevisionOf"] = {
            "@type": "prov:Entity",
            "name": f"snapshot of {manifest.dataset}",
            **earlier,
        }
    return found


def _earlier(manifest: Manifest) -> Json:
    """Return what is known of a snapshot's earlier version; nothing if it has none."""
    found = {}
    if manifest.increments:
        found["identifier"] = f"manifest sha256:{manifest.increments[-1].previous_sha256}"
    if removed := len(manifest.removed_videos):
        found["description"] = f"{removed:,} videos were taken down since."
    return found


def of_export(of: Iterable[tuple[str, Manifest]], software: Iterable[str]) -> Json:
    """Return an export's lineage in PROV-O: its snapshots with their own lineage, and software.

    Args:
      of: folder and manifest of each snapshot.
      software: names of the packages that affect the exported bytes.

    Raises:
      OSError: a manifest cannot be read.
    """
    return {
        "prov:wasDerivedFrom": [
            {
                "@type": "prov:Entity",
                "name": f"snapshot of {manifest.dataset}",
                "version": manifest.data_version,
                "identifier": "manifest sha256:"
                + storage.sha256(os.path.join(folder, contract.MANIFEST_NAME)),
                **of_snapshot(manifest),
            }
            for folder, manifest in of
        ],
        "prov:wasGeneratedBy": {
            "@type": "prov:Activity",
            "name": "svilm-pipelines export",
            "prov:wasAssociatedWith": _software(
                {name: importlib.metadata.version(name) for name in software}
            ),
        },
    }


def _software(versions: Mapping[str, str]) -> list[Json]:
    return [
        {"@type": "prov:SoftwareAgent", "name": name, "version": version}
        for name, version in sorted(versions.items())
    ]


def responsible(manifests: Sequence[Manifest]) -> Json:
    """Return what is known for responsible AI: collection, processing, rejects and limits."""
    removed = sum(len(manifest.removed_videos) for manifest in manifests)
    return {
        "rai:dataCollection": collection(manifests),
        "rai:dataCollectionMissingData": missing(manifests),
        "rai:dataPreprocessingProtocol": [
            f"{name} {value}"
            for name, value in dict.fromkeys(
                option
                for manifest in manifests
                for part in (manifest.config, *(one.source for one in manifest.increments[1:]))
                for option in build_options.chosen(part).items()
            )
        ],
        "rai:dataLimitations": [*LIMITS],
        "rai:personalSensitiveInformation": [
            "Not examined. The videos and captions may show or name people."
        ],
        "rai:dataReleaseMaintenancePlan": "Videos are taken down in a new version. "
        f"{removed:,} were removed so far.",
    }


def collection(manifests: Sequence[Manifest]) -> str:
    """Return how the records were collected."""
    files = sum(len(manifest.annotations) for manifest in manifests)
    rows = sum(manifest.counts.rows for manifest in manifests)
    return (
        f"Spans of videos, annotated in {files:,} files of {sources(manifests)}. Each of {rows:,} "
        "rows became a record or a reject."
    )


def missing(manifests: Sequence[Manifest]) -> str:
    """Return which rows became no record, by reason."""
    counts: collections.Counter[str] = collections.Counter()
    for manifest in manifests:
        counts.update(manifest.counts.rejects)
    reasons = [
        f"{count:,} {reason} ({REASONS.get(reason, 'unknown reason')})"
        for reason, count in sorted(counts.items())
    ]
    return f"Rejected rows: {'; '.join(reasons) or 'none'}."
