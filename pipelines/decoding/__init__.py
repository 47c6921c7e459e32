"""Decode spans of an untrusted video to frames, in children that can be ended.

It may import storage and processes.
"""
