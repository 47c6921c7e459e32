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
        help="number of processes of this run; start each with the same command and its own "
        "--process; RUN must be in a bucket or on a shared file system (default: that of "
        "--coordinator auto, else 1)",
    )
    parser.add_argument(
        "--process",
        type=count(0),
        metavar="I",
        help="index of this process, 0 … N − 1 (default: that of --coordinator auto, else 0)",
    )
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="address of process 0; auto: read the address, --processes and --process from the "
        "cluster (TPU pods, Slurm, Open MPI, Kubernetes) (default: one process)",
    )
    parser.add_argument(
        "--eval-snapshot",
        metavar="DIR",
        help="validation snapshot: log zero-shot retrieval (t2v_R@1 … v2t_MedR) on evaluate_clips "
        "of its clips every evaluate_every steps and at the end (default: none)",
    )
    add_allow_seen(parser, "evaluate --eval-snapshot")
    parser.add_argument(
        "--wandb",
        metavar="PROJECT",
        help="log metrics to this Weights & Biases project, too (pip install '.[wandb]') (default: "
        "none)",
    )
    parser.add_argument(
        "--profile",
        type=span,
        metavar="N:M",
        help="write a profiler trace of steps N to M to RUN/profile, for TensorBoard or Perfetto "
        "(default: none)",
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
        raise loop.TrainingError("--wandb requires Weights & Biases: pip install '.[wandb]'")
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
            return "--processes and --process require --coordinator HOST:PORT"
        return "--coordinator auto sets --processes and --process: leave them out"
    if count is None or number is None:
        return "--coordinator HOST:PORT requires --processes and --process"
    if number >= count:
        return f"--process {number} of --processes {count}: give 0 … {count - 1}"
    return ""
