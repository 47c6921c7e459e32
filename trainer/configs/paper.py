"""The paper's run (section 4.2): ViT-B/16×2 over 32 frames, BERT-base, batch 1024, SGD."""

from trainer.configs.config import ComputeConfig, Config, CutAndPasteConfig

# The defaults of Config are the paper's, which specifies neither of these two. Cut-and-paste groups
# of 8 divide each device's share of the batch on up to 128 devices. bfloat16 with the minimum of
# saved activations fits the most machines.
CONFIG = Config(
    cut_and_paste=CutAndPasteConfig(pair_group=8),
    compute=ComputeConfig(dtype="bfloat16", remat="block"),
)
