"""Metrics alone: NumPy arrays and files in, numbers out, no model.

It may import configs.
"""
