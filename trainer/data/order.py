"""Sample order as arithmetic: the records of each step's batch.

Every epoch visits the records in a different pseudo-random permutation of all of them. A step's
records follow from (seed, step) alone. So a resumed run continues exactly, without replay. Any
number of hosts sees the same global batches, each host a slice of rows.

In a mixture, each source has an exact number of visits per epoch, and the permutation covers all
visits. If the visits are not whole passes over the source, the next epoch continues with the
remaining records. So after any number of epochs the visits of a source's records differ by at most
one. A source may be restricted to some of its records (`Source.kept`), which are then all there is.

A source may also have a share of its visits for each record (`Source.ends`), proportional to a
weight. A record with c visits per epoch, which need not be whole, has in each epoch c visits,
rounded down or up. Over the first E epochs its visits differ from E·c by less than the number of
ones in E written in binary. So they are E·c rounded down or up after 1, 2, 4, 8, … epochs. (The
visits of an epoch sample the shares at equal distances. The offsets of successive epochs are van
der Corput's sequence, so the samples of 2^k epochs are at equal distances, too.)

The permutation has an inverse (index_cipher.py). So the steps that draw some records are computed
without a scan of all steps.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64, UInt

from trainer.data import index_cipher

_MAX_STEPS = 2**31 - 1
# Fractions of a visit in which records have shares of an epoch: an epoch has at most 2^40 visits.
_VISIT_BITS = 22
_VISIT = 1 << _VISIT_BITS


class Source(NamedTuple):
    """Numbers of records and visits of a snapshot, and the choice of its records."""

    records: int
    visits: int  # visits of its records per epoch
    kept: UInt[np.ndarray, " k"] | None = None  # the records to visit, ascending; None: all
    ends: Int64[np.ndarray, " records"] | None = None  # `ends_of_shares`; None: equal shares

    @property
    def places(self) -> int:
        """The number of records to visit, each as often as the others."""
        return self.records if self.kept is None else len(self.kept)


def ends_of_shares(
    weights: Float[np.ndarray, " records"], visits: int
) -> Int64[np.ndarray, " records"]:
    """Return where each record's share of an epoch ends, in 2^-22 of a visit.

    Args:
      weights: finite, 0 or more, with one above 0. A record of weight 0 has no visit.
      visits: the source's visits per epoch, at most 2^40.

    >>> (ends_of_shares(np.array([1.0, 0.0, 3.0]), visits=8) / 2**22).tolist()
    [2.0, 2.0, 8.0]
    """
    total = visits * _VISIT
    ends = np.cumsum(weights, dtype=np.float64)  # sequential, so the same on every machine
    ends *= total / ends[-1]
    ends = ends.astype(np.int64)
    np.minimum(ends, total, out=ends)
    ends[ends == ends[-1]] = total  # where rounding left less
    return ends


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
    visits = index_cipher.shuffled(_epoch_key(seed, epoch), positions, _visits(sources))
    records = np.empty_like(visits)
    first_visit = first_record = 0
    for number, source in enumerate(sources):
        mine = (first_visit <= visits) & (visits < first_visit + source.visits)
        of_source = _records_of(seed, epoch, number, source, visits[mine] - first_visit)
        records[mine] = first_record + of_source
        first_visit += source.visits
        first_record += source.records
    return records


def _records_of(
    seed: int, epoch: int, number: int, source: Source, visits: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Return the records at some of a source's visits of an epoch, before their permutation."""
    if source.ends is not None:
        points = visits * _VISIT + _offset(seed, epoch, number)
        return np.searchsorted(source.ends, points, side="right")
    passes, places = np.divmod(epoch * source.visits + visits, source.places)
    if source.visits % source.places:  # whole passes visit every record equally often
        for at in np.unique(passes):
            of_pass = passes == at
            key = _pass_key(seed, int(at), number)
            places[of_pass] = index_cipher.shuffled(key, places[of_pass], source.places)
    return places if source.kept is None else source.kept[places].astype(np.int64)


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
    total = _visits(sources)
    other = (positions[row : row + 1] + total // 2 + attempt) % total
    return int(records_at(seed, epoch, other, sources)[0])


class Draws(NamedTuple):
    """The rows of global batches that draw some records, in the order of steps and rows."""

    step: Int64[np.ndarray, " n"]  # from 0
    row: Int64[np.ndarray, " n"]  # index in the global batch
    record: Int64[np.ndarray, " n"]


def draws_of(
    seed: int,
    records: Int64[np.ndarray, " n"],
    steps: int,
    batch: int,
    sources: Sequence[Source],
) -> Draws:
    """Return all draws of some records in the first `steps` steps of a run.

    The cost grows with the records and the epochs, not with the steps: 0.5 µs per record and pass
    over its source, and 20 ms per pass over a source of fewer than 65,536 records.

    Args:
      seed: the run's seed.
      records: distinct records, numbered through all sources.
      steps: number of steps.
      batch: number of rows of a global batch.
      sources: the sources in their order.

    >>> ten = [Source(10, 10)]
    >>> found = draws_of(seed=0, records=np.array([7]), steps=20, batch=5, sources=ten)
    >>> all(7 in batch_records(0, step, 5, ten)[1] for step in found.step.tolist())
    True
    """
    per_epoch = steps_per_epoch(_visits(sources), batch)
    drawn = []
    for epoch in range(-(-steps // per_epoch)):
        visits, of_visits = _visits_of(seed, epoch, records, sources)
        key = _epoch_key(seed, epoch)
        positions = index_cipher.unshuffled(key, visits, _visits(sources))
        found = np.stack([positions, of_visits])
        found = found[:, positions < min(per_epoch, steps - epoch * per_epoch) * batch]
        found = found[:, np.argsort(found[0])]
        step, row = np.divmod(found[0], batch)
        drawn.append((step + epoch * per_epoch, row, found[1]))
    return Draws(*(np.concatenate(column) for column in zip(_NO_DRAWS, *drawn, strict=True)))


_NO_DRAWS = (np.zeros(0, np.int64),) * 3


def _visits_of(
    seed: int, epoch: int, records: Int64[np.ndarray, " n"], sources: Sequence[Source]
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Return the visits of some records in an epoch, before its permutation, and their records."""
    visits, of_visits = [_NO_DRAWS[0]], [_NO_DRAWS[0]]
    first_visit = first_record = 0
    for number, source in enumerate(sources):
        mine = records[(first_record <= records) & (records < first_record + source.records)]
        visits_of = _visits_by_pass if source.ends is None else _visits_by_share
        found, of_source = visits_of(seed, epoch, number, source, mine - first_record)
        visits.append(first_visit + found)
        of_visits.append(first_record + of_source)
        first_visit += source.visits
        first_record += source.records
    return np.concatenate(visits), np.concatenate(of_visits)


def _visits_by_pass(
    seed: int, epoch: int, number: int, source: Source, records: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Return `_visits_of` within a source whose records all have equal shares."""
    every, count = records, source.places
    if source.kept is not None:
        wanted = records.astype(source.kept.dtype)  # another type would copy `kept`
        every = np.searchsorted(source.kept, wanted)
        there = source.kept[np.minimum(every, count - 1)] == wanted
        records, every = records[there], every[there]
    begin, end = epoch * source.visits, (epoch + 1) * source.visits
    visits, of_visits = [_NO_DRAWS[0]], [_NO_DRAWS[0]]
    for at in range(begin // count, -(-end // count)):
        places = every
        if source.visits % count:
            places = index_cipher.unshuffled(_pass_key(seed, at, number), every, count)
        since_start = at * count + places
        inside = (begin <= since_start) & (since_start < end)
        visits.append(since_start[inside] - begin)
        of_visits.append(records[inside])
    return np.concatenate(visits), np.concatenate(of_visits)


def _visits_by_share(
    seed: int, epoch: int, number: int, source: Source, records: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Return `_visits_of` within a source whose records have shares of their own."""
    assert source.ends is not None
    offset = _offset(seed, epoch, number)
    begins = np.where(records > 0, source.ends[records - 1], 0)
    # The first visit at or after each bound: the quotient, rounded up.
    first, after = (-((offset - bound) // _VISIT) for bound in (begins, source.ends[records]))
    counts = after - first
    of_visits = np.repeat(records, counts)
    within = np.arange(len(of_visits)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(first, counts) + within, of_visits


def _positions(
    step: int, batch: int, sources: Sequence[Source]
) -> tuple[int, Int64[np.ndarray, " B"]]:
    """Return the epoch of a global step, and its rows' positions in the epoch."""
    steps = steps_per_epoch(_visits(sources), batch)
    epoch, step_in_epoch = divmod(step, steps)
    return epoch, step_in_epoch * batch + np.arange(batch, dtype=np.int64)


def _visits(sources: Sequence[Source]) -> int:
    """Return the number of clips per epoch."""
    return sum(source.visits for source in sources)


# The cipher's key schedule is weak. With the bare epoch number as key, a record's positions in
# successive epochs are far from uniform. Hashing makes the keys unrelated.
def _epoch_key(seed: int, epoch: int) -> np.random.SeedSequence:
    """Return the key of an epoch's permutation of all visits."""
    return np.random.SeedSequence([seed, epoch])


def _pass_key(seed: int, number: int, source: int) -> np.random.SeedSequence:
    """Return the key of a source's permutation in one pass over its records."""
    return np.random.SeedSequence([seed, number], spawn_key=(source,))


def _offset(seed: int, epoch: int, source: int) -> int:
    """Return where an epoch's first visit is in the shares, in 2^-22 of a visit, below one visit.

    >>> [(_offset(0, epoch, 0) - _offset(0, 0, 0)) % _VISIT / _VISIT for epoch in range(4)]
    [0.0, 0.5, 0.25, 0.75]
    """
    van_der_corput = int(f"{epoch % _VISIT:0{_VISIT_BITS}b}"[::-1], 2)
    shift = int(np.random.SeedSequence([seed], spawn_key=(source,)).generate_state(1)[0])
    return (van_der_corput + shift) % _VISIT


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
