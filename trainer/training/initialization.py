"""Initial parameters of a run: from published checkpoints, another run, or random."""

import dataclasses
import hashlib
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from trainer import progress
from trainer.configs.config import Config
from trainer.data.tokenizer import Tokenizer, VocabularyError
from trainer.data.tokenizer_settings import VOCABULARY, WHOLE
from trainer.distributed import multihost
from trainer.finite import NonFiniteError, finite_tensors
from trainer.method.train_step import divide
from trainer.runs import checkpoint, run_folder
from trainer.runs.run_path import RunPath
from trainer.runs.tensor_shapes import by_name
from trainer.weights import bert, hf_format, image, param_mapping, scenic, video
from trainer.weights.hf_format import WeightsError

# Settings of a run's video encoder that its parameters require. Most do not show in their shapes.
_VIDEO = (
    *("gelu", "norm_eps", "norm_before", "prefix_tokens", "pixel_mean", "pixel_std", "grouping"),
)


class Start(NamedTuple):
    """Sources of the initial parameters; parameters without a source start at random."""

    # A video or image encoder in the Hugging Face layout, or scenic's file of a ViViT.
    video: pathlib.Path | None = None
    text: pathlib.Path | None = None  # BERT, with its vocabulary
    run: RunPath | None = None  # of `svilm-train pretrain`; its last checkpoint is used

    def options(self) -> dict[str, str]:
        """Return the given folders and files, by kind."""
        return {name: str(path) for name, path in self._asdict().items() if path}

    def tokenizer(self, given: str | os.PathLike[str] | None = None) -> Tokenizer | None:
        """Return the tokenizer of the sources' text encoder; None if they have no text encoder.

        Args:
          given: a vocabulary to use instead of the encoder's own. It must have the same pieces at
            the same ids.

        Raises:
          VocabularyError: a vocabulary cannot be read, or `given` does not suit the encoder.
          RunError: `run` is no run.
        """
        known = None
        if self.text:
            # A folder without a vocabulary needs `given`.
            if given is None or any((self.text / name).exists() for name in (VOCABULARY, WHOLE)):
                known = Tokenizer.from_vocabulary(self.text)
        elif self.run:
            known = run_folder.read(self.run)[1]
        if given is None:
            return known
        tokenizer = Tokenizer.from_vocabulary(given, known and known.settings)
        if known and (differs := tokenizer.unfit_for(known)):
            raise VocabularyError(
                f"vocabulary {given} differs from that of {self.text or self.run}: {differs} "
                "there; leave out --vocabulary, because the encoder requires its own"
            )
        return tokenizer

    def configure(self, config: Config) -> Config:
        """Return the configuration with the encoder settings of the checkpoints.

        Raises:
          WeightsError: a checkpoint cannot be read or does not fit the configuration.
          RunError: `run` is no run.
        """
        if self.run:
            known = run_folder.read(self.run)[0]
            of_video = {name: getattr(known.video, name) for name in _VIDEO}
            text = dataclasses.replace(
                config.text, vocabulary=known.text.vocabulary, norm_eps=known.text.norm_eps
            )
            config = dataclasses.replace(
                config, video=dataclasses.replace(config.video, **of_video), text=text
            )
        if self.video:
            layout, known = _video(self.video)
            sizes = layout.video_config(known, config.video)
            config = dataclasses.replace(config, video=sizes)
        if self.text:
            sizes = bert.text_config(hf_format.read(self.text), config.text)
            config = dataclasses.replace(config, text=sizes)
        return config

    def fill(self, params: PyTree, config: Config) -> PyTree:
        """Replace fresh parameters by those of the sources.

        Raises:
          WeightsError: a loaded parameter is unknown, has another shape, or is not finite.
          CheckpointError, RunError: the run has no checkpoint, or is no run.
        """
        if self.run:
            run = checkpoint.load(self.run)
            known, _ = divide(run.params, tuple(params))  # drops the head of another task
            known = _lengthened(_resampled(known, run.config, config), params)
            params = _replaced(params, known, self.run)
        if self.video:
            layout, read = _video(self.video)
            known = {"video": layout.params(read, config.video)}
            _say_left_out(read, layout.unused_parts(read))
            if layout is video and (doubt := video.config_warning(read)) and multihost.is_first():
                progress.warn(doubt)
            params = _replaced(params, known, self.video)
        if self.text:
            read = hf_format.read(self.text)
            known = {"text": bert.params(read, config.text)}
            _say_left_out(read, bert.unused_parts(read))
            params = _replaced(params, known, self.text)
        return params

    def origin(self, config: Config) -> run_folder.Origin:
        """Return the origin to store with the run, whose configuration derives from `config`.

        It reads all the tensors. It raises the errors of `configure` and `fill`, and WeightsError
        if the configuration locks or freezes an encoder that starts at random.
        """
        for name in ("video", "text"):
            rates = getattr(config.optimizer, f"{name}_rates")
            random = not (self.run or getattr(self, name))
            if random and (rates.factor == 0 or rates.frozen_steps):
                raise WeightsError(
                    f"optimizer.{name}_rates has factor={rates.factor:g} and frozen_steps="
                    f"{rates.frozen_steps}, but the {name} encoder starts at random: give "
                    f"--{name}-weights or --start-from, or leave the setting out"
                )
        fields = run_folder.differing_fields(config, self.configure(config))
        if fields and multihost.is_first():
            named = ", ".join(f"{name}={value}" for name, value in fields.items())
            progress.say(f"settings of the starting weights: {named}")
        earlier = checkpoint.load(self.run) if self.run else None
        step = earlier.step if earlier else None
        return run_folder.Origin(self.options(), fields, self.identity(earlier), step)

    def identity(self, earlier: checkpoint.Loaded | None = None) -> dict[str, str]:
        """Return hashes that identify the sources' tensors, by kind.

        Args:
          earlier: the model of `run`; None loads it.
        """
        found = {}
        for name, path in (("video", self.video), ("text", self.text)):
            if path:
                files = [path] if path.is_file() else hf_format.tensor_files(path)
                found[f"start.{name}"] = _sha256(files)
        if self.run:
            digest = hashlib.sha256()
            earlier = earlier or checkpoint.load(self.run)
            for leaf in jax.tree.leaves(earlier.params):
                digest.update(np.asarray(leaf).tobytes())
            found["start.run"] = digest.hexdigest()
        return found


def _say_left_out(checkpoint: hf_format.Checkpoint, names: list[str]) -> None:
    if names and multihost.is_first():
        progress.warn(
            f"{checkpoint.folder}: ignored parts without a counterpart in this encoder: "
            f"{', '.join(param_mapping.parts(names))}",
        )


def _sha256(files: list[pathlib.Path]) -> str:
    """Return the sha256 of the files' concatenated bytes."""
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def _video(path: pathlib.Path) -> tuple[Any, hf_format.Checkpoint]:
    """Return the module for the checkpoint's layout, and the checkpoint."""
    if path.is_file():
        return scenic, scenic.read(path)
    read = hf_format.read(path)
    return (image if read.config.get("model_type") in image.MODEL_TYPES else video), read


def _resampled(params: PyTree, theirs: Config, ours: Config) -> PyTree:
    """Resample a run's positions, in time and space, to the frames and resolution of `ours`."""
    windows, side = theirs.video.windows, theirs.video.resolution // theirs.video.patch
    known = params["video"]
    positions = video.resampled(known["positions"], windows, side, ours.video)
    resampled = known | {"positions": positions}
    if "prefix_tokens" in known:
        tokens = jnp.asarray(known["prefix_tokens"])[:, :, None]
        of_windows = video.interpolate(tokens, ours.video.windows, tokens.shape[1], 1)
        shape = (ours.video.windows, *known["prefix_tokens"].shape[1:])
        resampled["prefix_tokens"] = np.asarray(of_windows).reshape(shape)
    return params | {"video": resampled}


def _lengthened(known: PyTree, ours: PyTree) -> PyTree:
    """Append the fresh text positions to those of a run, if the model has more positions."""
    theirs, fresh = known["text"]["positions"], ours["text"]["positions"]
    if len(theirs) >= fresh.shape[0]:
        return known
    positions = jnp.asarray(fresh).at[: len(theirs)].set(theirs)
    return known | {"text": known["text"] | {"positions": positions}}


def _replaced(params: PyTree, known: PyTree, source: RunPath) -> PyTree:
    ours, theirs = by_name(params), by_name(known)
    faults = [
        f"{name} is {tuple(leaf.shape)} there, but "
        f"{tuple(ours[name].shape) if name in ours else 'absent'} in this model"
        for name, leaf in theirs.items()
        if name not in ours or ours[name].shape != leaf.shape
    ]
    if faults:
        more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise WeightsError(
            f"{source} is of another model: {'; '.join(faults[:3])}{more}: give its preset and "
            "--set values"
        )
    try:
        finite_tensors(str(source), theirs)
    except NonFiniteError as error:
        raise WeightsError(f"{error}: download its files again, from one version") from None
    # Loaded leaves stay NumPy arrays, identical in every process. `ours` may be sharded over all.
    leaves = [
        np.asarray(theirs[name], leaf.dtype) if name in theirs else leaf
        for name, leaf in ours.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)
