"""The Beam stage, which turns captioned spans of videos into a snapshot of training records.

Packages, from the top layer down: cli, shapes and building, planning, snapshots, sources, decoding,
storage and processes. Each package imports only lower layers: import-linter enforces it
(pyproject.toml).
"""
