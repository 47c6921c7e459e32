"""The side of a nursery that forks: a child for each request, which touches untrusted bytes.

So what a child needs is loaded once, and what a hostile file does to a child ends with it. A
request comes on standard input, a socket, with open descriptors; its answer is an exit status.
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
"""Answers a request in a child: it confines itself, and then touches untrusted bytes."""


def serve(answer: Answer) -> None:
    """Tells which layers hold, then forks a child for each request until the other end closes."""
    confinement = Confinement()
    gc.freeze()  # or collecting in a child would copy this process's memory
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
    """Closes all but these, and the three that are standard, which become nothing."""
    os.dup2(1, 0)
    kept = [2, *sorted(descriptors), 1 << 16]
    for below, above in itertools.pairwise(kept):
        os.closerange(below + 1, above)


def _send(parent: socket.socket, words: bytes) -> None:
    parent.sendall(struct.pack("<I", len(words)) + words)


def _receive(parent: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """A request and its descriptors, or None at the end."""
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
