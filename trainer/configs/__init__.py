"""Configurations: the dataclasses, and the presets by name.

It imports no other room.
"""

from trainer.configs import base16, paper, paper_sizes, small, tiny

PRESETS = {
    "paper": paper.CONFIG,
    "paper-large": paper_sizes.LARGE,
    "paper-huge": paper_sizes.HUGE,
    "base-16": base16.CONFIG,
    "small": small.CONFIG,
    "tiny": tiny.CONFIG,
}
