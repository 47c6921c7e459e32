"""The part of a build before decoding: inputs, filters and configuration.

This package may import snapshots and lower layers.
"""
