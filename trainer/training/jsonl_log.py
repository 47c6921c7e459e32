"""JSON Lines files of a run, an object with its "step" per line, truncated when a run resumes."""

import json
from typing import Any

from protos.strict_json import parse_object
from trainer.data.folder import in_bucket, read_file, write_file
from trainer.runs.run_folder import RunError
from trainer.runs.run_path import RunPath


def read(path: RunPath) -> list[dict[str, Any]]:
    """Return the objects of a file; an empty list if it does not exist.

    An unfinished line, which a killed process left, is ignored.

    Raises:
      RunError: a line is not an object with a step.
    """
    records = []
    for number, line in enumerate(_written(path).split(b"\n")[:-1], 1):
        try:
            record = parse_object(line)
            if type(record.get("step")) is not int:
                raise ValueError("it has no step")
        except ValueError as error:
            raise RunError(f"{path}:{number} is damaged ({error}): remove that line") from None
        records.append(record)
    return records


def _written(path: RunPath) -> bytes:
    try:
        return read_file(path)
    except FileNotFoundError:
        return b""


class Lines:
    """A file to which objects are appended.

    An object in a bucket cannot be appended to. There only `flush` writes, and it writes the whole
    file.
    """

    def __init__(self, path: RunPath, step: int) -> None:
        """Remove the records of steps later than `step`; an absent file is not created."""
        self._path = path
        self.kept = [record for record in read(path) if record["step"] <= step]
        "Records that remain."
        self._text = "".join(json.dumps(record) + "\n" for record in self.kept)
        self._flushed = self._text
        if _written(path) != self._text.encode():
            write_file(path, self._text.encode())

    def append(self, record: dict[str, Any]) -> None:
        """Add an object; on a disk this writes it."""
        line = json.dumps(record) + "\n"
        if in_bucket(self._path):
            self._text += line
        else:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(line)

    def flush(self) -> None:
        """Write the objects that are not written yet.

        Raises:
          OSError: the bucket does not accept the file.
        """
        if self._text != self._flushed:
            write_file(self._path, self._text.encode())
            self._flushed = self._text
