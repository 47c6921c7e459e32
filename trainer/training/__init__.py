"""The loop of a run and what it leaves behind.

It may import inference, weights and what is below
them.
"""
