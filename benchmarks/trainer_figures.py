"""Shared parts of the trainer's benchmarks: the timed model and the output of figures."""

import json
import os
import pathlib
import platform
import re
from typing import Any

from trainer.configs.config import (
    Config,
    CutAndPasteConfig,
    TextConfig,
    VideoConfig,
)

_RESULTS = pathlib.Path(__file__).parent / "results"

THREADS = len(os.sched_getaffinity(0))

CONFIG = Config(
    video=VideoConfig(
        frames=8, width=384, heads=6, layers=6, mlp_width=1536, grouping_after=(2, 4, 6)
    ),
    text=TextConfig(vocabulary=400, width=384, heads=6, layers=6, mlp_width=1536),
    cut_and_paste=CutAndPasteConfig(pair_group=2),
    batch=4,
)
"""A model with width 384, 6 layers and 816 tokens."""


def keep(key: str, measured: dict[str, Any], file: str = "trainer.json") -> None:
    """Print the figures, and write them and the machine's name under their key of a results file.

    Other keys of the file stay unchanged.
    """
    path = _RESULTS / file
    results = json.loads(path.read_text()) if path.exists() else {}
    results[key] = json.loads(
        json.dumps(measured | {"machine": machine_name()}),
        parse_float=lambda text: round(float(text), 4),
    )
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(f"{key}: {json.dumps(results[key])}", flush=True)


def machine_name() -> str:
    """Return the number of usable cores and the model of the CPU."""
    models = re.findall(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    return f"{THREADS} cores of {models[0] if models else platform.machine()}"
