"""The Beam stage: captioned spans of videos to a snapshot of training records.

Rooms, top first: cli; shapes and building; planning; snapshots; sources; decoding; storage and
processes. Each imports only rooms below it (pyproject.toml).
"""
