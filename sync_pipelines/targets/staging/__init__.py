"""A table synced in bulk: items are loaded beside it, the database compares, and ranges of the plan are applied."""
