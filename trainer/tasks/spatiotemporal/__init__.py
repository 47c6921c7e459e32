"""Spatiotemporal localisation, as AVA v2.2 has it: what does each person do, once a second?"""
