"""Signatures by the real model-signing, with keys of our own."""

import base64
import json
import pathlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from model_signing import verifying

from pipelines.cli.main import main
from pipelines.snapshots import signing, verify


def write_pair(folder, name, private):
    plain = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    (folder / f"{name}.pem").write_bytes(
        private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    )
    public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}-public.pem").write_bytes(public)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "other"):
        write_pair(folder, name, ec.generate_private_key(ec.SECP256R1()))
    write_pair(folder, "rsa", rsa.generate_private_key(65537, 2048))
    return folder


@pytest.fixture
def written(tmp_path, make_clip, write_snapshot):
    folder = tmp_path / "snapshot"
    write_snapshot(folder, [make_clip(f"video{i}", 0) for i in range(5)])
    return folder


@pytest.fixture
def signed(written, keys):
    before = {path.name: path.read_bytes() for path in written.iterdir()}
    assert main(["sign", str(written), "--key", str(keys / "ours.pem")]) == 0
    after = {path.name: path.read_bytes() for path in written.iterdir()}
    signature = after.pop(signing.NAME)
    assert after == before and json.loads(signature)["dsseEnvelope"]
    return written


def check(folder, key):
    return main(["verify", str(folder), "--workers", "1", "--key", str(key)])


def test_a_signed_snapshot_is_verified_with_the_public_key(signed, keys, capsys):
    assert check(signed, keys / "ours-public.pem") == 0
    printed = capsys.readouterr().out
    assert f"is signed by the owner of {keys / 'ours-public.pem'}" in printed
    assert "is sound" in printed
    # Another program's check, with the library alone.
    verifying.Config().use_elliptic_key_verifier(public_key=keys / "ours-public.pem").verify(
        signed / "manifest.json", signed / signing.NAME
    )


def test_a_signature_may_be_replaced(signed, keys):
    assert main(["sign", str(signed), "--key", str(keys / "other.pem")]) == 0
    assert check(signed, keys / "other-public.pem") == 0


def test_other_keys_and_unsigned_snapshots_are_refused(signed, written, keys, capsys):
    for key, message in (
        ("other-public.pem", "does not prove"),
        ("rsa-public.pem", "no public key on an elliptic curve"),
        ("ours.pem", "no public key on an elliptic curve"),
        ("absent.pem", "No such file"),
    ):
        assert check(signed, keys / key) == 1
        assert message in capsys.readouterr().err, key
    (signed / signing.NAME).unlink()
    assert check(signed, keys / "ours-public.pem") == 1
    assert "is not signed" in capsys.readouterr().err


def test_an_unusable_private_key_leaves_the_snapshot_unsigned(written, keys, capsys):
    for key in ("rsa.pem", "ours-public.pem", "absent.pem"):
        assert main(["sign", str(written), "--key", str(keys / key)]) == 1
        assert str(keys / key) in capsys.readouterr().err
    assert not (written / signing.NAME).exists()


def test_an_altered_snapshot_is_refused(signed, keys, capsys):
    (shard, *_) = sorted(signed.glob("*.tfrecord"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert check(signed, keys / "ours-public.pem") == 1
    printed = capsys.readouterr()
    assert shard.name in printed.out and "fault" in printed.err
    shard.write_bytes(whole)
    # A manifest that fits altered shards is not the signed one.
    manifest = json.loads((signed / "manifest.json").read_text())
    (signed / "manifest.json").write_text(json.dumps(manifest | {"dataVersion": "9.9.9"}))
    assert check(signed, keys / "ours-public.pem") == 1
    assert "does not prove" in capsys.readouterr().err


def forge(path: pathlib.Path, change):
    bundle = json.loads(path.read_text())
    change(bundle)
    path.write_text(json.dumps(bundle))


def of_another_statement(bundle):
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    statement["predicate"]["resources"][0]["digest"] = "ab" * 32
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()


@pytest.mark.parametrize(
    "change",
    [
        of_another_statement,
        lambda bundle: bundle.pop("verificationMaterial"),
        lambda bundle: bundle["dsseEnvelope"].update(signatures=[]),
        lambda bundle: bundle["dsseEnvelope"].update(payloadType="text/plain"),
    ],
)
def test_forged_signatures_are_refused(signed, keys, change):
    forge(signed / signing.NAME, change)
    with pytest.raises(signing.SigningError, match="does not prove"):
        signing.verify(str(signed), str(keys / "ours-public.pem"))


def test_a_damaged_signature_is_refused(signed, keys):
    (signed / signing.NAME).write_bytes(b"\xff{")
    with pytest.raises(signing.SigningError, match="does not prove"):
        signing.verify(str(signed), str(keys / "ours-public.pem"))


def test_a_signature_is_no_fault_of_a_snapshot(signed):
    assert verify.faults(str(signed), verify.read_manifest(str(signed))) == []
