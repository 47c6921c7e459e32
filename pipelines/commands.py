"""The commands that read finished snapshots. What they need is imported late: --help is instant."""

import argparse
import contextlib
from collections.abc import Iterator


class CommandError(Exception):
    """A job that failed: one line that says what to do."""


def _verify(arguments: argparse.Namespace) -> int:
    from pipelines import verify
    from pipelines.progress import Progress

    with _told():
        progress = Progress("verify", "shards")
        try:
            manifest = verify.read_manifest(arguments.snapshot)
            faults = verify.faults(arguments.snapshot, manifest, arguments.workers, progress.update)
        finally:
            progress.close()
    for fault in faults:
        print(fault)
    if faults:
        raise CommandError(
            f"{len(faults)} {'fault' if len(faults) == 1 else 'faults'} in {arguments.snapshot!r}: "
            "build it again into another folder"
        )
    print(f"verify: {arguments.snapshot} is sound: {counted(manifest.counts)}")
    return 0


COMMANDS = {
    "verify": _verify,
}


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Gives the errors that a snapshot may cause the form of a failed command."""
    from pipelines import processes, snapshot
    from protos import contract

    try:
        yield
    except (snapshot.SnapshotError, contract.ContractError, processes.WorkerDiedError) as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from None


def counted(counts) -> str:
    """Rows and what became of them, for a person."""
    rejects = ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.rejects.items()))
    total = sum(counts.rejects.values())
    return f"{counts.rows:,} rows = {counts.records:,} records + {total:,} rejects" + (
        f" ({rejects})" if rejects else ""
    )


def in_bytes(size: float) -> str:
    """A size for a person.

    >>> in_bytes(1_234_567)
    '1.23 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.3g} {unit}"
        size /= 1000
    raise AssertionError("unreachable")
