"""The downstream benefit of pre-training: each task on Shapes, against a random encoder and chance.

It trains heads on the demo's checkpoint, and on the same model with fresh parameters. The data is
Shapes in the forms of MSR-VTT, MSRVTT-QA, UCF101, ActivityNet and AVA, and the metrics follow
those benchmarks' rules. The test scenes are the demo's test split, which its checkpoint has not
seen. It writes benchmarks/results/tasks.json and prints the README's table. Each command resumes
after an interruption, so this program does too.

    python benchmarks/demo.py && python benchmarks/tasks.py
    python benchmarks/tasks.py --only qa qa-end-to-end    # other figures stay as they are
"""

import argparse
import collections
import json
import pathlib
import random
import shlex
import statistics
import subprocess
import sys
from typing import Any, NamedTuple

_SCRIPTS = pathlib.Path(sys.executable).parent
_RESULTS = pathlib.Path(__file__).parent / "results" / "tasks.json"
_FRAMES = ("--frames", "12", "--short-side", "64", "--workers", "2")
_SEEDS = 3  # number of seeds of heads, random encoders and random scores
_SPLITS = ("1", "2", "3")
_ENCODERS = {"random": ("--random-encoder",), "pre-trained": ()}


class Row(NamedTuple):
    """A row of the table: a task's training options and its reported figure."""

    name: str
    task: str
    options: tuple[str, ...]  # options of `finetune`
    figure: tuple[str, ...]  # keys in the JSON of `evaluate`
    boxes: str | None = None  # AVA file for `evaluate --boxes`; None passes none
    run: str | None = None  # row whose run it measures; None trains its own
    seeds: int = _SEEDS  # number of runs
    splits: tuple[str, ...] = ("",)  # splits, each trained and tested separately


_QUESTIONS_END_TO_END = tuple(
    f"--set={setting}"
    for setting in (
        "task.frozen=false",
        "optimizer.name=muon",
        "optimizer.learning_rate=2e-3",
        "epochs=2",
        # Each word of a caption is one piece. Words of questions have many, so questions are
        # longer.
        "text.tokens=24",
        "text.positions=24",
    )
)
_FROZEN_BOXES = (
    "--set=task.frozen=true",
    "--set=optimizer.name=adamw",
    "--set=optimizer.learning_rate=1e-2",
)
ROWS = (
    Row("retrieval", "retrieval", ("--preset", "shapes"), ("t2v", "R@1")),
    Row(
        "action-linear", "action", ("--preset", "shapes-linear"), ("top1",), seeds=1, splits=_SPLITS
    ),
    Row("action", "action", ("--preset", "shapes"), ("top1",), seeds=1, splits=_SPLITS),
    Row("qa", "qa", ("--preset", "shapes"), ("accuracy",)),
    *(
        Row(
            f"qa-{word}",
            "qa",
            ("--preset", "shapes"),
            ("types", word, "accuracy"),
            run="qa",
        )
        for word in ("what", "which", "how", "where")
    ),
    Row("qa-end-to-end", "qa", ("--preset", "shapes", *_QUESTIONS_END_TO_END), ("accuracy",)),
    Row(
        "spatiotemporal",
        "spatiotemporal",
        ("--preset", "shapes"),
        ("official",),
        boxes="ava_val_predicted_boxes.csv",
    ),
    Row(
        "spatiotemporal-true-boxes",
        "spatiotemporal",
        ("--preset", "shapes"),
        ("official",),
        run="spatiotemporal",
    ),
    Row(
        "spatiotemporal-frozen",
        "spatiotemporal",
        ("--preset", "shapes", "--max-steps", "150", *_FROZEN_BOXES),
        ("official",),
        boxes="ava_val_predicted_boxes.csv",
    ),
    Row(
        "spatiotemporal-frozen-true-boxes",
        "spatiotemporal",
        ("--preset", "shapes", "--max-steps", "150", *_FROZEN_BOXES),
        ("official",),
        run="spatiotemporal-frozen",
    ),
)
NAMES = ("retrieval-zero-shot", *(row.name for row in ROWS), "localisation")


def main() -> int:
    """Run the benchmark and return 0."""
    arguments = _arguments()
    run, out = str(pathlib.Path(arguments.demo) / "run"), pathlib.Path(arguments.out)
    corpus = out / "shapes"
    if not (corpus / "tasks" / "ava").exists():  # It is written last.
        _call("svilm-pipelines", "corpus", corpus, "--tasks")
    wanted: tuple[str, ...] = tuple(arguments.only) or NAMES
    tasks = {name.partition("-")[0] for name in wanted}
    snapshots = _build(corpus, out, tasks)

    by_chance: dict[str, float] = {"retrieval": 100 / 600, "action": 100 / 7}
    by_chance |= _commonest(corpus / "tasks" / "msrvtt_qa")
    figures: dict[str, Any] = {}
    if arguments.only:
        earlier = json.loads(_RESULTS.read_text())
        by_chance, figures = earlier["by chance"] | by_chance, earlier["figures"]
    ava = corpus / "tasks" / "ava"
    if "retrieval-zero-shot" in wanted:
        figures["retrieval-zero-shot"] = {
            "pre-trained": _zero_shot(run, snapshots["retrieval"], out)
        }
    for row in ROWS:
        if row.name in wanted:
            figures[row.name] = {}
            for encoder in _ENCODERS:
                found = [
                    _trained(row, run, encoder, seed, split, snapshots[row.task], ava, out)
                    for split in row.splits
                    for seed in range(row.seeds)
                ]
                figures[row.name][encoder] = found if len(found) > 1 else found[0]
        if row.name in wanted and row.task == "spatiotemporal":
            by_chance[row.name] = _of_random_scores(ava, row.boxes, out)
    if "localisation" in wanted:
        truth = corpus / "tasks" / "activitynet"
        figures["localisation"], by_chance["localisation"] = _localised(run, truth, out)

    _RESULTS.write_text(
        json.dumps({"by chance": by_chance, "figures": figures}, indent=2) + "\n", encoding="utf-8"
    )
    for name, found in figures.items():
        shown = "  ".join(f"{encoder} {_text(value)}" for encoder, value in found.items())
        chance = by_chance.get(name, by_chance[name.partition("-")[0]])
        print(f"{name:<26} by chance {chance:.1f}  {shown}")
    print(f"written to {_RESULTS}")
    return 0


def _build(
    corpus: pathlib.Path, out: pathlib.Path, wanted: set[str]
) -> dict[str, dict[str, pathlib.Path]]:
    """Build the missing snapshots of the wanted tasks; return the folders by task and split."""
    tasks, ava = corpus / "tasks", corpus / "tasks" / "ava"
    videos, actions = tasks / "videos", f"{tasks}/actions/{{label}}/{{video_id}}.{{ext}}"
    untrimmed = f"{tasks}/untrimmed/v_{{video_id}}.{{ext}}"
    of_activitynet = (tasks / "activitynet" / "activity_net.v1-3.json",)
    windows = ("--window", "2", "--stride", "0.5", "--subset")
    msrvtt = tasks / "msrvtt"
    sources = {
        ("retrieval", "train"): (
            "msrvtt",
            (msrvtt / "MSRVTT_data.json", msrvtt / "MSRVTT_train.csv"),
            videos,
            (),
        ),
        ("retrieval", "test"): ("msrvtt", (msrvtt / "MSRVTT_JSFUSION_test.csv",), videos, ()),
        ("spatiotemporal", "train"): (
            "ava",
            (ava / "ava_train_v2.2.csv",),
            corpus / "train" / "videos",
            ("--window", "2"),
        ),
        # The detector's boxes add the keyframes in which only the detector finds a box.
        ("spatiotemporal", "test"): (
            "ava",
            (ava / "ava_val_v2.2.csv", ava / "ava_val_predicted_boxes.csv"),
            corpus / "test" / "videos",
            ("--window", "2"),
        ),
        ("localisation", "train"): (
            "activitynet-tal",
            of_activitynet,
            untrimmed,
            (*windows, "training"),
        ),
        ("localisation", "test"): (
            "activitynet-tal",
            of_activitynet,
            untrimmed,
            (*windows, "validation"),
        ),
    }
    for split in ("train", "test"):
        files = (tasks / "msrvtt_qa" / f"{split}_qa.json",)
        sources["qa", split] = ("msrvtt-qa", files, videos, ())
        for number in _SPLITS:
            files = (tasks / "ucf101" / f"{split}list0{number}.txt",)
            sources["action", split + number] = ("ucf101", files, actions, ())
    snapshots: dict[str, dict[str, pathlib.Path]] = collections.defaultdict(dict)
    for (task, split), (source, annotations, where, options) in sources.items():
        snapshot = snapshots[task][split] = out / f"{task}-{split}"
        if task in wanted and not (snapshot / "manifest.json").exists():
            _call(
                *("svilm-pipelines", "build", source, "--annotations", *annotations),
                *("--videos", where, "--out", snapshot, *options, *_FRAMES),
            )
    return snapshots


def _zero_shot(run: str, snapshots: dict[str, pathlib.Path], out: pathlib.Path) -> float:
    found = out / "retrieval-zero-shot.json"
    _call(
        *("svilm-train", "evaluate", "--task", "retrieval", "--run", run),
        *("--snapshot", snapshots["test"], "--out", found),
    )
    return json.loads(found.read_text())["t2v"]["R@1"]


def _trained(
    row: Row,
    run: str,
    encoder: str,
    seed: int,
    split: str,
    snapshots: dict[str, pathlib.Path],
    ava: pathlib.Path,
    out: pathlib.Path,
) -> float:
    tuned = out / f"{row.run or row.name}{split}-{encoder}-{seed}"
    _call(
        *("svilm-train", "finetune", "--task", row.task, "--run", run, *row.options),
        *(*_ENCODERS[encoder], "--set", f"seed={seed}"),
        *("--snapshot", snapshots["train" + split], "--out", tuned),
    )
    found = out / f"{row.name}{split}-{encoder}-{seed}.json"
    _call(
        *("svilm-train", "evaluate", "--task", row.task, "--run", tuned),
        *("--snapshot", snapshots["test" + split], "--out", found),
        *(("--boxes", ava / row.boxes) if row.boxes else ()),
    )
    value = json.loads(found.read_text())
    for key in row.figure:
        value = value[key]
    return value


def _of_random_scores(ava: pathlib.Path, boxes: str | None, out: pathlib.Path) -> float:
    """Return the official mAP of the same boxes, each with a random score for every class."""
    truth, classes = ava / "ava_val_v2.2.csv", ava / "ava_action_list_v2.2.pbtxt"
    rows = [line.split(",") for line in (ava / boxes if boxes else truth).read_text().split()]
    kept = [row for row in rows if not boxes or float(row[7]) >= 0.8]  # the threshold of `evaluate`
    found = []
    for seed in range(_SEEDS):
        drawn, detections = random.Random(seed), out / "by-chance.csv"
        lines = [
            ",".join([*row[:6], str(action), str(drawn.random())])
            for row in kept
            for action in range(1, 8)
        ]
        detections.write_text("\n".join(lines) + "\n")
        figures = out / "by-chance.json"
        _call(
            *("svilm-train", "evaluate", "--task", "spatiotemporal", "--predictions", detections),
            *("--truth", truth, classes, "--out", figures),
        )
        found.append(json.loads(figures.read_text())["official"])
    return statistics.mean(found)


def _localised(
    run: str, truth: pathlib.Path, out: pathlib.Path
) -> tuple[dict[str, list[float]], float]:
    """Return the average mAP by encoder, one value per seed of the head, and the chance level."""
    found: dict[str, list[float]] = collections.defaultdict(list)
    chance = 0.0
    for encoder, options in _ENCODERS.items():
        features = {split: out / f"features-{split}-{encoder}" for split in ("train", "test")}
        for split, folder in features.items():
            _call(
                *(
                    "svilm-train",
                    "embed",
                    "--run",
                    run,
                    "--snapshot",
                    out / f"localisation-{split}",
                ),
                *("--feature", "groups", "--out", folder, *options),
            )
        for seed in range(_SEEDS):
            head = out / f"localisation-{encoder}-{seed}"
            _call(
                *("svilm-train", "localise", "--preset", "shapes", "--set", f"seed={seed}"),
                *("--features", features["train"], "--test-features", features["test"]),
                *("--truth", truth / "activity_net.v1-3.json", "--out", head),
            )
            figures = json.loads((head / "figures.json").read_text())
            found[encoder].append(figures["sets"][0]["average_mAP"])
            chance = figures["chance"][0]
    return found, chance


def _commonest(truth: pathlib.Path) -> dict[str, float]:
    """Return the accuracy by row, in percent, of each first word's most common training answer."""
    train, test = (
        json.loads((truth / f"{split}_qa.json").read_text()) for split in ("train", "test")
    )
    answers: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for one in train:
        answers[one["question"].split()[0]][one["answer"]] += 1
    right = collections.defaultdict[str, list[bool]](list)
    for one in test:
        word = one["question"].split()[0]
        is_right = answers[word].most_common(1)[0][0] == one["answer"]
        right["qa"].append(is_right)
        right[f"qa-{word}"].append(is_right)
    return {row: 100 * statistics.mean(of_row) for row, of_row in right.items()}


def _text(value: float | list[float]) -> str:
    if isinstance(value, list):
        return f"{statistics.mean(value):.1f} ± {statistics.stdev(value):.1f}"
    return f"{value:.1f}"


def _call(script: str, *arguments: object) -> None:
    command = [str(_SCRIPTS / script), *map(str, arguments)]
    print(shlex.join([script, *command[1:]]), flush=True)
    subprocess.run(command, check=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Downstream tasks on Shapes, from the demo's checkpoint and a random encoder.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--demo", default="runs/demo", help="folder of the demo's run")
    parser.add_argument("--out", default="runs/tasks", help="folder for all output")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        choices=NAMES,
        metavar="ROW",
        help=f"rows to measure, of {', '.join(NAMES)}; other results stay unchanged",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
