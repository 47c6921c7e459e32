"""Uses of a trained model: embed, search, export features.

It may import runs and what is below it.
"""
