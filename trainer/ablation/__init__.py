"""Ablations: the same run in variants, over seeds, measured alike (tables 5, 6 and 12).

It may import tasks and what is below it.
"""
