"""Starting weights: published checkpoints in the Hugging Face layout, read and written."""
