"""Errors that FFmpeg's libraries report to their log, where functions do not return them."""

import av.logging

from pipelines.decoding.codecs import HARMLESS


class Complaints:
    """The errors since the last look."""

    def __init__(self) -> None:
        """Begins to listen; to the end of the process."""
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)
        self._messages = av.logging.Capture(local=False).__enter__()
        self.ignored: frozenset[str] = frozenset()  # names of decoders, such as "aac"

    def take(self) -> str:
        """Returns the first error since the last call; "" if there is none."""
        if not self._messages:
            return ""
        messages = [
            text.strip()
            for level, name, text in self._messages
            if level <= av.logging.ERROR and name not in self.ignored
        ]
        self._messages.clear()
        return next((text for text in messages if not text.startswith(HARMLESS)), "")
