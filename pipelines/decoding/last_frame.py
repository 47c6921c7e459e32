"""When the last frame of a video leaves the screen, by its packets."""


class LastFrame:
    """The frame that is shown last, of the packets up to now.

    MP4 states how long after each packet the next is decoded. Where frames are decoded in another
    order than they are shown, that is not how long a frame is shown: but of the last packet it is.

    >>> end = LastFrame(stated=False, usual_us=40)
    >>> for start_us, end_us in [(0, 40), (80, 9080), (40, 80)]:
    ...     end.add(start_us, end_us)
    >>> end.us
    120
    """

    def __init__(self, stated: bool, usual_us: int) -> None:
        """Begins with no packet.

        Args:
          stated: whether packets state how long their frames are shown, in every order.
          usual_us: how long frames are shown of which nothing is stated.
        """
        self._stated, self._usual_us = stated, usual_us
        self._start_us: int | None = None
        self.us = 0  # when the last frame leaves the screen; 0 without a packet

    def add(self, start_us: int, end_us: int) -> None:
        """Takes the next packet, in order of decoding; no length means that it is unknown."""
        length_us = self._usual_us = end_us - start_us or self._usual_us
        if self._start_us is None or start_us >= self._start_us:
            self._start_us = start_us
        if self._stated:
            self.us = max(self.us, start_us + length_us)
        else:
            self.us = self._start_us + length_us
