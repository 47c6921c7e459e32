"""Landlock: the files, ports and processes that a process may still reach, landlock(7)."""

import ctypes
import os
import struct

from pipelines.sandbox import kernel

_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same on all machines
_VERSION = 1

# By the first version that has them: all rights. No rule gives any back.
_FILES = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_PORTS = {4: 0b11}  # to bind and to connect TCP
_SCOPES = {6: 0b11}  # abstract UNIX sockets and signals, to processes outside


def version() -> int:
    """The interface's version that the kernel has.

    Raises:
      MissingError: it has none, or it is turned off.
    """
    kernel.machine()
    try:
        return kernel.call(_CREATE_RULESET, None, 0, _VERSION)
    except OSError as error:
        raise kernel.MissingError(error.strerror) from None


def restrict(version: int) -> None:
    """Takes every right to files, ports and other processes from this thread, for good.

    What is open already stays usable as it was opened.

    Args:
      version: as `version` tells.

    Raises:
      OSError: the kernel refuses.
    """
    handled = [
        sum(bits for first, bits in rights.items() if version >= first)
        for rights in (_FILES, _PORTS, _SCOPES)
    ]
    known = 1 + (version >= 4) + (version >= 6)
    size = 8 * known
    attributes = ctypes.create_string_buffer(struct.pack(f"<{known}Q", *handled[:known]), size)
    ruleset = kernel.call(_CREATE_RULESET, attributes, size, 0)
    try:
        kernel.call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
