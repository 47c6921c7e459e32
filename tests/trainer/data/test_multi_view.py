import dataclasses

import numpy as np
import pytest
import simplejpeg

from trainer.configs.overrides import override
from trainer.data import decode
from trainer.data.multi_view import view_batches
from trainer.data.snapshot import Snapshot, SnapshotError
from trainer.inference.encoder import frames_of


def all_views(snapshot, config, clips, crops):
    seen = []

    def progress(done, total):
        seen.append((done, total))

    batches = list(view_batches(snapshot, config, clips=clips, crops=crops, progress=progress))
    frames = np.concatenate([frames[:count] for frames, count in batches])
    assert seen[-1] == (len(frames), len(frames))
    return frames


@pytest.mark.parametrize(("height", "width"), [(32, 48), (48, 32)])
def test_clips_follow_one_another_and_crops_lie_along_the_longer_side(
    write_snapshot, small_config, height, width
):
    written = write_snapshot(clips=3, frames=9, height=height, width=width)
    views = all_views(Snapshot.open(written.folder), small_config, clips=2, crops=3)
    assert views.shape == (3 * 2 * 3, 4, 32, 32, 3)
    # Of frames 0–3 and 4–8 four each, the middle ones of equal stretches.
    places = ([0, 1, 2, 3], [4, 5, 7, 8])
    row = 0
    for clip in written.clips:
        frames = np.stack([simplejpeg.decode_jpeg(frame) for frame in clip.frames])
        for of_clip in places:
            for start in (0, 8, 16):
                part = frames[of_clip]
                part = part[:, :, start : start + 32] if width > height else part[:, start:][:, :32]
                # Decoders differ in how they bring chroma back to full size.
                off = np.abs(views[row].astype(int) - part.astype(int))
                assert off.mean() < 2, (row, off.mean())
                row += 1


def test_one_view_equals_the_evaluation_clip(write_snapshot, small_config):
    snapshot = Snapshot.open(write_snapshot(clips=5, frames=6, height=40, width=52).folder)
    config = override(small_config, ["input.short_side=36"])
    views = all_views(snapshot, config, clips=1, crops=1)
    assert (views == frames_of(snapshot, range(5), config)).all()


def test_too_few_frames_are_refused(write_snapshot, small_config):
    snapshot = Snapshot.open(write_snapshot(clips=2, frames=7).folder)
    with pytest.raises(
        SnapshotError, match="has 7 frames per clip, but 2 clips of 4 frames need 8"
    ):
        all_views(snapshot, small_config, clips=2, crops=1)


def test_a_second_call_traces_nothing(write_snapshot, small_config, monkeypatch):
    snapshot = Snapshot.open(write_snapshot(clips=2, frames=9).folder)
    traced, view_clip = [], decode.view_clip

    def counted(*arguments, **settings):
        traced.append(settings)
        return view_clip(*arguments, **settings)

    monkeypatch.setattr(decode, "view_clip", counted)
    first = all_views(snapshot, small_config, clips=2, crops=1)
    once = len(traced)
    again = all_views(snapshot, dataclasses.replace(small_config), clips=2, crops=1)
    assert once and len(traced) == once
    assert (first == again).all()
