"""Provenance of figures: the run's model and the snapshot, the `subject` in files of figures.

{"run", "step", "averaged", "parameters_sha256", "snapshot", "dataset", "records",
"manifest_sha256", "seen"}. These are the locations of run and snapshot, and what identifies them
wherever they are now. `seen` is how much of the snapshot the run was trained on (seen_clips.py).
With a control run, `control_sha256` identifies its parameters.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from trainer.data.snapshot import Snapshot
from trainer.errors import UserError
from trainer.runs.checkpoint import Loaded
from trainer.runs.run_folder import RunError
from trainer.runs.seen_clips import Overlap

# Keys that must match for figures to be of one run and snapshot, with their names in messages.
_IDENTITY = {
    "parameters_sha256": "the run's parameters",
    "step": "the run's step",
    "manifest_sha256": "the snapshot",
}
_CONTROL = "control_sha256"


class SubjectError(UserError, RuntimeError):
    """Figures of a run, step or snapshot other than the expected one."""


def subject(
    run: Loaded, snapshot: Snapshot, seen: Overlap, control: Loaded | None = None
) -> dict[str, Any]:
    """Return the `subject` of a run's figures on a snapshot, with those of a control run."""
    of_control = {_CONTROL: parameters_sha256(control.params)} if control else {}
    return {
        "run": None if run.folder is None else str(run.folder),
        "step": run.step,
        "averaged": run.averaged,
        "parameters_sha256": parameters_sha256(run.params),
        "snapshot": snapshot.folder,
        "dataset": snapshot.manifest.dataset,
        "records": len(snapshot),
        "manifest_sha256": snapshot.manifest_sha256,
        "seen": seen.as_json(),
        **of_control,
    }


def has_joint_space(task: Mapping[str, Any] | None) -> bool:
    """Return whether a run trained the joint space of clips and texts.

    Args:
      task: the run's task; None if it is pre-trained.

    >>> [has_joint_space(task) for task in (None, {"name": "retrieval"}, {"name": "qa"})]
    [True, True, False]
    """
    return task is None or task["name"] == "retrieval"


def check_joint_space(task: Mapping[str, Any] | None) -> None:
    """Check that a run trained the joint space of clips and texts.

    Args:
      task: the run's task; None if it is pre-trained.

    Raises:
      RunError: the run is fine-tuned for a task that does not train the joint space.

    >>> check_joint_space({"name": "retrieval"})
    """
    if task is not None and not has_joint_space(task):
        raise RunError(
            f"the run is fine-tuned for {task['name']}, which does not train the joint space: "
            "give a pre-trained run, or one fine-tuned for retrieval"
        )


def parameters_sha256(params: PyTree) -> str:
    """Return the sha256, in hex, of a model's concatenated tensors."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def check_same(where: str, theirs: Any, ours: Mapping[str, Any]) -> None:
    """Raise if figures are of another run, step or snapshot, or of another control run.

    Figures with a control run also serve a page without one.

    Args:
      where: the file of figures.
      theirs: its `subject`.
      ours: `subject` of the current run and snapshot.

    Raises:
      SubjectError: the two differ; the message lists the differences.

    >>> check_same("metrics.json", {"step": 1}, {"step": 2})
    Traceback (most recent call last):
      ...
    trainer.runs.provenance.SubjectError: metrics.json is of another run or \
snapshot: the run's step is 1 there, but 2 here: run svilm-train evaluate again
    """
    theirs = theirs if isinstance(theirs, dict) else {}
    identity = _IDENTITY | ({_CONTROL: "the control run's parameters"} if _CONTROL in ours else {})
    differing = [
        f"{name} is {theirs.get(key)} there, but {ours.get(key)} here"
        for key, name in identity.items()
        if theirs.get(key) != ours.get(key)
    ]
    if differing:
        raise SubjectError(
            f"{where} is of another run or snapshot: {'; '.join(differing)}: run svilm-train "
            "evaluate again"
        )
