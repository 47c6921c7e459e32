"""Code in a decoder's place, with what it would do: run confined, in part confined, or free.

python hostile.py WHERE: what may be harmed, in JSON; prints what became of each attempt, by layers.
"""

import ctypes
import fcntl
import json
import mmap
import os
import resource  # noqa: F401
import signal
import socket
import subprocess  # noqa: F401
import sys

from pipelines.decoding.sandbox import fork_server, namespaces, secret_start
from pipelines.decoding.sandbox.fork_client import ForkServer
from pipelines.processes import child_python
from pipelines.processes.timeouts import Timeout

LIBRARY = ctypes.CDLL(None, use_errno=True)
REFUSALS = (1, 13, 38)  # EPERM, EACCES, ENOSYS


def checked(answer: int) -> int:
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer


def reaches(number: int, *words: int) -> None:
    """Check that the kernel reads a call's arguments, which are invalid."""
    given = [ctypes.c_long(word) for word in (words or (-1, -1, -1, -1, -1))]
    if LIBRARY.syscall(ctypes.c_long(number), *given) < 0 and ctypes.get_errno() in REFUSALS:
        raise PermissionError(ctypes.get_errno())


class Vector(ctypes.Structure):
    _fields_ = (("at", ctypes.c_void_p), ("size", ctypes.c_size_t))


def across(call: str, process: int, address: int) -> None:
    word = ctypes.create_string_buffer(b"harmed!", 8)
    here = Vector(ctypes.cast(word, ctypes.c_void_p), 8)
    there = Vector(address, 8)
    function = getattr(LIBRARY, call)
    checked(function(process, ctypes.byref(here), 1, ctypes.byref(there), 1, 0))


def memory_of(process: int, address: int) -> None:
    with open(f"/proc/{process}/mem", "r+b", buffering=0) as memory:
        memory.seek(address)
        memory.write(b"harmed!")


def traces(process: int) -> None:
    checked(LIBRARY.ptrace(16, process, 0, 0))  # PTRACE_ATTACH
    os.waitpid(process, 0)
    checked(LIBRARY.ptrace(17, process, 0, 0))


def connects(kind: int, address: str | bytes | tuple[str, int], family: int) -> None:
    with socket.socket(family, kind) as opened:
        opened.connect(address)


def listens(family: int, address: str | tuple[str, int]) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as opened:
        opened.bind(address)
        opened.listen()


def changes_by_mmap(path: str) -> None:
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:6] = b"harmed"
        mapped.flush()


def starts_a_child() -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)


def pidfd_signals(process: int) -> None:
    opened = os.pidfd_open(process)
    signal.pidfd_send_signal(opened, signal.SIGCONT)


def turns_executable() -> None:
    page = mmap.mmap(-1, mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    checked(LIBRARY.mprotect(ctypes.c_void_p(address), mmap.PAGESIZE, mmap.PROT_EXEC))


ATTEMPTS = {
    "environment": 'assert os.environ["SVILM_TEST_TOKEN"]',
    "environment in C": 'assert LIBRARY.getenv(b"SVILM_TEST_TOKEN")',
    "environment of the builder": 'assert open(f"/proc/{builder}/environ", "rb").read()',
    "read /etc/passwd": 'open("/etc/passwd").read()',
    "read a key": 'open(f"{folder}/.ssh/id").read()',
    "read another video": 'open(f"{folder}/other.mp4").read()',
    "read by a link": 'open(f"{folder}/link").read()',
    "read by /proc/self/root": 'open(f"/proc/self/root{folder}/other.mp4").read()',
    "read by /proc/PID/root": 'open(f"/proc/{victim}/root{folder}/other.mp4").read()',
    "read by /proc/PID/cwd": 'open(f"/proc/{victim}/cwd/other.mp4").read()',
    "read by /proc/PID/fd": 'open(f"/proc/{victim}/fd/{held}").read()',
    "open the video again": 'open(f"/proc/self/fd/{video}", "r+b")',
    "list a folder": "os.listdir(folder)",
    "list processes": 'os.listdir("/proc")',
    "look at a file": 'os.stat(f"{folder}/other.mp4")',
    "descriptors of the builder": 'assert len(os.listdir("/proc/self/fd"))',
    "connect TCP": 'connects(socket.SOCK_STREAM, ("127.0.0.1", port), socket.AF_INET)',
    "send UDP": 'connects(socket.SOCK_DGRAM, ("127.0.0.1", port), socket.AF_INET)',
    "connect UNIX": 'connects(socket.SOCK_STREAM, f"{folder}/socket", socket.AF_UNIX)',
    "connect UNIX, abstract": "connects(socket.SOCK_STREAM, abstract.encode(), socket.AF_UNIX)",
    "listen TCP": 'listens(socket.AF_INET, ("127.0.0.1", 0))',
    "listen UNIX": 'listens(socket.AF_UNIX, f"{folder}/new_socket")',
    "socket pair": "socket.socketpair()",
    "create a file": 'open(f"{folder}/new", "w")',
    "create a file in /tmp": 'open(f"/tmp/svilm-{os.getpid()}-new", "x")',
    "create a folder": 'os.mkdir(f"{folder}/new_folder")',
    "create a pipe": 'os.mkfifo(f"{folder}/new_pipe")',
    "truncate": 'os.truncate(f"{folder}/victim_1", 0)',
    "write over": 'open(f"{folder}/victim_2", "r+b").write(b"harmed")',
    "rename": 'os.rename(f"{folder}/victim_3", f"{folder}/renamed")',
    "delete": 'os.remove(f"{folder}/victim_4")',
    "delete a folder": 'os.rmdir(f"{folder}/victim_folder")',
    "link": 'os.link(f"{folder}/victim_5", f"{folder}/new_link")',
    "symbolic link": 'os.symlink("/etc/passwd", f"{folder}/new_symlink")',
    "change a mode": 'os.chmod(f"{folder}/victim_5", 0o777)',
    "change times": 'os.utime(f"{folder}/victim_5")',
    "change by mmap": 'changes_by_mmap(f"{folder}/victim_6")',
    "fork": "starts_a_child()",
    "shell": 'subprocess.run(["/bin/sh", "-c", "exit 0"], check=True)',
    "spawn": 'os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", "exit 0"], {}), 0)',
    "become a shell": 'os.execv("/bin/sh", ["sh", "-c", "exit 0"])',
    "thread": "import _thread; _thread.start_new_thread(int, ())",
    "executable memory": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    "file in memory": 'os.memfd_create("new")',
    "signal": "os.kill(victim, signal.SIGCONT)",
    "signal a group": "os.killpg(victim, signal.SIGCONT)",
    "signal by tgkill": "checked(LIBRARY.syscall(TGKILL, victim, victim, int(signal.SIGCONT)))",
    "signal by a descriptor": "pidfd_signals(victim)",
    "limits of another": "resource.prlimit(victim, resource.RLIMIT_CORE, (0, 0))",
    "priority of another": "os.setpriority(os.PRIO_PROCESS, victim, 5)",
    "processors of another": "os.sched_setaffinity(victim, {0})",
    "read memory": 'across("process_vm_readv", victim, address)',
    "write memory": 'across("process_vm_writev", victim, address)',
    "write memory by /proc": "memory_of(victim, address)",
    "trace": "traces(victim)",
    "shared memory": "checked(LIBRARY.shmget(0, 4096, 0o600 | 0o1000))",
    "mount": 'checked(LIBRARY.mount(b"none", folder.encode(), b"tmpfs", 0, None)); '
    "checked(LIBRARY.umount2(folder.encode(), 2))",
    "chroot": 'os.chroot("/")',
    "unshare": "checked(LIBRARY.unshare(0x08000000))",
    "setns": "reaches(SETNS)",
    "bpf": "reaches(321 if X86 else 280)",
    "io_uring": "reaches(425)",
    "keyctl": "reaches(250 if X86 else 219)",
    "userfaultfd": "reaches(323 if X86 else 282)",
    "perf_event_open": "reaches(298 if X86 else 241)",
    "open_by_handle_at": "reaches(304 if X86 else 265)",
    "name_to_handle_at": "reaches(303 if X86 else 264)",
    "openat2": "reaches(437)",
    "add_key": "reaches(248 if X86 else 217)",
    "own limits": "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
    "own memory by /proc": 'open("/proc/self/mem", "r+b").close()',
    "own memory by /proc, read": 'open("/proc/self/mem", "rb").close()',
    "write to another's pipe": 'os.close(os.open(f"/proc/{victim}/fd/1", os.O_WRONLY))',
    "become this program again": 'os.execv(sys.executable, [sys.executable, "-c", ""])',
    "lock the video": "fcntl.flock(video, fcntl.LOCK_EX)",
    "lock a part of the video": "fcntl.lockf(video, fcntl.LOCK_SH)",
    "signals about the video to another": "fcntl.fcntl(video, fcntl.F_SETOWN, victim)",
    "a lease on the video": "fcntl.fcntl(video, fcntl.F_SETLEASE, fcntl.F_RDLCK)",
    "memory written, then executed": "turns_executable()",
    "the video as code": "mmap.mmap(video, 0, flags=mmap.MAP_PRIVATE, prot=WRITE_AND_EXECUTE)",
    "dumpable": "checked(LIBRARY.prctl(4, 1, 0, 0, 0))",
    "another's messages": "checked(LIBRARY.msgget(0, 0o600 | 0o1000))",
    "semaphores": "checked(LIBRARY.semget(0, 1, 0o600 | 0o1000))",
}

X86 = os.uname().machine == "x86_64"
WRITE_AND_EXECUTE = mmap.PROT_WRITE | mmap.PROT_EXEC
TGKILL, SETNS = (234, 308) if X86 else (131, 268)
CALLS = {  # on x86_64, aarch64
    "execveat": (322, 281),
    "memfd_secret": (447, 447),
    "clone3": (435, 435),
    "pidfd_getfd": (438, 438),
    "splice": (275, 76),
    "tee": (276, 77),
    "vmsplice": (278, 75),
    "sendfile": (40, 71),
    "copy_file_range": (326, 285),
    "mq_open": (240, 180),
    "timer_create": (222, 107),
    "setitimer": (38, 103),
    "ioctl": (16, 29),
    "setrlimit": (160, 164),
    "msgsnd": (69, 189),
    "shmat": (30, 196),
    "kcmp": (312, 272),
    "move_pages": (279, 239),
    "process_madvise": (440, 440),
    "inotify_add_watch": (254, 27),
    "epoll_ctl": (233, 21),
    "timerfd_create": (283, 85),
    "landlock_restrict_self": (446, 446),
    "seccomp": (317, 277),
    "personality": (135, 92),
    "remap_file_pages": (216, 234),
    "fallocate": (285, 47),
    "ftruncate": (77, 46),
    "fchmod": (91, 52),
    "fsetxattr": (190, 7),
    "pwritev": (296, 70),
    "socket": (41, 198),
    "sendmsg": (46, 211),
    "io_setup": (206, 0),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "sched_setscheduler": (144, 119),
    "ioprio_set": (251, 30),
    "mlock2": (325, 284),
    "statx": (332, 291),
}
ATTEMPTS |= {name: f"reaches({x86 if X86 else arm})" for name, (x86, arm) in CALLS.items()}


START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); import hostile; hostile.main()"

LAYERS = (
    *("all", "landlock", "seccomp", "without namespaces"),
    *("program", "program without namespaces", "program by seccomp"),
)
"""What is put on: all layers, those of namespaces and one more, and those of a child alone; then
those that a program keeps which a child becomes, as if it had."""

NAMESPACES = ("user_namespace", "network_namespace", "ipc_namespace", "pid_namespace")


def become(user: int) -> None:
    """Continue as another user."""
    if user != os.geteuid():
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        checked(LIBRARY.prctl(4, 1, 0, 0, 0))  # PR_SET_DUMPABLE


def attempt(code: str, where: dict) -> str:
    try:
        exec(code, globals() | where)
    except BaseException as error:
        return f"refused: {type(error).__name__}: {error}"
    return "done"


def answer(request, descriptors, confinement) -> None:
    """Answer like the decoder: confine itself, then run hostile code."""
    pipe, video = descriptors
    if request["layers"] == "landlock":
        confinement.apply_landlock()
    elif request["layers"] == "seccomp":
        confinement.apply_seccomp()
    elif request["layers"].startswith("program"):
        start = secret_start.prepared(sys.executable, ["-c", ""], {})
        if request["layers"] != "program by seccomp":
            confinement.apply_landlock([f"{sys.base_prefix}/lib"], [sys.executable])
        confinement.apply_seccomp_to_program(start)
    else:
        confinement.compute_only()
    os.write(pipe, attempt(request["code"], request["where"] | {"video": video}).encode())


def as_program(where: dict) -> None:
    """Print the result of each attempt, as a program that received the video."""
    told = {
        "its descriptors": [number for number in range(1024) if is_open(number)],
        "its environment": dict(os.environ),
    }
    told |= {name: attempt(code, where | {"video": 3}) for name, code in ATTEMPTS.items()}
    print(json.dumps(told), file=sys.stderr)


def is_open(number: int) -> bool:
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def main() -> None:
    become(int(sys.argv[2]))
    if "without namespaces" in sys.argv[3]:  # Many containers refuse namespaces.
        namespaces.enter = lambda: dict.fromkeys(NAMESPACES, "refused")
    fork_server.serve(answer)


def attempts(where: dict) -> None:
    """Print the result of each attempt by applied layers."""
    results: dict[str, dict[str, str]] = {}
    places = json.dumps([os.path.dirname(os.path.abspath(__file__)), *child_python.module_path()])
    program = (sys.executable, "-P", "-c", START, places, str(where["user"]))
    for layers in LAYERS:
        server = ForkServer((*program, layers))
        results[layers] = {}
        for name, code in ATTEMPTS.items():
            with open(where["video"], "rb") as video:
                reader, writer = os.pipe()
                request = {"layers": layers, "code": code, "where": where}
                server.begin(request, [writer, video.fileno()])
                os.close(writer)
                told = os.read(reader, 4096).decode()
                os.close(reader)
                status = server.status(Timeout(10))
            results[layers][name] = told or f"done: it ended with {status}"
        results[f"missing: {layers}"] = server.missing
        server.end()
    print(json.dumps(results))


def free(where: dict) -> None:
    """Print the result of each attempt in a child process without layers."""
    results = {}
    for name, code in ATTEMPTS.items():
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            become(where["user"])
            video = os.open(where["video"], os.O_RDONLY)
            os.write(writer, attempt(code, where | {"video": video}).encode())
            os._exit(0)
        os.close(writer)
        told = os.read(reader, 4096).decode()
        status = os.waitpid(child, 0)[1]
        results[name] = told or f"done: it ended with {status}"
    print(json.dumps(results))


if __name__ == "__main__":
    {"attempts": attempts, "free": free}[sys.argv[1]](json.loads(sys.argv[2]))
