"""Runs a study: one process a step, each of which is done once.

OUT/VARIANT-seed0/ has a run and what was measured of it; OUT/study.json says with which command
each of its steps was done. The same study again goes on where it stopped, and one of more variants,
seeds or tasks adds to it; a step whose command changed is refused, for its results would be of two
studies.
"""

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
from trainer.runs import run_lock

# What is allowed changes no figure, so it is no part of what a step was done with.
_ALLOW_SEEN = "--allow-seen"


class Study(NamedTuple):
    """What is run: each variant with each seed, each measured alike."""

    variants: list[Variant]
    seeds: list[int]
    pretrain: tuple[str, ...]  # options that all variants share
    measurements: list[Measurement]
    allow_seen: bool = False  # measures also on videos that were trained on


def folder_name(variant: str, seed: int) -> str:
    """A variant's folder.

    >>> folder_name("contrast + grounding", 1)
    'contrast-grounding-seed1'
    """
    return f"{re.sub('[^A-Za-z0-9]+', '-', variant).strip('-')}-seed{seed}"


def steps(study: Study, out: pathlib.Path) -> Iterator[Step]:
    """All commands, variant by variant within a seed, so that the first seed's table is early."""
    for seed in study.seeds:
        for variant in study.variants:
            name = folder_name(variant.name, seed)
            of_run = ["--set", f"seed={seed}", "--out", str(out / name / "run")]
            yield Step(f"{name}/pretrain", ["pretrain", *study.pretrain, *variant.options, *of_run])
            for measurement in study.measurements:
                for step in measurement.steps(out / name, seed):
                    yield Step(f"{name}/{step.name}", step.arguments)


def run(study: Study, out: pathlib.Path) -> str | None:
    """Does what is not done yet.

    Returns:
      The step that a signal stopped, which saved what it had; None if all is done.

    Raises:
      StudyError: the folder's study was another one, or a step failed.
      SeenError: a variant would be measured on videos that it is trained on; nothing is trained.
      LockedError: another command is writing to the folder.
    """
    with run_lock.held(out, "study"):
        return _run(study, out)


def _run(study: Study, out: pathlib.Path) -> str | None:
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
                f"{shlex.join(step.arguments)!r}: use another --out for another study"
            )
    if not study.allow_seen and any(step.name not in done for step in planned):
        _check_unseen(study)
    for place, step in enumerate(planned):
        if step.name in done:
            continue
        measures = step.arguments[0] in ("evaluate", "localise")
        command = step.arguments + ([_ALLOW_SEEN] if study.allow_seen and measures else [])
        print(
            f"study: {place + 1} of {len(planned)}: svilm-train {shlex.join(command)}",
            flush=True,
        )
        status = _svilm_train(command)
        if status in (os.EX_TEMPFAIL, -signal.SIGINT, -signal.SIGTERM):
            return step.name
        if status:
            raise StudyError(
                f"{step.name} failed with exit status {status}: see above; once that is mended, "
                "the same command goes on from here"
            )
        done[step.name] = step.arguments
        unfinished = record.with_name(".study.json.unfinished")
        unfinished.write_text(json.dumps(done, indent=2) + "\n", encoding="utf-8")
        unfinished.replace(record)
    return None


def _without_allowed(words: list[str]) -> list[str]:
    """A recorded command without --allow-seen, which earlier releases recorded.

    >>> _without_allowed(["evaluate", "--run", "a", "--allow-seen"])
    ['evaluate', '--run', 'a']
    """
    return words[:-1] if words[-1:] == [_ALLOW_SEEN] else words


def _check_unseen(study: Study) -> None:
    """Asks before the first step what `evaluate` would refuse after days of training."""
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
    """Runs a command in a process of its own, which learns of signals and saves before it ends."""
    child = subprocess.Popen([*child_python.command("trainer"), *arguments])
    answers = {
        signal.SIGINT: lambda *_: None,  # the terminal tells the child as well
        signal.SIGTERM: lambda *_: child.terminate(),
    }
    before = {number: signal.signal(number, answer) for number, answer in answers.items()}
    try:
        return child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def figures(study: Study, out: pathlib.Path) -> dict[str, dict[str, list[float]]]:
    """By variant and measure, a value a seed."""
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
