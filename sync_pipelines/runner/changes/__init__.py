"""Changes of single items: drains, retries, and one item at once."""
