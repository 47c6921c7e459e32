import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def test_committed_code_equals_code_generated_now(tmp_path):
    schemas = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "protos/v1").glob("*.proto"))
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "--proto_path=."),
            *(f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", *schemas),
        ],
        cwd=ROOT,
        check=True,
    )
    generated = sorted(tmp_path.glob("protos/v1/*"))
    assert len(generated) == 2 * len(schemas)
    for path in generated:
        committed = ROOT / path.relative_to(tmp_path)
        assert committed.read_bytes() == path.read_bytes(), f"{committed} is stale: make protos"
