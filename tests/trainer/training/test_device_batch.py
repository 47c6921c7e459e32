import dataclasses

import jax
import numpy as np

from trainer.data.batches import train_batches
from trainer.data.crop_size import device_crop_side
from trainer.data.mixture import Mixture
from trainer.data.snapshot import Snapshot
from trainer.distributed.mesh import one_device
from trainer.training.device_batch import on_devices, scaled


def scaling(config, where, **changes):
    return dataclasses.replace(
        config, input=dataclasses.replace(config.input, scale_on=where, **changes)
    )


def test_device_and_host_scale_alike(write_snapshot, small_config, tokenizer):
    """Test crops below, at and above the model's size, and too large for the device."""
    sides, flips, differing = set(), set(), 0
    for short in (24, 48):
        written = write_snapshot(str(short), clips=24, height=short, width=80)
        clips = Mixture([Snapshot.open(written.folder)])
        config = scaling(small_config, "host", short_side=36, scale=(0.9, 1.33))
        for (step, ours, names), (same_step, theirs, same_names) in zip(
            train_batches(clips, tokenizer, scaling(config, "device")),
            train_batches(clips, tokenizer, config),
            strict=True,
        ):
            assert (step, names) == (same_step, same_names)
            assert [clip.shape for clip in ours.frames.frames] == [(4, 36, 36, 3)] * 4
            sides |= set(ours.frames.side.tolist())
            flips |= set(ours.frames.flipped.tolist())
            placed = on_devices(ours, one_device(), resolution=32)
            for name, a, b in zip(placed._fields, placed, theirs, strict=True):
                assert a.dtype == b.dtype
                if name != "frames":
                    np.testing.assert_array_equal(a, b, err_msg=name)
            off = np.abs(np.asarray(placed.frames).astype(int) - theirs.frames)
            assert off.max() <= 1
            assert not off[ours.frames.side == 32].any()
            differing += np.count_nonzero(off)
    assert min(sides) < 24 and 32 in sides and max(sides) == 36 and len(flips) == 2
    pixels = 2 * 18 * 4 * 4 * 32 * 32 * 3
    assert differing < pixels / 10_000


def test_pixels_outside_a_crop_are_ignored():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 3, 20, 20, 3), np.uint8)
    side, flipped = np.array([11, 17], np.int32), np.array([False, True])
    other = frames.copy()
    for clip, length in zip(other, side, strict=True):
        clip[:, length:], clip[:, :, length:] = 255, 255
    of_each = jax.jit(scaled, static_argnames="resolution")
    one, two = (of_each(f, side, flipped, resolution=16) for f in (frames, other))
    np.testing.assert_array_equal(one, two)
    twice = of_each(frames, side, ~flipped, resolution=16)
    np.testing.assert_array_equal(twice, one[:, :, :, ::-1])


def test_room_is_for_crops_of_the_short_side_and_none_on_a_host(small_config):
    def of(where, *scale):
        return device_crop_side(scaling(small_config, where, scale=scale))

    assert of("device", 0.9, 1.33) == 36
    assert of("device", 1.2, 1.3) == 32  # what the host scales has the model's size
    assert of("device", 0.5, 1.0) == 48  # larger ones want antialiasing
    assert of("host", 0.9, 1.33) is None
    assert (of("auto", 0.9, 1.33) is None) == (jax.default_backend() == "cpu")
