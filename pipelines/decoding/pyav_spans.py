"""Selection of a video's frames for spans by PyAV, decoding as few frames as necessary."""

import bisect
import math
from collections.abc import Callable, Generator, Iterator, Sequence

from av.packet import Packet
from av.video.frame import VideoFrame

from pipelines.decoding.pyav_video import TimedFrame, Video
from pipelines.decoding.schedule import IrregularError, schedule

_FAR_US = 20_000_000  # microseconds; reading through a longer gap costs more than a seek

Image = VideoFrame | str  # a frame at its final size, or the decoder's error about it


def decoded(video: Video, spans: list["Span"]) -> Iterator["Span"]:
    """Yield spans in order of start, each as soon as no further frame of it can be found."""
    for near in _neighbours(spans) if video.can_seek else [spans]:
        left = {span.number: span for span in near}
        try:
            if not video.can_choose:
                raise IrregularError
            for span in chosen_frames(video, near):
                yield left.pop(span.number)
        except IrregularError:
            pass
        else:
            # Times for which no packet has a frame are past the end.
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
    """Yield whole spans, decoding only the packets that are needed by their times.

    Raises:
      IrregularError: the times do not determine the frames, or a needed frame is not sound.
    """
    places = _Places(spans)
    coming: dict[int, range] = {}

    def put(packet: Packet | None) -> Iterator[Span]:
        for shown in video.promised(packet):
            if times := coming.pop(shown.start_us, None):
                if not shown.sound:
                    raise IrregularError
                yield from places.put(times, video.scaled(shown.frame))

    video.seek(places.times_us[0])
    for step in schedule(video.packets(), places.times_us, video.last_frame()):
        if video.doubtful:
            raise IrregularError
        if step.resets:
            yield from put(None)
            video.forget()
            if coming:  # These frames never come, so their spans must not wait for them.
                raise IrregularError
        if step.times:
            coming[step.coded.start_us] = step.times
            places.promise(step.times)
        video.skip_others(not step.times)
        yield from put(step.coded.packet)
    yield from put(None)


def _all_frames(video: Video, spans: list["Span"]) -> Iterator["Span"]:
    """Yield every span, whole or not, decoding all frames and using the frames' own times."""
    for span in spans:
        span.begin_again()
    places = _Places(spans)
    ended = False
    if video.can_seek:
        ended = yield from _from(video, places, places.times_us[0])
    if not places.full and not ended:
        yield from _from(video, places, None)
    yield from (span for span in spans if not span.reported)


def _from(video: Video, places: "_Places", start_us: int | None) -> Generator["Span", None, bool]:
    """Fill the times from `start_us` on, and yield the spans that become whole.

    None starts at the beginning. With a `start_us`, filling stops at the first doubtful time.

    Returns:
      Whether the video has no frame for the remaining times.
    """

    def show(shown: TimedFrame, from_us: float, until_us: float) -> Iterator[Span]:
        lost_us = video.lost_us(from_us, from_us if last is None else shown.end_us)
        if shown.sound:
            sound_us = until_us if lost_us is None else min(lost_us, until_us)
            yield from places.fill(sound_us, lambda: video.scaled(shown.frame))
        if start_us is None:
            yield from places.fill(until_us, lambda: video.complaint or "no key frame before them")

    video.seek(start_us)
    last = None
    for shown in video.frames():
        if last is None:
            if start_us is not None and shown.start_us > places.next_us:
                return False  # The seek went too far, as happens without an index.
            # Times before the first frame show the first frame.
            yield from show(shown, -math.inf, shown.start_us)
        else:
            yield from show(last, last.start_us, shown.start_us)
        if places.full:
            return True
        if places.next_us < shown.start_us:
            return False
        last = shown
    if last is not None:
        end_us = video.until_us(last)
        yield from show(last, last.start_us, end_us)
        return places.full or places.next_us >= end_us
    return False


class _Places:
    """The frame times of several spans in order, each with its span and index in the span."""

    def __init__(self, spans: list["Span"]) -> None:
        places = [(time_us, span, i) for span in spans for i, time_us in enumerate(span.times_us)]
        places.sort(key=lambda place: place[0])
        self.times_us = [time_us for time_us, _, _ in places]
        self._places = [(span, i) for _, span, i in places]
        self._filled = 0

    def promise(self, times: range) -> None:
        for span, _ in self._places[times.start : times.stop]:
            span.promised += 1

    @property
    def full(self) -> bool:
        """True once `fill` has reached every time."""
        return self._filled == len(self.times_us)

    @property
    def next_us(self) -> int:
        """The first time that `fill` has not reached, which must exist."""
        return self.times_us[self._filled]

    def fill(self, until_us: float, image: Callable[[], Image]) -> Iterator["Span"]:
        """Fill all remaining times before `until_us`, and yield the spans that become whole."""
        times = range(self._filled, bisect.bisect_left(self.times_us, until_us))
        if times:
            yield from self.put(times, image())
            self._filled = times.stop

    def put(self, times: range, image: Image) -> Iterator["Span"]:
        """Put an image at these times, and yield the spans that become whole."""
        for span, i in self._places[times.start : times.stop]:
            if span.put(i, image):
                yield span


class Span:
    """A span and the frames that it has received."""

    def __init__(self, number: int, times_us: Sequence[int]) -> None:
        self.number, self.times_us = number, times_us
        self.begin_again()

    def begin_again(self) -> None:
        """Discard the received frames."""
        self._images: list[Image | None] = [None] * len(self.times_us)
        self.promised = 0  # number of times for which a packet has a frame
        self.reported = False

    def put(self, i: int, image: Image) -> bool:
        """Receive a frame, or the decoder's error about it, and return whether the span is whole.

        If two arrive for one time, the first counts.
        """
        if self.reported or self._images[i] is not None:
            return False
        self._images[i] = image
        return self.whole

    @property
    def found(self) -> int:
        """The number of received frames, damaged or not."""
        return sum(image is not None for image in self._images)

    @property
    def whole(self) -> bool:
        """True once all frames were received, damaged or not."""
        return self.found == len(self.times_us)

    @property
    def damage(self) -> str | None:
        """The first error about a frame, or None."""
        return next((image for image in self._images if isinstance(image, str)), None)

    def take(self) -> list[Image]:
        """Return the received frames and release them."""
        images = [image for image in self._images if image is not None]
        self._images.clear()
        self.reported = True
        return images
