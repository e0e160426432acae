"""Twins and contract checks for those who write targets and sources."""
