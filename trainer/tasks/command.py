"""The commands of downstream tasks: their arguments, and what they print and write."""

import argparse
import json
from typing import Any

# Their modules are loaded once a command wants them; tests compare.
TASKS = ("action", "localisation", "qa", "retrieval", "spatiotemporal")


def add_task(parser: argparse.ArgumentParser) -> None:
    """Adds to `svilm-train evaluate` what is of downstream tasks."""
    parser.add_argument(
        "--task", choices=TASKS, help="measure a downstream task instead (default: none)"
    )
    parser.add_argument(
        "--predictions",
        nargs="+",
        metavar="FILE",
        help="with --task and --truth: score these files alone; of action recognition one a split",
    )


def evaluate_task(arguments: argparse.Namespace) -> int:
    """Measures a task as the arguments of `svilm-train evaluate` say."""
    from trainer.commands import written
    from trainer.tasks import scoring

    if not arguments.predictions or not arguments.truth:
        arguments.misused("--task wants --predictions FILE and --truth FILE")
    with written(arguments.out) as unfinished:
        figures = scoring.score(arguments.task, arguments.predictions, arguments.truth)
        if unfinished:
            unfinished.write_text(as_json(figures), encoding="utf-8")
    print(scoring.SCORERS[arguments.task].table(figures))
    return 0


def as_json(figures: Any) -> str:
    """Figures as a file has them."""
    return json.dumps(figures, indent=2) + "\n"
