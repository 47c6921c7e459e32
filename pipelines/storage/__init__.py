"""Files on a disk or in a bucket.

It may import no other room.
"""
