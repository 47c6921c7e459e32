"""Server of a search page and an HTTP API over the clips of an index.

It may import index, inference and the rooms below them.
"""
