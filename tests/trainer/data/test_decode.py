import dataclasses
import functools
import io

import numpy as np
import pytest
from PIL import Image

from protos.v1 import clip_pb2
from trainer.data.cpu_tensorflow import tf
from trainer.data.decode import evaluation_clip, training_clip


def reference_frames(clip):
    """Decode all frames with another decoder: uint8 [frames, height, width, 3]."""
    return np.stack([np.asarray(Image.open(io.BytesIO(frame))) for frame in clip.frames])


@functools.cache
def compiled(decode, config):
    return tf.function(functools.partial(decode, config=config), autograph=False)


def train(clip, config, seed):
    record, seed = tf.constant(clip.SerializeToString()), tf.constant(seed, tf.int64)
    return compiled(training_clip, config)(record, seed)["frames"].numpy()


def evaluate(clip, config):
    record = tf.constant(clip.SerializeToString())
    return compiled(evaluation_clip, config)(record, None)["frames"].numpy()


def with_input(config, **changes):
    return dataclasses.replace(config, input=dataclasses.replace(config.input, **changes))


def test_fields_are_the_records(write_snapshot, small_config):
    for clip in write_snapshot(clips=4).clips:
        fields = evaluation_clip(tf.constant(clip.SerializeToString()), None, small_config)
        assert fields["start_us"].numpy() == clip.start_us
        assert fields["end_us"].numpy() == clip.end_us
        for name in ("clip_id", "video_id", "caption"):
            assert fields[name].numpy() == getattr(clip, name).encode()
        chunks = [chunk.SerializeToString() for chunk in clip.noun_chunks]
        assert fields["noun_chunks"].numpy().tolist() == chunks


def test_unknown_fields_pass(write_snapshot, small_config):
    clip = write_snapshot(clips=1, shards=1).clips[0]
    # Field 200, a varint: what a later 1.x might have added.
    record = b"\xc0\x0c\x05" + clip.SerializeToString()
    frames = evaluation_clip(tf.constant(record), None, small_config)["frames"].numpy()
    np.testing.assert_array_equal(frames, reference_frames(clip))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 57), (41, 32)])
def test_evaluation_without_scaling_takes_the_centre_exactly(
    write_snapshot, small_config, height, width
):
    clip = write_snapshot(clips=1, shards=1, height=height, width=width).clips[0]
    top, left = (height - 32) // 2, (width - 32) // 2
    np.testing.assert_array_equal(
        evaluate(clip, small_config),
        reference_frames(clip)[:, top : top + 32, left : left + 32],
    )


def as_png(pixels):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "png")
    return data.getvalue()


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        (clip_pb2.FRAME_ENCODING_PNG, as_png),
        (clip_pb2.FRAME_ENCODING_RAW, np.ndarray.tobytes),
    ],
)
def test_frames_of_other_encodings_are_the_pixels_that_went_in(
    write_snapshot, small_config, encoding, encode
):
    clip = write_snapshot(clips=1, shards=1, height=37, width=57).clips[0]
    pixels = reference_frames(clip)
    scaled = with_input(small_config, short_side=36, scale=(0.9, 1.33))
    crops = [train(clip, scaled, (seed, 0)) for seed in range(3)]
    clip.frame_encoding = encoding
    clip.frames[:] = [encode(frame) for frame in pixels]
    straight = with_input(small_config, short_side=37)
    np.testing.assert_array_equal(evaluate(clip, straight), pixels[:, 2:34, 12:44])
    for seed, crop in enumerate(crops):  # JPEG's, after its decoder the same pixels
        np.testing.assert_array_equal(train(clip, scaled, (seed, 0)), crop)


@pytest.mark.parametrize("encoding", [clip_pb2.FRAME_ENCODING_UNSPECIFIED, 4])
def test_an_unknown_encoding_is_refused(write_snapshot, small_config, encoding):
    clip = write_snapshot(clips=1, shards=1).clips[0]
    clip.frame_encoding = encoding
    with pytest.raises(tf.errors.InvalidArgumentError):
        evaluate(clip, small_config)


def test_raw_frames_of_another_length_are_refused(write_snapshot, small_config):
    clip = write_snapshot(clips=1, shards=1).clips[0]
    clip.frame_encoding = clip_pb2.FRAME_ENCODING_RAW
    clip.frames[:] = [bytes(32 * 32 * 3 - 1)] * 4
    with pytest.raises(tf.errors.InvalidArgumentError):
        evaluate(clip, small_config)


def test_training_without_scaling_cuts_one_place_of_all_frames_exactly(
    write_snapshot, small_config
):
    clip = write_snapshot(clips=1, shards=1, height=32, width=40).clips[0]
    whole = reference_frames(clip)
    places = {
        (left, flip): whole[:, :, left : left + 32][:, :, :: -1 if flip else 1]
        for left in range(9)
        for flip in (False, True)
    }
    found = set()
    for seed in range(150):
        frames = train(clip, small_config, (seed, 0))
        matches = [place for place, wanted in places.items() if np.array_equal(frames, wanted)]
        assert len(matches) == 1
        found.update(matches)
    assert found == set(places)
    straight = with_input(small_config, flip=False)
    kept = {
        left
        for seed in range(20)
        for left in range(9)
        if np.array_equal(train(clip, straight, (seed, 0)), places[left, False])
    }
    assert len(kept) > 3


def test_scaled_crops_are_of_one_square_for_all_frames_of_a_clip(write_snapshot, small_config):
    clip = write_snapshot(clips=1, shards=1, height=48, width=80).clips[0]
    clip.frames[:] = [clip.frames[0]] * 4
    config = with_input(small_config, short_side=36, scale=(0.9, 1.33))
    crops = [train(clip, config, (seed, 1)) for seed in range(12)]
    for crop in crops:
        np.testing.assert_array_equal(crop, np.broadcast_to(crop[:1], crop.shape))
    assert len({crop.tobytes() for crop in crops}) == len(crops)
    np.testing.assert_array_equal(crops[3], train(clip, config, (3, 1)))


@pytest.mark.parametrize("short_side", [32, 40, 20])
def test_scaling_is_close_to_that_of_another_library(write_snapshot, small_config, short_side):
    """Scale 64 pixels by 1/2 and 1/1.6 with antialiasing, and by 1/3.2 for a smaller model."""
    clip = write_snapshot(clips=1, shards=1, height=64, width=96).clips[0]
    resolution = min(short_side, 32) // 16 * 16
    video = dataclasses.replace(small_config.video, resolution=resolution)
    config = with_input(dataclasses.replace(small_config, video=video), short_side=short_side)
    side = round(resolution * 64 / short_side)
    top, left = (64 - side) // 2, (96 - side) // 2
    wanted = [
        Image.fromarray(frame)
        .crop((left, top, left + side, top + side))
        .resize((resolution, resolution), Image.Resampling.BILINEAR)
        for frame in reference_frames(clip)
    ]
    difference = evaluate(clip, config).astype(int) - np.stack([np.asarray(f) for f in wanted])
    assert np.abs(difference).max() <= 1


def test_frames_are_picked_evenly(write_snapshot, small_config):
    clip = write_snapshot(clips=1, frames=12, shards=1).clips[0]
    np.testing.assert_array_equal(
        evaluate(clip, small_config), reference_frames(clip)[[1, 4, 7, 10]]
    )


def test_too_few_frames_are_refused(write_snapshot, small_config):
    clip = write_snapshot(clips=1, frames=3, shards=1).clips[0]
    with pytest.raises(tf.errors.InvalidArgumentError, match="too few frames"):
        evaluate(clip, small_config)


def test_frames_that_are_smaller_than_the_record_says_are_refused(write_snapshot, small_config):
    clip = write_snapshot(clips=1, shards=1).clips[0]
    clip.width = clip.height = 64
    with pytest.raises(tf.errors.InvalidArgumentError):
        evaluate(clip, with_input(small_config, short_side=64))
