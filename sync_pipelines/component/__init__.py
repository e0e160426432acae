"""Syncs declared in YAML: `SyncComponent`, a component of Dagster's `dg`."""
