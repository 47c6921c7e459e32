"""Sample order as arithmetic: the records of each step's batch.

Every epoch visits the records in a different pseudo-random permutation of all of them. A step's
records follow from (seed, step) alone. So a resumed run continues exactly, without replay. Any
number of hosts sees the same global batches, each host a slice of rows.

In a mixture, each source has an exact number of visits per epoch, and the permutation covers all
visits. If the visits are not whole passes over the source, the next epoch continues with the
remaining records. So after any number of epochs the visits of a source's records differ by at most
one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

# Number of rounds of the index cipher, which must be even. TensorFlow's default of 4 leaves
# neighbours visibly correlated.
_ROUNDS = 16

_MAX_STEPS = 2**31 - 1


class Source(NamedTuple):
    """Numbers of records and visits of a snapshot."""

    records: int
    visits: int  # visits of its records per epoch


def steps_per_epoch(visits: int, batch: int) -> int:
    """Return the number of whole batches in an epoch of `visits` clips; drop the remainder.

    Raises:
      ValueError: not one whole batch fits.

    >>> steps_per_epoch(10, 4)
    2
    """
    if not 1 <= batch <= visits:
        raise ValueError(
            f"a batch of {batch} clips cannot be drawn from {visits} records: "
            "use a smaller batch or a larger snapshot"
        )
    return visits // batch


def total_steps(visits: int, batch: int, epochs: int, max_steps: int | None) -> int:
    """Return the number of steps of a run: those of `epochs`, at most `max_steps`.

    Raises:
      ValueError: not one whole batch fits, or the 32-bit step counter cannot hold the steps.

    >>> total_steps(10, 4, epochs=3, max_steps=None), total_steps(10, 4, epochs=3, max_steps=5)
    (6, 5)
    """
    steps = epochs * steps_per_epoch(visits, batch)
    steps = steps if max_steps is None else min(steps, max_steps)
    if steps > _MAX_STEPS:
        raise ValueError(
            f"{steps:,} steps exceed the maximum of {_MAX_STEPS:,}: set lower epochs or max_steps"
        )
    return steps


def records_at(
    seed: int, epoch: int, positions: Int64[np.ndarray, " n"], sources: Sequence[Source]
) -> Int64[np.ndarray, " n"]:
    """Return the records at the given positions of an epoch, numbered through all sources.

    Args:
      seed: the run's seed.
      epoch: index of the epoch, from 0.
      positions: each in 0 … (sum of the sources' visits) − 1.
      sources: the sources in their order.

    >>> twice = [Source(records=2, visits=4), Source(records=3, visits=3)]
    >>> sorted(records_at(seed=0, epoch=3, positions=np.arange(7), sources=twice).tolist())
    [0, 0, 1, 1, 2, 3, 4]
    """
    # The cipher's key schedule is weak. With the bare epoch number as key, a record's positions in
    # successive epochs are far from uniform. Hashing makes the keys unrelated.
    key = np.random.SeedSequence([seed, epoch])
    visits = _shuffled(key, positions, sum(source.visits for source in sources))
    records = np.empty_like(visits)
    first_visit = first_record = 0
    for number, source in enumerate(sources):
        mine = (first_visit <= visits) & (visits < first_visit + source.visits)
        since_start = epoch * source.visits + visits[mine] - first_visit
        passes, places = np.divmod(since_start, source.records)
        if source.visits % source.records:  # whole passes visit every record equally often
            for at in np.unique(passes):
                of_pass = passes == at
                key = np.random.SeedSequence([seed, int(at)], spawn_key=(number,))
                places[of_pass] = _shuffled(key, places[of_pass], source.records)
        records[mine] = first_record + places
        first_visit += source.visits
        first_record += source.records
    return records


def batch_records(
    seed: int, step: int, batch: int, sources: Sequence[Source]
) -> tuple[int, Int64[np.ndarray, " B"]]:
    """Return the epoch of a global step, and the record of each row of its global batch.

    >>> epoch, records = batch_records(seed=0, step=3, batch=4, sources=[Source(10, 10)])
    >>> epoch, records.shape
    (1, (4,))
    """
    epoch, positions = _positions(step, batch, sources)
    return epoch, records_at(seed, epoch, positions, sources)


def replacement(
    seed: int, step: int, batch: int, row: int, attempt: int, sources: Sequence[Source]
) -> int:
    """Return the record that replaces a row's corrupt record.

    The replacement is the record half an epoch earlier or later. So a batch does not get the same
    clip twice. It depends on no other row, so it does not depend on the host either.

    Args:
      seed: the run's seed.
      step: the global step.
      batch: number of rows of a global batch.
      row: index of the row in the global batch.
      attempt: 0, plus one for each earlier replacement that is corrupt too.
      sources: the sources in their order.

    >>> ten = [Source(10, 10)]
    >>> second = replacement(seed=0, step=0, batch=4, row=1, attempt=1, sources=ten)
    >>> second in batch_records(seed=0, step=1, batch=4, sources=ten)[1]
    True
    """
    epoch, positions = _positions(step, batch, sources)
    total = sum(source.visits for source in sources)
    other = (positions[row : row + 1] + total // 2 + attempt) % total
    return int(records_at(seed, epoch, other, sources)[0])


def _positions(
    step: int, batch: int, sources: Sequence[Source]
) -> tuple[int, Int64[np.ndarray, " B"]]:
    """Return the epoch of a global step, and its rows' positions in the epoch."""
    steps = steps_per_epoch(sum(source.visits for source in sources), batch)
    epoch, step_in_epoch = divmod(step, steps)
    return epoch, step_in_epoch * batch + np.arange(batch, dtype=np.int64)


def _shuffled(
    key: np.random.SeedSequence, places: Int64[np.ndarray, " n"], count: int
) -> Int64[np.ndarray, " n"]:
    """Return the images of the given positions under a permutation of 0 … count − 1."""
    from trainer.data.cpu_tensorflow import tf

    # This calls the op itself, since tf.random.experimental.index_shuffle fixes the rounds.
    shuffled = tf.raw_ops.RandomIndexShuffle(
        index=tf.constant(places, tf.int64),
        seed=tf.constant(key.generate_state(3)),
        max_index=tf.constant(count - 1, tf.int64),
        rounds=_ROUNDS,
    )
    return shuffled.numpy()


def host_rows(batch: int, host: int, hosts: int) -> slice:
    """Return the rows of each global batch that a host reads.

    Raises:
      ValueError: the hosts do not divide the batch, or `host` is out of range.

    >>> host_rows(batch=8, host=1, hosts=2)
    slice(4, 8, None)
    """
    if not 0 <= host < hosts:
        raise ValueError(f"host {host} must be in 0 … {hosts - 1}")
    if batch % hosts:
        raise ValueError(f"batch {batch} must be divisible by the number of hosts, {hosts}")
    rows = batch // hosts
    return slice(host * rows, (host + 1) * rows)
