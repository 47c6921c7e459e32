"""The paper's run with 16 frames (its table 12), for a host of 8 GPUs."""

import dataclasses

from trainer.configs import paper
from trainer.configs.config import VideoConfig

CONFIG = dataclasses.replace(paper.CONFIG, video=VideoConfig(frames=16))
