"""Converts values for a column, and compares them: one codec per column type."""
