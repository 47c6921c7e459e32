"""The pixel scaling of a checkpoint: the settings of transformers' image and video processors.

This project uses a mean and a standard deviation of pixels in [0, 1]. Transformers uses a chain of
optional steps. They multiply by `rescale_factor`, subtract 1 for ViViT (`offset`), then normalize
by `image_mean` and `image_std`.
"""

from typing import Any

from trainer.weights.hf_format import PREPROCESSOR, VIDEO_PREPROCESSOR, Checkpoint, WeightsError

Colour = tuple[float, float, float]

_IMAGES, _VIDEOS = "VivitImageProcessor", "VivitVideoProcessor"
_BILINEAR = 2


def scaling(checkpoint: Checkpoint, mean: Colour, std: Colour) -> tuple[Colour, Colour]:
    """Return the mean and deviation of pixels in [0, 1] that are equivalent to the processor.

    Args:
      checkpoint: checkpoint of a video encoder.
      mean: default where the checkpoint gives no mean.
      std: default where the checkpoint gives no deviation.

    Raises:
      WeightsError: a setting is damaged or unsupported.
    """
    said = checkpoint.preprocessor
    if said.get("do_flip_channel_order"):
        raise _wrong(checkpoint, "do_flip_channel_order", "false, because pixels are RGB")
    # This class always subtracts 1, regardless of the file.
    always = said.get("video_processor_type") == _VIDEOS
    offset = always or _switch(checkpoint, "offset", False)
    factor = _number(checkpoint, "rescale_factor", 1 / 127.5 if always else 1 / 255)
    scale = 255 * factor if _switch(checkpoint, "do_rescale", True) else 255.0
    scale = 1.0 if abs(scale - 1) < 1e-6 else scale
    mean, std = _colour(checkpoint, "image_mean", mean), _colour(checkpoint, "image_std", std)
    normalized = _switch(checkpoint, "do_normalize", True)
    if offset and abs(scale - 2) < 1e-6 and (not normalized or set(mean + std) == {0.5}):
        # ViViT was trained on [-1, 1]. Its published processor then also subtracts a mean of 0.5
        # and divides by 0.5. This is the default of its class, not the scaling in training.
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    if not normalized:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if min(std) <= 0 or scale <= 0:
        name = "rescale_factor" if scale <= 0 else "image_std"
        raise _wrong(checkpoint, name, "above 0")
    red, green, blue = ((offset + value) / scale for value in mean)
    of_red, of_green, of_blue = (value / scale for value in std)
    return (red, green, blue), (of_red, of_green, of_blue)


def processors(mean: Colour, std: Colour, short_side: int, resolution: int) -> dict[str, Any]:
    """Return the processor files, by name, that make transformers scale pixels in the same way.

    Args:
      mean: mean of pixels in [0, 1].
      std: standard deviation of pixels in [0, 1].
      short_side: short side of the scaled frames, in pixels.
      resolution: side of the centre crop, in pixels.
    """
    sizes = {
        "do_resize": True,
        "size": {"shortest_edge": short_side},
        "resample": _BILINEAR,
        "do_center_crop": True,
        "crop_size": {"height": resolution, "width": resolution},
        "do_rescale": True,
        "do_normalize": True,
    }
    images = {
        "image_processor_type": _IMAGES,
        **sizes,
        "rescale_factor": 1 / 255,
        "offset": False,
        "image_mean": list(mean),
        "image_std": list(std),
    }
    # Later versions of transformers also have a video processor, which always subtracts 1.
    videos = {
        "video_processor_type": _VIDEOS,
        **sizes,
        "do_sample_frames": False,
        "rescale_factor": 1 / 127.5,
        "image_mean": [2 * value - 1 for value in mean],
        "image_std": [2 * value for value in std],
    }
    return {PREPROCESSOR: images, VIDEO_PREPROCESSOR: videos}


def _switch(checkpoint: Checkpoint, name: str, default: bool) -> bool:
    value = checkpoint.preprocessor.get(name)
    value = default if value is None else value
    if type(value) is not bool:
        raise _wrong(checkpoint, name, "true or false")
    return value


def _number(checkpoint: Checkpoint, name: str, default: float) -> float:
    value = checkpoint.preprocessor.get(name)
    value = default if value is None else value
    if type(value) not in (int, float):
        raise _wrong(checkpoint, name, "a number")
    return float(value)


def _colour(checkpoint: Checkpoint, name: str, default: Colour) -> Colour:
    values: Any = checkpoint.preprocessor.get(name)
    values = default if values is None else values
    values = [values] * 3 if type(values) in (int, float) else values
    try:
        red, green, blue = map(float, values)
    except (TypeError, ValueError, OverflowError):
        raise _wrong(checkpoint, name, "3 numbers") from None
    return red, green, blue


def _wrong(checkpoint: Checkpoint, name: str, wanted: str) -> WeightsError:
    value = checkpoint.preprocessor.get(name)
    path = checkpoint.folder / checkpoint.preprocessor_name
    return WeightsError(f"{path}: {name!r} must be {wanted}, got {value!r}")
