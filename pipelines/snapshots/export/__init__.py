"""Exports of a snapshot's records to other trainers' formats, one file per shard.

The package may import the rest of `snapshots` and the packages below it.
"""
