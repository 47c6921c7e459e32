"""A confined child decodes records' frames, even if it is hostile."""

import sys

import pytest

from pipelines.decoding.sandbox import fork_client
from pipelines.snapshots.card import pictures

# Hostile code in the decoder's place, and the expected error.
TAKEN_OVER = """
import os, signal, socket, time
from pipelines.snapshots.card import pictures_child
def is_pipe(fd):
    try:
        return os.write(fd, b"") == 0
    except OSError:
        return False
def image(kind, size, data):
    {code}
    return pictures_child.Image.new("RGB", size)
pictures_child.image = image
pictures_child.main()
"""
ATTEMPTS = {
    "open('/etc/passwd')": "not permitted|denied|Too many",
    "open('/tmp/svilm-new', 'w')": "not permitted|denied|Too many",
    "socket.socket()": "not permitted|Too many",
    "os.fork()": "not permitted|unavailable",
    "os.execv('/bin/sh', ['sh', '-c', 'exit 0'])": "not permitted|denied",
    "os.kill(os.getppid(), signal.SIGTERM)": "not permitted",
    "os.kill(os.getpid(), signal.SIGKILL)": "exited with status -9",
    "os._exit(0)": "returned no image",
    "[os.write(fd, bytes(1 << 24)) for fd in range(3, 9) if is_pipe(fd)]": "returned no image",
    "return pictures_child.Image.new('RGB', (9, 9)).resize((99, 99))": "",
    "raise ValueError('x' * 10_000)": "x{199}$|x{200}$",
    "raise MemoryError": "MemoryError",
}


@pytest.mark.parametrize("code", ATTEMPTS)
def test_hostile_code_in_a_decoder_fails(make_clip, monkeypatch, code):
    if missing := fork_client.missing_here():
        pytest.skip(fork_client.described(missing))
    program = (sys.executable, "-c", TAKEN_OVER.format(code=code))
    monkeypatch.setattr(pictures, "PROGRAM", program)
    clip = make_clip("a")
    if not ATTEMPTS[code]:
        (frame,) = pictures.small(clip, [0], 20, 10)
        assert frame.size == (20, 10)
        return
    with pytest.raises(pictures.PictureError, match=ATTEMPTS[code]):
        pictures.small(clip, [0], 20, 10)


def test_a_hanging_child_is_killed(make_clip, monkeypatch):
    program = (sys.executable, "-c", TAKEN_OVER.format(code="time.sleep(60)"))
    monkeypatch.setattr(pictures, "PROGRAM", program)
    monkeypatch.setattr(pictures, "_SECONDS", 1.0)
    with pytest.raises(pictures.PictureError, match="more than 1 s"):
        pictures.small(make_clip("a"), [0], 20, 10)
