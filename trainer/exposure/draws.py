"""The rows of a run's batches that had some records, and what cut-and-paste made of them.

All is arithmetic on (seed, step, row), by the functions that training calls (data/order.py,
method/cut_and_paste.py). The cost grows with the records and the epochs, not with the steps.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Bool, Float, Int, Int64, UInt32

from trainer.configs.config import Config, CutAndPasteConfig
from trainer.data import order
from trainer.data.order import Draws, Source
from trainer.exposure.chain import Trained
from trainer.method.cut_and_paste import Splice, draw_splice
from trainer.method.run_scalars import seed_data
from trainer.method.train_step import SPLICE, clip_keys, for_purpose

# Number of draws whose splices are computed at once.
_AT_ONCE = 4096


class Order(NamedTuple):
    """All that a run's order of clips depends on."""

    config: Config
    sources: tuple[Source, ...]
    replaced: Mapping[tuple[int, int], int]  # final record of each row whose record was corrupt
    records: Int64[np.ndarray, " e"] | None = None  # record of each example of a task

    def draws(self, records: Int64[np.ndarray, " n"], steps: int) -> Draws:
        """Return the rows that had some distinct records in the first `steps` steps."""
        config, numbers = self.config, records
        if self.records is not None:
            (numbers,) = np.nonzero(np.isin(self.records, records))
        found = order.draws_of(config.seed, numbers, steps, config.batch, self.sources)
        if self.records is not None:
            found = found._replace(record=self.records[found.record])
        if not self.replaced:
            return found
        wanted = set(records.tolist())
        kept = [draw for draw in zip(*found, strict=True) if draw[:2] not in self.replaced]
        kept += [(*at, record) for at, record in self.replaced.items() if record in wanted]
        return Draws(*np.array(sorted(kept), np.int64).reshape(-1, 3).T)

    def records_at(
        self, steps: Int64[np.ndarray, " n"], rows: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        """Return the record in each of some rows of a pre-training run."""
        config, found = self.config, np.empty_like(steps)
        visits = sum(source.visits for source in self.sources)
        per_epoch = order.steps_per_epoch(visits, config.batch)
        epochs, of_epoch = np.divmod(steps, per_epoch)
        for epoch in np.unique(epochs):
            mine = epochs == epoch
            positions = of_epoch[mine] * config.batch + rows[mine]
            found[mine] = order.records_at(config.seed, int(epoch), positions, self.sources)
        if self.replaced:
            places = zip(steps.tolist(), rows.tolist(), found.tolist(), strict=True)
            changed = [self.replaced.get((step, row), record) for step, row, record in places]
            found = np.array(changed, np.int64)
        return found


def order_of(
    trained: Trained, sources: tuple[Source, ...], records: Int64[np.ndarray, " e"] | None
) -> Order:
    """Return the order of a run's clips.

    Args:
      trained: the run.
      sources: its snapshots.
      records: the record of each example of a fine-tuned run; None for pre-training.
    """
    replaced = {
        (line["step"] - 1, line["row"]): line["replacement"] for line in trained.skipped
    }  # a row's last line counts
    if records is not None:
        sources = (Source(len(records), len(records)),)
    return Order(trained.config, sources, replaced, records)


class Pasted(NamedTuple):
    """The splices of some draws, each a row of a batch."""

    background: Int64[np.ndarray, " n"]  # row whose clip fills the rest of this row's example
    share: Float[np.ndarray, " n"]  # share of that example's windows that this row's clip has
    foreground: Int64[np.ndarray, " n"]  # row whose example has this row's clip as background
    rest: Float[np.ndarray, " n"]  # share of that example's windows that this row's clip has


def pasted(config: Config, draws: Draws) -> Pasted:
    """Return the splices of draws at steps at which clips are spliced."""
    group = config.cut_and_paste.pair_group
    first, place = draws.row // group * group, draws.row % group
    parts = []
    for begin in range(0, len(first), _AT_ONCE):
        some = slice(begin, begin + _AT_ONCE)
        count = len(first[some])
        steps, firsts = (
            np.pad(x[some], (0, _AT_ONCE - count)).astype(np.int32) for x in (draws.step, first)
        )  # padded, so that it compiles once
        splices = _splices(
            seed_data(config.seed), steps, firsts, config.video.windows, config.cut_and_paste
        )
        parts.append(jax.tree.map(lambda x, count=count: np.asarray(x)[:count], splices))
    if not parts:
        return Pasted(*np.zeros((4, 0), np.int64))
    partner = np.concatenate([part.partner for part in parts]).astype(np.int64)
    share = np.concatenate([part.share for part in parts])
    every = np.arange(len(partner))
    other = np.argmax(partner == place[:, None], axis=1)
    return Pasted(
        background=first + partner[every, place],
        share=share[every, place],
        foreground=first + other,
        rest=1 - share[every, other],
    )


@partial(jax.jit, static_argnames=("windows", "config"))
def _splices(
    seed: UInt32[Any, " words"],
    steps: Int[Any, " n"],
    firsts: Int[Any, " n"],
    windows: int,
    config: CutAndPasteConfig,
) -> Splice:
    """Return the splices of groups of clips, with partners as indices in the group."""

    def of_group(step: Int[Array, ""], first: Int[Array, ""]) -> Splice:
        index = first + jnp.arange(config.pair_group, dtype=jnp.int32)
        keys = clip_keys(random.wrap_key_data(seed), step, index)
        return draw_splice(for_purpose(keys, SPLICE), windows, config)

    return jax.vmap(of_group)(jnp.asarray(steps), jnp.asarray(firsts))


def is_spliced(trained: Trained, steps: int, draws: Draws) -> Bool[np.ndarray, " n"]:
    """Return whether each draw is at a step at which clips are spliced.

    Args:
      trained: the run.
      steps: number of steps of the whole run, which its schedule depends on.
      draws: rows of its batches.
    """
    cut = trained.config.cut_and_paste
    if not cut.enabled or trained.task is not None:
        return np.zeros(len(draws.step), bool)
    return draws.step >= cut.first_step(steps)
