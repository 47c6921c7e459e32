"""The Python API of a trained model: embeddings of videos and texts, and noun heat maps.

    from trainer.inference import api

    model = api.load("runs/first")
    videos = model.embed_videos(["a.mp4", "b.mp4"])  # [2, E]
    texts = model.embed_texts(["a red ring is rising", "a blue disc"])  # [2, E]
    print(texts @ videos.T)  # cosines: both are L2-normalized
    heat = model.ground("a.mp4", "red ring")  # [Nt, R/p, R/p]

Sizes are those of `model.config`: T frames of R² pixels, Nt = T / tubelet windows, patches of p
pixels, joint width E.
"""

import contextlib
import os
import pathlib
import reprlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from protos import contract
from trainer.configs.config import Config
from trainer.data.snapshot import Snapshot
from trainer.evaluation.grounding import heat_map
from trainer.inference import video_files
from trainer.inference.encoder import EncodedClips, Encoder, concatenate, embed_clips
from trainer.inference.video_files import VideoError
from trainer.runs import checkpoint
from trainer.runs.provenance import check_joint_space

Videos = Iterable[str | os.PathLike[str]] | Iterable[np.ndarray] | np.ndarray
"""Video files or frames.

Files are an iterable of paths: T frames spread over the whole length of each are used. Frames are
uint8 RGB at the model's size: [n, T, R, R, 3] for n clips, or a list of [T, R, R, 3].
"""

# Batch size of the encoder, fixed so that it compiles once. A larger one makes a single video slow.
_AT_ONCE = 8


def load(run_or_checkpoint: str | os.PathLike[str]) -> "Model":
    """Load a trained model, with the EMA of its parameters if the run kept one.

    Args:
      run_or_checkpoint: a run's folder, on a disk or gs://bucket/folder, for its last checkpoint,
        or RUN/checkpoints/STEP.

    Raises:
      RunError: the folder is not a run.
      CheckpointError: the checkpoint does not exist, or it does not fit the run's configuration.
    """
    return Model(checkpoint.load(run_or_checkpoint))


class Model:
    """A trained model for inference, as `load` returns it."""

    def __init__(self, loaded: checkpoint.Loaded) -> None:
        """Initialize from a checkpoint. Callers use `load`."""
        self._encoder = Encoder(loaded.config, loaded.tokenizer, loaded.params)
        self._task = loaded.task
        self.step = loaded.step

    @property
    def config(self) -> Config:
        """The configuration of the run that trained the model."""
        return self._encoder.config

    def embed_videos(self, videos: Videos) -> Float[np.ndarray, "n E"]:
        """Embed whole videos: f^v, L2-normalized, in the order given.

        Raises:
          VideoError: a file cannot be decoded, or `svilm-pipelines` is not installed.
          ValueError: an array has another shape or type, or the items are not paths or arrays.
        """
        return self._encode(videos).clip

    def embed_span(
        self, video: str | os.PathLike[str], start_us: int, end_us: int
    ) -> Float[np.ndarray, " E"]:
        """Embed a span of a video file: f^v, L2-normalized.

        Args:
          video: the file.
          start_us: start of the span, microseconds.
          end_us: end of the span, microseconds. The span ends with the video at the latest.

        Raises:
          VideoError: the file cannot be decoded, or is shorter than `start_us`.
          ValueError: the span is empty or begins before the video.
        """
        if not 0 <= start_us < end_us:
            raise ValueError(f"span [{start_us}, {end_us}] µs: give 0 ≤ start < end")
        path = pathlib.Path(video)
        with _snapshot({"0": path}, self.config, (start_us, end_us)) as snapshot:
            _, clips = embed_clips(snapshot, self._encoder, lambda *_: None, at_once=_AT_ONCE)
        return clips.clip[0]

    def embed_texts(self, texts: Iterable[str] | np.ndarray) -> Float[np.ndarray, "n E"]:
        """Embed captions: f^c, L2-normalized. Longer ones are truncated to the model's tokens.

        Raises:
          RunError: the run is fine-tuned for a task that does not train the joint space.
          ValueError: `texts` is not a list of texts, or is empty.
        """
        check_joint_space(self._task)
        return self._encoder.texts(
            _listed(texts, str, "texts must be a list of one or more strings")
        )

    def ground(
        self, video: str | os.PathLike[str] | np.ndarray, noun: str
    ) -> Float[np.ndarray, "Nt h w"]:
        """Return a heat map that locates a noun in a video (figures 2 and 4 of the paper).

        Args:
          video: a file, or frames as the model sees them, uint8 [T, R, R, 3].
          noun: a noun phrase such as "red ring", which is inserted into the first of the paper's
            prompts.

        Returns:
          [Nt, R/p, R/p]: the soft assignment of each window and patch to the group that is most
          similar to the noun, 0 if it belongs to another group. All 0 if that group is empty.

        Raises:
          RunError: as `embed_texts`.
          VideoError, ValueError: as `embed_videos`. ValueError also if the noun is not a text or is
            blank.
        """
        check_joint_space(self._task)
        if not isinstance(noun, str) or not noun.strip():
            raise ValueError(f"noun must be a non-empty string such as 'red ring', got {noun!r}")
        clip = self._encode(video[None] if isinstance(video, np.ndarray) else [video])
        (prompted,) = self._encoder.texts([contract.PROMPT_TEMPLATES[0].format(noun)])
        heat = heat_map(
            clip.groups[0], clip.group_of[0], clip.share[0], prompted, self.config.video
        )
        return heat.astype(np.float32)

    def _encode(self, videos: Videos) -> EncodedClips:
        if isinstance(videos, np.ndarray) and videos.dtype.kind not in "OUS":
            return self._encode_frames(videos)
        wanted = "videos must be a list of one or more paths, or of arrays of frames"
        listed = _listed(videos, (str, os.PathLike, np.ndarray), wanted)
        if isinstance(listed[0], np.ndarray):
            return self._encode_frames(_stacked(_listed(listed, np.ndarray, wanted)))
        listed = _listed(listed, (str, os.PathLike), wanted)
        paths = {str(number): pathlib.Path(video) for number, video in enumerate(listed)}
        with _snapshot(paths, self.config) as snapshot:
            ids = snapshot.clip_ids(np.arange(len(snapshot)))
            row = {clip_id.partition("_")[0]: record for record, clip_id in enumerate(ids)}
            if lost := [path for video_id, path in paths.items() if video_id not in row]:
                told = video_files.undecodable(pathlib.Path(snapshot.folder), paths)
                raise VideoError(told or f"video {lost[0]} cannot be decoded: check that it plays")
            _, clips = embed_clips(snapshot, self._encoder, lambda *_: None, at_once=_AT_ONCE)
        rows = [row[video_id] for video_id in paths]
        return EncodedClips(*(array[rows] for array in clips))

    def _encode_frames(self, frames: np.ndarray) -> EncodedClips:
        video = self.config.video
        wanted = (video.frames, video.resolution, video.resolution, 3)
        if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[1:] != wanted:
            raise ValueError(
                f"frames must be uint8 {['n', *wanted]}, got {frames.dtype} {list(frames.shape)}: "
                "scale and crop them, or give the video's path"
            )
        if not len(frames):
            raise ValueError("the array of frames has no clip")
        parts = []
        for start in range(0, len(frames), _AT_ONCE):
            some = frames[start : start + _AT_ONCE]
            padded = np.pad(some, [(0, _AT_ONCE - len(some)), *[(0, 0)] * 4])
            encoded = self._encoder.clips(padded)
            parts.append(EncodedClips(*(array[: len(some)] for array in encoded)))
        return concatenate(parts)


def _listed(given: Any, kind: type | tuple[type, ...], wanted: str) -> list[Any]:
    """Return `given` as a list, checking its item types.

    Raises:
      ValueError: it is empty, a single text or path, or has an item of another type.
    """
    several = given.tolist() if isinstance(given, np.ndarray) else given
    # A single text is iterable too, and would be split into characters.
    if isinstance(several, Iterable) and not isinstance(several, str | bytes | os.PathLike):
        several = list(several)
        if several and all(isinstance(one, kind) for one in several):
            return several
    raise ValueError(f"{wanted}, got {reprlib.repr(given)}")


def _stacked(clips: list[np.ndarray]) -> np.ndarray:
    first = clips[0]
    for place, clip in enumerate(clips):
        if (clip.shape, clip.dtype) != (first.shape, first.dtype):
            raise ValueError(
                f"clip {place} has frames {clip.dtype} {list(clip.shape)}, but clip 0 has "
                f"{first.dtype} {list(first.shape)}: give clips of one type and shape"
            )
    return np.stack(clips)


@contextlib.contextmanager
def _snapshot(
    videos: dict[str, pathlib.Path],
    config: Config,
    span_us: tuple[int, int] = video_files.WHOLE_US,
) -> Iterator[Snapshot]:
    with tempfile.TemporaryDirectory(prefix="svilm-") as folder:
        workers = min(len(videos), os.cpu_count() or 1)
        built = video_files.build(videos, pathlib.Path(folder), config, workers, span_us)
        yield Snapshot.open(built)
