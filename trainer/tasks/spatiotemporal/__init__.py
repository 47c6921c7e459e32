"""Spatiotemporal localisation, as in AVA v2.2: each person's actions, once a second."""
