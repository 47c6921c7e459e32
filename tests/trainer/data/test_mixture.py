import dataclasses

import numpy as np
import pytest

from trainer.data import order
from trainer.data.batches import train_batches
from trainer.data.mixture import Mixture, MixtureError
from trainer.data.snapshot import CorruptRecordError, Snapshot


@pytest.fixture
def two(write_snapshot):
    """Snapshots of 12 and 5 clips."""
    return [write_snapshot("many", clips=12, shards=2), write_snapshot("few", clips=5, shards=3)]


@pytest.fixture
def snapshots(two):
    return [Snapshot.open(written.folder) for written in two]


def test_records_are_numbered_through(two, snapshots):
    mixture = Mixture(snapshots)
    clips = [clip for written in two for clip in written.clips]
    assert len(mixture) == mixture.visits == 17
    wanted = np.array([16, 0, 11, 12, 5, 12])
    assert mixture.read(wanted) == [clips[i].SerializeToString() for i in wanted]
    assert mixture.clip_ids(wanted) == [clips[i].clip_id for i in wanted]
    for record, clip in enumerate(clips):
        where = mixture.locate(record)
        assert where.clip_id == clip.clip_id
        assert where.shard.startswith(str(two[record >= 12].folder))
    with pytest.raises(IndexError, match="it has 5 records"):
        mixture.locate(17)


def test_a_weight_does_not_overflow(snapshots):
    with pytest.raises(MixtureError, match="above the maximum"):
        Mixture(snapshots, [1e18, 1.0])


def test_a_snapshot_is_given_once(two, snapshots):
    with pytest.raises(MixtureError, match=f"{two[1].folder} and {two[1].folder} are the same"):
        Mixture([*snapshots, snapshots[1]])


def test_a_corrupt_record_has_the_mixtures_number(snapshots):
    where = snapshots[1].locate(3)
    with open(where.shard, "r+b") as shard:
        shard.seek(where.offset + 20)
        shard.write(b"\xff\xff")
    with pytest.raises(CorruptRecordError, match=f"few.* offset {where.offset} ") as raised:
        Mixture(snapshots).read(np.arange(17))
    assert raised.value.record == 15


def test_weights_are_visits_of_each_clip_an_epoch(snapshots):
    mixture = Mixture(snapshots, [0.5, 2.0])
    assert mixture.sources == (order.Source(12, 6), order.Source(5, 10))
    assert mixture.visits == 16
    with pytest.raises(ValueError, match=r"input\.weights has 1 for 2 snapshots"):
        Mixture(snapshots, [1.0])
    with pytest.raises(ValueError, match="few has 5 clips, and its weight samples none of them"):
        Mixture(snapshots, [1.0, 0.05])


def test_a_mixture_resumes_at_any_step_on_any_number_of_hosts(snapshots, tokenizer, small_config):
    """Clip ids over 3 epochs of 5 steps, with changing numbers of hosts."""
    mixture = Mixture(snapshots, [0.5, 3.0])
    config = dataclasses.replace(small_config, max_steps=13)

    def ids(start, hosts):
        parts = [
            train_batches(mixture, tokenizer, config, start_step=start, host=host, hosts=hosts)
            for host in range(hosts)
        ]
        return [
            [clip for _, _, clips in steps for clip in clips] for steps in zip(*parts, strict=True)
        ]

    whole = ids(start=0, hosts=1)
    assert len(whole) == 13
    for start, hosts in ((0, 2), (3, 4), (5, 1), (9, 2)):
        assert ids(start, hosts) == whole[start:]
    records = np.concatenate(
        [order.batch_records(config.seed, step, 4, mixture.sources)[1] for step in range(13)]
    )
    assert [clip for step in whole for clip in step] == mixture.clip_ids(records)
    epoch = records[:20]
    assert (np.bincount(epoch[epoch >= 12] - 12) == 3).sum() >= 4  # one clip of 21 is dropped
    assert np.bincount(epoch[epoch < 12]).max() == 1
