"""Downstream tasks: what each adds to the encoders, how it is trained and predicted.

It may import training and what is below it.
"""
