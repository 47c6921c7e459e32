"""The server's socket, token and life."""

import contextlib
import ipaddress
import pathlib
import signal
import socket
from collections.abc import Mapping

import uvicorn
from starlette.types import ASGIApp

from trainer.errors import ExitCode, UserError

TOKEN_VARIABLE = "SVILM_SERVE_TOKEN"
_TOKEN_CHARACTERS = 16  # minimum
_CONNECTIONS = 512
_REQUEST_BYTES = 1 << 16  # of a request's line and headers: 8 long texts, percent-encoded
_KEEP_ALIVE_S = 15
_GRACE_S = 5  # for requests in progress when the server is stopped
_BACKLOG = 256


class ServeError(UserError):
    """An address, port or token that cannot be used."""

    exit_code = ExitCode.MISUSED


def read_token(file: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the token of a file or of the environment; None if there is neither.

    Raises:
      ServeError: the file cannot be read, or the token is too short or has other characters than
        visible ASCII.
    """
    token, where = environment.get(TOKEN_VARIABLE), f"the variable {TOKEN_VARIABLE}"
    if file is not None:
        where = f"token file {file}"
        try:
            token = pathlib.Path(file).read_text(encoding="utf-8")
        except OSError as error:
            raise ServeError(f"{where} cannot be read: {error.strerror}") from error
        except ValueError:
            raise ServeError(f"{where} is not text: write one line of visible ASCII") from None
    if token is None:
        return None
    token = token.strip()
    if len(token) < _TOKEN_CHARACTERS or not all("!" <= letter <= "~" for letter in token):
        raise ServeError(
            f"the token in {where} has {len(token)} characters: it takes {_TOKEN_CHARACTERS} or "
            "more, all visible ASCII, such as `openssl rand -hex 24` prints"
        )
    return token


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "gpu7")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Args:
      host: an address or name of this machine.
      port: 0 for any free one.

    Raises:
      ServeError: the address is not this machine's, or the port is in use.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.ExitStack() as on_failure:
            listening = on_failure.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
            on_failure.pop_all()
    except OSError as error:
        why = error.strerror or error
        raise ServeError(f"cannot listen on {host}, port {port}: {why}: give another") from error
    return listening


def address_of(listening: socket.socket, host: str) -> str:
    """Return the page's address, for a browser on this machine.

    >>> with bind("127.0.0.1", 0) as listening:
    ...     address_of(listening, "127.0.0.1").startswith("http://127.0.0.1:")
    True
    """
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}/"


def configured(app: ASGIApp) -> uvicorn.Config:
    """Return the configuration of a server, with its limits."""
    return uvicorn.Config(
        app,
        access_log=False,  # texts are private
        log_config=None,
        log_level="error",  # a client could fill the log with warnings of broken requests
        server_header=False,
        proxy_headers=False,  # a client could claim another address
        lifespan="off",
        loop="asyncio",
        http="h11",
        h11_max_incomplete_event_size=_REQUEST_BYTES,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )


def serve(app: ASGIApp, listening: socket.socket) -> None:
    """Answer requests until SIGTERM or Ctrl-C, then finish those in progress."""
    # uvicorn repeats the signal that stopped it, for the handlers before its own.
    previous = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        uvicorn.Server(configured(app)).run(sockets=[listening])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
