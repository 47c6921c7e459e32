"""The Beam graph and its work items, for any engine.

This package may import planning and lower layers.
"""
