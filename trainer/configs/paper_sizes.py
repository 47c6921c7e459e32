"""The paper's run with larger encoders: ViT-L/16×2 and ViT-H/14×2 (Dosovitskiy et al. 2021).

The paper has size B alone. Grouping blocks stay after a half, three quarters and all of the layers
[reading]. The text encoder is BERT-large (Devlin et al. 2019), the largest BERT.
"""

import dataclasses

from trainer.configs import paper
from trainer.configs.config import TextConfig, VideoConfig

_BERT_LARGE = TextConfig(width=1024, layers=24, heads=16, mlp_width=4096)

LARGE = dataclasses.replace(
    paper.CONFIG,
    video=VideoConfig(width=1024, layers=24, heads=16, mlp_width=4096, grouping_after=(12, 18, 24)),
    text=_BERT_LARGE,
)

HUGE = dataclasses.replace(
    paper.CONFIG,
    video=VideoConfig(
        patch=14,
        width=1280,
        layers=32,
        heads=16,
        mlp_width=5120,
        grouping_after=(16, 24, 32),
    ),
    text=_BERT_LARGE,
)
