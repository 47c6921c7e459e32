"""Exposure of runs to videos: which steps drew which clips, by arithmetic, without training.

It imports the rooms below it: tasks, training, runs, method and data.
"""
