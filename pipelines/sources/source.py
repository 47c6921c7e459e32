"""The interface of an annotation format, which one module of this package each implements."""

from collections.abc import Iterator, Mapping
from typing import BinaryIO, Protocol, runtime_checkable

from pipelines.sources.clip_request import ClipRequest
from protos.v1.manifest_pb2 import Reject, SourceOptions


class Format(Protocol):
    """The description of a format, which both kinds of source share.

    A module's constants have literal types, which only a read-only property accepts.
    """

    @property
    def FORM(self) -> str:  # noqa: N802
        """A one-line description, for messages and help texts."""
        ...

    @property
    def OPTIONS(self) -> tuple[str, ...]:  # noqa: N802
        """The supported fields of SourceOptions; the command refuses options of other fields."""
        ...

    @property
    def SUBSETS(self) -> tuple[str, ...]:  # noqa: N802
        """The values of SourceOptions.subset; empty if the format has no subsets."""
        ...


@runtime_checkable
class StreamedSource(Format, Protocol):
    """A format whose files are read one by one, as streams of any size."""

    @staticmethod
    def read(file: BinaryIO, name: str, options: SourceOptions) -> Iterator[ClipRequest | Reject]:
        """Yield a file's rows in order.

        Args:
          file: the decompressed file.
          name: the file's name, which each `source_row` repeats.
          options: the fields that OPTIONS lists; others are not set.

        Raises:
          AnnotationError: the file does not have the format.
        """
        ...


@runtime_checkable
class CombinedSource(Format, Protocol):
    """A format whose rows combine several small files, which are read together."""

    @staticmethod
    def read_all(
        files: Mapping[str, bytes], options: SourceOptions
    ) -> Iterator[ClipRequest | Reject]:
        """Yield the rows of all files in order.

        Args:
          files: the decompressed content of each file, by name.
          options: the fields that OPTIONS lists; others are not set.

        Raises:
          AnnotationError: a file does not have the format.
        """
        ...


@runtime_checkable
class CautiousSource(Protocol):
    """A format that warns about valid files which may not mean what they seem to."""

    @staticmethod
    def cautions(file: BinaryIO, name: str, options: SourceOptions) -> list[str]:
        """Return warnings about a file, one line each.

        Args:
          file: the decompressed file.
          name: the file's name.
          options: the fields that OPTIONS lists; others are not set.
        """
        ...


Source = StreamedSource | CombinedSource
