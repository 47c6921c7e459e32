"""Arguments of the commands that train: processes, monitoring and profiling."""

import argparse
import importlib.util
from typing import TYPE_CHECKING

from trainer.cli.arguments import add_allow_seen, count, refuse_ignored, span

if TYPE_CHECKING:
    from trainer.training.loop import Monitoring


def add_loop(parser: argparse.ArgumentParser) -> None:
    """Add these arguments to a command that sets `misused` to the parser's error."""
    parser.set_defaults(trains=True)
    parser.add_argument(
        "--processes",
        type=count(1),
        metavar="N",
        help="processes of this run, each started with the same command but for --process; RUN is "
        "in a bucket, or on a file system that they share (default: what --coordinator auto finds, "
        "else 1)",
    )
    parser.add_argument(
        "--process", type=count(0), metavar="I", help="this process's number, 0 … N − 1"
    )
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="where process 0 listens; auto: the cluster tells all three (TPU pods, Slurm, "
        "Open MPI, Kubernetes)",
    )
    parser.add_argument(
        "--eval-snapshot",
        metavar="DIR",
        help="clips to measure zero-shot retrieval on while training, evaluate_clips of them every "
        "evaluate_every steps and at the end: t2v_R@1 … v2t_MedR, beside the other metrics",
    )
    add_allow_seen(parser, "measure --eval-snapshot")
    parser.add_argument(
        "--wandb",
        metavar="PROJECT",
        help="send the metrics to Weights & Biases as well (pip install '.[wandb]')",
    )
    parser.add_argument(
        "--profile",
        type=span,
        metavar="N:M",
        help="write a trace of steps N to M into RUN/profile, for TensorBoard or Perfetto",
    )


def check_loop(arguments: argparse.Namespace) -> None:
    """End the command with a usage error if options contradict each other or have no effect."""
    if wrong := _wrong_processes(arguments.coordinator, arguments.processes, arguments.process):
        arguments.misused(wrong)
    refuse_ignored(arguments, ("allow_seen", arguments.eval_snapshot, "--eval-snapshot"))


def begin_loop(arguments: argparse.Namespace) -> "Monitoring":
    """Join the run's other processes, before JAX is used, and return the monitoring settings.

    Raises:
      TrainingError: --wandb is given, but Weights & Biases is not installed.
    """
    from trainer.distributed import multihost
    from trainer.training import loop

    if arguments.wandb and importlib.util.find_spec("wandb") is None:
        raise loop.TrainingError("--wandb needs Weights & Biases: pip install '.[wandb]'")
    if arguments.coordinator == "auto":
        multihost.join(None, None, None)
    elif arguments.coordinator:
        multihost.join(arguments.coordinator, arguments.processes, arguments.process)
    return loop.Monitoring(
        arguments.eval_snapshot, arguments.profile, arguments.wandb, arguments.allow_seen
    )


def _wrong_processes(coordinator: str | None, count: int | None, number: int | None) -> str:
    """Return an error for inconsistent process options. Empty if they are valid."""
    if coordinator in (None, "auto"):
        if count is None and number is None:
            return ""
        if coordinator is None:  # each process would train alone, into the same folder
            return "--processes and --process want --coordinator HOST:PORT, where they meet"
        return "--coordinator auto finds --processes and --process by itself: leave them out"
    if count is None or number is None:
        return "--coordinator HOST:PORT wants --processes and --process"
    if number >= count:
        return f"--process {number} of --processes {count}: they are numbered 0 … {count - 1}"
    return ""
