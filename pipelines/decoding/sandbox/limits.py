"""Limits on what a process may use: setrlimit(2)."""

import resource
from collections.abc import Iterable, Sequence


def lower(limits: Iterable[Sequence[int]]) -> None:
    """Sets limits for this process and what it becomes, each as far as it may be changed.

    Args:
      limits: of each its kind (resource.RLIMIT_), its soft and its hard value.
    """
    for kind, soft, hard in limits:
        most = resource.getrlimit(kind)[1]  # an ordinary user may not raise it
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(kind, (soft, hard))


def processor(seconds: int) -> tuple[int, int, int]:
    """The limit on processor time.

    A second more until SIGKILL: of equal limits it would come in SIGXCPU's place.

    >>> processor(3)[1:]
    (3, 4)
    """
    return resource.RLIMIT_CPU, seconds, seconds + 1
