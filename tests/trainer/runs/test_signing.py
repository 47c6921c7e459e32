"""Signatures of runs by the real model-signing, with keys of our own."""

import shutil

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import verifying

from trainer.cli.main import main
from trainer.runs import signing


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder, pem = tmp_path_factory.mktemp("keys"), serialization.Encoding.PEM
    for name in ("ours", "other"):
        private = ec.generate_private_key(ec.SECP256R1())
        (folder / f"{name}.pem").write_bytes(
            private.private_bytes(
                pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        (folder / f"{name}-public.pem").write_bytes(
            private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    return folder


@pytest.fixture
def signed(untrained_run, keys, tmp_path):
    run = shutil.copytree(untrained_run, tmp_path / "run")
    before = sorted(path.relative_to(run) for path in run.rglob("*"))
    for _ in range(2):  # again, in place of the first
        assert main(["sign", "--run", str(run), "--key", str(keys / "ours.pem")]) == 0
    after = sorted(path.relative_to(run) for path in run.rglob("*") if path.name != signing.NAME)
    assert after == before
    return run


def test_a_signed_run_is_verified_with_the_public_key(signed, keys, capsys):
    (signed / "tensorboard").mkdir()
    (signed / "tensorboard" / "events").write_text("not signed")
    command = ["verify", "--run", str(signed), "--key"]
    assert main([*command, str(keys / "ours-public.pem")]) == 0
    assert "is signed by the owner of" in capsys.readouterr().out
    # Another program's check, with the library alone.
    verifying.Config().use_elliptic_key_verifier(public_key=keys / "ours-public.pem").verify(
        signed, signed / signing.NAME
    )
    assert main([*command, str(keys / "other-public.pem")]) == 1
    assert "does not prove" in capsys.readouterr().err
    assert main([*command, str(keys / "ours.pem")]) == 1
    assert "no public key" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["changed", "added", "removed", "checkpoint", "unsigned"])
def test_a_changed_run_is_refused(signed, keys, change, capsys):
    vocabulary = signed / "vocab.txt"
    if change == "changed":
        vocabulary.write_bytes(vocabulary.read_bytes() + b"more\n")
    elif change == "added":
        (signed / "checkpoints" / "1").mkdir()
        (signed / "checkpoints" / "1" / "config").write_text("{}")
    elif change == "removed":
        (signed / "tokenizer_config.json").unlink()
    elif change == "checkpoint":
        file = max(signed.glob("checkpoints/0/params/**/*"), key=lambda path: path.stat().st_size)
        file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    else:
        (signed / signing.NAME).unlink()
    assert main(["verify", "--run", str(signed), "--key", str(keys / "ours-public.pem")]) == 1
    message = capsys.readouterr().err
    assert ("is not signed" if change == "unsigned" else "does not prove") in message


def test_an_unusable_key_leaves_a_run_unsigned(untrained_run, keys, tmp_path, capsys):
    run = shutil.copytree(untrained_run, tmp_path / "run")
    assert main(["sign", "--run", str(run), "--key", str(keys / "ours-public.pem")]) == 1
    assert "no private key" in capsys.readouterr().err
    assert main(["sign", "--run", str(tmp_path), "--key", str(keys / "ours.pem")]) == 1
    assert "is not a training run" in capsys.readouterr().err
    assert main(["sign", "--run", "gs://lab/run", "--key", str(keys / "ours.pem")]) == 1
    assert "is in a bucket" in capsys.readouterr().err
    assert not list(run.glob("*.sig"))
