"""Readers and writers of published checkpoints in the Hugging Face layout.

This package may import runs and the packages below it.
"""
