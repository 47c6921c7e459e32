"""Input pipeline from a snapshot to batches for the device: read, decode, tokenize, batch.

It may import configs.
"""
