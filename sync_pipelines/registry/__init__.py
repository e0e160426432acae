"""Finds the sync jobs: the files of the jobs packages, and what was registered by hand."""
