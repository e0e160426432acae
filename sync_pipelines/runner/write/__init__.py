"""Writes what was decided, checks for conflicts, and records the history."""
