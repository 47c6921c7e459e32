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
import signal
import subprocess
import sys
import threading
from typing import ClassVar

import pytest

from trainer.training import metric_writer

ROOT = pathlib.Path(__file__).parents[3]
SCRIPT = ROOT / "deploy" / "tpu" / "train.sh"
WORKERS = ("127.0.0.1", "127.0.0.2")
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
    : >"$here/log" # there before the container is, as Docker's is: `logs` may come first
    (
      trap '' INT # a container has no terminal
      status=0
      if [[ -e $STATE/first-status ]]; then
        status=$(<"$STATE/first-status")
        sleep 1
        rm -f "$STATE/first-status"
      elif [[ -e $STATE/until-stopped ]]; then
        echo 'trains until it is stopped'
        until [[ -e $here/stopped ]]; do sleep 0.1; done
        status=75
      else
        OMPI_MCA_orte_hnp_uri="$JOB.0;tcp://127.0.0.1:1" OMPI_COMM_WORLD_SIZE=2 \\
          OMPI_COMM_WORLD_RANK=$WORKER OMPI_COMM_WORLD_LOCAL_RANK=0 \\
          "$SVILM" "$@" || status=$?
      fi
      printf '%d' "$status" >"$here/status.part"
      mv "$here/status.part" "$here/status"
    ) >"$here/log" 2>&1 </dev/null &
    printf '%d' $! >"$here/pid"
    ;;
  logs) tail --follow --lines +1 --sleep-interval 0.1 --pid "$(<"$here/pid")" "$here/log" ;;
  stop) touch "$here/stopped" ;;&
  wait | stop)
    until [[ -e $here/status ]]; do sleep 0.1; done
    cat "$here/status"
    ;;
esac
"""


class Slice(http.server.BaseHTTPRequestHandler):
    """The part of the TPU API (v2) for queued resources and ssh to their workers."""

    asked: ClassVar[list[str]]
    there: ClassVar[bool]
    state: ClassVar[dict]  # of the queued resource that is there
    refused: ClassVar[dict | None]  # the error to every question

    def do_GET(self):
        if "/operations/" in self.path:
            self._answer(OPERATION)
        elif "/nodes/" in self.path:
            self._answer(NODE)
        elif "/queuedResources/" in self.path and Slice.refused:
            self._answer({"error": Slice.refused}, Slice.refused["code"])
        elif "/queuedResources/" in self.path and Slice.there:
            self._answer({"name": NAME, "state": Slice.state})
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
    """Run train.sh against this machine's API: (arguments) -> the finished process, the API."""
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
    Slice.state, Slice.refused = {"state": "ACTIVE"}, None
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
    }

    def run(*pretrain, options=(), first_status=None, interrupt_at=None, in_background=False):
        if first_status is not None:
            (state / "first-status").write_text(str(first_status))
        if interrupt_at is not None:
            (state / "until-stopped").touch()
        script = subprocess.Popen(
            [
                # As a shell starts what it puts there.
                *(("env", "--ignore-signal=INT") if in_background else ()),
                *(SCRIPT, "train", "toy", "--zone", "z", "--accelerator", "v5litepod-16"),
                *("--image", "some/image:1", "--spot", "--poll", "0", *options, "--", *pretrain),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        printed = ""
        if interrupt_at is not None:
            assert script.stdout is not None
            while printed.count(interrupt_at) < 2 and (line := script.stdout.readline()):
                printed += line
            os.killpg(script.pid, signal.SIGINT)  # as a terminal's Ctrl-C does
        try:
            stdout, stderr = script.communicate(timeout=280)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(script.pid, signal.SIGKILL)
        return subprocess.CompletedProcess([], script.returncode, printed + stdout, stderr), Slice

    with contextlib.closing(server.socket):
        yield run
        server.shutdown()


@pytest.mark.slow
def test_a_run_on_two_workers_resumes_and_releases_the_slice(cloud, write_snapshot, toy, tmp_path):
    snapshot = write_snapshot(clips=16, frames=4, height=16, width=16).folder
    out = tmp_path / "a run"
    done, api = cloud(
        "--preset=tiny",
        f"--snapshot={snapshot}",
        f"--out={out}",
        "--max-steps=2",
        *toy,
        "--set=video.frames=4",
        "--set=video.resolution=16",
        "--set=video.patch=8",
        "--set=input.short_side=16",
        "--set=cut_and_paste.pair_group=2",
        first_status=75,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stopped with status 75, restart 1" in done.stderr
    assert done.stdout.count("is complete") == 2  # both processes
    assert metric_writer.read(out)[-1]["step"] == 2
    (asked,) = api.asked
    node = json.loads(asked)["tpu"]["nodeSpec"][0]
    assert node["node"]["acceleratorType"] == "v5litepod-16"
    assert "spot" in json.loads(asked)
    assert not api.there


def test_a_failing_workers_status_comes_through(cloud):
    done, api = cloud("--preset=tiny", "--snapshot=none", "--out=none", "--set=batch=x")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "batch takes an integer" in done.stdout
    assert "the run ended with status 2" in done.stderr
    assert "restart" not in done.stderr
    assert not api.there


@pytest.mark.parametrize(("kept", "in_background"), [(False, False), (True, False), (False, True)])
def test_an_interrupted_run_saves_and_the_slice_is_given_back_unless_it_is_kept(
    cloud, tmp_path, kept, in_background
):
    done, api = cloud(
        "--preset=tiny",
        interrupt_at="until it is stopped",
        options=["--keep"] if kept else [],
        in_background=in_background,  # there gcloud alone answers to the signal
    )
    assert done.returncode == 130, done.stdout + done.stderr
    assert api.there == kept
    stopped = [(tmp_path / "state" / worker / "status").exists() for worker in "01"]
    assert stopped == [not kept] * 2, done.stdout + done.stderr
    assert ("toy and its run continue" if kept else "the run saves") in done.stderr
    for worker in "01":  # of the stand-in: it waits no longer
        (tmp_path / "state" / worker / "stopped").touch()


@pytest.mark.parametrize(
    ("state", "asked", "told"),
    [
        (
            {"state": "FAILED", "failedData": {"error": {"code": 8, "message": "no capacity"}}},
            2,
            "toy is FAILED after 2 requests: no capacity",
        ),
        (
            {"state": "FAILED", "failedData": {"error": {"code": 3, "message": "no v5litepod-16"}}},
            1,
            "the request of toy was rejected: no v5litepod-16",
        ),
    ],
)
def test_requests_for_an_unavailable_slice_end(cloud, state, asked, told):
    Slice.state = state
    done, api = cloud("--preset=tiny", options=["--tries", "2"])
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count(f"toy is {state['state']}") >= asked
    assert f"train.sh: error: {told}" in done.stderr
    assert len(api.asked) == asked
    assert not api.there


@pytest.mark.parametrize(
    ("refused", "told"),
    [
        ({"code": 403, "status": "PERMISSION_DENIED", "message": "not yours"}, 1),
        ({"code": 409, "status": "ABORTED", "message": "try again"}, 2),
    ],
)
def test_a_gcloud_error_is_not_treated_as_a_missing_slice(cloud, refused, told):
    Slice.refused = refused
    done, api = cloud("--preset=tiny", options=["--tries", "2"])
    assert done.returncode == 1, done.stdout + done.stderr
    assert "train.sh: error: gcloud cannot describe toy: ERROR:" in done.stderr
    assert done.stderr.count(refused["message"]) == told
    assert api.asked == []
