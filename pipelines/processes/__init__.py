"""Processes of this machine: start, wait, spread work.

It may import no other room.
"""
