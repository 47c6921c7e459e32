import pytest

from protos import contract, tags
from protos.v1.manifest_pb2 import TagMove


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"schema_version": "1.5", "folder": "../other"}',
        b'{"schema_version": "1.5", "folder": "a/b"}',
        b'{"schema_version": "1.5", "folder": ".."}',
        b'{"schema_version": "1.5", "folder": "tags"}',
        b'{"schema_version": "1.5", "folder": "1.0.0", "manifest_sha256": "0"}',
        b'{"schema_version": "2.0"}',
        b'{"folder": ""}',
    ],
)
def test_a_movement_that_leads_elsewhere_or_is_damaged_is_refused(data):
    with pytest.raises(contract.ContractError):
        tags.parse(data)


def test_a_movement_is_parsed():
    data = b'{"schema_version": "1.9", "folder": "1.0.0", "manifest_sha256": "%s", "new": 1}'
    assert tags.parse(data % (b"0" * 64)) == TagMove(
        schema_version="1.9", folder="1.0.0", manifest_sha256="0" * 64
    )
    assert tags.parse(b'{"schema_version": "1.5"}').folder == ""


@pytest.mark.parametrize("path", ["@latest", "/@latest", "a@", "a@.x", "a@-x", "a@x y", "a@x/y"])
def test_other_paths_are_no_references(path):
    assert tags.reference(path) is None
