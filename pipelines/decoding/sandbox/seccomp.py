"""A filter on system calls: seccomp(2), a program for the kernel's packet filter of old.

The programs are of one form: a call that is on the list is allowed, where its arguments are as the
list says; any other fails with EPERM, as a right that is missing does.
"""

import ctypes
import errno
import struct

from pipelines.decoding.sandbox import kernel
from pipelines.decoding.sandbox.system_calls import NUMBERS, UNKNOWN, Calls

_SET_SECCOMP, _MODE_FILTER = 22, 2
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_ of audit.h
_X32 = 0x40000000  # a bit of the numbers of x86_64's other interface, which has calls of its own

# Of the filter's machine, filter.h and bpf_common.h.
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06  # BPF_LD | BPF_W | BPF_ABS and so on
_JUMP_EQUAL, _JUMP_AT_LEAST = 0x15, 0x35
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # in struct seccomp_data
_KILL, _ERROR, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000


def program(machine: str, calls: Calls) -> bytes:
    """The filter that allows these calls alone, as the kernel takes it.

    >>> len(program("x86_64", [("read", ())])) % 8
    0
    """
    column = [*_ARCHITECTURES].index(machine)
    code = [
        _statement(_LOAD, _ARCHITECTURE_AT),
        _jump(_JUMP_EQUAL, _ARCHITECTURES[machine], 1, 0),
        _statement(_RETURN, _KILL),  # a call in the manner of another processor
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
            # Past the rest of the body, to where the number is loaded again.
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
    """Leaves this thread these system calls alone, for good.

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
