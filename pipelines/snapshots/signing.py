"""Signatures of snapshots (protos/signatures.py): SNAPSHOT/manifest.json.sig.

It signs manifest.json, which has the sha256 of all other files.
"""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

from pipelines.snapshots import snapshot
from pipelines.storage import storage
from protos import contract, signatures
from protos.contract import SIGNATURE_NAME as NAME


class SigningError(snapshot.SnapshotError):
    """A snapshot that cannot be signed, or whose signature is missing or wrong."""


def sign(folder: str, key: str) -> str:
    """Sign a snapshot, replacing an earlier signature, and return the signature's path.

    Args:
      folder: the snapshot's folder.
      key: file of an elliptic-curve private key, unencrypted PEM.

    Raises:
      SigningError: the key is unusable, or model-signing is not installed.
      OSError: a file cannot be read or written.
    """
    with _copied(folder) as copy:
        signature = copy.with_name(NAME)
        signatures.sign(copy, signature, key)
        data = signature.read_bytes()
    snapshot.write_file(folder, NAME, data)
    return f"{folder}/{NAME}"


def verify(folder: str, key: str) -> None:
    """Check the signature of a snapshot's manifest; the manifest's files are not read.

    Args:
      folder: the snapshot's folder.
      key: file of the signer's public key, PEM.

    Raises:
      SigningError: the signature is missing, damaged, of another key or of another manifest, the
        key is unusable, or model-signing is not installed.
      OSError: a file cannot be read.
    """
    try:
        data = storage.read(os.path.join(folder, NAME))
    except FileNotFoundError:
        raise SigningError(
            f"{folder!r} is not signed, it has no {NAME}: run svilm-pipelines sign, or verify it "
            "without --key"
        ) from None
    with _copied(folder) as copy:
        signature = copy.with_name(NAME)
        signature.write_bytes(data)
        signatures.verify(copy, signature, key)


@contextlib.contextmanager
def _copied(folder: str) -> Iterator[pathlib.Path]:
    """Yield a local copy of the manifest, as the library reads only files on a disk."""
    path = os.path.join(folder, contract.MANIFEST_NAME)
    with tempfile.TemporaryDirectory(prefix="svilm-") as local:
        copy = pathlib.Path(local) / contract.MANIFEST_NAME
        copy.write_bytes(storage.read(path))
        try:
            yield copy
        except signatures.SignatureError as error:
            raise SigningError(f"{folder!r}: {error}") from None
