"""Usable checkpoints of a folder: those whose files match their checksums."""

import contextlib
import json
import os
from collections.abc import Collection
from typing import Any

import jax

from trainer import progress
from trainer.data.folder import as_os_errors, in_bucket
from trainer.distributed import multihost
from trainer.runs import checksums, run_folder
from trainer.runs.checkpoint_errors import CheckpointError, one_line, store_errors, unreadable
from trainer.runs.run_path import RunPath


class UsableCheckpoints:
    """Finder of the newest usable checkpoint, which skips damaged ones."""

    def __init__(self, folder: RunPath) -> None:
        """Set the folder, without reading it.

        Args:
          folder: the folder of the checkpoints, each a folder named by its step.
        """
        self._folder = folder
        self._verified: dict[int, bool] = {}  # step: whether it has checksums
        self._unusable: dict[int, str] = {}  # step: the damage of its files

    def newest(self, parts: Collection[str] | None = None) -> int | None:
        """Return the step of the newest checkpoint whose files are undamaged.

        Every process must call it. Newer checkpoints, which are damaged, are named on stderr.

        Args:
          parts: the parts that will be read; None checks all.

        Returns:
          The step; None if there is no checkpoint.

        Raises:
          CheckpointError: every checkpoint is damaged, or one cannot be read.
        """
        if jax.process_count() == 1:
            return self._find_newest(parts)
        found: list[str] = []
        if multihost.is_first():
            try:
                answer: dict[str, Any] = {"step": self._find_newest(parts)}
            except CheckpointError as error:
                answer = {"error": str(error)}
            found.append(json.dumps(answer | {"verified": self._verified}))
        answer = json.loads(multihost.gather_from_processes(found)[0])
        if "error" in answer:
            raise CheckpointError(answer["error"])
        self._verified = {int(step): has for step, has in answer["verified"].items()}
        return answer["step"]

    def _find_newest(self, parts: Collection[str] | None) -> int | None:
        try:
            steps = sorted(run_folder.checkpoint_steps(self._folder), reverse=True)
        except store_errors(self._folder) as error:
            raise unreadable(self._folder, error) from error
        for step in steps:
            if step in self._unusable:
                continue
            if step in self._verified or not (why := self._find_damage(step, parts)):
                return step
            if not (self._folder / str(step)).exists():  # training removed it meanwhile
                return self._find_newest(parts)
            self.reject(step, why)
        if self._unusable:
            listed = "; ".join(f"{step}: {why}" for step, why in sorted(self._unusable.items()))
            raise CheckpointError(
                f"no checkpoint in {self._folder} is usable ({listed}): restore one from a copy, "
                "or start again with another --out; nothing was removed"
            )
        return None

    def reject(self, step: int, why: str) -> None:
        """Mark a checkpoint as unusable, and report it on stderr."""
        self._unusable[step] = why
        progress.warn(
            f"svilm-train: checkpoint {self._folder / str(step)} is unusable: {why}",
        )

    def is_verified(self, step: int) -> bool:
        """Return whether a checkpoint has checksums that its files were compared with."""
        return self._verified.get(step, False)

    def verify(self, step: int) -> None:
        """Compare a checkpoint with its checksums, unless `newest` has done so.

        Raises:
          CheckpointError: it is damaged, or cannot be read.
        """
        if step not in self._verified and (why := self._find_damage(step, None)):
            raise CheckpointError(
                f"{self._folder / str(step)} is damaged: {why}. Use a copy of it, or another "
                "checkpoint"
            )

    def _find_damage(self, step: int, parts: Collection[str] | None) -> str | None:
        folder = self._folder / str(step)
        try:
            with as_os_errors(os.fspath(folder)) if in_bucket(folder) else contextlib.nullcontext():
                has = checksums.exist(folder)
            if not has and step not in self._verified:
                progress.warn(
                    f"svilm-train: {folder} has no {checksums.NAME}: damage to it would go "
                    "unnoticed",
                )
            why = checksums.find_damage(folder, parts) if has else None
        except store_errors(folder) as error:
            raise unreadable(folder, error) from error
        if why is None:
            self._verified[step] = has
        return why

    def set_others_aside(self, used: int) -> bool:
        """Rename the unusable checkpoints, so that their steps can be saved again.

        Every process must call it.

        Args:
          used: the step of the checkpoint that training continues from.

        Returns:
          Whether any checkpoint was renamed.

        Raises:
          CheckpointError: one cannot be renamed.
        """
        if multihost.is_first():
            for step in sorted(self._unusable):
                folder = self._folder / str(step)
                try:
                    aside = checksums.set_aside(folder)
                except store_errors(folder) as error:
                    raise CheckpointError(
                        f"{folder} is damaged and cannot be renamed ({one_line(error)}): rename "
                        "it, and run the command again"
                    ) from error
                progress.warn(
                    f"svilm-train: resuming from step {used}; the damaged checkpoint is "
                    f"kept as {aside}",
                )
        multihost.wait_for_all("damaged checkpoints are renamed")
        any_aside = multihost.sum_over_processes(len(self._unusable)) > 0
        self._unusable.clear()
        return any_aside
