"""The JAX stage: a snapshot in, a trained and evaluated S-ViLM out."""
