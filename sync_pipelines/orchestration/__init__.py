"""The Dagster coat over the runner."""
