"""What the trainer's benchmarks share: the model whose steps they time, and where figures go."""

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

_RESULTS = pathlib.Path(__file__).parent / "results" / "trainer.json"

THREADS = len(os.sched_getaffinity(0))

CONFIG = Config(
    video=VideoConfig(
        frames=8, width=384, heads=6, layers=6, mlp_width=1536, grouping_after=(2, 4, 6)
    ),
    text=TextConfig(vocabulary=400, width=384, heads=6, layers=6, mlp_width=1536),
    cut_and_paste=CutAndPasteConfig(pair_group=2),
    batch=4,
)
"""384 wide, 6 layers, 816 tokens."""


def keep(key: str, measured: dict[str, Any]) -> None:
    """Prints what was measured, and writes it with the machine beside other benchmarks' keys."""
    models = re.findall(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    machine = f"{THREADS} cores of {models[0] if models else platform.machine()}"
    results = json.loads(_RESULTS.read_text()) if _RESULTS.exists() else {}
    results[key] = json.loads(
        json.dumps(measured | {"machine": machine}),
        parse_float=lambda text: round(float(text), 4),
    )
    _RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(f"{key}: {json.dumps(results[key])}", flush=True)
