"""The model: video encoder, grouping blocks, text encoder, and S-ViLM, which combines them.

It may import configs.
"""
