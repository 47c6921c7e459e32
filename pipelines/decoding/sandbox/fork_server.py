"""The server process that forks a child for each request; the child reads untrusted bytes.

So a child's modules are loaded once, and a hostile file affects only its child. A request arrives
on standard input, a socket, with open descriptors. Its answer is an exit status.
"""

import contextlib
import gc
import itertools
import json
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from pipelines.decoding.sandbox.confine import Confinement

MOST_DESCRIPTORS = 64

Answer = Callable[[dict[str, Any], list[int], Confinement], None]
"""A function that answers a request in a child: it confines itself, then reads untrusted bytes."""


def serve(answer: Answer) -> None:
    """Send the missing layers, then fork a child for each request until the socket closes."""
    confinement = Confinement()
    gc.freeze()  # Otherwise garbage collection in a child would copy this process's memory.
    parent = socket.socket(fileno=0)
    _send(parent, json.dumps({"missing": confinement.missing}).encode())
    while received := _receive(parent):
        request, descriptors = received
        child = os.fork()
        if not child:
            status = 1
            try:
                parent.detach()
                _close_but(descriptors)
                answer(request, descriptors, confinement)
                status = 0
            finally:
                os._exit(status)
        for descriptor in descriptors:
            os.close(descriptor)
        parent.sendall(struct.pack("<i", os.waitpid(child, 0)[1]))


def _close_but(descriptors: list[int]) -> None:
    """Close all descriptors except these and 0 to 2; 0 becomes a copy of standard output.

    The server starts with standard output and standard error on /dev/null.
    """
    os.dup2(1, 0)
    kept = [2, *sorted(descriptors), 1 << 16]
    for below, above in itertools.pairwise(kept):
        os.closerange(below + 1, above)


def _send(parent: socket.socket, words: bytes) -> None:
    parent.sendall(struct.pack("<I", len(words)) + words)


def _receive(parent: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Return a request and its descriptors, or None after the last one."""
    with contextlib.suppress(ConnectionResetError):
        head, descriptors, _, _ = socket.recv_fds(parent, 4, MOST_DESCRIPTORS)
        if len(head) == 4:
            words = bytearray()
            while len(words) < struct.unpack("<I", head)[0]:
                part = parent.recv(struct.unpack("<I", head)[0] - len(words))
                if not part:
                    return None
                words += part
            return json.loads(words), descriptors
    return None
