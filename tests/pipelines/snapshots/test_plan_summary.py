"""plan.json is streamed, one reject at a time, with the same bytes."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.snapshots import plan_summary, snapshot
from pipelines.snapshots.snapshot import SnapshotError
from protos import contract
from protos.v1.manifest_pb2 import PlanSummary, Reject

text = st.text()
rejects = st.builds(
    Reject, stage=text, reason=text, message=text, source_row=text, video_id=text, row=text
).filter(lambda reject: reject.ByteSize())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rejects, max_size=3), st.integers(1, 1 << 40))
def test_the_bytes_of_the_whole_message(tmp_path, rejects, rows):
    entry = plan_summary.write(str(tmp_path), rows, iter(rejects))
    whole = snapshot.to_json(PlanSummary(rows=rows, rejects=rejects))
    assert (tmp_path / contract.PLAN_NAME).read_bytes() == whole
    assert snapshot.fault(str(tmp_path), entry) is None
    assert entry.name == contract.PLAN_NAME
    assert list(plan_summary.rejects(str(tmp_path))) == rejects
    assert plan_summary.rows(str(tmp_path)) == rows


def test_fields_of_a_newer_schema_are_ignored(tmp_path):
    (tmp_path / contract.PLAN_NAME).write_text('{"new": [1], "rejects": [{"mood": 3}], "rows": 1}')
    assert list(plan_summary.rejects(str(tmp_path))) == [Reject()]
    assert plan_summary.rows(str(tmp_path)) == 1


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b'{"rejects": [{"reason": 3}], "rows": "many"}', b"PNG"),
        b'{"rejects": [{"reason": 1e1000000000}], "rows": 1e1000000000}',
        b'{"rejects": [%s], "rows": %s}' % (b"9" * 5000, b"9" * 5000),
        b'{"rejects": [{"reason": %s}], "rows": NaN}' % (b"[" * 100_000),
    ],
)
def test_damage(tmp_path, data):
    (tmp_path / contract.PLAN_NAME).write_bytes(data)
    for read in (plan_summary.rows, lambda folder: list(plan_summary.rejects(folder))):
        with pytest.raises(SnapshotError, match=r"plan\.json is damaged: "):
            read(str(tmp_path))


def test_no_file(tmp_path):
    with pytest.raises(SnapshotError, match="No such file"):
        plan_summary.rows(str(tmp_path))
