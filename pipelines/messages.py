"""Messages of the stage on stderr, which are also logged."""

import logging
import sys

LOGGER = logging.getLogger("svilm.pipelines")
"""The stage's logger. Modules may use children of it."""
LOGGER.addHandler(logging.NullHandler())  # Without it logging prints warnings a second time.
PRINTED = {"printed": True}  # `extra` of log records whose message is already on stderr


def say(message: str, level: int = logging.INFO) -> None:
    """Print a line on stderr, and log it.

    Args:
      message: the line.
      level: the level in the log, such as logging.WARNING.
    """
    print(message, file=sys.stderr, flush=True)
    LOGGER.log(level, "%s", message, extra=PRINTED)


def warn(message: str) -> None:
    """Print a warning on stderr, and log it."""
    say(message, logging.WARNING)
