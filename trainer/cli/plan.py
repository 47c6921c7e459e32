"""The arguments and the output of `svilm-train plan`."""

import argparse
import json
from typing import Any

from trainer.cli.arguments import add_settings, count, refuse_ignored, settings_of
from trainer.cli.outputs import output_file
from trainer.configs import PRESETS
from trainer.configs.overrides import override
from trainer.progress import say

_EPILOG = """\
The step of `svilm-train pretrain` with the same settings is compiled ahead of time and not run. No
TPU or GPU needs to be present: libtpu (pip install '.[trainer,tpu]') or JAX's plugin for CUDA
('.[trainer,cuda]') compiles for it. At the paper's size this takes minutes and a few GB of memory.
On a GPU, JAX uses at most 0.75 of the memory, or XLA_PYTHON_CLIENT_MEM_FRACTION. The workspace of
cuDNN's attention is estimated. The command prints, and with --out writes as JSON:
  memory      bytes per device, and the limit of a program
  FLOPs       analytic; traced, including recomputation; and the compiler's count plus the traced
              FLOPs of kernels, which it omits. CUDA's compiler reports no count
  traffic     bytes that a step moves through a device's memory
  collectives bytes between devices, each explained by the shapes of its operands
  roofline    the minimum time of a step at the chips' published rates, and the utilisation (MFU)
  run         hours for all steps at that rate, without input, evaluation and checkpoints

Exit status: 0 it fits, 1 it does not fit, 2 invalid command line.

examples:
  svilm-train plan --preset tiny
  svilm-train plan --preset small --topology l4:1 --clips 100000
  svilm-train plan --preset base-16 --topology a100-40:8
  svilm-train plan --preset paper --topology v5e:8x8 --clips 3300000 --out plan.json
  svilm-train plan --preset paper --topology v5e:4x4 --search --headroom 1
"""


_HEADROOM = 0.5  # GiB


def add_plan(commands: Any) -> None:
    """Add the command `svilm-train plan`."""
    parser = commands.add_parser(
        "plan",
        help="estimate a step's memory and a run's duration on given hardware",
        description="Compiles a training step ahead of time for given hardware, and reports its "
        "memory, FLOPs, traffic and minimum time.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=_plan, misused=parser.error)
    parser.add_argument(
        "--preset", required=True, choices=PRESETS, help="sizes and recipe: see pretrain"
    )
    parser.add_argument(
        "--topology",
        default="here",
        help="here: the devices that JAX sees; a TPU slice, VERSION:SHAPE, such as v5e:8x8, "
        "v5p:2x4x4, v6e:4x4; or GPUs, NAME:COUNT, of a10, l4, rtx4090, a100-40, a100-80, h100, "
        "h200 (default: here)",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="try settings of compute and mesh, from the fastest to the slowest, and plan the "
        "first that fits",
    )
    parser.add_argument(
        "--headroom",
        type=_gibibytes,
        metavar="GIB",
        help=f"GiB that --search leaves free on each device (default: {_HEADROOM})",
    )
    parser.add_argument(
        "--clips",
        type=count(1),
        metavar="N",
        help="number of clips in the snapshot, for the run's duration (default: not estimated)",
    )
    parser.add_argument(
        "--epochs",
        type=count(1),
        metavar="N",
        help="number of epochs of the run (default: the preset's)",
    )
    parser.add_argument("--out", metavar="JSON", help="file for the plan (default: none)")
    add_settings(parser)


def _plan(arguments: argparse.Namespace) -> int:
    refuse_ignored(arguments, ("headroom", arguments.search, "--search"))
    config = override(PRESETS[arguments.preset], settings_of(arguments, "epochs"))

    from trainer.plan.plan import make_plan
    from trainer.plan.search import search
    from trainer.plan.text import as_json, describe

    with output_file(arguments) as unfinished:
        if arguments.search:
            gibibytes = _HEADROOM if arguments.headroom is None else arguments.headroom
            headroom = int(gibibytes * 2**30)
            plan = search(config, arguments.topology, arguments.clips, headroom, _tried)
        else:
            plan = make_plan(config, arguments.topology, arguments.clips)
        if unfinished:
            unfinished.write_text(json.dumps(as_json(plan), indent=2) + "\n", encoding="utf-8")
    print(describe(plan))
    return 0


def _tried(what: str) -> None:
    say(f"plan: does not fit: {what}")


def _gibibytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GiB ≥ 0")
    return value
