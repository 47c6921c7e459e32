"""Child processes for tests of exit codes, signals and kills, forked from one with all imports.

Importing Beam and spaCy, or JAX and TensorFlow, takes seconds, forking milliseconds. Tests of what
an interpreter does as it starts, such as its choice of an encoding, need a real start.
"""

import gc
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Forks:
    """A process that runs `imports`, Python code, once, and forks from there."""

    def __init__(self, imports: str) -> None:
        self._outputs = tempfile.TemporaryDirectory(prefix="forks-")
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.forks", imports],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End the process, but none that it forked, and remove their outputs."""
        self._server.communicate(timeout=30)
        self._outputs.cleanup()

    def start(self, code: str, *arguments: object, env: Mapping[str, str] | None = None) -> "Fork":
        """Fork a process that runs `code` as `python -c` would, with this one's environment."""
        folder = Path(tempfile.mkdtemp(dir=self._outputs.name))
        job = {
            "code": code,
            "argv": [str(word) for word in arguments],
            "env": {**os.environ, **(env or {})},
            "folder": str(folder),
        }
        pid = self.ask(job)
        assert pid is not None
        return Fork(self, pid, folder)

    def run(
        self,
        code: str,
        *arguments: object,
        env: Mapping[str, str] | None = None,
        timeout: int = 240,
    ) -> subprocess.CompletedProcess[str]:
        """Run `code` to its end."""
        fork = self.start(code, *arguments, env=env)
        try:
            status = fork.wait(timeout)
        finally:
            fork.kill()
        return subprocess.CompletedProcess([*map(str, arguments)], status, fork.stdout, fork.stderr)

    def ask(self, question: Mapping[str, object]) -> int | None:
        """Ask the forking process to fork, or for the status of a fork."""
        assert self._server.stdin and self._server.stdout
        self._server.stdin.write(json.dumps(question) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


class Fork:
    """A forked process, to be used as subprocess.Popen."""

    def __init__(self, forks: Forks, pid: int, folder: Path) -> None:
        self._forks, self.pid, self._folder = forks, pid, folder
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status; None while it runs."""
        if self.returncode is None:
            self.returncode = self._forks.ask({"pid": self.pid})
        return self.returncode

    def wait(self, timeout: float = 240) -> int:
        """Wait for the end and return the exit status."""
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.01)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float = 240) -> tuple[str, str]:
        """Wait for the end and return what was written to stdout and stderr."""
        self.wait(timeout)
        return self.stdout, self.stderr

    def kill(self) -> None:
        """Kill the process, but no child of it."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    @property
    def stdout(self) -> str:
        """Return what the process has written."""
        return (self._folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        """Return what the process has written."""
        return (self._folder / "stderr").read_text()


def _serve(imports: str) -> None:
    """Answer questions until standard input ends; return in each forked process."""
    logging.disable()
    exec(imports, {})
    logging.disable(logging.NOTSET)
    logging.getLogger().handlers.clear()  # Beam logs a warning as it is imported.
    threads = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
    # jemalloc, in PyArrow, starts its thread again in a forked process. Others would be missing.
    assert len(threads - {"jemalloc_bg_thd"}) == 1, threads
    gc.freeze()
    for line in sys.stdin:
        question = json.loads(line)
        if pid := question.get("pid"):
            ended, status = os.waitpid(pid, os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        elif not (answer := os.fork()):
            return _become(**question)
        print(json.dumps(answer), flush=True)
    os._exit(0)


def _become(code: str, argv: list[str], env: dict[str, str], folder: str) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    for descriptor, name in enumerate((os.devnull, f"{folder}/stdout", f"{folder}/stderr")):
        opened = os.open(name, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdin, sys.argv = os.fdopen(0), ["-c", *argv]
    sys.orig_argv = [sys.executable, "-c", code, *argv]
    exec(code, {"__name__": "__main__"})


if __name__ == "__main__":
    _serve(sys.argv[1])
