"""The JAX stage: a snapshot in, a trained and evaluated S-ViLM out.

Rooms, top first: cli; ablation, report and figures; tasks; training; inference, weights and plan;
runs; method; data, distributed and evaluation; configs. Each imports only rooms below it
(pyproject.toml).
"""
