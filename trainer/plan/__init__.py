"""Plans of a run's step: memory, FLOPs and collectives on hardware that may be absent.

It may import runs and the rooms below it.
"""
