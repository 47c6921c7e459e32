"""Finished snapshots: write, read, verify, compare, remove, export, describe.

It may import sources
and what is below it.
"""
