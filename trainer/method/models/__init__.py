"""The model: video encoder, grouping blocks, text encoder, and S-ViLM made of them.

It may import configs.
"""
