"""Errors that FFmpeg's libraries log instead of returning them."""

import av.logging

from pipelines.decoding.codecs import HARMLESS


class Complaints:
    """The errors that were logged since the last call of `take`."""

    def __init__(self) -> None:
        """Capture the log until the process ends."""
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)
        self._messages = av.logging.Capture(local=False).__enter__()
        self.ignored: frozenset[str] = frozenset()  # names of decoders, such as "aac"

    def take(self) -> str:
        """Return the first error since the last call, or "" without one."""
        if not self._messages:
            return ""
        messages = [
            text.strip()
            for level, name, text in self._messages
            if level <= av.logging.ERROR and name not in self.ignored
        ]
        self._messages.clear()
        return next((text for text in messages if not text.startswith(HARMLESS)), "")
