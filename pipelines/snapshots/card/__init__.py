"""A snapshot for a person: text, contact sheets, and a data card in HTML.

It may import the rest of snapshots and what is below it.
"""
