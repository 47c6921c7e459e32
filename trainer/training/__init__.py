"""The training loop of a run and its outputs.

It may import inference, weights and what is below them.
"""
