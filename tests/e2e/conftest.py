"""A tiny untrained run, for tests of both stages together."""

import pytest

from trainer.configs.config import Config
from trainer.configs.overrides import override
from trainer.data.tokenizer import Tokenizer
from trainer.distributed.mesh import one_device
from trainer.method.train_step import init_state
from trainer.runs.checkpoint import Checkpoints

SIZES = (
    "video.frames=4 video.resolution=32 video.patch=16 video.width=32 video.layers=1 video.heads=2 "
    "video.mlp_width=64 video.group_tokens=4 video.grouping_after=1 video.grouping_out=xavier "
    "text.tokens=8 text.width=16 text.layers=1 text.heads=2 text.mlp_width=32 joint_width=16 "
    "input.short_side=32 input.scale=1,1"
)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Return the folder of an untrained run."""
    folder = tmp_path_factory.mktemp("runs") / "untrained"
    folder.mkdir()
    tokenizer = Tokenizer.train(["a red disc", "a blue ring"], size=60)
    pieces = f"text.vocabulary={len(tokenizer.pieces)}"
    config = override(Config(), [*SIZES.split(), pieces])
    (folder / "config.json").write_text(config.to_json())
    tokenizer.save(folder / "vocab.txt")
    with Checkpoints(folder / "checkpoints", config) as checkpoints:
        checkpoints.save(init_state(config, one_device()))
    return folder
