"""A run with a locked encoder, by the real step: what trains, and its resumption."""

import pathlib
import shutil

import jax
import numpy as np
import pytest

from trainer.configs.overrides import override
from trainer.runs import checkpoint
from trainer.training import loop
from trainer.training.initialization import Start
from trainer.weights import hf_format, image

DATA = pathlib.Path(__file__).parents[2] / "data"


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.slow
@pytest.mark.timeout(900)  # compiles a step
def test_a_run_trains_beside_a_locked_image_encoder(small_config, write_snapshot, tmp_path):
    snapshot = write_snapshot(clips=8, frames=4, height=32, width=32).folder
    folder = DATA / "image_encoders" / "5.24.0" / "Dinov2WithRegistersModel"
    settings = [
        *("video.layers=2", "video.group_tokens=4"),
        *("video.resolution=28", "video.patch=14", "video.grouping_after=1,2", "batch=4"),
        *("optimizer.video_rates.factor=0", "optimizer.text_rates.layer_decay=0.5"),
        *("compute.dtype=bfloat16", "compute.remat=matmuls", "compute.microbatches=2"),
        *("on_bad_step=stop", "max_steps=2", "checkpoint_every=1"),
    ]
    start = Start(video=folder)
    locked = override(small_config, settings)
    loop.pretrain(locked, snapshot, tmp_path, start=start)
    found = checkpoint.load(tmp_path)
    known = image.params(hf_format.read(folder), found.config.video)
    assert_same({name: found.params["video"][name] for name in known}, known)
    assert np.any(np.asarray(found.params["video"]["grouping_2"]["out"]["kernel"]))
    shutil.rmtree(tmp_path / "checkpoints" / "2")
    loop.pretrain(locked, snapshot, tmp_path, start=start)
    assert_same(checkpoint.load(tmp_path).params, found.params)
