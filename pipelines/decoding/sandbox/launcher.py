"""The program that starts other programs on untrusted bytes; see programs.py.

Its child for a request confines itself, and then becomes the program.
"""

import fcntl
import os
import signal
import struct
from typing import Any

from pipelines.decoding.sandbox import fork_server, limits
from pipelines.decoding.sandbox.confine import Confinement

FIRST = 3  # number of the first descriptor that a program is given


def _answer(request: dict[str, Any], descriptors: list[int], confinement: Confinement) -> None:
    log, failure, *given = descriptors
    failure = fcntl.fcntl(failure, fcntl.F_DUPFD_CLOEXEC, FIRST + len(given))
    os.dup2(log, 2)
    for number, descriptor in enumerate(given, FIRST):  # `descriptor` is never below `number`.
        os.dup2(descriptor, number)
        os.set_inheritable(number, True)
    os.closerange(FIRST + len(given), failure)
    os.closerange(failure + 1, 1 << 16)
    try:
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these signals.
            signal.signal(ignored, signal.SIG_DFL)
        limits.lower(request["limits"])
        program, words, environment = request["program"], request["words"], request["environment"]
        if request["confined"]:
            loaders, read = request["loaders"], request["read"]
            confinement.become(program, words, environment, loaders=loaders, read=read)
        else:
            os.execve(program, words, environment)
    except OSError as error:
        os.write(failure, struct.pack("<i", error.errno or 0))


if __name__ == "__main__":
    fork_server.serve(_answer)
