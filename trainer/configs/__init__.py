"""Configurations: the dataclasses, and the presets by name."""

from trainer.configs import paper, paper_sizes, tiny

PRESETS = {
    "paper": paper.CONFIG,
    "paper-large": paper_sizes.LARGE,
    "paper-huge": paper_sizes.HUGE,
    "tiny": tiny.CONFIG,
}
