"""Files on a disk or in a bucket.

This package imports no other package of the stage.
"""
