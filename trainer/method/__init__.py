"""The paper's method, equation by equation, up to the training step.

It may import data, distributed and configs.
"""
