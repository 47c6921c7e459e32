"""What figures are of: a run's model and a snapshot, as files of figures have it in `subject`.

{"run", "step", "averaged", "parameters_sha256", "snapshot", "dataset", "records",
"manifest_sha256", "seen"}: where both were, and what tells them from others, wherever they are now;
`seen` is how much of the snapshot the run was trained on (seen.py).
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from trainer.data.snapshot import Snapshot
from trainer.runs.checkpoint import Loaded
from trainer.runs.seen_clips import Overlap

# What must be alike for figures to be of one run and snapshot, and how a message calls it.
_IDENTITY = {
    "parameters_sha256": "the run's parameters",
    "step": "the run's step",
    "manifest_sha256": "the snapshot",
}


class SubjectError(RuntimeError):
    """Figures of another run, step or snapshot than what they are wanted for."""


def subject(run: Loaded, snapshot: Snapshot, seen: Overlap) -> dict[str, Any]:
    """What figures of a run on a snapshot are of."""
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
    }


def parameters_sha256(params: PyTree) -> str:
    """The sha256, hex, of a model's numbers, one tensor behind another."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def check_same(where: str, theirs: Any, ours: Mapping[str, Any]) -> None:
    """Refuses figures that are of something else.

    Args:
      where: the file of figures.
      theirs: its `subject`.
      ours: `subject` of the run and snapshot at hand.

    Raises:
      SubjectError: says what differs.

    >>> check_same("metrics.json", {"step": 1}, {"step": 2})
    Traceback (most recent call last):
      ...
    trainer.runs.provenance.SubjectError: metrics.json is of another run or \
snapshot: the run's step is 1 there, and 2 here: run svilm-train evaluate again
    """
    theirs = theirs if isinstance(theirs, dict) else {}
    differing = [
        f"{name} is {theirs.get(key)} there, and {ours.get(key)} here"
        for key, name in _IDENTITY.items()
        if theirs.get(key) != ours.get(key)
    ]
    if differing:
        raise SubjectError(
            f"{where} is of another run or snapshot: {'; '.join(differing)}: run svilm-train "
            "evaluate again"
        )
