"""How fast a sync is, measured beside others on the same work. `python -m benchmarks --help` says how."""
