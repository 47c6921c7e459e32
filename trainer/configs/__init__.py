"""Configurations: the dataclasses, and the presets by name."""

from trainer.configs import paper, tiny

PRESETS = {"paper": paper.CONFIG, "tiny": tiny.CONFIG}
