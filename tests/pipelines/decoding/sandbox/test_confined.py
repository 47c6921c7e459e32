"""Hostile code in a decoder's place: every attempt fails with the sandbox and succeeds without."""

import contextlib
import importlib.util
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator

import pytest

from pipelines.decoding.sandbox import LAYERS, fork_client, programs
from pipelines.processes import child_python
from pipelines.processes.timeouts import Timeout

HOSTILE = pathlib.Path(__file__).with_name("hostile.py")
NOBODY = 65534

# A process of the same user, with an open file and writable memory.
VICTIM = """
import ctypes, os, sys, time
user = int(sys.argv[2])
if user != os.geteuid():
    os.setgroups([]); os.setresgid(user, user, user); os.setresuid(user, user, user)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
os.chdir(sys.argv[1])
held = os.open("other.mp4", os.O_RDONLY)
word = ctypes.create_string_buffer(b"unharmed", 16)
print(held, ctypes.addressof(word), flush=True)
time.sleep(600)
"""

# Names of the attempts; the module is not part of a package.
_spec = importlib.util.spec_from_file_location("hostile", HOSTILE)
assert _spec and _spec.loader
_hostile = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_hostile)
NAMES = [*_hostile.ATTEMPTS]

# Attempts that only seccomp forbids, not Landlock or namespaces.
BY_SECCOMP_ALONE = {
    *("look at a file", "connect UNIX", "socket pair", "change a mode", "change times"),
    *("fork", "thread", "executable memory", "file in memory", "shared memory", "own limits"),
    *("setns", "bpf", "io_uring", "keyctl", "userfaultfd", "perf_event_open", "add_key"),
    *("open_by_handle_at", "name_to_handle_at", "openat2"),
    *_hostile.CALLS,
    *("lock the video", "lock a part of the video", "signals about the video to another"),
    *("a lease on the video", "memory written, then executed", "the video as code", "dumpable"),
    *("another's messages", "semaphores"),
}
# Calls that an executed program needs, but a forked child does not.
OF_A_PROGRAM = {"look at a file", "thread"}
BY_LANDLOCK_ALONE = {
    *("read /etc/passwd", "read a key", "read another video", "read by a link"),
    *("read by /proc/self/root", "own memory by /proc, read"),
}
# Attempts that fail for any unprivileged user.
BY_ROOT_ALONE = {
    *("mount", "chroot", "unshare", "bpf", "move_pages", "landlock_restrict_self"),
    *("write to another's pipe", "become this program again"),  # owned by root
}


@contextlib.contextmanager
def world(user: int) -> Iterator[dict]:
    """Create the targets of the attempts, owned by the user."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="svilm-hostile-"))
    with contextlib.ExitStack() as opened:
        opened.callback(shutil.rmtree, folder, ignore_errors=True)
        (folder / ".ssh").mkdir()
        (folder / ".ssh" / "id").write_text("secret")
        for name in ("video.mp4", "other.mp4", *(f"victim_{i}" for i in range(1, 7))):
            (folder / name).write_text("unharmed")
        (folder / "victim_folder").mkdir()
        (folder / "link").symlink_to(folder / "other.mp4")
        tcp = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        unix = opened.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(folder / "socket"))
        unix.listen()
        abstract = opened.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0svilm-hostile-{os.getpid()}-{user}")
        abstract.listen()
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, user, user, follow_symlinks=False)
        victim = opened.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", VICTIM, folder, str(user)],
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        opened.callback(victim.kill)
        assert victim.stdout
        held, address = map(int, victim.stdout.readline().split())
        yield {
            "user": user,
            "folder": str(folder),
            "video": str(folder / "video.mp4"),
            "victim": victim.pid,
            "builder": victim.pid,
            "held": held,
            "address": address,
            "port": tcp.getsockname()[1],
            "abstract": f"\0svilm-hostile-{os.getpid()}-{user}",
        }


def _run(what: str, where: dict) -> dict:
    done = subprocess.run(
        [sys.executable, "-P", HOSTILE, what, json.dumps(where)],
        env=os.environ | {"SVILM_TEST_TOKEN": "secret", "HOME": where["folder"]},
        capture_output=True,
        text=True,
        timeout=250,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _listing(folder: str) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else ""
        for path in pathlib.Path(folder).rglob("*")
        if not path.is_socket()
    }


@pytest.fixture(scope="module", params=["as it is", "as nobody"])
def tried(request) -> dict:
    """Return the results of all attempts by applied layers, and without layers."""
    user = os.geteuid() if request.param == "as it is" else NOBODY
    if user != os.geteuid() and os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    with world(user) as where:
        before = _listing(where["folder"])
        tried = _run("attempts", where)
        if tried["missing: all"]:
            pytest.skip(fork_client.described(tried["missing: all"]))
        tried |= {"where": where, "before": before, "after": _listing(where["folder"])}
        tried["free"] = _run("free", where)
    return tried


@pytest.mark.parametrize("name", NAMES)
def test_an_attempt_fails_confined_and_succeeds_free(tried, name):
    assert tried["free"][name].startswith("done") or (
        name in BY_ROOT_ALONE and tried["where"]["user"] != 0
    ), tried["free"][name]
    for layers in ("all", "seccomp", "without namespaces"):
        assert tried[layers][name].startswith("refused"), (layers, tried[layers][name])
    for layers in ("program", "program without namespaces", "program by seccomp"):
        free = name in OF_A_PROGRAM
        free |= layers == "program by seccomp" and name in BY_LANDLOCK_ALONE
        assert tried[layers][name].startswith("done" if free else "refused"), (layers, name)
    if name not in BY_SECCOMP_ALONE:
        assert tried["landlock"][name].startswith("refused"), tried["landlock"][name]


def test_nothing_was_harmed_confined(tried):
    assert tried["after"] == tried["before"]


def test_refused_layers_are_reported(tried):
    assert set(tried["missing: without namespaces"]) == {name for name in LAYERS if "_name" in name}


# Importing lists folders, which is forbidden. So the library is an archive, and modules outside
# of it are opened by name.
START = """
import importlib.machinery, importlib.util, os, sys
class Finder:
    def find_spec(name, path=None, target=None):
        for folder in path or sys.path:
            for ending in (".py", *importlib.machinery.EXTENSION_SUFFIXES, "/__init__.py"):
                place = folder + "/" + name.rpartition(".")[2] + ending
                if os.path.exists(place):
                    return importlib.util.spec_from_file_location(name, place)
sys.meta_path.append(Finder)
import json
places, where = json.loads(sys.argv[1])
sys.path += places
import hostile
hostile.as_program(where)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> tuple[programs.Program, dict[str, str]]:
    """Return Python as a program to confine, and its environment."""
    library = pathlib.Path(sysconfig.get_path("stdlib"))
    archive = tmp_path_factory.mktemp("library") / "library.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for part in (".", "collections", "ctypes", "encodings", "importlib", "json", "re"):
            for path in (library / part).glob("*.py"):
                packed.write(path, path.relative_to(library))
    path = os.path.realpath(sys.executable)
    program = programs.linked(path, {})
    tests, ours = pathlib.Path(__file__).parent, pathlib.Path(programs.__file__).parents[3]
    read = ("/lib", "/usr/lib", sys.base_prefix, str(tests), str(ours), str(archive))
    return program._replace(libraries=(*program.libraries, *read)), {
        "PYTHONPATH": str(archive),
        "LC_CTYPE": "C.UTF-8",
    }


def run(program, words, descriptors=(), environment=None, **limits) -> tuple[int | None, str]:
    timeout, log = Timeout(100), b""
    with programs.started(
        program, words, descriptors, environment=environment or {}, **limits
    ) as child:
        while timeout.wait_readable(child.log) and (text := os.read(child.log, 1 << 16)):
            log += text
        return child.status(timeout), log.decode()


@pytest.fixture
def confined():
    if missing := fork_client.missing_here():
        pytest.skip(fork_client.described(missing))


@pytest.mark.usefixtures("confined")
def test_every_attempt_of_a_program_fails(python, monkeypatch):
    program, environment = python
    monkeypatch.setenv("SVILM_TEST_TOKEN", "secret")
    with world(os.geteuid()) as where, open(where["video"], "rb") as video:
        places = [os.path.dirname(__file__), *child_python.module_path()]
        places.append(sysconfig.get_config_var("DESTSHARED"))
        words = ["-P", "-S", "-c", START, json.dumps([places, where])]
        status, log = run(program, words, [video.fileno()], environment)
    assert status == 0, log
    told = json.loads(log.splitlines()[-1])
    assert told.pop("its descriptors") == [0, 1, 2, programs.FIRST]
    assert told.pop("its environment") == environment
    done = {name for name, what in told.items() if not what.startswith("refused")}
    assert done == OF_A_PROGRAM


def test_a_program_gets_signals_limits_and_files(python, tmp_path):
    """The program starts as by subprocess: default signals, inherited limits, named files."""
    program, environment = python
    first, second = tmp_path / "first", tmp_path / "second"
    with open(first, "wb", 0) as one, open(second, "wb", 0) as two:
        given = {"descriptors": [one.fileno(), two.fileno()], "environment": environment}
        code = "import os; os.write(3, b'one'); os.write(4, b'two'); os.write(2, b'said'); "
        code += "assert len(open('/dev/urandom', 'rb', 0).read(8)) == 8"
        assert run(program, ["-P", "-S", "-c", code], **given) == (0, "said")
        assert (first.read_text(), second.read_text()) == ("one", "two")
        code = "import os\nwhile True: os.write(3, bytes(4096))"
        limits = [(resource.RLIMIT_FSIZE, 8192, 8192)]
        # Python ignores this signal, which would end another program.
        status, log = run(program, ["-P", "-S", "-c", code], limits=limits, **given)
        assert status == 1 and "File too large" in log
        assert first.stat().st_size == 8192
    status, _ = run(program, ["-P", "-S", "-c", "import os; os.kill(os.getpid(), 9)"], **given)
    assert status == -signal.SIGKILL


def test_a_program_that_cannot_be_started(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(OSError, match=str(path)):
            run(programs.Program(str(path)), [])


def test_a_script_has_fewer_layers_or_is_refused(tmp_path):
    script = tmp_path / "script"
    script.write_text('#!/bin/sh\necho $(echo "$WORD") >&2; exit 7\n')
    script.chmod(0o755)
    program = programs.Program(str(script), unconfined="a script")
    given = {"environment": {"WORD": "said", "PATH": os.environ["PATH"]}}
    assert run(program, [], **given) == (7, "said\n")
    assert {"landlock", "seccomp"} <= set(fork_client.seen)
    fork_client.seen.clear()
    with pytest.raises(fork_client.UnconfinedError, match=r"landlock \(a script\)"):
        run(program, [], required=True, **given)
    fork_client.seen.clear()
