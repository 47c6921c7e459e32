"""Linux system calls for which Python has no function.

No maintained package with a wheel offers them. Those for Landlock and seccomp on PyPI are
unfinished, or need a system library. The calls are few and stable: a kernel keeps their numbers.
"""

import ctypes
import functools
import os
import platform
import sys

_MACHINES = ("x86_64", "aarch64")


class MissingError(Exception):
    """A layer that this machine does not have, with the reason."""


@functools.cache
def machine() -> str:
    """Return the kernel's name of the processor.

    Raises:
      MissingError: this module does not know the processor's calls, or the system is not Linux.
    """
    name = platform.machine()
    if sys.platform != "linux":
        raise MissingError(f"{sys.platform} is not Linux")
    if name not in _MACHINES or sys.maxsize < 1 << 32:
        raise MissingError(f"the system calls of {name} are unknown")
    return name


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def prctl(option: int, *words: int) -> int:
    """Change the process's attributes and rights, as the manual page of prctl describes.

    Raises:
      OSError: the call fails.
    """
    padded = [*words, 0, 0, 0, 0][:4]
    return _checked(_library().prctl(option, *map(ctypes.c_ulong, padded)))


def unshare(flags: int) -> None:
    """Enter new namespaces, as the manual page of unshare describes.

    Raises:
      OSError: the call fails.
    """
    _checked(_library().unshare(flags))


def call(number: int, *words: "int | ctypes.Array[ctypes.c_char] | None") -> int:
    """Make a system call by its number on this machine.

    Raises:
      OSError: the call fails.
    """
    given = [ctypes.c_long(word) if isinstance(word, int) else word for word in words]
    return _checked(_library().syscall(ctypes.c_long(number), *given))


def map_memory(address: int, size: int, protection: int, flags: int) -> int:
    """Map anonymous memory, as the manual page of mmap describes, and return its address.

    Raises:
      OSError: the call fails.
    """
    function = _library().mmap
    function.restype = ctypes.c_void_p
    function.argtypes = (
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
        ctypes.c_long,
    )
    found = function(address, size, protection, flags, -1, 0)
    return _checked(-1 if found == ctypes.c_void_p(-1).value else found)


def _checked(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer
