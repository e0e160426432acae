"""Holds what a run works with besides its job: the workspace, the lease, the run log."""
