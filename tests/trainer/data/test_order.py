import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data import order

SEEDS = st.integers(0, 2**40)


@given(seed=SEEDS, epoch=st.integers(0, 100), num_records=st.integers(1, 700))
def test_an_epoch_is_a_permutation(seed, epoch, num_records):
    records = order.records_at(seed, epoch, np.arange(num_records), num_records)
    np.testing.assert_array_equal(np.sort(records), np.arange(num_records))


@given(seed=SEEDS, num_records=st.integers(10, 3_000_000_000), data=st.data())
def test_a_record_depends_on_its_own_position_alone(seed, num_records, data):
    positions = data.draw(st.lists(st.integers(0, num_records - 1), min_size=1, max_size=20))
    together = order.records_at(seed, 2, np.array(positions), num_records)
    alone = [order.records_at(seed, 2, np.array([place]), num_records)[0] for place in positions]
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
        of_epoch, records = order.batch_records(seed, step, batch, num_records)
        assert of_epoch == epoch and records.shape == (batch,)
        seen.extend(records.tolist())
    assert len(set(seen)) == len(seen) == num_records // batch * batch


def test_the_order_is_the_one_that_earlier_releases_had():
    # Written by this code with TensorFlow 2.21. If this differs, runs cannot be resumed across
    # the change: the change is wrong, or a new major version.
    epoch, records = order.batch_records(seed=42, step=7, batch=8, num_records=20)
    assert (epoch, records.tolist()) == (3, [8, 5, 19, 17, 18, 9, 7, 0])


def test_places_of_a_record_are_uniform_over_epochs_and_neighbours_are_separated():
    epochs, num_records = 600, 100
    orders = np.stack(
        [order.records_at(1, epoch, np.arange(num_records), num_records) for epoch in range(epochs)]
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


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match="batch 8 must divide by the number of hosts, 3"):
        order.host_rows(8, 0, 3)
    with pytest.raises(ValueError, match="host 2 is not one of 0 … 1"):
        order.host_rows(8, 2, 2)
    with pytest.raises(ValueError, match="batch of 8 clips cannot be drawn from 7 records"):
        order.steps_per_epoch(7, 8)
