"""The runs over all items of a sync: full run, dry run, and the application of a plan."""
