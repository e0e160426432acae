"""Fetches items from the source: all of them into a snapshot, or single ones again."""
