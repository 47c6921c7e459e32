"""Sample order as arithmetic: which records make up the batch of a step.

Every epoch visits the records in another pseudo-random permutation of all of them. A step's
records follow from (seed, step) alone, so a resumed run continues exactly, without replay, and
any number of hosts sees the same global batches, each host a slice of rows.
"""

import numpy as np
from jaxtyping import Int64

# Of the index cipher; even. TensorFlow's default of 4 leaves neighbours visibly correlated.
_ROUNDS = 16


def steps_per_epoch(num_records: int, batch: int) -> int:
    """Whole batches in an epoch; the remainder is dropped.

    Raises:
      ValueError: there is not one whole batch.

    >>> steps_per_epoch(10, 4)
    2
    """
    if not 1 <= batch <= num_records:
        raise ValueError(
            f"a batch of {batch} clips cannot be drawn from {num_records} records: "
            "use a smaller batch or a larger snapshot"
        )
    return num_records // batch


def total_steps(num_records: int, batch: int, epochs: int, max_steps: int | None) -> int:
    """Steps of a whole run: `epochs` of them, or `max_steps` if that is fewer.

    >>> total_steps(10, 4, epochs=3, max_steps=None), total_steps(10, 4, epochs=3, max_steps=5)
    (6, 5)
    """
    steps = epochs * steps_per_epoch(num_records, batch)
    return steps if max_steps is None else min(steps, max_steps)


def records_at(
    seed: int, epoch: int, positions: Int64[np.ndarray, " n"], num_records: int
) -> Int64[np.ndarray, " n"]:
    """The records at the given positions, each in 0 … num_records − 1, of an epoch's permutation.

    >>> sorted(records_at(seed=0, epoch=3, positions=np.arange(5), num_records=5).tolist())
    [0, 1, 2, 3, 4]
    """
    from trainer.data.cpu_tensorflow import tf

    # The cipher's key schedule is weak: with the bare epoch number as key, a record's places in
    # successive epochs are far from uniform. Hashing makes the keys unrelated.
    key = np.random.SeedSequence([seed, epoch]).generate_state(3)
    # The op itself, since tf.random.experimental.index_shuffle fixes the rounds.
    shuffled = tf.raw_ops.RandomIndexShuffle(
        index=tf.constant(positions, tf.int64),
        seed=tf.constant(key),
        max_index=tf.constant(num_records - 1, tf.int64),
        rounds=_ROUNDS,
    )
    return shuffled.numpy()


def batch_records(
    seed: int, step: int, batch: int, num_records: int
) -> tuple[int, Int64[np.ndarray, " B"]]:
    """The epoch that a global step belongs to, and the record of each row of its global batch.

    >>> epoch, records = batch_records(seed=0, step=3, batch=4, num_records=10)
    >>> epoch, records.shape
    (1, (4,))
    """
    epoch, step_in_epoch = divmod(step, steps_per_epoch(num_records, batch))
    positions = step_in_epoch * batch + np.arange(batch, dtype=np.int64)
    return epoch, records_at(seed, epoch, positions, num_records)


def host_rows(batch: int, host: int, hosts: int) -> slice:
    """The rows of each global batch that a host reads.

    Raises:
      ValueError: the batch does not divide by the hosts, or there is no such host.

    >>> host_rows(batch=8, host=1, hosts=2)
    slice(4, 8, None)
    """
    if not 0 <= host < hosts:
        raise ValueError(f"host {host} is not one of 0 … {hosts - 1}")
    if batch % hosts:
        raise ValueError(f"batch {batch} must divide by the number of hosts, {hosts}")
    rows = batch // hosts
    return slice(host * rows, (host + 1) * rows)
