import json
import os
import signal
import subprocess
import sys
import urllib.request

import anyio
import pytest
from mcp import ClientSession, StdioServerParameters, stdio_client

from trainer.cli.main import main
from trainer.server import listen
from trainer.server.listen import ServeError

# An application without the model, which takes a second to import.
PROGRAM = """
import asyncio
from trainer.cli.main import main
from trainer.server import listen

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await asyncio.sleep(0.5)
    await send({"type": "http.response.body", "body": b"whole"})

with listen.bind("127.0.0.1", 0) as listening:
    print(listen.address_of(listening, "127.0.0.1"), flush=True)
    listen.serve(app, listening)
print("stopped", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_after_the_requests_in_progress(number):
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE) as process:
        assert process.stdout
        address = process.stdout.readline().decode().strip()
        with urllib.request.urlopen(address, timeout=60) as answer:
            process.send_signal(number)
            assert answer.read() == b"whole"
        assert process.wait(60) == 0
        assert process.stdout.read() == b"stopped\n"


def test_a_port_in_use_is_reported():
    with (
        listen.bind("127.0.0.1", 0) as first,
        pytest.raises(ServeError, match="in use"),
    ):
        listen.bind("127.0.0.1", first.getsockname()[1])


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_reported(host):
    with pytest.raises(ServeError, match=host):
        listen.bind(host, 0)


def test_a_token_comes_from_a_file_or_the_environment(tmp_path):
    file = tmp_path / "token"
    file.write_text("abcdefghijklmnop\n")
    assert listen.read_token(str(file), {}) == "abcdefghijklmnop"
    variable = {listen.TOKEN_VARIABLE: "qrstuvwxyzabcdef"}
    assert listen.read_token(None, variable) == "qrstuvwxyzabcdef"
    assert listen.read_token(str(file), variable) == "abcdefghijklmnop"
    assert listen.read_token(None, {}) is None


@pytest.mark.parametrize("token", ["", "short", "a" * 15, "with a space in it", "é" * 20])
def test_a_weak_token_is_refused_without_showing_it(tmp_path, token):
    file = tmp_path / "token"
    file.write_text(token)
    with pytest.raises(ServeError, match="16 or more") as refused:
        listen.read_token(str(file), {})
    assert not token or token not in str(refused.value)


def test_a_token_file_that_cannot_be_read_is_reported(tmp_path):
    with pytest.raises(ServeError, match=os.strerror(2)):
        listen.read_token(str(tmp_path / "none"), {})
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ServeError, match="not text"):
        listen.read_token(str(tmp_path / "binary"), {})


def test_another_address_needs_a_token(capsys, monkeypatch):
    monkeypatch.delenv(listen.TOKEN_VARIABLE, raising=False)
    command = ["serve", "--index", "none", "--host", "0.0.0.0", "--port", "0"]
    assert main(command) == 2
    assert "--token-file" in capsys.readouterr().err
    monkeypatch.setenv(listen.TOKEN_VARIABLE, "0123456789abcdef")
    assert main(command) == 1
    told = capsys.readouterr()
    assert "none" in told.err and "0123456789abcdef" not in told.err + told.out


@pytest.fixture(scope="module")
def command(library):
    folder, run = str(library.index.folder), str(library.index.run.folder)
    return ["-m", "trainer", "serve", "--index", folder, "--run", run]


@pytest.mark.slow
def test_the_command_serves_an_index_until_it_is_stopped(command):
    words = [sys.executable, *command, "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        address = process.stdout.readline().removeprefix("serve: ").strip()
        with urllib.request.urlopen(f"{address}api/search?text=a+ring", timeout=60) as answer:
            assert len(json.load(answer)["results"]) == 12
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stdout.read() == "serve: stopped\n"


@pytest.mark.slow
def test_the_command_offers_tools_on_stdin_and_stdout(command):
    async def ask():
        parameters = StdioServerParameters(command=sys.executable, args=[*command, "--mcp"])
        async with stdio_client(parameters) as streams, ClientSession(*streams) as session:
            await session.initialize()
            return await session.call_tool("search_clips", {"query": {"text": ["a ring"]}})

    answer = anyio.run(ask)
    assert not answer.is_error and len(answer.structured_content["results"]) == 12
