"""Text-video retrieval: captions find their clips, clips find their captions."""
