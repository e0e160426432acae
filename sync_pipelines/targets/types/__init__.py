"""What becomes of a value in a column, and how the two are compared: one codec per column type."""
