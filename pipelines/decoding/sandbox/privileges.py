"""The layers that drop a process's privileges: capabilities(7), PR_SET_NO_NEW_PRIVS in prctl(2)."""

import contextlib
import ctypes
import struct

from pipelines.decoding.sandbox import kernel

_SET_DUMPABLE, _CAPBSET_DROP, _SET_NO_NEW_PRIVS, _CAP_AMBIENT = 4, 24, 38, 47
_AMBIENT_CLEAR_ALL = 4
_CAPABILITIES = 64  # more than the kernel has
_CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_CAPGET = {"x86_64": 125, "aarch64": 90}
_CAPSET = {"x86_64": 126, "aarch64": 91}


def forbid_new() -> None:
    """Prevent started programs from gaining privileges, as Landlock and seccomp require.

    Raises:
      OSError: the kernel refuses.
    """
    kernel.prctl(_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Drop every capability, for this process and all that it starts.

    Raises:
      OSError: the kernel refuses, or a capability is left.
    """
    for number in range(_CAPABILITIES):
        # A process that may not drop them has none, and gains none by a program (forbid_new).
        with contextlib.suppress(OSError):
            kernel.prctl(_CAPBSET_DROP, number)
    with contextlib.suppress(OSError):  # The call of capset below clears them too.
        kernel.prctl(_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    header = ctypes.create_string_buffer(struct.pack("<Ii", _CAPABILITY_VERSION, 0), 8)
    kernel.call(_CAPSET[kernel.machine()], header, ctypes.create_string_buffer(24))
    left = ctypes.create_string_buffer(24)
    kernel.call(_CAPGET[kernel.machine()], header, left)
    if any(left.raw):
        raise OSError("capabilities are left")


def forbid_tracing() -> None:
    """Prevent other processes of the same user from tracing this one or reading its memory.

    Raises:
      OSError: the kernel refuses.
    """
    kernel.prctl(_SET_DUMPABLE, 0)
