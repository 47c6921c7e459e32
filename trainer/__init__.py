"""The JAX stage: trains S-ViLM on a snapshot and evaluates it.

Rooms, top first: cli; ablation, report and figures; tasks; training; inference, weights and plan;
runs; method; data, distributed and evaluation; configs. Each imports only rooms below it
(pyproject.toml).
"""
