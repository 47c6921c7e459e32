"""The seccomp layer: a filter on system calls, seccomp(2), as a program of the classic BPF.

All programs have one form. A call on the list is allowed if its arguments match the list. Any
other call fails with EPERM, like a missing right.
"""

import ctypes
import errno
import struct

from pipelines.decoding.sandbox import kernel
from pipelines.decoding.sandbox.system_calls import NUMBERS, UNKNOWN, Calls

_SET_SECCOMP, _MODE_FILTER = 22, 2
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_ of audit.h
_X32 = 0x40000000  # flag in the call numbers of x86_64's x32 interface, which has its own calls

# The filter's instructions, from filter.h and bpf_common.h.
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06  # BPF_LD | BPF_W | BPF_ABS and so on
_JUMP_EQUAL, _JUMP_AT_LEAST = 0x15, 0x35
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # in struct seccomp_data
_KILL, _ERROR, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000


def program(machine: str, calls: Calls) -> bytes:
    """Return the filter that allows only these calls, in the kernel's binary form.

    >>> len(program("x86_64", [("read", ())])) % 8
    0
    """
    column = [*_ARCHITECTURES].index(machine)
    code = [
        _statement(_LOAD, _ARCHITECTURE_AT),
        _jump(_JUMP_EQUAL, _ARCHITECTURES[machine], 1, 0),
        _statement(_RETURN, _KILL),  # a call by another processor's convention
        _statement(_LOAD, _NUMBER_AT),
    ]
    if machine == "x86_64":
        code += [
            _jump(_JUMP_AT_LEAST, _X32, 0, 1),
            _statement(_RETURN, _ERROR | errno.ENOSYS),
        ]
    for name, wheres in calls:
        number = NUMBERS[name][column]
        if number is None:
            continue
        body = []
        for i, where in enumerate(wheres):
            # The jump skips the rest of the body, up to the reload of the number.
            past = 3 * (len(wheres) - i - 1) + 1
            body += [
                _statement(_LOAD, _ARGUMENTS_AT + 8 * where.argument),
                _statement(_AND, where.mask),
                _jump(_JUMP_EQUAL, where.bits, 0, past),
            ]
        body.append(_statement(_RETURN, _ALLOW))
        if wheres:
            body.append(_statement(_LOAD, _NUMBER_AT))
        code += [_jump(_JUMP_EQUAL, number, 0, len(body)), *body]
    for number in UNKNOWN.values():
        code += [
            _jump(_JUMP_EQUAL, number, 0, 1),
            _statement(_RETURN, _ERROR | errno.ENOSYS),
        ]
    return b"".join([*code, _statement(_RETURN, _ERROR | errno.EPERM)])


def restrict(calls: Calls) -> None:
    """Restrict this thread to these system calls, irrevocably.

    Raises:
      OSError: the kernel refuses.
    """
    code = program(kernel.machine(), calls)
    held = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("@HP", len(code) // 8, ctypes.addressof(held))
    argument = ctypes.create_string_buffer(head, len(head))
    kernel.prctl(_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(argument))


def _statement(operation: int, value: int) -> bytes:
    return struct.pack("<HBBI", operation, 0, 0, value)


def _jump(operation: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("<HBBI", operation, if_true, if_false, value)
