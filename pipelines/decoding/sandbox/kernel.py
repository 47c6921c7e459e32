"""Calls of the Linux kernel that Python has no function for.

There is no maintained package with a wheel for them: those of Landlock and seccomp on PyPI are
unfinished, or want a system library. What is called is few, and stable: a kernel's numbers stay.
"""

import ctypes
import functools
import os
import platform
import sys

_MACHINES = ("x86_64", "aarch64")


class MissingError(Exception):
    """A layer that this machine does not have: why."""


@functools.cache
def machine() -> str:
    """The processor as the kernel names it.

    Raises:
      MissingError: it is none whose calls are known here, or the system is not Linux.
    """
    name = platform.machine()
    if sys.platform != "linux":
        raise MissingError(f"{sys.platform} is not Linux")
    if name not in _MACHINES or sys.maxsize < 1 << 32:
        raise MissingError(f"of {name} no system calls are known here")
    return name


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def prctl(option: int, *words: int) -> int:
    """Changes what the process is and may do, as the manual page of prctl says.

    Raises:
      OSError: it fails.
    """
    padded = [*words, 0, 0, 0, 0][:4]
    return _checked(_library().prctl(option, *map(ctypes.c_ulong, padded)))


def unshare(flags: int) -> None:
    """Enters namespaces of its own, as the manual page of unshare says.

    Raises:
      OSError: it fails.
    """
    _checked(_library().unshare(flags))


def call(number: int, *words: "int | ctypes.Array[ctypes.c_char] | None") -> int:
    """A system call by its number, which must not differ from machine to machine.

    Raises:
      OSError: it fails.
    """
    given = [ctypes.c_long(word) if isinstance(word, int) else word for word in words]
    return _checked(_library().syscall(ctypes.c_long(number), *given))


def map_memory(address: int, size: int, protection: int, flags: int) -> int:
    """Maps memory of no file, as the manual page of mmap says; returns where it is.

    Raises:
      OSError: it fails.
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
