"""Shapes of a checkpoint's parameters, compared with those of a model."""

import os
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree

from trainer.distributed.mesh import one_device, placed_shapes
from trainer.runs.checkpoint_errors import CheckpointError
from trainer.runs.run_path import RunPath


def by_name(tree: PyTree) -> dict[str, Any]:
    """Return a tree's leaves by their paths.

    >>> by_name({"video": {"bias": 1}, "text": 2})
    {'text': 2, 'video.bias': 1}
    """
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def saved_params(checkpoint: RunPath) -> PyTree:
    """Read the metadata of a checkpoint's parameters, each with `shape` and `dtype`."""
    # The manager's method opens all parts, and unneeded parts may be damaged.
    handler = ocp.StandardCheckpointHandler()
    metadata: Any = handler.metadata(epath.Path(os.fspath(checkpoint)) / "params")
    return metadata.tree


def head_shapes(saved: PyTree) -> dict[str, Any]:
    """Return the shapes of a task's head, which is not in the configuration; {} without one."""
    head = {name: part for name, part in saved.items() if name == "head"}
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), head)
    return placed_shapes(shapes, one_device())


def find_other_type(checkpoint: RunPath, saved: PyTree, like: PyTree) -> str | None:
    """Compare a checkpoint's parameters with a model's.

    Args:
      checkpoint: folder of the checkpoint, for messages.
      saved: metadata of the checkpoint's parameters.
      like: the model's shapes and types.

    Returns:
      The name and type of the first tensor that was saved with another type; None if there is none.

    Raises:
      CheckpointError: a tensor has another size, or is in only one of the two.
    """
    there, here = by_name(saved), by_name(like)
    for name in sorted(there.keys() | here.keys()):
        sizes = [
            tuple(tensors[name].shape) if name in tensors else "absent" for tensors in (there, here)
        ]
        if sizes[0] != sizes[1]:
            raise CheckpointError(
                f"{checkpoint} has another model size: tensor {name} is {sizes[0]}, but "
                f"{sizes[1]} by config.json: restore the run's original config.json"
            )
    for name, tensor in here.items():
        if there[name].dtype != tensor.dtype:
            return f"{name} is {there[name].dtype}"
    return None
