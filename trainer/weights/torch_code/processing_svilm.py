"""Processor of S-ViLM: texts to token ids, video files to the pixels that the model was trained on.

Training reads frames as `svilm-pipelines build` stores them: at the middles of equal parts of the
video, scaled by FFmpeg's exact bicubic filter, and as JPEG of quality 95. Files that cannot be
decoded without errors need svilm itself, which finds and reports damage.
"""

import math
import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import simplejpeg
from av.codec.context import Flags
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from transformers import BatchFeature, ProcessorMixin

Video = str | os.PathLike[str] | np.ndarray

_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_MICROSECONDS = 1_000_000


class SViLMProcessor(ProcessorMixin):
    """Tokenizer of the text encoder, and the frames of the video encoder."""

    def __init__(
        self,
        tokenizer: Any = None,
        frames: int = 32,
        resolution: int = 224,
        short_side: int = 256,
        pixel_mean: Sequence[float] = (0.5, 0.5, 0.5),
        pixel_std: Sequence[float] = (0.5, 0.5, 0.5),
        prompt: str = "A footage of a {}.",
    ) -> None:
        """Store the settings.

        Args:
          tokenizer: the WordPiece tokenizer.
          frames: number of frames of a clip.
          resolution: side of the central square crop, pixels.
          short_side: short side of the scaled frames, pixels.
          pixel_mean: mean of each channel, of pixels in [0, 1].
          pixel_std: standard deviation of each channel.
          prompt: text for a noun, with {} in place of the noun.
        """
        super().__init__(tokenizer)
        self.frames, self.resolution, self.short_side = frames, resolution, short_side
        self.pixel_mean, self.pixel_std = list(pixel_mean), list(pixel_std)
        self.prompt = prompt

    def __call__(
        self,
        text: str | list[str] | None = None,
        videos: Video | Iterable[Video] | None = None,
        nouns: str | list[str] | None = None,
        return_tensors: str = "pt",
        **unused: Any,
    ) -> BatchFeature:
        """Return the inputs of the model.

        Args:
          text: captions.
          videos: files, or frames as the model sees them, uint8 RGB [frames, side, side, 3].
          nouns: noun phrases for `ground`, instead of `text`.
          return_tensors: "pt" or "np".

        Raises:
          ValueError: both or none of the texts are given, or a video has no frames or another size.
        """
        if nouns is not None and text is not None:
            raise ValueError("give text or nouns, not both")
        data: dict[str, Any] = {}
        if nouns is not None:
            nouns = [nouns] if isinstance(nouns, str) else nouns
            text = [self.prompt.format(noun) for noun in nouns]
        if text is not None:
            text = [text] if isinstance(text, str) else list(text)
            encoded = self.tokenizer(text, padding=True, truncation=True)
            data |= {name: encoded[name] for name in ("input_ids", "attention_mask")}
        if videos is not None:
            single = isinstance(videos, str | os.PathLike) or getattr(videos, "ndim", 0) == 4
            listed: Any = [videos] if single else videos
            data["pixel_values_videos"] = np.stack([self.pixels(video) for video in listed])
        if not data:
            raise ValueError("give text, nouns or videos")
        return BatchFeature(data, tensor_type=return_tensors)

    @property
    def model_input_names(self) -> list[str]:
        """Names of the model's inputs."""
        return ["pixel_values_videos", "input_ids", "attention_mask"]

    def pixels(self, video: Video) -> np.ndarray:
        """Return a clip as the model takes it: float32 [frames, 3, side, side], normalized."""
        if isinstance(video, str | os.PathLike):
            video = self.clip(video)
        wanted = (self.frames, self.resolution, self.resolution, 3)
        if video.dtype != np.uint8 or video.shape != wanted:
            raise ValueError(
                f"frames must be uint8 {list(wanted)}, got {video.dtype} {list(video.shape)}: "
                "scale and crop them, or give the video's path"
            )
        mean, std = (np.asarray(each, np.float32) for each in (self.pixel_mean, self.pixel_std))
        normalized = (video.astype(np.float32) / np.float32(255.0) - mean) / std
        return normalized.transpose(0, 3, 1, 2)

    def clip(self, path: str | os.PathLike[str]) -> np.ndarray:
        """Return the central crops of a file's frames: uint8 [frames, side, side, 3]."""
        pixels = np.stack([_as_jpeg(image) for image in self._decoded(path)])
        _, height, width, _ = pixels.shape
        side = min(round(self.resolution * min(height, width) / self.short_side), height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[:, top : top + side, left : left + side]
        return pixels if side == self.resolution else _enlarged(pixels, self.resolution)

    def _decoded(self, path: str | os.PathLike[str]) -> list[np.ndarray]:
        """Return the frames at the middles of equal parts of a video, scaled, not cropped."""
        length = _end(path)
        times = [(2 * i + 1) * length // (2 * self.frames) for i in range(self.frames)]
        images: list[np.ndarray] = []
        with av.open(os.fspath(path)) as container:
            stream = _stream(container)
            clock, scaler, shown = _Clock(container, stream), _Scaler(stream, self.short_side), None
            for frame in container.decode(stream):
                start = clock.of(frame)
                while shown is not None and len(images) < len(times) and times[len(images)] < start:
                    images.append(scaler.scaled(shown))
                shown = frame
            if shown is None or not length:
                raise ValueError(f"{os.fspath(path)} has no frame that can be decoded")
            images += [scaler.scaled(shown)] * (len(times) - len(images))
        return images


class _Clock:
    """Times of a stream's packets and frames, microseconds from the beginning of the file."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        unit = stream.time_base or Fraction(1, _MICROSECONDS)
        self._origin = _rounded(Fraction(container.start_time or 0, _MICROSECONDS) / unit)
        self._unit = unit * _MICROSECONDS
        # AVI and ASF have no presentation times.
        self._decoding_times = container.format.name in ("avi", "asf")

    def of(self, frame: VideoFrame) -> int:
        """Return a frame's time."""
        ticks = frame.dts if self._decoding_times or frame.pts is None else frame.pts
        return _rounded(((ticks or 0) - self._origin) * self._unit)


class _Scaler:
    """Frames to RGB pixels of a short side, turned upright."""

    def __init__(self, stream: VideoStream, short_side: int) -> None:
        self._short_side = short_side
        self._pixel_shape = float(stream.sample_aspect_ratio or 1)
        self._planar, self._packed = VideoReformatter(), VideoReformatter()

    def scaled(self, frame: VideoFrame) -> np.ndarray:
        """Return a frame's pixels [height, width, 3]."""
        shape = frame.width / frame.height * self._pixel_shape
        long_side = math.floor(self._short_side * max(shape, 1 / shape) + 0.5)
        sizes = (self._short_side, long_side) if shape < 1 else (long_side, self._short_side)
        planar = self._planar.reformat(
            frame, *sizes, format="gbrp", interpolation=_SCALING, threads=1
        )
        packed = self._packed.reformat(planar, format="rgb24", interpolation=_SCALING, threads=1)
        return np.rot90(packed.to_ndarray(), round(frame.rotation / 90) % 4)


def _stream(container: InputContainer) -> VideoStream:
    """Return the first video stream that is not a picture, ready to decode."""
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [one for one in container.streams.video if not one.disposition & pictures]
    if not streams:
        raise ValueError(f"{container.name} has no video stream")
    streams[0].codec_context.flags |= Flags.unaligned  # else a crop on the left is rounded down
    return streams[0]


def _end(path: str | os.PathLike[str]) -> int:
    """Return the end of a video's last frame by its packets, microseconds.

    MP4 states the time from decoding a packet to decoding the next one. For the last packet it is
    the duration of the last frame, in whatever order frames are shown.
    """
    with av.open(os.fspath(path)) as container:
        stream = _stream(container)
        is_mp4, begin = "mov" in container.format.name, container.start_time or 0
        unit = (stream.time_base or Fraction(1, _MICROSECONDS)) * _MICROSECONDS
        by_decoding = container.format.name in ("avi", "asf")
        length, last, end = 0, 0, 0
        for packet in container.demux(stream):
            ticks = packet.dts if by_decoding or packet.pts is None else packet.pts
            if not packet.size or packet.is_discard or ticks is None:
                continue
            start = math.floor(ticks * unit) - begin
            length = math.floor((ticks + (packet.duration or 0)) * unit) - begin - start or length
            last = max(last, start)
            end = last + length if is_mp4 else max(end, start + length)
        return end


def _enlarged(pixels: np.ndarray, side: int) -> np.ndarray:
    """Scale square frames [t, n, n, 3] up bilinearly, rounding as TensorFlow does in training."""
    size = pixels.shape[1]
    scale, half = np.float32(size / side), np.float32(0.5)
    place = (np.arange(side, dtype=np.float32) + half) * scale - half
    part = (place - np.floor(place))[:, None]
    low = np.maximum(np.floor(place).astype(int), 0)
    high = np.minimum(np.ceil(place).astype(int), size - 1)
    rows = pixels.astype(np.float32)
    top, bottom = (
        row[:, :, low] + (row[:, :, high] - row[:, :, low]) * part
        for row in (rows[:, low], rows[:, high])
    )
    return np.round(top + (bottom - top) * part[:, None]).astype(np.uint8)


def _as_jpeg(image: np.ndarray) -> np.ndarray:
    """Return the pixels of an image after a round trip through JPEG, as in a stored clip.

    Other encoders, such as Pillow's, give other pixels: up to 10 of 255.
    """
    stored = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image),
        quality=95,
        colorspace="RGB",
        colorsubsampling="420",
        fastdct=False,
    )
    return simplejpeg.decode_jpeg(stored, "RGB", fastdct=False, fastupsample=False)


def _rounded(number: Fraction) -> int:
    """Return the nearest integer, halves away from zero, as FFmpeg rounds times."""
    return math.floor(abs(number) + Fraction(1, 2)) * (-1 if number < 0 else 1)
