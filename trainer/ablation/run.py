"""The runner of a study: one process per step, each step run once.

OUT/VARIANT-seed0/ holds a run and its measurements. OUT/study.json records the command of each
finished step. The same study resumes where it stopped, and more variants, seeds or tasks add steps
to it. A step whose command changed is refused, since its results would belong to two studies.
OUT/snapshots.json identifies the snapshots of all steps: a snapshot that changed is refused too.
"""

import itertools
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from protos.strict_json import parse_object
from trainer import child_python
from trainer.ablation.measures import Measurement, Step
from trainer.ablation.variants import StudyError, Variant
from trainer.data.folder import write_file
from trainer.errors import ExitCode
from trainer.runs import run_lock

# The flag changes no figure, so the recorded command of a step leaves it out.
_ALLOW_SEEN = "--allow-seen"
_SNAPSHOTS = "snapshots.json"


class Study(NamedTuple):
    """The variants of a study, their seeds and their measurements."""

    variants: list[Variant]
    seeds: list[int]
    pretrain: tuple[str, ...]  # options of all variants
    measurements: list[Measurement]
    allow_seen: bool = False  # also measure on training videos
    logging: tuple[str, ...] = ()  # options of every step that change no result


def folder_name(variant: str, seed: int) -> str:
    """Return the folder of a variant and seed.

    >>> folder_name("contrast + grounding", 1)
    'contrast-grounding-seed1'
    """
    return f"{re.sub('[^A-Za-z0-9]+', '-', variant).strip('-')}-seed{seed}"


def steps(study: Study, out: pathlib.Path) -> Iterator[Step]:
    """Yield all steps, seed by seed, so that the first seed's table is complete early."""
    for seed in study.seeds:
        for variant in study.variants:
            name = folder_name(variant.name, seed)
            of_run = ["--set", f"seed={seed}", "--out", str(out / name / "run")]
            yield Step(f"{name}/pretrain", ["pretrain", *study.pretrain, *variant.options, *of_run])
            for measurement in study.measurements:
                for step in measurement.steps(out / name, seed):
                    yield Step(f"{name}/{step.name}", step.arguments)


def run(study: Study, out: pathlib.Path) -> str | None:
    """Run the steps that are not done yet.

    Returns:
      The name of the step that a signal stopped, after it saved. None if all steps are done.

    Raises:
      StudyError: the folder holds another study, or a step failed.
      SeenError: a variant would be measured on videos that it is trained on. No step has run.
      LockedError: another command is writing to the folder.
    """
    with run_lock.held(out, "study"):
        return _run(study, out)


def _run(study: Study, out: pathlib.Path) -> str | None:
    _check_folders(study.variants)
    record = out / "study.json"
    done: dict[str, list[str]] = {}
    if record.exists():
        try:
            done = parse_object(record.read_bytes())
        except ValueError as error:
            raise StudyError(f"{record} is damaged: {error}") from None
    planned = list(steps(study, out))
    for step in planned:
        if step.name in done and _without_allowed(done[step.name]) != step.arguments:
            raise StudyError(
                f"{out}: {step.name} was done with {shlex.join(done[step.name])!r}, not "
                f"{shlex.join(step.arguments)!r}: give another --out for another ablation"
            )
    _check_snapshots(planned, out / _SNAPSHOTS)
    if not study.allow_seen and any(step.name not in done for step in planned):
        _check_unseen(study)
    for place, step in enumerate(planned):
        if step.name in done:
            continue
        measures = step.arguments[0] in ("evaluate", "localise")
        command = step.arguments + ([_ALLOW_SEEN] if study.allow_seen and measures else [])
        command = [*command, *study.logging]
        print(
            f"study: {place + 1} of {len(planned)}: svilm-train {shlex.join(command)}",
            flush=True,
        )
        status = _svilm_train(command)
        if status in (ExitCode.RUN_AGAIN, -signal.SIGINT, -signal.SIGTERM):
            return step.name
        if status:
            raise StudyError(
                f"{step.name} failed with exit status {status}: see its message above, correct "
                "the cause, and run the same command again, which resumes here"
            )
        done[step.name] = step.arguments
        write_file(record, json.dumps(done, indent=2).encode() + b"\n")
    return None


def _check_folders(variants: Sequence[Variant]) -> None:
    """Refuse variants that would share a folder: the second would get the first one's figures."""
    by_folder: dict[str, str] = {}
    for variant in variants:
        folder = folder_name(variant.name, 0)
        if folder == folder_name("", 0):
            raise StudyError(f"the name {variant.name!r} must have an ASCII letter or digit")
        if (other := by_folder.setdefault(folder, variant.name)) != variant.name:
            raise StudyError(
                f"the names {other!r} and {variant.name!r} differ only in characters other than "
                "ASCII letters and digits: give names with different letters or digits"
            )


def _check_snapshots(planned: Sequence[Step], record: pathlib.Path) -> None:
    """Refuse a snapshot that is another one than when the study began; record new ones."""
    from trainer.data.snapshot import Snapshot, SnapshotError

    known = read_snapshots(record.parent)
    for step in planned:
        for option, folder in itertools.pairwise(step.arguments):
            if option != "--snapshot":
                continue
            try:
                manifest = Snapshot.open(folder).manifest_sha256
            except SnapshotError:  # the step itself says what is wrong with it
                continue
            if known.setdefault(folder, manifest) != manifest:
                raise StudyError(
                    f"{folder} is another snapshot than when the study in {record.parent} began "
                    f"(manifest sha256 {manifest[:12]}, not {known[folder][:12]}): give another "
                    "--out"
                )
    write_file(record, json.dumps(known, indent=2).encode() + b"\n")


def read_snapshots(out: pathlib.Path) -> dict[str, str]:
    """Return the sha256 of the manifest of each snapshot in a study, by its folder.

    Raises:
      StudyError: the record is damaged.
    """
    record = out / _SNAPSHOTS
    if not record.exists():
        return {}
    try:
        return {
            folder: str(manifest) for folder, manifest in parse_object(record.read_bytes()).items()
        }
    except ValueError as error:
        raise StudyError(f"{record} is damaged: {error}") from None


def _without_allowed(words: list[str]) -> list[str]:
    """Return a recorded command without --allow-seen, which earlier releases recorded.

    >>> _without_allowed(["evaluate", "--run", "a", "--allow-seen"])
    ['evaluate', '--run', 'a']
    """
    return words[:-1] if words[-1:] == [_ALLOW_SEEN] else words


def _check_unseen(study: Study) -> None:
    """Refuse, before the first step, what `evaluate` would refuse after days of training."""
    from trainer.data.snapshot import Snapshot
    from trainer.runs import seen_clips

    for variant in study.variants:
        words = zip(variant.options, variant.options[1:], strict=False)
        of_variant = [value for option, value in words if option == "--snapshot"]
        for measurement in study.measurements:
            train = of_variant + ([measurement.train] if measurement.train else [])
            known = seen_clips.gather(Snapshot.open(folder) for folder in train)
            seen_clips.refuse(
                seen_clips.overlap(known, Snapshot.open(measurement.test)), allowed=False
            )


def _svilm_train(arguments: Sequence[str]) -> int:
    """Run a command in a child process and return its exit status.

    The child receives SIGINT and SIGTERM, and saves before it ends.
    """
    command = child_python.command("trainer.ablation.step_process")
    child = subprocess.Popen([*command, str(os.getpid()), *arguments])
    answers = {
        signal.SIGINT: lambda *_: None,  # the terminal sends it to the child too
        signal.SIGTERM: lambda *_: child.terminate(),
    }
    before = {number: signal.signal(number, answer) for number, answer in answers.items()}
    try:
        return child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def figures(study: Study, out: pathlib.Path) -> dict[str, dict[str, list[float]]]:
    """Return the figures by variant and measure, one value per seed."""
    measures = [measure for measurement in study.measurements for measure in measurement.measures]
    return {
        variant.name: {
            measure.name: [
                measure.read(out / folder_name(variant.name, seed)) for seed in study.seeds
            ]
            for measure in measures
        }
        for variant in study.variants
    }
