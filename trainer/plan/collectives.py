"""The contents of a step's collectives: each one is explained or marked unexplained."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh

from trainer.configs.config import Config
from trainer.plan.hlo import Collective, Shape

PARAMETERS = "parameters"  # or their gradients
TEXTS = "captions and nouns"  # K + 1 vectors per clip in the joint space
FIGURES = "figures"  # a few numbers and flags per clip
UNEXPLAINED = "unexplained"

# Maximum bytes of figures per clip. A video token has 1.5 kB in bfloat16.
_FIGURES = 128


@dataclasses.dataclass(frozen=True)
class Crossing:
    """A collective, and the only content that its operands can have."""

    collective: Collective
    content: str


def crossings(
    collectives: Iterable[Collective], config: Config, params: Any, mesh: Mesh | AbstractMesh
) -> list[Crossing]:
    """Explain each collective by the shapes of its operands.

    - Parameters or their gradients: an operand with the sizes of one device's part of a parameter.
      In a sum over devices (all-reduce, reduce-scatter) the sizes of the whole parameter count too.
      Elsewhere they do not: a device that has the whole needs to send nothing. Otherwise one clip's
      tokens would pass as parameters, since they have the sizes of their positions.
    - Captions and nouns: E-wide vectors, at most K + 1 for each clip.
    - Figures: small operands without an axis of pixels, tokens or their width.
    - Unexplained: all else, above all anything with the size of pixels or video tokens.
    """
    known = _Known(config, params, mesh)
    return [Crossing(one, known.content(one)) for one in collectives]


class _Known:
    def __init__(self, config: Config, params: Any, mesh: Mesh | AbstractMesh) -> None:
        video = config.video
        tokens = video.windows * video.patches
        batch, nouns = config.batch, config.input.nouns
        local = batch // mesh.size
        leaves = [leaf.shape for leaf in jax.tree.leaves(params)]
        self._wholes = _forms(leaves)
        self._parts = _forms(part for shape in leaves for part in _parts(shape, mesh.shape["fsdp"]))
        self._batch, self._joint, self._texts = batch, config.joint_width, batch * (nouns + 1)
        self._clips = {batch, local, nouns, nouns + 1, batch * nouns, local * nouns}
        self._video = {
            video.resolution,
            video.width,
            tokens,
            video.sequence,
            video.patches,
        } - self._clips

    def content(self, collective: Collective) -> str:
        sums = collective.kind in ("all-reduce", "reduce-scatter")
        parameters = self._wholes | self._parts if sums else self._parts
        contents = {self._of(shape, parameters) for shape in collective.operands}
        for content in (UNEXPLAINED, PARAMETERS, TEXTS):
            if content in contents:
                return content
        return FIGURES

    def _of(self, shape: Shape, parameters: set[tuple[int, ...]]) -> str:
        sizes = [size for size in shape.sizes if size > 1]
        if tuple(sorted(sizes)) in parameters:
            return PARAMETERS
        if self._joint in sizes:
            sizes.remove(self._joint)
            if set(sizes) <= self._clips and math.prod(sizes) <= self._texts:
                return TEXTS
        small = shape.bytes <= _FIGURES * self._batch
        return FIGURES if small and not self._video & set(sizes) else UNEXPLAINED


def _parts(shape: tuple[int, ...], fsdp: int) -> Iterator[tuple[int, ...]]:
    """Yield the possible shapes of one device's part of a parameter, if fsdp is above 1."""
    for axis, size in enumerate(shape):
        if fsdp > 1 and size % fsdp == 0:
            yield (*shape[:axis], size // fsdp, *shape[axis + 1 :])


def _forms(shapes: Iterable[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """Return the sorted sizes of every form in which a compiler may write the shapes."""
    return {tuple(sorted(form)) for shape in shapes for form in _merged(shape)}


def _merged(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the shape without axes of 1, and the forms with neighbouring axes merged.

    >>> list(_merged((768, 12, 64)))
    [(768, 12, 64), (9216, 64), (589824,), (768, 768)]
    """
    sizes = tuple(size for size in shape if size > 1)
    yield sizes
    for axis in range(len(sizes) - 1):
        merged = (*sizes[:axis], sizes[axis] * sizes[axis + 1], *sizes[axis + 2 :])
        yield from _merged(merged) if axis == 0 else (merged,)
