"""The system calls that a confined process may make, by name: their numbers on each machine.

A list of what is allowed, not of what is forbidden: a call that a later kernel brings is refused.
"""

from typing import NamedTuple

NUMBERS = {  # on x86_64, aarch64
    "brk": (12, 214),
    "clock_getres": (229, 114),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "close": (3, 57),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "futex": (202, 98),
    "getpid": (39, 172),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "gettid": (186, 178),
    "gettimeofday": (96, 169),
    "kill": (62, 129),
    "lseek": (8, 62),
    "madvise": (28, 233),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "nanosleep": (35, 101),
    "poll": (7, None),
    "ppoll": (271, 73),
    "pread64": (17, 67),
    "prlimit64": (302, 261),
    "pselect6": (270, 72),
    "read": (0, 63),
    "readv": (19, 65),
    "restart_syscall": (219, 128),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124),
    "select": (23, None),
    "sigaltstack": (131, 132),
    "sysinfo": (99, 179),
    "tgkill": (234, 131),
    "uname": (63, 160),
    "write": (1, 64),
    "writev": (20, 66),
}
# Answered as by a kernel that has not got them, so that libraries take the older call.
UNKNOWN = {"clone3": 435, "openat2": 437}


class Where(NamedTuple):
    """Of an argument's lower half, the bits of a mask must be these."""

    argument: int
    mask: int
    bits: int


Calls = list[tuple[str, tuple[Where, ...]]]
"""Calls, each allowed where all of this holds; of several for one name, any."""

_ALL = 0xFFFFFFFF
_PROT_EXEC = 0x4


def computing(process: int) -> Calls:
    """Of a process that computes, reads and writes what is open, and may signal itself only.

    It can open nothing, start nothing, and make no memory executable.
    """
    # What is called most comes first: the kernel goes through the list.
    free = (
        *("read", "write", "lseek", "futex", "madvise", "munmap", "mremap", "brk"),
        *("clock_gettime", "pread64", "readv", "writev", "close", "rt_sigprocmask"),
        *("rt_sigaction", "rt_sigreturn", "sigaltstack", "restart_syscall", "sched_yield"),
        *("clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "poll", "ppoll"),
        *("select", "pselect6", "sched_getaffinity", "getrandom", "getpid", "gettid"),
        *("getrusage", "sysinfo", "uname", "exit", "exit_group"),
    )
    own = Where(0, _ALL, process)
    return [
        ("mmap", (Where(2, _PROT_EXEC, 0),)),
        ("mprotect", (Where(2, _PROT_EXEC, 0),)),
        *((name, ()) for name in free),
        ("kill", (own,)),
        ("tgkill", (own,)),
        # To ask for limits of its own, not to change any.
        ("prlimit64", (Where(0, _ALL, 0), Where(2, _ALL, 0))),
    ]
