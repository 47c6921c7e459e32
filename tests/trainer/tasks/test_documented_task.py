"""The task of docs/howto/new_task.md, traced, trained and tested as printed."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protos.v1 import clip_pb2
from tests.docs import blocks
from trainer.data.snapshot import Snapshot
from trainer.data.types import ExampleBatch
from trainer.method.train_step import clip_keys, init_params
from trainer.runs import checkpoint
from trainer.tasks import finetuning
from trainer.tasks.task import Task, TaskError, Views


@pytest.fixture
def arrow(monkeypatch):
    page = blocks.ROOT / "docs" / "howto" / "new_task.md"
    (code,) = blocks.of(page, "python")
    name = "documented_task"
    module = blocks.module(name, code, page)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def test_the_documented_task_is_one_and_traces(arrow, small_config):
    settings = arrow.RECIPES["shapes"].config
    clips = [clip_pb2.Clip(clip_id=name) for name in "abc"]
    examples = arrow.examples(clips, arrow.classes(clips, settings), settings)
    assert examples.records.tolist() == [0, 0, 1, 1, 2, 2]
    assert examples.labels is not None
    assert examples.labels.tolist() == [0, 1, 0, 1, 0, 1]

    video = small_config.video
    frames = jnp.zeros((4, video.frames, video.resolution, video.resolution, 3), jnp.uint8)
    index = jnp.arange(4, dtype=jnp.int32)
    batch = ExampleBatch(frames, None, None, index % 2, index)

    def cost(key):
        params = init_params(key, small_config)
        params["head"] = arrow.init_head(key, small_config, settings, 2)
        keys = clip_keys(key, jnp.int32(0), batch.index)
        encoded = arrow.encode(params, batch, keys, config=small_config, settings=settings)
        return arrow.losses(params, encoded, batch, keys, config=small_config, settings=settings)

    shapes = jax.eval_shape(cost, jax.random.key(0))
    assert {name: of.shape for name, of in shapes.items()} == {"loss": (4,), "accuracy": (4,)}

    found = arrow.Directions(np.array([[0, 1], [0, 0]]))
    assert found.figures()["accuracy"] == 75
    assert isinstance(arrow, Task)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_documented_task_trains_and_predicts(arrow, untrained_run, write_snapshot_at, tmp_path):
    folder = write_snapshot_at(tmp_path / "clips", clips=6, frames=4, height=18, width=24).folder
    settings = ["batch=4", "max_steps=2", "checkpoint_every=2", "optimizer.name=adamw"]
    out = tmp_path / "run"
    assert finetuning.finetune(
        arrow, "shapes", untrained_run, [str(folder)], str(out), [*settings, "task.frozen=true"]
    )
    run = checkpoint.load(out)
    assert run.params["head"]["kernel"].shape[1] == 2
    found = arrow.predict(run, Snapshot.open(folder), lambda done, total: None, Views())
    assert found.predicted.shape == (6, 2)
    found.write(tmp_path / "directions.json")
    assert json.loads((tmp_path / "directions.json").read_text()) == found.predicted.tolist()
    with pytest.raises(TaskError, match="one crop"):
        arrow.predict(run, Snapshot.open(folder), lambda done, total: None, Views(crops=3))
