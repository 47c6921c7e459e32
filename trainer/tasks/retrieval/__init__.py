"""Text-video retrieval: clips ranked by caption, and captions ranked by clip."""
