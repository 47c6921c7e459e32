"""The layers of new namespaces: user_namespaces(7), network_, ipc_ and pid_namespaces(7)."""

import contextlib
import errno
import os
from pathlib import Path

from pipelines.decoding.sandbox import kernel

_FLAGS = {
    "user_namespace": 0x10000000,
    "network_namespace": 0x40000000,
    "ipc_namespace": 0x08000000,
    "pid_namespace": 0x20000000,  # applies to processes that are forked later
}


def enter() -> dict[str, str]:
    """Enter all namespaces that the kernel grants, and return "" or the refusal's reason by name.

    The user namespace comes first, because an ordinary user may enter the others only inside a new
    user namespace.
    """
    user, group = os.geteuid(), os.getegid()
    refused: dict[str, str] = {}
    for name, flag in _FLAGS.items():
        try:
            kernel.machine()
            kernel.unshare(flag)
            refused[name] = ""
        except (OSError, kernel.MissingError) as error:
            refused[name] = _why(error)
        if name == "user_namespace" and not refused[name]:
            # Without a mapping, the process is nobody, and may not enter the others.
            with contextlib.suppress(OSError):
                Path("/proc/self/setgroups").write_bytes(b"deny")
                Path("/proc/self/uid_map").write_bytes(b"%d %d 1" % (user, user))
                Path("/proc/self/gid_map").write_bytes(b"%d %d 1" % (group, group))
    return refused


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the system's limit on namespaces is reached"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
