"""Server of a search page and an HTTP API over the clips of a snapshot.

It may import inference, figures' metrics in evaluation, and the rooms below them.
"""
