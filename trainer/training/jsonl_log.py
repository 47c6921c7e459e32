"""JSON Lines of a run, an object with its "step" a line, cut back when the run goes on earlier."""

import json
from typing import Any

from protos.strict_json import parse_object
from trainer.data.folder import in_bucket, read_file, write_file
from trainer.runs.run_folder import RunError
from trainer.runs.run_path import RunPath


def read(path: RunPath) -> list[dict[str, Any]]:
    """The objects of a file; none if it is not there.

    A line that a killed process left unfinished is left out.

    Raises:
      RunError: a line is no object with a step.
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
    """A file that objects are appended to.

    What a bucket holds cannot be appended to: there the file is written whole, by `flush` alone.
    """

    def __init__(self, path: RunPath, step: int) -> None:
        """Removes what was written of later steps than `step`; makes no file."""
        self._path = path
        self.kept = [record for record in read(path) if record["step"] <= step]
        """What is left."""
        self._text = "".join(json.dumps(record) + "\n" for record in self.kept)
        self._flushed = self._text
        if _written(path) != self._text.encode():
            write_file(path, self._text.encode())

    def append(self, record: dict[str, Any]) -> None:
        """Adds an object, and on a disk writes it."""
        line = json.dumps(record) + "\n"
        if in_bucket(self._path):
            self._text += line
        else:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(line)

    def flush(self) -> None:
        """Writes what is not written yet.

        Raises:
          OSError: the bucket does not take it.
        """
        if self._text != self._flushed:
            write_file(self._path, self._text.encode())
            self._flushed = self._text
