from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from protos import contract
from protos.v1 import clip_pb2, manifest_pb2

CONFIG = manifest_pb2.BuildConfig(
    frames_per_clip=2,
    short_side=4,
    square=True,
    frame_encoding=clip_pb2.FRAME_ENCODING_JPEG,
    prompt_templates=["A video of a {}."],
    num_shards=2,
)


def valid_clip():
    return clip_pb2.Clip(
        clip_id="abcdefghijk_0_1000000_0123abcd",
        video_id="abcdefghijk",
        start_us=0,
        end_us=1_000_000,
        caption="the naïve fox",
        noun_chunks=[
            clip_pb2.NounChunk(
                text="naïve fox", start=4, end=13, prompts=["A video of a naïve fox."]
            )
        ],
        frames=[b"first", b"second"],
        frame_time_us=[250_000, 750_000],
        frame_encoding=clip_pb2.FRAME_ENCODING_JPEG,
        height=4,
        width=4,
        captions=["the naïve fox", "a fox that knows no better"],
        questions=[
            clip_pb2.Question(question_id="7", text="what is naïve?", answer="fox", type="what")
        ],
        segments=[
            clip_pb2.Segment(start_us=500_000, end_us=9_000_000, label="running"),
            clip_pb2.Segment(start_us=500_000, end_us=500_000, label="falling"),
        ],
        boxes=[clip_pb2.Box(time_us=500_000, x1=0, y1=0.25, x2=0.5, y2=1, labels=["12", "80"])],
        video_duration_us=9_500_000,
    )


def valid_manifest():
    return manifest_pb2.Manifest(
        schema_version=contract.SCHEMA_VERSION,
        config=CONFIG,
        counts=manifest_pb2.Counts(rows=7, records=4, rejects={"video_missing": 2, "bad_span": 1}),
        shards=[manifest_pb2.ShardEntry(records=3), manifest_pb2.ShardEntry(records=1)],
    )


def test_a_valid_clip_passes():
    contract.check_clip(valid_clip(), CONFIG)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (dict(clip_id=""), "clip_id is empty"),
        (dict(video_id=""), "video_id is empty"),
        (dict(start_us=-1), r"span \[-1, 1000000\)"),
        (dict(end_us=0), r"span \[0, 0\) µs is empty"),
        (dict(frames=[b"first"]), "1 frames instead of the manifest's 2"),
        (dict(frame_time_us=[250_000]), "1 frame times for 2 frames"),
        (dict(frame_time_us=[750_000, 250_000]), "not in order"),
        (dict(frame_time_us=[250_000, 1_000_000]), r"outside \[0, 1000000\)"),
        (dict(frame_encoding=clip_pb2.FRAME_ENCODING_UNSPECIFIED), "encoding is 0"),
        (dict(height=5, width=5), "5x5 pixels .*short side 4"),
        (dict(width=6), "4x6 pixels are not square"),
        (dict(caption="a naïve fox"), r"'naïve fox' is not at \[4, 13\)"),
        (
            dict(captions=["a fox", "the naïve fox"]),
            r"caption \['a fox'\] differs from its caption 'the",
        ),
        (dict(questions=[clip_pb2.Question(question_id="7")]), "question '7' has no text"),
        (dict(segments=[clip_pb2.Segment(start_us=2, end_us=1, label="a")]), "span 2 to 1 µs"),
        (dict(segments=[clip_pb2.Segment(start_us=-1, end_us=1, label="a")]), "span -1 to 1 µs"),
        (dict(boxes=[clip_pb2.Box(x1=0.5, x2=0.5, y2=1)]), r"\(0.5, 0.0, 0.5, 1.0\) is not \(left"),
        (dict(boxes=[clip_pb2.Box(x2=0.5, y2=1.25)]), r"box \(0.0, 0.0, 0.5, 1.25\) is not"),
        (dict(boxes=[clip_pb2.Box(x1=float("nan"), x2=1, y2=1)]), r"box \(nan, .* is not \(left"),
        (dict(boxes=[clip_pb2.Box(time_us=-1, x2=1, y2=1)]), "time -1 µs"),
        (dict(boxes=[clip_pb2.Box(x2=1, y2=1, score=1.5)]), "has a score 1.5"),
        (dict(video_duration_us=-1), "length, -1 µs"),
    ],
)
def test_a_damaged_clip_is_refused_by_name(damage, message):
    clip = valid_clip()
    for field, value in damage.items():
        clip.ClearField(field)
        if isinstance(value, list):
            getattr(clip, field).extend(value)
        else:
            setattr(clip, field, value)
    with pytest.raises(contract.ContractError, match=message) as caught:
        contract.check_clip(clip, CONFIG)
    assert repr(clip.clip_id) in str(caught.value)


def test_prompts_that_leave_the_templates_are_refused():
    clip = valid_clip()
    clip.noun_chunks[0].prompts[0] = "A photo of a naïve fox."
    with pytest.raises(contract.ContractError, match="do not follow the manifest's templates"):
        contract.check_clip(clip, CONFIG)


def test_prompts_have_single_spaces_or_the_original_text():
    clip = valid_clip()
    clip.captions.clear()
    clip.caption = "the naïve\xa0\tfox"
    chunk = clip.noun_chunks[0]
    chunk.text, chunk.end = "naïve\xa0\tfox", 14
    contract.check_clip(clip, CONFIG)
    chunk.prompts[0] = "A video of a naïve\xa0\tfox."  # as earlier releases wrote them
    contract.check_clip(clip, CONFIG)
    chunk.prompts[0] = "A video of a naïve  fox."
    with pytest.raises(contract.ContractError, match="do not follow the manifest's templates"):
        contract.check_clip(clip, CONFIG)


def test_unknown_fields_pass_through_a_reader():
    # Field 999, a string: a later minor version wrote it.
    later = valid_clip().SerializeToString() + bytes([0xBA, 0x3E, 3]) + b"new"
    clip = clip_pb2.Clip.FromString(later)
    contract.check_clip(clip, CONFIG)
    assert clip.SerializeToString() == later


def test_a_reader_of_1_2_ignores_fields_of_1_3():
    # An old reader: the schema without later fields and messages.
    files = descriptor_pb2.FileDescriptorSet.FromString(contract.clip_descriptor())
    (file,) = files.file
    messages = {message.name: message for message in file.message_type}
    fields = messages["Clip"].field
    earlier = [field for field in fields if field.number <= 15]
    assert len(earlier) == 15
    del fields[:]
    fields.extend(earlier)
    for later in ("Question", "Segment", "Box"):
        file.message_type.remove(messages[later])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    reader = message_factory.GetMessageClass(pool.FindMessageTypeByName("svilm.v1.Clip"))

    written = valid_clip().SerializeToString()
    read: Any = reader.FromString(written)
    assert read.caption == "the naïve fox"
    assert [*read.frame_time_us] == [250_000, 750_000]
    assert clip_pb2.Clip.FromString(read.SerializeToString()) == valid_clip()


def test_later_minor_versions_are_read():
    major = contract.SCHEMA_VERSION.partition(".")[0]
    contract.check_readable(f"{major}.999")


@pytest.mark.parametrize("version", ["0.9", "2.0", "17.3"])
def test_another_major_version_is_refused_naming_both(version):
    with pytest.raises(contract.ContractError) as caught:
        contract.check_readable(version)
    ours = contract.SCHEMA_VERSION.partition(".")[0]
    assert version in str(caught.value)
    assert f"reads {ours}.x" in str(caught.value)


@pytest.mark.parametrize("version", ["", "1", "1.", ".0", "one.zero", "1.0-rc", "1.0.0"])
def test_a_version_of_another_form_is_refused(version):
    with pytest.raises(contract.ContractError, match=r"is not 'major\.minor'"):
        contract.check_readable(version)


def test_a_manifest_that_accounts_for_every_row_passes():
    contract.check_manifest(valid_manifest())


def test_a_lost_row_is_refused():
    manifest = valid_manifest()
    manifest.counts.rows += 1
    with pytest.raises(contract.ContractError, match=r"8 rows are not 4 records \+ 3 rejects"):
        contract.check_manifest(manifest)


def test_a_record_missing_from_the_shards_is_refused():
    manifest = valid_manifest()
    manifest.shards[0].records -= 1
    with pytest.raises(contract.ContractError, match=r"the shards have 3 records instead of .* 4"):
        contract.check_manifest(manifest)


def test_a_missing_shard_is_refused():
    manifest = valid_manifest()
    manifest.shards[0].records = 4
    del manifest.shards[1]
    with pytest.raises(contract.ContractError, match="lists 1 shards instead of 2"):
        contract.check_manifest(manifest)


def test_a_manifest_of_another_major_version_is_refused():
    manifest = valid_manifest()
    manifest.schema_version = "2.0"
    with pytest.raises(contract.ContractError, match=r"schema version 2\.0"):
        contract.check_manifest(manifest)


@pytest.mark.parametrize("encoding", [clip_pb2.FRAME_ENCODING_UNSPECIFIED, 4])
def test_an_encoding_of_a_later_version_is_refused(encoding):
    manifest = valid_manifest()
    manifest.config.frame_encoding = encoding
    with pytest.raises(contract.ContractError, match="none of jpeg, png, raw: use a newer"):
        contract.check_manifest(manifest)


def test_tensorflow_decodes_a_clip_with_the_shipped_descriptor():
    import tensorflow as tf

    clip = valid_clip()
    _, (caption, frames, times) = tf.io.decode_proto(
        [clip.SerializeToString()],
        message_type="svilm.v1.Clip",
        field_names=["caption", "frames", "frame_time_us"],
        output_types=[tf.string, tf.string, tf.int64],
        descriptor_source=b"bytes://" + contract.clip_descriptor(),
    )
    assert caption.numpy().item().decode() == clip.caption
    assert frames.numpy().tolist() == [list(clip.frames)]
    assert times.numpy().tolist() == [list(clip.frame_time_us)]


@pytest.mark.parametrize(
    ("sizes", "files", "named"),
    [((1, 1), (0, 0), ""), ((2, 0), (0, 0), "2 shards"), ((1, 2), (0, 0), "3 shards"),
     ((1, 1), (1, 0), "1 annotation files"), ((1, 1), (1, -1), "annotation files")],
)  # fmt: skip
def test_increments_have_all_shards_and_annotation_files(sizes, files, named):
    manifest = valid_manifest()
    for shards, annotations in zip(sizes, files, strict=True):
        manifest.increments.add(shards=shards, annotations=annotations)
    if not named:
        contract.check_manifest(manifest)
        assert contract.shard_names(manifest) == [
            contract.shard_name_of(manifest, shard) for shard in range(2)
        ]
        return
    with pytest.raises(contract.ContractError, match=named):
        contract.check_manifest(manifest)
