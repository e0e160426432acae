"""Durable files of a run: the snapshot of a fetch and the plan of a diff, as Parquet."""
