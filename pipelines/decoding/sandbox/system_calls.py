"""The system calls that a confined process may make, by name, with their numbers per machine.

This is an allowlist, so a call that a later kernel adds is refused.
"""

from typing import NamedTuple

NUMBERS = {  # on x86_64, aarch64
    "arch_prctl": (158, None),
    "brk": (12, 214),
    "clock_getres": (229, 114),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "clone": (56, 220),
    "close": (3, 57),
    "dup": (32, 23),
    "execve": (59, 221),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "fadvise64": (221, 223),
    "fcntl": (72, 25),
    "fstat": (5, 80),
    "futex": (202, 98),
    "getegid": (108, 177),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getpid": (39, 172),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "gettid": (186, 178),
    "gettimeofday": (96, 169),
    "getuid": (102, 174),
    "kill": (62, 129),
    "lseek": (8, 62),
    "madvise": (28, 233),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "nanosleep": (35, 101),
    "newfstatat": (262, 79),
    "open": (2, None),
    "openat": (257, 56),
    "poll": (7, None),
    "ppoll": (271, 73),
    "prctl": (157, 167),
    "pread64": (17, 67),
    "prlimit64": (302, 261),
    "pselect6": (270, 72),
    "read": (0, 63),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "readv": (19, 65),
    "restart_syscall": (219, 128),
    "rseq": (334, 293),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124),
    "select": (23, None),
    "set_robust_list": (273, 99),
    "set_tid_address": (218, 96),
    "sigaltstack": (131, 132),
    "stat": (4, None),
    "sysinfo": (99, 179),
    "tgkill": (234, 131),
    "uname": (63, 160),
    "write": (1, 64),
    "writev": (20, 66),
}
# These fail as on a kernel without them, so that libraries fall back to the older call.
UNKNOWN = {"clone3": 435, "openat2": 437}


class ArgumentCondition(NamedTuple):
    """A condition on the lower 32 bits of an argument: those under `mask` must equal `bits`."""

    argument: int
    mask: int
    bits: int


Calls = list[tuple[str, tuple[ArgumentCondition, ...]]]
"""Calls with their conditions. A call passes if all conditions of one of its entries hold."""


class Start(NamedTuple):
    """The memory addresses of a program's start arguments, as execve takes them."""

    program: int
    words: int
    environment: int


_ALL = 0xFFFFFFFF
_PROT_WRITE, _PROT_EXEC, _MAP_ANONYMOUS = 0x2, 0x4, 0x20
_CLONE_VM, _CLONE_THREAD = 0x100, 0x10000
_O_WRITING = 0x3 | 0x40 | 0x200 | 0x400 | 0x400000  # O_ACCMODE, _CREAT, _TRUNC, _APPEND, _TMPFILE
_ABOUT_DESCRIPTORS = 0b11  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL are 0 to 3
_F_DUPFD_CLOEXEC = 1030
_PR_SET_NAME = 15


def computing(process: int) -> Calls:
    """Return the calls of a process that computes, uses its open files and signals only itself.

    It can open nothing, start nothing, and make no memory executable.
    """
    # The most frequent calls come first, because the kernel searches the list in order.
    free = (
        *("read", "write", "lseek", "futex", "madvise", "munmap", "mremap", "brk"),
        *("clock_gettime", "pread64", "readv", "writev", "close", "rt_sigprocmask"),
        *("rt_sigaction", "rt_sigreturn", "sigaltstack", "restart_syscall", "sched_yield"),
        *("clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "poll", "ppoll"),
        *("select", "pselect6", "sched_getaffinity", "getrandom", "getpid", "gettid"),
        *("getrusage", "sysinfo", "uname", "exit", "exit_group"),
    )
    own = ArgumentCondition(0, _ALL, process)
    return [
        ("mmap", (ArgumentCondition(2, _PROT_EXEC, 0),)),
        ("mprotect", (ArgumentCondition(2, _PROT_EXEC, 0),)),
        *((name, ()) for name in free),
        ("kill", (own,)),
        ("tgkill", (own,)),
        # The process may read its own limits, but change none.
        ("prlimit64", (ArgumentCondition(0, _ALL, 0), ArgumentCondition(2, _ALL, 0))),
    ]


def running(process: int, start: Start) -> Calls:
    """Return the calls of a process that becomes another program once, which may have threads.

    That program may open files for reading. Landlock decides which.

    Args:
      process: the process's own PID.
      start: the addresses of the arguments for its start.
    """
    free = (
        *("fstat", "newfstatat", "stat", "dup", "fadvise64", "readlink", "readlinkat"),
        *("arch_prctl", "set_tid_address", "set_robust_list", "rseq"),
        *("getuid", "geteuid", "getgid", "getegid"),
    )
    thread = _CLONE_VM | _CLONE_THREAD
    return [
        *computing(process),
        *((name, ()) for name in free),
        # Libraries' code is mapped from files, never written by the process itself.
        (
            "mmap",
            (
                ArgumentCondition(2, _PROT_EXEC | _PROT_WRITE, _PROT_EXEC),
                ArgumentCondition(3, _MAP_ANONYMOUS, 0),
            ),
        ),
        ("open", (ArgumentCondition(1, _O_WRITING, 0),)),
        ("openat", (ArgumentCondition(2, _O_WRITING, 0),)),
        ("clone", (ArgumentCondition(0, thread, thread),)),
        ("fcntl", (ArgumentCondition(1, _ALL ^ _ABOUT_DESCRIPTORS, 0),)),
        ("fcntl", (ArgumentCondition(1, _ALL, _F_DUPFD_CLOEXEC),)),
        ("prctl", (ArgumentCondition(0, _ALL, _PR_SET_NAME),)),
        # The program has no way to learn these addresses: it cannot start another.
        (
            "execve",
            tuple(ArgumentCondition(i, _ALL, address & _ALL) for i, address in enumerate(start)),
        ),
    ]
