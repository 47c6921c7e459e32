"""Cut-and-paste: a clip's windows pasted into another clip of the batch (section 3.2).

All random draws are keyed by (seed, step, global clip index). So they do not depend on the number
of devices or hosts of a batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from trainer.configs.config import CutAndPasteConfig

# Purpose of a key, folded into it, so that draws for different purposes are independent.
_ROLL, _SPAN = 0, 1


class Splice(NamedTuple):
    """A batch's blending: partners, masks and shares."""

    partner: Int[Array, " b"]  # p_i, index of the background clip in the batch; never i
    mask: Bool[Array, "b nt"]  # m_i, True at windows of the foreground v_i
    share: Float[Array, " b"]  # β_i = d/Nt


def roll_partners(keys: Key[Array, " b"], pair_group: int) -> Int[Array, " b"]:
    """Pair clips by a random roll inside consecutive groups of `pair_group`.

    Each group's roll, 1 … pair_group − 1, comes from its first clip's key.

    >>> roll_partners(random.split(random.key(0), 4), 2).tolist()
    [1, 0, 3, 2]
    """
    first = jax.vmap(lambda key: random.fold_in(key, _ROLL))(keys[::pair_group])
    roll = jax.vmap(lambda key: random.randint(key, (), 1, pair_group))(first)
    place = jnp.arange(pair_group)
    partner = (place[None, :] + roll[:, None]) % pair_group
    group_start = jnp.arange(0, len(keys), pair_group)
    return (group_start[:, None] + partner).reshape(-1)


def foreground_mask(
    start: Int[Array, " b"], length: Int[Array, " b"], windows: int
) -> Bool[Array, "b nt"]:
    """Return a mask that is True at windows start ≤ j < start + length.

    >>> foreground_mask(jnp.array([1]), jnp.array([2]), 4).astype(int).tolist()
    [[0, 1, 1, 0]]
    """
    j = jnp.arange(windows)[None, :]
    return (start[:, None] <= j) & (j < (start + length)[:, None])


def draw_spans(
    keys: Key[Array, " b"], windows: int, *, start_inclusive: bool
) -> tuple[Int[Array, " b"], Int[Array, " b"]]:
    """Draw d ~ U{Nt/2 … Nt−1} and s ~ U{0 … Nt−d−1}, or U{0 … Nt−d} if `start_inclusive`."""

    def draw(key: Key[Array, ""]) -> tuple[Int[Array, ""], Int[Array, ""]]:
        for_length, for_start = random.split(random.fold_in(key, _SPAN))
        length = random.randint(for_length, (), windows // 2, windows)
        start = random.randint(for_start, (), 0, windows - length + int(start_inclusive))
        return start, length

    return jax.vmap(draw)(keys)


def draw_splice(keys: Key[Array, " b"], windows: int, config: CutAndPasteConfig) -> Splice:
    """Draw partner, mask and share for each clip of a batch."""
    start, length = draw_spans(keys, windows, start_inclusive=config.start_inclusive)
    return Splice(
        partner=roll_partners(keys, config.pair_group),
        mask=foreground_mask(start, length, windows),
        share=length.astype(jnp.float32) / windows,
    )


def splice_at_step(
    keys: Key[Array, " b"],
    step: Int[Array, ""],
    windows: int,
    config: CutAndPasteConfig,
    first_step: Int[Array, ""],
) -> Splice:
    """Draw a training step's splice: the identity if disabled or before splicing begins.

    Args:
      keys: one key per clip.
      step: the run's step, from 0.
      windows: number of windows in a clip.
      config: says whether and how clips are spliced.
      first_step: the step, from 0, at which splicing begins.
    """
    whole = identity_splice(len(keys), windows)
    if not config.enabled:
        return whole
    drawn = draw_splice(keys, windows, config)
    begun = step >= first_step
    return jax.tree.map(lambda pasted, kept: jnp.where(begun, pasted, kept), drawn, whole)


def identity_splice(batch: int, windows: int) -> Splice:
    """Return a splice without cut-and-paste: every clip is all foreground, W is the identity."""
    return Splice(
        partner=jnp.arange(batch),
        mask=jnp.ones((batch, windows), bool),
        share=jnp.ones(batch),
    )


def paste(frames: Shaped[Array, "b t *pixel"], splice: Splice) -> Shaped[Array, "b t *pixel"]:
    """Blend clips: window j comes from v_i where m_ij, else from v_{p_i} at the same position."""
    tubelet = frames.shape[1] // splice.mask.shape[1]
    mask = jnp.repeat(splice.mask, tubelet, axis=1)
    mask = mask.reshape(mask.shape + (1,) * (frames.ndim - 2))
    return jnp.where(mask, frames, frames[splice.partner])


def label_weights(splice: Splice) -> Float[Array, "b b"]:
    """Return W^v of eq. 5: β_i at (i, i), 1 − β_i at (i, p_i). W^c is its transpose."""
    share = splice.share[:, None]
    batch, kind = len(share), share.dtype
    pasted = jax.nn.one_hot(splice.partner, batch, dtype=kind)
    return jnp.eye(batch, dtype=kind) * share + pasted * (1.0 - share)
