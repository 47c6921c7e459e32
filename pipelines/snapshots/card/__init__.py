"""Readable views of a snapshot: text, contact sheets, and a data card in HTML.

The package may import the rest of `snapshots` and the packages below it.
"""
