"""Every option that affects the bytes has its command-line name in messages."""

import pytest

from pipelines.cli.arguments import parsers
from pipelines.planning import plan
from pipelines.snapshots import build_options, split
from protos import contract
from protos.v1.clip_pb2 import FRAME_ENCODING_JPEG
from protos.v1.manifest_pb2 import AnnotationFile, BuildConfig, Filters, Manifest, SourceOptions

FIELDS = [
    (kind, field.name)
    for kind in (BuildConfig, SourceOptions, Filters)
    for field in kind.DESCRIPTOR.fields
    if not field.message_type or field.message_type.GetOptions().map_entry
]


def some_config():
    return BuildConfig(
        frames_per_clip=8,
        short_side=32,
        frame_encoding=FRAME_ENCODING_JPEG,
        jpeg_quality=95,
        prompt_templates=contract.PROMPT_TEMPLATES,
        num_shards=16,
    )


def changed(kind, name):
    """Return a configuration with one changed field."""
    config = some_config()
    owner = {BuildConfig: config, SourceOptions: config.source, Filters: config.filters}[kind]
    value = getattr(owner, name)
    if name == "columns":
        value["video"] = "clip"
    elif name == "prompt_templates":
        value.append("A {}.")
    else:
        setattr(owner, name, {str: "a", int: 7, bool: True, float: 0.5}[type(value)])
        if name == "frame_encoding":
            owner.frame_encoding = 2
    return config


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_a_difference_names_the_option_and_both_values(kind, name):
    old = some_config()
    new = changed(kind, name)
    (phrase,) = build_options.changes(build_options.chosen(old), build_options.chosen(new))
    option = "prompt templates" if phrase.startswith("prompt") else phrase.split()[0]
    _, build = parsers()
    assert option in build._option_string_actions or option == "prompt templates"
    assert phrase.count(" → ") == 1


def test_all_differences_are_reported_together():
    old = some_config()
    file = AnnotationFile(name="rows.csv", bytes=9, sha256="a" * 64)
    manifest = Manifest(
        dataset="videocc", config=old, versions={"ffmpeg": "7.0"}, annotations=[file]
    )
    planned = plan.Plan(
        source="videocc",
        annotations=("rows.csv",),
        annotation_files=(AnnotationFile(name="rows.csv", bytes=1200, sha256="b" * 64),),
        videos="",
        out="",
        data_version="1.1.0",
        config=BuildConfig(
            frames_per_clip=4,
            short_side=24,
            frame_encoding=FRAME_ENCODING_JPEG,
            jpeg_quality=95,
            prompt_templates=contract.PROMPT_TEMPLATES,
            num_shards=16,
        ),
        versions={"ffmpeg": "7.1"},
        spacy_model="",
        decoder="pyav",
        decode_seconds=1.0,
        previous="old",
    )
    with pytest.raises(plan.PlanError) as error:
        plan.check_previous(planned, manifest)
    assert (
        "another annotations (rows.csv 9 → 1,200 bytes) and another configuration "
        "(--frames 8 → 4; --short-side 32 → 24) and another software "
        "(ffmpeg 7.0 → 7.1)"
    ) in str(error.value)


def test_parts_of_a_split_differ_in_its_option():
    sides = []
    for part in split.splits([0.9, 0.1], seed=3):
        config = some_config()
        config.split.CopyFrom(part)
        sides.append(build_options.chosen(config))
    (phrase,) = build_options.changes(*sides)
    assert phrase.startswith("--split train") and "→ test" in phrase
