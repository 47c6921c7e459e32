"""Weights & Biases as an additional destination of a run's metrics."""

import json
import secrets
import tempfile
from typing import Any

from trainer.data.folder import in_bucket, read_file, write_file
from trainer.runs.run_path import RunPath

_FILE = "wandb.json"  # in the run's folder; holds the run's id in Weights & Biases, to resume it


def begin(run: RunPath, project: str, config: dict[str, Any]) -> Any:
    """Start the run's record, or continue it.

    WANDB_MODE=offline keeps it in the run's folder, or in a temporary one for a run in a bucket.

    Args:
      run: the run's folder, whose name the record gets.
      project: the project in Weights & Biases.
      config: the configuration to show with it.
    """
    import wandb

    path = run / _FILE
    try:
        known = json.loads(read_file(path))["id"]
    except FileNotFoundError:
        known = secrets.token_hex(8)
        write_file(path, json.dumps({"id": known}).encode() + b"\n")
    record = wandb.init(
        project=project,
        name=run.absolute().name,
        dir=tempfile.mkdtemp(prefix="svilm-") if in_bucket(run) else str(run),
        config=config,
        id=known,
        resume="allow",
        settings=wandb.Settings(console="off"),
    )
    # wandb's own steps would have to increase. A continued run repeats those since its checkpoint.
    record.define_metric("*", step_metric="step")
    return record
