import dataclasses
import itertools
import json
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest

from protos import tfrecord
from protos.v1 import clip_pb2
from trainer.data import order
from trainer.data.batches import ClipText, draw_prompts, eval_batches, train_batches
from trainer.data.mixture import Mixture
from trainer.data.snapshot import Snapshot, SnapshotError


@pytest.fixture
def snapshot(write_snapshot):
    """11 clips in 3 shards, wider than a crop."""
    return Snapshot.open(write_snapshot(clips=11, shards=3, height=32, width=44).folder)


@pytest.fixture
def mixture(snapshot):
    return Mixture([snapshot])


def assert_same(left, right):
    assert len(left) == len(right)
    for (step, batch, ids), (other_step, other_batch, other_ids) in zip(left, right, strict=True):
        assert (step, ids) == (other_step, other_ids)
        for name, a, b in zip(batch._fields, batch, other_batch, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)
            assert a.dtype == b.dtype


def test_a_batch_is_typed_and_holds_the_steps_clips(mixture, snapshot, tokenizer, small_config):
    steps = list(train_batches(mixture, tokenizer, small_config))
    assert [step for step, _, _ in steps] == list(range(6))
    for step, batch, clip_ids in steps:
        _, records = order.batch_records(small_config.seed, step, 4, [order.Source(11, 11)])
        assert clip_ids == [snapshot.locate(record).clip_id for record in records.tolist()]
        shapes = {name: (a.dtype.name, a.shape) for name, a in batch._asdict().items()}
        assert shapes == {
            "frames": ("uint8", (4, 4, 32, 32, 3)),
            "caption_ids": ("int32", (4, 12)),
            "caption_mask": ("bool", (4, 12)),
            "noun_ids": ("int32", (4, 2, 12)),
            "noun_mask": ("bool", (4, 2, 12)),
            "noun_valid": ("bool", (4, 2)),
            "index": ("int32", (4,)),
        }
        assert batch.index.tolist() == [0, 1, 2, 3]
        for row, record in enumerate(records):
            clip = clip_pb2.Clip.FromString(snapshot.read([int(record)])[0])
            ids, mask = tokenizer.encode([clip.caption], 12)
            np.testing.assert_array_equal(batch.caption_ids[row], ids[0])
            np.testing.assert_array_equal(batch.caption_mask[row], mask[0])
            nouns = min(len(clip.noun_chunks), 2)
            assert batch.noun_valid[row].tolist() == [True] * nouns + [False] * (2 - nouns)
            prompts = [p for chunk in clip.noun_chunks for p in chunk.prompts]
            allowed = {tuple(i) for i in tokenizer.encode(prompts, 12)[0]}
            assert {tuple(i) for i in batch.noun_ids[row][:nouns]} <= allowed
            # What stands in for a missing noun can be attended to: [CLS] [SEP].
            assert batch.noun_mask[row].sum(axis=1)[nouns:].tolist() == [2] * (2 - nouns)


def test_resuming_at_any_step_gives_the_rest(mixture, tokenizer, small_config):
    whole = list(train_batches(mixture, tokenizer, small_config))
    # Step 2 and 4 begin an epoch.
    for start in range(7):
        resumed = list(train_batches(mixture, tokenizer, small_config, start_step=start))
        assert_same(resumed, whole[start:])


def test_a_step_does_not_repeat_its_crops_in_the_next_epoch(mixture, tokenizer, small_config):
    frames = {}
    for _, batch, ids in train_batches(
        mixture, tokenizer, dataclasses.replace(small_config, epochs=8)
    ):
        for row, clip_id in enumerate(ids):
            frames.setdefault(clip_id, set()).add(batch.frames[row].tobytes())
    assert min(map(len, frames.values())) > 1


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_together_have_the_batches_of_one(mixture, tokenizer, small_config, hosts):
    whole = list(train_batches(mixture, tokenizer, small_config))
    parts = [
        train_batches(mixture, tokenizer, small_config, host=host, hosts=hosts)
        for host in range(hosts)
    ]
    joined = []
    for steps in zip(*parts, strict=True):
        batch = type(steps[0][1])(
            *(np.concatenate(arrays) for arrays in zip(*(s[1] for s in steps), strict=True))
        )
        joined.append((steps[0][0], batch, [clip_id for s in steps for clip_id in s[2]]))
    assert_same(joined, whole)


def test_max_steps_and_seed(mixture, tokenizer, small_config):
    short = dataclasses.replace(small_config, max_steps=3)
    first = list(train_batches(mixture, tokenizer, short))
    assert len(first) == 3
    other = list(train_batches(mixture, tokenizer, dataclasses.replace(short, seed=8)))
    assert [ids for _, _, ids in first] != [ids for _, _, ids in other]


def test_nouns_and_prompts_are_drawn_uniformly_and_without_repetition():
    chunks = [
        clip_pb2.NounChunk(text=text, prompts=[f"{text}{i}" for i in range(12)]) for text in "abc"
    ]
    drawn = [draw_prompts(chunks, 2, np.random.default_rng(seed)) for seed in range(2000)]
    assert all(first[0] != second[0] for first, second in drawn)
    counts = np.unique([prompt for pair in drawn for prompt in pair], return_counts=True)[1]
    assert len(counts) == 36
    assert counts.min() > 70 and counts.max() < 160  # 111 ± 10 expected
    assert draw_prompts([], 2, np.random.default_rng(0)) == []


@pytest.mark.parametrize("batch", [1, 4, 11, 16])
def test_evaluation_has_every_clip_once_in_order(write_snapshot, tokenizer, small_config, batch):
    written = write_snapshot(clips=11, shards=3)
    snapshot = Snapshot.open(written.folder)
    seen = []
    for arrays, texts in eval_batches(snapshot, tokenizer, small_config, batch):
        assert arrays.frames.shape == (batch, 4, 32, 32, 3)
        assert 1 <= len(texts) <= batch
        for row, _ in enumerate(texts):
            clip = written.clips[len(seen) + row]
            prompts = [chunk.prompts[0] for chunk in clip.noun_chunks[:2]]
            ids, _ = tokenizer.encode([*prompts, "", ""][:2], 12)
            np.testing.assert_array_equal(arrays.noun_ids[row], ids)
            assert arrays.noun_valid[row].sum() == len(prompts)
        seen.extend(texts)
    assert seen == [
        ClipText(
            clip.clip_id,
            clip.video_id,
            clip.start_us,
            clip.end_us,
            clip.caption,
            tuple(chunk.text for chunk in clip.noun_chunks[:2]),
        )
        for clip in written.clips
    ]


def damage(snapshot, record):
    where = snapshot.locate(record)
    with open(where.shard, "r+b") as shard:
        shard.seek(where.offset + where.length // 2)
        byte = shard.read(1)[0]
        shard.seek(-1, 1)
        shard.write(bytes([byte ^ 1]))
    return where.clip_id


def test_a_corrupt_record_stops_the_run_after_the_batches_before_it(
    write_snapshot, tokenizer, small_config
):
    written = write_snapshot(clips=11, shards=3)
    snapshot = Snapshot.open(written.folder)
    # In an epoch's second and last batch, so not in its first.
    damaged = int(order.batch_records(small_config.seed, 1, 4, [order.Source(11, 11)])[1][2])
    where = snapshot.locate(damaged)
    damage(snapshot, damaged)
    steps = train_batches(Mixture([snapshot]), tokenizer, small_config)
    assert next(steps)[0] == 0
    with pytest.raises(SnapshotError) as raised:
        next(steps)
    message = str(raised.value)
    assert pathlib.Path(where.shard).name in message and f"offset {where.offset} " in message
    assert where.clip_id in message and "\n" not in message


def test_corrupt_records_are_left_out_on_request(mixture, tokenizer, small_config):
    (snapshot,) = mixture.snapshots
    whole = list(train_batches(mixture, tokenizer, small_config))
    ids = snapshot.clip_ids(range(11))
    second = order.batch_records(small_config.seed, 1, 4, mixture.sources)[1].tolist()
    # One that is read, and the first and second that would be read in its place.
    others = [order.replacement(small_config.seed, 1, 4, 2, i, mixture.sources) for i in range(3)]
    damaged = [damage(snapshot, record) for record in (second[2], *others[:2])]
    assert len(set(damaged)) == 3 and ids[others[2]] not in damaged

    tolerant = dataclasses.replace(small_config.input, on_corrupt="skip")
    config = dataclasses.replace(small_config, input=tolerant)
    told = []
    steps = list(train_batches(mixture, tokenizer, config, on_skip=told.append))
    assert len(steps) == len(whole) and len(told) >= 3
    messages = [skipped.message for skipped in told]
    assert {clip for clip in damaged for line in messages if repr(clip) in line} == set(damaged)
    assert all("shard-" in message and " offset " in message for message in messages)
    of_row = [one[2:4] for one in told if one[:2] == (1, 2)]  # step, row; record, replacement
    assert of_row == list(itertools.pairwise([second[2], *others]))
    for (_, batch, got), (_, wanted, were) in zip(steps, whole, strict=True):
        assert not set(got) & set(damaged)
        for row, (clip, was) in enumerate(zip(got, were, strict=True)):
            assert (clip == was) == (was not in damaged)
            if clip == was:
                np.testing.assert_array_equal(batch.frames[row], wanted.frames[row])
    assert steps[1][2][2] == ids[others[2]]
    # What stands in for a record depends neither on where a run begins nor on its hosts.
    assert_same(list(train_batches(mixture, tokenizer, config, start_step=1)), steps[1:])
    halves = [train_batches(mixture, tokenizer, config, host=host, hosts=2) for host in (0, 1)]
    for first, last, (_, _, together) in zip(*halves, steps, strict=True):
        assert first[2] + last[2] == together


def test_a_snapshot_of_corrupt_records_alone_stops_a_run_all_the_same(
    write_snapshot, tokenizer, small_config
):
    snapshot = Snapshot.open(write_snapshot(clips=20, shards=1).folder)
    for record in range(20):
        damage(snapshot, record)
    tolerant = dataclasses.replace(small_config.input, on_corrupt="skip")
    config = dataclasses.replace(small_config, input=tolerant)
    with pytest.raises(SnapshotError, match="is corrupt at offset"):
        next(train_batches(Mixture([snapshot]), tokenizer, config))


def test_a_frame_that_is_no_jpeg_is_named(write_snapshot, tokenizer, small_config):
    written = write_snapshot(clips=8, shards=1)
    snapshot = Snapshot.open(written.folder)
    where = snapshot.locate(5)
    clip = written.clips[5]
    clip.frames[2] = b"\x00" * len(clip.frames[2])
    with open(where.shard, "r+b") as shard:
        shard.seek(where.offset)
        shard.write(tfrecord.frame(clip.SerializeToString()))
    steps = eval_batches(snapshot, tokenizer, small_config, batch=4)
    next(steps)
    with pytest.raises(SnapshotError, match=f"{clip.clip_id}.* cannot be decoded") as raised:
        next(steps)
    assert f"offset {where.offset}" in str(raised.value) and "\n" not in str(raised.value)
    assert "JPEG" in str(raised.value)  # what was wrong with it
    config = dataclasses.replace(
        small_config,
        input=dataclasses.replace(small_config.input, scale_on="device"),
        max_steps=3,
    )
    with pytest.raises(SnapshotError, match=f"{clip.clip_id}.* cannot be decoded.*JPEG"):
        list(train_batches(Mixture([snapshot]), tokenizer, config))


def test_unsuitable_snapshots_are_refused_before_reading(write_snapshot, tokenizer, small_config):
    mixture = Mixture([Snapshot.open(write_snapshot(frames=2).folder)])
    with pytest.raises(SnapshotError, match=r"has 2 frames per clip, .* takes 4: .*--frames 4"):
        next(train_batches(mixture, tokenizer, small_config))
    mixture = Mixture([Snapshot.open(write_snapshot("other").folder)])
    for changes, message in (
        (
            {"input": dataclasses.replace(small_config.input, scale=(0.9, 1.3))},
            "is below resolution",
        ),
        ({"text": dataclasses.replace(small_config.text, vocabulary=9)}, "the model 9"),
        ({"batch": 12}, "batch of 12 clips cannot be drawn from 11"),
    ):
        with pytest.raises(ValueError, match=message):
            next(train_batches(mixture, tokenizer, dataclasses.replace(small_config, **changes)))


def test_stopping_early_leaves_no_thread_behind(mixture, tokenizer, small_config):
    endless = dataclasses.replace(small_config, epochs=10_000)

    for after in (1, 5):
        steps = train_batches(mixture, tokenizer, endless)
        for _ in itertools.islice(steps, after):
            assert any(thread.name.startswith("decode") for thread in threading.enumerate())
        steps.close()
        assert not any(thread.name.startswith("decode") for thread in threading.enumerate())


def test_a_program_can_end_in_the_middle(write_snapshot, tokenizer, small_config, tmp_path):
    written = write_snapshot()
    tokenizer.save(tmp_path / "vocab.txt")
    (tmp_path / "config.json").write_text(
        json.dumps(dataclasses.asdict(dataclasses.replace(small_config, epochs=10_000)))
    )
    program = """
import pathlib
import sys
from trainer.configs.config import Config
from trainer.data.batches import train_batches
from trainer.data.mixture import Mixture
from trainer.data.snapshot import Snapshot
from trainer.data.tokenizer import Tokenizer
folder, vocabulary, config = sys.argv[1:]
config = Config.from_json(pathlib.Path(config).read_text())
mixture = Mixture([Snapshot.open(folder)])
steps = train_batches(mixture, Tokenizer.from_vocabulary(vocabulary), config)
print(next(steps)[0])
"""
    arguments = [written.folder, tmp_path / "vocab.txt", tmp_path / "config.json"]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    assert "Traceback" not in done.stderr
