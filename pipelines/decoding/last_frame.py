"""The end time of a video's last frame, computed from its packets."""


class LastFrame:
    """The end time of the frame that is shown last, among the packets up to now.

    MP4 states the time from decoding a packet to decoding the next one. Where decoding order and
    presentation order differ, that is not a frame's duration. For the last packet it is.

    >>> end = LastFrame(stated=False, usual_us=40)
    >>> for start_us, end_us in [(0, 40), (80, 9080), (40, 80)]:
    ...     end.add(start_us, end_us)
    >>> end.us
    120
    """

    def __init__(self, stated: bool, usual_us: int) -> None:
        """Begin with no packet.

        Args:
          stated: whether packets state their frames' durations, in every decoding order.
          usual_us: default duration of a frame without a stated one, microseconds.
        """
        self._stated, self._usual_us = stated, usual_us
        self._start_us: int | None = None
        self.us = 0  # end time of the last frame, microseconds; 0 without a packet

    def add(self, start_us: int, end_us: int) -> None:
        """Add the next packet, in order of decoding; a duration of 0 means unknown."""
        length_us = self._usual_us = end_us - start_us or self._usual_us
        if self._start_us is None or start_us >= self._start_us:
            self._start_us = start_us
        if self._stated:
            self.us = max(self.us, start_us + length_us)
        else:
            self.us = self._start_us + length_us
