"""Processes on this machine: starting them, waiting for them and distributing work.

This package imports no other package of the stage.
"""
