"""The whole path on Shapes: corpus, snapshots, training, evaluation, report, index, search page.

It runs the two console scripts of this Python's environment, and prints each command so that it
can be repeated separately. It skips a finished step unless the command of that step or of an
earlier one has changed. It writes OUT/metrics.json and OUT/report.html, and prints the command that
opens the search page.

    python benchmarks/demo.py --out runs/demo
"""

import argparse
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time
from typing import Any, NamedTuple

from google.protobuf import json_format

from protos import contract
from protos.v1 import manifest_pb2

_SCRIPTS = pathlib.Path(sys.executable).parent
_QUERY = "a red ring is rising"
# The corpus renders this many frames at this size, so larger values would add nothing.
_FRAMES, _SHORT_SIDE = 12, 64
# The names of the reported durations, with the steps that each one adds up.
_SECONDS = {
    "corpus": ("corpus",),
    "build": ("build train", "build test"),
    "verify": ("verify train", "verify test"),
    "train": ("train",),
    "control": ("control",),
    "evaluate": ("evaluate",),
    "report": ("report",),
    "index": ("index", "search"),
    "moments": ("untrimmed", "build windows", "index windows"),
}
# The tasks have an untrimmed video for every six clips.
_UNTRIMMED = ("--train-clips", "0", "--test-clips", "60", "--tasks")


class Step(NamedTuple):
    """A command of the demo, and a path that exists once it is done."""

    name: str
    command: list[str]
    done: pathlib.Path


def main() -> int:
    """Run the demo and return 0, or the exit status of a failed step."""
    arguments = _arguments()
    out = pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    record = out / "steps.json"
    finished = json.loads(record.read_text()) if record.exists() else {}
    unchanged = True
    for step in steps(arguments):
        done = finished.get(step.name)
        unchanged = unchanged and done is not None and done["command"] == step.command
        if unchanged and done is not None and step.done.exists():
            print(f"[{step.name}] done before, in {done['seconds']:.1f} s", flush=True)
            continue
        unchanged = False
        print(f"[{step.name}] {shlex.join(step.command)}", flush=True)
        began = time.monotonic()
        status = subprocess.run([str(_SCRIPTS / step.command[0]), *step.command[1:]]).returncode
        if status:
            print(
                f"demo: error: the step {step.name!r} failed with exit status {status}: see above; "
                "fix the cause and run the same command again to resume",
                file=sys.stderr,
            )
            return status if status > 0 else 1
        seconds = round(time.monotonic() - began, 1)
        print(f"[{step.name}] {seconds:.1f} s", flush=True)
        finished[step.name] = {"command": step.command, "seconds": seconds}
        _write(record, finished)
        if step.name == "evaluate":
            _write(out / "metrics.json", metrics(out, finished))
    _write(out / "metrics.json", metrics(out, finished))
    _summary(out)
    return 0


def steps(arguments: argparse.Namespace) -> list[Step]:
    """Return the demo's commands, in order."""
    out = pathlib.Path(arguments.out)
    corpus, run, control = out / "corpus", out / "run", out / "control"
    truth = str(corpus / "test" / "truth.jsonl")
    clips = ["--train-clips", str(arguments.train_clips), "--test-clips", str(arguments.test_clips)]
    workers = ["--workers", str(arguments.workers)]
    planned = [
        Step(
            "corpus",
            ["svilm-pipelines", "corpus", str(corpus), *clips, *workers],
            corpus / "test" / "video_cc_public.csv",
        )
    ]
    for split in ("train", "test"):
        snapshot, source = out / split, corpus / split
        build = ["svilm-pipelines", "build", "videocc"]
        build += ["--annotations", str(source / "video_cc_public.csv")]
        build += ["--videos", str(source / "videos"), "--out", str(snapshot)]
        build += ["--frames", str(_FRAMES), "--short-side", str(_SHORT_SIDE), *workers]
        manifest = snapshot / contract.MANIFEST_NAME
        planned.append(Step(f"build {split}", build, manifest))
        verify = ["svilm-pipelines", "verify", str(snapshot)]
        planned.append(Step(f"verify {split}", verify, manifest))

    train = ["svilm-train", "pretrain", "--preset", "tiny", "--snapshot", str(out / "train")]
    for setting in arguments.settings:
        train += ["--set", setting]
    limit = ["--max-steps", str(arguments.train_steps)] if arguments.train_steps else []
    short = ["--max-steps", str(arguments.control_steps)]
    # The control run is short and splices from the start. So it only indicates the loss's effect.
    # benchmarks/temporal.py measures it, with the same number of steps for both runs.
    short += ["--set", "loss.temporal_weight=0", "--set", "cut_and_paste.from_step=0"]
    planned += [
        Step("train", [*train, "--out", str(run), *limit], run / "checkpoints"),
        Step("control", [*train, "--out", str(control), *short], control / "checkpoints"),
    ]
    tested = ["--run", str(run), "--snapshot", str(out / "test")]
    structure = ["--truth", truth, "--control", str(control)]
    figures, page = out / "evaluation.json", out / "report.html"
    return [
        *planned,
        Step(
            "evaluate",
            ["svilm-train", "evaluate", *tested, *structure, "--out", str(figures)],
            figures,
        ),
        Step(
            "report",
            [
                *("svilm-train", "report", *tested, *structure),
                *("--metrics", str(out / "metrics.json")),
                *("--train-snapshot", str(out / "train"), "--out", str(page)),
            ],
            page,
        ),
        *_index_steps(out, workers),
    ]


def _index_steps(out: pathlib.Path, workers: list[str]) -> list[Step]:
    """Return the commands that index the test clips and the windows of untrimmed videos."""
    index, sheet = out / "index", out / "search.png"
    untrimmed, windows, moments = out / "untrimmed", out / "windows", out / "moments"
    sentences = untrimmed / "tasks" / "activitynet_captions" / "val_1.json"
    build = ["svilm-pipelines", "build", "activitynet", "--annotations", str(sentences)]
    build += ["--videos", f"{untrimmed}/tasks/untrimmed/v_{{video_id}}.{{ext}}"]
    build += ["--window", "2", "--stride", "0.5", "--out", str(windows)]
    build += ["--frames", str(_FRAMES), "--short-side", str(_SHORT_SIDE), *workers]
    make = ["svilm-train", "index", "--run", str(out / "run")]
    return [
        Step(
            "index",
            [*make, "--snapshot", str(out / "test"), "--out", str(index)],
            index / "index.json",
        ),
        Step(
            "search",
            ["svilm-train", "search", _QUERY, "--index", str(index), "--out", str(sheet)],
            sheet,
        ),
        Step(
            "untrimmed",
            ["svilm-pipelines", "corpus", str(untrimmed), *_UNTRIMMED, *workers],
            sentences,
        ),
        Step("build windows", build, windows / contract.MANIFEST_NAME),
        Step(
            "index windows",
            [*make, "--snapshot", str(windows), "--out", str(moments)],
            moments / "index.json",
        ),
    ]


def metrics(out: pathlib.Path, finished: dict[str, Any]) -> dict[str, Any]:
    """Return the evaluation's figures, the steps' durations and the counts of clips."""
    counts = {}
    for split in ("train", "test"):
        text = (out / split / contract.MANIFEST_NAME).read_text()
        counts[split] = json_format.Parse(text, manifest_pb2.Manifest()).counts
    seconds = {
        name: round(sum(finished[step]["seconds"] for step in parts if step in finished), 1)
        for name, parts in _SECONDS.items()
    }
    return {
        **json.loads((out / "evaluation.json").read_text()),
        "seconds": seconds,
        "clips": {
            "train": counts["train"].records,
            "test": counts["test"].records,
            "rejected": sum(sum(of_split.rejects.values()) for of_split in counts.values()),
        },
    }


def _summary(out: pathlib.Path) -> None:
    figures = json.loads((out / "metrics.json").read_text())
    forward, ground, times = (
        figures["zero_shot"]["t2v"],
        figures["grounding"],
        figures["temporal"],
    )
    print(
        f"\nOn {figures['clips']['test']:,} unseen clips, after {figures['step']:,} steps on "
        f"{figures['clips']['train']:,}:\n"
        f"  finds the clip     R@1 {forward['R@1']:.1f} %, R@5 {forward['R@5']:.1f} %, "
        f"median rank {forward['MedR']:g}\n"
        f"  points at nouns    {ground['pointing_accuracy']:.3f} "
        f"(chance {ground['chance']:.3f}, another object {ground['other_object']:.3f})\n"
        f"  feels the cut      {times['window_accuracy']:.3f} "
        f"(position {times['position_prior']:.3f}, untrained {times['random_encoder']:.3f}, "
        f"no temporal loss {times['no_temporal_loss']:.3f})\n"
        f"Look at {out / 'report.html'} and {out / 'search.png'}; all figures are in "
        f"{out / 'metrics.json'}.\n"
        f"Search the clips on a page, and untrimmed videos for moments:"
    )
    bin_of, videos = os.path.relpath(_SCRIPTS), out / "corpus" / "test" / "videos"
    serve = ["serve", "--index", str(out / "index"), "--videos", str(videos)]
    search = ["search", _QUERY, "--moments", "--index", str(out / "moments")]
    for command in (serve, search):
        print(f"  {shlex.join([f'{bin_of}/svilm-train', *command])}")


def _write(path: pathlib.Path, values: dict[str, Any]) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(values, indent=2) + "\n")
    unfinished.replace(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Everything from rendered videos to a report, on Shapes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", default="runs/demo", help="folder to write")
    parser.add_argument("--train-clips", type=int, default=4200, help="number of train clips")
    parser.add_argument("--test-clips", type=int, default=600, help="number of test clips")
    parser.add_argument(
        "--train-steps", type=int, default=None, help="training steps (default: preset's)"
    )
    parser.add_argument(
        "--control-steps", type=int, default=100, help="steps of the run without temporal loss"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="worker processes for rendering and decoding (default: one per CPU core)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="FIELD=VALUE",
        help="configuration field of both runs, field=value; may be repeated",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
