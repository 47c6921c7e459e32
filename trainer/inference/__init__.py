"""Uses of a trained model: embedding, search, export of features.

It may import runs and the rooms below it.
"""
