"""A table beside its staging tables: items are loaded there, the database compares, and writes batch by batch."""
