"""Downstream tasks: the heads on the encoders, their training and their predictions.

This package may import training and the packages below it.
"""
