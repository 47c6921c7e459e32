"""Hostile code in the place of a decoder: every attempt fails confined, and succeeds free."""

import contextlib
import importlib.util
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from pipelines.sandbox import LAYERS, nursery

HOSTILE = pathlib.Path(__file__).with_name("hostile.py")
NOBODY = 65534

# A process of the user's, which holds a file open and has memory to be changed.
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

# The names of what is attempted: the module itself is no part of a package.
_spec = importlib.util.spec_from_file_location("hostile", HOSTILE)
assert _spec and _spec.loader
_hostile = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_hostile)
NAMES = [*_hostile.ATTEMPTS]

# What Landlock does not forbid by itself, nor a namespace: seccomp alone does.
BY_SECCOMP_ALONE = {
    *("look at a file", "connect UNIX", "socket pair", "change a mode", "change times"),
    *("fork", "thread", "executable memory", "file in memory", "shared memory", "own limits"),
    *("setns", "bpf", "io_uring", "keyctl", "userfaultfd", "perf_event_open", "add_key"),
    *("open_by_handle_at", "name_to_handle_at", "openat2"),
}
# What an ordinary user may not do anyhow.
BY_ROOT_ALONE = {"mount", "chroot", "unshare", "bpf"}


@contextlib.contextmanager
def _world(user: int) -> Iterator[dict]:
    """What is there to be harmed, all the user's own."""
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
    """What became of each attempt, by the layers that were put on, and free."""
    user = os.geteuid() if request.param == "as it is" else NOBODY
    if user != os.geteuid() and os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    with _world(user) as where:
        before = _listing(where["folder"])
        tried = _run("attempts", where)
        if tried["missing: all"]:
            pytest.skip(nursery.told(tried["missing: all"]))
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
    if name not in BY_SECCOMP_ALONE:
        assert tried["landlock"][name].startswith("refused"), tried["landlock"][name]


def test_nothing_was_harmed_confined(tried):
    assert tried["after"] == tried["before"]


def test_layers_that_are_refused_are_told(tried):
    assert set(tried["missing: without namespaces"]) == {name for name in LAYERS if "_name" in name}
