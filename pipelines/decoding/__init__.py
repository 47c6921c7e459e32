"""Decoders of spans of an untrusted video to frames, in child processes that can be killed.

This package may import `storage` and `processes`.
"""
