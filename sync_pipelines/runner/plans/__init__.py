"""Durable plans: the file of one, what it was made for, and how it is shown."""
