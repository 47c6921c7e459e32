"""A run as one page: figures, curves, films of what it finds, its structure.

It may import tasks and what is below it.
"""
