"""The items that failed: noted, retried later, resolved."""
