"""The program that tests which layers this machine has: a server without a decoder."""

from typing import Any

from pipelines.decoding.sandbox import fork_server
from pipelines.decoding.sandbox.confine import Confinement


def _nothing(request: dict[str, Any], descriptors: list[int], confinement: Confinement) -> None:
    confinement.compute_only()


if __name__ == "__main__":
    fork_server.serve(_nothing)
