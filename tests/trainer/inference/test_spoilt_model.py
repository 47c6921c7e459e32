"""A non-finite model gives no metric, ranking or file. Each command reports the reason."""

import dataclasses
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from trainer.ablation.measures import Measure
from trainer.ablation.variants import StudyError
from trainer.cli import main
from trainer.configs.overrides import override
from trainer.distributed.mesh import one_device
from trainer.finite import NonFiniteError
from trainer.inference.encoder import Encoder
from trainer.inference.features import FeaturesError
from trainer.method.train_step import init_state
from trainer.runs import checkpoint
from trainer.runs.checkpoint import CheckpointError, Checkpoints
from trainer.tasks.localisation.features import read_features
from trainer.training import initialization
from trainer.weights import hf_format
from trainer.weights.hf_format import WeightsError


@pytest.fixture(scope="module")
def spoilt_run(untrained_run, noisy_config, tmp_path_factory):
    """A run whose checkpoint has one NaN, in the bias of the video's projection."""
    run = tmp_path_factory.mktemp("runs") / "spoilt"
    shutil.copytree(untrained_run, run, ignore=shutil.ignore_patterns("checkpoints"))
    config = override(
        noisy_config, [f"text.vocabulary={len((run / 'vocab.txt').read_text().split())}"]
    )
    state = init_state(config, one_device())
    kernel = state.params["project_video"]["kernel"]
    state.params["project_video"]["kernel"] = kernel.at[0, 1].set(jnp.nan)
    with Checkpoints(run / "checkpoints", config) as checkpoints:
        checkpoints.save(dataclasses.replace(state, step=jnp.int32(3)))
    return run


NAMED = r"checkpoints/3, params, tensor project_video.kernel: 1 of \d+ values is not finite"


def test_a_checkpoint_with_a_parameter_that_is_not_finite_is_not_loaded(spoilt_run):
    with pytest.raises(CheckpointError, match=rf"{NAMED}, first nan at \[0, 1\]"):
        checkpoint.load(spoilt_run)


@pytest.mark.parametrize(
    "command", ["evaluate", "retrieval", "search", "figures", "embed", "export", "finetune"]
)
def test_every_command_that_uses_it_ends_with_one_line(
    command, spoilt_run, write_snapshot, tmp_path, capfd
):
    snapshot = ["--snapshot", str(write_snapshot(frames=4, clips=4, shards=1).folder)]
    run, out = ["--run", str(spoilt_run)], tmp_path / "out"
    arguments = {
        "evaluate": ["evaluate", *run, *snapshot, "--out", str(out)],
        "retrieval": ["evaluate", "--task", "retrieval", *run, *snapshot, "--out", str(out)],
        "search": ["search", "a ring", *run, *snapshot],
        "figures": ["figures", *run, *snapshot, "--out", str(out)],
        "embed": ["embed", *run, *snapshot, "--out", str(out)],
        "export": ["export", *run, "--text", str(out)],
        "finetune": ["finetune", "--task", "retrieval", "--preset", "shapes", *run, *snapshot,
                     "--out", str(out)],
    }[command]  # fmt: skip
    assert main.main(arguments) == 1
    told = capfd.readouterr()
    assert "project_video.kernel" in told.err and "nan" in told.err
    assert told.err.strip().count("error:") == 1 and "Traceback" not in told.err
    assert "nan" not in told.out
    assert not out.is_file() and not list(out.glob("*") if out.is_dir() else ())


def test_finite_parameters_may_have_non_finite_outputs(untrained_run):
    loaded = checkpoint.load(untrained_run)
    huge = jax.tree.map(lambda leaf: jnp.full_like(leaf, 3e38), loaded.params)
    encoder, video = Encoder(loaded.config, loaded.tokenizer, huge), loaded.config.video
    shape = (2, video.frames, video.resolution, video.resolution, 3)
    with pytest.raises(NonFiniteError, match=r"clip embeddings \(clip\): .* \(one\)$"):
        encoder.clips(np.full(shape, 200, np.uint8), ["one", "two"])
    with pytest.raises(NonFiniteError, match=r"text embeddings: .* \(a ring\)$"):
        encoder.texts(["a ring"])


def test_no_weights_that_are_not_finite_are_written_or_taken(tmp_path):
    tensors = {"good": np.ones(2, np.float32), "bad": np.array([1, np.inf], np.float32)}
    with pytest.raises(NonFiniteError, match=r"tensor bad: 1 of 2 values is not finite"):
        hf_format.write(tmp_path / "out", {}, tensors)
    assert not (tmp_path / "out").exists()
    with pytest.raises(WeightsError, match=r"from here, tensor bad: .*download its files again"):
        ours = {"good": np.zeros(2), "bad": np.zeros(2)}
        initialization._replaced(ours, tensors, pathlib.Path("from here"))


def test_features_that_are_not_finite_are_not_read(tmp_path):
    rows = np.array([[1.0, 2.0], [np.nan, 3.0]], np.float32)
    clips = [{"clip_id": name, "video_id": "v", "start_us": 0, "end_us": 1} for name in "ab"]
    metadata = {"clips": json.dumps(clips)}
    safetensors.numpy.save_file({"groups": rows}, tmp_path / "features-0.safetensors", metadata)
    manifest = {"features": {"groups": [2]}, "shards": [{"name": "features-0.safetensors"}]}
    (tmp_path / "features.json").write_text(json.dumps(manifest))
    with pytest.raises(FeaturesError, match=r"'groups': 1 of 4 .* at \[1, 0\] \(video v\)"):
        read_features(tmp_path, "groups")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e400", '"50.0"', "true", "null"])
def test_a_study_takes_no_figure_that_is_none(tmp_path, value):
    (tmp_path / "evaluation.json").write_text(f'{{"t2v": {{"R@1": {value}}}}}')
    with pytest.raises(StudyError, match=r"evaluation.json has no finite number t2v\.R@1"):
        Measure("t2v R@1", "evaluation.json", ("t2v", "R@1")).read(tmp_path)
