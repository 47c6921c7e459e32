"""Metrics of NumPy arrays and prediction files, without a model.

This package may import configs.
"""
