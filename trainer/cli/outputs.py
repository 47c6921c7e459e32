"""Files and folders that commands write, checked before the work begins.

No command may write over one of its inputs, nor over what another command wrote: a run, a snapshot,
features, an index, a trained localisation model, a study, figures, or an exported model or its
weights.
"""

import argparse
import contextlib
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from trainer.data.folder import in_bucket, replacing
from trainer.errors import UserError


class OutputError(UserError, RuntimeError):
    """A file that cannot be written, or that the command cannot use."""


class _Kind(NamedTuple):
    """The contents of a folder that a command wrote."""

    marks: tuple[tuple[str, ...], ...]  # patterns; a folder that matches all of one tuple is one
    names: str  # regular expression of the names that belong to it


RUN, FEATURES, EXPORT = "a run", "features", "an encoder's weights"
MODEL, STABLEHLO, ONNX = "a Hugging Face model", "StableHLO programs", "ONNX programs"
INDEX = "an index"
LOCALISATION, STUDY, FIGURES = "a localisation model", "a study", "figures"

_KINDS = {
    RUN: _Kind(
        (("data.json", "vocab.txt"), ("config.json", "checkpoints")),
        r"(config|tokenizer_config|data|task)\.json|vocab\.txt|seen\.bin|model\.sig"
        r"|(metrics|bad_steps|skipped_clips)\.jsonl|checkpoints|tensorboard|profile",
    ),
    "a checkpoint": _Kind((("config/metadata", "params/*"),), r".*"),
    "a snapshot": _Kind(
        (("manifest.json", "shard-*"), ("plan.json", "shard-*")),
        r".*",  # its manifest lists all its files
    ),
    FEATURES: _Kind(
        (("features.json",), (".made_from.json",), ("features-*.safetensors",)),
        r"features\.json|\.made_from\.json|features-.*\.safetensors",
    ),
    INDEX: _Kind(
        (("index.json", "data-*"), (".index.json",)),
        r"index\.json|\.index\.json|data-.*",
    ),
    LOCALISATION: _Kind(
        (("localisation.json",),),
        r"(localisation|predictions|figures)\.json|model\.safetensors|metrics\.jsonl|checkpoints",
    ),
    STUDY: _Kind((("study.json",),), r"(study|figures|snapshots)\.json|table\.md|study\.png"),
    FIGURES: _Kind(
        (("groups.png", "figures.json"),),
        r"figures\.json|nouns-[0-9]+\.(png|gif)|(windows|groups)\.png",
    ),
    MODEL: _Kind(
        (("config.json", "modeling_svilm.py"),),
        r"((|processor_|tokenizer_)config|modules|config_sentence_transformers)\.json|vocab\.txt"
        r"|seen\.bin|README\.md|\w+_svilm\.py|model\.safetensors",
    ),
    ONNX: _Kind(
        (("programs.json", "video.onnx"),),
        r"(programs|tokenizer_config)\.json|vocab\.txt|(video|text)\.onnx(\.data)?",
    ),
    STABLEHLO: _Kind(
        (("programs.json", "video.stablehlo"),),
        r"(programs|tokenizer_config)\.json|vocab\.txt|model\.safetensors|(video|text)\.stablehlo",
    ),
    EXPORT: _Kind(
        (("config.json", "model*.safetensors"),),
        r"(|(video_)?preprocessor_|tokenizer_)config\.json|(vocab|merges)\.txt|tokenizer\.json"
        r"|model.*\.safetensors(\.index\.json)?",
    ),
}

# The options of all commands that name a file or folder to read, and those that name one to write.
_READ = (
    *(
        "run",
        "index",
        "like",
        "from",
        "earlier_run",
        "control",
        "beside",
        "snapshot",
        "train_snapshot",
        "eval_snapshot",
        "videos",
        "values",
    ),
    *("truth", "metrics", "predictions", "boxes", "answers"),
    *("features", "test_features", "class_scores", "column"),
)
_WRITTEN = (
    *("out", "write_predictions", "json", "heat_maps"),
    *("write_ids", "write_clusters", "sheet"),
)


def check_folder(arguments: argparse.Namespace, option: str, kind: str) -> None:
    """Refuse a folder to write that is an input, or that holds another kind of thing.

    Folders in buckets, which only runs may be, are not checked.

    Args:
      arguments: the command's arguments.
      option: the name of the folder's argument.
      kind: the kind of thing that the command writes, a key of `_KINDS`.

    Raises:
      OutputError: the folder is refused. Nothing was written.
    """
    folder = os.fspath(getattr(arguments, option))
    if in_bucket(folder):
        return
    path = pathlib.Path(folder)
    held = _held(path)
    if held and kind not in held:
        raise OutputError(f"{folder} contains {held[0]}, not {kind}: give another folder")
    _check_path(arguments, option, path)


@contextlib.contextmanager
def output_file(
    arguments: argparse.Namespace, option: str = "out"
) -> Iterator[pathlib.Path | None]:
    """Yield a temporary file that becomes an option's file if the command succeeds.

    The file is created first, so that a path that cannot be written fails before the work begins.

    Args:
      arguments: the command's arguments.
      option: the name of the file's argument. If that is None, None is yielded.

    Raises:
      OutputError: the file is in a bucket, is an input, belongs to what another command wrote, or
        cannot be written.
    """
    out = getattr(arguments, option)
    if out is None:
        yield None
        return
    if in_bucket(out):
        raise OutputError(f"{out} is in a bucket: give a local file, and copy it to the bucket")
    path = pathlib.Path(out)
    if path.is_dir():
        raise OutputError(f"{out} is a folder: give a file")
    _check_path(arguments, option, path)
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = stack.enter_context(replacing(path))
            unfinished.touch()
        except OSError as error:
            raise OutputError(
                f"{out} cannot be written ({error.strerror}): give another --{_dashed(option)}"
            ) from error
        yield unfinished


def _check_path(arguments: argparse.Namespace, option: str, path: pathlib.Path) -> None:
    """Refuse a path that another option names, or that belongs to what holds its folder."""
    for name in (*_READ, *_WRITTEN):
        given: Any = None if name == option else getattr(arguments, name, None)
        several = given if isinstance(given, list) else [] if given is None else [given]
        for other in several:
            if _overwrites(path, pathlib.Path(other)):
                raise OutputError(
                    f"{path} would overwrite the input --{_dashed(name)}: give another "
                    f"--{_dashed(option)}"
                )
    place = path.parent.resolve() / path.name
    for folder in place.parents:
        within = place.relative_to(folder).parts[0]
        for kind, about in _KINDS.items():
            if re.fullmatch(about.names, within) and kind in _held(folder):
                raise OutputError(
                    f"{path} would overwrite {within} of {folder}, which contains {kind}: give "
                    f"another --{_dashed(option)}"
                )


def _overwrites(path: pathlib.Path, other: pathlib.Path) -> bool:
    """Return whether a path is an input, or an existing file of a folder of inputs."""
    try:
        if path.resolve() == other.resolve() or (path.exists() and path.samefile(other)):
            return True
        # Folders that commands wrote list the names that belong to them in `_KINDS`.
        return path.is_file() and path.parent.samefile(other) and not _held(other)
    except OSError:  # the input is not there: the command says so
        return False


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _held(folder: pathlib.Path) -> list[str]:
    """Return the kinds of things that a folder holds."""
    return [
        name
        for name, kind in _KINDS.items()
        if any(all(any(folder.glob(one)) for one in marks) for marks in kind.marks)
    ]
