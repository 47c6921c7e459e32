"""A run as one page to look at: figures, curves, films of what it finds, its structure."""
