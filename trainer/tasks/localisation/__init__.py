"""Temporal action localisation, as in ActivityNet-1.3: actions with their start and end times."""
