"""Features of whole videos, concatenated from those of their windows (`svilm-train embed`)."""

import pathlib
from typing import Any, NamedTuple

import numpy as np
import safetensors
from jaxtyping import Float, Int

from protos.strict_json import first_line, parse_object
from trainer.finite import NonFiniteError, finite
from trainer.inference.features import MANIFEST, FeaturesError


class VideoFeatures(NamedTuple):
    """The features of one video, from its first window to its last."""

    features: Float[np.ndarray, "t c"]
    seconds: float  # time covered, from the start of the video


def read_features(folder: pathlib.Path, name: str) -> dict[str, VideoFeatures]:
    """Read the features of each video, with its windows in temporal order.

    Args:
      folder: output folder of `svilm-train embed`.
      name: a feature with one row per window: `groups`, `clip`, ….

    Raises:
      FeaturesError: the folder is incomplete or damaged, lacks the feature or a window of a video,
        or has a value that is not finite.
    """
    manifest = folder / MANIFEST
    windows: dict[str, list[tuple[int, int, np.ndarray]]] = {}
    try:
        shapes, shards = _listed(manifest)
        if len(shapes.get(name, ())) != 1:
            raise FeaturesError(
                f"{folder} has no feature {name!r} with one row per window, only "
                f"{', '.join(shapes)}: run svilm-train embed --feature {name}"
            )
        for shard in shards:
            path = folder / pathlib.PurePath(shard).name
            with safetensors.safe_open(path, "numpy") as file:
                clips = _clips(file.metadata())
                rows = file.get_tensor(name)
            finite(f"{path}, {name!r}", rows, [f"video {clip['video_id']}" for clip in clips])
            for clip, row in zip(clips, rows, strict=True):
                windows.setdefault(clip["video_id"], []).append(
                    (clip["start_us"], clip["end_us"], row)
                )
    except NonFiniteError as error:
        raise FeaturesError(f"{error}: write the features again, with a finite model") from None
    except FileNotFoundError as error:
        raise FeaturesError(
            f"{error.filename} is missing: check that svilm-train embed has completed {folder}"
        ) from None
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        reason = first_line(error)
        raise FeaturesError(
            f"{folder} is damaged ({reason}): run svilm-train embed again"
        ) from None
    videos = {}
    for video, of_video in windows.items():
        of_video.sort(key=lambda window: window[:2])
        spans = np.array([window[:2] for window in of_video])
        _check_no_gap(folder, video, spans)
        videos[video] = VideoFeatures(np.stack([row for *_, row in of_video]), covered(spans))
    return videos


def _listed(manifest: pathlib.Path) -> tuple[dict[str, list[Any]], list[str]]:
    """Return the features' shapes and the names of the shards.

    Raises:
      ValueError: the manifest does not have them.
    """
    listed = parse_object(manifest.read_bytes())
    shapes, shards = listed.get("features"), listed.get("shards")
    if not isinstance(shapes, dict) or not all(isinstance(one, list) for one in shapes.values()):
        raise ValueError(f"{manifest.name} has no shapes of features")
    if not isinstance(shards, list) or not all(map(_is_shard, shards)):
        raise ValueError(f"{manifest.name} has no names of shards")
    return shapes, [shard["name"] for shard in shards]


def _is_shard(shard: Any) -> bool:
    return isinstance(shard, dict) and isinstance(shard.get("name"), str)


def _clips(metadata: dict[str, str] | None) -> list[dict[str, Any]]:
    """Return the windows of a shard's rows, from its metadata.

    Raises:
      ValueError: the metadata does not have them.
    """
    clips = parse_object(f'{{"clips": {(metadata or {}).get("clips")}}}')["clips"]
    if not isinstance(clips, list):
        raise ValueError("its metadata has no list of clips")
    for clip in clips:
        if not _is_window(clip):
            raise ValueError(f"it has a window {clip!s:.80}")
    return clips


def _check_no_gap(folder: pathlib.Path, video: str, spans: Int[np.ndarray, "n 2"]) -> None:
    """Check that no window is missing at the start or between two others.

    Rows have no times of their own: a missing window would shift all later ones. A window counts as
    missing if two successive ones are more than 1.5 times as far apart as usual: the lower median,
    or with two windows the longer one.
    """
    apart = np.max(np.diff(spans, axis=0), axis=1)
    if len(apart) < 2:
        usual = np.max(spans[:, 1] - spans[:, 0])
    else:
        usual = np.sort(apart)[(len(apart) - 1) // 2]
    before = np.concatenate([[0], spans[:-1, 1]])
    (missing,) = np.nonzero(np.concatenate([[spans[0, 0] >= usual], 2 * apart > 3 * usual]))
    if missing.size:
        first = missing[0]
        raise FeaturesError(
            f"{folder}: video {video!r} has no window between {before[first] / 1e6:g} and "
            f"{spans[first, 0] / 1e6:g} s, perhaps a rejected row: build the snapshot with all its "
            "windows, or leave the video out"
        )


def _is_window(clip: Any) -> bool:
    """Return True if a clip's metadata names a video and a span of it."""
    return (
        isinstance(clip, dict)
        and isinstance(clip.get("video_id"), str)
        and all(type(clip.get(name)) is int for name in ("start_us", "end_us"))
        and 0 <= clip["start_us"] < clip["end_us"] < 2**62
    )


def _is_overlap(seen: Any) -> bool:
    """Return True if an overlap with training videos has the values that were written, or none."""
    if not isinstance(seen, dict):
        return seen is None
    counts = [seen.get(name, 0) for name in ("videos", "seen_videos", "by_id_alone")]
    lists = [seen.get(name, []) for name in ("unknown", "examples")]
    return all(type(count) is int for count in counts) and all(
        isinstance(some, list) and all(isinstance(one, str) for one in some) for some in lists
    )


def made_of(folder: pathlib.Path) -> dict[str, Any]:
    """Return the encoder and snapshot of a folder's features, as reported in `figures.json`.

    `seen` reports how much of the snapshot the encoder was trained on. A value is None if the
    folder lacks it, as with an earlier release or another program.

    Raises:
      FeaturesError: the folder is incomplete or damaged.
    """
    try:
        listed = parse_object((folder / MANIFEST).read_bytes())
        made_from = listed.get("made_from", {})
        if not isinstance(made_from, dict):
            raise ValueError("its made_from is no object")
        wanted = ("parameters_sha256", "step", "dataset", "inputs_sha256", "config_sha256")
        told = {name: made_from.get(name) for name in wanted}
        seen = listed.get("seen")
        if not isinstance(told["parameters_sha256"], str | None) or not _is_overlap(seen):
            raise ValueError("its parameters_sha256 or seen is not what was written")
        return told | {"seen": seen}
    except (OSError, ValueError) as error:
        raise FeaturesError(
            f"{folder / MANIFEST} is missing or damaged ({error}): run svilm-train embed again"
        ) from None


def covered(spans: Int[np.ndarray, "n 2"]) -> float:
    """Return the seconds that a video's windows cover: their number times their spacing.

    The spacing is the largest difference of successive starts or ends. Windows may overlap, and
    the first and last ones may be cut where the video begins and ends.

    Args:
      spans: starts and ends in microseconds, in temporal order.

    >>> covered(np.array([[0, 4_000_000], [4_000_000, 8_000_000], [8_000_000, 10_500_000]]))
    12.0
    >>> covered(np.array([[0, 3_000_000], [1_000_000, 5_000_000], [3_000_000, 6_500_000]]))
    6.0
    """
    apart = int(np.max(np.diff(spans, axis=0))) if len(spans) > 1 else int(spans[0, 1])
    return len(spans) * apart / 1e6


def interpolated(features: Float[np.ndarray, "t c"], length: int) -> Float[np.ndarray, "u c"]:
    """Interpolate features linearly to `length` times, with half-pixel alignment.

    New time i is at (i + ½) · t / length − ½ of the old times, clipped to 0 … t − 1. Corners are
    not aligned.

    >>> interpolated(np.array([[0.0], [1.0]]), 4).ravel().tolist()
    [0.0, 0.25, 0.75, 1.0]
    """
    features = finite("features", features)
    old = len(features)
    at = np.clip((np.arange(length) + 0.5) * old / length - 0.5, 0, old - 1)
    low = at.astype(int)
    share = (at - low)[:, None].astype(features.dtype)
    return features[low] * (1 - share) + features[np.minimum(low + 1, old - 1)] * share
