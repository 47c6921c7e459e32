import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trainer.data import index_cipher, order

SEEDS = st.integers(0, 2**40)


def once(num_records):
    return [order.Source(num_records, num_records)]


@given(seed=SEEDS, epoch=st.integers(0, 100), num_records=st.integers(1, 700))
def test_an_epoch_is_a_permutation(seed, epoch, num_records):
    records = order.records_at(seed, epoch, np.arange(num_records), once(num_records))
    np.testing.assert_array_equal(np.sort(records), np.arange(num_records))


@given(seed=SEEDS, num_records=st.integers(10, 3_000_000_000), data=st.data())
def test_a_record_depends_on_its_own_position_alone(seed, num_records, data):
    positions = data.draw(st.lists(st.integers(0, num_records - 1), min_size=1, max_size=20))
    together = order.records_at(seed, 2, np.array(positions), once(num_records))
    alone = [
        order.records_at(seed, 2, np.array([place]), once(num_records))[0] for place in positions
    ]
    assert together.tolist() == alone
    assert (together >= 0).all() and (together < num_records).all()


@given(
    seed=SEEDS, batch=st.integers(1, 20), num_records=st.integers(20, 90), epoch=st.integers(0, 5)
)
def test_batches_of_an_epoch_share_no_record_and_drop_the_remainder(
    seed, batch, num_records, epoch
):
    steps = order.steps_per_epoch(num_records, batch)
    seen = []
    for step in range(epoch * steps, (epoch + 1) * steps):
        of_epoch, records = order.batch_records(seed, step, batch, once(num_records))
        assert of_epoch == epoch and records.shape == (batch,)
        seen.extend(records.tolist())
    assert len(set(seen)) == len(seen) == num_records // batch * batch


def test_the_order_is_the_one_that_earlier_releases_had():
    # Written by this code with TensorFlow 2.21. If this differs, runs cannot be resumed across
    # the change: the change is wrong, or a new major version.
    epoch, records = order.batch_records(seed=42, step=7, batch=8, sources=once(20))
    assert (epoch, records.tolist()) == (3, [8, 5, 19, 17, 18, 9, 7, 0])


MIXTURES = st.lists(
    st.tuples(st.integers(1, 60), st.integers(1, 150)).map(lambda sizes: order.Source(*sizes)),
    min_size=1,
    max_size=4,
)


@st.composite
def chosen_sources(draw):
    """A source with all its records, with some of them, or with a weight for each."""
    records, visits = draw(st.integers(1, 60)), draw(st.integers(1, 150))
    kind = draw(st.sampled_from(("all", "kept", "weighted")))
    if kind == "all":
        return order.Source(records, visits)
    if kind == "kept":
        kept = draw(st.sets(st.integers(0, records - 1), min_size=1))
        return order.Source(records, visits, kept=np.array(sorted(kept), np.uint32))
    weights = st.just(0.0) | st.floats(1 / 64, 100, width=32)
    weights = draw(st.lists(weights, min_size=records, max_size=records).filter(any))
    ends = order.ends_of_shares(np.array(weights, np.float32), visits)
    return order.Source(records, visits, ends=ends)


CHOSEN = st.lists(chosen_sources(), min_size=1, max_size=3)


@settings(max_examples=40)
@given(seed=SEEDS, first=st.integers(0, 30), sources=MIXTURES)
def test_an_epoch_of_a_mixture_has_each_sources_visits_evenly_over_its_records(
    seed, first, sources
):
    ends = np.cumsum([0, *(source.records for source in sources)])
    positions = np.arange(sum(source.visits for source in sources))
    since = np.zeros(ends[-1], int)
    for epoch in (first, first + 1, first + 2):
        records = order.records_at(seed, epoch, positions, sources)
        visits = np.bincount(records, minlength=ends[-1])
        since += visits
        for source, start, end in zip(sources, ends[:-1], ends[1:], strict=True):
            of_source = visits[start:end]
            assert of_source.sum() == source.visits
            if source.visits % source.records == 0:
                assert (of_source == source.visits // source.records).all()
            # A pass over the source may have ended within these epochs' first or last visits.
            assert np.ptp(since[start:end]) <= (1 if first == 0 else 2)
            if first == 0:
                assert np.ptp(since[start:end]) <= 1


@given(
    seed=SEEDS,
    sources=MIXTURES | CHOSEN,
    batch=st.integers(1, 12),
    hosts=st.integers(1, 4),
    step=st.data(),
)
def test_hosts_share_the_batches_of_a_mixture(seed, sources, batch, hosts, step):
    batch *= hosts
    visits = sum(source.visits for source in sources)
    assume(batch <= visits)
    # Around an epoch's end, without anything read before.
    step = step.draw(st.integers(0, 2 * order.steps_per_epoch(visits, batch)))
    epoch, records = order.batch_records(seed, step, batch, sources)
    first = (step - epoch * (visits // batch)) * batch
    wanted = order.records_at(seed, epoch, np.arange(first, first + batch), sources)
    shares = [records[order.host_rows(batch, host, hosts)] for host in range(hosts)]
    assert np.concatenate(shares).tolist() == wanted.tolist()


def test_a_mixture_is_shuffled_as_a_whole():
    sources = [order.Source(500, 500), order.Source(100, 250)]
    records = order.records_at(1, 0, np.arange(750), sources)
    shares = (records >= 500).reshape(15, 50).mean(axis=1)
    assert shares.mean() == pytest.approx(1 / 3)
    assert 0.02 < shares.std() < 0.12  # drawn one by one it would be 0.067


@given(
    seed=SEEDS,
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    batch=st.integers(1, 20),
    data=st.data(),
)
def test_a_replacement_is_half_an_epoch_away(seed, counts, batch, data):
    sources, visits = [order.Source(count, count) for count in counts], sum(counts)
    assume(visits >= 2 * (batch + 8))
    step = data.draw(st.integers(0, 3 * (visits // batch)))
    row, attempt = data.draw(st.integers(0, batch - 1)), data.draw(st.integers(0, 7))
    epoch, records = order.batch_records(seed, step, batch, sources)
    found = order.replacement(seed, step, batch, row, attempt, sources)
    assert found not in records
    whole = order.records_at(seed, epoch, np.arange(visits), sources).tolist()
    assert (whole.index(found) - whole.index(records[row])) % visits == visits // 2 + attempt


def test_places_of_a_record_are_uniform_over_epochs_and_neighbours_are_separated():
    epochs, num_records = 600, 100
    orders = np.stack(
        [
            order.records_at(1, epoch, np.arange(num_records), once(num_records))
            for epoch in range(epochs)
        ]
    )
    # Chi-squared per degree of freedom of where in ten stretches a place's record comes from.
    expected = epochs / 10
    for place in range(0, num_records, 9):
        counts = np.bincount(orders[:, place] // 10, minlength=10)
        assert ((counts - expected) ** 2 / expected).sum() / 9 < 3.5
    successors = np.abs(np.diff(orders, axis=1)) == 1
    assert 0.8 < successors.mean() * num_records / 2 < 1.2


@pytest.mark.parametrize("hosts", [1, 2, 3, 6])
def test_hosts_share_a_batch(hosts):
    rows = np.concatenate([np.arange(6)[order.host_rows(6, host, hosts)] for host in range(hosts)])
    assert rows.tolist() == list(range(6))


def test_indivisible_batches_are_refused():
    with pytest.raises(ValueError, match="batch 8 must be divisible by the number of hosts, 3"):
        order.host_rows(8, 0, 3)
    with pytest.raises(ValueError, match="host 2 must be in 0 … 1"):
        order.host_rows(8, 2, 2)
    with pytest.raises(ValueError, match="batch of 8 clips cannot be drawn from 7 records"):
        order.steps_per_epoch(7, 8)


@given(seed=SEEDS, count=st.integers(1, 3_000_000_000), data=st.data())
def test_the_permutation_has_an_inverse(seed, count, data):
    places = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=8, unique=True))
    key, places = np.random.SeedSequence(seed), np.array(places)
    images = index_cipher.shuffled(key, places, count)
    np.testing.assert_array_equal(index_cipher.unshuffled(key, images, count), places)


# At 2**16 + 1 and 2**18 + 1 TensorFlow's blocks lack the last number.
@pytest.mark.parametrize("count", [2**16, 2**16 + 1, 2**16 + 2, 2**18 + 1])
def test_every_number_is_drawn_once(count):
    key = np.random.SeedSequence(3)
    images = index_cipher.shuffled(key, np.arange(count), count)
    assert np.sort(images).tolist() == list(range(count))
    np.testing.assert_array_equal(index_cipher.unshuffled(key, images, count), np.arange(count))


@given(seed=SEEDS, first=st.integers(0, 30), data=st.data())
def test_kept_records_are_visited_as_a_snapshot_of_their_own(seed, first, data):
    kept = sorted(data.draw(st.sets(st.integers(0, 59), min_size=1)))
    visits = data.draw(st.integers(1, 150))
    some = order.Source(60, visits, kept=np.array(kept, np.uint32))
    found = order.records_at(seed, first, np.arange(visits), [some])
    alone = order.records_at(seed, first, np.arange(visits), [order.Source(len(kept), visits)])
    assert found.tolist() == np.array(kept)[alone].tolist()


@settings(max_examples=40)
@given(
    seed=SEEDS,
    weights=st.lists(
        st.just(0.0) | st.floats(1 / 1024, 1000, width=32), min_size=1, max_size=40
    ).filter(any),
    visits=st.integers(1, 100),
)
def test_visits_by_weight_are_exact_over_epochs(seed, weights, visits):
    count, weights = len(weights), np.array(weights, np.float64)
    sources = [order.Source(count, visits, ends=order.ends_of_shares(weights, visits))]
    expected, since = weights / weights.sum() * visits, np.zeros(count, int)
    for epoch in range(17):
        records = order.records_at(seed, epoch, np.arange(visits), sources)
        of_epoch = np.bincount(records, minlength=count)
        assert of_epoch.sum() == visits
        assert (np.abs(of_epoch - expected) < 1 + 1e-6).all()
        assert not of_epoch[weights == 0].any()
        since += of_epoch
        ones = (epoch + 1).bit_count()
        assert (np.abs(since - (epoch + 1) * expected) < ones + 1e-5).all()


def test_shares_below_a_visit_and_far_above():
    weights = np.array([0, 1e-30, 1, 3e38, 0], np.float32)
    ends = order.ends_of_shares(weights, 2**40)
    assert ends[0] == 0 and ends[-1] == ends[-2] == 2**62 and (np.diff(ends) >= 0).all()


@settings(max_examples=20)
@given(seed=SEEDS, sources=MIXTURES | CHOSEN, batch=st.integers(1, 12), data=st.data())
def test_draws_are_all_rows_that_have_a_record(seed, sources, batch, data):
    visits = sum(source.visits for source in sources)
    assume(batch <= visits)
    steps = data.draw(st.integers(0, 2 * (visits // batch)))
    records = sum(source.records for source in sources)
    wanted = np.array(data.draw(st.lists(st.integers(0, records - 1), unique=True)), np.int64)
    found = order.draws_of(seed, wanted, steps, batch, sources)
    batches = [order.batch_records(seed, step, batch, sources)[1] for step in range(steps)]
    expected = [
        (step, row, record)
        for step, of_step in enumerate(batches)
        for row, record in enumerate(of_step.tolist())
        if record in wanted
    ]
    columns = [column.tolist() for column in found]
    assert list(zip(*columns, strict=True)) == expected
