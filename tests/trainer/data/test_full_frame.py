import dataclasses

import numpy as np
import pytest

from protos.v1 import clip_pb2
from trainer.data import decode
from trainer.data.full_frame import full_frame_batches
from trainer.data.snapshot import Snapshot, SnapshotError


def raw(clip, height, width, number):
    """Frames whose values encode the clip and the column."""
    pixels = np.full((height, width, 3), number, np.uint8)
    pixels[:, :, 1] = np.arange(width)
    clip.frame_encoding = clip_pb2.FRAME_ENCODING_RAW
    clip.height, clip.width = height, width
    clip.frames[:] = [pixels.tobytes()] * 4


def test_pictures_of_each_shape_come_whole_and_in_batches_of_their_own(
    write_snapshot, small_config
):
    shapes = [(32, 64), (64, 32), (32, 64), (64, 128), (32, 64)]

    def annotate(clip, number):
        height, width = shapes[number]
        raw(clip, height, width, number)

    snapshot, seen = Snapshot.open(write_snapshot(clips=5, annotate=annotate).folder), []
    sizes = {record: shapes[record] for record in (0, 1, 2, 3)}  # not the last
    batches = list(
        full_frame_batches(snapshot, sizes, small_config, 2, lambda *done: seen.append(done))
    )
    assert [records.tolist() for records, _ in batches] == [[0, 2], [3], [1]]
    assert [frames.shape for _, frames in batches] == [
        (2, 4, 32, 64, 3),
        (2, 4, 32, 64, 3),
        (1, 4, 64, 32, 3),
    ]
    assert seen == [(2, 4), (3, 4), (4, 4)]
    for records, frames in batches:
        for record, of_clip in zip(records, frames, strict=False):
            assert (of_clip[..., 0] == record).all()
            height, width = of_clip.shape[1:3]
            scale = shapes[record][1] / width
            columns = np.broadcast_to(np.arange(width) * scale + (scale - 1) / 2, (height, width))
            np.testing.assert_allclose(of_clip[0, ..., 1], columns, atol=1)


def test_too_few_frames_are_refused(write_snapshot, small_config):
    snapshot = Snapshot.open(write_snapshot(clips=2, frames=3).folder)
    with pytest.raises(SnapshotError, match="has 3 frames per clip, but the model takes 4"):
        next(full_frame_batches(snapshot, {0: (32, 32)}, small_config, 2, lambda *_: None))


def test_a_second_call_traces_nothing(write_snapshot, small_config, monkeypatch):
    sides = (32, 48)

    def annotate(clip, number):
        raw(clip, 32, sides[number], number)

    snapshot = Snapshot.open(write_snapshot(clips=2, annotate=annotate).folder)
    sizes = {record: (32, side) for record, side in enumerate(sides)}
    traced, full_frame_clip = [], decode.full_frame_clip

    def counted(*arguments, **settings):
        traced.append(settings["grid"])
        return full_frame_clip(*arguments, **settings)

    monkeypatch.setattr(decode, "full_frame_clip", counted)
    first = list(full_frame_batches(snapshot, sizes, small_config, 2, lambda *_: None))
    once = len(traced)
    again = list(
        full_frame_batches(snapshot, sizes, dataclasses.replace(small_config), 2, lambda *_: None)
    )
    assert len(set(traced)) == 2 and len(traced) == once
    for before, after in zip(first, again, strict=True):
        np.testing.assert_array_equal(before[1], after[1])
