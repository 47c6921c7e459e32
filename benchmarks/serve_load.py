"""A load test of `svilm-train serve`, which it starts on this machine for a run and an index.

Clients on loopback send searches, films, structures, ranges of videos and, one request in five, bad
ones: wrong numbers, overlong texts, paths out of the page, unknown hosts, and broken HTTP. The test
fails if an answer has a status 5xx other than 503 (a full queue, which answers with Retry-After),
if a good request fails otherwise, if memory grows after the warm-up by more than `--growth`, or if
the server leaves a process behind or does not end with SIGTERM.

    python benchmarks/serve_load.py --index indices/first --seconds 600 --clients 50
"""

import argparse
import collections
import http.client
import json
import os
import pathlib
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse
from typing import NamedTuple

import psutil

_WORDS = ("a", "red", "blue", "ring", "disc", "star", "rising", "turning", "of", "the", "and")
_BAD_SHARE = 0.2
_SAMPLE_S = 1.0
_START_S = 300.0
_END_S = 30.0
_MIB = 1 << 20


class Request(NamedTuple):
    """A request and the statuses that answer it."""

    path: str
    headers: dict[str, str]
    expected: frozenset[int]


class Tally:
    """Answers of the server, counted by all clients."""

    def __init__(self, most: int) -> None:
        """Initialize with no answer, and with the maximum number of requests."""
        self.statuses: collections.Counter[str] = collections.Counter()
        self.faults: list[str] = []
        self.seconds: list[float] = []
        self._left = most
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Return whether another request may be sent, and count it."""
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def add(self, status: str, seconds: float, fault: str | None) -> None:
        """Count an answer."""
        with self._lock:
            self.statuses[status] += 1
            self.seconds.append(seconds)
            if fault:
                self.faults.append(fault)


def good(random_: random.Random, clips: int) -> Request:
    """Return a request that the server should answer."""
    number = random_.randrange(clips)
    text = " ".join(random_.choices(_WORDS, k=random_.randint(1, 8)))
    quoted = urllib.parse.quote_plus(text)
    paths = (
        f"/api/search?text={quoted}",
        f"/api/search?text={quoted}&by_video=true&page=2&size=5",
        f"/api/search?like={number}",
        f"/api/clips/{number}",
        f"/api/clips/{number}/film.jpg",
        f"/api/clips/{number}/structure?noun={urllib.parse.quote_plus(random_.choice(_WORDS))}",
        *("/", "/page/main.js", "/docs", "/healthz", "/metrics"),
    )
    ranged = f"/api/clips/{number}/video"
    path = random_.choice([*paths, ranged])
    if path == ranged:  # 404 without --videos, or if this video is not there
        start = random_.randrange(10_000)
        return Request(path, {"Range": f"bytes={start}-{start + 999}"}, frozenset({206, 404, 416}))
    return Request(path, {}, frozenset({200}))


def bad(random_: random.Random) -> Request:
    """Return a request that the server should refuse."""
    path = random_.choice(
        [
            *("/api/search", "/api/search?text=", f"/api/search?text={'a' * 600}"),
            *("/api/search?text=a&page=5000", "/api/search?text=a&min_score=nan", "/api/none"),
            *("/api/search?like=99999999", "/api/clips/-1", "/api/clips/x/film.jpg"),
            *("/api/search?text=a&side=1&colour=red", "/page/..%2f..%2f..%2fetc%2fpasswd"),
            f"/api/search?{'&'.join(['text=%00%ff'] * 9)}",
            f"/api/clips/0/structure?{'&'.join(['noun=a'] * 7)}",
        ]
    )
    headers = random_.choice([{}, {}, {"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
    return Request(path, headers, frozenset({400, 403, 404, 422}))


def send(port: int, request: Request, tally: Tally) -> None:
    """Send a request, read the whole answer, and count it."""
    begun = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", request.path, headers=request.headers)
        answer = connection.getresponse()
        answer.read()
        status = answer.status
        busy = status in (429, 503) and answer.getheader("Retry-After") is not None
        as_expected = busy or status in request.expected
        fault = None if as_expected else f"{status} for {request.path[:80]} {request.headers}"
        tally.add(str(status), time.monotonic() - begun, fault)
    except (OSError, http.client.HTTPException) as error:
        fault = f"{type(error).__name__} for {request.path[:80]}"
        tally.add("no answer", time.monotonic() - begun, fault)
    finally:
        connection.close()


def send_broken(port: int, random_: random.Random, tally: Tally) -> None:
    """Send what is not HTTP, or leave in the middle of a request."""
    data = random_.choice(
        [
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"GET /api/search?text=" + b"a" * 100_000,
            b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
            b"GET /api/about HTTP/1.1\r\nHost: loc",
        ]
    )
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            status = client.recv(4096)[9:12].decode("latin-1") or "closed"
        except OSError:  # the server may close before it has read everything
            status = "closed"
    fault = f"{status} for broken HTTP" if status.startswith("5") else None
    tally.add(f"broken HTTP: {status}", time.monotonic() - begun, fault)


def client(port: int, clips: int, seed: int, until: float, tally: Tally) -> None:
    """Send requests, one after another, until a time or until none is left."""
    random_ = random.Random(seed)
    while time.monotonic() < until and tally.take():
        if random_.random() >= _BAD_SHARE:
            send(port, good(random_, clips), tally)
        elif random_.random() < 0.2:
            send_broken(port, random_, tally)
        else:
            send(port, bad(random_), tally)


def start(arguments: argparse.Namespace) -> tuple[subprocess.Popen[str], int]:
    """Start the server on a free port, and return its process and port."""
    command = [sys.executable, "-m", "trainer", "serve", "--index", arguments.index, "--port", "0"]
    if arguments.videos:
        command += ["--videos", arguments.videos]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    begun = time.monotonic()
    for line in server.stdout:
        if line.startswith("serve: http"):
            print(f"the server started in {time.monotonic() - begun:.1f} s", flush=True)
            return server, urllib.parse.urlsplit(line.removeprefix("serve: ").strip()).port or 0
    raise SystemExit(f"serve_load: the server ended with status {server.wait(_START_S)}")


def main() -> None:
    """Run the load test and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--index", required=True, metavar="INDEX", help="an index to serve")
    parser.add_argument("--videos", metavar="DIR", help="its videos (default: none)")
    parser.add_argument("--clients", type=int, default=50, metavar="N", help="default: 50")
    parser.add_argument("--seconds", type=float, default=120.0, metavar="S", help="default: 120")
    parser.add_argument(
        "--requests", type=int, default=100_000, metavar="N", help="maximum (default: 100000)"
    )
    parser.add_argument(
        "--growth",
        type=float,
        default=64.0,
        metavar="MIB",
        help="maximum growth of memory in the second half (default: 64)",
    )
    arguments = parser.parse_args()
    about = json.loads((pathlib.Path(arguments.index) / "index.json").read_text())
    server, port = start(arguments)
    process = psutil.Process(server.pid)
    tally, until = Tally(arguments.requests), time.monotonic() + arguments.seconds
    threads = [
        threading.Thread(target=client, args=(port, about["clips"], seed, until, tally))
        for seed in range(arguments.clients)
    ]
    memory, left_behind = [], []
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            memory.append(process.memory_info().rss / _MIB)
            time.sleep(_SAMPLE_S)
        left_behind = process.children(recursive=True)
    finally:
        server.send_signal(signal.SIGTERM)
        status = server.wait(_END_S)
    half = memory[len(memory) // 2 :]
    growth = statistics.mean(half[-5:]) - statistics.mean(half[:5])
    ordered = sorted(tally.seconds)
    figures = {
        "requests": len(ordered),
        "requests_per_second": round(len(ordered) / arguments.seconds, 1),
        "statuses": dict(sorted(tally.statuses.items())),
        "p50_ms": round(1000 * ordered[len(ordered) // 2], 1),
        "p99_ms": round(1000 * ordered[len(ordered) * 99 // 100], 1),
        "memory_mib": [round(one) for one in memory[:: max(1, len(memory) // 10)]],
        "growth_mib": round(growth, 1),
        "children": [child.pid for child in left_behind],
        "exit_status": status,
        "cores": os.cpu_count(),
    }
    print(json.dumps(figures, indent=2))
    for fault in tally.faults[:20]:
        print(f"serve_load: {fault}", file=sys.stderr)
    if tally.faults or left_behind or status or growth > arguments.growth:
        raise SystemExit(f"serve_load: {len(tally.faults)} wrong answers, or a figure above fails")


if __name__ == "__main__":
    main()
