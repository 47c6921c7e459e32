"""Resource limits of a process, setrlimit(2)."""

import resource
from collections.abc import Iterable, Sequence


def lower(limits: Iterable[Sequence[int]]) -> None:
    """Set limits for this process and its successors, up to the current hard limits.

    Args:
      limits: kind (resource.RLIMIT_), soft value and hard value of each limit.
    """
    for kind, soft, hard in limits:
        maximum = resource.getrlimit(kind)[1]  # An ordinary user may not raise the hard limit.
        if maximum != resource.RLIM_INFINITY:
            soft, hard = min(soft, maximum), min(hard, maximum)
        resource.setrlimit(kind, (soft, hard))


def processor(seconds: int) -> tuple[int, int, int]:
    """Return the limit on processor time, with a hard limit one second above the soft one.

    With equal limits, SIGKILL would come instead of SIGXCPU.

    >>> processor(3)[1:]
    (3, 4)
    """
    return resource.RLIMIT_CPU, seconds, seconds + 1
