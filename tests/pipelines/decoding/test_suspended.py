"""A build that is suspended for longer than the decoding timeout, and resumed."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pipelines.processes.timeouts import Timeout

# A slow decoder, for a build with a timeout of 2 s.
DECODING = r"""
import sys
from pipelines.decoding import video
from pipelines.decoding import with_pyav

with_pyav.PROGRAM = (sys.executable, "-c", '''
import time
from pipelines.decoding import pyav_child as child
serve = child._serve
def slowly(video, request, out):
    time.sleep(1)
    serve(video, request, out)
child._serve = slowly
child.main()
''')
if sys.argv[2] == "ffmpeg":
    import os, pathlib
    from pipelines.decoding import ffmpeg

    slow = pathlib.Path(sys.argv[1]).with_name("slow")
    slow.write_text(f"#!/bin/sh\nsleep 1\nexec '{ffmpeg.executable()}' \"$@\"\n")
    slow.chmod(0o755)
    ffmpeg.executable = lambda: str(slow)
spans = [(0, 1_000_000), (1_000_000, 2_000_000)]
how = {"frames": 8, "short_side": 48, "decoder": sys.argv[2], "limits": video.Limits(seconds=3)}
print("begun", flush=True)
for _, found in video.decode(sys.argv[1], spans, **how):
    print(getattr(found, "reason", "frames"), flush=True)
"""


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
@pytest.mark.parametrize("after_s", [0.0, 0.7, 1.3])
def test_running_decoders_survive_a_suspension(tmp_path, make_video, decoder, after_s):
    film = make_video(tmp_path / "film.mp4")
    command = [sys.executable, "-c", DECODING, film, decoder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as build:
        assert build.stdout and build.stdout.readline() == "begun\n"
        time.sleep(after_s)
        build.send_signal(signal.SIGSTOP)
        time.sleep(5)
        build.send_signal(signal.SIGCONT)
        told, _ = build.communicate(timeout=60)
    assert told == "frames\nframes\n"


# The child answers after 1.5 s. The parent has a timeout of 2 s and is suspended for 4 s.
ANSWERING = """
import subprocess, sys
from pipelines.processes.timeouts import Timeout
late = "import sys, time; time.sleep(1.5); sys.stdout.write('x' * 1_000_000)"
print("begun", flush=True)
with subprocess.Popen([sys.executable, "-c", late], stdout=-1, stderr=-1) as child:
    said, _ = Timeout(3).communicate(child)
print(len(said))
"""


def test_an_answer_survives_a_suspension():
    with subprocess.Popen(
        [sys.executable, "-c", ANSWERING], stdout=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stdout and waiting.stdout.readline() == "begun\n"
        waiting.send_signal(signal.SIGSTOP)
        time.sleep(5)
        waiting.send_signal(signal.SIGCONT)
        told, _ = waiting.communicate(timeout=60)
    assert told == "1000000\n"


def test_a_silent_program_is_killed():
    with subprocess.Popen(
        ["sleep", "300"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        with pytest.raises(subprocess.TimeoutExpired):
            Timeout(0.5).communicate(child)
        assert child.returncode == -signal.SIGKILL


def test_the_timeout_elapses():
    reader, writer = os.pipe()
    began = time.monotonic()
    assert not Timeout(1.2).wait_readable(reader)
    assert 1.1 < time.monotonic() - began < 30
    os.write(writer, b"x")
    assert Timeout(1.2).wait_readable(reader)
    assert not Timeout(0).wait_readable(reader)
    for descriptor in (reader, writer):
        os.close(descriptor)
