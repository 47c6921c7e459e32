"""Presentation times of frames whose packets have no times or wrong ones, guessed like ffmpeg."""


class FrameTimes:
    """Presentation times of a stream's frames, from its beginning on, in the stream's ticks.

    ffmpeg takes the packet's presentation or decoding time, whichever has run backwards less often
    (guess_correct_pts in libavcodec). Without either, it takes the end of the previous frame.

    >>> times = FrameTimes(0)
    >>> [times.of(pts, dts, 10) for pts, dts in [(0, 0), (None, None), (20, 10), (30, 20)]]
    [0, 10, 20, 30]
    """

    def __init__(self, origin: int) -> None:
        """Begin before the first frame, which is at `origin` if its packet has no time."""
        self._origin = origin
        self._last: int | None = None
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._faulty_pts = self._faulty_dts = 0
        self._length = 1

    def of(self, pts: int | None, dts: int | None, duration: int) -> int:
        """Return the next frame's time; call it for every frame, in the decoder's order."""
        if dts is not None:
            self._faulty_dts += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        elif pts is not None:
            self._last_dts = pts
        if pts is not None:
            self._faulty_pts += self._last_pts is not None and pts <= self._last_pts
            self._last_pts = pts
        elif dts is not None:
            self._last_pts = dts
        if pts is not None and (self._faulty_pts <= self._faulty_dts or dts is None):
            time = pts
        elif dts is not None:
            time = dts
        else:
            time = self._origin if self._last is None else self._last + self._length
        if duration > 0:
            self._length = duration
        elif self._last is not None and time > self._last:
            self._length = time - self._last
        self._last = time
        return time
