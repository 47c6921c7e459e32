"""Reference of the protobuf schemas, from their descriptors and comments."""

import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from google.protobuf import descriptor_pb2

from reference.markdown import entry, prose

ROOT = pathlib.Path(__file__).parents[3]

_Comments = Mapping[tuple[int, ...], str]


def page(name: str) -> str:
    """Return the messages and enumerations of a schema file, given its path from the root."""
    file = _descriptor(name)
    comments = {
        tuple(place.path): _without_counters(place.leading_comments)
        for place in file.source_code_info.location
    }
    parts = [f"{prose(comments.get((12,), ''))}\n"]  # 12: the `syntax` line
    for index, message in enumerate(file.message_type):
        parts.append(_message(message, (4, index), comments))
    for index, enum in enumerate(file.enum_type):
        parts.append(_enum(enum, (5, index), comments))
    return "\n".join(parts)


def _descriptor(name: str) -> descriptor_pb2.FileDescriptorProto:
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "descriptors"
        arguments = [f"--proto_path={ROOT}", "--include_source_info", f"--descriptor_set_out={out}"]
        # In a process that has loaded TensorFlow's copy of Protocol Buffers, protoc crashes.
        command = [sys.executable, "-m", "grpc_tools.protoc", *arguments, name]
        subprocess.run(command, check=True, cwd=ROOT)
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]


def _without_counters(comment: str) -> str:
    lines = [line.removeprefix(" ") for line in comment.splitlines()]
    return "\n".join(line for line in lines if not line.startswith("Next available"))


def _message(
    message: descriptor_pb2.DescriptorProto, path: tuple[int, ...], comments: _Comments
) -> str:
    parts = [f"## {message.name}\n", f"{prose(comments.get(path, ''))}\n"]
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    for index, field in enumerate(message.field):
        kind = _type_name(field)
        if entries := maps.get(field.type_name.rpartition(".")[2]):
            key, value = map(_type_name, entries.field)
            kind = f"map of {key} to {value}"
        elif field.label == field.LABEL_REPEATED:
            kind = f"repeated {kind}"
        comment = prose(comments.get((*path, 2, index), ""))
        first, _, rest = comment.partition("\n\n")
        parts.append(entry(f"`{field.name}` = {field.number}", f"{kind}. {first}".strip(), rest))
    return "\n".join(parts)


def _enum(
    enum: descriptor_pb2.EnumDescriptorProto, path: tuple[int, ...], comments: _Comments
) -> str:
    parts = [f"## {enum.name}\n", f"{prose(comments.get(path, ''))}\n"]
    for index, value in enumerate(enum.value):
        comment = prose(comments.get((*path, 2, index), "")) or "Not set."
        parts.append(entry(f"`{value.name}` = {value.number}", comment))
    return "\n".join(parts)


def _type_name(field: descriptor_pb2.FieldDescriptorProto) -> str:
    if field.type_name:
        return field.type_name.rpartition(".")[2]
    return field.Type.Name(field.type).removeprefix("TYPE_").lower()
