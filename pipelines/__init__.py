"""Captioned spans of videos to a snapshot of training records."""
