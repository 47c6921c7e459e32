"""The command line: arguments, help and messages.

This package may import every other package of the stage.
"""
