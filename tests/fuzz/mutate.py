"""Mutations that keep most of the structure, so that damage passes a parser's first checks.

Each mutation maps bytes and a random generator to other bytes.
"""

import json
import random
import struct
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError, Message

from protos import tfrecord

Mutation = Callable[[bytes, random.Random], bytes]

# Values that often break parsers.
_NUMBERS = (
    *("0", "-0", "-1", "1", "0.5", "-0.5", "1e999", "-1e999", "1e-999", "NaN", "Infinity"),
    *("-Infinity", "nan", "inf", "9" * 30, "9" * 400, "9" * 5000, "-" + "9" * 5000, "1e400"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "2147483648"),
    *("4294967296", "1e18", "1e19", "0x10", "1_000", "٣", "१", "1e5000000000", "00", "01", "+1"),
    *("1.", ".5", "1e", "--1", "true", "null", "1:02:03.4", "12:34", "1,5", " 7 "),
)
_TEXTS = (
    *(
        "",
        " ",
        "\0",
        "\ud83d",
        "\\ud83d",
        "\ufeff",
        "é",
        "e\u0301",
        "𝔘",
        "\u202e",
        "\x85",
        "\u2028",
    ),
    *('"', '""', '"a', 'a"', "'", ",", ";", "\t", "\r", "\n", "\r\n", "\\", "/", "..", "../a"),
    *(".", "-", "-a", "a.b", "a-b", "a/b", "/etc/passwd", "%00", "{}", "{0}", "{a}", "$", "[", "{"),
    *("a" * 300, "a" * 20_000, "!" * 2_000, "a b " * 3_000, "́" * 2_000, "__proto__", "con"),
    *("None", "null", "true", "NaN", "#", "<b>", "=1+1", "gs://a", "http://a", "a@b", "id", "0"),
)
_BYTES = (b"\xff", b"\xfe", b"\x80", b"\xc0\x80", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\0", b"\x1a")


def raw(data: bytes, draw: random.Random) -> bytes:
    """Flip, cut, insert, repeat, overwrite or splice bytes."""
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        at = draw.randrange(len(data) + 1)
        length = min(draw.choice((1, 1, 2, 4, 8, 64, 512)), len(data) - at)
        match draw.randrange(8):
            case 0 if at < len(data):
                flipped = data[at] ^ (1 << draw.randrange(8))
                data = data[:at] + bytes([flipped]) + data[at + 1 :]
            case 1:
                data = data[:at]
            case 2:
                data = data[:at] + data[at + length :]
            case 3:
                data = data[:at] + data[at : at + length] * draw.choice((2, 3, 50)) + data[at:]
            case 4:
                data = data[:at] + draw.choice(_BYTES) + data[at:]
            case 5:
                data = data[:at] + draw.randbytes(length) + data[at + length :]
            case 6 if len(data) > 8:
                other = draw.randrange(len(data))
                data = data[:at] + data[other : other + length] + data[at:]
            case 7:
                form = draw.choice(("<I", ">I", "<Q", ">Q", "<H", ">H"))
                size = struct.calcsize(form)
                maximum = 1 << (8 * size)
                value = draw.choice(
                    (0, 1, 255, maximum // 2 - 1, maximum // 2, maximum - 1, len(data))
                )
                data = data[:at] + struct.pack(form, value % maximum) + data[at + size :]
            case _:
                pass
    return data


def lines(data: bytes, draw: random.Random) -> bytes:
    """Mutate the fields and the order of delimited text."""
    if draw.random() < 0.2:
        return raw(data, draw)
    end = draw.choice((b"\n", b"\n", b"\n", b"\n", b"\r\n", b"\r"))
    rows = data.split(b"\n")
    for _ in range(draw.choice((1, 1, 2, 5))):
        at = draw.randrange(len(rows))
        delimiter = draw.choice((b",", b",", b"\t", b" ", b";"))
        fields = rows[at].split(delimiter)
        field = draw.randrange(len(fields))
        match draw.randrange(8):
            case 0 | 1:
                fields[field] = draw.choice(_NUMBERS).encode()
            case 2 | 3:
                fields[field] = _encoded(draw.choice(_TEXTS))
            case 4:
                fields.insert(field, fields[field])
            case 5:
                del fields[field]
            case 6:
                rows.insert(at, rows[draw.randrange(len(rows))])
                continue
            case 7:
                fields[field] = b'"' + fields[field] + draw.choice((b'"', b"", b'""'))
        rows[at] = delimiter.join(fields)
    return end.join(rows)


def json_text(data: bytes, draw: random.Random) -> bytes:
    """Mutate values and names of JSON, or of lines of JSON; sometimes its text."""
    if draw.random() < 0.2:
        return raw(data, draw)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        rows = data.split(b"\n")
        at = draw.randrange(len(rows))
        try:
            rows[at] = _written(_changed(json.loads(rows[at]), draw), draw)
        except (ValueError, RecursionError):
            return raw(data, draw)
        return b"\n".join(rows)
    try:
        for _ in range(draw.choice((1, 1, 2, 4))):
            value = _changed(value, draw)
        return _written(value, draw)
    except RecursionError:  # deeply nested already
        return raw(data, draw)


class _Literal(str):
    """JSON text that is written unchanged."""


def _changed(value: Any, draw: random.Random) -> Any:
    """Return the value with one change."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        name = draw.choice(list(value))
        match draw.randrange(12):
            case 0:
                return {key: one for key, one in value.items() if key != name}
            case 1:
                return value | {draw.choice(_TEXTS): value[name]}
            case 2:
                return _Twice(value, name, _anything(draw))
            case _:
                return value | {name: _changed(value[name], draw)}
    if isinstance(value, list) and value and draw.random() < 0.9:
        at = draw.randrange(len(value))
        match draw.randrange(10):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value[:at] + [value[at]] * draw.choice((2, 3, 40)) + value[at:]
            case 2:
                return [*value[:at], _anything(draw), *value[at:]]
            case _:
                return [*value[:at], _changed(value[at], draw), *value[at + 1 :]]
    return _anything(draw, value)


class _Twice(dict):
    """An object that is written with a repeated name."""

    def __init__(self, value: dict, name: str, second: Any) -> None:
        super().__init__(value)
        self.name, self.second = name, second


def _anything(draw: random.Random, like: Any = None) -> Any:
    match draw.randrange(9):
        case 0 | 1 | 2:
            return _Literal(draw.choice(_NUMBERS))
        case 3 | 4:
            return draw.choice(_TEXTS)
        case 5:
            return draw.choice((None, True, False, [], {}, [[]], {"": {}}, [None]))
        case 6:
            depth = draw.choice((3, 50, 500, 5_000))
            opened, closed = draw.choice((("[", "]"), ('{"a":', "}")))
            return _Literal(opened * depth + "1" + closed * depth)
        case 7:
            return str(like) if not isinstance(like, dict | list) else [like]
        case _:
            return draw.randrange(-5, 100)


def _written(value: Any, draw: random.Random) -> bytes:
    text = _text(value)
    if draw.random() < 0.05:
        text = text[: draw.randrange(len(text) + 1)]
    return _encoded(text)


def _text(value: Any) -> str:
    if isinstance(value, _Literal):
        return value
    if isinstance(value, dict):
        members = [f"{json.dumps(str(key))}: {_text(one)}" for key, one in value.items()]
        if isinstance(value, _Twice):
            members.append(f"{json.dumps(value.name)}: {_text(value.second)}")
        return "{" + ", ".join(members) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return json.dumps(value, ensure_ascii=len(str(value)) % 2 == 0)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def protobuf(kind: type[Message]) -> Mutation:
    """Return a mutation of a message's fields by type, or sometimes of its bytes."""

    def mutate(data: bytes, draw: random.Random) -> bytes:
        message = kind()
        try:
            if draw.random() < 0.25:
                return raw(data, draw)
            message.ParseFromString(data)
        except DecodeError:
            return raw(data, draw)
        for _ in range(draw.choice((1, 1, 2, 4))):
            _change_field(message, draw)
        return message.SerializeToString(deterministic=True)

    return mutate


def _change_field(message: Any, draw: random.Random) -> None:
    field = draw.choice(message.DESCRIPTOR.fields)
    if field.message_type and field.message_type.GetOptions().map_entry:
        message.ClearField(field.name)
        return
    if field.is_repeated:
        repeated = getattr(message, field.name)
        action = draw.randrange(4)
        if action == 0 and len(repeated):
            del repeated[draw.randrange(len(repeated))]
        elif action == 1 and len(repeated):
            copies = [repeated[draw.randrange(len(repeated))]] * draw.choice((1, 1, 20))
            repeated.extend(copies)
        elif field.message_type:
            if len(repeated) and action == 2:
                _change_field(draw.choice(repeated), draw)
            else:
                repeated.add()
        elif len(repeated) and action == 2:
            repeated[draw.randrange(len(repeated))] = _scalar(field, draw)
        else:
            repeated.append(_scalar(field, draw))
    elif field.message_type:
        _change_field(getattr(message, field.name), draw)
    else:
        setattr(message, field.name, _scalar(field, draw))


def _scalar(field: Any, draw: random.Random) -> Any:
    kinds = field.CPPTYPE_INT32, field.CPPTYPE_INT64, field.CPPTYPE_UINT32, field.CPPTYPE_UINT64
    match field.cpp_type:
        case field.CPPTYPE_STRING if field.type == field.TYPE_BYTES:
            return draw.choice((b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", draw.randbytes(40)))
        case field.CPPTYPE_STRING:
            return draw.choice(_TEXTS).encode(errors="replace").decode()
        case field.CPPTYPE_BOOL:
            return draw.random() < 0.5
        case field.CPPTYPE_DOUBLE | field.CPPTYPE_FLOAT:
            return draw.choice((0.0, -1.0, 0.5, 2.0, float("nan"), float("inf"), 1e38, -1e-38))
        case field.CPPTYPE_ENUM:
            return draw.choice((0, 1, 2, 3, 77))
        case kind if kind in kinds:
            top = 2**31 - 1 if kind in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32) else 2**63 - 1
            low = 0 if kind in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64) else -top - 1
            return draw.choice((0, 1, 2, 7, 1000, 10**6, top, top - 1, low, max(low, -1)))
    raise TypeError(field.name)


def framed(record: Mutation) -> Mutation:
    """Return a mutation of TFRecord frames: of a record with valid checksums, or of any byte."""

    def mutate(data: bytes, draw: random.Random) -> bytes:
        if draw.random() < 0.5:
            return raw(data, draw)
        records, at = [], 0
        while at + 16 <= len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            records.append(data[at + 12 : at + 12 + min(length, len(data))])
            at += 16 + length
        if not records:
            return raw(data, draw)
        which = draw.randrange(len(records))
        records[which] = record(records[which], draw)
        return b"".join(map(tfrecord.frame, records))

    return mutate


def safetensors(data: bytes, draw: random.Random) -> bytes:
    """Mutate the JSON header of a safetensors file, or its length, or any byte."""
    (length,) = struct.unpack_from("<Q", data.ljust(8, b"\0"))
    if draw.random() < 0.3 or length > len(data):
        return raw(data, draw)
    header = data[8 : 8 + length]
    if draw.random() < 0.3:  # The metadata's texts are JSON.
        try:
            metadata = json.loads(header)
            name = draw.choice(sorted(metadata["__metadata__"]))
            text = json_text(metadata["__metadata__"][name].encode(), draw)
            metadata["__metadata__"][name] = text.decode(errors="replace")
            header = json.dumps(metadata).encode()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, IndexError):
            header = raw(header, draw)
    else:
        header = json_text(header, draw)
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]
