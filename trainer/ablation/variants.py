"""The variants of each study: their names and their options for `pretrain`."""

from collections.abc import Sequence
from typing import NamedTuple

from trainer.errors import UserError


class StudyError(UserError, ValueError):
    """A study that cannot be made as asked, or that failed."""


class Variant(NamedTuple):
    """One row of a study's table."""

    name: str
    options: tuple[str, ...]  # for `svilm-train pretrain`
    base: str | None = None  # the baseline; None: no comparison


def losses(snapshots: Sequence[str]) -> list[Variant]:
    """Return the variants of table 6: the contrastive loss with and without the other losses.

    The paper does not say whether its rows without the temporal loss have spliced clips. The study
    runs both: with whole clips and, "pasted", with spliced clips. Pasted rows differ from the rows
    with the temporal loss in that loss alone. [reading]

    >>> for variant in losses(["train"]):
    ...     print(f"{variant.name} − {variant.base}")
    contrast − None
    contrast, pasted − contrast
    contrast + grounding − contrast
    contrast + grounding, pasted − contrast, pasted
    contrast + temporal − contrast, pasted
    all − contrast, pasted
    """
    no_temporal = ("--set", "loss.temporal_weight=0")
    whole = ("--set", "cut_and_paste.enabled=false")
    no_grounding = ("--set", "loss.grounding_weight=0")
    data = _snapshots(snapshots)
    spliced = "contrast, pasted"
    return [
        Variant("contrast", data + no_temporal + whole + no_grounding),
        Variant(spliced, data + no_temporal + no_grounding, "contrast"),
        Variant("contrast + grounding", data + no_temporal + whole, "contrast"),
        Variant("contrast + grounding, pasted", data + no_temporal, spliced),
        Variant("contrast + temporal", data + no_grounding, spliced),
        Variant("all", data, spliced),
    ]


def data(mixtures: Sequence[str]) -> list[Variant]:
    """Return the variants of table 5: the training data.

    Args:
      mixtures: each NAME=SNAPSHOT or NAME=SNAPSHOT,SNAPSHOT….

    Raises:
      StudyError: a mixture has another form, or two have the same name.

    >>> data(["both=a,b"])
    [Variant(name='both', options=('--snapshot', 'a', '--snapshot', 'b'), base=None)]
    """
    variants = []
    for mixture in mixtures:
        name, equals, folders = mixture.partition("=")
        if not (name and equals and all(folders.split(","))):
            raise StudyError(f"--data {mixture!r} must be NAME=SNAPSHOT[,SNAPSHOT…]")
        first = variants[0].name if variants else None
        variants.append(Variant(name, _snapshots(folders.split(",")), first))
    names = [variant.name for variant in variants]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise StudyError(f"--data has two mixtures named {twice[0]}: give each its own name")
    return variants


def frames(snapshots: Sequence[str], counts: Sequence[int]) -> list[Variant]:
    """Return the variants of table 12: frames per clip.

    Snapshots must have at least as many frames as the largest count.

    >>> frames(["train"], [16])[0].options[2:]
    ('--set', 'video.frames=16')
    """
    first, *others = (
        Variant(f"{count} frames", (*_snapshots(snapshots), "--set", f"video.frames={count}"))
        for count in counts
    )
    return [first, *(other._replace(base=first.name) for other in others)]


def _snapshots(folders: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for folder in folders for word in ("--snapshot", folder))
