"""A run's folder: configuration, checkpoints, lock, seen clips.

It may import method and what is below it.
"""
