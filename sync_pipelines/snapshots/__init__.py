"""What is on disk for a run: the snapshot of its fetch and the plan of its diff, as Parquet files in a folder."""
