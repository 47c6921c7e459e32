"""Run a family's targets under Atheris, which guides mutations by the coverage of the code.

An input's first byte selects its target. A target raises an unexpected exception, or AssertionError
for a wrong result. Both are findings: the input is stored, and fuzzing continues.
"""

import contextlib
import hashlib
import importlib
import json
import os
import pathlib
import random
import resource
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

import atheris

from tests.fuzz.mutate import Mutation

_MEMORY_BYTES = 3 << 30  # in addition to the process's memory after imports
_KEPT = 3  # inputs stored per finding
_ROOT = pathlib.Path(__file__).parents[2]


class Target(NamedTuple):
    """A reader, its valid inputs and their mutation."""

    name: str
    seeds: Sequence[bytes]
    check: Callable[[bytes], None]
    mutate: Mutation
    seconds: float = 5.0  # maximum processor time of an input, in seconds


class Record:
    """The numbers of inputs by target, and the findings."""

    def __init__(self, folder: pathlib.Path, targets: Sequence[Target]) -> None:
        self._folder = folder
        self._targets = targets
        self.inputs = dict.fromkeys((target.name for target in targets), 0)
        self.findings: dict[str, int] = {}
        self._written = time.monotonic()
        self.slowest = dict.fromkeys(self.inputs, 0.0)

    def check(self, target: Target, data: bytes) -> None:
        """Try an input, and store it if it shows a fault."""
        self.inputs[target.name] += 1
        began = time.process_time()
        try:
            target.check(data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self._keep(target, data, _place(error), traceback.format_exc())
        spent = time.process_time() - began
        self.slowest[target.name] = max(self.slowest[target.name], spent)
        if spent > target.seconds:
            self._keep(target, data, f"slow: more than {target.seconds:g} s", f"{spent:.1f} s")
        # The fuzzer may kill the process at any time, so a short round writes after each input.
        if sum(self.inputs.values()) < 1000 or time.monotonic() - self._written > 1:
            self.write()

    def _keep(self, target: Target, data: bytes, place: str, told: str) -> None:
        name = f"{target.name}: {place}"
        self.findings[name] = self.findings.get(name, 0) + 1
        if self.findings[name] > _KEPT:
            return
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        stem = f"{self._folder}/{target.name}-{digest}-{self.findings[name]}".replace(" ", "-")
        pathlib.Path(f"{stem}.input").write_bytes(data)
        text = f"{name}\n\n{told}"
        pathlib.Path(f"{stem}.txt").write_text(text, errors="backslashreplace")
        self.write()

    def write(self) -> None:
        """Write the counts for the parent process."""
        counts = {
            "inputs": self.inputs,
            "findings": self.findings,
            "slowest seconds": {name: round(maximum, 3) for name, maximum in self.slowest.items()},
        }
        (self._folder / "counts.json").write_text(json.dumps(counts, indent=2))
        self._written = time.monotonic()


def _place(error: BaseException) -> str:
    """Return an error's type and the last line of this project in its traceback."""
    where = "?"
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename.startswith(str(_ROOT)) and ".venv" not in frame.filename:
            where = f"{os.path.relpath(frame.filename, _ROOT)}:{frame.lineno}"
    return f"{type(error).__name__} at {where}"


def load(family: str, *, instrumented: bool) -> list[Target]:
    """Return the targets of a family, with or without coverage instrumentation."""
    guided = (
        atheris.instrument_imports(  # pyright: ignore[reportAttributeAccessIssue]
            include=["pipelines", "trainer", "protos"]
        )
        if instrumented
        else contextlib.nullcontext()
    )
    with guided:
        module = importlib.import_module(f"tests.fuzz.{family}")
        return list(module.targets())


def run(
    family: str, folder: pathlib.Path, *, only: str, seed: int, inputs: int, seconds: int
) -> None:
    """Fuzz a family up to a number of inputs or seconds; never returns.

    Args:
      family: a module of this package.
      folder: folder for inputs that show faults, counts and the corpus.
      only: prefix of the names of the targets to try; empty for all.
      seed: seed of the random generator.
      inputs: maximum number of inputs.
      seconds: maximum time in seconds.
    """
    # The fuzzer's progress lines would hide findings.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        targets = [one for one in load(family, instrumented=True) if one.name.startswith(only)]
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, target in enumerate(targets):
        for place, one in enumerate(target.seeds):
            (corpus / f"seed-{target.name}-{place}").write_bytes(bytes([number]) + one)
    record = Record(folder, targets)

    def one_input(data: bytes) -> None:
        if data and data[0] < len(targets):
            record.check(targets[data[0]], data[1:])

    def mutate(data: bytes, maximum: int, seed: int) -> bytes:
        draw = random.Random(seed)
        number = data[0] if data and data[0] < len(targets) else draw.randrange(len(targets))
        target = targets[number]
        if draw.random() < 0.3:  # Otherwise the corpus drifts away from valid inputs.
            number = draw.randrange(len(targets))
            target = targets[number]
            body = draw.choice(target.seeds)
        else:
            body = data[1:]
        return (bytes([number]) + target.mutate(body, draw))[:maximum]

    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    maximum = used + _MEMORY_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_AS)  # Decoders set their children's limits.
    resource.setrlimit(resource.RLIMIT_AS, (maximum, hard))
    arguments = {
        "runs": inputs,
        "max_total_time": seconds,
        "seed": seed or 1,
        "max_len": 1 << 20,
        "timeout": 300,
        "rss_limit_mb": 0,  # The limit above is for the address space.
        "artifact_prefix": f"{folder}/",
        "verbosity": 0,
        "reload": 0,
    }
    options = [f"-{name}={value}" for name, value in arguments.items()]
    atheris.Setup([sys.argv[0], str(corpus), *options], one_input, custom_mutator=mutate)
    record.write()
    atheris.Fuzz()
