"""Notes items that failed, and resolves them later."""
