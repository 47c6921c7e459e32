"""A start of a program that cannot be repeated, because its arguments lie at secret addresses.

A seccomp filter must allow the start, and stays active after it. It compares only the addresses of
the arguments. So these addresses are random, with about 90 bits in total. The program has new
memory, which holds no trace of them.
"""

import contextlib
import ctypes
import mmap
import secrets
import struct
from collections.abc import Mapping, Sequence

from pipelines.decoding.sandbox import kernel
from pipelines.decoding.sandbox.system_calls import Start

_EXECVE = {"x86_64": 59, "aarch64": 221}
_LOWEST, _HIGHEST = 1 << 32, 1 << 38  # range of addresses that every machine has
_READ_WRITE, _PRIVATE_ANONYMOUS, _NO_REPLACE = 0x3, 0x22, 0x100000


def prepared(program: str, words: Sequence[str], environment: Mapping[str, str]) -> Start:
    """Place the arguments of a start at random addresses.

    Raises:
      OSError: the memory is exhausted.
    """
    return Start(
        _placed(program.encode() + b"\0"),
        _placed(_array([*words])),
        _placed(_array([f"{name}={value}" for name, value in environment.items()])),
    )


def go(start: Start) -> None:
    """Replace this process by the program.

    Raises:
      OSError: the program cannot be started.
    """
    kernel.call(_EXECVE[kernel.machine()], *start)


_kept: list[ctypes.Array[ctypes.c_char]] = []  # strings to which the arrays point


def _array(words: Sequence[str]) -> bytes:
    buffers = [
        ctypes.create_string_buffer(word.encode("utf-8", "surrogateescape")) for word in words
    ]
    _kept.extend(buffers)
    return struct.pack(f"@{len(buffers) + 1}P", *map(ctypes.addressof, buffers), 0)


def _placed(content: bytes) -> int:
    size = (-(-len(content) // mmap.PAGESIZE) + 1) * mmap.PAGESIZE
    while True:
        page = (
            _LOWEST
            + secrets.randbelow((_HIGHEST - _LOWEST - size) // mmap.PAGESIZE) * mmap.PAGESIZE
        )
        with contextlib.suppress(FileExistsError):  # The address is already in use.
            base = kernel.map_memory(page, size, _READ_WRITE, _PRIVATE_ANONYMOUS | _NO_REPLACE)
            break
    address = base + 8 * secrets.randbelow(mmap.PAGESIZE // 8)
    ctypes.memmove(address, content, len(content))
    return address
