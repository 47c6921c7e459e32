"""Published checkpoints in the Hugging Face layout, read and written.

It may import runs and what is below it.
"""
