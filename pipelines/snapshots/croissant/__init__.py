"""Croissant 1.1 descriptions of snapshots and of their exports, https://docs.mlcommons.org/croissant.

The package may import the rest of `snapshots`, but not `export`.
"""
