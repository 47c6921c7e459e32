"""Weights & Biases as one more place that a run's metrics go to."""

import json
import pathlib
import secrets
from typing import Any

_FILE = "wandb.json"  # in the run's folder: the run's id there, so that it is continued too


def begin(run: pathlib.Path, project: str, config: dict[str, Any]) -> Any:
    """Starts the run's record, or continues it; WANDB_MODE=offline keeps it in the run's folder.

    Args:
      run: its folder, whose name it gets.
      project: of Weights & Biases.
      config: to be shown with it.
    """
    import wandb

    path = run / _FILE
    if not path.exists():
        path.write_text(json.dumps({"id": secrets.token_hex(8)}) + "\n")
    record = wandb.init(
        project=project,
        name=run.absolute().name,
        dir=run,
        config=config,
        id=json.loads(path.read_text())["id"],
        resume="allow",
        settings=wandb.Settings(console="off"),
    )
    # Steps of its own would have to grow; a run that goes on repeats those since its checkpoint.
    record.define_metric("*", step_metric="step")
    return record
