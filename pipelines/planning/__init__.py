"""A build before anything is decoded: inputs, filters, configuration.

It may import snapshots and
what is below it.
"""
