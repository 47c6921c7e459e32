"""A test that kills commands at random instants, repeats them and compares their outputs.

Each round starts a command, sends SIGKILL at a random instant of its undisturbed duration, and
repeats the command until it ends. Rounds alternate between killing every process of the command
and killing only the main process. Every third round kills the repeated command too. Afterwards
each output file must equal that of an undisturbed run. The files of a training run hold times, so
there the checkpoints' arrays and the metrics must be equal to the bit.

A command is forked from a process that has imported the stages, so a round takes seconds. The
instants lie in the command's own work, after the imports.

    python benchmarks/kills.py --rounds 60 --commands build remove
"""

import argparse
import contextlib
import ctypes
import importlib
import json
import math
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import psutil

sys.path.insert(0, os.fspath(pathlib.Path(__file__).parents[1]))

from benchmarks import kills_commands
from benchmarks.kills_commands import COMMANDS, Command

_RESULTS = pathlib.Path(__file__).parent / "results" / "kills.json"
# Maximum time in which an orphan must notice that its parent has died.
_ORPHAN_SECONDS = 15.0
_MAX_SECONDS = 900.0  # maximum duration of one attempt
_PR_SET_CHILD_SUBREAPER = 36

# Each uses one thread and little optimization, because the commands compile more than they compute.
_ENVIRONMENT = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false --xla_cpu_use_fusion_emitters=false"
    " --xla_backend_optimization_level=0",
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "JAX_PLATFORMS": "cpu",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    "NO_GCE_CHECK": "true",
}


class Attempt(NamedTuple):
    """One start of a command."""

    status: int  # exit status; negative: the signal that ended it
    seconds: float
    orphans: list[str]  # processes that outlived their killed parent
    left: list[str]  # files in its temporary directory


def main() -> int:
    """Run the rounds and write their counts; return 1 if any outcome differed."""
    arguments = _arguments()
    work = pathlib.Path(arguments.work).absolute()
    work.mkdir(parents=True, exist_ok=True)
    os.environ.update(_ENVIRONMENT, JAX_COMPILATION_CACHE_DIR=str(work / "compiled"))
    # Orphans become this process's children, so that it can detect them.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    commands = [COMMANDS[name] for name in arguments.commands]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(sorted({name for one in commands for name in one.preload}))
    data = kills_commands.prepare(work / "data", {one.stage for one in commands})
    faults = 0
    for command in commands:
        faults += _rounds(command, arguments, data, work, context)
    results = _summary(work)
    if arguments.out:
        pathlib.Path(arguments.out).write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    return 1 if faults else 0


def _rounds(
    command: Command, arguments: argparse.Namespace, data: pathlib.Path, work: pathlib.Path, context
) -> int:
    """Run a command's remaining rounds; return the number of all its rounds with faults."""
    log = work / f"{command.name}.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    finished = {one["round"] for one in done}
    faults = sum(1 for one in done if one["faults"])
    if finished >= set(range(arguments.rounds)):
        return faults
    reference, durations = [], []
    for which in ("compiling", "first", "second"):
        folder = _fresh(work / command.name / which)
        attempt = _attempt(command, data, folder, context)
        if attempt.status:
            raise SystemExit(f"kills: error: {command.name} failed undisturbed: {folder}/log.txt")
        durations.append(attempt.seconds)
        reference.append(command.outcome(folder / "out"))
    if differing := _differences(reference[1], reference[2]):
        raise SystemExit(f"kills: error: {command.name} undisturbed differs: {differing}")
    durations = durations[1:]
    for number in range(arguments.rounds):
        if number in finished:
            continue
        draw = random.Random(f"{arguments.seed} {command.name} {number}")
        folder = _fresh(work / command.name / "round")
        killed: list[float] = []
        faults_here: list[str] = []
        while True:
            wanted = 1 + (number % 3 == 2)
            instant = None
            if len(killed) < wanted:
                instant = draw.uniform(0, statistics.median(durations[-9:]))
            attempt = _attempt(command, data, folder, context, instant, whole=number % 2 == 0)
            faults_here += [f"orphan: {orphan}" for orphan in attempt.orphans]
            if attempt.status == -signal.SIGKILL:
                killed.append(round(attempt.seconds, 3))
                continue
            if attempt.status:
                said = (folder / "log.txt").read_text(errors="replace")[-2000:]
                faults_here.append(f"exit status {attempt.status}: {said}")
                break
            if not killed:  # The command ended before the kill, so the round starts again.
                shutil.rmtree(folder)
                _fresh(folder)
                durations.append(attempt.seconds)
                continue
            faults_here += [f"temporary file: {name}" for name in attempt.left]
            faults_here += _differences(reference[1], command.outcome(folder / "out"))
            break
        with log.open("a") as lines:
            entry = {
                "round": number,
                "killed": "all" if number % 2 == 0 else "main",
                "instants": killed,
                "undisturbed_seconds": round(statistics.median(durations), 3),
                "faults": faults_here,
            }
            lines.write(json.dumps(entry) + "\n")
        if faults_here:
            faults += 1
            kept = work / "faults" / f"{command.name}-{number}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept, symlinks=True)
        mark = f"FAULT {faults_here[0][:200]}" if faults_here else "equal"
        print(f"{command.name} {number + 1}/{arguments.rounds}: {killed} {mark}", flush=True)
    return faults


def _attempt(
    command: Command,
    data: pathlib.Path,
    folder: pathlib.Path,
    context: Any,
    kill_after: float | None = None,
    *,
    whole: bool = True,
) -> Attempt:
    """Run the command once, and kill it after `kill_after` seconds unless that is None.

    `whole` kills its descendants too.
    """
    temporary = folder / f"tmp{time.monotonic_ns()}"
    temporary.mkdir()
    argv = command.arguments(data, folder / "out")
    child = context.Process(
        target=_run, args=(command.module, argv, str(folder / "log.txt"), str(temporary))
    )
    before = {process.pid for process in psutil.Process().children()}
    began = time.monotonic()
    child.start()
    child.join(kill_after if kill_after is not None else _MAX_SECONDS)
    if child.is_alive():
        if kill_after is None:
            for process in _descendants(child.pid):
                process.kill()
        doomed = _descendants(child.pid) if whole else []
        with contextlib.suppress(ProcessLookupError):  # It has just ended.
            os.kill(child.pid, signal.SIGKILL)
        for process in doomed:
            if process.is_running():
                process.kill()
        child.join()
    seconds = time.monotonic() - began
    status = child.exitcode
    if kill_after is None and seconds > _MAX_SECONDS:
        status = 124
    orphans = _orphans(before) if status == -signal.SIGKILL else []
    left = sorted(os.listdir(temporary))
    shutil.rmtree(temporary, ignore_errors=True)
    child.close()
    return Attempt(status, seconds, orphans, left)


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _orphans(before: set[int]) -> list[str]:
    """Wait for adopted processes to end; kill the others and return their command lines."""
    until = time.monotonic() + _ORPHAN_SECONDS
    while True:
        adopted = [one for one in psutil.Process().children() if one.pid not in before]
        for process in adopted:
            try:
                os.waitpid(process.pid, os.WNOHANG)
            except ChildProcessError:
                continue
        alive = [one for one in adopted if one.is_running() and one.status() != "zombie"]
        if not alive:
            return []
        if time.monotonic() > until:
            break
        time.sleep(0.1)
    names = []
    for process in alive:
        try:
            names.append(" ".join(process.cmdline())[:200])
            for one in [*process.children(recursive=True), process]:
                one.kill()
            process.wait(10)
        except psutil.NoSuchProcess:
            continue
    return names


def _run(module: str, argv: Sequence[str], log: str, temporary: str) -> None:
    """Run the command in the forked process, as its console script would."""
    os.setsid()
    os.environ["TMPDIR"] = temporary
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.exit(importlib.import_module(module).main(list(argv)))


def _differences(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return messages on missing, additional and different entries of an outcome, at most 10."""
    lines = []
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            lines.append(f"{name}: missing")
        elif name not in wanted:
            lines.append(f"{name}: left over")
        elif wanted[name] != found[name]:
            lines.append(f"{name}: {str(found[name])[:200]}, not {str(wanted[name])[:200]}")
    return lines[:10]


def _fresh(folder: pathlib.Path) -> pathlib.Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _summary(work: pathlib.Path) -> dict[str, Any]:
    """Return the counts of rounds, kills and faults by command."""
    found = {}
    for log in sorted(work.glob("*.jsonl")):
        rounds = [json.loads(line) for line in log.read_text().splitlines()]
        found[log.stem] = {
            "rounds": len(rounds),
            "kills": sum(len(one["instants"]) for one in rounds),
            "all processes": sum(one["killed"] == "all" for one in rounds),
            "main process alone": sum(one["killed"] == "main" for one in rounds),
            "undisturbed seconds": statistics.median(one["undisturbed_seconds"] for one in rounds),
            "first and last instant": [
                min(min(one["instants"], default=math.inf) for one in rounds),
                max(max(one["instants"], default=0) for one in rounds),
            ],
            "rounds with faults": sum(bool(one["faults"]) for one in rounds),
        }
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Kill commands at random instants and compare what they make in the end.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--rounds", type=int, default=60, help="rounds per command")
    parser.add_argument("--seed", type=int, default=0, help="seed of the times")
    parser.add_argument("--work", default="runs/kills", help="folder that keeps finished rounds")
    parser.add_argument("--out", default=str(_RESULTS), help="file for the counts; '' for none")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
