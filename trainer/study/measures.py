"""What a study reports of each run, and where the commands write it."""

import json
import pathlib
from typing import NamedTuple

from trainer.study.variants import StudyError


class Measure(NamedTuple):
    """A column of a study's table; the higher the better."""

    name: str
    file: str  # in the folder of a variant and seed
    path: tuple[str, ...]  # in that file's JSON

    def read(self, folder: pathlib.Path) -> float:
        """The figure.

        Raises:
          StudyError: the file does not have it.
        """
        value = json.loads((folder / self.file).read_text(encoding="utf-8"))
        for key in self.path:
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, int | float):
            raise StudyError(
                f"{folder / self.file} has no {'.'.join(self.path)}, for {self.name}: "
                "pointing wants --truth"
            )
        return float(value)


_EVALUATION = "evaluation.json"

# By the names of --task.
MEASURES = {
    "retrieval": [
        Measure(f"{way} {recall}", _EVALUATION, ("zero_shot", way, recall))
        for way, recall in (("t2v", "R@1"), ("t2v", "R@5"), ("v2t", "R@1"))
    ],
    "pointing": [Measure("pointing", _EVALUATION, ("grounding", "pointing_accuracy"))],
    "windows": [Measure("windows", _EVALUATION, ("temporal", "window_accuracy"))],
}
