"""The arguments and the output of the commands `evaluate` and `report`."""

import argparse
import json
import math
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from protos.strict_json import parse_object
from trainer import progress
from trainer.cli.arguments import add_allow_seen
from trainer.cli.outputs import OutputError, output_file
from trainer.cli.tasks import EVALUATE_EPILOG, add_task, check_evaluate, evaluate_task

if TYPE_CHECKING:
    from trainer.data.snapshot import Snapshot
    from trainer.runs.checkpoint import Loaded
    from trainer.runs.seen_clips import Overlap

_EVALUATE_EPILOG = """\
Prints, and with --out writes as JSON:
  zero_shot   text-to-video and video-to-text retrieval among all clips: R@1, R@5, R@10 in percent
              and the median rank; ties get average ranks (and also optimistic ones)
  grounding   with --truth: how often the top patch of a noun's group lies on the noun's object,
              against chance (its mean area) and another object of the clip
  temporal    share of windows of two spliced clips that are more similar to their own side, against
              position alone, an untrained model, and the --control run
  controls    text-to-video R@1 of grey frames and of the middle frame alone

examples:
  svilm-train evaluate --run runs/first --snapshot snapshots/test \\
      --truth shapes/test/truth.jsonl --out metrics.json
"""

_REPORT_EPILOG = """\
The page needs no other file and no network. Its clips are drawn at random.

example:
  svilm-train report --run runs/first --metrics metrics.json --snapshot snapshots/test \\
      --train-snapshot snapshots/train --truth shapes/test/truth.jsonl --out report.html
"""


def add_evaluate(commands: Any) -> None:
    """Add the command `svilm-train evaluate`."""
    parser = add_parser(
        commands,
        "evaluate",
        "evaluate a run on test clips",
        "Evaluates a run on clips that it was not trained on.",
        _EVALUATE_EPILOG + EVALUATE_EPILOG,
    )
    parser.set_defaults(command=_evaluate, misused=parser.error)
    add_task(parser)
    add_run(parser, required=False)
    _add_snapshot(parser, required=False)
    parser.add_argument(
        "--truth",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="ground truth of the clips: truth.jsonl of `svilm-pipelines corpus`; with --task the "
        "benchmark's files (default: none)",
    )
    _add_control(parser)
    add_allow_seen(parser, "evaluate a snapshot")
    parser.add_argument("--out", metavar="JSON", help="file for the metrics (default: none)")


def _evaluate(arguments: argparse.Namespace) -> int:
    check_evaluate(arguments)
    if arguments.task:
        return evaluate_task(arguments)
    if not arguments.run or not arguments.snapshot:
        arguments.misused("--run and --snapshot are required without --task")
    if arguments.truth and len(arguments.truth) > 1:
        arguments.misused(f"--truth takes one file without --task, got {len(arguments.truth)}")

    from trainer.data.snapshot import Snapshot
    from trainer.evaluation import ground_truth
    from trainer.runs.provenance import subject
    from trainer.tasks.zero_shot import evaluate, table

    with output_file(arguments) as unfinished:
        run = load_run(arguments.run)
        snapshot = Snapshot.open(arguments.snapshot)
        seen = check_unseen(run, snapshot, arguments)
        control = load_run(arguments.control) if arguments.control else None
        if control:
            check_unseen(control, snapshot, arguments)
        objects = ground_truth.load(arguments.truth[0]) if arguments.truth else None
        with progress.shown("evaluate") as show:
            metrics = evaluate(run, snapshot, show, objects, control)
        if unfinished:
            figures = {"subject": subject(run, snapshot, seen, control), **metrics}
            text = json.dumps(figures, indent=2, allow_nan=False)
            unfinished.write_text(text + "\n", encoding="utf-8")
    print(table(metrics))
    print(seen.sentence())
    return 0


def add_report(commands: Any) -> None:
    """Add the command `svilm-train report`."""
    parser = add_parser(
        commands,
        "report",
        "write a run's metrics, curves and figures as a page",
        "Writes a self-contained HTML page about a run: metrics, training curves, retrieved clips, "
        "heat maps and similarities.",
        _REPORT_EPILOG,
    )
    parser.set_defaults(command=_report)
    _add_structure(parser)
    parser.add_argument(
        "--metrics",
        required=True,
        metavar="JSON",
        help="the metrics that `svilm-train evaluate --out` wrote",
    )
    parser.add_argument(
        "--train-snapshot",
        metavar="DIR",
        help="the run's training snapshot, for its statistics (default: none)",
    )
    add_allow_seen(parser, "show a snapshot")
    parser.add_argument("--out", required=True, metavar="HTML", help="file for the page")


def _report(arguments: argparse.Namespace) -> int:
    from trainer.data.snapshot import Snapshot
    from trainer.evaluation import ground_truth
    from trainer.report import page
    from trainer.runs.provenance import check_same, subject
    from trainer.runs.run_folder import check_trained_on
    from trainer.training import metric_writer as training_log

    with output_file(arguments) as unfinished:
        assert unfinished is not None  # --out is required
        figures = read_metrics(arguments.metrics)
        run, snapshot = load_run(arguments.run), Snapshot.open(arguments.snapshot)
        seen = check_unseen(run, snapshot, arguments)
        control = load_run(arguments.control) if arguments.control else None
        ours = subject(run, snapshot, seen, control)
        check_same(arguments.metrics, figures["subject"], ours)
        train = Snapshot.open(arguments.train_snapshot) if arguments.train_snapshot else None
        if train and run.folder is not None:
            check_trained_on(run.folder, train)
        with progress.shown("report") as show:
            html = page.page(
                run,
                training_log.read(arguments.run),
                figures,
                snapshot,
                show,
                seen=seen,
                train=train,
                truth=ground_truth.load(arguments.truth) if arguments.truth else None,
                control=control,
            )
        unfinished.write_text(html, encoding="utf-8")
    print(f"report: {arguments.out}, {len(html.encode()) / 1e6:.1f} MB")
    return 0


# --- shared by the commands ---


def add_parser(
    commands: Any, name: str, summary: str, description: str, epilog: str
) -> argparse.ArgumentParser:
    """Add a command that has an epilogue."""
    return commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_run(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add the option --run."""
    parser.add_argument(
        "--run",
        required=required,
        metavar="RUN",
        help="a run of `svilm-train pretrain`, on a disk or gs://BUCKET/FOLDER",
    )


def load_run(folder: str, *, any_task: bool = False) -> "Loaded":
    """Load a run, and print its step and whether its parameters are averaged.

    Args:
      folder: the run's folder, or a checkpoint.
      any_task: whether to load also a run that is fine-tuned for a task other than retrieval, and
        so has no trained joint space of clips and texts.
    """
    from trainer.runs import checkpoint
    from trainer.runs.provenance import check_joint_space

    run = checkpoint.load(folder)
    if not any_task:
        check_joint_space(run.task)
    which = "EMA of the parameters" if run.averaged else "parameters"
    progress.say(f"{folder}: {which} of step {run.step:,}")
    return run


def add_subject(parser: argparse.ArgumentParser) -> None:
    """Add the options --run and --snapshot."""
    add_run(parser)
    _add_snapshot(parser)


def _add_snapshot(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument(
        "--snapshot",
        required=required,
        metavar="DIR",
        help="a snapshot of `svilm-pipelines build`, on a disk, gs://BUCKET/FOLDER or "
        "s3://BUCKET/FOLDER",
    )


def _add_structure(parser: argparse.ArgumentParser) -> None:
    add_subject(parser)
    parser.add_argument(
        "--truth",
        metavar="JSONL",
        help="ground truth of the clips: truth.jsonl of `svilm-pipelines corpus` (default: none)",
    )
    _add_control(parser)


def _add_control(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--control",
        metavar="RUN",
        help="a baseline run for temporal grouping, trained with --set loss.temporal_weight=0 "
        "(default: none)",
    )


def check_unseen(run: "Loaded", snapshot: "Snapshot", arguments: argparse.Namespace) -> "Overlap":
    """Return the overlap of a snapshot with a run's training videos, if it is empty or allowed.

    Raises:
      SeenError: the run was trained on some of the videos, and --allow-seen is missing.
    """
    from trainer.runs import seen_clips

    found = seen_clips.of_loaded(run, snapshot)
    seen_clips.refuse(found, allowed=arguments.allow_seen)
    return found


def read_metrics(path: str) -> Any:
    """Read the figures that `svilm-train evaluate --out` wrote, with their `subject`.

    Raises:
      OutputError: the file is damaged, or of another command.
    """
    from trainer.tasks.zero_shot import Metrics

    try:
        metrics = parse_object(pathlib.Path(path).read_bytes())
    except ValueError as error:
        raise OutputError(f"{path} is not JSON ({error}): run svilm-train evaluate") from None
    wanted = {"subject", *Metrics.__required_keys__}
    missing = wanted - set(metrics if isinstance(metrics, dict) else ())
    if missing:
        raise OutputError(
            f"{path} lacks {', '.join(sorted(missing))}: give a file of svilm-train evaluate --out"
        )
    for name, value in _figures_in({key: metrics[key] for key in Metrics.__required_keys__}):
        if type(value) not in (int, float) or not math.isfinite(value):
            raise OutputError(
                f"{path}: {name} is {value!r}, not a finite number: run svilm-train evaluate again"
            )
        least, most = _range_of(name)
        if not least <= value <= most:
            raise OutputError(
                f"{path}: {name} is {value!r}, outside [{least}, {most}]: run svilm-train evaluate "
                "again"
            )
    return cast(Metrics, metrics)


def _figures_in(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the figures of a nested object by their dotted paths, leaving out null ones."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _figures_in(value, f"{prefix}{name}.")
        elif value is not None:
            yield prefix + name, value


def _range_of(name: str) -> tuple[float, float]:
    """Return the minimum and maximum of a figure of `svilm-train evaluate`, by its dotted path."""
    section, _, _ = name.partition(".")
    if name.endswith("MedR"):
        return 1.0, math.inf
    if section == "controls" or ".R@" in name:
        return 0.0, 100.0  # percent
    if section in ("temporal", "grounding") and name != "grounding.objects":
        return 0.0, 1.0  # shares
    return 0.0, math.inf  # counts
