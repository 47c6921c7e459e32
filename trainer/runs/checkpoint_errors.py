"""Errors of checkpoints, and their translation from those of Orbax, TensorStore and buckets."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator

from trainer.data.folder import bucket_errors, in_bucket
from trainer.errors import UserError, is_fault
from trainer.runs import checksums, run_folder
from trainer.runs.run_path import RunPath

# TensorStore raises ValueError for every error, with a status at the start. These statuses mean
# that the store does not answer, or denies access. They say nothing about its contents.
_UNREACHABLE = re.compile(
    "(PERMISSION_DENIED|UNAUTHENTICATED|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED"
    "|RESOURCE_EXHAUSTED)"
)
_FULL = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))


class CheckpointError(UserError, RuntimeError):
    """A missing, damaged or unsuitable checkpoint, or a failed save."""


class UncheckedError(CheckpointError):
    """A checkpoint without checksums that the libraries cannot read, so perhaps it is damaged."""


def store_errors(path: RunPath) -> tuple[type[Exception], ...]:
    """Return the exceptions of a path's storage: OSError and, in a bucket, its libraries' own."""
    return OSError, *_bucket_errors(path)


def _bucket_errors(path: RunPath) -> tuple[type[Exception], ...]:
    return bucket_errors() if in_bucket(path) else ()


def one_line(error: Exception) -> str:
    """Return the message of an error on one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]


def unreadable(checkpoint: RunPath, error: Exception) -> CheckpointError:
    """Return the error for a store that does not answer, or denies access."""
    return CheckpointError(
        f"{checkpoint} cannot be read ({one_line(error)}): check that it is complete and "
        "readable, and run the command again"
    )


@contextlib.contextmanager
def listing(folder: RunPath) -> Iterator[None]:
    """Convert the errors of a bucket that cannot be listed to CheckpointError.

    Errors of a disk stay as they are.
    """
    try:
        yield
    except _bucket_errors(folder) as error:
        raise CheckpointError(
            f"{folder} cannot be read ({one_line(error)}): check that the bucket exists, and that "
            "you may list it and read its metadata (storage.buckets.get)"
        ) from error


@contextlib.contextmanager
def saving(folder: RunPath) -> Iterator[None]:
    """Convert the errors of a save into a folder of checkpoints to CheckpointError."""
    try:
        yield
    except (ValueError, *store_errors(folder)) as error:
        try:
            steps = run_folder.checkpoint_steps(folder)
            last = f"step {max(steps)} is the last saved one" if steps else "no earlier one exists"
        except OSError:
            last = "earlier ones are unchanged"
        why, advice = one_line(error), f"check that {folder} is writable"
        if any(said in str(error) for said in _FULL):
            why = "the disk is full"
            advice = "free space, or keep fewer with --set checkpoint_keep=1"
        raise CheckpointError(
            f"a checkpoint in {folder} could not be saved ({why}); {last}: {advice}, and run the "
            "command again"
        ) from error


@contextlib.contextmanager
def reading(checkpoint: RunPath, verified: bool) -> Iterator[None]:
    """Convert the errors of reading to CheckpointError, except those of a fault in the program.

    Args:
      checkpoint: folder of the checkpoint.
      verified: whether its files were compared with its checksums.

    Raises:
      UncheckedError: the files were not compared, and are perhaps damaged.
    """
    try:
        yield
    except store_errors(checkpoint) as error:
        if isinstance(error, FileNotFoundError) and not verified:
            raise _unchecked(checkpoint, error) from error
        raise unreadable(checkpoint, error) from error
    except ValueError as error:
        if _UNREACHABLE.match(str(error)):
            raise unreadable(checkpoint, error) from error
        if verified:
            raise CheckpointError(
                f"{checkpoint} cannot be read by this release ({one_line(error)}), but its files "
                "are undamaged: use the release that saved it"
            ) from error
        raise _unchecked(checkpoint, error) from error
    except (LookupError, TypeError, AttributeError) as error:
        if verified or is_fault(error):
            raise  # the files are intact, or svilm's own code failed
        raise _unchecked(checkpoint, error) from error


def _unchecked(checkpoint: RunPath, error: Exception) -> UncheckedError:
    return UncheckedError(
        f"{checkpoint} cannot be read ({type(error).__name__}: {one_line(error)}), and has no "
        f"{checksums.NAME} to show whether its files are damaged: use another checkpoint, or a "
        "copy of this one"
    )
