"""The frames of a video's spans, picked by PyAV out of as few as have to be decoded."""

import bisect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pipelines.decoding.pyav_video import Video
from pipelines.decoding.schedule import IrregularError, schedule

_FAR_US = 20_000_000  # reading on through a longer gap costs more than a seek


def decoded(video: Video, spans: list["Span"]) -> Iterator["Span"]:
    """Spans in order of start, each as soon as nothing more can be found of it."""
    for near in _neighbours(spans):
        left = {span.number: span for span in near}
        try:
            for span in chosen_frames(video, near):
                yield left.pop(span.number)
        except IrregularError:
            pass
        else:
            # What no packet promises is past the end.
            for span in [span for span in left.values() if span.found == span.promised]:
                yield left.pop(span.number)
        if left:
            yield from _all_frames(video, [*left.values()])


def _neighbours(spans: list["Span"]) -> Iterator[list["Span"]]:
    near: list[Span] = []
    reached_us = 0
    for span in spans:
        if near and span.times_us[0] > reached_us + _FAR_US:
            yield near
            near = []
        near.append(span)
        reached_us = max(reached_us, span.times_us[-1])
    if near:
        yield near


def chosen_frames(video: Video, spans: list["Span"]) -> Iterator["Span"]:
    """Decodes what the packets' times show to be needed; yields the spans that are whole.

    Raises:
      IrregularError: they do not tell.
    """
    places = _Places(spans)
    coming: dict[int, range] = {}

    def put(frames: Iterable[Any]) -> Iterator[Span]:
        for frame in frames:
            if frame.pts is not None and (times := coming.pop(video.us(frame.pts), None)):
                yield from places.put(times, video.scaled(frame))

    video.seek(places.times_us[0])
    for step in schedule(video.packets(), places.times_us):
        if step.afresh:
            yield from put(video.decode(None))
            video.forget()
            if coming:  # frames that do not come: their spans must not wait for them
                raise IrregularError
        if step.times:
            coming[step.coded.start_us] = step.times
            places.promise(step.times)
        video.skip_others(not step.times)
        yield from put(video.decode(step.coded.packet))
    yield from put(video.decode(None))


def _all_frames(video: Video, spans: list["Span"]) -> Iterator["Span"]:
    """Decodes everything and looks at the frames' own times; yields every span, whole or not."""
    for span in spans:
        span.begin_again()
    places = _Places(spans)
    times_us, at = places.times_us, 0
    for start_us in (times_us[0], None):
        video.seek(start_us)
        last, end_us = None, 0
        for begins_us, ends_us, frame in video.frames():
            if last is None and start_us is not None and begins_us > times_us[0]:
                break  # too far, as happens without an index: from the beginning, then
            if first := range(at, bisect.bisect_left(times_us, begins_us)):
                # What is before the first frame shows the first frame.
                yield from places.put(first, video.scaled(frame if last is None else last))
                at = first.stop
            if at == len(times_us):
                return
            last, end_us = frame, max(end_us, ends_us)
        if last is not None:
            rest = range(at, bisect.bisect_left(times_us, end_us))
            yield from places.put(rest, video.scaled(last))
            break
    yield from (span for span in spans if not span.told)


class _Places:
    """Where the frames of several spans go, by their times."""

    def __init__(self, spans: list["Span"]) -> None:
        places = [(time_us, span, i) for span in spans for i, time_us in enumerate(span.times_us)]
        places.sort(key=lambda place: place[0])
        self.times_us = [time_us for time_us, _, _ in places]
        self._places = [(span, i) for _, span, i in places]

    def promise(self, times: range) -> None:
        for span, _ in self._places[times.start : times.stop]:
            span.promised += 1

    def put(self, times: range, image: Any) -> Iterator["Span"]:
        """Yields the spans that this makes whole."""
        for span, i in self._places[times.start : times.stop]:
            if span.put(i, image):
                yield span


class Span:
    """A span's frames, as far as they are there."""

    def __init__(self, number: int, times_us: Sequence[int]) -> None:
        self.number, self.times_us = number, times_us
        self.begin_again()

    def begin_again(self) -> None:
        """Forgets the frames that are there."""
        self._images: list[Any] = [None] * len(self.times_us)
        self.promised = 0  # frames that packets have
        self.told = False

    def put(self, i: int, image: Any) -> bool:
        """Takes a frame; whether the span is whole by it. Of two for one time the first counts."""
        if self.told or self._images[i] is not None:
            return False
        self._images[i] = image
        return self.whole

    @property
    def found(self) -> int:
        """Frames that are there."""
        return sum(image is not None for image in self._images)

    @property
    def whole(self) -> bool:
        """Whether all frames are there."""
        return self.found == len(self.times_us)

    def take(self) -> list[Any]:
        """Gives away the frames that are there."""
        images = [image for image in self._images if image is not None]
        self._images.clear()
        self.told = True
        return images
