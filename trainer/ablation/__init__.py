"""Ablations: variants of a run over seeds, measured alike (tables 5, 6 and 12).

It may import tasks and the rooms below it.
"""
