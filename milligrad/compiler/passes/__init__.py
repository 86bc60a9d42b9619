"""The passes: from a trace to loops. `pipeline.py` says in which order they are taken."""
