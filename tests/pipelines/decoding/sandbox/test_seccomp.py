"""The seccomp filters, interpreted like in the kernel."""

import errno
import re
import struct
from pathlib import Path

import pytest

from pipelines.decoding.sandbox import seccomp, system_calls
from pipelines.decoding.sandbox.system_calls import NUMBERS, Start, computing

ALLOWED, KILLED = 0x7FFF0000, 0x80000000
REFUSED, UNKNOWN = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PROCESS = 4711
START = Start(0x12_3456_7890, 0x11_1111_1110, 0x22_2222_2228)


def running(process: int) -> system_calls.Calls:
    return system_calls.running(process, START)


MACHINES = [*ARCHITECTURE]


def run(code: bytes, architecture: int, number: int, arguments=()) -> int:
    words = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<iIQ6Q", number, architecture, 0, *words)
    statements = [*struct.iter_unpack("<HBBI", code)]
    at, accumulator = 0, 0
    while True:
        operation, if_true, if_false, value = statements[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x54:
                accumulator &= value
            case 0x15:
                at += if_true if accumulator == value else if_false
            case 0x35:
                at += if_true if accumulator >= value else if_false
            case 0x06:
                return value
            case _:
                raise ValueError(operation)


@pytest.fixture(params=MACHINES)
def machine(request) -> str:
    return request.param


@pytest.mark.parametrize("calls", [computing, running])
def test_unlisted_calls_are_refused(machine, calls):
    code = seccomp.program(machine, calls(PROCESS))
    column = MACHINES.index(machine)
    listed = {NUMBERS[name][column] for name, _ in calls(PROCESS)}
    always = {NUMBERS[name][column] for name, wheres in calls(PROCESS) if not wheres}
    for number in range(700):
        answer = run(code, ARCHITECTURE[machine], number, (1 << 31, (1 << 32) - 2, 7, 7, 7, 7))
        if number in system_calls.UNKNOWN.values():
            assert answer == UNKNOWN
        elif number in always:
            assert answer == ALLOWED
        else:
            assert answer == REFUSED, number
            assert number not in always
    assert always < listed


def test_calls_of_another_architecture_are_refused(machine):
    code = seccomp.program(machine, computing(PROCESS))
    for other in (*ARCHITECTURE.values(), 0x40000003):  # the last one is i386's
        if other != ARCHITECTURE[machine]:
            assert run(code, other, NUMBERS["read"][0]) == KILLED
    if machine == "x86_64":
        for number in (0, NUMBERS["read"][0], 520):  # x32's calls start at 512.
            assert run(code, ARCHITECTURE[machine], number | 0x40000000) == UNKNOWN


CONDITIONS = [
    (computing, "kill", (PROCESS, 9), (PROCESS + 1, 9)),
    (computing, "kill", (PROCESS, 9), (0, 9)),
    (computing, "kill", (PROCESS, 9), ((1 << 64) - 1, 9)),
    (computing, "tgkill", (PROCESS, 5, 6), (5, PROCESS, 6)),
    (computing, "mmap", (0, 4096, 3), (0, 4096, 7)),
    (computing, "mprotect", (0, 4096, 1), (0, 4096, 5)),
    (computing, "prlimit64", (0, 7, 0), (PROCESS, 7, 0)),
    (computing, "prlimit64", (0, 7, 0), (0, 7, 4096)),
    (running, "openat", (-100 & 0xFFFFFFFF, 4096, 0o2000000), (0, 4096, 1)),
    (running, "openat", (0, 4096, 0), (0, 4096, 2)),
    (running, "openat", (0, 4096, 0), (0, 4096, 0o100)),
    (running, "openat", (0, 4096, 0), (0, 4096, 0o1000)),
    (running, "openat", (0, 4096, 0), (0, 4096, 0o20200000)),
    (running, "clone", (0x3D0F00,), (0x11,)),
    (running, "clone", (0x3D0F00,), (0x4111,)),  # as vfork
    (running, "fcntl", (3, 1030), (3, 8)),
    (running, "fcntl", (3, 1), (3, 10)),
    (running, "prctl", (15,), (22,)),
    (running, "mmap", (0, 4096, 5, 0x802), (0, 4096, 5, 0x22)),
    (running, "mmap", (0, 4096, 3, 0x22), (0, 4096, 7, 0x2)),
    (running, "mprotect", (0, 4096, 1), (0, 4096, 5)),
    (running, "execve", START, START._replace(program=START.program + 8)),
    (running, "execve", START, START._replace(words=START.words - 8)),
    (running, "execve", START, START._replace(environment=0)),
    (running, "fcntl", (3, 0), (3, 1024)),
    (running, "kill", (PROCESS, 9), (-1 & 0xFFFFFFFF, 9)),
]


@pytest.mark.parametrize(("calls", "name", "good", "bad"), CONDITIONS)
def test_arguments_are_checked(machine, calls, name, good, bad):
    code = seccomp.program(machine, calls(PROCESS))
    number = NUMBERS[name][MACHINES.index(machine)]
    assert number is not None
    assert run(code, ARCHITECTURE[machine], number, good) == ALLOWED
    assert run(code, ARCHITECTURE[machine], number, bad) == REFUSED


def test_the_numbers_are_the_kernels():
    headers = (
        (0, Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")),
        (1, Path("/usr/include/asm-generic/unistd.h")),
    )
    for column, header in headers:
        if not header.exists():
            pytest.skip(f"no {header}: apt-get install linux-libc-dev")
        found = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text()))
        found.setdefault("newfstatat", found.get("fstatat", ""))
        for name, numbers in NUMBERS.items():
            if numbers[column] is not None:
                assert int(found[name]) == numbers[column], name
            else:
                assert name not in found
        for name, number in system_calls.UNKNOWN.items():
            assert int(found[name]) == number
