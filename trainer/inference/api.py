"""The Python API of a trained model: embeddings of videos and texts, and noun heat maps.

    import svilm

    model = svilm.load("runs/first")
    videos = model.embed_videos(["a.mp4", ("b.mp4", 3.0, 9.5)])  # [2, E]; the second is a span
    texts = model.embed_texts(["a red ring is rising", "a blue disc"])  # [2, E]
    print(texts @ videos.T)  # cosines: both are L2-normalized
    heat = model.ground("a.mp4", "red ring")  # [Nt, R/p, R/p]

Sizes are those of `model.config`: T frames of R² pixels, Nt = T / tubelet windows, patches of p
pixels, M groups, joint width E, width D of the video encoder.
"""

import contextlib
import os
import pathlib
import reprlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from protos import contract
from trainer import progress as bars
from trainer.configs.config import Config
from trainer.data.snapshot import Snapshot
from trainer.data.types import Progress
from trainer.evaluation.grounding import heat_map
from trainer.inference import video_files, video_inputs
from trainer.inference.encoder import EncodedClips, Encoder, concatenate, embed_clips
from trainer.inference.video_files import VideoError
from trainer.inference.video_inputs import FileSpan, Video, Videos
from trainer.runs import checkpoint
from trainer.runs.provenance import check_joint_space

# Batch size of the encoder, fixed so that it compiles once. A larger one makes a single video slow.
_AT_ONCE = 8
# Files that one start of the decoder's program reads: it bounds the space of their frames on disk.
_FILES_AT_ONCE = 128
# Lists that are longer show a bar.
_LONG = 64


class VideoEmbeddings(NamedTuple):
    """The embeddings of n videos."""

    clip: Float[np.ndarray, "n E"]  # f^v, L2-normalized
    groups: Float[np.ndarray, "n M E"]  # g^m, in the same space, L2-normalized
    windows: Float[np.ndarray, "n Nt D"]  # each window's video tokens, averaged over its patches


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
    """A trained model for inference, as `load` returns it. Several threads may use it.

    The encoders compile once, at their first use, whatever the length of later lists.
    """

    def __init__(self, loaded: checkpoint.Loaded, source: Any = None) -> None:
        """Initialize from a checkpoint. Callers use `load`.

        Args:
          loaded: the model.
          source: the folder that it was loaded from; None for its run.
        """
        self._encoder = Encoder(loaded.config, loaded.tokenizer, loaded.params)
        self._task = loaded.task
        self._source = source or loaded.folder
        self.step = loaded.step

    def __repr__(self) -> str:
        """Return the model's folder, step and sizes."""
        video, name = self.config.video, "" if self._source is None else f" {str(self._source)!r}"
        return (
            f"<svilm.Model{name} at step {self.step:,}: {video.frames} frames of "
            f"{video.resolution}² pixels, {video.windows} windows, {video.group_tokens} groups, "
            f"{self.config.text.tokens} tokens, joint width {self.config.joint_width}>"
        )

    @property
    def config(self) -> Config:
        """The configuration of the run that trained the model."""
        return self._encoder.config

    def embed_videos(
        self, videos: Videos, progress: Progress | None = None
    ) -> Float[np.ndarray, "n E"]:
        """Embed videos: f^v, L2-normalized, in the order given.

        Args:
          videos: files, spans of files as (path, start, end) in seconds, or arrays of frames. A
            span ends with its video at the latest. uint8 RGB arrays [F, H, W, 3] of any size and
            number of frames are scaled, and cropped to their centre. One array [n, F, H, W, 3] has
            n clips.
          progress: called with the videos done and in total. None shows a bar for more than 64.

        Raises:
          VideoError: a file cannot be decoded, or `svilm-pipelines` is not installed.
          ValueError: an array has another shape or type, a span is empty or negative, or the items
            are not paths, spans or arrays.
        """
        return self._encode(videos, progress).clip

    def encode_videos(self, videos: Videos, progress: Progress | None = None) -> VideoEmbeddings:
        """Embed videos together with their windows and groups.

        Arguments and errors are those of `embed_videos`.
        """
        encoded = self._encode(videos, progress)
        return VideoEmbeddings(encoded.clip, encoded.groups, encoded.windows)

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
        span = FileSpan(pathlib.Path(video), (start_us, end_us))
        return self._encode_files([span], lambda *_: None).clip[0]

    def embed_texts(self, texts: Iterable[str] | np.ndarray) -> Float[np.ndarray, "n E"]:
        """Embed captions: f^c, L2-normalized. Longer ones are truncated to the model's tokens.

        Raises:
          RunError: the run is fine-tuned for a task that does not train the joint space.
          ValueError: `texts` is not a list of texts, or is empty.
        """
        check_joint_space(self._task)
        return self._encoder.texts(_listed(texts))

    def ground(self, video: Video, noun: str) -> Float[np.ndarray, "Nt h w"]:
        """Return a heat map that locates a noun in a video (figures 2 and 4 of the paper).

        Args:
          video: a file, a span of one, or an array of frames, as for `embed_videos`.
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
        clip = self._encode([video], None)
        (prompted,) = self._encoder.texts([contract.PROMPT_TEMPLATES[0].format(noun)])
        heat = heat_map(
            clip.groups[0], clip.group_of[0], clip.share[0], prompted, self.config.video
        )
        return heat.astype(np.float32)

    def _encode(self, videos: Videos, progress: Progress | None) -> EncodedClips:
        files, arrays = video_inputs.read(videos)
        is_shown = progress is None and len(files) + len(arrays) > _LONG
        with bars.shown("embed") if is_shown else contextlib.nullcontext(progress) as show:
            if files:
                return self._encode_files(files, show or _silent)
            return self._encode_frames(arrays, show or _silent)

    def _encode_files(self, files: Sequence[FileSpan], progress: Progress) -> EncodedClips:
        parts = []
        for first in range(0, len(files), _FILES_AT_ONCE):
            some = files[first : first + _FILES_AT_ONCE]
            parts.append(self._encode_some(some, _shifted(progress, first, len(files))))
        return concatenate(parts)

    def _encode_some(self, files: Sequence[FileSpan], progress: Progress) -> EncodedClips:
        paths = {str(number): one.path for number, one in enumerate(files)}
        spans_us = {str(number): one.span_us for number, one in enumerate(files)}
        with _snapshot(paths, spans_us, self.config) as snapshot:
            ids = snapshot.clip_ids(np.arange(len(snapshot)))
            row = {clip_id.partition("_")[0]: record for record, clip_id in enumerate(ids)}
            if lost := [path for video_id, path in paths.items() if video_id not in row]:
                why = video_files.undecodable(pathlib.Path(snapshot.folder), paths)
                raise VideoError(why or f"video {lost[0]} cannot be decoded: check that it plays")
            _, clips = embed_clips(snapshot, self._encoder, progress, at_once=_AT_ONCE)
        rows = [row[video_id] for video_id in paths]
        return EncodedClips(*(array[rows] for array in clips))

    def _encode_frames(self, clips: Sequence[np.ndarray], progress: Progress) -> EncodedClips:
        parts = []
        for first in range(0, len(clips), _AT_ONCE):
            some = [
                video_inputs.fit(clip, self.config, f"clip {place}")
                for place, clip in enumerate(clips[first : first + _AT_ONCE], first)
            ]
            padded = np.pad(np.stack(some), [(0, _AT_ONCE - len(some)), *[(0, 0)] * 4])
            encoded = self._encoder.clips(padded)
            parts.append(EncodedClips(*(array[: len(some)] for array in encoded)))
            progress(first + len(some), len(clips))
        return concatenate(parts)


def _silent(done: int, total: int) -> None:
    """Show no progress."""


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    """Return the progress of a part of `total` videos that follows the first `before`."""
    return lambda done, _: progress(before + done, total)


def _listed(texts: Any) -> list[str]:
    """Return texts as a list, checking their types.

    Raises:
      ValueError: there is none, `texts` is a single text, or an item is not a text.
    """
    several = texts.tolist() if isinstance(texts, np.ndarray) else texts
    # A single text is iterable too, and would be split into characters.
    if isinstance(several, Iterable) and not isinstance(several, str | bytes | os.PathLike):
        several = list(several)
        if several and all(isinstance(one, str) for one in several):
            return several
    raise ValueError(f"texts must be a list of one or more strings, got {reprlib.repr(texts)}")


@contextlib.contextmanager
def _snapshot(
    videos: dict[str, pathlib.Path], spans_us: dict[str, tuple[int, int]], config: Config
) -> Iterator[Snapshot]:
    with tempfile.TemporaryDirectory(prefix="svilm-") as folder:
        workers = min(len(videos), os.cpu_count() or 1)
        built = video_files.build(videos, pathlib.Path(folder), config, workers, spans_us)
        yield Snapshot.open(built)
