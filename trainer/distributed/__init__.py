"""Devices and hosts: mesh, processes, hardware.

It may import configs.
"""
