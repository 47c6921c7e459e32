import ast
import os
import pathlib
import resource

import numpy as np
import pytest
import safetensors.numpy

import trainer
from trainer.data import safetensors_file


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_the_umask_says_who_may_read_the_file(tmp_path, umask, mode):
    path = tmp_path / "a.safetensors"
    before = os.umask(umask)
    try:
        for _ in range(2):  # new, and in place of another
            safetensors_file.save({"a": np.arange(6).reshape(2, 3).T}, path, {"of": "what"})
            assert path.stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)
    np.testing.assert_array_equal(
        safetensors.numpy.load_file(path)["a"], np.arange(6).reshape(2, 3).T
    )
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata() == {"of": "what"}


def test_a_full_disk_is_an_error_of_the_file(tmp_path):
    path, limits = tmp_path / "a.safetensors", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=str(path)):
            safetensors_file.save({"a": np.zeros(10_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_nothing_else_writes_such_files():
    """`save_file` and tempfile's files have mode 0600 whatever the umask."""
    private = {"save_file", "mkstemp", "NamedTemporaryFile"}
    (root,) = trainer.__path__
    for path in pathlib.Path(root).rglob("*.py"):
        used = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute)
        }
        # Only the user may read a traceback.
        assert path.name in ("safetensors_file.py", "errors.py") or not used & private, path


def test_equal_contents_have_equal_bytes(tmp_path):
    """The library writes metadata in the order of a hash table with a random seed."""
    tensors = {"b": np.ones((2, 3), np.float16), "a": np.arange(5)}
    metadata = {key: f'{key} "é"\n' for key in "zyxcba"}
    written = set()
    for number in range(8):
        path = tmp_path / f"{number}.safetensors"
        safetensors_file.save(tensors, path, metadata)
        written.add(path.read_bytes())
        with safetensors.safe_open(path, "numpy") as file:
            assert file.metadata() == metadata
            assert (file.get_tensor("a") == tensors["a"]).all()
            assert (file.get_tensor("b") == tensors["b"]).all()
    assert len(written) == 1
