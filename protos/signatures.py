"""Signatures of a file or a folder in the format of OpenSSF Model Signing, with keys of one's own.

A signature is a Sigstore bundle: an in-toto statement with the sha256 of each file, signed with a
key on an elliptic curve. No network is used. `model_signing verify key` verifies it as well.
"""

import contextlib
import importlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

Path = str | os.PathLike[str]


class SignatureError(ValueError):
    """An unusable key, a signature that proves nothing, or a missing package; one line."""


def sign(path: Path, signature: Path, key: Path, ignored: Sequence[str] = ()) -> None:
    """Sign a file or a folder on a disk.

    Args:
      path: the file or folder.
      signature: the signature's file, which is written.
      key: file of a private key on an elliptic curve, unencrypted PEM.
      ignored: paths in the folder that are not signed; the signature lists them.

    Raises:
      SignatureError: the key is unusable, or model-signing is not installed.
      OSError: a file cannot be read or written.
    """
    signing, hashing = _library("signing"), _library("hashing")
    with _usable(key, "private"):
        config = signing.Config().use_elliptic_key_signer(private_key=key)
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=ignored))
    config.sign(path, signature)


def verify(path: Path, signature: Path, key: Path) -> None:
    """Check that the owner of a key signed a file or a folder on a disk.

    Args:
      path: the file or folder, all of whose signed files are read.
      signature: the signature's file.
      key: file of the signer's public key, PEM.

    Raises:
      SignatureError: the signature is damaged, of another key or of other files, the key is
        unusable, or model-signing is not installed.
      OSError: a file cannot be read.
    """
    verifying = _library("verifying")
    with _usable(key, "public"):
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    try:
        config.verify(path, signature)
    except OSError:
        raise
    except Exception as error:  # cryptography's, protobuf's, and KeyError of forged bundles
        raise SignatureError(
            f"its signature does not prove that the owner of {os.fspath(key)} signed these files "
            f"({_why(error)}): do not trust them"
        ) from None


@contextlib.contextmanager
def _usable(key: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # the library raises TypeError and AttributeError for other keys
        raise SignatureError(
            f"--key {os.fspath(key)} is no {kind} key on an elliptic curve in unencrypted PEM "
            f"({_why(error)}): make keys with openssl as the help of the command sign shows"
        ) from None


def _why(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _library(module: str) -> Any:
    """Import a module of model-signing, an optional package whose import takes seconds."""
    try:
        return importlib.import_module(f"model_signing.{module}")
    except ModuleNotFoundError as error:
        raise SignatureError(
            f"signatures require model-signing ({error}): run pip install '.[sign]' in svilm's "
            "sources"
        ) from None
