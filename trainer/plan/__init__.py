"""Compiling a run's step for hardware that need not be there, and what the program tells."""
