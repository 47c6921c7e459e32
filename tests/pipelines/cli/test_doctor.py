"""The sandbox's layers in `doctor` and in builds, with and without a missing layer."""

import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from pipelines.decoding import ffmpeg, video, with_pyav
from pipelines.decoding.sandbox import LAYERS, fork_client, programs
from pipelines.snapshots.card import pictures

ROOT = pathlib.Path(__file__).parents[3]
# In this user namespace, the kernel refuses further ones: the limit is per namespace.
REFUSING = ("unshare", "--user", "--map-root-user", "sh", "-c")
NO_MORE = "echo 0 > /proc/sys/user/max_user_namespaces; exec "


def refusing(*words) -> subprocess.CompletedProcess[str]:
    """Run svilm-pipelines in a namespace where the kernel refuses user namespaces."""
    command = [sys.executable, "-m", "pipelines.cli.main", *map(str, words)]
    return subprocess.run(
        [*REFUSING, NO_MORE + shlex.join(command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
    )


@pytest.fixture(scope="module")
def can_refuse():
    if not shutil.which("unshare") or subprocess.run([*REFUSING, NO_MORE + "true"]).returncode:
        pytest.skip("no unshare, or no user namespaces here at all")


@pytest.fixture
def inputs(tmp_path, make_video):
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos" / "dQw4w9WgXcQ.mp4")
    (tmp_path / "rows.csv").write_text("dQw4w9WgXcQ,0,1000000,a man\n")
    return tmp_path


def build(inputs, out, *more):
    where = ("--annotations", inputs / "rows.csv", "--videos", inputs / "videos", "--out", out)
    return ("build", "videocc", *where, "--frames", 4, "--short-side", 32, "--shards", 1, *more)


def test_every_layer_is_in_the_table(cli):
    done = cli("doctor")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(LAYERS)]] == [*LAYERS]
    missing = [line for line in lines[1 : 1 + len(LAYERS)] if line.split()[1] == "no"]
    assert done.returncode == (3 if missing else 0)
    assert any(line.startswith("ffmpeg ") for line in lines)


@pytest.mark.usefixtures("can_refuse")
def test_a_refused_layer_is_reported():
    done = refusing("doctor")
    assert done.returncode == 3, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("user_namespace")]
    assert line.split(maxsplit=2)[1:] == ["no", "the system's limit on namespaces is reached"]


@pytest.mark.usefixtures("can_refuse")
@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_a_missing_required_layer_fails_a_build_early(inputs, decoder):
    (inputs / "rows.csv").chmod(0)  # The build must fail before it reads anything.
    required = ("--require-sandbox", "--decoder", decoder)
    done = refusing(*build(inputs, inputs / "out", *required))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "--require-sandbox: missing sandbox layers: user_namespace" in line
    assert not (inputs / "out").exists()


@pytest.mark.usefixtures("can_refuse")
@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_the_bytes_written_do_not_depend_on_the_layers(inputs, cli, decoder):
    by = ("--decoder", decoder)
    less = refusing(*build(inputs, inputs / "less", *by))
    assert less.returncode == 0, less.stderr
    assert "warning: the decoders' sandbox is incomplete" in less.stderr
    assert "the sandbox of the decoders lacked user_namespace" in less.stdout
    more = cli(*build(inputs, inputs / "more", "--workers", 2, *by))
    assert more.returncode == 0, more.stderr
    assert ("had all layers" in more.stdout) == (not fork_client.missing_here())
    files = {path.name for path in (inputs / "more").iterdir()}
    assert files == {path.name for path in (inputs / "less").iterdir()}
    for name in files:
        assert (inputs / "less" / name).read_bytes() == (inputs / "more" / name).read_bytes()


def script_for(tmp_path) -> pathlib.Path:
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\nexec '{ffmpeg.executable()}' \"$@\"\n")
    script.chmod(0o755)
    return script


def test_an_ffmpeg_script_is_reported(inputs, tmp_path, cli):
    """A script starts other programs, which the sandbox forbids."""
    script = script_for(tmp_path)
    named = {ffmpeg.VARIABLE: str(script)}
    (line,) = [line for line in cli("doctor", env=named).stdout.splitlines() if str(script) in line]
    assert "landlock (ffmpeg is a script), seccomp" in line
    by = ("--decoder", "ffmpeg")
    done = cli(*build(inputs, inputs / "refused", "--require-sandbox", *by), env=named)
    assert done.returncode == 1
    assert "--require-sandbox: " in done.stderr and "landlock (ffmpeg is a script)" in done.stderr
    assert not (inputs / "refused").exists()
    done = cli(*build(inputs, inputs / "out", *by), env=named)
    assert done.returncode == 0, done.stderr
    assert "warning: the decoders' sandbox is incomplete" in done.stderr
    assert re.search("sandbox of the decoders lacked .*landlock, .*seccomp", done.stdout)


def test_ffmpeg_decodes_in_the_sandbox(inputs, cli):
    if missing := fork_client.missing_here():
        pytest.skip(fork_client.described(missing))
    done = cli(*build(inputs, inputs / "out", "--decoder", "ffmpeg", "--require-sandbox"))
    assert done.returncode == 0, done.stderr
    assert "the sandbox of the decoders had all layers" in done.stdout


@pytest.mark.parametrize("program", [with_pyav.PROGRAM, programs.LAUNCHER, pictures.PROGRAM])
def test_fork_servers_lose_no_layer(program):
    """A single thread that a library starts on import prevents a user namespace."""
    forking = fork_client.ForkServer(program)
    status = pathlib.Path(f"/proc/{forking.process.pid}/status").read_text()
    missing = forking.missing
    forking.end()
    assert missing == fork_client.missing_here()
    assert "Threads:\t1\n" in status


def test_workers_require_every_layer(inputs, monkeypatch):
    """Workers check the sandbox, because they may run on other machines."""
    code = (
        "from pipelines.decoding.sandbox import namespaces\n"
        "namespaces.enter = lambda: {'network_namespace': 'refused'} | dict.fromkeys("
        "('user_namespace', 'ipc_namespace'), '') | {'pid_namespace': 'refused'}\n"
        "from pipelines.decoding import pyav_child\npyav_child.main()\n"
    )
    monkeypatch.setattr(with_pyav, "PROGRAM", (sys.executable, "-c", code))
    path, spans = str(inputs / "videos" / "dQw4w9WgXcQ.mp4"), [(0, 1_000_000)]
    how = {"frames": 4, "short_side": 32, "decoder": "pyav"}
    with pytest.raises(
        fork_client.UnconfinedError, match=r"network_namespace \(refused\), pid_namespace"
    ):
        list(video.decode(path, spans, **how, limits=video.Limits(confined=True)))
    ((_, found),) = video.decode(path, spans, **how)
    assert isinstance(found, video.Frames)
    assert set(fork_client.seen) >= {"network_namespace", "pid_namespace"}
    fork_client.seen.clear()
