"""A model that two CPU cores train in minutes, on Shapes."""

from trainer.configs.config import (
    Config,
    CutAndPasteConfig,
    InputConfig,
    OptimizerConfig,
    TextConfig,
    VideoConfig,
)

CONFIG = Config(
    video=VideoConfig(
        frames=12,
        resolution=60,
        patch=12,
        width=128,
        layers=3,
        heads=4,
        mlp_width=512,
        group_tokens=8,
        grouping_after=(2, 3),
        grouping_out="xavier",
        attention_block=None,
    ),
    text=TextConfig(
        vocabulary=512, tokens=16, positions=16, width=128, layers=2, heads=4, mlp_width=512
    ),
    joint_width=128,
    # The captions name colours and directions, so neither jitter nor flips are allowed.
    input=InputConfig(
        short_side=64, scale=(1.0, 1.0), flip=False, jitter_probability=0.0, grey_probability=0.0
    ),
    cut_and_paste=CutAndPasteConfig(pair_group=8, from_share=0.423),
    optimizer=OptimizerConfig(name="muon", learning_rate=3e-3, weight_decay=0.05, warmup_share=0.1),
    batch=64,
    max_steps=520,
    epochs=20,
    log_every=10,
    checkpoint_every=100,
)
