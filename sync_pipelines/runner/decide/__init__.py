"""Decides what is to become of each item: the diff, by pages or by the database, and its rules."""
