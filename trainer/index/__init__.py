"""An index of a run's clips, built once and then searched: `svilm-train index` and `search`.

It may import inference and the rooms below it.
"""
