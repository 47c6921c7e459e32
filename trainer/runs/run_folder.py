"""Folder of a training run, with what is needed to continue and use the run.

config.json      the configuration; written last, so a folder with it has all three
vocab.txt        the WordPieces
tokenizer_config.json  the tokenizer's settings; earlier releases' runs lack it and lower-case text
data.json        the snapshot, and the sources of vocabulary and first parameters; its `start` lets
                 a run continue when the weights that it started from are gone; its `lineage` has
                 the folders of the snapshots and the run that it started from (lineage.py)
seen.bin         the videos that the run may have seen: trainer/runs/seen_clips.py
task.json        for a run of `svilm-train finetune`: {"name", "config", "classes",
                 "classes_from", "trained_on"}
metrics.jsonl, tensorboard/      trainer/training/metric_writer.py
bad_steps.jsonl  trainer/training/bad_step_report.py
skipped_clips.jsonl  trainer/training/skipped_clips.py
checkpoints/     trainer/runs/checkpoint.py
model.sig        trainer/runs/signing.py; only of a signed run
"""

import dataclasses
import hashlib
import json
import os
import re
from typing import Any, NamedTuple

from protos.strict_json import parse_object
from trainer.configs.config import Config
from trainer.configs.fields import build
from trainer.data.annotations import read_texts
from trainer.data.batches import check_suits
from trainer.data.folder import as_os_errors, in_bucket, read_file, write_file
from trainer.data.mixture import Mixture
from trainer.data.snapshot import Snapshot
from trainer.data.tokenizer import Tokenizer
from trainer.errors import UserError
from trainer.runs.run_path import RunPath

# Number of records to train a vocabulary on: ample for its size, and read in a minute.
VOCABULARY_RECORDS = 100_000


# Fields that a command may change when it continues a run. Some do not affect the parameters of a
# run without bad records and steps. The others, such as those for fewer devices or less memory,
# affect them only by rounding.
_MAY_CHANGE = re.compile(
    r"input\.on_corrupt|(log|checkpoint|skip|average|evaluate)_\w+|on_bad_step|spike\.\w+"
    r"|mesh\.\w+|compute\.(attention|remat|microbatches)"
)


_TASK = "task.json"


class RunError(UserError, RuntimeError):
    """A folder that is not a run, or a run that was started with other settings."""


class Origin(NamedTuple):
    """Source of a run's first parameters."""

    options: dict[str, str]  # the given folders or files, by option
    fields: dict[str, Any]  # configuration fields that they define, such as "text.width"
    identity: dict[str, str]  # hashes that identify their tensors
    step: int | None = None  # step of an earlier run's checkpoint

    def configure(self, config: Config) -> Config:
        """Set the configuration fields that the source defines.

        Raises:
          RunError: the fields do not fit the configuration.

        >>> Origin({"text": "bert"}, {"text.width": 312}, {}).configure(Config()).text.width
        312
        """
        values = dataclasses.asdict(config)
        try:
            for name, value in self.fields.items():
                *sections, field = name.split(".")
                inside = values
                for section in sections:
                    inside = inside.get(section)
                    if not isinstance(inside, dict):
                        raise ValueError(f"there is no {name}")
                inside[field] = value
            return build(Config, values)
        except ValueError as error:
            raise RunError(
                f"the fields set by the first parameters are invalid ({error}): check the run's "
                "data.json"
            ) from None


def read(folder: RunPath) -> tuple[Config, Tokenizer]:
    """Read the configuration and tokenizer that a run was started with.

    Raises:
      RunError: the folder is no run, or its configuration is damaged.
      VocabularyError: its vocabulary is damaged.
    """
    try:
        config = Config.from_json(read_file(folder / "config.json").decode())
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(
            f"{folder} is not a training run, it has no config.json: give a folder of "
            "`svilm-train pretrain --out`"
        ) from None
    except ValueError as error:
        raise RunError(
            f"{folder / 'config.json'} is damaged, or from another release of svilm: {error}"
        ) from None
    return config, Tokenizer.from_run(folder)


def read_task(folder: RunPath) -> dict[str, Any] | None:
    """Read the task.json of a fine-tuned run; None for a pre-trained run.

    Raises:
      RunError: the file is damaged.
    """
    try:
        task = parse_object(read_file(folder / _TASK))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(f"{folder / _TASK} is damaged: {error}") from None
    trained_on = task.get("trained_on", {"datasets": [], "videos": []})
    parts = trained_on if isinstance(trained_on, dict) else {}
    texts = {"classes": task.get("classes")}
    texts |= {f"trained_on.{name}": parts.get(name) for name in ("datasets", "videos")}
    wrong = [name for name, value in texts.items() if not _is_texts(value)]
    wrong += [
        name
        for name, kind in (("name", str), ("config", dict))
        if not isinstance(task.get(name), kind)
    ]
    if wrong:
        raise RunError(
            f"{folder / _TASK} is damaged: {wrong[0]} was edited or damaged; restore the file"
        )
    return task


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def read_origin(folder: RunPath, options: dict[str, str]) -> Origin | None:
    """Return the origin of a run to continue, if the options still name it.

    The run's checkpoints have what it took from the origin. The origin's files may be gone, or
    trained further.

    Args:
      folder: the run's folder, which may not exist.
      options: options of this command, as in `Origin`.

    Returns:
      The origin; None if there is no run to continue, or the options name another origin.

    Raises:
      RunError: data.json is damaged.
    """
    if not checkpoint_steps(folder / "checkpoints"):
        return None
    data = read_data(folder)
    started = data.get("start")
    if started is None:
        return None
    if not isinstance(started, dict) or not all(
        isinstance(started.get(part), dict) for part in ("options", "fields")
    ):
        raise RunError(f"{folder / 'data.json'} is damaged: its start has no options and fields")
    if started["options"] != options:
        return None
    identity = {name: value for name, value in data.items() if name.startswith("start.")}
    return Origin(options, started["fields"], identity)


def differing_fields(before: Config, after: Config) -> dict[str, Any]:
    """Return the fields that differ, by name, with the values of `after`.

    >>> differing_fields(Config(batch=8), Config(batch=16))
    {'batch': 16}
    """
    old, new = (_flat(dataclasses.asdict(config)) for config in (before, after))
    return {name: value for name, value in new.items() if old[name] != value}


def find_edited(
    folder: RunPath,
    config: Config,
    tokenizer: Tokenizer,
    saved: Config,
    vocabulary: Tokenizer,
    task: dict[str, Any] | None,
) -> tuple[str, str] | None:
    """Find a file of a run that was edited since a checkpoint was saved.

    Fields that a continued run may change are not compared.

    Args:
      folder: the run's folder.
      config: the configuration of the folder.
      tokenizer: the tokenizer of the folder.
      saved: the configuration of the checkpoint.
      vocabulary: the tokenizer of the checkpoint.
      task: the task of the checkpoint, if it has one.

    Returns:
      The file's name and its difference; None if no file was edited.

    Raises:
      RunError: task.json is damaged.
    """
    if differs := tokenizer.difference(vocabulary):
        line = differs.startswith("line ")
        return ("vocab.txt" if line else "tokenizer_config.json"), differs
    now = _flat(dataclasses.asdict(config))
    differing = [
        f"{name} is {now[name]}, but {value}"
        for name, value in differing_fields(config, saved).items()
        if not _MAY_CHANGE.fullmatch(name)
    ]
    if differing:
        return "config.json", "; ".join(differing)
    if task is not None and task != read_task(folder):
        return _TASK, "the task differs"
    return None


def start_or_continue(
    folder: RunPath,
    config: Config,
    mixture: Mixture,
    vocabulary: Tokenizer | None,
    origin: Origin,
    task: dict[str, Any] | None = None,
    *,
    steps: int,
) -> tuple[Config, Tokenizer]:
    """Create the run's folder, or check that its run was started with the same settings.

    Args:
      folder: the run's folder; created if missing.
      config: the requested configuration, with `text.vocabulary` the maximum number of pieces.
      mixture: the clips to train on.
      vocabulary: tokenizer of the text encoder; None trains one on the clips' captions.
      origin: origin of the first parameters.
      task: name, configuration and classes of a downstream task; None: pre-training.
      steps: number of steps of the whole run.

    Returns:
      The configuration with `text.vocabulary` the actual number of pieces, and the tokenizer.

    Raises:
      RunError: the folder's run was started with other settings; the message lists them.
      SnapshotError: a record is damaged, or the clips have too few frames for the model.
      ValueError: vocabulary or crop do not fit.
    """
    data = _data(config, mixture, given=vocabulary is not None) | origin.identity | _task(task)
    # A run without a checkpoint cannot be continued, and perhaps corrects a wrong setting.
    if checkpoint_steps(folder / "checkpoints"):
        return _continue(folder, config, data, vocabulary, steps)
    if (tokenizer := vocabulary) is None:
        texts = read_texts(mixture, VOCABULARY_RECORDS)
        tokenizer = Tokenizer.train(texts, config.text.vocabulary)
    config = _with_vocabulary(config, tokenizer, data)
    for snapshot in mixture.snapshots:
        check_suits(snapshot, tokenizer, config)
    if not in_bucket(folder):
        folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder / "vocab.txt", config.text.tokens)
    data["start"] = {"options": origin.options, "fields": origin.fields, "step": origin.step}
    write_data(folder, data)
    if task:
        _write_json(folder / _TASK, task)
    _write_json(folder / "config.json", dataclasses.asdict(config))
    return config, tokenizer


def _continue(
    folder: RunPath,
    config: Config,
    data: dict[str, Any],
    vocabulary: Tokenizer | None,
    steps: int,
) -> tuple[Config, Tokenizer]:
    started, tokenizer = read(folder)
    config = _scheduled_as(started, config, steps)
    if vocabulary and (differs := tokenizer.difference(vocabulary)):
        raise RunError(
            f"{folder} was started with another vocabulary than --vocabulary: its {differs} in "
            "the latter"
        )
    started_data = read_data(folder)
    for name in ("start", "seen", "lineage"):  # the command does not define these
        started_data.pop(name, None)
    config = _with_vocabulary(config, tokenizer, data)
    wanted = _flat(dataclasses.asdict(config)) | data
    had = _flat(dataclasses.asdict(started)) | started_data
    differing = [
        f"{name} was {had.get(name)}, now {wanted.get(name)}"
        for name in sorted(wanted.keys() | had.keys())
        if wanted.get(name) != had.get(name) and not _MAY_CHANGE.fullmatch(name)
    ]
    if differing:
        raise RunError(
            f"{folder} was started with another configuration: {'; '.join(differing)}. Repeat its "
            "command to resume it, or give another --out for a new run"
        )
    if config != started:
        _write_json(folder / "config.json", dataclasses.asdict(config))
    return config, tokenizer


def _scheduled_as(started: Config, config: Config, steps: int) -> Config:
    """Write the schedule in the started run's form, steps or a share, if both are equal."""
    before, now = started.cut_and_paste, config.cut_and_paste
    if before.first_step(steps) != now.first_step(steps):
        return config
    same = dataclasses.replace(now, from_share=before.from_share, from_step=before.from_step)
    return dataclasses.replace(config, cut_and_paste=same)


def checkpoint_steps(checkpoints: RunPath) -> list[int]:
    """Return the steps of the complete checkpoints in a folder, which may not exist.

    Raises:
      OSError: the folder cannot be listed.
    """
    if not in_bucket(checkpoints):
        return [int(path.name) for path in checkpoints.glob("*") if path.name.isdecimal()]
    # Folders in a bucket are not renamed: a checkpoint is complete once it has this file.
    with as_os_errors(os.fspath(checkpoints)):
        complete = [path.parent.name for path in checkpoints.glob("*/commit_success.txt")]
    return [int(name) for name in complete if name.isdecimal()]


def read_data(folder: RunPath) -> dict[str, Any]:
    """Read a run's data.json.

    Raises:
      RunError: the file is damaged.
      OSError: the file is missing, or cannot be read.
    """
    try:
        return parse_object(read_file(folder / "data.json"))
    except ValueError as error:
        raise RunError(f"{folder / 'data.json'} is damaged: {error}") from None


def write_data(folder: RunPath, data: dict[str, Any]) -> None:
    """Write a run's data.json."""
    _write_json(folder / "data.json", data)


def _write_json(path: RunPath, values: dict[str, Any]) -> None:
    write_file(path, json.dumps(values, indent=2).encode() + b"\n")


def _data(config: Config, mixture: Mixture, given: bool) -> dict[str, Any]:
    """Return the settings besides the configuration that affect the numbers of a run."""
    data: dict[str, Any] = {
        "vocabulary": "given" if given else f"trained, {config.text.vocabulary} pieces at most"
    }
    of_snapshots = zip(mixture.snapshots, mixture.selections, strict=True)
    for number, (snapshot, selection) in enumerate(of_snapshots, 1):
        name = "snapshot" if number == 1 else f"snapshot.{number}"
        data |= {f"{name}.{field}": value for field, value in snapshot_entry(snapshot).items()}
        if selection.columns:
            data[f"{name}.columns"] = selection.hashes()
    return data


def check_trained_on(folder: RunPath, snapshot: Snapshot) -> None:
    """Check that a run was trained on a snapshot.

    Raises:
      RunError: the run's data.json lists other snapshots, or is damaged.
    """
    try:
        data = read_data(folder)
    except OSError as error:
        raise RunError(
            f"{folder / 'data.json'} cannot be read: {error.strerror}: without it the run's "
            "training snapshots are unknown"
        ) from None
    entries = snapshot_entries(data)
    if snapshot_entry(snapshot) not in entries:
        known = ", ".join(str(entry["dataset"]) for entry in entries) or "no snapshot"
        raise RunError(
            f"{folder} was not trained on {snapshot.folder} ({snapshot.manifest.dataset}): its "
            f"data.json records {known} with another hash: give the run's training snapshot"
        )


def snapshot_entry(snapshot: Snapshot) -> dict[str, Any]:
    """Return what identifies a snapshot in data.json."""
    return {
        "dataset": snapshot.manifest.dataset,
        "inputs_sha256": snapshot.manifest.inputs_sha256,
        "config_sha256": snapshot.manifest.config_sha256,
        "records": len(snapshot),
    }


def snapshot_entries(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the `snapshot_entry` of each training snapshot of a data.json, in their order.

    >>> snapshot_entries({"snapshot.dataset": "x", "snapshot.records": 3})[0]["records"]
    3
    """
    names = [name.removesuffix(".records") for name in data if name.endswith(".records")]
    fields = ("dataset", "inputs_sha256", "config_sha256", "records")
    return [{field: data.get(f"{name}.{field}") for field in fields} for name in names]


def _task(task: dict[str, Any] | None) -> dict[str, Any]:
    """Return the data.json fields that identify a task's run."""
    if task is None:
        return {}
    classes = hashlib.sha256(json.dumps(task["classes"]).encode()).hexdigest()
    named = {"task": task["name"], "task.classes": f"{len(task['classes'])}, sha256 {classes}"}
    return named | _flat(task["config"], "task.")


def _with_vocabulary(config: Config, tokenizer: Tokenizer, data: dict[str, Any]) -> Config:
    """Set the text encoder's number of rows to that of the pieces, unless a checkpoint sets it."""
    pieces, rows = len(tokenizer.pieces), config.text.vocabulary
    if data.keys() & {"start.text", "start.run"}:
        if pieces > rows:
            raise ValueError(
                f"the vocabulary has {pieces:,} pieces, but the starting weights {rows:,}: give "
                "the vocabulary of the weights"
            )
        return config
    text = dataclasses.replace(config.text, vocabulary=len(tokenizer.pieces))
    return dataclasses.replace(config, text=text)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
