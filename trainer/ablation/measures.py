"""The measurements of a study: commands to run and figures to read from their results."""

import math
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from protos.strict_json import parse_object
from trainer.ablation.variants import StudyError


class Step(NamedTuple):
    """A command that is run once."""

    name: str
    arguments: list[str]  # for svilm-train


class Measure(NamedTuple):
    """A column of a study's table. Higher is better."""

    name: str
    file: str  # relative to the folder of a variant and seed
    path: tuple[str | int, ...]  # keys of the figure in that file's JSON

    def read(self, folder: pathlib.Path) -> float:
        """Return the figure.

        Raises:
          StudyError: the file lacks the figure, or the figure is not a finite number.
        """
        try:
            value: Any = parse_object((folder / self.file).read_bytes())
        except ValueError as error:
            raise StudyError(f"{folder / self.file} is damaged: {error}") from None
        try:
            for key in self.path:
                value = value[key]
        except (KeyError, IndexError, TypeError):
            value = None
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            where = ".".join(map(str, self.path))
            raise StudyError(
                f"{folder / self.file} has no finite number {where} for {self.name}: run the "
                "ablation again with another --out"
            )
        return float(value)


class Measurement(NamedTuple):
    """The measurement of each pre-trained run, such as OUT/VARIANT-seed0/run."""

    steps: Callable[[pathlib.Path, int], Iterator[Step]]  # from a variant's folder and a seed
    measures: list[Measure]
    test: str  # the test snapshot
    train: str | None = None  # the task's training snapshot


_EVALUATION = "evaluation.json"

# Measures without training for the task, by the names of --task.
ZERO_SHOT = {
    "retrieval": [
        Measure(f"{way} {recall}", _EVALUATION, ("zero_shot", way, recall))
        for way, recall in (("t2v", "R@1"), ("t2v", "R@5"), ("v2t", "R@1"))
    ],
    "pointing": [Measure("pointing", _EVALUATION, ("grounding", "pointing_accuracy"))],
    "windows": [Measure("windows", _EVALUATION, ("temporal", "window_accuracy"))],
}

# Figures of the paper's tables for each fine-tuned task, in percent.
_FINETUNED = {
    "retrieval": {"t2v R@1": ("t2v", "R@1")},
    "qa": {"accuracy": ("accuracy",)},
    "action": {"top-1": ("top1",)},
    "spatiotemporal": {"mAP": ("official",)},
}


def zero_shot(test: str, truth: str | None, tasks: Sequence[str]) -> Measurement:
    """Return the measurement by `svilm-train evaluate` on a snapshot.

    Args:
      test: the snapshot.
      truth: the objects of its clips, a JSON Lines file, or None.
      tasks: keys of ZERO_SHOT. Empty: all, but "pointing" only with `truth`.
    """
    tasks = tasks or [task for task in ZERO_SHOT if task != "pointing" or truth]

    def steps(folder: pathlib.Path, seed: int) -> Iterator[Step]:
        on = ["--snapshot", test, *(["--truth", truth] if truth else [])]
        out = ["--out", str(folder / _EVALUATION)]
        yield Step("evaluate", ["evaluate", "--run", str(folder / "run"), *on, *out])

    found = [one for task in dict.fromkeys(tasks) for one in ZERO_SHOT[task]]
    return Measurement(steps, found, test)


def finetuned(asked: str) -> Measurement:
    """Return the measurement by `finetune` on one snapshot and `evaluate --task` on another.

    Args:
      asked: TASK=PRESET,TRAIN,TEST.

    Raises:
      StudyError: `asked` has another form.

    >>> measurement = finetuned("qa=msvd-qa,snapshots/train,snapshots/test")
    >>> for step in measurement.steps(pathlib.Path("all-seed0"), 0):
    ...     print(" ".join(step.arguments))  # doctest: +NORMALIZE_WHITESPACE
    finetune --task qa --preset msvd-qa --run all-seed0/run --snapshot snapshots/train
      --set seed=0 --out all-seed0/qa-msvd-qa-test
    evaluate --task qa --run all-seed0/qa-msvd-qa-test --snapshot snapshots/test
      --out all-seed0/qa-msvd-qa-test.json
    """
    task, equals, rest = asked.partition("=")
    parts = rest.split(",")
    if task not in _FINETUNED or not equals or len(parts) != 3 or not all(parts):
        raise StudyError(
            f"--finetune {asked!r} must be TASK=PRESET,TRAIN,TEST, with TASK one of "
            f"{', '.join(_FINETUNED)}"
        )
    preset, train, test = parts
    name = _name(task, preset, test)

    def steps(folder: pathlib.Path, seed: int) -> Iterator[Step]:
        run, tuned = str(folder / "run"), str(folder / name)
        on = ["--run", run, "--snapshot", train, "--set", f"seed={seed}", "--out", tuned]
        yield Step(f"finetune {name}", ["finetune", "--task", task, "--preset", preset, *on])
        on = ["--run", tuned, "--snapshot", test, "--out", f"{tuned}.json"]
        yield Step(f"evaluate {name}", ["evaluate", "--task", task, *on])

    found = _FINETUNED[task].items()
    columns = [Measure(f"{name} {what}", f"{name}.json", path) for what, path in found]
    return Measurement(steps, columns, test, train)


def localised(asked: str) -> Measurement:
    """Return the measurement by `embed` of two snapshots and `localise` on their features.

    Args:
      asked: PRESET,TRAIN,TEST,TRUTH, where TRUTH is ActivityNet's JSON file.

    Raises:
      StudyError: `asked` has another form.

    >>> measurement = localised("shapes,train,test,anet.json")
    >>> [step.name for step in measurement.steps(pathlib.Path("all-seed0"), 0)]
    ['embed localise-shapes-test train', 'embed localise-shapes-test test', 'localise-shapes-test']
    """
    parts = asked.split(",")
    if len(parts) != 4 or not all(parts):
        raise StudyError(f"--localise {asked!r} must be PRESET,TRAIN,TEST,TRUTH")
    preset, train, test, truth = parts
    name = _name("localise", preset, test)

    def steps(folder: pathlib.Path, seed: int) -> Iterator[Step]:
        features = {"train": str(folder / name / "train"), "test": str(folder / name / "test")}
        for split, snapshot in (("train", train), ("test", test)):
            on = ["--run", str(folder / "run"), "--snapshot", snapshot, "--feature", "groups"]
            yield Step(f"embed {name} {split}", ["embed", *on, "--out", features[split]])
        on = ["--features", features["train"], "--test-features", features["test"]]
        out = ["--truth", truth, "--set", f"seed={seed}", "--out", str(folder / name / "head")]
        yield Step(name, ["localise", "--preset", preset, *on, *out])

    path = ("sets", 0, "average_mAP")
    columns = [Measure(f"{name} mAP", f"{name}/head/figures.json", path)]
    return Measurement(steps, columns, test, train)


def _name(task: str, preset: str, test: str) -> str:
    """Return the name of a column and a folder.

    It contains the test snapshot's name, since each split of a task has its own snapshot.
    """
    place = pathlib.PurePosixPath(test).name
    return re.sub("[^A-Za-z0-9._-]+", "-", f"{task}-{preset}-{place}")
