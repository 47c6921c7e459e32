"""The arguments and the output of `svilm-train plan`."""

import argparse
import json
from typing import Any

from trainer.cli.arguments import add_settings, count, refuse_ignored, settings_of
from trainer.cli.outputs import written
from trainer.configs import PRESETS
from trainer.configs.overrides import override
from trainer.progress import say

_EPILOG = """\
The step of `svilm-train pretrain` with the same settings is compiled, not run. No TPU
or GPU needs to be present: libtpu (pip install '.[trainer,tpu]') or JAX's plugin for CUDA
('.[trainer,cuda]') compiles for it. That takes minutes, and a few GB of memory, at the paper's
size. Of a GPU, JAX lets a program have 0.75 of the memory, or XLA_PYTHON_CLIENT_MEM_FRACTION of it;
what cuDNN's attention takes beside the program is estimated. Printed, and with --out written as
JSON:
  memory      a device's, against what a program may use
  FLOPs       analytic; traced, including recomputation; and the compiler's count plus the traced
              FLOPs of kernels, which it omits. CUDA's compiler reports no count
  traffic     bytes that a step moves through a device's memory
  collectives what goes between devices, each explained by the shapes of its operands
  roofline    the least time of a step at the chips' published rates, and the utilisation (MFU)
  run         hours of all steps at that, without input, evaluation and checkpoints

Exit status: 0 it fits, 1 it does not, 2 wrong usage.

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
        help="tell whether a step fits hardware, and how long a run takes",
        description="Compiles a run's step for hardware that need not be there, and tells what it "
        "needs and takes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=_plan, misused=parser.error)
    parser.add_argument("--preset", required=True, choices=PRESETS, help="as of pretrain")
    parser.add_argument(
        "--topology",
        default="here",
        help="here: the devices that JAX sees (default); a TPU slice, VERSION:SHAPE, such as "
        "v5e:8x8, v5p:2x4x4, v6e:4x4; or GPUs, NAME:COUNT, of a10, l4, rtx4090, a100-40, a100-80, "
        "h100, h200",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="try ways to compute the step, from the cheapest to the dearest, and take the first "
        "that fits",
    )
    parser.add_argument(
        "--headroom",
        type=_gibibytes,
        metavar="GIB",
        help=f"memory that --search leaves on each device (default: {_HEADROOM})",
    )
    parser.add_argument(
        "--clips", type=count(1), metavar="N", help="in the snapshot, for the run's length"
    )
    parser.add_argument(
        "--epochs", type=count(1), metavar="N", help="of the run (default: the preset's)"
    )
    parser.add_argument("--out", metavar="JSON", help="file for the plan (default: none)")
    add_settings(parser)


def _plan(arguments: argparse.Namespace) -> int:
    refuse_ignored(arguments, ("headroom", arguments.search, "--search"))
    config = override(PRESETS[arguments.preset], settings_of(arguments, "epochs"))

    from trainer.plan.plan import make_plan
    from trainer.plan.search import search
    from trainer.plan.text import as_json, describe

    with written(arguments) as unfinished:
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
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GiB, 0 or more")
    return value
