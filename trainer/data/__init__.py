"""A snapshot in, batches for the device out: read, decode, tokenize, batch.

It may import configs.
"""
