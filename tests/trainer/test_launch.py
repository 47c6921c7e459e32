"""deploy/tpu/train.sh, with the real gcloud against a small TPU API on this machine.

Its workers are two processes here: `ssh` and `docker` are stand-ins that run what they are told.
"""

import contextlib
import http.server
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import threading
from typing import ClassVar

import pytest

from trainer import metrics

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "tpu" / "train.sh"
WORKERS = ("127.0.0.1", "127.0.0.2")
TOY = [
    f"--set={setting}"
    for setting in (
        "batch=8",
        "video.frames=4",
        "video.resolution=16",
        "video.patch=8",
        "video.width=16",
        "video.layers=1",
        "video.heads=2",
        "video.mlp_width=32",
        "video.group_tokens=4",
        "video.grouping_after=1",
        "text.width=16",
        "text.layers=1",
        "text.heads=2",
        "text.mlp_width=32",
        "input.short_side=16",
        "joint_width=16",
        "cut_and_paste.pair_group=2",
        "optimiser.name=sgd",
    )
]

# The last arguments are the command, after user@host and "--".
SSH = """#!/usr/bin/env bash
set -euo pipefail
for host in "$@"; do
  [[ $host != *@127.0.0.* ]] || break
done
while [[ $1 != -- ]]; do shift; done
shift
export WORKER=$((${host##*.} - 1))
exec bash -c "$*"
"""

# A container is a process that finds the others as under Open MPI, by JAX's own detection.
DOCKER = """#!/usr/bin/env bash
set -euo pipefail
here=$STATE/$WORKER
case $1 in
  rm) rm -rf "$here" ;;
  run)
    while [[ $1 != *image:1 ]]; do shift; done
    shift
    mkdir "$here"
    (
      status=0
      if [[ -e $STATE/first-status ]]; then
        status=$(<"$STATE/first-status")
        sleep 1
        rm -f "$STATE/first-status"
      else
        OMPI_MCA_orte_hnp_uri="$JOB.0;tcp://127.0.0.1:1" OMPI_COMM_WORLD_SIZE=2 \\
          OMPI_COMM_WORLD_RANK=$WORKER OMPI_COMM_WORLD_LOCAL_RANK=0 \\
          "$SVILM" "$@" || status=$?
      fi
      printf '%d' "$status" >"$here/status.part"
      mv "$here/status.part" "$here/status"
    ) >"$here/log" 2>&1 </dev/null &
    ;;
  logs | wait)
    until [[ -e $here/status ]]; do sleep 0.1; done
    if [[ $1 == logs ]]; then cat "$here/log"; else cat "$here/status"; fi
    ;;
esac
"""


class Slice(http.server.BaseHTTPRequestHandler):
    """As much of the TPU API (v2) as a queued resource and ssh to its workers take."""

    asked: ClassVar[list[str]]
    there: ClassVar[bool]

    def do_GET(self):
        if "/operations/" in self.path:
            self._answer(OPERATION)
        elif "/nodes/" in self.path:
            self._answer(NODE)
        elif "/queuedResources/" in self.path and Slice.there:
            self._answer({"name": NAME, "state": {"state": "ACTIVE"}})
        elif "/queuedResources/" in self.path:
            self._answer({"error": {"code": 404, "status": "NOT_FOUND", "message": "none"}}, 404)
        else:  # the project's ssh keys
            self._answer({})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "queuedResources?" in self.path:
            Slice.asked.append(body.decode())
            Slice.there = True
        self._answer(OPERATION)

    def do_DELETE(self):
        Slice.there = False
        self._answer(OPERATION)

    def do_PATCH(self):
        self.do_POST()

    def log_message(self, format, *args):
        pass

    def _answer(self, body, status=200):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


NAME = "projects/here/locations/z/queuedResources/toy"
NODE = {
    "name": "projects/here/locations/z/nodes/toy",
    "state": "READY",
    "health": "HEALTHY",
    "metadata": {},
    "networkEndpoints": [
        {"ipAddress": worker, "accessConfig": {"externalIp": worker}} for worker in WORKERS
    ],
}
OPERATION = {
    "name": "projects/here/locations/z/operations/one",
    "done": True,
    "response": {"@type": "type.googleapis.com/google.cloud.tpu.v2.Node", "name": NODE["name"]},
}


@pytest.fixture
def cloud(tmp_path):
    """Runs train.sh in a cloud of this machine: (arguments) -> the finished process, the API."""
    if shutil.which("gcloud") is None:
        pytest.skip("gcloud is not installed: only the dry run of deploy/tpu/train.sh is tested")
    programs, home, state = (tmp_path / name for name in ("bin", "home", "state"))
    for folder in (programs, home / ".ssh", state):
        folder.mkdir(parents=True)
    for name, text in (("ssh", SSH), ("docker", DOCKER), ("sudo", '#!/bin/sh\nexec "$@"\n')):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (home / ".ssh" / "google_compute_engine").write_text("none")
    (home / ".ssh" / "google_compute_engine.pub").write_text("ssh-rsa bm9uZQ== me@here\n")

    Slice.asked, Slice.there = [], False
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slice)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    api = f"http://127.0.0.1:{server.server_port}"
    environment = os.environ | {
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": f"{api}/compute/v1/",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_TPU": f"{api}/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CONFIG": str(home / "gcloud"),
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "CLOUDSDK_CORE_PROJECT": "here",
        "HOME": str(home),
        "JOB": str(random.randrange(2**31)),  # JAX takes the coordinator's port from it
        "PATH": f"{programs}:{os.environ['PATH']}",
        "STATE": str(state),
        "SVILM": str(pathlib.Path(sys.executable).with_name("svilm-train")),
        "XLA_FLAGS": "",  # a device a process
    }

    def run(*pretrain, first_status=None):
        if first_status is not None:
            (state / "first-status").write_text(str(first_status))
        done = subprocess.run(
            [
                *(SCRIPT, "train", "toy", "--zone", "z", "--accelerator", "v5litepod-16"),
                *("--image", "some/image:1", "--spot", "--poll", "0", "--", *pretrain),
            ],
            env=environment,
            capture_output=True,
            text=True,
            timeout=280,
        )
        return done, Slice

    with contextlib.closing(server.socket):
        yield run
        server.shutdown()


def test_a_run_on_two_workers_goes_on_when_it_was_stopped_and_gives_the_slice_back(
    cloud, write_snapshot, tmp_path
):
    snapshot = write_snapshot(clips=16, frames=4, height=16, width=16).folder
    out = tmp_path / "a run"
    done, api = cloud(
        "--preset=tiny",
        f"--snapshot={snapshot}",
        f"--out={out}",
        "--max-steps=2",
        *TOY,
        first_status=75,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stopped with status 75, restart 1" in done.stderr
    assert done.stdout.count("is trained to its end") == 2  # both processes
    assert metrics.read(out)[-1]["step"] == 2
    (asked,) = api.asked
    node = json.loads(asked)["tpu"]["nodeSpec"][0]
    assert node["node"]["acceleratorType"] == "v5litepod-16"
    assert "spot" in json.loads(asked)
    assert not api.there


def test_a_failing_workers_status_comes_through(cloud):
    done, api = cloud("--preset=tiny", "--snapshot=none", "--out=none", "--set=batch=x")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "batch takes a whole number" in done.stdout
    assert "the run ended with status 2" in done.stderr
    assert "restart" not in done.stderr
    assert not api.there
