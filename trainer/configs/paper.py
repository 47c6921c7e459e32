"""The paper's run (section 4.2): ViT-B/16×2 over 32 frames, BERT-base, batch 1024, SGD."""

from trainer.configs.config import ComputeConfig, Config, CutAndPasteConfig

# The defaults of Config are the paper's. It is silent on how clips pair up for cut-and-paste:
# groups of 8 divide each device's share of the batch on up to 128 devices. And on how it computes:
# bfloat16 with the least kept of each layer fits the most machines.
CONFIG = Config(
    cut_and_paste=CutAndPasteConfig(pair_group=8),
    compute=ComputeConfig(dtype="bfloat16", remat="block"),
)
