"""The graph on portable engines: as they get it, and on Prism, Beam's own, written in Go.

`make engines` builds Prism and runs this file; without Prism its tests are skipped.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.runner import create_runner

from pipelines.building import graph
from pipelines.planning.plan import Plan
from protos import contract
from protos.v1.clip_pb2 import FRAME_ENCODING_JPEG
from protos.v1.manifest_pb2 import AnnotationFile, BuildConfig

ROOT = Path(__file__).parents[3]
PRISM = Path(sys.executable).with_name("prism")
VIDEOS = 12
OPTIONS = ("--frames", 4, "--short-side", 24, "--shards", 8)

# Transforms by the names that all engines share.
TRANSFORMS = {
    "beam:transform:combine_per_key_extract_outputs:v1",
    "beam:transform:combine_per_key_merge_accumulators:v1",
    "beam:transform:combine_per_key_precombine:v1",
    "beam:transform:flatten:v1",
    "beam:transform:group_by_key:v1",
    "beam:transform:impulse:v1",
    "beam:transform:pardo:v1",
}


@pytest.mark.parametrize("runner", ["FlinkRunner", "SparkRunner"])
def test_engines_get_only_portable_transforms(runner):
    config = BuildConfig(
        frames_per_clip=4,
        short_side=24,
        frame_encoding=FRAME_ENCODING_JPEG,
        jpeg_quality=90,
        prompt_templates=contract.PROMPT_TEMPLATES,
        num_shards=4,
    )
    files = (AnnotationFile(name="a.csv"),)
    plan = Plan("videocc", ("a.csv",), files, "videos", "out", "1.0.0", config, {}, "", "", 60.0)
    options = PipelineOptions([f"--runner={runner}", "--environment_type=LOOPBACK"])
    pipeline = beam.Pipeline(create_runner(runner), options)
    graph.graph(pipeline, plan, graph._BuildShard(plan))
    proto = PortableRunner.get_proto_pipeline(pipeline, options)
    parts = proto.components
    assert not proto.requirements
    # Composite transforms consist of these; only their names are Python's.
    leaves = [step for step in parts.transforms.values() if not step.subtransforms]
    assert {step.spec.urn for step in leaves} <= TRANSFORMS
    for step in leaves:
        if step.spec.urn == "beam:transform:pardo:v1":
            do = beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload)
            patterns = {side.access_pattern.urn for side in do.side_inputs.values()}
            assert patterns <= {"beam:side_input:iterable:v1"}
            assert not (do.state_specs or do.timer_family_specs or do.requires_stable_input)
            assert not do.restriction_coder_id
    (gather,) = (step for step in leaves if step.unique_name == "Gather shards")
    (places,) = gather.inputs.values()

    def coded(by: str) -> object:
        coder = parts.coders[by]
        name = coder.spec.urn.removeprefix("beam:coder:").removesuffix(":v1")
        return tuple(map(coded, coder.component_coder_ids)) if name == "kv" else name

    place = ("string_utf8", ("varint", "varint"))
    assert coded(parts.pcollections[places].coder_id) == ("varint", place)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, make_video):
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "videos").mkdir()
    film = make_video(folder / "videos" / "film_00____.mp4")
    rows = []
    for number in range(VIDEOS):
        name = f"film_{number:02}____"
        if number:
            (folder / "videos" / f"{name}.mp4").write_bytes(film.read_bytes())
        rows += [
            f"{name},{start},{start + 900_000},a man {start}" for start in range(0, 10**6, 10**4)
        ]
    (folder / "rows.csv").write_text("\n".join(rows) + "\n")
    return folder


def arguments(inputs, out, *more):
    where = ("--annotations", inputs / "rows.csv", "--videos", inputs / "videos", "--out", out)
    return ("build", "videocc", *where, *OPTIONS, *more)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def built(inputs, cli):
    done = cli(*arguments(inputs, inputs / "here"))
    assert done.returncode == 0, done.stderr
    return contents(inputs / "here")


@contextlib.contextmanager
def listening(*command):
    """Start a local server, whose last argument is its port; return the port and the process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [*map(str, command[:-1]), f"{command[-1]}{port}"],
        cwd=ROOT,
        # Beam's pool starts the first `python` on the PATH.
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert server.poll() is None and time.monotonic() < deadline, command
                time.sleep(0.1)
        yield f"127.0.0.1:{port}", server
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def prism():
    """Return the options for Prism's job service."""
    if not PRISM.exists():
        pytest.skip(f"there is no {PRISM.name}: `make engines` builds it")
    with listening(PRISM, "-serve_http=false", "-job_port=") as (address, _):
        yield "--runner=PortableRunner", f"--job_endpoint={address}"


@pytest.fixture(scope="module")
def pool():
    """Return options for a pool of Beam's worker processes, and the pool."""
    module = "apache_beam.runners.worker.worker_pool_main"
    with listening(sys.executable, "-m", module, "--service_port=") as (address, server):
        options = ("--environment_type=EXTERNAL", f"--environment_config={address}")
        yield options, server


def test_prism_writes_the_same_bytes(built, inputs, cli, prism):
    done = cli(*arguments(inputs, inputs / "prism", *prism, "--environment_type=LOOPBACK"))
    assert done.returncode == 0, done.stderr
    assert contents(inputs / "prism") == built
    assert all(line.startswith("build: ") for line in done.stderr.splitlines()), done.stderr


@pytest.fixture(scope="module")
def begun(inputs):
    """Return begun(name, options), which starts a build and waits for its first shard."""

    @contextlib.contextmanager
    def begin(name, *options):
        words = [str(word) for word in arguments(inputs, inputs / name, *options)]
        command = [sys.executable, "-m", "pipelines.cli.main", *words]
        run = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            deadline = time.monotonic() + 120
            while not list((inputs / name).glob("shard-*.json")):
                assert run.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            yield run
        finally:
            run.kill()
            run.communicate()

    return begin


def workers_of(pool) -> list[int]:
    tasks = Path(f"/proc/{pool.pid}/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def test_a_build_with_a_dead_worker_fails_and_resumes(built, inputs, cli, prism, pool, begun):
    options, server = pool
    with begun("killed", *prism, *options) as run:
        workers = workers_of(server)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        _, errors = run.communicate(timeout=120)
    assert workers and run.returncode == 1
    last = errors.splitlines()[-1]
    assert "error: the build stopped: " in last and "disconnected" in last
    assert "Traceback" not in errors
    assert contract.MANIFEST_NAME not in contents(inputs / "killed")
    done = cli(*arguments(inputs, inputs / "killed", *prism, *options))
    assert done.returncode == 0, done.stderr
    assert contents(inputs / "killed") == built


def test_ctrl_c_cancels_the_job(inputs, prism, pool, begun):
    options, _ = pool
    with begun("interrupted", *prism, *options) as run:
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=60)
    assert run.returncode == 130 and errors.endswith("svilm-pipelines: interrupted\n"), errors
    time.sleep(3)  # The job would have finished in this time.
    assert contract.MANIFEST_NAME not in contents(inputs / "interrupted")


def test_a_lost_engine_is_reported(inputs, pool, begun):
    if not PRISM.exists():
        pytest.skip(f"there is no {PRISM.name}: `make engines` builds it")
    with listening(PRISM, "-serve_http=false", "-job_port=") as (address, server):
        where = ("--runner=PortableRunner", f"--job_endpoint={address}")
        with begun("gone", *where, *pool[0]) as run:
            server.kill()
            _, errors = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "the engine's job service is gone" in errors.splitlines()[-1]
    assert "Traceback" not in errors
