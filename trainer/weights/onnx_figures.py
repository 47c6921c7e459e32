"""Figures of ONNX programs, by ONNX Runtime: retrieval on a snapshot, speed and size."""

import importlib
import os
import pathlib
import time
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float

from trainer.data.annotations import check_captions
from trainer.data.batches import eval_batches
from trainer.data.snapshot import Snapshot
from trainer.data.types import CLIPS_AT_ONCE
from trainer.evaluation import retrieval
from trainer.finite import finite
from trainer.runs.checkpoint import Loaded

PROGRAMS = ("video.onnx", "text.onnx")

# "t2v_R@1" is not a valid Python name, so that the functional syntax is necessary.
Figures = TypedDict(
    "Figures",
    {
        "t2v_R@1": float,  # percent
        "v2t_R@1": float,
        "clips_per_second": float,  # the fastest batch's
        "texts_per_second": float,
    },
)


class _Program:
    """A program on this machine's CPU, timed."""

    def __init__(self, path: pathlib.Path) -> None:
        onnxruntime: Any = importlib.import_module("onnxruntime")
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.per_second = 0.0

    def __call__(self, output: str, **inputs: np.ndarray) -> Float[np.ndarray, "n e"]:
        began = time.monotonic()
        (answer,) = self._session.run([output], inputs)
        count = len(answer)
        self.per_second = max(self.per_second, count / (time.monotonic() - began))
        return answer


def compare(
    folders: dict[str, pathlib.Path], run: Loaded, snapshot: Snapshot
) -> dict[str, Figures]:
    """Measure several exports of a run on the same clips, in turns.

    Args:
      folders: the programs' folders, by name.
      run: the exported run.
      snapshot: clips that the run was not trained on.

    Raises:
      NonFiniteError: an embedding is not finite.
      SnapshotError: a record is damaged, a caption is empty or all are equal, or the snapshot does
        not suit the model.
      ValueError: crops or vocabulary do not fit the model.
    """
    videos, texts = (
        {name: _Program(folder / program) for name, folder in folders.items()}
        for program in PROGRAMS
    )
    clips: dict[str, list[Float[np.ndarray, "b e"]]] = {name: [] for name in folders}
    captions: list[str] = []
    at_once = min(CLIPS_AT_ONCE, max(1, len(snapshot)))
    for batch, of_batch in eval_batches(snapshot, run.tokenizer, run.config, at_once):
        captions += [text.caption for text in of_batch]
        frames = np.asarray(batch.frames)[: len(of_batch)]
        for name, video in videos.items():
            clips[name].append(video("clip", frames=frames))
    check_captions(snapshot.folder, captions)
    distinct = sorted(set(captions))
    place = [distinct.index(caption) for caption in captions]
    ids, mask = run.tokenizer.encode(distinct, run.config.text.tokens)
    parts = range(0, len(distinct), at_once)
    figures = {}
    for name, text in texts.items():
        embedded = np.concatenate(
            [
                text(
                    "embedding",
                    input_ids=ids[some : some + at_once].astype(np.int64),
                    attention_mask=mask[some : some + at_once].astype(np.int64),
                )
                for some in parts
            ]
        )
        finite(f"text embeddings ({name})", embedded, distinct)
        found = finite(f"clip embeddings ({name})", np.concatenate(clips[name]))
        recalls = retrieval.zero_shot((embedded @ found.T)[place])
        figures[name] = Figures(
            {
                "t2v_R@1": recalls["t2v"]["R@1"],
                "v2t_R@1": recalls["v2t"]["R@1"],
                "clips_per_second": videos[name].per_second,
                "texts_per_second": text.per_second,
            }
        )
    return figures


def size(folder: str | os.PathLike[str]) -> int:
    """Return the bytes of the programs in a folder, with their parameters."""
    return sum(path.stat().st_size for path in pathlib.Path(folder).glob("*.onnx*"))
