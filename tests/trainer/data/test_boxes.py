import functools

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from protos.v1 import clip_pb2
from trainer.configs.overrides import override
from trainer.data.boxes import Boxes, to_view
from trainer.data.cpu_tensorflow import tf
from trainer.data.decode import training_clip

shares = st.integers(0, 64).map(lambda place: place / 64)
spans = st.tuples(shares, shares).map(sorted)


def boxes_of(draw):
    (x1, x2), (y1, y2) = draw
    return np.array([x1, y1, x2, y2])


@given(st.lists(st.tuples(spans, spans), min_size=1, max_size=4), spans, spans, st.booleans())
def test_a_box_is_clipped_to_its_view(drawn, across, down, mirrored):
    assume(across[0] < across[1] and down[0] < down[1])
    boxes = np.stack([boxes_of(one) for one in drawn])
    left, right = reversed(across) if mirrored else across
    view = np.array([left, down[0], right, down[1]])
    found = to_view(boxes[None], view[None])[0]
    assert ((found >= 0) & (found <= 1)).all()
    assert (found[:, :2] <= found[:, 2:]).all()
    # Back in the picture it is the box cut to the view.
    corner, size = view[[0, 1, 0, 1]], (view[2:] - view[:2])[[0, 1, 0, 1]]
    back = corner + found * size
    if mirrored:
        back = back[:, [2, 1, 0, 3]]
    edges = np.array([across[0], down[0], across[1], down[1]])
    expected = np.clip(boxes, edges[[0, 1, 0, 1]], edges[[2, 3, 2, 3]])
    np.testing.assert_allclose(back, expected, atol=1e-12)
    # What lies outside has no area.
    outside = (boxes[:, 2:] <= edges[:2]).any(axis=1) | (boxes[:, :2] >= edges[2:]).any(axis=1)
    assert not np.prod(found[outside, 2:] - found[outside, :2], axis=1).any()


def test_boxes_follow_the_pixels_that_training_cuts_out(write_snapshot, small_config):
    """A white box on black, in the training crops of a record."""
    clip = write_snapshot(clips=1, shards=1, height=48, width=80).clips[0]
    picture = np.zeros((48, 80, 3), np.uint8)
    picture[12:36, 20:52] = 255
    clip.frame_encoding = clip_pb2.FRAME_ENCODING_RAW
    clip.frames[:] = [picture.tobytes()] * 4
    box = np.array([[[20 / 80, 12 / 48, 52 / 80, 36 / 48]]], np.float32)
    config = override(small_config, ["input.short_side=36", "input.scale=0.9,1.33"])
    record = tf.constant(clip.SerializeToString())
    decode = tf.function(functools.partial(training_clip, config=config), autograph=False)
    mirrored = []
    for seed in range(12):
        fields = decode(record, tf.constant([seed, 0], tf.int64))
        view = fields["view"].numpy()
        mirrored.append(view[0] > view[2])
        found = to_view(box, view[None])[0, 0] * 32
        bright = fields["frames"].numpy()[0, ..., 0] > 127
        (rows,), (columns,) = np.nonzero(bright.any(axis=1)), np.nonzero(bright.any(axis=0))
        seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(found, seen, atol=1)
    assert set(mirrored) == {False, True}


def test_examples_without_boxes_are_filled_up():
    corners = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    boxes = Boxes(np.array([1, 0, 2]), corners, np.eye(3, dtype=bool))
    found, labels = boxes.of(np.array([2, 1]))
    np.testing.assert_array_equal(found, [corners[1:], np.zeros((2, 4))])
    assert labels[0].tolist() == [[False, True, False], [False, False, True]]
    assert not labels[1].any()
