"""The Landlock layer: restriction of files, ports and other processes, landlock(7)."""

import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Iterable

from pipelines.decoding.sandbox import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on all machines
_VERSION = 1
_PATH_BENEATH = 1

_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
# The rights to restrict, by the first version that has them. Rules grant some of them again.
_FILES = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_PORTS = {4: 0b11}  # to bind and to connect TCP sockets
_SCOPES = {6: 0b11}  # abstract UNIX sockets of processes outside, and signals to them


def version() -> int:
    """Return the kernel's version of the Landlock interface.

    Raises:
      MissingError: the kernel does not have Landlock, or it is disabled.
    """
    kernel.machine()
    try:
        return kernel.call(_CREATE_RULESET, None, 0, _VERSION)
    except OSError as error:
        raise kernel.MissingError(error.strerror) from None


def restrict(version: int, *, read: Iterable[str | int] = (), execute: Iterable[str] = ()) -> None:
    """Remove this thread's rights to files, ports and other processes, irrevocably.

    Open files stay usable in the mode in which they were opened.

    Args:
      version: the result of `version()`.
      read: folders and files, by path or open descriptor, that may be opened for reading.
      execute: programs that may be read and started.

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
        for path in read:
            _allow(ruleset, path, _READ_FILE | _READ_DIR)
        for path in execute:
            _allow(ruleset, path, _READ_FILE | _EXECUTE)
        kernel.call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, beneath: str | int, rights: int) -> None:
    with contextlib.ExitStack() as opened:
        if isinstance(beneath, str):
            try:
                beneath = os.open(beneath, os.O_PATH | os.O_CLOEXEC)
            except OSError:  # A missing or inaccessible path needs no rule.
                return
            opened.callback(os.close, beneath)
        if not stat.S_ISDIR(os.fstat(beneath).st_mode):
            rights &= ~_READ_DIR
        rule = ctypes.create_string_buffer(struct.pack("<Qi", rights, beneath), 12)
        kernel.call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
