"""Signatures of snapshots with keys of one's own, in the format of OpenSSF Model Signing.

SNAPSHOT/manifest.json.sig is a Sigstore bundle: an in-toto statement with the sha256 of
manifest.json, which has that of all other files, signed with an elliptic-curve key. Signing and
verifying need no network. Other programs verify it with `model_signing verify key`.
"""

import contextlib
import importlib
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from pipelines.snapshots import snapshot
from pipelines.storage import storage
from protos import contract
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
    signing = _library("signing")
    with _copied(folder) as copy:
        signature = copy.with_name(NAME)
        with _usable(key, "private"):
            signing.Config().use_elliptic_key_signer(private_key=key).sign(copy, signature)
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
    verifying = _library("verifying")
    try:
        data = storage.read(os.path.join(folder, NAME))
    except FileNotFoundError:
        raise SigningError(
            f"{folder!r} is not signed, it has no {NAME}: run svilm-pipelines sign, or verify it "
            "without --key"
        ) from None
    with _usable(key, "public"):
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    with _copied(folder) as copy:
        signature = copy.with_name(NAME)
        signature.write_bytes(data)
        try:
            config.verify(copy, signature)
        except (
            Exception
        ) as error:  # also cryptography's, protobuf's and KeyError, of forged bundles
            raise SigningError(
                f"{folder!r}: {NAME} does not prove that the owner of {key} signed this "
                f"{contract.MANIFEST_NAME} ({_why(error)}): do not trust the snapshot"
            ) from None


@contextlib.contextmanager
def _copied(folder: str) -> Iterator[pathlib.Path]:
    """Yield a local copy of the manifest, as the library reads only files on a disk."""
    path = os.path.join(folder, contract.MANIFEST_NAME)
    with tempfile.TemporaryDirectory(prefix="svilm-") as local:
        copy = pathlib.Path(local) / contract.MANIFEST_NAME
        copy.write_bytes(storage.read(path))
        yield copy


@contextlib.contextmanager
def _usable(key: str, kind: str) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # the library raises TypeError and AttributeError for other keys
        raise SigningError(
            f"--key {key} is no {kind} key on an elliptic curve in unencrypted PEM "
            f"({_why(error)}): make keys with openssl as in svilm-pipelines sign --help"
        ) from None


def _why(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _library(module: str) -> Any:
    """Import a module of model-signing, an optional package whose import takes seconds."""
    try:
        return importlib.import_module(f"model_signing.{module}")
    except ModuleNotFoundError as error:
        raise SigningError(
            f"signatures require model-signing ({error}): run pip install '.[sign]' in svilm's "
            "sources"
        ) from None
