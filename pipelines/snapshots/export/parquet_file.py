"""A writer of a shard's records, or of some of their fields, as a Parquet file."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from pipelines.snapshots import fields
from pipelines.snapshots.export import huggingface
from pipelines.snapshots.fields import Field
from pipelines.storage import storage
from protos.v1.manifest_pb2 import FileEntry

# Readers hold a row group in memory.
_GROUP_BYTES = 32 << 20
_GROUP_ROWS = 1024
_FRAMES = "frames.list.element.bytes"  # compressed already


class Written(NamedTuple):
    """A file, and the bytes of its rows in memory."""

    file: FileEntry
    bytes: int


def write(path: str, columns: Sequence[Field], rows: Iterable[dict[str, Any]]) -> Written:
    """Write rows to a Parquet file whose schema has the features for Hugging Face `datasets`.

    Args:
      path: the file, on a disk or in a bucket.
      columns: the fields.
      rows: a value for each field. An image is a dictionary of its bytes and its path.
    """
    import pyarrow
    import pyarrow.parquet

    types = [(field.name, _arrow_type(field)) for field in columns]
    schema = pyarrow.schema(types, metadata={"huggingface": huggingface.metadata(columns)})
    compressed = [name for name in _paths(columns) if name != _FRAMES]
    options: dict[str, Any] = {
        "compression": dict.fromkeys(compressed, "zstd") | {_FRAMES: "none"},
        "use_dictionary": compressed,
        "write_statistics": [field.name for field in columns if not field.repeated],
        "write_page_checksum": True,
    }
    size = 0
    with (
        storage.NewFile(path) as file,
        pyarrow.parquet.ParquetWriter(file, schema, **options) as writer,
    ):
        # `datasets` refuses a row group without rows, so that an empty shard has no row group.
        for group in _groups(rows):
            table = pyarrow.Table.from_pylist(group, schema=schema)
            writer.write_table(table, row_group_size=len(group))
            size += table.nbytes
    entry = FileEntry(name=storage.name(path), bytes=file.bytes, sha256=file.sha256)
    return Written(entry, size)


def _arrow_type(field: Field) -> Any:
    import pyarrow

    if field.kind == fields.STRUCT:
        one = pyarrow.struct([(part.name, _arrow_type(part)) for part in field.parts])
    elif field.kind == fields.IMAGE:
        one = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    else:
        one = getattr(pyarrow, field.kind)()
    return pyarrow.list_(one) if field.repeated else one


def _paths(columns: Sequence[Field]) -> Iterator[str]:
    """Yield the path of each Parquet column.

    >>> [path for path in _paths(fields.FIELDS) if path.startswith(("frames", "segments"))][:3]
    ['frames.list.element.bytes', 'frames.list.element.path', 'segments.list.element.start_us']
    """
    for field in columns:
        path = f"{field.name}.list.element" if field.repeated else field.name
        if field.kind == fields.STRUCT:
            yield from (f"{path}.{part}" for part in _paths(field.parts))
        elif field.kind == fields.IMAGE:
            yield from (f"{path}.bytes", f"{path}.path")
        else:
            yield path


def _groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each row group."""
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        own = sum(len(frame["bytes"]) for frame in row.get("frames", ()))
        if group and (size + own > _GROUP_BYTES or len(group) == _GROUP_ROWS):
            yield group
            group, size = [], 0
        group.append(row)
        size += own
    if group:
        yield group
