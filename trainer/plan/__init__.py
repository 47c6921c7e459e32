"""Compile a run's step for hardware that is not there, and report memory, FLOPs and collectives.

It may import runs and what is below it.
"""
