"""Weights & Biases as one more place that a run's metrics go to."""

import json
import secrets
import tempfile
from typing import Any

from trainer.data.folder import in_bucket, read_file, write_file
from trainer.runs.run_path import RunPath

_FILE = "wandb.json"  # in the run's folder: the run's id there, so that it is continued too


def begin(run: RunPath, project: str, config: dict[str, Any]) -> Any:
    """Starts the run's record, or continues it.

    WANDB_MODE=offline keeps it in the run's folder; of a run in a bucket, in a temporary one.

    Args:
      run: its folder, whose name it gets.
      project: of Weights & Biases.
      config: to be shown with it.
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
    # Steps of its own would have to grow; a run that goes on repeats those since its checkpoint.
    record.define_metric("*", step_metric="step")
    return record
