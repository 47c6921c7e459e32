"""The command line: arguments, help, messages.

It may import every other room.
"""
