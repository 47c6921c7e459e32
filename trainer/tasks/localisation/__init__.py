"""Temporal action localisation, as ActivityNet-1.3 has it: when does which action happen?"""
