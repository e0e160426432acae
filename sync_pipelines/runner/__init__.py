"""Carries a sync out: fetch, diff, apply, accounts. Owns `run_sync`, `sync_single_item` and the drain."""
