"""Sphinx extension: reference pages generated from parsers, dataclasses, schemas and tables.

Each page of docs/reference includes one file of docs/generated, which this extension writes before
Sphinx reads the sources. So no option, field or code is copied by a person.
"""

import pathlib
from collections.abc import Callable
from typing import Any

from reference import api, codes, commands, configuration, schemas

PAGES: dict[str, Callable[[], str]] = {
    "svilm-pipelines": commands.pipelines,
    "svilm-train": commands.trainer,
    "configuration": configuration.page,
    "presets": configuration.presets,
    "tasks": configuration.tasks,
    "clip": lambda: schemas.page("protos/v1/clip.proto"),
    "manifest": lambda: schemas.page("protos/v1/manifest.proto"),
    "sequence_example": lambda: schemas.page("protos/v1/sequence_example.proto"),
    "rejects": codes.rejects,
    "exit_codes": codes.exit_codes,
    "run_files": codes.run_files,
    "feature_files": codes.feature_files,
    "column_files": codes.column_files,
    "index_files": codes.index_files,
    "api": api.page,
}


def write(folder: pathlib.Path) -> None:
    """Write each generated page that differs from the file in the folder."""
    folder.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        text, path = make(), folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, Any]:
    """Register the extension."""
    app.connect("builder-inited", lambda app: write(pathlib.Path(app.srcdir) / "generated"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
