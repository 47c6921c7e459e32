"""The program that finds out which layers hold on this machine: a nursery of no children."""

from typing import Any

from pipelines.decoding.sandbox import forks
from pipelines.decoding.sandbox.confine import Confinement


def _nothing(request: dict[str, Any], descriptors: list[int], confinement: Confinement) -> None:
    confinement.compute_only()


if __name__ == "__main__":
    forks.serve(_nothing)
