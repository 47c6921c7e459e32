"""The command line: arguments, help texts, messages.

It may import every other room.
"""
