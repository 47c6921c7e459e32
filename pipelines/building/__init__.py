"""The Beam graph and its work items, on any engine.

It may import planning and what is below it.
"""
