"""The arguments and the output of the command `serve`."""

import argparse
import contextlib
import importlib.util
import os
from typing import Any

from trainer.cli.arguments import count, on_disk
from trainer.cli.commands import add_parser, load_run
from trainer.errors import UserError

_EPILOG = """\
The page opens at the printed address, and the API is described at /docs below it. Without other
options only this machine can open it. For another --host, a token is required, from --token-file
or the environment variable SVILM_SERVE_TOKEN. Ctrl-C or SIGTERM stops the server.

With --mcp, an agent starts the command itself, and calls its tools through stdin and stdout.

examples:
  svilm-train serve --index indices/test --videos videos/test
  svilm-train serve --index indices/test --beside indices/test-of-second-run
  svilm-train serve --index indices/test --mcp
"""


_PACKAGES = ("fastapi", "mcp", "prometheus_client", "uvicorn")


class MissingPackageError(UserError):
    """A package of the extra "serve" that is not installed."""


def add_serve(commands: Any) -> None:
    """Add the command `svilm-train serve`."""
    parser = add_parser(
        commands,
        "serve",
        "serve a page and an API to search clips",
        "Serves a search page and an HTTP API over the clips of an index.",
        _EPILOG,
    )
    parser.set_defaults(command=_serve)
    parser.add_argument(
        "--index",
        type=on_disk,
        required=True,
        metavar="INDEX",
        help="an index of `svilm-train index`; restart the server when it is built again",
    )
    parser.add_argument(
        "--run", metavar="RUN", help="the run of the index (default: where it was then)"
    )
    parser.add_argument(
        "--beside",
        type=on_disk,
        metavar="INDEX",
        help="an index of the same snapshots by a second run, to compare results (default: none)",
    )
    parser.add_argument(
        "--videos",
        metavar="DIR",
        help="a folder of the clips' videos, named by their ids, on a disk, gs://BUCKET/FOLDER "
        "or s3://BUCKET/FOLDER; the page then plays them (default: none)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default: 127.0.0.1, which only this machine reaches)",
    )
    parser.add_argument(
        "--port",
        type=count(0),
        default=8080,
        metavar="N",
        help="port to listen on; 0 takes a free one (default: 8080)",
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="file with the token that requests must carry (default: the variable "
        "SVILM_SERVE_TOKEN, else no token)",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name of this server in addresses of its page; may be repeated (default: localhost "
        "and IP addresses)",
    )
    parser.add_argument(
        "--mcp",
        action="store_true",
        help="offer tools of the Model Context Protocol on stdin and stdout instead of the page; "
        "--videos and the options of addresses and tokens then have no effect (default: off)",
    )


def _serve(arguments: argparse.Namespace) -> int:
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise MissingPackageError(
            f"serving requires {', '.join(missing)}: pip install 'svilm[trainer,serve]'"
        )

    if arguments.mcp:
        from trainer.server import agents

        agents.create(_service(arguments)).run()
        return 0

    from trainer.server import listen

    token = listen.read_token(arguments.token_file, os.environ)
    if token is None and not listen.is_loopback(arguments.host):
        raise listen.ServeError(
            f"--host {arguments.host} is reachable from other machines: give --token-file, or set "
            f"{listen.TOKEN_VARIABLE}"
        )
    # The port is taken before the clips are embedded, so that a taken one is reported at once.
    with contextlib.closing(listen.bind(arguments.host, arguments.port)) as listening:
        from trainer.server.app import create
        from trainer.server.protection import Rules

        service = _service(arguments)
        names = frozenset(name.lower() for name in (*arguments.allow_host, arguments.host))
        app = create(service, Rules(hosts=names, token=token))
        print(f"serve: {listen.address_of(listening, arguments.host)}", flush=True)
        listen.serve(app, listening)
    print("serve: stopped")
    return 0


def _service(arguments: argparse.Namespace) -> Any:
    from trainer.index.index import Index
    from trainer.server.gate import Gate
    from trainer.server.library import Library, check_same_clips
    from trainer.server.metrics import Metrics
    from trainer.server.routes import Service
    from trainer.server.videos import Videos

    videos = Videos(arguments.videos) if arguments.videos else None
    indices = [Index.open(arguments.index, load_run(arguments.run) if arguments.run else None)]
    if arguments.beside:
        indices.append(Index.open(arguments.beside))
        check_same_clips(*indices)
    libraries = tuple(map(Library, indices))
    for library in libraries:
        library.warm_up()
    metrics = Metrics()
    return Service(libraries, videos, Gate(metrics), metrics)
