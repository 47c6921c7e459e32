"""The report of a run as one page: figures, curves, films of search results, structure.

It may import tasks and the rooms below it.
"""
