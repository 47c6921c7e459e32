"""Settings of every test: they must be in the environment before JAX or TensorFlow is imported."""

import html
import json
import os
import re
import shutil
import subprocess
from typing import NamedTuple

import hypothesis
import pytest

os.environ.update(
    # The suite runs a process a core, so each process computes on one thread.
    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    OMP_NUM_THREADS="1",
    TF_NUM_INTRAOP_THREADS="1",
    TF_NUM_INTEROP_THREADS="1",
    TF_CPP_MIN_LOG_LEVEL="2",
    # The same results on machines with accelerators.
    JAX_PLATFORMS="cpu",
    CUDA_VISIBLE_DEVICES="",
    # Shapes and types meet on purpose or not at all.
    JAX_NUMPY_RANK_PROMOTION="raise",
    JAX_NUMPY_DTYPE_PROMOTION="strict",
    # No look-ups of cloud credentials.
    NO_GCE_CHECK="true",
    GCE_METADATA_HOST="127.0.0.1:1",
)

# One that fails here fails everywhere, however slow the machine.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")


class Seen(NamedTuple):
    """What a browser made of a page."""

    errors: list[str]  # everything that it wrote to the console
    pictures: list[int]  # natural width of each image, 0 where it is broken


# Run in a copy of the page, whose policy lets it.
_PROBE = """<script>addEventListener("load", () => {
  document.title = JSON.stringify([...document.images].map((image) => image.naturalWidth));
})</script>"""


@pytest.fixture
def chromium(tmp_path):
    """Opens a page in headless Chromium: path -> Seen."""
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
