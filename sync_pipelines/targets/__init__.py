"""The target that is one database table: declared as a `SqlTable`, opened for a run, and written in batches."""
