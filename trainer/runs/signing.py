"""Signatures of runs (protos/signatures.py): RUN/model.sig, over all files of the folder.

The lock, event files and profiles are not signed. Training further makes a signature invalid.
"""

import os

from protos import signatures
from trainer.data.folder import in_bucket
from trainer.runs import run_folder, run_lock
from trainer.runs.run_folder import RunError
from trainer.runs.run_path import RunPath

NAME = "model.sig"
_IGNORED = (run_lock.NAME, "tensorboard", "profile")


def sign(run: RunPath, key: str) -> RunPath:
    """Sign a run, replacing an earlier signature, and return the signature's path.

    Args:
      run: the run's folder, on a disk.
      key: file of an elliptic-curve private key, unencrypted PEM.

    Raises:
      RunError: the folder is no run or in a bucket, the key is unusable, or model-signing is not
        installed.
      LockedError: another command is writing to the folder.
      OSError: a file cannot be read or written.
    """
    _check(run)
    with run_lock.held(run, "sign"):
        unfinished = run / f".{NAME}.unfinished"
        try:
            signatures.sign(run, unfinished, key, (*_IGNORED, NAME, unfinished.name))
            os.replace(unfinished, run / NAME)
        except signatures.SignatureError as error:
            raise RunError(f"{run}: {error}") from None
        finally:
            unfinished.unlink(missing_ok=True)
    return run / NAME


def verify(run: RunPath, key: str) -> None:
    """Check that the owner of a key signed a run, and that no signed file was changed or added.

    Args:
      run: the run's folder, on a disk.
      key: file of the signer's public key, PEM.

    Raises:
      RunError: the folder is no run or in a bucket, the signature is missing or proves nothing, the
        key is unusable, or model-signing is not installed.
      OSError: a file cannot be read.
    """
    _check(run)
    if not (run / NAME).exists():
        raise RunError(f"{run} is not signed, it has no {NAME}: run svilm-train sign")
    try:
        signatures.verify(run, run / NAME, key)
    except signatures.SignatureError as error:
        raise RunError(f"{run}: {error}") from None


def _check(run: RunPath) -> None:
    if in_bucket(run):
        raise RunError(f"{run} is in a bucket: copy the run to a disk, and give that folder")
    run_folder.read(run)
