import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import tfrecord


@given(st.binary(max_size=4096))
def test_unframe_inverts_frame(record):
    assert tfrecord.unframe(tfrecord.frame(record)) == record


def test_every_flipped_bit_is_detected():
    framed = tfrecord.frame(b"a red ring")
    for bit in range(8 * len(framed)):
        damaged = bytearray(framed)
        damaged[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(tfrecord.CorruptRecordError):
            tfrecord.unframe(bytes(damaged))


@given(st.binary(max_size=64), st.data())
def test_a_truncated_or_extended_frame_is_detected(record, data):
    framed = tfrecord.frame(record)
    kept = data.draw(st.integers(0, len(framed) - 1))
    with pytest.raises(tfrecord.CorruptRecordError):
        tfrecord.unframe(framed[:kept])
    with pytest.raises(tfrecord.CorruptRecordError):
        tfrecord.unframe(framed + b"\0")


@pytest.fixture(scope="module")
def tensorflow():
    import tensorflow

    return tensorflow


RECORDS = [b"", b"\0", b"a red ring", os.urandom(70_000)]


def test_tensorflow_reads_our_frames(tensorflow, tmp_path):
    shard = tmp_path / "ours.tfrecord"
    shard.write_bytes(b"".join(map(tfrecord.frame, RECORDS)))
    read = tensorflow.data.TFRecordDataset(str(shard)).as_numpy_iterator()
    assert list(read) == RECORDS


def test_we_frame_exactly_as_tensorflow_writes(tensorflow, tmp_path):
    shard = tmp_path / "theirs.tfrecord"
    with tensorflow.io.TFRecordWriter(str(shard)) as writer:
        for record in RECORDS:
            writer.write(record)
    assert shard.read_bytes() == b"".join(map(tfrecord.frame, RECORDS))
