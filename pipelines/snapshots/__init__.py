"""Operations on finished snapshots: write, read, verify, compare, remove, export and describe.

The package may import `sources` and the packages below it.
"""
