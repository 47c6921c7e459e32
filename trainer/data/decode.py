"""Decoding of a serialised Clip to fields and frames of the model's size, in TensorFlow's graph.

Everything here runs in tf.data's C++ threads: parsing, decoding, cropping, scaling. Training crops
and flips at random by the clip's seed, identically for all frames of a clip. Evaluation takes the
centre. Source: section 4.2.
"""

import functools
import itertools
from collections.abc import Callable

from protos import contract
from protos.v1 import clip_pb2
from trainer.configs import config as configs
from trainer.data.cpu_tensorflow import tf
from trainer.data.crop_size import ANTIALIAS_ABOVE
from trainer.data.zero_copy import to_variant

_DESCRIPTOR = b"bytes://" + contract.clip_descriptor()

# Fields of the Clip, in the order of the decoder's request.
_FIELDS = {
    "clip_id": tf.string,
    "video_id": tf.string,
    "start_us": tf.int64,
    "end_us": tf.int64,
    "caption": tf.string,
    "noun_chunks": tf.string,
    "frames": tf.string,
    "frame_encoding": tf.int32,
    "height": tf.int32,
    "width": tf.int32,
}
_REPEATED = ("noun_chunks", "frames")
_KEPT = ("clip_id", "video_id", "start_us", "end_us", "caption", "noun_chunks")

# Pixels decoded around the crop of a JPEG. At the edge of the decoded region, chroma has no
# neighbour for interpolation, so pixels would differ there.
_MARGIN = 4

_PIXELS = 1 << 16  # a JPEG's height and width are below this

_Step = Callable[[tf.Tensor], tf.Tensor]  # one of the steps from a frame's bytes to its pixels

# Pixels as they are, and mirrored.
_TURNS: tuple[_Step, ...] = (
    lambda pixels: pixels,
    lambda pixels: tf.reverse(pixels, [1]),
)


def training_clip(
    record: tf.Tensor, seed: tf.Tensor, config: configs.Config, room: int | None = None
) -> dict[str, tf.Tensor]:
    """Decode one record with the random crop and flip of its seed.

    The short side is scaled to `short_side` × U(`scale`), and `resolution`² pixels are cropped at
    random. One operation does both: it cuts the corresponding square out of the source (whole
    pixels) and scales it. If its side is `resolution` already, pixels stay exactly as decoded.

    Args:
      record: string [], a serialised Clip.
      seed: int64 [2], the clip's seed in this step.
      config: the run's configuration.
      room: if given, crops whose side is at most this are neither scaled nor flipped here.

    Returns:
      clip_id, video_id, caption: string []; start_us, end_us: int64 [];
      noun_chunks: string [n], serialised NounChunks; frames: uint8 [T, R, R, 3];
      view: float32 [4], the crop's left, top, right, bottom, as fractions of the picture's width
      and height; a mirrored crop has left and right swapped.
      With `room`, frames are `apart`, [T, room, room, 3], with the crop in the top left corner;
      side: int32 [], the crop's side; flipped: bool [], True if the device should flip the crop.
    """
    clip = _parse(record)
    draws = tf.random.stateless_uniform([4], seed)
    height, width = clip["height"], clip["width"]
    low, high = config.input.scale
    side = _side(height, width, low + (high - low) * draws[0], config)
    top = tf.cast(draws[1] * tf.cast(height - side + 1, tf.float32), tf.int32)
    left = tf.cast(draws[2] * tf.cast(width - side + 1, tf.float32), tf.int32)
    flipped = draws[3] < 0.5 if config.input.flip else tf.constant(False)
    edges = tf.stack([left, top, left + side, top + side]) / tf.stack([width, height] * 2)
    mirrored = tf.gather(edges, [2, 1, 0, 3])
    fields = {name: clip[name] for name in _KEPT}
    fields["frames"] = _square(clip, top, left, side, flipped, config.video, room)
    fields["view"] = tf.cast(tf.where(flipped, mirrored, edges), tf.float32)
    if room is not None:
        fields["frames"] = to_variant(fields["frames"])
        fields["side"] = tf.where(side <= room, side, config.video.resolution)
        fields["flipped"] = flipped
    return fields


def evaluation_clip(
    record: tf.Tensor, _: tf.Tensor | None, config: configs.Config
) -> dict[str, tf.Tensor]:
    """Decode one record with the central crop at `short_side`.

    It returns the fields of `training_clip`, except the view.
    """
    clip = _parse(record)
    height, width = clip["height"], clip["width"]
    side = _side(height, width, 1.0, config)
    top, left = (height - side) // 2, (width - side) // 2
    frames = _square(clip, top, left, side, tf.constant(False), config.video)
    return {name: clip[name] for name in _KEPT} | {"frames": frames}


def view_clip(
    record: tf.Tensor, view: tf.Tensor, config: configs.Config, *, clips: int, crops: int
) -> dict[str, tf.Tensor]:
    """Decode one of several views of a record, at `short_side`; return as `evaluation_clip`.

    Args:
      record: string [], a serialised Clip.
      view: int64 [2], index of the clip, and index of the crop.
      config: the run's configuration.
      clips: number of equal segments of the record's frames, one per clip.
      crops: number of crops along the longer side, from edge to edge; a single one is central.
    """
    clip, which = _parse(record), tf.cast(view, tf.int32)
    frames = clip["frames"]
    count = tf.size(frames)
    first, end = which[0] * count // clips, (which[0] + 1) * count // clips
    clip["frames"] = frames[first:end]
    height, width = clip["height"], clip["width"]
    side = _side(height, width, 1.0, config)

    def place(length: tf.Tensor, along: tf.Tensor) -> tf.Tensor:
        """Return a crop's start: the middle, or its fraction of the way along the longer side."""
        room = length - side
        if crops == 1:
            return room // 2
        return tf.where(along, which[1] * room // (crops - 1), room // 2)

    top, left = place(height, height > width), place(width, height <= width)
    frames = _square(clip, top, left, side, tf.constant(False), config.video)
    return {name: clip[name] for name in _KEPT} | {"frames": frames}


def full_frame_clip(
    record: tf.Tensor, _: tf.Tensor, config: configs.Config, grid: tuple[int, int]
) -> dict[str, tf.Tensor]:
    """Decode one record without cropping; return as `evaluation_clip`, with frames of H × W.

    Args:
      record: string [], a serialised Clip.
      config: the run's configuration.
      grid: rows and columns of model patches to scale the picture to, H × W pixels.
    """
    clip, patch = _parse(record), config.video.patch
    corner, size = tf.zeros([2], tf.int32), tf.stack([clip["height"], clip["width"]])
    scaled = (grid[0] * patch, grid[1] * patch)
    frames = _frames(clip, corner, size, scaled, tf.constant(False), config.video)
    return {name: clip[name] for name in _KEPT} | {"frames": frames}


def _parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
    counts, values = tf.io.decode_proto(
        record,
        "svilm.v1.Clip",
        list(_FIELDS),
        list(_FIELDS.values()),
        descriptor_source=_DESCRIPTOR,
    )
    clip = dict(zip(_FIELDS, values, strict=True))
    for place, name in enumerate(_FIELDS):
        if name in _REPEATED:
            clip[name] = tf.reshape(clip[name], [-1])[: counts[place]]
        else:
            clip[name] = tf.reshape(clip[name], [])
    # This check comes first: an overflowing window for the JPEG decoder would end the process.
    for name in ("height", "width"):
        checks = (
            tf.debugging.assert_greater(clip[name], 0, f"the record's {name} must be above 0"),
            tf.debugging.assert_less(clip[name], _PIXELS, f"the record's {name} is too large"),
        )
        with tf.control_dependencies(checks):
            clip[name] = tf.identity(clip[name])
    return clip


def _side(
    height: tf.Tensor, width: tf.Tensor, scale: tf.Tensor | float, config: configs.Config
) -> tf.Tensor:
    """Return the side, in source pixels, of the square that becomes `resolution`² pixels."""
    short = tf.minimum(height, width)
    scaled_short = config.input.short_side * scale
    side = config.video.resolution * tf.cast(short, tf.float32) / scaled_short
    return tf.clip_by_value(tf.cast(tf.round(side), tf.int32), 1, short)


def _square(
    clip: dict[str, tf.Tensor],
    top: tf.Tensor,
    left: tf.Tensor,
    side: tf.Tensor,
    flipped: tf.Tensor,
    video: configs.VideoConfig,
    room: int | None = None,
) -> tf.Tensor:
    """Return `_frames` of a square of the source at the model's size: [T, R, R, 3]."""
    corner, size = tf.stack([top, left]), tf.stack([side, side])
    return _frames(clip, corner, size, (video.resolution, video.resolution), flipped, video, room)


def _frames(
    clip: dict[str, tf.Tensor],
    corner: tf.Tensor,
    cut: tf.Tensor,
    scaled_to: tuple[int, int],
    flipped: tf.Tensor,
    video: configs.VideoConfig,
    room: int | None = None,
) -> tf.Tensor:
    """Return T frames, evenly spread over the clip's, cropped alike and scaled: [T, H, W, 3].

    Args:
      clip: the clip's fields, with its frames.
      corner: int32 [2], top and left of the crop, in source pixels.
      cut: int32 [2], height and width of the crop.
      scaled_to: H, W.
      flipped: bool [], True mirrors the frames.
      video: defines T.
      room: if given, squares that fit are not scaled, no frame is flipped, and all are padded:
        [T, room, room, 3].
    """
    count = tf.size(clip["frames"])
    # Without this check the same frame would be taken twice, silently.
    tf.debugging.assert_greater_equal(count, video.frames, "the record has too few frames")
    # The middle frame of each of T equal segments is taken.
    places = (2 * tf.range(video.frames) + 1) * count // (2 * video.frames)

    decoders = _decoders(clip, corner, cut)
    scalers = _scalers(scaled_to)
    finishes = _TURNS if room is None else (functools.partial(_padded, room=room),)
    made = scaled_to if room is None else (room, room)

    # Each frame goes through all its steps before the next one begins, while it is in the
    # processor's cache. Applying each step to all frames of a clip took twice as long.
    def each(*steps: _Step) -> tf.Tensor:
        def through(place: tf.Tensor) -> tf.Tensor:
            frame = tf.gather(clip["frames"], place)
            for step in steps:
                frame = step(frame)
            return tf.ensure_shape(frame, [*made, 3])

        return tf.map_fn(through, places, fn_output_signature=tf.uint8, parallel_iterations=1)

    encoding = clip["frame_encoding"]
    known = tf.constant(list(decoders))
    tf.debugging.assert_equal(
        tf.reduce_any(known == encoding), True, "the record's frame encoding is unknown"
    )
    which = [
        tf.argmax(known == encoding, output_type=tf.int32),
        tf.where(
            tf.reduce_all(cut == scaled_to) if room is None else tf.reduce_all(cut <= room),
            0,
            tf.where(tf.reduce_all(cut <= [int(ANTIALIAS_ABOVE * to) for to in scaled_to]), 1, 2),
        ),
        tf.cast(flipped, tf.int32) if room is None else 0,
    ]
    ways = [
        functools.partial(each, *steps)
        for steps in itertools.product(decoders.values(), scalers, finishes)
    ]
    number = (which[0] * len(scalers) + which[1]) * len(finishes) + which[2]
    return tf.switch_case(number, ways)


def _decoders(clip: dict[str, tf.Tensor], corner: tf.Tensor, cut: tf.Tensor) -> dict[int, _Step]:
    """Return for each encoding the function from a frame's bytes to its crop: uint8 [h, w, 3]."""
    size = tf.stack([clip["height"], clip["width"]])

    def jpeg(frame: tf.Tensor) -> tf.Tensor:
        first = tf.maximum(corner - _MARGIN, 0)
        last = tf.minimum(corner + cut + _MARGIN, size)
        # Other decoders use the accurate DCT too.
        image = tf.image.decode_and_crop_jpeg(
            frame,
            tf.concat([first, last - first], 0),
            channels=3,
            dct_method="INTEGER_ACCURATE",
        )
        return part(image, corner - first)

    def png(frame: tf.Tensor) -> tf.Tensor:
        return part(tf.io.decode_png(frame, channels=3), corner)

    def raw(frame: tf.Tensor) -> tf.Tensor:
        image = tf.reshape(tf.io.decode_raw(frame, tf.uint8), tf.concat([size, [3]], 0))
        return part(image, corner)

    def part(image: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
        return tf.slice(image, tf.concat([at, [0]], 0), tf.concat([cut, [3]], 0))

    return {
        clip_pb2.FRAME_ENCODING_JPEG: jpeg,
        clip_pb2.FRAME_ENCODING_PNG: png,
        clip_pb2.FRAME_ENCODING_RAW: raw,
    }


def _scalers(scaled_to: tuple[int, int]) -> tuple[_Step, ...]:
    """Return the functions from a crop to the model's size: none needed, enlarge, reduce."""

    def scaled(pixels: tf.Tensor, antialias: bool) -> tf.Tensor:
        pixels = tf.image.resize(pixels, scaled_to, antialias=antialias)
        return tf.cast(tf.round(pixels), tf.uint8)

    return (
        lambda pixels: pixels,
        functools.partial(scaled, antialias=False),
        functools.partial(scaled, antialias=True),
    )


def _padded(pixels: tf.Tensor, room: int) -> tf.Tensor:
    side = tf.shape(pixels)[0]
    # Padding rows of bytes is fast, and padding pixels of three bytes is not.
    rows = tf.reshape(pixels, [side, 3 * side])
    rows = tf.pad(rows, tf.stack([[0, room - side], [0, 3 * (room - side)]]))
    return tf.reshape(rows, [room, room, 3])
